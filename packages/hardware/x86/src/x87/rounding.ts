/**
 * Control and status of an operation, rounding to the destination, and results that exceptions determine.
 * SDM vol. 1 ch. 4.8.4 (rounding), 4.9 (exceptions), 8.5.
 */
import { type Extended, Kind, MAX_EXPONENT, compare64, shiftRight, shifted } from "./extended.js";

/** Exceptions, in the status word and, as masks, in the control word. */
export const Exception = { IE: 1, DE: 2, ZE: 4, OE: 8, UE: 16, PE: 32, ALL: 63 } as const;
/** Found before computing: if one is unmasked there is no result. */
export const PRE = Exception.IE | Exception.DE | Exception.ZE;
/** What unmasked overflow takes off the exponent, and unmasked underflow adds to it. */
export const WRAP = 24576;
export const Rounding = { NEAREST: 0, DOWN: 1, UP: 2, ZERO: 3 } as const;

/** What an operation takes from the control word and reports to the status word. */
export class Context {
  control = 0x37f;
  /** Exceptions found. */
  flags = 0;
  /** The significand was rounded up (C1). */
  up = false;

  begin(control: number): void {
    this.control = control;
    this.flags = 0;
    this.up = false;
  }
  get rounding(): number {
    return (this.control >> 10) & 3;
  }
  /** Bits of the significand by PC; its reserved value acts as 64 bits. */
  get precision(): number {
    return PRECISION[(this.control >> 8) & 3];
  }
  masked(exception: number): boolean {
    return (this.control & exception) !== 0;
  }
  /** An exception found before computing has ended the instruction. */
  get stopped(): boolean {
    return (this.flags & PRE & ~this.control) !== 0;
  }
  /** Raises DE. @returns true if it is unmasked */
  denormal(): boolean {
    this.flags |= Exception.DE;
    return !this.masked(Exception.DE);
  }
}
const PRECISION = [24, 64, 53, 64];

/** Whether rounding adds one, by what is cut off: 0 nothing, half is 2^31. */
export function increments(rounding: number, sign: number, odd: number, extra: number): boolean {
  switch (rounding) {
    case Rounding.NEAREST:
      return extra > 0x80000000 || (extra === 0x80000000 && odd !== 0);
    case Rounding.DOWN:
      return extra !== 0 && sign === 1;
    case Rounding.UP:
      return extra !== 0 && sign === 0;
    default:
      return false;
  }
}

export function setInfinity(out: Extended, sign: number): void {
  out.set(sign, MAX_EXPONENT, 0x80000000, 0);
}
export function setZero(out: Extended, sign: number): void {
  out.set(sign, 0, 0, 0);
}
/** Real indefinite, the answer to masked invalid operations. */
export function setIndefinite(out: Extended): void {
  out.set(1, MAX_EXPONENT, 0xc0000000, 0);
}
export function invalid(cx: Context, out: Extended): void {
  cx.flags |= Exception.IE;
  setIndefinite(out);
}
export function divideByZero(cx: Context, out: Extended, sign: number): void {
  cx.flags |= Exception.ZE;
  setInfinity(out, sign);
}

/**
 * Rounds to a register: significand high:low with its top bit set, and `extra` behind it; any exponent.
 * @param precision bits of the significand
 */
