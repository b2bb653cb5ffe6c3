/**
 * x87 data transfer: FILD, FLD, FST, FSTP, FXCH, FLD1, FLDZ. Exact, with rounding by the control word and the status
 * flags. Arithmetic is not here. SDM vol. 1 ch. 8 (formats, stack faults, exceptions), vol. 2.
 */
import type { X86Core } from "../core.js";
import { Status, Vector } from "../layout.js";
import { REG } from "../register-file.js";
import { FAULTED, readOperand, writeOperand } from "./memory.js";

/** Flags of the status word. */
const FSW = { IE: 1, DE: 2, OE: 8, UE: 16, PE: 32, SF: 64, ES: 128, C1: 0x200, B: 0x8000 } as const;
const MASKABLE = 0x3f;
const TOP_SHIFT = 11;
const BIAS = 16383;
const MAX_EXPONENT = 0x7fff;
const INTEGER = 1n << 63n;
/** Real indefinite. */
const INDEFINITE = { exponent: 0xffff, mantissa: 0xc000000000000000n };
const EMPTY = 3;

/** An 80-bit number: sign and exponent, and the mantissa with its integer bit. */
interface Extended {
  exponent: number;
  mantissa: bigint;
}
/** A format in memory: bits of the exponent and of the fraction. */
interface Format {
  readonly exponent: number;
  readonly fraction: number;
  readonly bytes: number;
}
const SINGLE: Format = { exponent: 8, fraction: 23, bytes: 4 };
const DOUBLE: Format = { exponent: 11, fraction: 52, bytes: 8 };

const at = (core: X86Core, n: number) => core.regs.base + REG.ST + n * 16;
const top = (core: X86Core) => (core.get32(REG.FSW) >> TOP_SHIFT) & 7;
const tagShift = (core: X86Core, n: number) => ((top(core) + n) & 7) * 2;
const empty = (core: X86Core, n: number) => ((core.get32(REG.FTW) >> tagShift(core, n)) & 3) === EMPTY;

function get(core: X86Core, n: number): Extended {
  return {
    exponent: core.dv.getUint16(at(core, n) + 8, true),
    mantissa: core.dv.getBigUint64(at(core, n), true),
  };
}
function put(core: X86Core, n: number, value: Extended): void {
  core.dv.setBigUint64(at(core, n), value.mantissa, true);
  core.dv.setBigUint64(at(core, n) + 8, BigInt(value.exponent), true);
  const exponent = value.exponent & MAX_EXPONENT;
  const normal = exponent !== 0 && exponent !== MAX_EXPONENT && value.mantissa >> 63n === 1n;
  const kind = normal ? 0 : exponent === 0 && value.mantissa === 0n ? 1 : 2;
  const shift = tagShift(core, n);
  core.set32(REG.FTW, (core.get32(REG.FTW) & ~(3 << shift)) | (kind << shift));
}
/** The register file holds ST(0) first: the stack moves. */
function rotate(core: X86Core, by: 1 | -1): void {
  const first = at(core, 0);
  const last = first + 112;
  const from = by === 1 ? first : last;
  const kept = core.u8.slice(from, from + 16);
  if (by === 1) core.u8.copyWithin(first, first + 16, last + 16);
  else core.u8.copyWithin(first + 16, first, last);
  core.u8.set(kept, by === 1 ? last : first);
  const now = (top(core) + by) & 7;
  core.set32(REG.FSW, (core.get32(REG.FSW) & ~(7 << TOP_SHIFT)) | (now << TOP_SHIFT));
}
function pop(core: X86Core): void {
  core.set32(REG.FTW, core.get32(REG.FTW) | (EMPTY << tagShift(core, 0)));
  rotate(core, 1);
}
/** Notes exceptions. @returns true if one of `stopping` is unmasked: the result is not stored */
function note(core: X86Core, flags: number, stopping: number): boolean {
  let status = core.get32(REG.FSW) | flags;
  const unmasked = flags & MASKABLE & ~core.get32(REG.FCW);
  if (unmasked !== 0) status |= FSW.ES | FSW.B;
  core.set32(REG.FSW, status);
  return (unmasked & stopping) !== 0;
}
function push(core: X86Core, value: Extended, flags: number): number {
  core.set32(REG.FSW, core.get32(REG.FSW) & ~FSW.C1);
  if (!empty(core, 7)) {
    if (note(core, FSW.IE | FSW.SF | FSW.C1, FSW.IE)) return Status.NEXT;
    value = INDEFINITE;
  } else if (note(core, flags, FSW.IE | FSW.DE)) return Status.NEXT;
  rotate(core, -1);
  put(core, 0, value);
  return Status.NEXT;
}
/** ST(n), or the indefinite for an empty register; null if that fault is unmasked. */
function source(core: X86Core, n: number): Extended | null {
  core.set32(REG.FSW, core.get32(REG.FSW) & ~FSW.C1);
  if (!empty(core, n)) return get(core, n);
  return note(core, FSW.IE | FSW.SF, FSW.IE) ? null : INDEFINITE;
}

