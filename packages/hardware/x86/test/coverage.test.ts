/** Which instruction forms the recorded vectors reach: all that work on mm and xmm registers, except approximations. */
import { expect, test } from "vitest";
import { CodeSize, Decoded } from "../src/decode/decoder.js";
import { machine } from "./machine.js";
import { nativeForms } from "./native.js";
import { floatForms } from "./native-float.js";

/** Values of these are Intel's, and the vectors' processor is another make: see sse-state.test.ts. */
const APPROXIMATIONS = /^r(cp|sqrt)[ps]s:/;
/** Operand sizes are told apart for operations in TypeScript, which do not look; 16 and 32 bits are one elsewhere. */
const withoutSize = (key: string) => key.replace(/@\d+$|,v(16|32)$/, "");
const isVector = (key: string) => /[:,][xyzno](,|$)/.test(key);

test("every form on mm and xmm registers has vectors of a real processor", () => {
  const { core } = machine();
  const { decoder, built } = core;
  const seen = new Set<string>();
  const add = (code: Uint8Array, size: number) => {
    for (let at = 0; at < code.length; at += decoder.length) {
      if (decoder.decode(code, at, code.length, size) !== Decoded.OK) return;
      const row = decoder.operandSize === 64 ? 2 : decoder.operandSize === 32 ? 1 : 0;
      seen.add(withoutSize(built.keys[decoder.form!.handlers[row * 2 + (decoder.memory ? 1 : 0)]]));
    }
  };
  for (const { code, mode } of nativeForms(new URL("./vectors/native.bin.br", import.meta.url)))
    add(code, mode === 64 ? CodeSize.BITS64 : CodeSize.BITS32);
  for (const { code } of floatForms(new URL("./vectors/float.bin.br", import.meta.url)))
    add(code, CodeSize.BITS64);
  const wanted = [...new Set(built.keys.filter(isVector).map(withoutSize))].filter(
    (key) => !APPROXIMATIONS.test(key),
  );
  const missing = wanted.filter((key) => !seen.has(key));
  console.log(`${wanted.length - missing.length} of ${wanted.length} forms on mm and xmm registers`);
  expect(missing).toEqual([]);
});
