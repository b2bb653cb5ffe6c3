/** Numbers in memory to registers and back: single, double, integers, packed decimal. SDM vol. 1 ch. 4.2, 4.7, 8.2. */
import {
  BIAS,
  type Extended,
  Kind,
  MAX_EXPONENT,
  kindOf,
  normalize,
  shiftRight,
  shifted,
} from "./extended.js";
import { type Context, Exception, awayFromZero, increments, setZero } from "./rounding.js";

/** A format in memory, by the bits of its exponent and fraction. */
export interface Format {
  readonly exponent: number;
  readonly fraction: number;
  readonly bytes: number;
}
export const SINGLE: Format = { exponent: 8, fraction: 23, bytes: 4 };
export const DOUBLE: Format = { exponent: 11, fraction: 52, bytes: 8 };

/** Bits of a converted number, in halves; of what fits in 32 bits `high` is meaningless. */
export const bits = { high: 0, low: 0 };

/**
 * Widens a single or double, unchanged: a NaN may be signaling, a denormal is normalized.
 * @returns its Kind, as it was in memory
 */
export function widen(out: Extended, format: Format, high: number, low: number): number {
  const all = (1 << format.exponent) - 1;
  const top = format === SINGLE ? low : high;
  const sign = top >>> 31;
  const exponent = (top >>> (31 - format.exponent)) & all;
  // The fraction behind the place of the integer bit.
  const shift = 63 - format.fraction;
  let fHigh: number;
  let fLow: number;
  if (format === SINGLE) {
    fHigh = (low << (shift - 32)) & 0x7fffffff;
    fLow = 0;
  } else {
    fHigh = ((high << shift) | (low >>> (32 - shift))) & 0x7fffffff;
    fLow = (low << shift) >>> 0;
  }
  if (exponent === 0) {
    if ((fHigh | fLow) === 0) {
      setZero(out, sign);
      return Kind.ZERO;
    }
    const count = normalize(fHigh, fLow, 0);
    out.set(sign, BIAS - (all >> 1) + 1 - count, shifted.high, shifted.low);
    return Kind.DENORMAL;
  }
  const special = exponent === all;
  out.set(sign, special ? MAX_EXPONENT : exponent - (all >> 1) + BIAS, (fHigh | 0x80000000) >>> 0, fLow);
  return special ? kindOf(out) : Kind.NORMAL;
}

/** Rounds to a single or double, left in `bits`. After unmasked overflow or underflow there is no result. */
export function narrow(cx: Context, v: Extended, format: Format): void {
  const all = (1 << format.exponent) - 1;
  const kind = kindOf(v);
  if (kind === Kind.UNSUPPORTED) {
    cx.flags |= Exception.IE;
    return put(format, 1, all, 0x40000000, 0);
  }
  if (kind >= Kind.QNAN) {
    if (kind === Kind.SNAN) cx.flags |= Exception.IE;
    return put(format, v.sign, all, v.high | 0x40000000, v.low);
  }
  if (kind === Kind.INFINITY) return put(format, v.sign, all, 0, 0);
  if (kind === Kind.ZERO) return put(format, v.sign, 0, 0, 0);
  // A denormal is far below the smallest number of any format: its exponent need not be right.
  let exponent = v.exponent - BIAS + (all >> 1);
  const { rounding } = cx;
  const drop = 63 - format.fraction;
  let tiny = false;
  let count = drop;
  if (exponent <= 0) {
    shiftRight(v.high, v.low, 0, drop);
    const full =
      format === SINGLE ? shifted.low === 0xffffff : shifted.high === 0x1fffff && shifted.low === 0xffffffff;
    tiny = exponent < 0 || !(full && increments(rounding, v.sign, 1, shifted.extra));
    if (tiny && !cx.masked(Exception.UE)) {
      cx.flags |= Exception.UE;
      return;
    }
    count += 1 - exponent;
    exponent = 0;
  }
  const denormal = exponent === 0;
  shiftRight(v.high, v.low, 0, count);
  let { high, low } = shifted;
  const { extra } = shifted;
  const up = increments(rounding, v.sign, low & 1, extra);
  if (up) {
    low = (low + 1) >>> 0;
    if (low === 0) high++;
  }
  // The integer bit, if it is there or has been carried into, counts up the exponent.
  const integer = format === SINGLE ? low >>> 23 : high >>> 20;
  if (denormal) exponent = integer;
  else exponent += integer - 1;
  if (exponent >= all) {
    cx.flags |= Exception.OE;
    if (!cx.masked(Exception.OE)) return;
    cx.flags |= Exception.PE;
    cx.up = awayFromZero(rounding, v.sign);
    return cx.up ? put(format, v.sign, all, 0, 0) : put(format, v.sign, all - 1, 0x7fffffff, 0xffffffff);
  }
  if (extra !== 0) {
    cx.flags |= Exception.PE | (tiny ? Exception.UE : 0);
    cx.up = up;
  }
  if (format === SINGLE) put(format, v.sign, exponent, (low << 8) & 0x7fffffff, 0);
  else put(format, v.sign, exponent, ((high << 11) | (low >>> 21)) & 0x7fffffff, (low << 11) >>> 0);
}
/** The fields together; the fraction is given as it lies in a register, behind the integer bit. */
function put(format: Format, sign: number, exponent: number, high: number, low: number): void {
  const fraction = high & 0x7fffffff;
  const top = ((sign << 31) | (exponent << (31 - format.exponent)) | (fraction >>> format.exponent)) >>> 0;
  if (format === SINGLE) bits.low = top;
  else {
    bits.high = top;
    bits.low = ((fraction << 21) | (low >>> 11)) >>> 0;
  }
}

