/** Runs the built command with the images that SWTDX_IMAGES names, and keeps what a boot left. */
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { createReadStream, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { afterAll, expect } from "vitest";
import { openInstallation } from "../../src/state/installation.js";

const root = fileURLToPath(new URL("../../../..", import.meta.url));
const command = join(root, "apps/cli/bin/swtdx.js");
const folder = resolve(root, process.env["SWTDX_IMAGES"] ?? "images");

/** A directory for a file's boots, removed at its end; the command's state is in it. */
export const directory = mkdtempSync(join(tmpdir(), "swtdx-debian-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
// Made first, so that commands that run at the same time do not race for it.
await openInstallation(join(directory, "swtdx"));

/** Path of an image, such as trixie/vmlinuz. */
export function image(name: string): string {
  const path = join(folder, name);
  if (!existsSync(path)) throw new Error(`${path} is not there: "swtdx images ${folder}" fetches it`);
  return path;
}

/** A file of a package, as the manifest has it. */
export function packaged(suite: string, role: string): string {
  const { packages } = JSON.parse(readFileSync(image("manifest.json"), "utf8")) as {
    packages: { suite: string; files: { role: string; path: string }[] }[];
  };
  const files = packages.filter((one) => one.suite === suite).flatMap((one) => one.files);
  return image(files.find((file) => file.role === role)?.path ?? `(no ${role} of ${suite})`);
}

export interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

const environment = { ...process.env, XDG_DATA_HOME: directory, NO_COLOR: "1" };

/** Runs the command; kills it when `until` is in what it prints. */
export function swtdx(args: readonly string[], until?: RegExp): Promise<Result> {
  return new Promise((done, reject) => {
    const child = spawn(process.execPath, [command, ...args], {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
      env: environment,
    });
    const result: Result = { code: null, stdout: "", stderr: "" };
    child.stdout.on("data", (chunk: Buffer) => {
      result.stdout += chunk.toString("latin1");
      if (until?.test(result.stdout)) child.kill("SIGKILL");
    });
    child.stderr.on("data", (chunk: Buffer) => (result.stderr += chunk.toString()));
    child.on("error", reject);
    child.on("close", (code) => done({ ...result, code }));
  });
}

export interface Summary {
  exit: string;
  td: { mrtd: string; rtmr: string[]; attributes: string } | null;
  guest: { instructions: number; exits: Record<string, number> };
  virtualSeconds: number;
  seed: string;
  quote: { verified: boolean } | null;
}

export interface Boot extends Result {
  readonly summary: Summary;
  /** The console's lines. */
  readonly lines: readonly string[];
  /** SHA-256 of the trace, if it was asked for. */
  readonly trace: string | null;
  /** Where quote and event log lie, of a TD. */
  readonly quote: string;
  readonly eventLog: string;
}

/** Boots to the end, with quote and event log of a TD. What does not power off fails with the console's end. */
export async function boot(
  name: string,
  args: readonly string[],
  options: { traced?: boolean } = {},
): Promise<Boot> {
  const path = (what: string): string => join(directory, `${name}.${what}`);
  const td = !args.includes("--plain");
  let trace: Promise<string> | null = null;
  if (options.traced) {
    spawnSync("mkfifo", [path("trace")]);
    const hash = createHash("sha256");
    trace = pipeline(createReadStream(path("trace")), hash).then(() => hash.digest("hex"));
  }
  const result = await swtdx([
    ...["boot", "--quiet", "--json", path("json"), "--timeout", "1100"],
    ...(td ? ["--quote-out", path("quote"), "--eventlog-out", path("ccel")] : []),
    ...(trace ? ["--trace", path("trace")] : []),
    ...args,
  ]);
  const tail = result.stdout.split("\n").slice(-25).join("\n");
  expect(result.code, `${name} ended with ${result.code}: ${result.stderr}\n${tail}`).toBe(0);
  return {
    ...result,
    summary: JSON.parse(readFileSync(path("json"), "utf8")) as Summary,
    lines: result.stdout.replaceAll("\r", "").split("\n"),
    trace: await trace,
    quote: path("quote"),
    eventLog: path("ccel"),
  };
}

/** Whether a line of the console ends so. */
export const says = (lines: readonly string[], text: string): boolean =>
  lines.some((line) => line.endsWith(text));

export interface Event {
  register: string;
  type: string;
  digest: string;
}

export async function json<T>(...args: readonly string[]): Promise<T> {
  const { code, stdout, stderr } = await swtdx([...args, "--json"]);
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout) as T;
}

export const sha384 = (data: Uint8Array | string): string => createHash("sha384").update(data).digest("hex");

/** SHA-384 of a PE image without its checksum and signatures: Microsoft's "Windows Authenticode PE Signature Format". */
export function authenticode(path: string): string {
  const bytes = readFileSync(path);
  const optional = bytes.readUInt32LE(0x3c) + 24;
  const checksum = optional + 64;
  const pe32plus = bytes.readUInt16LE(optional) === 0x20b;
  const certificates = optional + (pe32plus ? 112 : 96) + 4 * 8;
  const start = bytes.readUInt32LE(certificates) || bytes.length;
  const end = start + bytes.readUInt32LE(certificates + 4);
  const hash = createHash("sha384");
  for (const [from, to] of [
    [0, checksum],
    [checksum + 4, certificates],
    [certificates + 8, start],
    [end, bytes.length],
  ])
    hash.update(bytes.subarray(from, to));
  return hash.digest("hex");
}

/** A string as EFI has it: UTF-16 with its NUL. */
export const utf16 = (text: string): Uint8Array => Buffer.from(`${text}\0`, "utf16le");
