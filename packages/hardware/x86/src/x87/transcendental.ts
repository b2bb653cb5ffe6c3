/**
 * FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1. Results are those of exact functions, rounded once, but
 * that angles are reduced by the 66 bits of pi that the hardware has (SDM vol. 1 ch. 8.3.8). SDM vol. 2 for special operands.
 */
import { BIAS, Extended, Kind, normalizeOperand } from "./extended.js";
import {
  type Context,
  Exception,
  divideByZero,
  invalid,
  nanResult,
  quiet,
  round,
  setInfinity,
  setZero,
} from "./rounding.js";
import {
  BITS,
  LN2,
  ONE,
  PI,
  arcTangent,
  cosine,
  exponentialMinusOne,
  logarithm,
  product,
  quotient,
  sine,
} from "./series.js";

/** Half of the hardware's pi, of 2^-65. */
const HALF_PI_66 = 0x3243f6a8885a308d3n;
/** Below this exponent of an angle its sine and tangent differ from it by less than the last bit kept. */
const TINY_ANGLE = -40;
/** Below this exponent fixed point does not have enough bits for an operand. */
const TINY = -120;

const x = new Extended();
const y = new Extended();

const significand = (v: Extended): bigint => (BigInt(v.high) << 32n) | BigInt(v.low);

/** Rounds the magnitude `value` of 2^-`scale`. @param exact it is not an approximation */
function deliver(
  cx: Context,
  out: Extended,
  sign: number,
  value: bigint,
  scale: number,
  exact = false,
): void {
  const length = value.toString(2).length;
  const spare = length - 96;
  const top = spare >= 0 ? value >> BigInt(spare) : value << BigInt(-spare);
  const whole = exact && (spare <= 0 || top << BigInt(spare) === value);
  const word = (n: bigint): number => Number((top >> n) & 0xffffffffn);
  const extra = (word(0n) | (whole ? 0 : 1)) >>> 0;
  round(cx, out, sign, BIAS + length - 1 - scale, word(64n), word(32n), extra, 64);
  // The hardware takes no result for exact.
  cx.flags |= Exception.PE | (out.exponent === 0 ? Exception.UE : 0);
}
/** A signed fixed-point value times 2^`exponent`. */
function deliverFixed(cx: Context, out: Extended, value: bigint, exponent = 0): void {
  deliver(cx, out, value < 0n ? 1 : 0, value < 0n ? -value : value, BITS - exponent);
}
/** A number not below 2^TINY in fixed point. */
function fixed(v: Extended): bigint {
  const shift = BITS - 63 + v.exponent - BIAS;
  const magnitude = shift >= 0 ? significand(v) << BigInt(shift) : significand(v) >> BigInt(-shift);
  return v.sign === 1 ? -magnitude : magnitude;
}
/** A NaN or unsupported operand of a function of one. @returns false if it is neither */
function nanOperand(cx: Context, out: Extended, a: Extended, kind: number): boolean {
  if (kind < Kind.QNAN) return false;
  if (kind === Kind.UNSUPPORTED) invalid(cx, out);
  else {
    if (kind === Kind.SNAN) cx.flags |= Exception.IE;
    out.copy(a);
    quiet(out);
  }
  return true;
}

/** The angle in x less a multiple of pi/2. */
const reduced = { quadrant: 0, angle: 0n };
function reduce(): void {
  const exponent = x.exponent - BIAS;
  // A common denominator for the angle and pi/2.
  const scale = Math.max(65, 63 - exponent);
  const angle = significand(x) << BigInt(exponent - 63 + scale);
  const right = HALF_PI_66 << BigInt(scale - 65);
  const count = (angle + (right >> 1n)) / right;
  const rest = (angle - count * right) << BigInt(BITS - scale);
  const quadrant = Number(count & 3n);
  reduced.angle = x.sign === 1 ? -rest : rest;
  reduced.quadrant = x.sign === 1 ? (4 - quadrant) & 3 : quadrant;
}
/** sin of the reduced angle plus `turn` right angles. */
function sineOf(turn: number): bigint {
  const quadrant = (reduced.quadrant + turn) & 3;
  const value = quadrant & 1 ? cosine(reduced.angle) : sine(reduced.angle);
  return quadrant & 2 ? -value : value;
}

