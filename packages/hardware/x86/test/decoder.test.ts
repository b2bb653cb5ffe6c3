/** Properties of the decoder on arbitrary bytes, and the lengths of known encodings. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { buildOpcodeTable, CodeSize, Decoded, Decoder } from "../src/index.js";
import { replay } from "./native.js";

const decoder = new Decoder(buildOpcodeTable());
const codes = [CodeSize.BITS16, CodeSize.BITS32, CodeSize.BITS64];
const prefix = fc.constantFrom(0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x64, 0x48, 0x41, 0x0f, 0xc4, 0xc5);
const code = fc
  .tuple(fc.array(prefix, { maxLength: 16 }), fc.uint8Array({ minLength: 0, maxLength: 20 }))
  .map(([p, rest]) => Uint8Array.from([...p, ...rest]));

/** Bytes that fail the test if one at or behind `end` is read. */
function guarded(bytes: Uint8Array, end: number, seen: { last: number }): Uint8Array {
  return new Proxy(bytes, {
    get(target, property) {
      const index = Number(property);
      if (index >= end) throw new Error(`byte ${index} of ${end} read`);
      seen.last = Math.max(seen.last, index);
      return target[index];
    },
  });
}

test("never throws, never reads behind the end or more than 15 bytes", () => {
  fc.assert(
    fc.property(code, fc.constantFrom(...codes), (bytes, size) => {
      const seen = { last: -1 };
      const status = decoder.decode(guarded(bytes, bytes.length, seen), 0, bytes.length, size);
      // Modes other than 64-bit look one byte ahead to tell VEX from LES and LDS.
      expect(seen.last).toBeLessThanOrEqual(15);
      if (status === Decoded.OK) {
        expect(decoder.length).toBeGreaterThan(0);
        expect(decoder.length).toBeLessThanOrEqual(Math.min(15, bytes.length));
      }
    }),
    { numRuns: 3000 },
  );
});

test("an instruction that is cut off is truncated, and complete with its last byte", () => {
  fc.assert(
    fc.property(code, fc.constantFrom(...codes), (bytes, size) => {
      if (decoder.decode(bytes, 0, bytes.length, size) !== Decoded.OK) return;
      const { length } = decoder;
      // VEX in 16- and 32-bit code needs its second byte to be told from LES and LDS.
      if (size !== CodeSize.BITS64 && [...bytes.subarray(0, length)].some((b) => b === 0xc4 || b === 0xc5))
        return;
      for (let end = 0; end < length; end++)
        expect(decoder.decode(bytes, 0, end, size)).toBe(Decoded.TRUNCATED);
      expect(decoder.decode(bytes, 0, length, size)).toBe(Decoded.OK);
    }),
    { numRuns: 2000 },
  );
});

test("15 bytes are the limit", () => {
  const long = Uint8Array.from([...Array<number>(14).fill(0x66), 0x90, 0, 0]);
  expect(decoder.decode(long, 0, long.length, CodeSize.BITS64)).toBe(Decoded.OK);
  expect(decoder.length).toBe(15);
  const longer = Uint8Array.from([...Array<number>(15).fill(0x66), 0x90, 0, 0]);
  expect(decoder.decode(longer, 0, longer.length, CodeSize.BITS64)).toBe(Decoded.TOO_LONG);
});

test("the assembler's lengths", () => {
  let forms = 0;
  replay(new URL("./vectors/native.bin.br", import.meta.url), (form, i) => {
    if (i > 0) return;
    forms++;
    const bytes = new Uint8Array(16);
    bytes.set(form.code);
    const size = form.mode === 64 ? CodeSize.BITS64 : CodeSize.BITS32;
    expect([form.text, decoder.decode(bytes, 0, 16, size), decoder.length]).toEqual([
      form.text,
      Decoded.OK,
      form.code.length,
    ]);
  });
  expect(forms).toBeGreaterThan(2000);
});
