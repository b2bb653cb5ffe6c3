/**
 * The page in Chromium against the same machines in Node: the packages' sources, bundled by Vite, run a Trust Domain to
 * its quote, machine code, and Debian's firmware and kernel.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";
import { build, preview, type PreviewServer } from "vite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { image } from "../debian/support.js";
import { type Report, runMachine } from "./machines.js";
import type { PageRequest } from "./page.js";

const IMAGES = {
  bios: image("trixie/OVMF.fd"),
  kernel: image("trixie/vmlinuz"),
  initrd: image("trixie/initrd.gz"),
};

const outDir = mkdtempSync(join(tmpdir(), "swtdx-browser-"));
let server: PreviewServer;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  const configFile = fileURLToPath(new URL("vitest.config.ts", import.meta.url));
  await build({ configFile, logLevel: "error", build: { outDir, emptyOutDir: true } });
  server = await preview({ configFile, logLevel: "error", build: { outDir }, preview: { port: 0 } });
  browser = await chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    args: [
      ...["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
      ...["--disable-background-networking", "--disable-component-update", "--disable-sync"],
    ],
  });
  page = await browser.newPage();
  page.on("pageerror", (error) => process.stderr.write(`page: ${error.stack}\n`));
  page.on("console", (message) => process.stderr.write(`page: ${message.text()}\n`));
  for (const [name, path] of Object.entries(IMAGES))
    await page.route(`**/images/${name}`, (route) => route.fulfill({ path }));
  await page.goto(server.resolvedUrls!.local[0]);
  await page.waitForFunction(() => "swtdxRun" in globalThis);
});

afterAll(async () => {
  await browser?.close();
  await server?.close();
  rmSync(outDir, { recursive: true, force: true });
});

const inBrowser = (request: PageRequest): Promise<Report> =>
  page.evaluate(
    (given) => (globalThis as unknown as { swtdxRun: (r: PageRequest) => Promise<Report> }).swtdxRun(given),
    request,
  );

/** BIOS of 64 KiB: prints the 40th Fibonacci number in hexadecimal by the serial port, then resets the machine. */
function fibonacciBios(): Uint8Array {
  const code = [
    ...[0xfa, 0x66, 0xb8, 0, 0, 0, 0, 0x66, 0xbb, 1, 0, 0, 0, 0xb9, 40, 0], // cli; eax = 0; ebx = 1; cx = 40
    ...[0x66, 0x0f, 0xc1, 0xc3, 0xe2, 0xfa], // again: xadd ebx, eax; loop again
    ...[0xb9, 8, 0, 0xba, 0xf8, 0x03], // cx = 8; dx = 0x3f8
    ...[0x66, 0xc1, 0xc0, 0x04, 0x66, 0x89, 0xc5, 0x24, 0x0f], // digit: rol eax, 4; mov ebp, eax; and al, 15
    ...[0x3c, 0x0a, 0x1c, 0x69, 0x2f, 0xee, 0x66, 0x89, 0xe8], // cmp al, 10; sbb al, 0x69; das; out dx, al; eax = ebp
    ...[0xe2, 0xec, 0xb0, 0x0a, 0xee], // loop digit; a line feed
    ...[0xba, 0xf9, 0x0c, 0xb0, 0x06, 0xee, 0xf4, 0xeb, 0xfd], // reset by port 0xcf9; hlt
  ];
  const image = new Uint8Array(65536);
  image.set(code);
  image.set([0xe9, 0x0d, 0x00], 0xfff0); // the reset vector: jmp to the start
  return image;
}

describe("in Chromium", () => {
  test("a TypeScript guest's TD runs to its quote, as in Node", async () => {
    const report = await inBrowser({});
    expect(report.outcome.exit).toBe("poweroff");
    expect(report.console).toContain("init: hello from a Trust Domain");
    expect(report.objections).toEqual([]);
    expect(report).toEqual(await runMachine({}));
  });

  test("machine code runs, as in Node", async () => {
    const bios = fibonacciBios();
    const machine = { plain: true, memoryBytes: 64 * 2 ** 20 };
    const report = await inBrowser({ ...machine, bios: [...bios] });
    expect(report.console).toBe("06197ECB\n");
    expect(report.outcome.exit).toBe("reset");
    expect(report).toEqual(await runMachine({ ...machine, bios }));
  });

  test("Debian's firmware and kernel run in a TD to their quote, as in Node", async () => {
    const append = "console=ttyS0 report_data=c0ffee";
    const urls = Object.fromEntries(Object.keys(IMAGES).map((name) => [name, `/images/${name}`]));
    const files = Object.fromEntries(
      Object.entries(IMAGES).map(([name, path]) => [name, new Uint8Array(readFileSync(path))]),
    );
    const [report, inNode] = await Promise.all([
      inBrowser({ ...urls, append }),
      runMachine({ ...files, append }),
    ]);
    expect(report.console).toContain("init: in a Trust Domain");
    expect(report.outcome.exit).toBe("poweroff");
    expect(report.objections).toEqual([]);
    expect(report).toEqual(inNode);
  });
});
