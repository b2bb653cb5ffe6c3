/** SSE floating point and MMX against what a real processor made of the same operands in the same state. */
import { expect, test } from "vitest";
import { FlatEnvironment, REG, Stop } from "../src/index.js";
import { machine, setMode } from "./machine.js";
import {
  FLOAT_CENTER,
  FLOAT_CODE,
  FLOAT_DATA,
  type FloatCase,
  FX_WORDS,
  replayFloat,
} from "./native-float.js";

class TwoRegions extends FlatEnvironment {
  override hostOf(physical: number): number {
    if (physical >= FLOAT_CODE && physical < FLOAT_CODE + 0x1000)
      return this.options.base + physical - FLOAT_CODE;
    if (physical >= FLOAT_DATA && physical < FLOAT_DATA + 0x2000)
      return this.options.base + 0x1000 + physical - FLOAT_DATA;
    return -1;
  }
}
const GENERAL = [0, 24, 8];

test("every recorded outcome of a real processor", () => {
  const { core, base } = machine(0x4000, (options) => new TwoRegions(options));
  setMode(core, 64);
  core.environment.intercept = () => true;
  core.environment.poll = () => -1;
  const memory = new BigUint64Array(core.u8.buffer, base + 0x1000 + FLOAT_CENTER - FLOAT_DATA, 8);
  /** Half `n` of the registers as FXSAVE orders them, from ST(0). */
  const register = (n: number) => REG.ST + ((((core.get32(REG.FSW) >> 11) & 7) * 16 + n * 8) & 127);
  const load = ({ image, general, memory: words }: FloatCase) => {
    core.set32(REG.FCW, Number(image[0] & 0xffffn));
    core.set32(REG.FSW, Number((image[0] >> 16n) & 0xffffn));
    let tags = 0;
    for (let n = 0; n < 8; n++) if (!((image[0] >> BigInt(32 + n)) & 1n)) tags |= 3 << (2 * n);
    core.set32(REG.FTW, tags);
    core.set32(REG.MXCSR, Number(image[3]));
    for (let n = 0; n < 16; n++) core.set64(register(n), image[4 + n]);
    for (let n = 0; n < 32; n++) core.set64(REG.ZMM + (n >> 1) * 64 + (n & 1) * 8, image[20 + n]);
    for (let n = 0; n < 3; n++) core.set64(GENERAL[n], general[n]);
    core.set64(56, BigInt(FLOAT_CENTER));
    core.set64(REG.RFLAGS, general[3]);
    core.set64(REG.RIP, BigInt(FLOAT_CODE));
    memory.set(words);
  };
  const word = (n: number): bigint => {
    if (n === 0) {
      const tags = core.get32(REG.FTW);
      let abridged = 0n;
      for (let k = 0; k < 8; k++) if (((tags >> (2 * k)) & 3) !== 3) abridged |= 1n << BigInt(k);
      return (
        BigInt(core.get32(REG.FCW) & 0xffff) |
        (BigInt(core.get32(REG.FSW) & 0xffff) << 16n) |
        (abridged << 32n)
      );
    }
    if (n === 3) return BigInt(core.get32(REG.MXCSR));
    if (n < 4) return 0n;
    if (n < 20) return core.get64(register(n - 4)) & (n & 1 ? 0xffffn : 0xffffffffffffffffn);
    return core.get64(REG.ZMM + ((n - 20) >> 1) * 64 + (n & 1) * 8);
  };
  const failures = new Map<string, string>();
  const counts = new Map<string, number>();
  let current = "";
  let total = 0;
  replayFloat(new URL("./vectors/float.bin.br", import.meta.url), (form, i, input, expected) => {
    if (current !== form.text) {
      current = form.text;
      core.cache.flush();
      core.u8.set(form.code, base);
      core.u8[base + form.code.length] = 0xf4;
    }
    load(input);
    const stop = core.run(1);
    const vector = stop === Stop.ENVIRONMENT ? core.event.vector : 255;
    const problems: string[] = [];
    const differs = (what: string, got: bigint, want: bigint, from: bigint) => {
      if (got !== want)
        problems.push(`${what} ${got.toString(16)}, expected ${want.toString(16)} from ${from.toString(16)}`);
    };
    if (vector !== expected.vector) problems.push(`exception ${vector}, expected ${expected.vector}`);
    for (let n = 0; n < FX_WORDS; n++) differs(`word ${n}`, word(n), expected.image[n], input.image[n]);
    memory.forEach((got, n) => differs(`memory ${n}`, got, expected.memory[n], input.memory[n]));
    GENERAL.forEach((at, n) => differs(`r${at / 8}`, core.get64(at), expected.general[n], input.general[n]));
    differs("flags", core.get64(REG.RFLAGS) & 0xad5n, expected.general[3] & 0xad5n, input.general[3]);
    total++;
    const name = form.text.split(" ")[0];
    if (problems.length === 0) counts.set(name, (counts.get(name) ?? 0) + 1);
    else if (!failures.has(form.text)) {
      const hex = (w: bigint) => w.toString(16).padStart(16, "0");
      failures.set(
        form.text,
        `${form.text} case ${i}: ${problems.slice(0, 4).join("; ")}; mxcsr ${input.image[3].toString(16)}` +
          ` xmm1 ${hex(input.image[23])}${hex(input.image[22])} xmm2 ${hex(input.image[25])}${hex(input.image[24])}`,
      );
    }
  });
  console.log(
    `${total} cases of ${counts.size} instructions: ` +
      [...counts].map(([name, cases]) => `${name} ${cases}`).join(", "),
  );
  expect([...failures.values()].join("\n")).toBe("");
});