/** Bits in `value`. */
const width = (value: bigint) => value.toString(2).length;

function fromInteger(value: bigint): Extended {
  if (value === 0n) return { exponent: 0, mantissa: 0n };
  const magnitude = value < 0n ? -value : value;
  const bits = width(magnitude);
  return {
    exponent: (value < 0n ? 0x8000 : 0) | (BIAS + bits - 1),
    mantissa: magnitude << BigInt(64 - bits),
  };
}
/** A number in memory as an 80-bit one, and the flags that reading it raises. */
export function widen(bits: bigint, format: Format): Extended & { flags: number } {
  const all = (1 << format.exponent) - 1;
  const sign = Number(bits >> BigInt(format.bytes * 8 - 1)) << 15;
  const exponent = Number(bits >> BigInt(format.fraction)) & all;
  const fraction = bits & ((1n << BigInt(format.fraction)) - 1n);
  const shift = BigInt(63 - format.fraction);
  if (exponent === all) {
    const signaling = fraction !== 0n && fraction >> BigInt(format.fraction - 1) === 0n;
    const quiet = signaling ? 1n << 62n : 0n;
    return {
      exponent: sign | MAX_EXPONENT,
      mantissa: INTEGER | (fraction << shift) | quiet,
      flags: signaling ? FSW.IE : 0,
    };
  }
  const bias = all >> 1;
  if (exponent !== 0)
    return {
      exponent: sign | (exponent - bias + BIAS),
      mantissa: INTEGER | (fraction << shift),
      flags: 0,
    };
  if (fraction === 0n) return { exponent: sign, mantissa: 0n, flags: 0 };
  const bits1 = width(fraction);
  return {
    exponent: sign | (1 - bias - (format.fraction - bits1 + 1) + BIAS),
    mantissa: fraction << BigInt(64 - bits1),
    flags: FSW.DE,
  };
}
/** An 80-bit number rounded to a format, and the flags. @param rounding RC: 0 nearest, 1 down, 2 up, 3 towards zero */
export function narrow(value: Extended, format: Format, rounding: number): { bits: bigint; flags: number } {
  const negative = value.exponent >> 15 === 1;
  const sign = negative ? 1n << BigInt(format.bytes * 8 - 1) : 0n;
  const all = (1 << format.exponent) - 1;
  const infinity = BigInt(all) << BigInt(format.fraction);
  const exponent = value.exponent & MAX_EXPONENT;
  const { mantissa } = value;
  const quiet = 1n << BigInt(format.fraction - 1);
  if (exponent !== 0 && mantissa >> 63n === 0n)
    return { bits: (1n << BigInt(format.bytes * 8 - 1)) | infinity | quiet, flags: FSW.IE };
  if (exponent === MAX_EXPONENT) {
    const fraction = mantissa & (INTEGER - 1n);
    if (fraction === 0n) return { bits: sign | infinity, flags: 0 };
    const signaling = fraction >> 62n === 0n;
    const kept = fraction >> BigInt(63 - format.fraction);
    return { bits: sign | infinity | kept | quiet, flags: signaling ? FSW.IE : 0 };
  }
  if (mantissa === 0n) return { bits: sign, flags: 0 };
  const bias = all >> 1;
  const power = (exponent === 0 ? 1 : exponent) - BIAS;
  const tiny = power < 1 - bias;
  const drop = BigInt(Math.min(63 - format.fraction + (tiny ? 1 - bias - power : 0), 66));
  let kept = mantissa >> drop;
  const rest = mantissa - (kept << drop);
  const half = 1n << (drop - 1n);
  const odd = (kept & 1n) === 1n;
  const away =
    rounding === 0
      ? rest > half || (rest === half && odd)
      : rounding === 3
        ? false
        : (rounding === 1) === negative;
  let flags = rest === 0n ? 0 : FSW.PE | (tiny ? FSW.UE : 0);
  if (rest !== 0n && away) {
    kept += 1n;
    flags |= FSW.C1;
  }
  // A carry out of the fraction goes into the exponent, as it should.
  let bits = tiny ? kept : (BigInt(power + bias - 1) << BigInt(format.fraction)) + kept;
  if (bits >= infinity) {
    const up = rounding === 0 || (rounding !== 3 && (rounding === 1) === negative);
    bits = up ? infinity : infinity - 1n;
    flags = FSW.OE | FSW.PE | (up ? FSW.C1 : 0);
  }
  return { bits: sign | bits, flags };
}

