/** What surrounds x87 instructions: pending exceptions, pointers, environments, faults, MMX; and identities. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { FlatEnvironment, REG, Stop } from "../src/index.js";
import { Vector } from "../src/layout.js";
import { add, divide, multiply, squareRoot } from "../src/x87/arithmetic.js";
import { DOUBLE, SINGLE, bits, narrow, widen } from "../src/x87/convert.js";
import { Extended, kindOf } from "../src/x87/extended.js";
import { extract, remainder, roundToInteger, scale } from "../src/x87/partial.js";
import { Context } from "../src/x87/rounding.js";
import { machine, setMode } from "./machine.js";

const CODE = 0x1000;
const DATA = 0x2000;
const NO_EXCEPTION = -1;

/** A core that stops at exceptions. */
function start(mode: 16 | 32 | 64 = 64) {
  const { core, base } = machine(0x10000, (options) => new FlatEnvironment(options));
  core.environment.intercept = () => true;
  setMode(core, mode);
  core.set64(56, BigInt(DATA));
  core.set64(24, BigInt(DATA));
  const at = base + DATA;
  return {
    core,
    view: new DataView(core.u8.buffer, at, 0x1000),
    /** Executes instructions, each given as bytes. @returns vector of the exception that ended it */
    run(...instructions: number[][]): number {
      const code = [...instructions.flat(), 0xf4];
      core.cache.flush();
      core.u8.set(code, base + CODE);
      core.set64(REG.RIP, BigInt(CODE));
      for (let n = 0; n < instructions.length; n++)
        if (core.run(1) === Stop.ENVIRONMENT) return core.event.vector;
      return NO_EXCEPTION;
    },
  };
}
const FLD1 = [0xd9, 0xe8];
const FLDZ = [0xd9, 0xee];
const FDIVP = [0xde, 0xf9];
const FNOP = [0xd9, 0xd0];
const FWAIT = [0x9b];
const FNINIT = [0xdb, 0xe3];
const FNCLEX = [0xdb, 0xe2];
const FNSTSW_AX = [0xdf, 0xe0];
/** With [rdi], or [bx] in 16-bit code. */
const FLDCW = [0xd9, 0x2f];
const FNSTENV = [0xd9, 0x37];
const FLDENV = [0xd9, 0x27];
const FNSAVE = [0xdd, 0x37];
const FRSTOR = [0xdd, 0x27];
const FADD_DOUBLE = [0xdc, 0x07];
const FST_DOUBLE = [0xdd, 0x17];
const EMMS = [0x0f, 0x77];
const UNMASK_ZE = 0x37b;

