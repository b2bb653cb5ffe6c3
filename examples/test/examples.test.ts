/** Every example runs by itself, from the sources, prints something and exits with 0. */
import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { layers } from "../../tools/layers.mjs";

const folder = fileURLToPath(new URL("..", import.meta.url));
const examples = readdirSync(folder).filter((name) => name.endsWith(".ts"));

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

function run(file: string): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, ["--conditions=@swtdx/source", "--import", "tsx", folder + file], {
      cwd: folder,
      stdio: ["ignore", "pipe", "pipe"],
    });
    const output = { stdout: "", stderr: "" };
    child.stdout.on("data", (chunk: Buffer) => (output.stdout += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (output.stderr += chunk.toString()));
    child.on("error", reject);
    child.on("close", (code) => resolve({ code, ...output }));
  });
}

describe("examples", () => {
  it("are one for each package, named after it", () => {
    const packages = layers.filter(({ folder }) => folder.startsWith("packages/"));
    expect(examples.sort()).toEqual(packages.map(({ name }) => `${name}.ts`).sort());
  });

  for (const example of examples)
    it(`${example} runs`, async () => {
      const { code, stdout, stderr } = await run(example);
      expect(stderr).toBe("");
      expect(code).toBe(0);
      expect(stdout.trim()).not.toBe("");
    });
});
