/** FCOM, FUCOM and their like, FXAM. SDM vol. 2. */
import { type Extended, Kind, compare64 } from "./extended.js";
import { type Context, Exception } from "./rounding.js";

/** Condition codes in the status word. */
export const Condition = { C0: 0x100, C1: 0x200, C2: 0x400, C3: 0x4000 } as const;
export const UNORDERED = Condition.C0 | Condition.C2 | Condition.C3;

/** C3, C2 and C0 for a : b; what they are after an unmasked invalid operand does not matter. @param quiet a quiet NaN is not invalid (FUCOM) */
export function compare(
  cx: Context,
  a: Extended,
  kindA: number,
  b: Extended,
  kindB: number,
  quiet: boolean,
): number {
  if (kindA >= Kind.QNAN || kindB >= Kind.QNAN) {
    if (!quiet || kindA > Kind.QNAN || kindB > Kind.QNAN) cx.flags |= Exception.IE;
    return UNORDERED;
  }
  if (kindA === Kind.DENORMAL || kindB === Kind.DENORMAL) cx.denormal();
  if (kindA === Kind.ZERO && kindB === Kind.ZERO) return Condition.C3;
  if (a.sign !== b.sign) return a.sign === 1 ? Condition.C0 : 0;
  const order = magnitudes(a, b);
  if (order === 0) return Condition.C3;
  return order < 0 === (a.sign === 0) ? Condition.C0 : 0;
}
function magnitudes(a: Extended, b: Extended): number {
  // A pseudo-denormal's exponent means 1.
  const ea = a.exponent === 0 && a.high >>> 31 === 1 ? 1 : a.exponent;
  const eb = b.exponent === 0 && b.high >>> 31 === 1 ? 1 : b.exponent;
  if (ea !== eb) return ea < eb ? -1 : 1;
  return compare64(a.high, a.low, b.high, b.low);
}

const CLASSES = [
  Condition.C3,
  Condition.C2,
  Condition.C3 | Condition.C2,
  Condition.C2 | Condition.C0,
  Condition.C0,
  Condition.C0,
  0,
];
/** Condition codes of FXAM for a register that is not empty. */
export function examine(v: Extended, kind: number): number {
  return CLASSES[kind] | (v.sign === 1 ? Condition.C1 : 0);
}
export const EMPTY_CLASS = Condition.C3 | Condition.C0;
