/** Runs the command from its sources: in a process of its own, or faster in this one. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, vi } from "vitest";
import { run } from "../../src/run.js";

export interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

const root = fileURLToPath(new URL("../../../..", import.meta.url));
const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url));

/** A directory for a test file, removed at its end; the command's state is in it. */
export const directory = mkdtempSync(join(tmpdir(), "swtdx-cli-"));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** In a process of its own. */
export function spawnSwtdx(...args: readonly string[]): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--conditions=@swtdx/source", "--import", "tsx", main, ...args], {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, XDG_DATA_HOME: directory, NO_COLOR: "1", SWTDX_DEBUG: "" },
    });
    const result: Result = { code: null, stdout: "", stderr: "" };
    child.stdout.on("data", (chunk: Buffer) => (result.stdout += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (result.stderr += chunk.toString()));
    child.on("error", reject);
    child.on("close", (code) => resolve({ ...result, code }));
  });
}

/** In this process: what it writes is caught. One at a time. */
export async function swtdx(...args: readonly string[]): Promise<Result> {
  const result: Result = { code: null, stdout: "", stderr: "" };
  vi.stubEnv("XDG_DATA_HOME", directory);
  vi.stubEnv("NO_COLOR", "1");
  const spies = (["stdout", "stderr"] as const).map((name) =>
    vi.spyOn(process[name], "write").mockImplementation((text) => {
      result[name] += typeof text === "string" ? text : new TextDecoder().decode(text);
      return true;
    }),
  );
  try {
    result.code = await run(args);
  } finally {
    for (const spy of spies) spy.mockRestore();
    vi.unstubAllEnvs();
  }
  return result;
}
