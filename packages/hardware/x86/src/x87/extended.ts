/** The double extended-precision format: 80-bit numbers, their classes, their significands. SDM vol. 1 ch. 4.2, 8.2. */

export const BIAS = 0x3fff;
export const MAX_EXPONENT = 0x7fff;

/** A number as it lies in a register; while computing its exponent may leave the format's range. */
export class Extended {
  /** 0 or 1. */
  sign = 0;
  /** Biased. */
  exponent = 0;
  /** The significand with its integer bit, in two unsigned 32-bit halves. */
  high = 0;
  low = 0;

  set(sign: number, exponent: number, high: number, low: number): void {
    this.sign = sign;
    this.exponent = exponent;
    this.high = high;
    this.low = low;
  }
  copy(from: Extended): void {
    this.set(from.sign, from.exponent, from.high, from.low);
  }
}

/** Classes of operands, NaNs and what is not supported last. */
export const Kind = {
  ZERO: 0,
  NORMAL: 1,
  /** Pseudo-denormals too. */
  DENORMAL: 2,
  INFINITY: 3,
  QNAN: 4,
  SNAN: 5,
  /** Unnormal, pseudo-infinity, pseudo-NaN. */
  UNSUPPORTED: 6,
} as const;

export function kindOf(v: Extended): number {
  if (v.exponent === 0) return (v.high | v.low) === 0 ? Kind.ZERO : Kind.DENORMAL;
  if (v.high >>> 31 === 0) return Kind.UNSUPPORTED;
  if (v.exponent !== MAX_EXPONENT) return Kind.NORMAL;
  if (v.high === 0x80000000 && v.low === 0) return Kind.INFINITY;
  return v.high & 0x40000000 ? Kind.QNAN : Kind.SNAN;
}

/** Result of the shifts below: three words, the last one being what is behind the significand. */
export const shifted = { high: 0, low: 0, extra: 0 };

/** Shifts right; bits that are lost are remembered by the lowest one ("sticky"). */
export function shiftRight(high: number, low: number, extra: number, count: number): void {
  for (; count >= 32; count -= 32) {
    if ((high | low) === 0) {
      extra = extra === 0 ? 0 : 1;
      count = 0;
      break;
    }
    extra = low | (extra === 0 ? 0 : 1);
    low = high;
    high = 0;
  }
  if (count > 0) {
    const lost = extra << (32 - count) === 0 ? 0 : 1;
    extra = (low << (32 - count)) | (extra >>> count) | lost;
    low = (high << (32 - count)) | (low >>> count);
    high >>>= count;
  }
  shifted.high = high >>> 0;
  shifted.low = low >>> 0;
  shifted.extra = extra >>> 0;
}

/** Shifts left until the top bit is set. @returns how far; 96 for zero */
export function normalize(high: number, low: number, extra: number): number {
  let count = 0;
  for (; high === 0 && count < 96; count += 32) {
    high = low;
    low = extra;
    extra = 0;
  }
  const rest = Math.clz32(high);
  if (rest > 0 && rest < 32) {
    high = (high << rest) | (low >>> (32 - rest));
    low = (low << rest) | (extra >>> (32 - rest));
    extra <<= rest;
    count += rest;
  }
  shifted.high = high >>> 0;
  shifted.low = low >>> 0;
  shifted.extra = extra >>> 0;
  return Math.min(count, 96);
}

/** Gives a number that is not zero its integer bit: its exponent may become 0 and less. */
export function normalizeOperand(v: Extended): void {
  if (v.high >>> 31 === 1) {
    // A pseudo-denormal has exponent 0 and means 1.
    if (v.exponent === 0) v.exponent = 1;
    return;
  }
  const count = normalize(v.high, v.low, 0);
  v.exponent = 1 - count;
  v.high = shifted.high;
  v.low = shifted.low;
}

/** -1, 0, 1 as an unsigned 64-bit number is below, at or above another. */
export function compare64(aHigh: number, aLow: number, bHigh: number, bLow: number): number {
  if (aHigh !== bHigh) return aHigh < bHigh ? -1 : 1;
  return aLow === bLow ? 0 : aLow < bLow ? -1 : 1;
}

/** High half of the product of two unsigned 32-bit numbers. */
export function multiplyHigh(a: number, b: number): number {
  // Partial products of 32 by 16 bits are exact.
  const low = a * (b & 0xffff);
  return Math.floor((a * (b >>> 16) + Math.floor(low / 0x10000)) / 0x10000);
}
