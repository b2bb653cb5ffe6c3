/**
 * Lanes of single and double precision in wasm's SIMD, and when its arithmetic is SSE's: with ordinary operands and
 * results, if either inexact results go unnoticed or these are seen to be exact.
 */
import { I32 } from "../wasm/encoder.js";
import { type Code, i32, i64, simdOp, type V } from "../wasm/expr.js";
import { op, shuffle, splat64, v128, ZERO } from "./vector-operand.js";

/** MXCSR: rounding control, precision mask and flag; how they are if inexact results go unnoticed. */
export const INEXACT_FIELDS = 0x7020;
export const INEXACT_UNNOTICED = 0x1020;
export const ROUNDING = 0x6000;

/** wasm's instructions for lanes of one size. */
export interface LaneFormat {
  readonly bits: 32 | 64;
  readonly abs: number;
  readonly sqrt: number;
  readonly add: number;
  readonly sub: number;
  readonly mul: number;
  readonly div: number;
  readonly pmin: number;
  readonly pmax: number;
  readonly eq: number;
  readonly lt: number;
  readonly gt: number;
  readonly le: number;
  readonly ge: number;
  /** Integer lanes: equal; sign bits of all lanes. */
  readonly equal: number;
  readonly bitmask: number;
  /** Rounding by RC: nearest, down, up, towards zero. */
  readonly rounding: readonly [number, number, number, number];
  readonly least: V;
  readonly greatest: V;
  readonly sign: V;
  /** Sign bits of the even lanes. */
  readonly evenSigns: V;
}
const four = (...b: number[]) => v128(...b, ...b, ...b, ...b);
const two = (...b: number[]) => v128(...b, ...b);
export const F32: LaneFormat = {
  bits: 32,
  abs: 0xe0,
  sqrt: 0xe3,
  add: 0xe4,
  sub: 0xe5,
  mul: 0xe6,
  div: 0xe7,
  pmin: 0xea,
  pmax: 0xeb,
  eq: 0x41,
  lt: 0x43,
  gt: 0x44,
  le: 0x45,
  ge: 0x46,
  equal: 0x37,
  bitmask: 0xa4,
  rounding: [0x6a, 0x68, 0x67, 0x69],
  least: four(0, 0, 0x80, 0),
  greatest: four(0xff, 0xff, 0x7f, 0x7f),
  sign: four(0, 0, 0, 0x80),
  evenSigns: two(0, 0, 0, 0x80, 0, 0, 0, 0),
};
export const F64: LaneFormat = {
  bits: 64,
  abs: 0xec,
  sqrt: 0xef,
  add: 0xf0,
  sub: 0xf1,
  mul: 0xf2,
  div: 0xf3,
  pmin: 0xf6,
  pmax: 0xf7,
  eq: 0x47,
  lt: 0x49,
  gt: 0x4a,
  le: 0x4b,
  ge: 0x4c,
  equal: 0xd6,
  bitmask: 0xc4,
  rounding: [0x94, 0x75, 0x74, 0x7a],
  least: two(0, 0, 0, 0, 0, 0, 0x10, 0),
  greatest: two(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xef, 0x7f),
  sign: two(0, 0, 0, 0, 0, 0, 0, 0x80),
  evenSigns: v128(0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0),
};
export const and = (a: V, b: V) => op(0x4e, a, b);
export const or = (a: V, b: V) => op(0x50, a, b);
export const xor = (a: V, b: V) => op(0x51, a, b);
export const promote = (v: V) => op(0x5f, v);
export const demote = (v: V) => op(0x5e, v);
const upperHalf = (v: V) => shuffle(v, v, [8, 9, 10, 11, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15]);

/** i32: the lanes of a mask that count are all set. */
export function all(f: LaneFormat, lanes: number, mask: V): V {
  const bits = (1 << lanes) - 1;
  return simdOp(f.bitmask, I32, [mask]).and(bits).eq(bits);
}
export const isZero = (f: LaneFormat, v: V) => op(f.eq, v, ZERO);
/** Not denormal and no NaN. */
export const plain = (f: LaneFormat, v: V) => or(op(f.ge, op(f.abs, v), f.least), isZero(f, v));
/** A normal number, not the least one, to which a tiny result may have been rounded. */
const normal = (f: LaneFormat, code: Code, v: V): V => {
  const magnitude = code.let(op(f.abs, v));
  return and(op(f.gt, magnitude, f.least), op(f.le, magnitude, f.greatest));
};

