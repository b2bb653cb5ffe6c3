/** Rare general-purpose instructions: BCD, BOUND, ENTER, PUSHA, POPA, XLAT, CMPXCHG8B/16B, MOVDIR64B, ARPL. SDM vol. 2. */
import { RFLAGS } from "../bits.js";
import type { X86Core } from "../core.js";
import { Access, ENGINE, Misc, RECORD, Status, Vector } from "../layout.js";
import {
  FAULTED,
  fieldA,
  immediate,
  movePointer,
  peekAt,
  pushAt,
  readOperand,
  readOperand0,
  readSegment,
  stackPointer,
  writeOperand0,
  writeRegister,
} from "./memory.js";
import type { Operation } from "./operations.js";

const { CF, AF } = RFLAGS;
const al = (core: X86Core) => core.get32(0) & 0xff;
const ah = (core: X86Core) => (core.get32(0) >> 8) & 0xff;
function setAx(core: X86Core, low: number, high: number): void {
  core.dv.setUint16(core.regs.base, (low & 0xff) | ((high & 0xff) << 8), true);
}
/** Flags by an 8-bit result, with the carries given. */
function result8(core: X86Core, value: number, carries: number): void {
  const v = value & 0xff;
  let parity = v ^ (v >> 4);
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  const kept = core.getFlags() & ~0x8d5;
  core.setFlags(kept | carries | (parity & 1 ? 0 : 4) | (v === 0 ? 0x40 : 0) | (v & 0x80));
}

function adjustDecimal(core: X86Core, sign: number): number {
  const flags = core.getFlags();
  const old = al(core);
  let value = old;
  let carries = 0;
  if ((old & 15) > 9 || flags & AF) {
    value += 6 * sign;
    carries |= AF;
    // The borrow or carry of this step counts towards CF.
    if (value < 0 || value > 0xff) carries |= CF;
  }
  if (flags & CF) carries |= CF;
  if (old > 0x99 || flags & CF) {
    value += 0x60 * sign;
    carries |= CF;
  } else if (sign > 0) carries &= ~CF;
  setAx(core, value, ah(core));
  result8(core, value, carries);
  return Status.NEXT;
}
function adjustAscii(core: X86Core, sign: number): number {
  let carries = 0;
  let ax = core.get32(0) & 0xffff;
  if ((ax & 15) > 9 || core.getFlags() & AF) {
    ax = (ax + sign * 0x106) & 0xffff;
    carries = AF | CF;
  }
  setAx(core, ax & 15, ax >> 8);
  result8(core, ax & 15, carries);
  return Status.NEXT;
}

const bound: Operation = (core, pc, bits) => {
  const bytes = bits / 8;
  const lower = readOperand(core, pc, bytes);
  if (lower === FAULTED) return core.status;
  const upper = readOperand(core, pc, bytes, BigInt(bytes));
  if (upper === FAULTED) return core.status;
  const index = BigInt.asIntN(bits, readOperand0(core, pc, bits, false));
  if (index < BigInt.asIntN(bits, lower) || index > BigInt.asIntN(bits, upper)) return core.raise(Vector.BR);
  return Status.NEXT;
};

const enter: Operation = (core, pc, bits) => {
  const allocate = immediate(core, pc) & 0xffff;
  const level = (immediate(core, pc) >> 16) & 31;
  const bytes = bits / 8;
  let pointer = pushAt(core, stackPointer(core), bytes, core.get64(40));
  if (pointer === FAULTED) return core.status;
  const frame = pointer;
  let link = core.get64(40);
  for (let i = 1; i < level; i++) {
    link = movePointer(core, link, -bytes);
    const value = peekAt(core, link, bytes);
    if (value === FAULTED) return core.status;
    pointer = pushAt(core, pointer, bytes, value);
    if (pointer === FAULTED) return core.status;
  }
  if (level > 0) {
    pointer = pushAt(core, pointer, bytes, frame);
    if (pointer === FAULTED) return core.status;
  }
  core.set64(32, movePointer(core, pointer, -allocate));
  writeRegister(core, 40, bits === 32 && core.get64(ENGINE.STACK_MASK) === 0xffffn ? 32 : bits, frame);
  return Status.NEXT;
};

const pusha: Operation = (core, _pc, bits) => {
  let pointer = stackPointer(core);
  for (let n = 0; n < 8; n++) {
    pointer = pushAt(core, pointer, bits / 8, core.get64(n * 8));
    if (pointer === FAULTED) return core.status;
  }
  core.set64(32, pointer);
  return Status.NEXT;
};
const popa: Operation = (core, _pc, bits) => {
  let pointer = stackPointer(core);
  const values: bigint[] = [];
  for (let n = 7; n >= 0; n--) {
    const value = peekAt(core, pointer, bits / 8);
    if (value === FAULTED) return core.status;
    values[n] = value;
    pointer = movePointer(core, pointer, bits / 8);
  }
  core.set64(32, pointer);
  for (let n = 0; n < 8; n++) if (n !== 4) writeRegister(core, n * 8, bits, values[n]);
  return Status.NEXT;
};