/** A two's complement integer of 64 bits, exactly. */
export function fromInteger(out: Extended, high: number, low: number): void {
  const sign = high >>> 31;
  if (sign === 1) {
    low = -low >>> 0;
    high = (~high + (low === 0 ? 1 : 0)) >>> 0;
  }
  const count = normalize(high >>> 0, low >>> 0, 0);
  if (count === 96) setZero(out, 0);
  else out.set(sign, BIAS + 63 - count, shifted.high, shifted.low);
}

/**
 * Rounds to a two's complement integer, left in `bits`; invalid if it does not fit.
 * @param size bits @param rounding Rounding
 */
export function toInteger(cx: Context, v: Extended, size: number, rounding: number): void {
  const limitHigh = size === 64 ? 0x80000000 : 0;
  const limitLow = size === 64 ? 0 : size === 32 ? 0x80000000 : 0x8000;
  if (!magnitude(cx, v, rounding) || beyond(v.sign, limitHigh, limitLow)) {
    cx.flags = (cx.flags & ~Exception.PE) | Exception.IE;
    cx.up = false;
    bits.high = limitHigh;
    bits.low = limitLow;
    return;
  }
  if (v.sign === 1) {
    bits.low = -bits.low >>> 0;
    bits.high = (~bits.high + (bits.low === 0 ? 1 : 0)) >>> 0;
  }
}
function beyond(sign: number, limitHigh: number, limitLow: number): boolean {
  if (bits.high !== limitHigh) return bits.high > limitHigh;
  return sign === 1 ? bits.low > limitLow : bits.low >= limitLow;
}
/** Rounds the magnitude to an integer of 64 bits in `bits`. @returns false if it does not fit */
function magnitude(cx: Context, v: Extended, rounding: number): boolean {
  const kind = kindOf(v);
  if (kind >= Kind.INFINITY || v.exponent > BIAS + 63) return false;
  shiftRight(v.high, v.low, 0, BIAS + 63 - v.exponent);
  bits.high = shifted.high;
  bits.low = shifted.low;
  const { extra } = shifted;
  if (extra === 0) return true;
  cx.flags |= Exception.PE;
  cx.up = increments(rounding, v.sign, bits.low & 1, extra);
  if (cx.up) {
    bits.low = (bits.low + 1) >>> 0;
    if (bits.low === 0) bits.high = (bits.high + 1) >>> 0;
  }
  return true;
}

const DECIMAL_LIMIT = 10n ** 18n;

/** 18 digits and a sign, from ten bytes. Digits above nine are undefined: they count for what they are. */
export function fromDecimal(out: Extended, bytes: Uint8Array, at: number): void {
  let value = 0n;
  for (let n = 8; n >= 0; n--)
    value = value * 100n + BigInt((bytes[at + n] >> 4) * 10 + (bytes[at + n] & 15));
  fromInteger(out, Number(value >> 32n), Number(value & 0xffffffffn));
  out.sign = bytes[at + 9] >> 7;
}
/** Rounds to 18 digits and a sign, ten bytes; invalid if there would be more. */
export function toDecimal(cx: Context, v: Extended, bytes: Uint8Array): void {
  const fits = magnitude(cx, v, cx.rounding);
  const value = (BigInt(bits.high) << 32n) | BigInt(bits.low);
  if (!fits || value >= DECIMAL_LIMIT) {
    cx.flags = (cx.flags & ~Exception.PE) | Exception.IE;
    cx.up = false;
    bytes.fill(0);
    bytes[7] = 0xc0;
    bytes[8] = bytes[9] = 0xff;
    return;
  }
  const digits = value.toString().padStart(18, "0");
  for (let n = 0; n < 9; n++) bytes[n] = parseInt(digits.slice(16 - 2 * n, 18 - 2 * n), 16);
  bytes[9] = v.sign << 7;
}
