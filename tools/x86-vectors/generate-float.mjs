/**
 * Generates packages/hardware/x86/test/vectors/float.bin.br: assembles the forms of float-forms.mjs, runs each natively
 * with many operands (float.c) and stores the outcomes. Needs Linux on x86-64 and gcc; run with:
 * node tools/x86-vectors/generate-float.mjs
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants } from "node:zlib";
import { floatCrosses, floatDigests, floatForms, floatSequences, stringDigests } from "./float-forms.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = fileURLToPath(new URL("../../packages/hardware/x86/test/vectors/", import.meta.url));
const work = mkdtempSync(join(tmpdir(), "x86-float-"));

const list = [...floatForms(), ...floatDigests(), ...floatCrosses(), ...stringDigests(), ...floatSequences()];
const lines = [".intel_syntax noprefix", ".data", ".globl forms", "forms:"];
for (const { text, name = text, xmm, memory, x87, digest, cross, cases } of list) {
  lines.push(
    `.byte 2f-1f, '${xmm}', '${memory}', ${(x87 ? 1 : 0) | (digest ? 2 : 0) | (cross ? 4 : 0)}`,
    `.short ${cases}`,
    `.byte 4f-3f`,
    `3: .ascii "${name}"`,
    "4:",
    `1: ${text}`,
    "2:",
  );
}
lines.push(".byte 0", '.section .note.GNU-stack,"",@progbits');
writeFileSync(join(work, "forms.S"), lines.join("\n") + "\n");
try {
  execFileSync(
    "gcc",
    ["-O1", "-static", "-no-pie", "-o", join(work, "float"), join(here, "float.c"), join(work, "forms.S")],
    { stdio: "inherit" },
  );
  const raw = execFileSync(join(work, "float"), { maxBuffer: 1 << 28 });
  const packed = brotliCompressSync(raw, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 22 },
  });
  writeFileSync(join(out, "float.bin.br"), packed);
  console.log(`${list.length} forms, ${raw.length} bytes, ${packed.length} compressed`);
} finally {
  if (process.argv.includes("--keep")) console.log(work);
  else rmSync(work, { recursive: true });
}