export function round(
  cx: Context,
  out: Extended,
  sign: number,
  exponent: number,
  high: number,
  low: number,
  extra: number,
  precision: number,
): void {
  const drop = 64 - precision;
  const { rounding } = cx;
  let tiny = false;
  let denormal = false;
  if (exponent <= 0) {
    // Tininess is detected after rounding: a carry out of the largest tiny significand makes it normal.
    shiftRight(high, low, extra, drop);
    const full =
      shifted.high === (drop > 31 ? 0 : 0xffffffff >>> drop) &&
      shifted.low === (drop > 31 ? 0xffffffff >>> (drop - 32) : 0xffffffff);
    tiny = exponent < 0 || !(full && increments(rounding, sign, 1, shifted.extra));
    if (tiny && !cx.masked(Exception.UE)) {
      cx.flags |= Exception.UE;
      exponent += WRAP;
      if (exponent <= 0) {
        // Even the adjusted exponent is too small (FSCALE).
        setZero(out, sign);
        cx.flags |= Exception.PE;
        return;
      }
    } else {
      denormal = true;
      shiftRight(high, low, extra, 1 - exponent);
      ({ high, low, extra } = shifted);
      exponent = 0;
    }
  }
  shiftRight(high, low, extra, drop);
  ({ high, low, extra } = shifted);
  if (increments(rounding, sign, low & 1, extra)) {
    cx.up = true;
    low = (low + 1) >>> 0;
    if (low === 0) high = (high + 1) >>> 0;
  }
  if (drop > 31) {
    high = low << (drop - 32);
    low = 0;
  } else if (drop > 0) {
    high = (high << drop) | (low >>> (32 - drop));
    low = (low << drop) >>> 0;
  }
  high >>>= 0;
  if (denormal) {
    if (high >>> 31 === 1) exponent = 1;
  } else if (high >>> 31 === 0) {
    // Carried out.
    high = 0x80000000;
    exponent++;
  }
  if (extra !== 0) cx.flags |= Exception.PE | (tiny ? Exception.UE : 0);
  if (exponent >= MAX_EXPONENT) {
    cx.flags |= Exception.OE;
    if (cx.masked(Exception.OE)) return overflow(cx, out, sign, drop);
    exponent -= WRAP;
    if (exponent >= MAX_EXPONENT) {
      // Even the adjusted exponent is too large (FSCALE).
      cx.flags |= Exception.PE;
      cx.up = true;
      setInfinity(out, sign);
      return;
    }
  }
  out.set(sign, exponent, high, low);
}
/** Infinity or the largest number. */
function overflow(cx: Context, out: Extended, sign: number, drop: number): void {
  cx.flags |= Exception.PE;
  cx.up = awayFromZero(cx.rounding, sign);
  if (cx.up) setInfinity(out, sign);
  else {
    const high = drop > 31 ? (0xffffffff << (drop - 32)) >>> 0 : 0xffffffff;
    out.set(sign, MAX_EXPONENT - 1, high, drop > 31 ? 0 : (0xffffffff << drop) >>> 0);
  }
}
export function awayFromZero(rounding: number, sign: number): boolean {
  if (rounding === Rounding.NEAREST) return true;
  return rounding !== Rounding.ZERO && (rounding === Rounding.DOWN) === (sign === 1);
}

/** Makes a NaN quiet. */
export function quiet(v: Extended): void {
  v.high = (v.high | 0xc0000000) >>> 0;
}

/**
 * The answer of an instruction with two operands one of which is a NaN or not supported (SDM vol. 1 table 4-7).
 * @returns false if neither is
 */
export function nanResult(
  cx: Context,
  out: Extended,
  a: Extended,
  kindA: number,
  b: Extended,
  kindB: number,
): boolean {
  if (kindA < Kind.QNAN && kindB < Kind.QNAN) return false;
  if (kindA === Kind.UNSUPPORTED || kindB === Kind.UNSUPPORTED) {
    invalid(cx, out);
    return true;
  }
  if (kindA === Kind.SNAN || kindB === Kind.SNAN) cx.flags |= Exception.IE;
  out.copy(chosenNan(a, kindA, b, kindB));
  quiet(out);
  return true;
}
function chosenNan(a: Extended, kindA: number, b: Extended, kindB: number): Extended {
  if (kindB < Kind.QNAN) return a;
  if (kindA < Kind.QNAN) return b;
  // A quiet one before a signaling one, then the larger significand, then the positive one.
  if (kindA !== kindB) return kindA === Kind.QNAN ? a : b;
  const order = compare64(a.high, a.low, b.high, b.low);
  if (order !== 0) return order > 0 ? a : b;
  return a.sign <= b.sign ? a : b;
}
