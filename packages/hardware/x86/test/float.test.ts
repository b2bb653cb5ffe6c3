/** SSE floating point, string comparison and MMX against what a real processor made of the same operands in the same state. */
import { expect, test } from "vitest";
import { FlatEnvironment, REG, Stop } from "../src/index.js";
import { machine, setMode } from "./machine.js";
import {
  FLOAT_CENTER,
  FLOAT_CODE,
  FLOAT_DATA,
  type FloatCase,
  type FloatForm,
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
    for (let n = 0; n < 16; n++)
      core.regs.u64.set(image.subarray(20 + n * 2, 22 + n * 2), REG.ZMM / 8 + n * 8);
    for (let n = 0; n < 3; n++) core.set64(GENERAL[n], general[n]);
    core.set64(16, general[2]);
    core.set64(56, BigInt(FLOAT_CENTER));
    core.set64(REG.RFLAGS, general[3]);
    core.set64(REG.RIP, BigInt(FLOAT_CODE));
    memory.set(words);
  };
  const image = new BigUint64Array(FX_WORDS);
  const general = new BigUint64Array(4);
  const store = () => {
    const tags = core.get32(REG.FTW);
    let abridged = 0;
    for (let k = 0; k < 8; k++) if (((tags >> (2 * k)) & 3) !== 3) abridged |= 1 << k;
    const control = (core.get32(REG.FCW) & 0xffff) | (core.get32(REG.FSW) << 16);
    image[0] = BigInt(control >>> 0) | (BigInt(abridged) << 32n);
    image[3] = BigInt(core.get32(REG.MXCSR));
    for (let n = 0; n < 16; n++) image[4 + n] = core.get64(register(n)) & (n & 1 ? 0xffffn : ~0n);
    for (let n = 0; n < 16; n++)
      image.set(core.regs.u64.subarray(REG.ZMM / 8 + n * 8, REG.ZMM / 8 + n * 8 + 2), 20 + n * 2);
    GENERAL.forEach((at, n) => (general[n] = core.get64(at)));
    general[3] = (core.get64(REG.RFLAGS) & 0x8d5n) | 0x202n;
  };
  const failures = new Map<string, string>();
  const counts = new Map<string, number>();
  let current = -1;
  let total = 0;
  const count = (form: FloatForm, cases: number) => {
    const name = form.text.split(" ")[0];
    counts.set(name, (counts.get(name) ?? 0) + cases);
    total += cases;
  };
  const hex = (w: bigint) => w.toString(16).padStart(16, "0");
  replayFloat(new URL("./vectors/float.bin.br", import.meta.url), {
    run(form, input) {
      if (current !== form.number) {
        current = form.number;
        core.cache.flush();
        core.u8.set(form.code, base);
        core.u8[base + form.code.length] = 0xf4;
      }
      load(input);
      const end = BigInt(FLOAT_CODE + form.code.length);
      let stop: number = Stop.BUDGET;
      while (stop === Stop.BUDGET && core.get64(REG.RIP) !== end) stop = core.run(1);
      store();
      return { vector: stop === Stop.ENVIRONMENT ? core.event.vector : 255, image, memory, general };
    },
    check(form, i, input, got, expected) {
      const problems: string[] = [];
      const compare = (what: string, field: "image" | "memory" | "general") => {
        for (let n = 0; n < got[field].length; n++) {
          if (n >= FX_WORDS || got[field][n] === expected[field][n]) continue;
          problems.push(
            `${what} ${n} ${hex(got[field][n])}, expected ${hex(expected[field][n])} from ${hex(input[field][n])}`,
          );
        }
      };
      if (got.vector !== expected.vector)
        problems.push(`exception ${got.vector}, expected ${expected.vector}`);
      compare("word", "image");
      compare("memory", "memory");
      compare("register", "general");
      if (problems.length === 0) count(form, 1);
      else if (!failures.has(form.text)) {
        failures.set(
          form.text,
          `${form.text} case ${i}: ${problems.slice(0, 4).join("; ")}; mxcsr ${input.image[3].toString(16)}` +
            ` xmm1 ${hex(input.image[23])}${hex(input.image[22])} xmm2 ${hex(input.image[25])}${hex(input.image[24])}`,
        );
      }
    },
    digest(form, cases, same) {
      if (same) count(form, cases);
      else failures.set(`${form.text} digest`, `${form.text}: another digest`);
    },
  });
  console.log(
    `${total} cases of ${counts.size} instructions: ` +
      [...counts].map(([name, cases]) => `${name} ${cases}`).join(", "),
  );
  expect([...failures.values()].join("\n")).toBe("");
});
