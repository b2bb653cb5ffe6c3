/**
 * Generates packages/hardware/x86/test/vectors: assembles the forms, runs each natively with many inputs (oracle.c) and
 * stores the outcomes. Needs Linux on x86-64 and gcc; run with: node tools/x86-vectors/generate.mjs
 */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants } from "node:zlib";
import { forms } from "./forms.mjs";

const DEFAULT_CASES = 40;
const PIN_BITS = "DIBNCXTVEF";
const here = fileURLToPath(new URL(".", import.meta.url));
const out = fileURLToPath(new URL("../../packages/hardware/x86/test/vectors/", import.meta.url));
const work = mkdtempSync(join(tmpdir(), "x86-vectors-"));

const list = forms();
const lines = [".intel_syntax noprefix", ".data", ".globl forms", "forms:"];
for (const { text, pins, mode, cases } of list) {
  const bits = [...pins].reduce((sum, p) => sum | (1 << PIN_BITS.indexOf(p)), 0);
  lines.push(
    `.code${mode}`,
    `.byte ${mode}, 2f-1f`,
    `.short ${bits}, ${cases || DEFAULT_CASES}`,
    `.byte 4f-3f`,
    `3: .ascii "${text}"`,
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
    ["-O1", "-static", "-no-pie", "-o", join(work, "oracle"), join(here, "oracle.c"), join(work, "forms.S")],
    { stdio: "inherit" },
  );
  const raw = execFileSync(join(work, "oracle"), { maxBuffer: 1 << 28 });
  const packed = brotliCompressSync(raw, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 22 },
  });
  execFileSync("gcc", ["-c", "-o", join(work, "boot.o"), join(here, "boot.S")], { stdio: "inherit" });
  execFileSync("ld", [
    "-Ttext",
    "0x1000",
    "-e",
    "0x1000",
    "--oformat",
    "binary",
    "-o",
    join(work, "boot.bin"),
    join(work, "boot.o"),
  ]);
  mkdirSync(out, { recursive: true });
  writeFileSync(join(out, "native.bin.br"), packed);
  copyFileSync(join(work, "boot.bin"), join(out, "boot.bin"));
  console.log(`${list.length} forms, ${raw.length} bytes, ${packed.length} compressed`);
} finally {
  if (process.argv.includes("--keep")) console.log(work);
  else rmSync(work, { recursive: true });
}
