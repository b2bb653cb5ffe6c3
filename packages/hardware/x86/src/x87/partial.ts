/** FPREM, FPREM1, FRNDINT, FSCALE, FXTRACT. SDM vol. 2. */
import {
  BIAS,
  Extended,
  Kind,
  compare64,
  normalize,
  normalizeOperand,
  shiftRight,
  shifted,
} from "./extended.js";
import { Condition } from "./compare.js";
import {
  type Context,
  Exception,
  divideByZero,
  increments,
  invalid,
  nanResult,
  quiet,
  round,
  setInfinity,
  setZero,
} from "./rounding.js";

const x = new Extended();
const y = new Extended();

/**
 * out = a - quotient * b.
 * @returns condition codes: C2 (not reduced far enough), C0 C3 C1 (the quotient's bits 2, 1, 0); -1 without a quotient
 * @param nearest the quotient is rounded to nearest (FPREM1), else towards zero
 */
export function remainder(
  cx: Context,
  out: Extended,
  a: Extended,
  kindA: number,
  b: Extended,
  kindB: number,
  nearest: boolean,
): number {
  if (nanResult(cx, out, a, kindA, b, kindB)) return -1;
  if (kindA === Kind.INFINITY || kindB === Kind.ZERO) {
    invalid(cx, out);
    return -1;
  }
  if ((kindA === Kind.DENORMAL || kindB === Kind.DENORMAL) && cx.denormal()) return -1;
  if (kindA === Kind.ZERO) {
    out.copy(a);
    return 0;
  }
  x.copy(a);
  normalizeOperand(x);
  if (kindB === Kind.INFINITY) {
    round(cx, out, x.sign, x.exponent, x.high, x.low, 0, 64);
    return 0;
  }
  y.copy(b);
  normalizeOperand(y);
  const distance = x.exponent - y.exponent;
  // Exponents may differ by 63 at most for the whole quotient; else only 32 to 63 bits of it are done.
  const complete = distance < 64;
  const steps = complete ? distance : (distance & 31) | 32;
  let { high, low, exponent, sign } = x;
  let quotient = 0;
  let carry = 0;
  for (let i = steps; i >= 0; i--) {
    quotient <<= 1;
    if (carry === 1 || compare64(high, low, y.high, y.low) >= 0) {
      const difference = low - y.low;
      high = (high - y.high - (difference < 0 ? 1 : 0)) >>> 0;
      low = difference >>> 0;
      quotient |= 1;
    }
    // The last step leaves the remainder at the divisor's exponent.
    if (i > 0) {
      carry = high >>> 31;
      high = ((high << 1) | (low >>> 31)) >>> 0;
      low = (low << 1) >>> 0;
      exponent--;
    }
  }
  if (complete && nearest) {
    // Compare twice the remainder, which is at the divisor's exponent or one below it, with the divisor.
    let order: number;
    if (distance < -1) order = -1;
    else if (distance === -1) order = compare64(high, low, y.high, y.low);
    else if (high >>> 31 === 1) order = 1;
    else order = compare64(((high << 1) | (low >>> 31)) >>> 0, (low << 1) >>> 0, y.high, y.low);
    if (order > 0 || (order === 0 && (quotient & 1) === 1)) {
      quotient++;
      sign ^= 1;
      // Divisor minus remainder.
      if (distance === -1) {
        // The remainder is half as large as it looks: twice the divisor less it, at its exponent.
        const lowTwice = (y.low << 1) >>> 0;
        const difference = lowTwice - low;
        high = (((y.high << 1) | (y.low >>> 31)) - high - (difference < 0 ? 1 : 0)) >>> 0;
        low = difference >>> 0;
      } else {
        const difference = y.low - low;
        high = (y.high - high - (difference < 0 ? 1 : 0)) >>> 0;
        low = difference >>> 0;
      }
    }
  }
  const count = normalize(high, low, 0);
  if (count === 96) setZero(out, a.sign);
  else round(cx, out, sign, exponent - count, shifted.high, shifted.low, 0, 64);
  if (!complete) return Condition.C2;
  return (
    (quotient & 4 ? Condition.C0 : 0) | (quotient & 2 ? Condition.C3 : 0) | (quotient & 1 ? Condition.C1 : 0)
  );
}

