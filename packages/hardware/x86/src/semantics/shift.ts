/**
 * Shifts and rotates. SDM vol. 2, SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD. Undefined flags follow the formula
 * of the defined case, as processors do.
 */
import type { Context, Emitter, Semantics } from "../emit/context.js";
import { i64, type Local, type V } from "../wasm/expr.js";

/** The count, masked; flags and carries only change if it is not zero. */
function count(c: Context, i: number): Local {
  const n = c.read(i, 8);
  return c.code.let(n.and(c.bits === 64 ? 63 : 31));
}
const top = (bits: number, v: V) =>
  v
    .shr_u(bits - 1)
    .wrap()
    .and(1);
const second = (bits: number, v: V) =>
  v
    .shr_u(bits - 2)
    .wrap()
    .and(1);

interface Shifted {
  result: V;
  cf: (result: Local) => V;
  of: (result: Local, cf: Local) => V;
}
const shift =
  (sets: "all" | "carry", compute: (c: Context, bits: number, a: Local, n: Local) => Shifted): Emitter =>
  (c) => {
    const bits = c.bits;
    const n = count(c, 1);
    c.modify(0, (a) => {
      const { result, cf, of } = compute(c, bits, a, n);
      const r = c.code.let(c.zeroExtend(bits, result));
      c.code.if(n, () => {
        const carry = c.code.let(cf(r));
        c.setCarryOverflow(carry, c.code.let(of(r, carry)));
        if (sets === "all") c.setResult(bits, r);
      });
      return r;
    });
  };
/** The count in the operand's type. */
const wide = (bits: number, n: V) => (bits === 64 ? n.u64() : n);

const shl = shift("all", (c, bits, a, n) => {
  const result = a.shl(wide(bits, n));
  const cf = () =>
    bits === 64
      ? a.shr_u(i64(64).sub(n.u64())).wrap().and(1)
      : a.u64().shl(n.u64()).shr_u(bits).wrap().and(1);
  return { result, cf, of: (r, carry) => top(bits, r).xor(carry) };
});
const shr = shift("all", (c, bits, a, n) => ({
  result: a.shr_u(wide(bits, n)),
  cf: () =>
    a
      .shr_u(wide(bits, n.sub(1)))
      .wrap()
      .and(1),
  of: () => top(bits, a),
}));
const sar = shift("all", (c, bits, a, n) => {
  const s = c.code.let(c.signExtend(bits, a));
  return {
    result: s.shr_s(wide(bits, n)),
    cf: () =>
      s
        .shr_s(wide(bits, n.sub(1)))
        .wrap()
        .and(1),
    of: () => n.ne(n),
  };
});
const rotate = (left: boolean) =>
  shift("carry", (c, bits, a, n) => {
    const m = bits < 32 ? c.code.let(n.and(bits - 1)) : n;
    let result: V;
    if (bits >= 32) result = left ? a.rotl(wide(bits, m)) : a.rotr(wide(bits, m));
    else {
      const back = c.code.let(m.neg().and(bits - 1));
      result = left ? a.shl(m).or(a.shr_u(back)) : a.shr_u(m).or(a.shl(back));
    }
    return left
      ? { result, cf: (r) => r.wrap().and(1), of: (r, cf) => top(bits, r).xor(cf) }
      : { result, cf: (r) => top(bits, r), of: (r, cf) => second(bits, r).xor(cf) };
  });

/** Rotates through the carry: 9, 17 and 33 bits fit in an i64, 65 need their own formula. */
const rotateCarry =
  (left: boolean): Emitter =>
  (c) => {
    const bits = c.bits;
    const n0 = count(c, 1);
    c.modify(0, (a) => {
      const n = c.code.let(bits >= 32 ? n0 : n0.rem_u(bits + 1));
      const cf = c.code.let(c.flagC.shr_u(63));
      const w = c.code.let(n.u64());
      const r = c.code.temp(a.type);
      const carry = c.code.temp(n.type);
      if (bits === 64) {
        const back = i64(64).sub(w);
        c.code.set(r, a);
        c.code.set(carry, cf.wrap());
        c.code.if(n, () => {
          if (left) {
            c.code.set(
              r,
              a
                .shl(w)
                .or(cf.shl(w.sub(1)))
                .or(a.shr_u(1).shr_u(back)),
            );
            c.code.set(carry, a.shr_u(back).wrap().and(1));
          } else {
            c.code.set(r, a.shr_u(w).or(cf.shl(back)).or(a.shl(1).shl(back)));
            c.code.set(carry, a.shr_u(w.sub(1)).wrap().and(1));
          }
        });
      } else {
        const all = c.code.let(a.u64().or(cf.shl(bits)));
        const back = i64(bits + 1).sub(w);
        const turned = c.code.let(left ? all.shl(w).or(all.shr_u(back)) : all.shr_u(w).or(all.shl(back)));
        c.code.set(r, c.zeroExtend(bits, turned.wrap()));
        c.code.set(carry, turned.shr_u(bits).wrap().and(1));
      }
      c.code.if(n0, () => {
        const of = left ? top(bits, r).xor(carry) : top(bits, r).xor(second(bits, r));
        c.setCarryOverflow(carry, c.code.let(of));
      });
      return r;
    });
  };

/** SHLD and SHRD; the count is operand 2 or CL. */
const double =
  (left: boolean, cl: boolean): Emitter =>
  (c) => {
    const bits = c.bits;
    const b = c.read(1);
    const n = c.code.let((cl ? c.gpr(1, 8) : c.read(2, 8)).and(bits === 64 ? 63 : 31));
    c.modify(0, (a) => {
      const r = c.code.temp(a.type);
      c.code.set(r, a);
      c.code.if(n, () => {
        const carry = c.code.temp(n.type);
        const w = wide(bits, n);
        if (bits === 16) {
          const both = c.code.let(left ? a.shl(16).or(b) : b.shl(16).or(a));
          // Counts above 16 go on with the first operand's bits.
          const turned = c.code.let(
            left
              ? both.u64().shl(16).or(a.u64()).shl(w.u64()).shr_u(32).wrap()
              : a.u64().shl(32).or(both.u64()).shr_u(w.u64()).wrap(),
          );
          c.code.set(r, turned.and(0xffff));
          c.code.set(
            carry,
            left
              ? both.u64().shl(16).or(a.u64()).shr_u(i64(48).sub(n.u64())).wrap().and(1)
              : a.u64().shl(32).or(both.u64()).shr_u(n.sub(1).u64()).wrap().and(1),
          );
        } else {
          const back = c.constant(bits, bits).sub(w);
          c.code.set(r, left ? a.shl(w).or(b.shr_u(back)) : a.shr_u(w).or(b.shl(back)));
          c.code.set(carry, (left ? a.shr_u(back) : a.shr_u(w.sub(1))).wrap().and(1));
        }
        c.setCarryOverflow(carry, c.code.let(top(bits, r).xor(top(bits, a))));
        c.setResult(bits, r);
      });
      return r;
    });
  };

export const shifts: Semantics = {
  shl,
  shr,
  sar,
  rol: rotate(true),
  ror: rotate(false),
  rcl: rotateCarry(true),
  rcr: rotateCarry(false),
  shld: double(true, false),
  shldcl: double(true, true),
  shrd: double(false, false),
  shrdcl: double(false, true),
};
