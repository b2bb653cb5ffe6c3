/**
 * Generates packages/hardware/x86/test/vectors/x87.bin.br: runs the forms of x87-forms.mjs natively in many states
 * (x87.c) and stores the outcomes. Needs Linux on x86-64 and gcc; run with: node tools/x86-vectors/generate-x87.mjs
 */
import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { brotliCompressSync, constants } from "node:zlib";
import { x87Forms } from "./x87-forms.mjs";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = fileURLToPath(new URL("../../packages/hardware/x86/test/vectors/", import.meta.url));
const work = mkdtempSync(join(tmpdir(), "x86-x87-"));

const list = x87Forms();
const input = list.map(({ code, kind, cases, name }) => {
  const text = Buffer.from(name);
  const head = [code.length, ...code, kind.charCodeAt(0), cases & 255, cases >> 8, text.length];
  return Buffer.concat([Buffer.from(head), text]);
});
try {
  const program = join(work, "x87");
  execFileSync("gcc", ["-O1", "-static", "-no-pie", "-o", program, join(here, "x87.c")], {
    stdio: "inherit",
  });
  const raw = execFileSync(program, { input: Buffer.concat([...input, Buffer.of(0)]), maxBuffer: 1 << 28 });
  const packed = brotliCompressSync(raw, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 22 },
  });
  writeFileSync(join(out, "x87.bin.br"), packed);
  console.log(`${list.length} forms, ${raw.length} bytes, ${packed.length} compressed`);
} finally {
  rmSync(work, { recursive: true });
}
