/** FADD, FSUB, FMUL, FDIV, FSQRT. SDM vol. 2; results of special operands as in its tables. */
import {
  BIAS,
  Extended,
  Kind,
  compare64,
  multiplyHigh,
  normalize,
  normalizeOperand,
  shiftRight,
  shifted,
} from "./extended.js";
import {
  type Context,
  Rounding,
  divideByZero,
  invalid,
  nanResult,
  quiet,
  round,
  setInfinity,
  setZero,
} from "./rounding.js";
import { Exception } from "./rounding.js";

const x = new Extended();
const y = new Extended();

/** out = a + b. An operand's kind may be DENORMAL although it is normalized: it was a denormal in memory. */
export function add(
  cx: Context,
  out: Extended,
  a: Extended,
  kindA: number,
  b: Extended,
  kindB: number,
): void {
  if (nanResult(cx, out, a, kindA, b, kindB)) return;
  if (kindA === Kind.INFINITY && kindB === Kind.INFINITY && a.sign !== b.sign) return invalid(cx, out);
  if ((kindA === Kind.DENORMAL || kindB === Kind.DENORMAL) && cx.denormal()) return;
  if (kindA === Kind.INFINITY) return setInfinity(out, a.sign);
  if (kindB === Kind.INFINITY) return setInfinity(out, b.sign);
  const zeroSign = cx.rounding === Rounding.DOWN ? 1 : 0;
  if (kindA === Kind.ZERO && kindB === Kind.ZERO) return setZero(out, a.sign === b.sign ? a.sign : zeroSign);
  // The one with the larger exponent first; a denormal's exponent means 1.
  x.copy(a);
  y.copy(b);
  if (x.exponent === 0) x.exponent = 1;
  if (y.exponent === 0) y.exponent = 1;
  if (x.exponent < y.exponent || (x.exponent === y.exponent && compare64(x.high, x.low, y.high, y.low) < 0)) {
    x.copy(y);
    y.copy(a);
    if (y.exponent === 0) y.exponent = 1;
  }
  shiftRight(y.high, y.low, 0, x.exponent - y.exponent);
  let { exponent, high, low } = x;
  const { sign } = x;
  let { extra } = shifted;
  if (x.sign === y.sign) {
    low += shifted.low;
    high += shifted.high + (low > 0xffffffff ? 1 : 0);
    if (high > 0xffffffff) {
      shiftRight(high >>> 0, low >>> 0, extra, 1);
      high = shifted.high | 0x80000000;
      ({ low, extra } = shifted);
      exponent++;
    }
  } else {
    const borrow = extra === 0 ? 0 : 1;
    extra = -extra >>> 0;
    low -= shifted.low + borrow;
    high -= shifted.high + (low < 0 ? 1 : 0);
  }
  const count = normalize(high >>> 0, low >>> 0, extra);
  if (count === 96) return setZero(out, zeroSign);
  round(cx, out, sign, exponent - count, shifted.high, shifted.low, shifted.extra, cx.precision);
}

/** out = a * b. */
export function multiply(
  cx: Context,
  out: Extended,
  a: Extended,
  kindA: number,
  b: Extended,
  kindB: number,
): void {
  if (nanResult(cx, out, a, kindA, b, kindB)) return;
  if ((kindA === Kind.INFINITY && kindB === Kind.ZERO) || (kindA === Kind.ZERO && kindB === Kind.INFINITY))
    return invalid(cx, out);
  if ((kindA === Kind.DENORMAL || kindB === Kind.DENORMAL) && cx.denormal()) return;
  const sign = a.sign ^ b.sign;
  if (kindA === Kind.INFINITY || kindB === Kind.INFINITY) return setInfinity(out, sign);
  if (kindA === Kind.ZERO || kindB === Kind.ZERO) return setZero(out, sign);
  x.copy(a);
  y.copy(b);
  normalizeOperand(x);
  normalizeOperand(y);
  // Words of the product, lowest first.
  const p0 = Math.imul(x.low, y.low) >>> 0;
  const m1 = Math.imul(x.low, y.high) >>> 0;
  const m2 = Math.imul(x.high, y.low) >>> 0;
  const p1 = multiplyHigh(x.low, y.low) + m1 + m2;
  const carry1 = Math.floor(p1 / 0x100000000);
  const p2 =
    multiplyHigh(x.low, y.high) + multiplyHigh(x.high, y.low) + (Math.imul(x.high, y.high) >>> 0) + carry1;
  const p3 = multiplyHigh(x.high, y.high) + Math.floor(p2 / 0x100000000);
  // The product's top bit is the first or the second; the lowest word only tells whether it is exact.
  const sticky = p0 === 0 ? 0 : 1;
  const shift = normalize(p3 >>> 0, p2 >>> 0, p1 >>> 0);
  const exponent = x.exponent + y.exponent - BIAS + 1 - shift;
  const extra = (shifted.extra | (shift === 1 ? p0 >>> 31 : 0) | sticky) >>> 0;
  round(cx, out, sign, exponent, shifted.high, shifted.low, extra, cx.precision);
}

