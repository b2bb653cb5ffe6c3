/**
 * The x87 unit's state: stack, status word, exceptions, pointers. SDM vol. 1 ch. 8.1, 8.4, 8.5, 8.7.
 *
 * REG.ST holds the physical registers, which MMX sees as they are; ST(n) is counted from TOP. In REG.FTW only "empty"
 * (3) and not empty count: what the tag word says besides is derived when it is stored.
 */
import { CR0 } from "../bits.js";
import type { X86Core } from "../core.js";
import { Vector } from "../layout.js";
import { REG } from "../register-file.js";
import { Extended, Kind, kindOf } from "../x87/extended.js";
import { Context, Exception } from "../x87/rounding.js";

/** Flags of the status word besides the exceptions. */
export const FSW = { SF: 0x40, ES: 0x80, C1: 0x200, CODES: 0x4700, B: 0x8000 } as const;
export const TOP_SHIFT = 11;
const EMPTY = 3;

/** Control, flags and operands of the instruction that executes. */
export const cx = new Context();
export const a = new Extended();
export const b = new Extended();
export const result = new Extended();
/** The second result of FSINCOS and its like, and what is pushed. */
export const second = new Extended();

export const getTop = (core: X86Core): number => (core.get32(REG.FSW) >> TOP_SHIFT) & 7;
export function setTop(core: X86Core, top: number): void {
  core.set32(REG.FSW, (core.get32(REG.FSW) & ~(7 << TOP_SHIFT)) | ((top & 7) << TOP_SHIFT));
}
const physical = (core: X86Core, n: number): number => (getTop(core) + n) & 7;
export function isEmpty(core: X86Core, n: number): boolean {
  return ((core.get32(REG.FTW) >> (physical(core, n) * 2)) & 3) === EMPTY;
}
/** Marks ST(n) as empty or not. */
export function setEmpty(core: X86Core, n: number, empty: boolean): void {
  const mask = EMPTY << (physical(core, n) * 2);
  core.set32(REG.FTW, empty ? core.get32(REG.FTW) | mask : core.get32(REG.FTW) & ~mask);
}

/** ST(n) to `out`. @returns its Kind */
export function load(core: X86Core, n: number, out: Extended): number {
  readExtended(core, core.regs.base + REG.ST + physical(core, n) * 16, out);
  return kindOf(out);
}
/** `v` to ST(n), which is not empty then. */
export function store(core: X86Core, n: number, v: Extended): void {
  const at = core.regs.base + REG.ST + physical(core, n) * 16;
  writeExtended(core, at, v);
  setEmpty(core, n, false);
}
/** Ten bytes at a host address. */
export function readExtended(core: X86Core, at: number, out: Extended): void {
  const top = core.dv.getUint16(at + 8, true);
  out.set(top >> 15, top & 0x7fff, core.dv.getUint32(at + 4, true), core.dv.getUint32(at, true));
}
export function writeExtended(core: X86Core, at: number, v: Extended): void {
  core.dv.setUint32(at, v.low, true);
  core.dv.setUint32(at + 4, v.high, true);
  core.dv.setUint16(at + 8, (v.sign << 15) | v.exponent, true);
}
/** Copies a register's bits, whatever they are. */
export function copyRegister(core: X86Core, from: number, to: number): void {
  const source = core.regs.base + REG.ST + physical(core, from) * 16;
  core.u8.copyWithin(core.regs.base + REG.ST + physical(core, to) * 16, source, source + 10);
  setEmpty(core, to, false);
}

export function pop(core: X86Core): void {
  setEmpty(core, 0, true);
  setTop(core, getTop(core) + 1);
}
export function pops(core: X86Core, count: number): void {
  for (; count > 0; count--) pop(core);
}
/** The new ST(0). The caller has seen to it that there is room. */
export function pushed(core: X86Core, v: Extended): void {
  setTop(core, getTop(core) - 1);
  store(core, 0, v);
}

