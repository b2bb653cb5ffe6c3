/**
 * Binary floating point on integers: finite numbers as significand × 2^exponent, the exact operations on them, and the
 * one routine that rounds to a format. Exact but slow: fast paths decide what needs it. Used for SSE (ieee.ts) and
 * fit for x87's 64-bit significands.
 *
 * Source: IEEE 754-2008 clauses 4, 5.4, 7; tininess is found after rounding, as on x86 (SDM vol. 1, 4.9.1.5).
 */

/** A finite number: ± significand × 2^exponent. */
export interface Exact {
  readonly negative: boolean;
  readonly exponent: number;
  readonly significand: bigint;
}
/** What numbers a format has: bits of the significand with the integer bit, exponents of the least and greatest normal. */
export interface Range {
  readonly precision: number;
  readonly least: number;
  readonly greatest: number;
}
/** Rounding by its encoding in MXCSR.RC and the x87 control word. */
export const Rounding = { NEAREST: 0, DOWN: 1, UP: 2, ZERO: 3 } as const;

/** A number rounded to a range. */
export interface Rounded {
  /** `precision` bits, fewer if subnormal; 0 if nothing is left. */
  readonly significand: bigint;
  /** Exponent of the lowest bit. */
  readonly exponent: number;
  readonly inexact: boolean;
  /** It would be inexact even if the exponent had no bound. */
  readonly imprecise: boolean;
  /** The magnitude grew. */
  readonly up: boolean;
  /** Below the least normal number if the exponent had no bound. */
  readonly tiny: boolean;
  /** Above the greatest number if the exponent had no bound; the significand is then that of an unbounded exponent. */
  readonly huge: boolean;
}

/** Bits in a positive number; 0 for 0. */
export function bitLength(value: bigint): number {
  if (value === 0n) return 0;
  const hex = value.toString(16);
  return hex.length * 4 + 28 - Math.clz32(parseInt(hex[0], 16));
}
/** Whether a magnitude with a remainder grows when rounded. @param rest remainder compared to half: -1, 0, 1 */
function grows(rest: number, odd: boolean, negative: boolean, rounding: number): boolean {
  if (rounding === Rounding.NEAREST) return rest > 0 || (rest === 0 && odd);
  return rounding !== Rounding.ZERO && (rounding === Rounding.DOWN) === negative;
}
/** The significand without its lowest `drop` bits, rounded. A negative `drop` adds zeros. */
export function roundBits(
  significand: bigint,
  drop: number,
  negative: boolean,
  rounding: number,
): { kept: bigint; inexact: boolean; up: boolean } {
  if (drop <= 0) return { kept: significand << BigInt(-drop), inexact: false, up: false };
  const kept = significand >> BigInt(drop);
  const rest = significand - (kept << BigInt(drop));
  if (rest === 0n) return { kept, inexact: false, up: false };
  const half = 1n << BigInt(drop - 1);
  const up = grows(rest > half ? 1 : rest === half ? 0 : -1, (kept & 1n) === 1n, negative, rounding);
  return { kept: up ? kept + 1n : kept, inexact: true, up };
}
/** Rounds a number that is not zero. */
export function round({ negative, exponent, significand }: Exact, range: Range, rounding: number): Rounded {
  const { precision } = range;
  const drop = bitLength(significand) - precision;
  const { kept, inexact, up } = roundBits(significand, drop, negative, rounding);
  const carried = kept >> BigInt(precision) === 1n;
  const top = exponent + drop + precision - 1 + (carried ? 1 : 0);
  if (top < range.least) {
    const lowest = range.least - precision + 1;
    const tiny = roundBits(significand, lowest - exponent, negative, rounding);
    return {
      significand: tiny.kept,
      exponent: lowest,
      inexact: tiny.inexact,
      imprecise: inexact,
      up: tiny.up,
      tiny: true,
      huge: false,
    };
  }
  return {
    significand: carried ? kept >> 1n : kept,
    exponent: top - precision + 1,
    inexact,
    imprecise: inexact,
    up,
    tiny: false,
    huge: top > range.greatest,
  };
}

/** Enough bits behind a rounding position that a tinier addend only matters as "not zero". */
const GUARD = 130;

/** a + b; a zero significand if they cancel. Far smaller addends are replaced by ones that round alike. */
export function sum(a: Exact, b: Exact): Exact {
  const x = a.exponent >= b.exponent ? a : b;
  let y = x === a ? b : a;
  const gap = x.exponent - y.exponent;
  if (gap > GUARD + bitLength(y.significand)) {
    if (x.significand === 0n) return y;
    if (y.significand !== 0n) y = { negative: y.negative, exponent: x.exponent - GUARD, significand: 1n };
    else y = { negative: y.negative, exponent: x.exponent, significand: 0n };
  }
  const left = x.significand << BigInt(x.exponent - y.exponent);
  const total = (x.negative ? -left : left) + (y.negative ? -y.significand : y.significand);
  return { negative: total < 0n, exponent: y.exponent, significand: total < 0n ? -total : total };
}
export function product(a: Exact, b: Exact): Exact {
  return {
    negative: a.negative !== b.negative,
    exponent: a.exponent + b.exponent,
    significand: a.significand * b.significand,
  };
}
/** a / b (b not 0) to at least `bits` bits; the lowest bit of the result stands for a remainder. */
export function quotient(a: Exact, b: Exact, bits: number): Exact {
  const shift = Math.max(0, bits + 1 - bitLength(a.significand) + bitLength(b.significand));
  const dividend = a.significand << BigInt(shift);
  const q = dividend / b.significand;
  const rest = dividend !== q * b.significand;
  return {
    negative: a.negative !== b.negative,
    exponent: a.exponent - b.exponent - shift - 1,
    significand: (q << 1n) | (rest ? 1n : 0n),
  };
}
/** Greatest integer whose square is at most `value`. */
export function integerRoot(value: bigint): bigint {
  if (value < 2n) return value;
  let x = 1n << BigInt((bitLength(value) + 1) >> 1);
  for (;;) {
    const next = (x + value / x) >> 1n;
    if (next >= x) return x;
    x = next;
  }
}
/** √a (a ≥ 0) to at least `bits` bits; the lowest bit of the result stands for a remainder. */
export function squareRoot(a: Exact, bits: number): Exact {
  let shift = Math.max(0, 2 * bits + 2 - bitLength(a.significand));
  if ((a.exponent - shift) & 1) shift++;
  const value = a.significand << BigInt(shift);
  const root = integerRoot(value);
  return {
    negative: false,
    exponent: (a.exponent - shift) / 2 - 1,
    significand: (root << 1n) | (root * root !== value ? 1n : 0n),
  };
}
/** Sign of a - b. */
export function compare(a: Exact, b: Exact): number {
  const difference = sum(a, { ...b, negative: !b.negative });
  return difference.significand === 0n ? 0 : difference.negative ? -1 : 1;
}
/** a as an integer with a sign, rounded. */
export function toInteger(
  { negative, exponent, significand }: Exact,
  rounding: number,
): { value: bigint; inexact: boolean; up: boolean } {
  const { kept, inexact, up } = roundBits(significand, -exponent, negative, rounding);
  return { value: negative ? -kept : kept, inexact, up };
}
