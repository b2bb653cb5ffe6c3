/** Bit operations: BT family, BSF/BSR, TZCNT/LZCNT/POPCNT, BMI1, BMI2, CRC32. SDM vol. 2. */
import type { Context, Emitter, Semantics } from "../emit/context.js";
import { loadBits } from "../emit/context.js";
import { i32, type Local, select, type V } from "../wasm/expr.js";

type BitChange = ((value: V, mask: V) => V) | undefined;

/** BT, BTS, BTR, BTC. A register bit offset reaches beyond the memory operand; an immediate one does not. */
const bitTest =
  (change: BitChange, immediate: boolean): Emitter =>
  (c) => {
    const bits = c.bits;
    const offset = c.read(1, immediate ? 8 : bits);
    const n = c.code.let(offset.and(bits - 1));
    const place = c.code.let(bits === 64 ? n.u64() : n.wrap());
    const one = c.constant(bits, 1);
    const apply = (value: Local): V => {
      c.setCarry(c.code.let(value.shr_u(place).wrap().and(1)));
      return change ? change(value, one.shl(place)) : value;
    };
    if (c.operands[0].kind !== "m") {
      const value = c.read(0);
      const result = apply(value);
      if (change) c.write(0, result);
      return;
    }
    let host: Local;
    if (immediate) host = c.memory(bits / 8, change ? 0x100 : 0);
    else {
      const signed = c.signExtend(bits, offset).s64();
      const step = bits === 64 ? 6 : bits === 32 ? 5 : 4;
      host = c.memory(bits / 8, change ? 0x100 : 0, c.code.let(signed.shr_s(step).mul(bits / 8)));
    }
    const value = c.code.let(loadBits(bits, host));
    const result = apply(value);
    if (change) c.storeMemory(host, bits, result);
  };
const set: BitChange = (v, m) => v.or(m);
const reset: BitChange = (v, m) => v.and(m.not());
const complement: BitChange = (v, m) => v.xor(m);

const scan =
  (forward: boolean): Emitter =>
  (c) => {
    const v = c.read(1);
    const bits = c.bits;
    const index = forward ? v.ctz() : c.constant(bits, bits === 64 ? 63 : 31).sub(v.clz());
    c.code.set(c.flagC, 0);
    c.code.set(c.flagS, 0);
    c.code.set(c.flagZ, v.u64());
    c.code.if(v.eqz().eqz(), () => c.write(0, index));
  };

const countZeros =
  (trailing: boolean): Emitter =>
  (c) => {
    const v = c.read(1);
    const bits = c.bits;
    const count = trailing
      ? bits === 16
        ? v.or(0x10000).ctz()
        : v.ctz()
      : bits === 16
        ? v.clz().sub(16)
        : v.clz();
    const r = c.code.let(count);
    c.setResult(bits, r);
    c.setCarryOverflow(v.eqz(), i32(0));
    c.write(0, r);
  };

/** BMI1 results: ZF and SF by the result, OF clear, CF given. */
function bmi(c: Context, result: V, cf: V, i = 0): void {
  const r = c.code.let(result);
  c.setResult(c.bits, r);
  c.setCarryOverflow(cf, i32(0));
  c.write(i, r);
}
const wide = (bits: number, v: V) => (bits === 64 ? v.u64() : v);

const shiftBy =
  (op: "shl" | "shr_u" | "shr_s"): Emitter =>
  (c) => {
    const v = c.read(1);
    const n = c.read(2);
    c.write(0, v[op](n));
  };

export const bitOperations: Semantics = {
  bt: bitTest(undefined, false),
  bts: bitTest(set, false),
  btr: bitTest(reset, false),
  btc: bitTest(complement, false),
  bti: bitTest(undefined, true),
  btsi: bitTest(set, true),
  btri: bitTest(reset, true),
  btci: bitTest(complement, true),
  bsf: scan(true),
  bsr: scan(false),
  tzcnt: countZeros(true),
  lzcnt: countZeros(false),
  popcnt: (c) => {
    const v = c.read(1);
    c.code.set(c.flagC, 0);
    c.code.set(c.flagS, 1); // PF and SF are cleared too
    c.code.set(c.flagZ, v.u64());
    c.write(0, v.popcnt());
  },
  andn: (c) => {
    const b = c.read(2);
    bmi(c, c.read(1).not().and(b), i32(0));
  },
  blsr: (c) => {
    const v = c.read(1);
    bmi(c, v.and(v.sub(1)), v.eqz());
  },
  blsmsk: (c) => {
    const v = c.read(1);
    bmi(c, v.xor(v.sub(1)), v.eqz());
    c.code.set(c.flagZ, 1);
  },
  blsi: (c) => {
    const v = c.read(1);
    bmi(c, v.and(v.neg()), v.eqz().eqz());
  },
  bextr: (c) => {
    const v = c.read(1);
    const control = c.code.let(c.read(2).wrap());
    const start = c.code.let(control.and(0xff));
    const length = c.code.let(control.shr_u(8).and(0xff));
    const zero = c.constant(c.bits, 0);
    const shifted = c.code.let(select(start.lt_u(c.bits), v.shr_u(wide(c.bits, start)), zero));
    const mask = c.constant(c.bits, -1).shl(wide(c.bits, length)).not();
    bmi(c, select(length.lt_u(c.bits), shifted.and(mask), shifted), i32(0));
  },
  bzhi: (c) => {
    const v = c.read(1);
    const n = c.code.let(c.read(2).wrap().and(0xff));
    const mask = c.constant(c.bits, -1).shl(wide(c.bits, n)).not();
    bmi(c, select(n.lt_u(c.bits), v.and(mask), v), n.gt_u(c.bits - 1));
  },
  shlx: shiftBy("shl"),
  shrx: shiftBy("shr_u"),
  sarx: shiftBy("shr_s"),
  rorx: (c) => {
    const n = c.read(2, 8);
    c.write(0, c.read(1).rotr(wide(c.bits, n)));
  },
  mulx: (c) => {
    const b = c.read(2);
    if (c.bits === 32) {
      const product = c.code.let(b.u64().mul(c.gpr(2, 32).u64()));
      c.write(1, product.wrap());
      c.write(0, product.shr_u(32).wrap());
    } else {
      const a = c.code.let(c.gpr(2));
      const high = c.code.let(c.helper("mulhu", a, b));
      c.write(1, a.mul(b));
      c.write(0, high);
    }
  },
  pdep: (c) => {
    const mask = c.read(2);
    const r = c.code.let(c.helper("pdep", c.read(1).u64(), mask.u64()));
    c.write(0, c.bits === 64 ? r : r.wrap());
  },
  pext: (c) => {
    const mask = c.read(2);
    const r = c.code.let(c.helper("pext", c.read(1).u64(), mask.u64()));
    c.write(0, c.bits === 64 ? r : r.wrap());
  },
  crc32: (c) => {
    const b = c.read(1);
    const bytes = c.operands[1].bits / 8;
    const r = c.helper("crc32", c.read(0, 32), b.u64(), i32(bytes));
    c.write(0, c.bits === 64 ? r.u64() : r);
  },
};