/** out = a / b. */
export function divide(
  cx: Context,
  out: Extended,
  a: Extended,
  kindA: number,
  b: Extended,
  kindB: number,
): void {
  if (nanResult(cx, out, a, kindA, b, kindB)) return;
  if (kindA === kindB && (kindA === Kind.ZERO || kindA === Kind.INFINITY)) return invalid(cx, out);
  const sign = a.sign ^ b.sign;
  if (kindB === Kind.ZERO && kindA !== Kind.INFINITY) return divideByZero(cx, out, sign);
  if ((kindA === Kind.DENORMAL || kindB === Kind.DENORMAL) && cx.denormal()) return;
  if (kindA === Kind.INFINITY) return setInfinity(out, sign);
  if (kindA === Kind.ZERO || kindB === Kind.INFINITY) return setZero(out, sign);
  x.copy(a);
  y.copy(b);
  normalizeOperand(x);
  normalizeOperand(y);
  let exponent = x.exponent - y.exponent + BIAS;
  let { high, low } = x;
  const dHigh = y.high;
  const dLow = y.low;
  let carry = 0;
  if (compare64(high, low, dHigh, dLow) < 0) {
    carry = high >>> 31;
    high = ((high << 1) | (low >>> 31)) >>> 0;
    low = (low << 1) >>> 0;
    exponent--;
  }
  // One bit of the quotient at a time: 64, then two more and whether anything remains.
  let q2 = 0;
  let q1 = 0;
  let q0 = 0;
  for (let i = 0; i < 66; i++) {
    const bit = carry === 1 || compare64(high, low, dHigh, dLow) >= 0 ? 1 : 0;
    if (bit === 1) {
      const difference = low - dLow;
      high = (high - dHigh - (difference < 0 ? 1 : 0)) >>> 0;
      low = difference >>> 0;
    }
    q2 = (q2 << 1) | (q1 >>> 31);
    q1 = (q1 << 1) | (q0 >>> 31);
    q0 = (q0 << 1) | bit;
    carry = high >>> 31;
    high = ((high << 1) | (low >>> 31)) >>> 0;
    low = (low << 1) >>> 0;
  }
  const remains = carry !== 0 || (high | low) !== 0 ? 1 : 0;
  const extra = ((q0 << 30) | remains) >>> 0;
  const qLow = ((q0 >>> 2) | (q1 << 30)) >>> 0;
  const qHigh = ((q1 >>> 2) | (q2 << 30)) >>> 0;
  round(cx, out, sign, exponent, qHigh, qLow, extra, cx.precision);
}

/** out = square root of a. */
export function squareRoot(cx: Context, out: Extended, a: Extended, kind: number): void {
  if (kind === Kind.UNSUPPORTED) return invalid(cx, out);
  if (kind >= Kind.QNAN) {
    if (kind === Kind.SNAN) cx.flags |= Exception.IE;
    out.copy(a);
    return quiet(out);
  }
  if (kind === Kind.ZERO) return out.copy(a);
  if (a.sign === 1) return invalid(cx, out);
  if (kind === Kind.DENORMAL && cx.denormal()) return;
  if (kind === Kind.INFINITY) return out.copy(a);
  x.copy(a);
  normalizeOperand(x);
  const unbiased = x.exponent - BIAS;
  // The radicand is in [1, 4), two bits of it are consumed for each bit of the root.
  let { high, low } = x;
  let extra = 0;
  if ((unbiased & 1) === 0) {
    extra = (low << 31) >>> 0;
    low = ((low >>> 1) | (high << 31)) >>> 0;
    high >>>= 1;
  }
  // Root and remainder in three words each.
  let r2 = 0;
  let r1 = 0;
  let r0 = 0;
  let m2 = 0;
  let m1 = 0;
  let m0 = 0;
  for (let i = 0; i < 66; i++) {
    m2 = ((m2 << 2) | (m1 >>> 30)) >>> 0;
    m1 = ((m1 << 2) | (m0 >>> 30)) >>> 0;
    m0 = ((m0 << 2) | (high >>> 30)) >>> 0;
    high = (high << 2) | (low >>> 30);
    low = (low << 2) | (extra >>> 30);
    extra <<= 2;
    // Trial: four times the root and one.
    const t2 = ((r2 << 2) | (r1 >>> 30)) >>> 0;
    const t1 = ((r1 << 2) | (r0 >>> 30)) >>> 0;
    const t0 = ((r0 << 2) | 1) >>> 0;
    const fits = m2 !== t2 ? m2 > t2 : compare64(m1, m0, t1, t0) >= 0;
    r2 = (r2 << 1) | (r1 >>> 31);
    r1 = (r1 << 1) | (r0 >>> 31);
    r0 = (r0 << 1) | (fits ? 1 : 0);
    if (fits) {
      const d0 = m0 - t0;
      const d1 = m1 - t1 - (d0 < 0 ? 1 : 0);
      m2 = (m2 - t2 - (d1 < 0 ? 1 : 0)) >>> 0;
      m1 = d1 >>> 0;
      m0 = d0 >>> 0;
    }
  }
  const remains = (m2 | m1 | m0) === 0 ? 0 : 1;
  const rootLow = ((r0 >>> 2) | (r1 << 30)) >>> 0;
  const rootHigh = ((r1 >>> 2) | (r2 << 30)) >>> 0;
  const exponent = (unbiased >> 1) + BIAS;
  round(cx, out, 0, exponent, rootHigh, rootLow, ((r0 << 30) | remains) >>> 0, cx.precision);
}
