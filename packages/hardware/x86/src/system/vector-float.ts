/**
 * SSE floating point computed exactly, with MXCSR's rounding, DAZ, FTZ, flags and masks: what generated code calls when
 * its fast path does not hold. Operands are read at addresses; the result goes to the engine's 16-byte temporary.
 *
 * Source: Intel SDM vol. 1, 10.2.3 (MXCSR), 11.5 (exceptions), vol. 2.
 */
import { CR4 } from "../bits.js";
import type { X86Core } from "../core.js";
import { ENGINE, Vector } from "../layout.js";
import { REG } from "../register-file.js";
import {
  add,
  BEFORE,
  convert,
  divide,
  DOUBLE,
  extreme,
  type FloatState,
  type Format,
  fromInteger,
  indefinite,
  integerOf,
  integral,
  isInfinite,
  isNaN,
  isNegative,
  multiply,
  relation,
  root,
  SINGLE,
  subtract,
} from "../softfloat/ieee.js";

/** Bits of MXCSR. */
const MXCSR = { DAZ: 0x40, MASK_SHIFT: 7, OM: 0x400, UM: 0x800, RC_SHIFT: 13, FTZ: 0x8000 } as const;
const FLAGS = 0x3f;
const TRUNCATE = 3;

/** One instruction's computation: operands at addresses `a` (the destination) and `b`, result at `to`. */
interface Lanes {
  readonly view: DataView;
  readonly a: number;
  readonly b: number;
  readonly to: number;
  /** The immediate, or what else the instruction depends on. */
  readonly control: number;
  readonly state: FloatState;
  /** Exceptions that are not masked. */
  readonly unmasked: number;
}
type Computation = (l: Lanes) => void;

const get = (l: Lanes, f: Format, at: number, n: number): bigint =>
  f === DOUBLE ? l.view.getBigUint64(at + n * 8, true) : BigInt(l.view.getUint32(at + n * 4, true));
function put(l: Lanes, f: Format, n: number, value: bigint): void {
  if (f === DOUBLE) l.view.setBigUint64(l.to + n * 8, value, true);
  else l.view.setUint32(l.to + n * 4, Number(value), true);
}
type Binary = (f: Format, a: bigint, b: bigint, s: FloatState, l: Lanes) => bigint;
const binary =
  (f: Format, lanes: number, compute: Binary): Computation =>
  (l) => {
    for (let n = 0; n < lanes; n++)
      put(l, f, n, compute(f, get(l, f, l.a, n), get(l, f, l.b, n), l.state, l));
  };
const unary =
  (
    f: Format,
    lanes: number,
    compute: (f: Format, b: bigint, s: FloatState, l: Lanes) => bigint,
  ): Computation =>
  (l) => {
    for (let n = 0; n < lanes; n++) put(l, f, n, compute(f, get(l, f, l.b, n), l.state, l));
  };
/** Lane n of the result from two neighbours: of the destination for the low half, of the source for the high half. */
const horizontal =
  (f: Format, lanes: number, compute: Binary): Computation =>
  (l) => {
    for (let n = 0; n < lanes; n++) {
      const from = n < lanes / 2 ? l.a : l.b;
      const at = (2 * n) % lanes;
      put(l, f, n, compute(f, get(l, f, from, at), get(l, f, from, at + 1), l.state, l));
    }
  };
const addSubtract = (f: Format, lanes: number): Computation => {
  return (l) => {
    for (let n = 0; n < lanes; n++)
      put(l, f, n, add(f, get(l, f, l.a, n), get(l, f, l.b, n), l.state, n % 2 === 0));
  };
};

/** CMPxx: all ones where the predicate holds. Predicates from 4 on are the opposites. */
const comparison: Binary = (f, a, b, s, l) => {
  const predicate = l.control & 3;
  const r = relation(f, a, b, s, predicate === 1 || predicate === 2);
  const holds =
    predicate === 0 ? r === 0 : predicate === 1 ? r < 0 : predicate === 2 ? r <= 0 : Number.isNaN(r);
  return holds !== ((l.control & 4) !== 0) ? 2n * f.sign - 1n : 0n;
};
/** (U)COMIS: ZF, PF and CF at their places in RFLAGS. */
const flags =
  (f: Format, signaling: boolean): Computation =>
  (l) => {
    const r = relation(f, get(l, f, l.a, 0), get(l, f, l.b, 0), l.state, signaling);
    l.view.setUint32(l.to, Number.isNaN(r) ? 0x45 : r === 0 ? 0x40 : r < 0 ? 1 : 0, true);
  };