/** Functions of an angle. @returns false if it is out of range: C2, no result */
export function trigonometric(
  cx: Context,
  a: Extended,
  kind: number,
  sin: Extended | undefined,
  cos: Extended | undefined,
  tan: Extended | undefined,
): boolean {
  const outs = [sin, cos, tan];
  if (kind >= Kind.QNAN || kind === Kind.INFINITY) {
    for (const out of outs) if (out && !nanOperand(cx, out, a, kind)) invalid(cx, out);
    return true;
  }
  if (kind === Kind.ZERO) {
    sin?.copy(a);
    tan?.copy(a);
    cos?.set(0, BIAS, 0x80000000, 0);
    return true;
  }
  if (a.exponent >= BIAS + 63) return false;
  if (kind === Kind.DENORMAL && cx.denormal()) return true;
  x.copy(a);
  normalizeOperand(x);
  const exponent = x.exponent - BIAS;
  if (exponent < TINY_ANGLE) {
    const value = significand(x) << 128n;
    const scale = 191 - exponent;
    if (cos) deliver(cx, cos, 0, (1n << 128n) - 1n, 128);
    if (sin) deliver(cx, sin, x.sign, value - 1n, scale);
    if (tan) deliver(cx, tan, x.sign, value + 1n, scale);
    return true;
  }
  reduce();
  // Both results of FSINCOS: the flags of the last one to be computed, the sine's C1, are overwritten.
  if (cos) deliverFixed(cx, cos, sineOf(1));
  if (sin) deliverFixed(cx, sin, sineOf(0));
  if (tan) deliverFixed(cx, tan, quotient(sineOf(0), sineOf(1)));
  return true;
}

/** out = angle of the point (a, b): arctan b / a. */
export function arcTangent2(
  cx: Context,
  out: Extended,
  a: Extended,
  kindA: number,
  b: Extended,
  kindB: number,
): void {
  if (nanResult(cx, out, b, kindB, a, kindA)) return;
  if ((kindA === Kind.DENORMAL || kindB === Kind.DENORMAL) && cx.denormal()) return;
  const { sign } = b;
  const left = a.sign === 1;
  if (kindA === Kind.INFINITY && kindB === Kind.INFINITY)
    return deliver(cx, out, sign, left ? 3n * PI : PI, BITS + 2);
  if (kindB === Kind.ZERO || kindA === Kind.INFINITY)
    return left ? deliver(cx, out, sign, PI, BITS) : setZero(out, sign);
  if (kindA === Kind.ZERO || kindB === Kind.INFINITY) return deliver(cx, out, sign, PI, BITS + 1);
  x.copy(a);
  y.copy(b);
  normalizeOperand(x);
  normalizeOperand(y);
  const distance = y.exponent - x.exponent;
  const sx = significand(x);
  const sy = significand(y);
  if (distance < TINY_ANGLE && !left) {
    // The quotient, and a little less.
    return deliver(cx, out, sign, (sy << 192n) / sx - 1n, 192 - distance);
  }
  let angle: bigint;
  if (distance > 200) angle = (PI >> 1n) - (left ? -1n : 1n);
  else if (distance < -200) angle = PI - 1n;
  else {
    const top = distance > 0 ? sy << BigInt(distance) : sy;
    const bottom = distance < 0 ? sx << BigInt(-distance) : sx;
    angle =
      top <= bottom ? arcTangent(quotient(top, bottom)) : (PI >> 1n) - arcTangent(quotient(bottom, top));
    if (left) angle = PI - angle;
  }
  deliver(cx, out, sign, angle, BITS);
}

/** out = 2^a - 1 for a from -1 to 1. */
export function powerMinusOne(cx: Context, out: Extended, a: Extended, kind: number): void {
  if (nanOperand(cx, out, a, kind)) return;
  if (kind === Kind.INFINITY) {
    if (a.sign === 1) out.set(1, BIAS, 0x80000000, 0);
    else out.copy(a);
    return;
  }
  if (kind === Kind.ZERO) return out.copy(a);
  if (kind === Kind.DENORMAL && cx.denormal()) return;
  x.copy(a);
  normalizeOperand(x);
  if (x.exponent >= BIAS) {
    // Outside its domain the instruction's result is undefined: the operand stays, save for the ends.
    out.copy(a);
    cx.flags |= Exception.PE;
    if (x.exponent === BIAS && x.high === 0x80000000 && x.low === 0 && x.sign === 1) out.exponent = BIAS - 1;
    return;
  }
  const exponent = x.exponent - BIAS;
  if (exponent < TINY) return deliver(cx, out, x.sign, significand(x) * LN2, BITS + 63 - exponent);
  deliverFixed(cx, out, exponentialMinusOne(product(fixed(x), LN2)));
}