/** out = a rounded to an integer. */
export function roundToInteger(cx: Context, out: Extended, a: Extended, kind: number): void {
  if (kind === Kind.UNSUPPORTED) return invalid(cx, out);
  out.copy(a);
  if (kind === Kind.SNAN) cx.flags |= Exception.IE;
  if (kind >= Kind.QNAN) return quiet(out);
  if (kind === Kind.ZERO || kind === Kind.INFINITY) return;
  if (kind === Kind.DENORMAL && cx.denormal()) return;
  const count = BIAS + 63 - a.exponent;
  if (count <= 0) return;
  shiftRight(a.high, a.low, 0, count);
  let { high, low } = shifted;
  const { extra } = shifted;
  if (extra !== 0) cx.flags |= Exception.PE;
  if (increments(cx.rounding, a.sign, low & 1, extra)) {
    cx.up = true;
    low = (low + 1) >>> 0;
    if (low === 0) high = (high + 1) >>> 0;
  }
  const left = normalize(high, low, 0);
  if (left === 96) setZero(out, a.sign);
  else out.set(a.sign, BIAS + 63 - left, shifted.high, shifted.low);
}

/** out = a * 2^(b towards zero). */
export function scale(
  cx: Context,
  out: Extended,
  a: Extended,
  kindA: number,
  b: Extended,
  kindB: number,
): void {
  if (nanResult(cx, out, a, kindA, b, kindB)) return;
  if (kindB === Kind.INFINITY) {
    if (b.sign === 0 ? kindA === Kind.ZERO : kindA === Kind.INFINITY) return invalid(cx, out);
  }
  if ((kindA === Kind.DENORMAL || kindB === Kind.DENORMAL) && cx.denormal()) return;
  if (kindA === Kind.INFINITY || kindA === Kind.ZERO) return out.copy(a);
  if (kindB === Kind.INFINITY) return b.sign === 1 ? setZero(out, a.sign) : setInfinity(out, a.sign);
  x.copy(a);
  normalizeOperand(x);
  // More than 17 bits cannot matter.
  let by = 0;
  if (b.exponent > BIAS + 16) by = 0x20000;
  else if (b.exponent >= BIAS) by = b.high >>> (31 - (b.exponent - BIAS));
  if (b.sign === 1) by = -by;
  round(cx, out, x.sign, x.exponent + by, x.high, x.low, 0, 64);
}

/** a's exponent to `exponent`, its significand to `significand`. */
export function extract(
  cx: Context,
  exponent: Extended,
  significand: Extended,
  a: Extended,
  kind: number,
): void {
  if (kind === Kind.UNSUPPORTED) {
    invalid(cx, exponent);
    return significand.copy(exponent);
  }
  significand.copy(a);
  if (kind >= Kind.QNAN) {
    if (kind === Kind.SNAN) cx.flags |= Exception.IE;
    quiet(significand);
    return exponent.copy(significand);
  }
  if (kind === Kind.INFINITY) return setInfinity(exponent, 0);
  if (kind === Kind.ZERO) return divideByZero(cx, exponent, 1);
  if (kind === Kind.DENORMAL && cx.denormal()) return;
  normalizeOperand(significand);
  const unbiased = significand.exponent - BIAS;
  significand.exponent = BIAS;
  setSmall(exponent, unbiased);
}
function setSmall(out: Extended, value: number): void {
  if (value === 0) return setZero(out, 0);
  const magnitude = Math.abs(value);
  const count = Math.clz32(magnitude);
  out.set(value < 0 ? 1 : 0, BIAS + 31 - count, (magnitude << count) >>> 0, 0);
}