/** An operation: what wasm makes of it, and what is known about the result. */
export interface Arithmetic {
  /** Its name in the names of helper functions. */
  readonly name: string;
  readonly compute: (f: LaneFormat, a: V, b: V) => V;
  /** Mask of the lanes where a zero result is exact. */
  readonly zero: (f: LaneFormat, a: V, b: V) => V;
  /** i32: bits of the lanes whose result is seen to be exact. */
  readonly exact: (f: LaneFormat, code: Code, a: V, b: V, r: V) => V;
}
const bitsOf = (f: LaneFormat, mask: V): V => simdOp(f.bitmask, I32, [mask]);
/** Bits of the lanes of single-precision vectors for whose double-precision values something holds. */
function inDouble(vectors: V[], relation: (...v: V[]) => V): V {
  const upper = vectors.map((v) => promote(upperHalf(v)));
  return bitsOf(F64, relation(...vectors.map(promote))).or(bitsOf(F64, relation(...upper)).shl(2));
}
/** Mask of double-precision lanes with at most 26 significant bits, whose products are exact. */
const short = (v: V) => op(F64.equal, and(v, splat64(i64((1 << 27) - 1))), ZERO);
const product = (a: V, b: V) => op(F64.mul, a, b);
export const equals = (a: V, b: V) => op(F64.eq, a, b);

export const ADD: Arithmetic = {
  name: "add",
  compute: (f, a, b) => op(f.add, a, b),
  // Sums of ordinary numbers do not underflow.
  zero: (f, a) => op(f.eq, a, a),
  // The rounding error of a sum, by Knuth.
  exact: (f, code, a, b, r) => {
    const back = code.let(op(f.sub, r, a));
    const error = op(f.add, op(f.sub, a, op(f.sub, r, back)), op(f.sub, b, back));
    return bitsOf(f, isZero(f, error));
  },
};
export const MUL: Arithmetic = {
  name: "mul",
  compute: (f, a, b) => op(f.mul, a, b),
  zero: (f, a, b) => or(isZero(f, a), isZero(f, b)),
  exact: (f, _code, a, b, r) =>
    f === F64
      ? bitsOf(f, and(short(a), short(b)))
      : inDouble([a, b, r], (x, y, z) => equals(product(x, y), z)),
};
export const DIV: Arithmetic = {
  name: "div",
  compute: (f, a, b) => op(f.div, a, b),
  zero: (f, a) => isZero(f, a),
  exact: (f, _code, a, b, r) =>
    f === F64
      ? bitsOf(f, and(and(short(b), short(r)), equals(product(b, r), a)))
      : inDouble([a, b, r], (x, y, z) => equals(product(y, z), x)),
};
/** Of the second operand; the first one is the same. */
export const SQRT: Arithmetic = {
  name: "sqrt",
  compute: (f, _a, b) => op(f.sqrt, b),
  zero: (f, _a, b) => isZero(f, b),
  exact: (f, _code, _a, b, r) =>
    f === F64
      ? bitsOf(f, and(short(r), equals(product(r, r), b)))
      : inDouble([b, r], (x, z) => equals(product(z, z), x)),
};

/** Names of the helper functions: bits of the lanes that are good. */
export const finalHelper = (f: LaneFormat, how: Arithmetic): string => `final ${how.name} ${f.bits}`;
export const plainHelper = (f: LaneFormat): string => `plain ${f.bits}`;

/** (a, b, r) → bits of the lanes whose result stands, in `code` returned. @param mxcsr its value */
export function emitFinal(code: Code, f: LaneFormat, how: Arithmetic, mxcsr: V, a: V, b: V, r: V): void {
  const operands = how === SQRT ? plain(f, b) : and(plain(f, a), plain(f, b));
  const result = or(normal(f, code, r), and(isZero(f, r), how.zero(f, a, b)));
  const bits = code.let(bitsOf(f, and(operands, result)));
  code.if(mxcsr.and(INEXACT_FIELDS).eq(INEXACT_UNNOTICED), () => code.return(bits));
  code.if(mxcsr.and(ROUNDING).eqz(), () => code.return(bits.and(how.exact(f, code, a, b, r))));
  code.return(i32(0));
}
/** (a, b) → bits of the lanes where neither is a NaN or denormal. */
export function emitPlain(code: Code, f: LaneFormat, a: V, b: V): void {
  code.return(bitsOf(f, and(plain(f, a), plain(f, b))));
}