describe("exceptions", () => {
  test("an unmasked one waits for the next instruction that waits", () => {
    const m = start();
    m.view.setUint16(0, UNMASK_ZE, true);
    expect(m.run(FNINIT, FLDCW, FLD1, FLDZ, FDIVP)).toBe(NO_EXCEPTION);
    expect(m.core.get32(REG.FSW) & 0x8084).toBe(0x8084);
    // The divisor and the dividend are still there.
    expect((m.core.get32(REG.FSW) >> 11) & 7).toBe(6);
    for (const waiting of [FWAIT, FNOP, FLD1, FLDCW, FLDENV, FRSTOR, EMMS])
      expect(m.run(waiting)).toBe(Vector.MF);
    expect(m.run(FNSTSW_AX, FNSTENV)).toBe(NO_EXCEPTION);
    expect(m.core.get32(0) & 0x8084).toBe(0x8084);
    // FNSTENV has masked everything.
    expect(m.run(FWAIT, FLD1)).toBe(NO_EXCEPTION);
  });
  test("FNCLEX and a masking FLDCW end it, an unmasking FLDCW makes it", () => {
    const m = start();
    m.view.setUint16(0, UNMASK_ZE, true);
    expect(m.run(FNINIT, FLDCW, FLD1, FLDZ, FDIVP, FNCLEX, FWAIT)).toBe(NO_EXCEPTION);
    expect(m.run(FNINIT, FLD1, FLDZ, FDIVP, FWAIT, FLDCW)).toBe(NO_EXCEPTION);
    expect(m.run(FWAIT)).toBe(Vector.MF);
  });
  test("without CR0.NE the environment hears of it, and the instruction is executed", () => {
    const m = start();
    let heard = 0;
    m.core.environment.floatError = () => heard++;
    m.core.set32(REG.CR0, m.core.get32(REG.CR0) & ~0x20);
    m.view.setUint16(0, UNMASK_ZE, true);
    expect(m.run(FNINIT, FLDCW, FLD1, FLDZ, FDIVP)).toBe(NO_EXCEPTION);
    expect(heard).toBe(0);
    expect(m.run(FWAIT, FLD1)).toBe(NO_EXCEPTION);
    expect(heard).toBe(2);
    expect((m.core.get32(REG.FSW) >> 11) & 7).toBe(5);
  });
  test("#NM by EM and TS, of FWAIT by TS with MP; #UD goes before", () => {
    const m = start();
    const cr0 = m.core.get32(REG.CR0) & ~0xe;
    const set = (extra: number) => m.core.set32(REG.CR0, cr0 | extra);
    const [MP, EM, TS] = [2, 4, 8];
    const undefinedOpcode = [0xd9, 0xd1];
    for (const extra of [EM, TS, EM | TS]) {
      set(extra);
      expect(m.run(FLD1)).toBe(Vector.NM);
      expect(m.run(FNINIT)).toBe(Vector.NM);
      expect(m.run(undefinedOpcode)).toBe(Vector.UD);
      expect(m.run(FWAIT)).toBe(NO_EXCEPTION);
    }
    set(TS | MP);
    expect(m.run(FWAIT)).toBe(Vector.NM);
    set(MP);
    expect(m.run(FWAIT, FLD1)).toBe(NO_EXCEPTION);
  });
  test("a store that faults changes nothing", () => {
    const m = start();
    expect(m.run(FNINIT, FLD1, FLDZ)).toBe(NO_EXCEPTION);
    m.core.set64(56, 1n << 47n);
    const fsw = m.core.get32(REG.FSW);
    const ftw = m.core.get32(REG.FTW);
    const stores = [0xd91f, 0xdd1f, 0xdb3f, 0xdf1f, 0xdb1f, 0xdf3f, 0xdd0f, 0xdf37, 0xdd37, 0xd937];
    for (const code of stores) {
      expect(m.run([code >> 8, code & 0xff])).toBe(Vector.GP);
      expect(m.core.get32(REG.FSW)).toBe(fsw);
      expect(m.core.get32(REG.FTW)).toBe(ftw);
    }
  });
});

describe("pointers", () => {
  test("FIP is the last instruction's; FOP and FDP are of the last one with an unmasked exception", () => {
    const m = start();
    m.view.setUint16(0, 0x37e, true);
    expect(m.run(FNINIT, FLD1, FADD_DOUBLE)).toBe(NO_EXCEPTION);
    expect(m.core.get64(REG.FIP)).toBe(BigInt(CODE + 4));
    expect(m.core.get32(REG.FOP)).toBe(0);
    expect(m.core.get64(REG.FDP)).toBe(0n);
    // A signaling NaN.
    expect(m.run(FNINIT, FLDCW, FLD1)).toBe(NO_EXCEPTION);
    m.view.setBigUint64(0, 0x7ff0000000000001n, true);
    expect(m.run(FADD_DOUBLE)).toBe(NO_EXCEPTION);
    expect(m.core.get64(REG.FIP)).toBe(BigInt(CODE));
    expect(m.core.get32(REG.FOP)).toBe(0x407);
    expect(m.core.get64(REG.FDP)).toBe(BigInt(DATA));
    // Control instructions leave them alone.
    expect(m.run(FNCLEX, FNOP, FNSTENV)).toBe(NO_EXCEPTION);
    expect([m.view.getUint32(12, true), m.view.getUint32(16, true), m.view.getUint32(20, true)]).toEqual([
      CODE,
      0x407 << 16,
      DATA,
    ]);
  });
  test.each([16, 32] as const)("environments in real mode, %i-bit", (size) => {
    const m = start(16);
    const prefix = size === 32 ? [0x66] : [];
    expect(m.run(FNINIT, FLD1)).toBe(NO_EXCEPTION);
    m.core.set64(REG.FIP, 0x000a1234n);
    m.core.set64(REG.FDP, 0x00055678n);
    m.core.set32(REG.FOP, 0x321);
    expect(m.run([...prefix, ...FNSTENV])).toBe(NO_EXCEPTION);
    const step = size / 8;
    const words = [0, 1, 2, 3, 4, 5, 6].map((n) => m.view.getUint16(n * step, true));
    expect(words).toEqual([0x37f, 0x3800, 0x3fff, 0x1234, 0xa321, 0x5678, 0x5000]);
    const before = Buffer.from(m.core.u8.subarray(m.view.byteOffset, m.view.byteOffset + 28));
    expect(m.run(FNINIT, [...prefix, ...FLDENV])).toBe(NO_EXCEPTION);
    expect(m.core.get64(REG.FIP)).toBe(0xa1234n);
    expect(m.core.get64(REG.FDP)).toBe(0x55678n);
    expect(m.core.get32(REG.FOP)).toBe(0x321);
    expect(m.run([...prefix, ...FNSTENV])).toBe(NO_EXCEPTION);
    expect(Buffer.from(m.core.u8.subarray(m.view.byteOffset, m.view.byteOffset + 28))).toEqual(before);
  });
});