/** out = b * log2 a. */
export function timesLogarithm(
  cx: Context,
  out: Extended,
  a: Extended,
  kindA: number,
  b: Extended,
  kindB: number,
): void {
  if (nanResult(cx, out, b, kindB, a, kindA)) return;
  if (kindA !== Kind.ZERO && a.sign === 1) return invalid(cx, out);
  const one = kindA === Kind.NORMAL && a.exponent === BIAS && a.high === 0x80000000 && a.low === 0;
  if (
    (kindB === Kind.ZERO && (kindA === Kind.ZERO || kindA === Kind.INFINITY)) ||
    (kindB === Kind.INFINITY && one)
  )
    return invalid(cx, out);
  if (kindA === Kind.ZERO && kindB !== Kind.INFINITY) return divideByZero(cx, out, b.sign ^ 1);
  if ((kindA === Kind.DENORMAL || kindB === Kind.DENORMAL) && cx.denormal()) return;
  const below = kindA !== Kind.INFINITY && a.exponent < BIAS;
  const sign = b.sign ^ (below ? 1 : 0);
  if (kindA === Kind.INFINITY || kindB === Kind.INFINITY) return setInfinity(out, sign);
  if (one || kindB === Kind.ZERO) return setZero(out, sign);
  x.copy(a);
  normalizeOperand(x);
  const exponent = x.exponent - BIAS;
  x.exponent = BIAS;
  const power = x.high === 0x80000000 && x.low === 0;
  const value = BigInt(exponent) * ONE + (power ? 0n : logarithm(fixed(x)));
  times(cx, out, value, 0, b, power);
}

/** out = b * log2(1 + a). */
export function timesLogarithmPlusOne(
  cx: Context,
  out: Extended,
  a: Extended,
  kindA: number,
  b: Extended,
  kindB: number,
): void {
  if (nanResult(cx, out, b, kindB, a, kindA)) return;
  const sign = a.sign ^ b.sign;
  if (kindA === Kind.INFINITY && (a.sign === 1 || kindB === Kind.ZERO)) return invalid(cx, out);
  if (kindA === Kind.ZERO && kindB === Kind.INFINITY) return invalid(cx, out);
  if ((kindA === Kind.DENORMAL || kindB === Kind.DENORMAL) && cx.denormal()) return;
  if (kindA === Kind.INFINITY || kindB === Kind.INFINITY) return setInfinity(out, sign);
  if (kindA === Kind.ZERO || kindB === Kind.ZERO) return setZero(out, sign);
  if (kindA === Kind.NORMAL && a.sign === 1 && a.exponent >= BIAS) {
    // Outside the domain, where the result is undefined; there is no logarithm here.
    cx.flags |= Exception.PE;
    return out.copy(a);
  }
  x.copy(a);
  normalizeOperand(x);
  const exponent = x.exponent - BIAS;
  if (exponent < TINY) {
    // The logarithm's derivative at 1.
    const value = (significand(x) * quotient(ONE, LN2)) >> 63n;
    return times(cx, out, x.sign === 1 ? -value : value, exponent, b, false);
  }
  times(cx, out, logarithm(ONE + fixed(x)), 0, b, false);
}
/** out = value * 2^exponent * b. */
function times(
  cx: Context,
  out: Extended,
  value: bigint,
  exponent: number,
  b: Extended,
  exact: boolean,
): void {
  y.copy(b);
  normalizeOperand(y);
  const sign = y.sign ^ (value < 0n ? 1 : 0);
  const magnitude = (value < 0n ? -value : value) * significand(y);
  deliver(cx, out, sign, magnitude, BITS + 63 - (y.exponent - BIAS) - exponent, exact);
}