function loadReal(core: X86Core, pc: number, format: Format): number {
  const bits = readOperand(core, pc, format.bytes);
  if (bits === FAULTED) return core.status;
  const value = widen(bits, format);
  return push(core, value, value.flags);
}
function loadInteger(core: X86Core, pc: number, bytes: number): number {
  const bits = readOperand(core, pc, bytes);
  if (bits === FAULTED) return core.status;
  return push(core, fromInteger(BigInt.asIntN(bytes * 8, bits)), 0);
}
function storeReal(core: X86Core, pc: number, format: Format, popping: boolean): number {
  const before = core.get32(REG.FSW);
  const value = source(core, 0);
  if (value === null) return Status.NEXT;
  const { bits, flags } = narrow(value, format, (core.get32(REG.FCW) >> 10) & 3);
  const stopping = FSW.IE | FSW.OE | FSW.UE;
  // Flags are seen only if the store succeeds.
  const stops = (flags & stopping & ~core.get32(REG.FCW)) !== 0;
  if (!stops && !writeOperand(core, pc, format.bytes, bits)) {
    core.set32(REG.FSW, before);
    return core.status;
  }
  note(core, flags, stopping);
  if (!stops && popping) pop(core);
  return Status.NEXT;
}
function loadExtended(core: X86Core, pc: number): number {
  const mantissa = readOperand(core, pc, 8);
  if (mantissa === FAULTED) return core.status;
  const exponent = readOperand(core, pc, 2, 8n);
  if (exponent === FAULTED) return core.status;
  return push(core, { mantissa, exponent: Number(exponent) }, 0);
}
function storeExtended(core: X86Core, pc: number): number {
  const value = source(core, 0);
  if (value === null) return Status.NEXT;
  if (!writeOperand(core, pc, 2, BigInt(value.exponent), 8n)) return core.status;
  if (!writeOperand(core, pc, 8, value.mantissa)) return core.status;
  pop(core);
  return Status.NEXT;
}
function exchange(core: X86Core, n: number): number {
  const here = source(core, 0);
  const there = source(core, n);
  if (here === null || there === null) return Status.NEXT;
  put(core, 0, there);
  put(core, n, here);
  return Status.NEXT;
}
function copy(core: X86Core, n: number, popping: boolean): number {
  const value = source(core, 0);
  if (value === null) return Status.NEXT;
  put(core, n, value);
  if (popping) pop(core);
  return Status.NEXT;
}

/**
 * @param which opcode's low bits and ModRM.reg (memory) or ModRM (registers), as in x87-control.ts
 * @returns a Status, or -1 if the instruction is none of these
 */
export function move(core: X86Core, pc: number, which: number, memory: boolean): number {
  const row = memory ? MEMORY[which] : (REGISTERS[which] ?? REGISTERS[which & ~7]);
  if (row === undefined) return -1;
  if ((core.get32(REG.FSW) & FSW.ES) !== 0) return core.raise(Vector.MF);
  return row(core, pc, which & 7);
}
type Row = (core: X86Core, pc: number, n: number) => number;
const MEMORY: Record<number, Row> = {
  0x100: (core, pc) => loadReal(core, pc, SINGLE),
  0x102: (core, pc) => storeReal(core, pc, SINGLE, false),
  0x103: (core, pc) => storeReal(core, pc, SINGLE, true),
  0x300: (core, pc) => loadInteger(core, pc, 4),
  0x305: loadExtended,
  0x307: storeExtended,
  0x500: (core, pc) => loadReal(core, pc, DOUBLE),
  0x502: (core, pc) => storeReal(core, pc, DOUBLE, false),
  0x503: (core, pc) => storeReal(core, pc, DOUBLE, true),
  0x700: (core, pc) => loadInteger(core, pc, 2),
  0x705: (core, pc) => loadInteger(core, pc, 8),
};
/** By ModRM, or by its first register where the low bits are a register. */
const REGISTERS: Record<number, Row> = {
  0x1c0: (core, _pc, n) => {
    const value = source(core, n);
    return value === null ? Status.NEXT : push(core, value, 0);
  },
  0x1c8: (core, _pc, n) => exchange(core, n),
  0x1e8: (core, _pc, n) => (n === 0 ? push(core, fromInteger(1n), 0) : core.raise(Vector.UD)),
  0x1ee: (core) => push(core, fromInteger(0n), 0),
  0x5d0: (core, _pc, n) => copy(core, n, false),
  0x5d8: (core, _pc, n) => copy(core, n, true),
};