const xlat: Operation = (core, pc) => {
  const misc = core.dv.getUint16(pc + RECORD.MISC, true);
  const size = misc >> Misc.ADDRESS_SHIFT;
  const mask = size === 0 ? 0xffffn : size === 1 ? 0xffffffffn : 0xffffffffffffffffn;
  const offset = (core.get64(24) + BigInt(al(core))) & mask;
  const value = readSegment(core, (misc >> Misc.SEGMENT_SHIFT) & 7, offset, 1, pc);
  if (value === FAULTED) return core.status;
  core.u8[core.regs.base] = Number(value);
  return Status.NEXT;
};

/** CMPXCHG8B, or 16B with REX.W. */
const cmpxchg8b: Operation = (core, pc, bits) => {
  const wide = bits === 64;
  const bytes = wide ? 16 : 8;
  if (wide && (core.fn.address(pc) & 15n) !== 0n) {
    // Alignment is checked on the linear address; segment bases of 64-bit code are rarely odd.
    return core.raise(Vector.GP, 0);
  }
  const host = core.fn.memory(pc, 0n, bytes | Access.WRITE);
  if (!host) return core.status;
  const half = wide ? 64 : 32;
  const mask = (1n << BigInt(half)) - 1n;
  const get = (at: number) => (wide ? core.dv.getBigUint64(at, true) : BigInt(core.dv.getUint32(at, true)));
  const put = (at: number, v: bigint) => {
    if (wide) core.dv.setBigUint64(at, v, true);
    else core.dv.setUint32(at, Number(v), true);
  };
  const low = get(host);
  const high = get(host + bytes / 2);
  const equal = low === (core.get64(0) & mask) && high === (core.get64(16) & mask);
  if (equal) {
    put(host, core.get64(24) & mask);
    put(host + bytes / 2, core.get64(8) & mask);
  } else {
    core.set64(0, low);
    core.set64(16, high);
  }
  if (host === core.scratch) core.commit();
  core.setFlags(equal ? core.getFlags() | RFLAGS.ZF : core.getFlags() & ~RFLAGS.ZF);
  return Status.NEXT;
};

const movdir64b: Operation = (core, pc) => {
  const misc = core.dv.getUint16(pc + RECORD.MISC, true);
  const to =
    core.get64(fieldA(core, pc)) & (misc >> Misc.ADDRESS_SHIFT === 1 ? 0xffffffffn : 0xffffffffffffffffn);
  if (to & 63n) return core.raise(Vector.GP, 0);
  const source = core.fn.memory(pc, 0n, 64);
  if (!source) return core.status;
  const bytes = core.u8.slice(source, source + 64);
  const host = core.fn.segment(0, to, 64 | Access.WRITE, pc);
  if (!host) return core.status;
  core.u8.set(bytes, host);
  if (host === core.scratch) core.commit();
  return Status.NEXT;
};

export const legacy: Record<string, Operation> = {
  daa: (core) => adjustDecimal(core, 1),
  das: (core) => adjustDecimal(core, -1),
  aaa: (core) => adjustAscii(core, 1),
  aas: (core) => adjustAscii(core, -1),
  aam: (core, pc) => {
    const base = immediate(core, pc) & 0xff;
    if (base === 0) return core.raise(Vector.DE);
    const value = al(core);
    setAx(core, value % base, Math.floor(value / base));
    result8(core, value % base, 0);
    return Status.NEXT;
  },
  aad: (core, pc) => {
    const value = (al(core) + ah(core) * (immediate(core, pc) & 0xff)) & 0xff;
    setAx(core, value, 0);
    result8(core, value, 0);
    return Status.NEXT;
  },
  bound,
  enter,
  pusha,
  popa,
  xlat,
  cmpxchg8b,
  movdir64b,
  arpl: (core, pc, _bits, memory) => {
    if (!core.protectedMode) return core.raise(Vector.UD);
    const destination = readOperand0(core, pc, 16, memory);
    if (destination === FAULTED) return core.status;
    const source = core.dv.getUint16(core.dv.getInt32(pc + RECORD.B, true), true) & 3;
    const raise = (Number(destination) & 3) < source;
    if (raise && !writeOperand0(core, pc, 16, memory, (destination & 0xfffcn) | BigInt(source)))
      return core.status;
    core.setFlags(raise ? core.getFlags() | RFLAGS.ZF : core.getFlags() & ~RFLAGS.ZF);
    return Status.NEXT;
  },
};
