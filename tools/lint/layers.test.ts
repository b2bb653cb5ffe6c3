/** The layer rules hold: sample code is linted as if it lay in a package; wrong imports fail, right ones pass. */
import { fileURLToPath } from "node:url";
import { ESLint } from "eslint";
import tseslint from "typescript-eslint";
import { describe, expect, it } from "vitest";
import { packages } from "../layers.mjs";

const root = fileURLToPath(new URL("../..", import.meta.url));
// The sample files do not exist, so they have no types; the rules under test need none.
const eslint = new ESLint({
  cwd: root,
  overrideConfig: [
    tseslint.configs.disableTypeChecked,
    { rules: { "@typescript-eslint/no-unused-vars": "off" } },
  ],
});

async function violations(file: string, code: string): Promise<string[]> {
  const results = await eslint.lintText(code + "\n", { filePath: root + file });
  return results.flatMap(({ messages }) => messages.map(({ ruleId, message }) => ruleId ?? message));
}

const edge = "boundaries/dependencies";
const importing = (what: string) => `import * as it from "${what}";\nexport const value = it;`;

describe("which package may import which", () => {
  it.each(packages)("$name imports exactly the packages of its row", async ({ name, folder, calls }) => {
    for (const other of packages) {
      if (other.name === name) continue;
      const found = await violations(`${folder}/src/sample.ts`, importing(`@swtdx/${other.name}`));
      expect(found, `${name} imports ${other.name}`).toEqual(calls.includes(other.name) ? [] : [edge]);
    }
  });

  it.each([
    ["abi", "packages/abi", "x86"],
    ["mktme", "packages/hardware/mktme", "x86"],
    ["tdx-module", "packages/tdx-module", "mktme"],
    ["linux-host", "packages/linux-host", "tdx-module"],
    ["kvm", "packages/kvm", "tdx-module"],
    ["qemu", "packages/qemu", "linux-host"],
    ["edk2", "packages/edk2", "grub"],
    ["grub", "packages/grub", "guest"],
    ["guest", "packages/guest", "edk2"],
    ["attestation", "packages/attestation", "qemu"],
    ["qemu", "packages/qemu", "cli"],
  ])("%s may not import what the design keeps from it", async (_name, folder, other) => {
    expect(await violations(`${folder}/src/sample.ts`, importing(`@swtdx/${other}`))).toEqual([edge]);
  });

  it("holds for every form of import", async () => {
    for (const code of [
      `import type * as it from "@swtdx/qemu";\nexport type Value = typeof it;`,
      `export * from "@swtdx/qemu";`,
      `export { value } from "@swtdx/qemu";`,
      `export const value = import("@swtdx/qemu");`,
      `import "@swtdx/qemu";`,
    ])
      expect(await violations("packages/kvm/src/sample.ts", code), code).toEqual([edge]);
  });

  it("holds in folders inside src", async () => {
    expect(await violations("packages/hardware/cpu/src/vmx/sample.ts", importing("@swtdx/kvm"))).toEqual([
      edge,
    ]);
    expect(await violations("packages/hardware/cpu/src/vmx/sample.ts", importing("@swtdx/abi"))).toEqual([]);
  });

  it("lets applications, tests, examples, benches and tools import every package", async () => {
    for (const file of ["apps/cli/src", "packages/abi/test", "apps/cli/test", "examples", "bench", "tools"])
      for (const { name } of packages)
        expect(await violations(`${file}/sample.ts`, importing(`@swtdx/${name}`)), file).toEqual([]);
  });
});

describe("only through the entry", () => {
  it.each([
    [
      "a path into a package it may import",
      "packages/kvm/src/sample.ts",
      "@swtdx/abi/src/index.js",
      "no-restricted-imports",
    ],
    [
      "a relative path to another package's entry",
      "packages/kvm/src/sample.ts",
      "../../abi/src/index.js",
      edge,
    ],
    ["a relative path to another package", "packages/edk2/src/sample.ts", "../../grub/src/index.js", edge],
    [
      "a path into a package, from an application",
      "apps/cli/src/sample.ts",
      "../../../packages/abi/src/index.js",
      edge,
    ],
    ["a path into a package, from an example", "examples/sample.ts", "../packages/abi/src/index.js", edge],
    [
      "a path into another package, from a test",
      "packages/kvm/test/sample.test.ts",
      "../../abi/src/index.js",
      edge,
    ],
    ["a file that belongs to no package", "packages/abi/src/sample.ts", "../../../vitest.config.js", edge],
    ["a tool, from an application", "apps/cli/src/sample.ts", "../../../tools/layers.mjs", edge],
  ])("refuses %s", async (_what, file, source, rule) => {
    expect(await violations(file, importing(source))).toContain(rule);
  });

  it("lets a package and its tests import the package's own files", async () => {
    expect(await violations("packages/kvm/src/vmx/sample.ts", importing("../index.js"))).toEqual([]);
    expect(await violations("packages/kvm/test/sample.test.ts", importing("../src/index.js"))).toEqual([]);
  });

  it("wants relative imports to end in .js", async () => {
    expect(await violations("packages/kvm/src/vmx/sample.ts", importing("../index"))).toEqual([
      "no-restricted-syntax",
    ]);
  });
});

it("leaves libraries to package.json", async () => {
  expect(await violations("packages/tdx-module/src/sample.ts", importing("@noble/hashes/sha2.js"))).toEqual(
    [],
  );
});

describe("packages run in browsers", () => {
  it.each(["node:fs", "fs", "node:crypto", "fs/promises"])("refuses %s", async (source) => {
    expect(await violations("packages/qemu/src/sample.ts", importing(source))).toEqual([
      "no-restricted-imports",
    ]);
  });

  it("refuses a dynamic import of a Node module and Node's globals", async () => {
    const file = "packages/qemu/src/sample.ts";
    expect(await violations(file, `export const fs = import("node:fs");`)).toEqual(["no-restricted-syntax"]);
    expect(await violations(file, `export const value = process.env;`)).toEqual(["no-restricted-globals"]);
  });

  it("allows Node at the edge, in tests and in applications", async () => {
    for (const file of [
      "packages/qemu/src/sample.node.ts",
      "packages/qemu/src/node/sample.ts",
      "packages/qemu/test/sample.test.ts",
      "apps/cli/src/sample.ts",
    ])
      expect(await violations(file, importing("node:fs")), file).toEqual([]);
  });

  it("refuses chance and the wall clock", async () => {
    expect(await violations("packages/abi/src/sample.ts", "export const value = Math.random();")).toEqual([
      "no-restricted-properties",
    ]);
  });
});
