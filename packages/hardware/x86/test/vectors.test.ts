/** Replays the vectors recorded on a real processor against the interpreter. */
import { expect, test } from "vitest";
import { ENGINE } from "../src/layout.js";
import { FlatEnvironment, REG, Stop } from "../src/index.js";
import { machine, setMode } from "./machine.js";
import { CODE, DATA, type NativeForm, replay, WINDOW } from "./native.js";

const ALL = 0x8d5;
const [CF, PF, AF, ZF, SF, OF] = [1, 4, 16, 64, 128, 0x800];
/** Flags that the manual leaves undefined, by instruction. */
const UNDEFINED: Record<string, number> = {
  mul: SF | ZF | AF | PF,
  imul: SF | ZF | AF | PF,
  div: ALL,
  idiv: ALL,
  and: AF,
  or: AF,
  xor: AF,
  test: AF,
  rol: OF,
  ror: OF,
  rcl: OF,
  rcr: OF,
  shl: OF | AF,
  shr: OF | AF,
  sar: OF | AF,
  shld: OF | AF,
  shrd: OF | AF,
  bt: OF | SF | AF | PF,
  bts: OF | SF | AF | PF,
  btr: OF | SF | AF | PF,
  btc: OF | SF | AF | PF,
  bsf: OF | SF | AF | PF | CF,
  bsr: OF | SF | AF | PF | CF,
  lzcnt: OF | SF | AF | PF,
  tzcnt: OF | SF | AF | PF,
  andn: AF | PF,
  bextr: AF | PF | SF,
  bzhi: AF | PF,
  blsi: AF | PF,
  blsr: AF | PF,
  blsmsk: AF | PF,
  daa: OF,
  das: OF,
  aaa: OF | SF | ZF | PF,
  aas: OF | SF | ZF | PF,
  aam: OF | AF | CF,
  aad: OF | AF | CF,
};
/** 16-bit SHLD and SHRD by more than 16, and BSWAP of 16 bits, are undefined. */
const undefinedResult = (form: NativeForm, count: number) =>
  /^sh[lr]d/.test(form.text) && /\b(ax|bx|word)\b/.test(form.text) && (count & 31) > 16;

class TwoRegions extends FlatEnvironment {
  override hostOf(physical: number): number {
    if (physical >= CODE && physical < CODE + 0x1000) return this.options.base + physical - CODE;
    if (physical >= DATA && physical < DATA + 0x2000) return this.options.base + 0x1000 + physical - DATA;
    return -1;
  }
}

test("every recorded outcome of a real processor", () => {
  const { core, base } = machine(0x4000, (options) => new TwoRegions(options));
  core.environment.intercept = () => true;
  const window = new BigUint64Array(core.u8.buffer, base + 0x1000 + 0x800 - WINDOW / 2, WINDOW / 8);
  const failures = new Map<string, string>();
  const passed = new Map<string, number>();
  let current = "";
  let mode = 0;
  let total = 0;
  replay(new URL("./vectors/native.bin.br", import.meta.url), (form, i, input, expected) => {
    if (current !== form.text + form.mode) {
      current = form.text + form.mode;
      core.cache.flush();
      core.u8.set(form.code, base);
      core.u8[base + form.code.length] = 0xf4;
    }
    if (mode !== form.mode) {
      mode = form.mode;
      setMode(core, form.mode);
      core.flushTlb();
    }
    core.regs.u64.set(input.gpr);
    core.set64(REG.RFLAGS, BigInt(input.flags));
    core.set64(REG.RIP, BigInt(CODE));
    window.set(input.memory);
    for (let n = 0; n < input.xmm.length; n++)
      core.set64(REG.ZMM + (n >> 1) * 64 + (n & 1) * 8, input.xmm[n]);
    core.environment.poll = () => -1;
    core.set32(ENGINE.VECTOR, 255);
    const before = core.get64(REG.INSTRUCTIONS);
    const stop = core.run(1);
    const vector = stop === Stop.ENVIRONMENT ? core.event.vector : 255;
    const problems: string[] = [];
    const name = form.text.replace(/^repn?e? /, "").split(" ")[0];
    if (vector !== expected.vector) problems.push(`exception ${vector}, expected ${expected.vector}`);
    else if (vector === 255) {
      if (core.get64(REG.INSTRUCTIONS) - before !== 1n) problems.push("instruction count");
      if (Number(core.get64(REG.RIP)) !== CODE + form.code.length)
        problems.push(`RIP ${core.get64(REG.RIP)}`);
      if (
        !undefinedResult(
          form,
          form.text.endsWith("cl") ? Number(input.gpr[1] & 255n) : parseInt(form.text.split(", ").at(-1)!),
        )
      ) {
        const mask = form.mode === 64 ? 0xffffffffffffffffn : 0xffffffffn;
        for (let n = 0; n < 16; n++) {
          const got = core.regs.u64[n] & mask;
          if (got !== (expected.gpr[n] & mask))
            problems.push(
              `r${n} ${got.toString(16)}, expected ${expected.gpr[n].toString(16)} from ${input.gpr[n].toString(16)}`,
            );
        }
        for (let n = 0; n < window.length; n++)
          if (window[n] !== expected.memory[n])
            problems.push(
              `memory ${n * 8 - WINDOW / 2}: ${window[n].toString(16)}, expected ${expected.memory[n].toString(16)} from ${input.memory[n].toString(16)}`,
            );
        for (let n = 0; n < expected.xmm.length; n++) {
          const got = core.get64(REG.ZMM + (n >> 1) * 64 + (n & 1) * 8);
          if (got !== expected.xmm[n])
            problems.push(
              `xmm${n >> 1}[${n & 1}] ${got.toString(16)}, expected ${expected.xmm[n].toString(16)} from ${input.xmm[n].toString(16)}`,
            );
        }
        let ignore = UNDEFINED[name] ?? 0;
        // OF is defined for shifts and rotates by one.
        if (/^(ro|rc|sh|sa)/.test(name) && form.text.endsWith(", 1")) ignore &= ~OF;
        const got = core.get32(REG.RFLAGS) & 0xcd5 & ~ignore;
        const want = expected.flags & 0xcd5 & ~ignore;
        if (got !== want) problems.push(`flags ${got.toString(16)}, expected ${want.toString(16)}`);
      }
    }
    total++;
    if (problems.length === 0) passed.set(name, (passed.get(name) ?? 0) + 1);
    else if (!failures.has(form.text))
      failures.set(
        form.text,
        `${form.text} (${form.mode}-bit) case ${i}: ${problems.slice(0, 3).join("; ")} flags in ${input.flags.toString(16)} rax ${input.gpr[0].toString(16)} rcx ${input.gpr[1].toString(16)}`,
      );
  });
  console.log(
    `${total} cases of ${passed.size} instructions: ` +
      [...passed].map(([name, cases]) => `${name} ${cases}`).join(", "),
  );
  expect([...failures.values()].join("\n")).toBe("");
});
