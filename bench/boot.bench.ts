/**
 * Debian's firmware and kernel from launch to init's first line, with 512 MiB: as an ordinary VM of QEMU's TCG, as one
 * of `swtdx boot --plain`, and as a TD. Time as a ratio to QEMU's of the same call (goal: at most 5), and resident
 * memory beyond the guest's own (goal: at most 500 MiB). `SWTDX_IMAGES` names the folder that `swtdx images` filled.
 */
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { resolve } from "node:path";

const GUEST_MIB = 512;
const root = fileURLToPath(new URL("..", import.meta.url));
const command = resolve(root, "apps/cli/bin/swtdx.js");
const image = (name: string): string =>
  resolve(root, process.env["SWTDX_IMAGES"] ?? "images", "trixie", name);
const [bios, kernel, initrd] = ["OVMF.fd", "vmlinuz", "initrd.gz"].map(image);
const arrived = /^init: Linux .*$/m;
const SAMPLE_MS = 200;

interface Boot {
  readonly seconds: number;
  /** Peak resident set. */
  readonly mebibytes: number;
}

/** Runs a command until the guest's init speaks on its standard output. @throws Error when it ends before */
function boot(file: string, args: readonly string[]): Promise<Boot> {
  return new Promise((done, fail) => {
    const started = performance.now();
    const child = spawn(file, args, { cwd: root, stdio: ["ignore", "pipe", "ignore"] });
    let [console, peak] = ["", 0];
    const sample = setInterval(() => {
      try {
        const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
        peak = Math.max(peak, Number(/^VmHWM:\s*(\d+)/m.exec(status)?.[1] ?? 0));
      } catch {
        // It has ended: `close` follows.
      }
    }, SAMPLE_MS);
    let seconds = 0;
    child.stdout.on("data", (chunk: Buffer) => {
      console += chunk.toString("latin1");
      if (seconds !== 0 || !arrived.test(console)) return;
      seconds = (performance.now() - started) / 1000;
      child.kill("SIGKILL");
    });
    child.on("error", (error) => {
      clearInterval(sample);
      fail(error);
    });
    child.on("close", (code) => {
      clearInterval(sample);
      if (seconds > 0) done({ seconds, mebibytes: peak / 1024 });
      else fail(new Error(`${file} ended with ${code} before init: ${console.slice(-300)}`));
    });
  });
}

function missing(): string | null {
  if (!existsSync(resolve(root, "apps/cli/dist/main.js"))) return "the command is not built: npm run build";
  const absent = [bios, kernel, initrd].find((path) => !existsSync(path));
  return absent === undefined ? null : `${absent} is not there: npx swtdx images`;
}

const lack = missing();
if (lack !== null) {
  console.error(lack);
  process.exit(2);
}
const files = ["-bios", bios, "-kernel", kernel, "-initrd", initrd, "-append", "console=ttyS0"];
const qemu = [
  "-accel",
  "tcg",
  "-machine",
  "q35",
  "-cpu",
  "max",
  "-m",
  `${GUEST_MIB}`,
  "-nodefaults",
  "-no-reboot",
];
const swtdx = [command, "boot", "--quiet", "--memory", `${GUEST_MIB}M`];
const ours = [...swtdx, ...files.map((word) => word.replace(/^-(?=[a-z])/, "--"))];
const cases: readonly [string, string, readonly string[]][] = [
  ["QEMU, TCG", "qemu-system-x86_64", [...qemu, "-display", "none", "-serial", "stdio", ...files]],
  ["swtdx boot --plain", process.execPath, [...ours, "--plain"]],
  ["swtdx boot, a TD", process.execPath, ours],
];

let yardstick = 0;
for (const [name, file, args] of cases) {
  try {
    const { seconds, mebibytes } = await boot(file, args);
    yardstick ||= seconds;
    const beyond = Math.round(mebibytes - GUEST_MIB);
    console.log(
      `${name.padEnd(20)} ${seconds.toFixed(1).padStart(6)} s  ${(seconds / yardstick).toFixed(2)} x QEMU  ` +
        `${mebibytes.toFixed(0)} MiB resident (${beyond < 0 ? "" : "+"}${beyond})`,
    );
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    console.error(`${file} is not there: apt-get install qemu-system-x86`);
    process.exit(2);
  }
}
