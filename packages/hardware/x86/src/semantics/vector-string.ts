/** PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM. SDM vol. 1, 4.1 (the control byte), vol. 2. */
import { type Context, type DefineHelper, type Emitter, type Semantics } from "../emit/context.js";
import { REG } from "../register-file.js";
import { I32, V128 } from "../wasm/encoder.js";
import { type Code, i32, type Local, select, simdOp, type V } from "../wasm/expr.js";
import { op, readVector, replace64, requireSse, ZERO, v128 } from "./vector-operand.js";

/** Bits of the control byte. */
const WORDS = 1;
const SIGNED = 2;
const AGGREGATION_SHIFT = 2;
const NEGATE = 0x10;
const VALID_ONLY = 0x20;
const LAST_OR_MASK = 0x40;

const splat = (words: boolean, v: V): V => op(words ? 16 : 15, v);
const bits = (words: boolean, mask: V): V => simdOp(words ? 0x84 : 0x64, I32, [mask]);
const equal = (words: boolean, a: V, b: V): V => op(words ? 0x2d : 0x23, a, b);
/** The element with a number in all lanes. */
const element = (words: boolean, v: V, n: V): V =>
  op(14, v, words ? op(16, n.mul(0x0202).add(0x0100)) : op(15, n));
/** Lowest n bits. */
const low = (n: V): V => i32(1).shl(n).sub(1);

/** (a, b, control, length of a, length of b) → a bit for each element of b, before the polarity. */
function aggregate(code: Code, words: boolean, a: Local, b: Local, control: V, la: V, lb: V): void {
  const count = words ? 8 : 16;
  const mode = code.let(control.shr_u(AGGREGATION_SHIFT).and(3));
  const valid = code.let(low(lb));
  const result = code.let(i32(0));
  const i = code.let(i32(0));
  /** Repeats with i below a limit. */
  const each = (limit: V, step: number, body: () => void) =>
    code.block((done) => {
      code.loop((again) => {
        code.brIf(i.ge_s(limit), done);
        body();
        code.set(i, i.add(step));
        code.br(again);
      });
    });
  // Any element of a.
  code.if(mode.eqz(), () => {
    each(la, 1, () => code.set(result, result.or(bits(words, equal(words, b, element(words, a, i))))));
    code.return(result.and(valid));
  });
  // Within a range; signed elements are compared as unsigned ones half the scale higher.
  code.if(mode.eq(1), () => {
    code.if(control.and(SIGNED), () => {
      const half = words ? splat(true, i32(0x8000)) : splat(false, i32(0x80));
      code.set(a, op(0x51, a, half));
      code.set(b, op(0x51, b, half));
    });
    const [le, ge] = words ? [0x34, 0x36] : [0x2a, 0x2c];
    each(la.sub(1), 2, () => {
      const within = op(0x4e, op(ge, b, element(words, a, i)), op(le, b, element(words, a, i.add(1))));
      code.set(result, result.or(bits(words, within)));
    });
    code.return(result.and(valid));
  });
  // Each with each; both behind the end are equal.
  const all = (1 << count) - 1;
  code.if(mode.eq(2), () => {
    const both = low(la).and(valid);
    const neither = low(la).or(valid).xor(all);
    code.return(
      bits(words, equal(words, a, b))
        .and(both)
        .or(neither),
    );
  });
  // a within b, or its beginning at the end of b.
  code.set(result, i32(all));
  each(la, 1, () => {
    const same = bits(words, equal(words, b, element(words, a, i))).and(valid);
    code.set(result, result.and(same.shr_u(i).or(i32(all).shr_u(i).xor(all))));
  });
  code.return(result);
}
export function buildStringHelpers(define: DefineHelper): void {
  for (const words of [false, true])
    define(`aggregate${words ? 16 : 8}`, [V128, V128, I32, I32, I32], I32, (code, a, b, control, la, lb) =>
      aggregate(code, words, a, b, control, la, lb),
    );
}

/** Elements before the first zero. */
function implicitLength(c: Context, v: V, words: V, count: V): V {
  const zeros = c.code.let(
    select(words, bits(true, equal(true, v, ZERO)), bits(false, equal(false, v, ZERO))),
  );
  return c.code.let(select(zeros, zeros.ctz(), count));
}
/** Magnitude of a register, at most all elements. */
function explicitLength(c: Context, register: number, count: V): V {
  // RAX and RDX with REX.W, which the fourth operand tells.
  const value = c.code.let(c.gpr(register, c.operands[3].bits === 64 ? 64 : 32).s64());
  const magnitude = c.code.let(select(value.lt_s(0), value.neg(), value));
  return c.code.let(select(magnitude.gt_u(16).or(magnitude.wrap().gt_u(count)), count, magnitude.wrap()));
}
const compareStrings =
  (explicit: boolean, index: boolean): Emitter =>
  (c) => {
    requireSse(c);
    const b = readVector(c, 1, false);
    const a = readVector(c, 0);
    const control = c.code.let(c.immediate().wrap());
    const words = c.code.let(control.and(WORDS));
    const count = c.code.let(select(words, i32(8), i32(16)));
    const la = explicit ? explicitLength(c, 0, count) : implicitLength(c, a, words, count);
    const lb = explicit ? explicitLength(c, 2, count) : implicitLength(c, b, words, count);
    const result = c.code.temp(I32);
    c.code.if(
      words,
      () => c.code.set(result, c.helper("aggregate16", a, b, control, la, lb)),
      () => c.code.set(result, c.helper("aggregate8", a, b, control, la, lb)),
    );
    c.code.if(control.and(NEGATE), () =>
      c.code.set(result, result.xor(low(select(control.and(VALID_ONLY), lb, count)))),
    );
    if (index) {
      const found = select(control.and(LAST_OR_MASK), i32(31).sub(result.clz()), result.ctz());
      c.setGpr(1, select(result, found, count), 32);
    } else {
      const { address, offset } = c.field(REG.ZMM);
      // A bit for each byte to a byte of ones: the byte of the mask that has it, and the bit in it.
      const bit = v128(1, 2, 4, 8, 16, 32, 64, -128, 1, 2, 4, 8, 16, 32, 64, -128);
      const bytes = op(14, op(17, result), v128(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1));
      const wordBit = v128(1, 0, 2, 0, 4, 0, 8, 0, 16, 0, 32, 0, 64, 0, -128, 0);
      c.code.if(
        control.and(LAST_OR_MASK),
        () =>
          c.code.storeV128(
            address,
            select(
              words,
              equal(true, op(0x4e, op(16, result), wordBit), wordBit),
              equal(false, op(0x4e, bytes, bit), bit),
            ),
            offset,
          ),
        () => c.code.storeV128(address, replace64(ZERO, 0, result.u64()), offset),
      );
    }
    const flags = result
      .eqz()
      .eqz()
      .or(lb.lt_u(count).shl(6))
      .or(la.lt_u(count).shl(7))
      .or(result.and(1).shl(11));
    c.setFlags(flags);
  };

export const vectorString: Semantics = {
  pcmpestri: compareStrings(true, true),
  pcmpestrm: compareStrings(true, false),
  pcmpistri: compareStrings(false, true),
  pcmpistrm: compareStrings(false, false),
};
