/**
 * Single and double precision as SSE computes them: NaN rules, exception flags, DAZ and FTZ. Numbers are their bits.
 *
 * Sources: IEEE 754-2008; Intel SDM vol. 1, 4.8.3.5 (NaNs), 4.9 (exceptions and their priority), 10.2.3 (MXCSR), 11.5.
 */
import {
  bitLength,
  compare,
  type Exact,
  product,
  quotient,
  type Range,
  round,
  squareRoot,
  sum,
  toInteger,
} from "./exact.js";

/** Exception flags, at their places in MXCSR and the x87 status word. */
export const Flag = { IE: 1, DE: 2, ZE: 4, OE: 8, UE: 16, PE: 32 } as const;
/** Exceptions that are found before the computation. */
export const BEFORE = Flag.IE | Flag.DE | Flag.ZE;

/** An interchange format. */
export interface Format extends Range {
  readonly bits: number;
  /** Bits of the fraction. */
  readonly fraction: bigint;
  readonly sign: bigint;
  readonly infinity: bigint;
  /** The bit that makes a NaN quiet. */
  readonly quiet: bigint;
}
const format = (bits: number, precision: number, greatest: number): Format => {
  const fraction = BigInt(precision - 1);
  return {
    bits,
    precision,
    least: 1 - greatest,
    greatest,
    fraction,
    sign: 1n << BigInt(bits - 1),
    infinity: (1n << BigInt(bits - 1)) - (1n << fraction),
    quiet: 1n << (fraction - 1n),
  };
};
export const SINGLE = format(32, 24, 127);
export const DOUBLE = format(64, 53, 1023);

/** What operations depend on, and the flags they raise. */
export interface FloatState {
  /** Rounding. */
  rounding: number;
  denormalsAreZero: boolean;
  flushToZero: boolean;
  /** Exceptions that are masked; those that are not are only flagged, the result means nothing. */
  overflowMasked: boolean;
  underflowMasked: boolean;
  flags: number;
}

export const isNaN = (f: Format, x: bigint): boolean => (x & ~f.sign) > f.infinity;
export const isSignaling = (f: Format, x: bigint): boolean => isNaN(f, x) && (x & f.quiet) === 0n;
export const isInfinite = (f: Format, x: bigint): boolean => (x & ~f.sign) === f.infinity;
export const isZero = (f: Format, x: bigint): boolean => (x & ~f.sign) === 0n;
export const isNegative = (f: Format, x: bigint): boolean => (x & f.sign) !== 0n;
const isDenormal = (f: Format, x: bigint) => !isZero(f, x) && (x & f.infinity) === 0n;
/** The NaN that invalid operations yield. */
export const indefinite = (f: Format): bigint => f.sign | f.infinity | f.quiet;

/** A finite number's parts. */
export function unpack(f: Format, x: bigint): Exact {
  const magnitude = x & ~f.sign;
  const exponent = Number(magnitude >> f.fraction);
  const fraction = magnitude & ((1n << f.fraction) - 1n);
  const lowest = f.least - f.precision + 1;
  return {
    negative: isNegative(f, x),
    exponent: exponent === 0 ? lowest : lowest + exponent - 1,
    significand: exponent === 0 ? fraction : fraction | (1n << f.fraction),
  };
}
/** Rounds to the format and raises OE, UE and PE. @param zero sign of an exact zero */
export function pack(f: Format, x: Exact, s: FloatState, zero = x.negative): bigint {
  if (x.significand === 0n) return zero ? f.sign : 0n;
  const sign = x.negative ? f.sign : 0n;
  const r = round(x, f, s.rounding);
  if ((r.huge && !s.overflowMasked) || (r.tiny && !s.underflowMasked)) {
    // The result would be handed over with its exponent wrapped around: only its precision counts.
    s.flags |= (r.huge ? Flag.OE : Flag.UE) | (r.imprecise ? Flag.PE : 0);
    return sign;
  }
  if (r.huge) {
    s.flags |= Flag.OE | Flag.PE;
    // The rounding that would have brought the magnitude down to the greatest number gives that.
    const away = s.rounding === 0 || (s.rounding !== 3 && (s.rounding === 1) === x.negative);
    return sign | (away ? f.infinity : f.infinity - 1n);
  }
  if (r.tiny) {
    if (s.flushToZero) {
      s.flags |= Flag.UE | Flag.PE;
      return sign;
    }
    if (r.inexact) s.flags |= Flag.UE | Flag.PE;
    return sign | r.significand;
  }
  if (r.inexact) s.flags |= Flag.PE;
  return sign | ((BigInt(r.exponent + f.precision - 1 - f.least) << f.fraction) + r.significand);
}