const FXSAVE64 = [0x48, 0x0f, 0xae, 0x07];
const FXRSTOR64 = [0x48, 0x0f, 0xae, 0x0f];
test("FXSAVE has ST(0) first and a bit for each register that is not empty; FXRSTOR and FNSAVE agree", () => {
  const m = start();
  expect(m.run(FNINIT, FLDZ, FLD1, FXSAVE64)).toBe(NO_EXCEPTION);
  expect(m.view.getUint16(2, true)).toBe(0x3000);
  expect(m.view.getUint8(4)).toBe(0b11000000);
  expect([m.view.getBigUint64(32, true), m.view.getUint16(40, true)]).toEqual([1n << 63n, 0x3fff]);
  expect([m.view.getBigUint64(48, true), m.view.getUint16(56, true)]).toEqual([0n, 0]);
  expect(m.run(FNINIT, FXRSTOR64, FNSAVE)).toBe(NO_EXCEPTION);
  expect(m.view.getUint16(4, true)).toBe(0x3000);
  // Valid in R6, zero in R7.
  expect(m.view.getUint16(8, true)).toBe(0x4fff);
  expect(m.core.get32(REG.FTW)).toBe(0xffff);
  expect(m.run(FRSTOR, FST_DOUBLE)).toBe(NO_EXCEPTION);
  expect(m.view.getFloat64(0, true)).toBe(1);
});
test("MMX sees the physical registers, and sets TOP to 0", () => {
  const m = start();
  expect(m.run(FNINIT, FLD1)).toBe(NO_EXCEPTION);
  // movq [rdi], mm7
  expect(m.run([0x0f, 0x7f, 0x3f])).toBe(NO_EXCEPTION);
  expect(m.view.getBigUint64(0, true)).toBe(1n << 63n);
  expect(m.core.get32(REG.FSW) & 0x3800).toBe(0);
  expect(m.core.get32(REG.FTW) & 0xffff).toBe(0);
  expect(m.run(EMMS)).toBe(NO_EXCEPTION);
  expect(m.core.get32(REG.FTW) & 0xffff).toBe(0xffff);
});

// --- identities

const cx = new Context();
const out = new Extended();
const value = (sign: number, exponent: number, significand: bigint): Extended => {
  const v = new Extended();
  v.set(sign, exponent, Number(significand >> 32n), Number(significand & 0xffffffffn));
  return v;
};
const normal = (low = 1, high = 0x7ffe) =>
  fc
    .tuple(
      fc.integer({ min: 0, max: 1 }),
      fc.integer({ min: low, max: high }),
      fc.bigInt(0n, (1n << 63n) - 1n),
    )
    .map(([sign, exponent, fraction]) => value(sign, exponent, (1n << 63n) | fraction));
/** A number as an integer of 2^-16445. */
const exact = (v: Extended): bigint => {
  const magnitude = ((BigInt(v.high) << 32n) | BigInt(v.low)) << BigInt(Math.max(v.exponent - 1, 0));
  return v.sign === 1 ? -magnitude : magnitude;
};
const real = fc.oneof(fc.double({ noNaN: true }), fc.float({ noNaN: true }));
const view = new DataView(new ArrayBuffer(8));
function fromDouble(x: number): Extended {
  view.setFloat64(0, x);
  const v = new Extended();
  widen(v, DOUBLE, view.getUint32(0), view.getUint32(4));
  return v;
}
function toDouble(v: Extended): number {
  cx.begin(0x37f);
  narrow(cx, v, DOUBLE);
  view.setUint32(0, bits.high);
  view.setUint32(4, bits.low);
  return view.getFloat64(0);
}
const DOUBLE_PRECISION = 0x27f;