/** Lanes from one format to another; the lanes behind are zeros. */
const conversion =
  (from: Format, to: Format, lanes: number): Computation =>
  (l) => {
    l.view.setBigUint64(l.to + 8, 0n, true);
    for (let n = 0; n < lanes; n++) put(l, to, n, convert(from, to, get(l, from, l.b, n), l.state));
  };
/** Signed 32-bit lanes to numbers. */
const fromLanes =
  (f: Format, lanes: number): Computation =>
  (l) => {
    for (let n = 0; n < lanes; n++) {
      put(l, f, n, fromInteger(f, BigInt(l.view.getInt32(l.b + n * 4, true)), l.state));
    }
  };
/** Numbers to signed 32-bit lanes; the lanes behind are zeros. */
const toLanes =
  (f: Format, lanes: number, truncate: boolean): Computation =>
  (l) => {
    const rounding = truncate ? TRUNCATE : l.state.rounding;
    l.view.setBigUint64(l.to + 8, 0n, true);
    for (let n = 0; n < lanes; n++) {
      const value = integerOf(f, get(l, f, l.b, n), 32, rounding, l.state);
      l.view.setUint32(l.to + n * 4, Number(value), true);
    }
  };
/** A general register's value, `control` bits wide, to a number. */
const fromRegister =
  (f: Format): Computation =>
  (l) => {
    const value = l.control === 64 ? l.view.getBigInt64(l.b, true) : BigInt(l.view.getInt32(l.b, true));
    put(l, f, 0, fromInteger(f, value, l.state));
  };
const toRegister =
  (f: Format, truncate: boolean): Computation =>
  (l) => {
    const rounding = truncate ? TRUNCATE : l.state.rounding;
    l.view.setBigUint64(l.to, integerOf(f, get(l, f, l.b, 0), l.control, rounding, l.state), true);
  };
const toIntegral = (f: Format, b: bigint, s: FloatState, l: Lanes): bigint =>
  integral(f, b, l.control & 4 ? s.rounding : l.control & 3, (l.control & 8) !== 0, s);

/** DPPS, DPPD: products where the immediate's high bits say so, their sum where its low bits do. */
const dot =
  (f: Format, lanes: number): Computation =>
  (l) => {
    const { state } = l;
    const products = Array.from({ length: lanes }, (_, n) =>
      l.control & (0x10 << n) ? multiply(f, get(l, f, l.a, n), get(l, f, l.b, n), state) : 0n,
    );
    // An exception that is not masked ends the instruction before the next step.
    if (state.flags & l.unmasked) return;
    const pairs = products.filter((_, n) => n % 2 === 0).map((p, n) => add(f, p, products[2 * n + 1], state));
    if (state.flags & l.unmasked) return;
    const sum = pairs.length === 1 ? pairs[0] : add(f, pairs[0], pairs[1], state);
    for (let n = 0; n < lanes; n++) put(l, f, n, l.control & (1 << n) ? sum : 0n);
  };

const number = new DataView(new ArrayBuffer(4));
function single(bits: bigint): number {
  number.setUint32(0, Number(bits));
  return number.getFloat32(0);
}
/** Significand bits behind the point that the approximations have. */
const APPROXIMATE_BITS = 12;
/** A result of RCP or RSQRT: rounded to 12 bits behind the point; tiny ones are zero. */
function approximate(value: number): bigint {
  const magnitude = Math.abs(value);
  const exponent = Math.floor(Math.log2(magnitude));
  if (exponent < SINGLE.least) return value < 0 ? SINGLE.sign : 0n;
  const unit = 2 ** (exponent - APPROXIMATE_BITS);
  number.setFloat32(0, Math.sign(value) * Math.floor(magnitude / unit + 0.5) * unit);
  return BigInt(number.getUint32(0));
}
/**
 * The approximations of Intel's processors: the significand is cut to `bits` bits behind the point and taken as the
 * middle of what it stands for; the function of that is rounded to nearest. No exceptions, denormals are zeros.
 */
function approximation(x: bigint, bits: number, compute: (middle: number) => number): bigint {
  if (isNaN(SINGLE, x)) return x | SINGLE.quiet;
  if ((x & SINGLE.infinity) === 0n) return (x & SINGLE.sign) | SINGLE.infinity;
  const drop = SINGLE.fraction - BigInt(bits);
  return approximate(compute(single(((x >> drop) << drop) | (1n << (drop - 1n)))));
}
const reciprocal = (f: Format, x: bigint): bigint =>
  isInfinite(f, x) ? x & f.sign : approximation(x, 11, (middle) => 1 / middle);