/** An operand after DAZ; raises DE. Not for NaNs. */
function operand(f: Format, x: bigint, s: FloatState): bigint {
  if (!isDenormal(f, x)) return x;
  if (s.denormalsAreZero) return x & f.sign;
  s.flags |= Flag.DE;
  return x;
}
function invalid(f: Format, s: FloatState): bigint {
  s.flags |= Flag.IE;
  return indefinite(f);
}
/** The result if an operand is a NaN: the first that is one. */
function nanOf(f: Format, a: bigint, b: bigint, s: FloatState): bigint | undefined {
  const first = isNaN(f, a);
  if (!first && !isNaN(f, b)) return undefined;
  if (isSignaling(f, a) || isSignaling(f, b)) s.flags |= Flag.IE;
  return (first ? a : b) | f.quiet;
}

export function add(f: Format, a: bigint, b: bigint, s: FloatState, negate = false): bigint {
  const nan = nanOf(f, a, b, s);
  if (nan !== undefined) return nan;
  if (negate) b ^= f.sign;
  if (isInfinite(f, a) && isInfinite(f, b) && a !== b) return invalid(f, s);
  a = operand(f, a, s);
  b = operand(f, b, s);
  if (isInfinite(f, a)) return a;
  if (isInfinite(f, b)) return b;
  const negative = isNegative(f, a);
  const zero = negative === isNegative(f, b) ? negative : s.rounding === 1;
  return pack(f, sum(unpack(f, a), unpack(f, b)), s, zero);
}
export const subtract = (f: Format, a: bigint, b: bigint, s: FloatState): bigint => add(f, a, b, s, true);

export function multiply(f: Format, a: bigint, b: bigint, s: FloatState): bigint {
  const nan = nanOf(f, a, b, s);
  if (nan !== undefined) return nan;
  const x = s.denormalsAreZero ? operand(f, a, s) : a;
  const y = s.denormalsAreZero ? operand(f, b, s) : b;
  if ((isInfinite(f, x) && isZero(f, y)) || (isZero(f, x) && isInfinite(f, y))) return invalid(f, s);
  a = operand(f, x, s);
  b = operand(f, y, s);
  if (isInfinite(f, a) || isInfinite(f, b)) return ((a ^ b) & f.sign) | f.infinity;
  return pack(f, product(unpack(f, a), unpack(f, b)), s);
}
export function divide(f: Format, a: bigint, b: bigint, s: FloatState): bigint {
  const nan = nanOf(f, a, b, s);
  if (nan !== undefined) return nan;
  const sign = (a ^ b) & f.sign;
  if (s.denormalsAreZero) {
    a = operand(f, a, s);
    b = operand(f, b, s);
  }
  if (isZero(f, b) && !isInfinite(f, a)) {
    // A denormal dividend is not reported.
    if (isZero(f, a)) return invalid(f, s);
    s.flags |= Flag.ZE;
    return sign | f.infinity;
  }
  a = operand(f, a, s);
  b = operand(f, b, s);
  if (isInfinite(f, a)) return isInfinite(f, b) ? invalid(f, s) : sign | f.infinity;
  if (isInfinite(f, b)) return sign;
  if (isZero(f, a)) return sign;
  return pack(f, quotient(unpack(f, a), unpack(f, b), f.precision + 2), s);
}
export function root(f: Format, x: bigint, s: FloatState): bigint {
  if (isNaN(f, x)) {
    if (isSignaling(f, x)) s.flags |= Flag.IE;
    return x | f.quiet;
  }
  if (s.denormalsAreZero) x = operand(f, x, s);
  if (isZero(f, x)) return x;
  if (isNegative(f, x)) return invalid(f, s);
  x = operand(f, x, s);
  if (isInfinite(f, x)) return x;
  return pack(f, squareRoot(unpack(f, x), f.precision + 2), s);
}