test("doubles keep their value; singles round as Math.fround does", () => {
  fc.assert(
    fc.property(real, (x) => {
      expect(toDouble(fromDouble(x))).toBe(x);
      cx.begin(0x37f);
      narrow(cx, fromDouble(x), SINGLE);
      view.setUint32(0, bits.low);
      expect(view.getFloat32(0)).toBe(Math.fround(x));
      expect((cx.flags & 32) !== 0).toBe(!Object.is(Math.fround(x), x));
    }),
    { numRuns: 1000 },
  );
});
test("arithmetic of doubles at 53 bits is JavaScript's, while nothing over- or underflows", () => {
  const moderate = fc.double({ noNaN: true, noDefaultInfinity: true }).filter((x) => {
    const size = Math.abs(x);
    return size === 0 || (size > 1e-140 && size < 1e140);
  });
  const binary = [
    [add, (x: number, y: number) => x + y],
    [multiply, (x: number, y: number) => x * y],
    [divide, (x: number, y: number) => x / y],
  ] as const;
  fc.assert(
    fc.property(moderate, moderate, (x, y) => {
      for (const [operation, expected] of binary) {
        cx.begin(DOUBLE_PRECISION);
        const [a, b] = [fromDouble(x), fromDouble(y)];
        operation(cx, out, a, kindOf(a), b, kindOf(b));
        const [got, want] = [toDouble(out), expected(x, y)];
        expect(Object.is(got, want) || (Number.isNaN(got) && Number.isNaN(want))).toBe(true);
      }
      cx.begin(DOUBLE_PRECISION);
      const root = fromDouble(Math.abs(x));
      squareRoot(cx, out, root, kindOf(root));
      expect(toDouble(out)).toBe(Math.sqrt(Math.abs(x)));
    }),
    { numRuns: 1000 },
  );
});
test("FXTRACT and FSCALE are inverse", () => {
  const exponent = new Extended();
  const significand = new Extended();
  fc.assert(
    fc.property(normal(), (v) => {
      cx.begin(0x37f);
      extract(cx, exponent, significand, v, kindOf(v));
      scale(cx, out, significand, kindOf(significand), exponent, kindOf(exponent));
      expect(out).toEqual(v);
      expect(cx.flags).toBe(0);
    }),
  );
});
test.each([false, true])("partial remainders end with the remainder, exactly (to nearest: %s)", (nearest) => {
  fc.assert(
    fc.property(normal(1, 400), normal(1, 400), (a, b) => {
      let [rest, codes, rounds] = [a, 0x400, 0];
      const total = exact(a);
      while (codes & 0x400) {
        cx.begin(0x37f);
        codes = remainder(cx, out, rest, kindOf(rest), b, kindOf(b), nearest);
        rest = new Extended();
        rest.copy(out);
        expect(cx.flags & ~2).toBe(0);
        expect(++rounds).toBeLessThan(20);
      }
      const divisor = exact(b) < 0n ? -exact(b) : exact(b);
      const got = exact(rest);
      expect((total - got) % divisor).toBe(0n);
      const size = got < 0n ? -got : got;
      if (nearest) expect(2n * size <= divisor).toBe(true);
      else {
        expect(size < divisor).toBe(true);
        expect(rest.sign).toBe(a.sign);
        // The lowest three bits of the quotient, if the last step found all of them.
        if (rounds === 1) {
          const quotient = (total < 0n ? -total : total) / divisor;
          const seen = (codes & 0x100 ? 4 : 0) | (codes & 0x4000 ? 2 : 0) | (codes & 0x200 ? 1 : 0);
          expect(seen).toBe(Number(quotient & 7n));
        }
      }
    }),
  );
});
test("FRNDINT rounds as the mode says", () => {
  const functions = [undefined, Math.floor, Math.ceil, Math.trunc];
  fc.assert(
    fc.property(fc.double({ min: -1e15, max: 1e15, noNaN: true }), (x) => {
      for (let mode = 1; mode < 4; mode++) {
        cx.begin(0x37f | (mode << 10));
        const v = fromDouble(x);
        roundToInteger(cx, out, v, kindOf(v));
        expect(toDouble(out)).toBe(functions[mode]!(x));
      }
    }),
  );
});