/** An instruction starts: no exceptions yet. */
export function begin(core: X86Core): void {
  cx.begin(core.get32(REG.FCW));
}
/** Stack underflow, or overflow. @returns true if it is masked */
export function stackFault(overflow: boolean): boolean {
  cx.flags = Exception.IE | FSW.SF;
  cx.up = overflow;
  return cx.masked(Exception.IE);
}
/** An instruction ends: exceptions and C1 to the status word. */
export function report(core: X86Core): void {
  const status = (core.get32(REG.FSW) & ~FSW.C1) | cx.flags | (cx.up ? FSW.C1 : 0);
  core.set32(REG.FSW, status);
  if ((cx.flags & Exception.ALL & ~cx.control) !== 0) core.set32(REG.FSW, status | FSW.ES | FSW.B);
}
/** The same for an instruction that sets the condition codes. */
export function reportCodes(core: X86Core, codes: number): void {
  report(core);
  core.set32(REG.FSW, (core.get32(REG.FSW) & ~FSW.CODES) | codes);
}
/** An unmasked exception is pending. */
export const pending = (core: X86Core): boolean => (core.get32(REG.FSW) & FSW.ES) !== 0;

/** ES and B as the exceptions in the status word and the masks have it. */
export function summarize(core: X86Core): void {
  const status = core.get32(REG.FSW) & 0xffff & ~(FSW.ES | FSW.B);
  const unmasked = status & Exception.ALL & ~core.get32(REG.FCW);
  core.set32(REG.FSW, unmasked === 0 ? status : status | FSW.ES | FSW.B);
}

/**
 * A waiting instruction looks at what is pending. With CR0.NE it is #MF; without it FERR# is asserted, and what becomes
 * of that (IRQ 13) is the environment's: the instruction goes on, as with IGNNE#.
 * @returns true if #MF has been prepared
 */
export function waits(core: X86Core): boolean {
  if (!pending(core)) return false;
  if ((core.get32(REG.CR0) & CR0.NE) === 0) {
    core.environment.floatError?.(core);
    return false;
  }
  core.raise(Vector.MF);
  return true;
}

export function initialize(core: X86Core): void {
  core.set32(REG.FCW, 0x37f);
  core.set32(REG.FSW, 0);
  core.set32(REG.FTW, 0xffff);
  core.set32(REG.FOP, 0);
  setPointer(core, REG.FIP, 0, 0);
  setPointer(core, REG.FDP, 0, 0);
}
export function setPointer(core: X86Core, register: number, low: number, high: number): void {
  core.set32(register, low);
  core.set32(register + 4, high);
}

/** The tag word as it is stored: valid, zero, special or empty by the registers' contents. */
export function tagWord(core: X86Core): number {
  const top = getTop(core);
  let word = 0;
  for (let n = 0; n < 8; n++) {
    const position = ((top + n) & 7) * 2;
    if (isEmpty(core, n)) word |= EMPTY << position;
    else {
      const kind = load(core, n, second);
      if (kind !== Kind.NORMAL) word |= (kind === Kind.ZERO ? 1 : 2) << position;
    }
  }
  return word;
}
/** Sets the tags of all registers from a tag word. */
export function setTagWord(core: X86Core, word: number): void {
  // Both bits set: empty.
  const both = word & (word >> 1) & 0x5555;
  core.set32(REG.FTW, both * 3);
}
/** One bit a register, set if it is not empty, as FXSAVE has it. */
export function abridgedTag(core: X86Core): number {
  const word = core.get32(REG.FTW);
  let tag = 0;
  for (let n = 0; n < 8; n++) if (((word >> (2 * n)) & 3) !== EMPTY) tag |= 1 << n;
  return tag;
}
export function setAbridgedTag(core: X86Core, tag: number): void {
  let word = 0;
  for (let n = 0; n < 8; n++) if (((tag >> n) & 1) === 0) word |= EMPTY << (2 * n);
  core.set32(REG.FTW, word);
}