/** A number's value on one scale with infinities: sign of a - b of numbers that are no NaN. */
function order(f: Format, a: bigint, b: bigint): number {
  if (isInfinite(f, a) || isInfinite(f, b)) {
    const rank = (x: bigint) => (!isInfinite(f, x) ? 0 : isNegative(f, x) ? -1 : 1);
    return rank(a) - rank(b);
  }
  return compare(unpack(f, a), unpack(f, b));
}
/** -1, 0, 1, or NaN if not ordered. @param signaling quiet NaNs are invalid too */
export function relation(f: Format, a: bigint, b: bigint, s: FloatState, signaling: boolean): number {
  if (isNaN(f, a) || isNaN(f, b)) {
    if (signaling || isSignaling(f, a) || isSignaling(f, b)) s.flags |= Flag.IE;
    return NaN;
  }
  a = operand(f, a, s);
  b = operand(f, b, s);
  return Math.sign(order(f, a, b));
}
/** MIN and MAX: the second operand if they are equal or one is a NaN. */
export function extreme(f: Format, a: bigint, b: bigint, s: FloatState, greatest: boolean): bigint {
  if (isNaN(f, a) || isNaN(f, b)) {
    s.flags |= Flag.IE;
    return s.denormalsAreZero && isDenormal(f, b) ? b & f.sign : b;
  }
  a = operand(f, a, s);
  b = operand(f, b, s);
  const sign = order(f, a, b);
  return (greatest ? sign > 0 : sign < 0) ? a : b;
}

/** From one format to another. */
export function convert(from: Format, to: Format, x: bigint, s: FloatState): bigint {
  const sign = isNegative(from, x) ? to.sign : 0n;
  const up = to.fraction - from.fraction;
  if (isNaN(from, x)) {
    if (isSignaling(from, x)) s.flags |= Flag.IE;
    const fraction = x & ((1n << from.fraction) - 1n);
    return sign | to.infinity | to.quiet | (up > 0n ? fraction << up : fraction >> -up);
  }
  if (isInfinite(from, x)) return sign | to.infinity;
  return pack(to, unpack(from, operand(from, x, s)), s);
}
/** From a signed integer. */
export function fromInteger(f: Format, value: bigint, s: FloatState): bigint {
  return pack(f, { negative: value < 0n, exponent: 0, significand: value < 0n ? -value : value }, s);
}
/** To a signed integer of `bits` bits (as unsigned bits); the most negative one if it does not fit. */
export function integerOf(f: Format, x: bigint, bits: number, rounding: number, s: FloatState): bigint {
  if (!isNaN(f, x) && !isInfinite(f, x)) {
    if (s.denormalsAreZero && isDenormal(f, x)) return 0n;
    const { value, inexact } = toInteger(unpack(f, x), rounding);
    if (bitLength(value < 0n ? ~value : value) < bits) {
      if (inexact) s.flags |= Flag.PE;
      return BigInt.asUintN(bits, value);
    }
  }
  s.flags |= Flag.IE;
  return 1n << BigInt(bits - 1);
}
/** To an integral value in the same format. @param quietly PE is not raised */
export function integral(f: Format, x: bigint, rounding: number, quietly: boolean, s: FloatState): bigint {
  if (isNaN(f, x)) {
    if (isSignaling(f, x)) s.flags |= Flag.IE;
    return x | f.quiet;
  }
  if (isInfinite(f, x)) return x;
  if (s.denormalsAreZero && isDenormal(f, x)) return x & f.sign;
  const { negative, exponent, significand } = unpack(f, x);
  if (exponent >= 0) return x;
  const { value, inexact } = toInteger({ negative, exponent, significand }, rounding);
  if (inexact && !quietly) s.flags |= Flag.PE;
  return pack(f, { negative, exponent: 0, significand: value < 0n ? -value : value }, s, negative);
}