const reciprocalRoot = (f: Format, x: bigint): bigint => {
  const positive = isNaN(f, x) || !isNegative(f, x) || (x & f.infinity) === 0n;
  if (!positive) return indefinite(f);
  return isInfinite(f, x) ? 0n : approximation(x, 10, (middle) => 1 / Math.sqrt(middle));
};

const SIZES = [
  ["ps", SINGLE, 4],
  ["pd", DOUBLE, 2],
  ["ss", SINGLE, 1],
  ["sd", DOUBLE, 1],
] as const;
const least: Binary = (f, a, b, s) => extreme(f, a, b, s, false);
const greatest: Binary = (f, a, b, s) => extreme(f, a, b, s, true);
const BINARY: Record<string, Binary> = {
  add: (f, a, b, s) => add(f, a, b, s),
  sub: subtract,
  mul: multiply,
  div: divide,
  min: least,
  max: greatest,
  cmp: comparison,
};
const computations: Record<string, Computation> = {};
for (const [suffix, f, lanes] of SIZES) {
  for (const [name, compute] of Object.entries(BINARY))
    computations[name + suffix] = binary(f, lanes, compute);
  computations[`sqrt${suffix}`] = unary(f, lanes, root);
  computations[`round${suffix}`] = unary(f, lanes, toIntegral);
  if (lanes > 1) {
    computations[`hadd${suffix}`] = horizontal(f, lanes, BINARY["add"]);
    computations[`hsub${suffix}`] = horizontal(f, lanes, subtract);
    computations[`addsub${suffix}`] = addSubtract(f, lanes);
    computations[`dp${suffix}`] = dot(f, lanes);
  } else {
    computations[`comi${suffix}`] = flags(f, true);
    computations[`ucomi${suffix}`] = flags(f, false);
    computations[`cvtsi2${suffix}`] = fromRegister(f);
    computations[`cvt${suffix}2si`] = toRegister(f, false);
    computations[`cvtt${suffix}2si`] = toRegister(f, true);
  }
  if (f === SINGLE) {
    computations[`rcp${suffix}`] = unary(f, lanes, reciprocal);
    computations[`rsqrt${suffix}`] = unary(f, lanes, reciprocalRoot);
  }
}
Object.assign(computations, {
  cvtss2sd: conversion(SINGLE, DOUBLE, 1),
  cvtsd2ss: conversion(DOUBLE, SINGLE, 1),
  cvtps2pd: conversion(SINGLE, DOUBLE, 2),
  cvtpd2ps: conversion(DOUBLE, SINGLE, 2),
  cvtdq2ps: fromLanes(SINGLE, 4),
  cvtpi2ps: fromLanes(SINGLE, 2),
  cvtps2dq: toLanes(SINGLE, 4, false),
  cvttps2dq: toLanes(SINGLE, 4, true),
  cvtpd2dq: toLanes(DOUBLE, 2, false),
  cvttpd2dq: toLanes(DOUBLE, 2, true),
  cvtps2pi: toLanes(SINGLE, 2, false),
  cvttps2pi: toLanes(SINGLE, 2, true),
});

const names = Object.keys(computations);
const table = names.map((name) => computations[name]);
/** The number by which generated code calls a computation. */
export function floatNumber(name: string): number {
  const n = names.indexOf(name);
  if (n < 0) throw new RangeError(`no computation ${name}`);
  return n;
}

/**
 * Runs a computation; the result is in ENGINE.TEMP.
 * @param a @param b addresses of the operands @returns 1 if an exception has been prepared and nothing may be stored
 */
export function float(core: X86Core, operation: number, a: number, b: number, control: number): number {
  const mxcsr = core.get32(REG.MXCSR);
  const unmasked = FLAGS & ~(mxcsr >> MXCSR.MASK_SHIFT);
  const state: FloatState = {
    rounding: (mxcsr >> MXCSR.RC_SHIFT) & 3,
    denormalsAreZero: (mxcsr & MXCSR.DAZ) !== 0,
    flushToZero: (mxcsr & MXCSR.FTZ) !== 0,
    overflowMasked: (mxcsr & MXCSR.OM) !== 0,
    underflowMasked: (mxcsr & MXCSR.UM) !== 0,
    flags: 0,
  };
  table[operation]({ view: core.dv, a, b, to: core.regs.base + ENGINE.TEMP, control, state, unmasked });
  let raised = state.flags;
  // Exceptions found before the computation, if not masked, keep it from being made.
  if (raised & unmasked & BEFORE) raised &= BEFORE;
  core.set32(REG.MXCSR, mxcsr | raised);
  if (!(raised & unmasked)) return 0;
  core.raise(core.get32(REG.CR4) & CR4.OSXMMEXCPT ? Vector.XM : Vector.UD);
  return 1;
}
