/**
 * Memory accesses of operations written in TypeScript. Reads yield a value below 2^64, or -1n (FAULTED) with the
 * exception or exit already prepared in the core; writes yield false then.
 */
import type { X86Core } from "../core.js";
import { Access, ENGINE, Mode, RECORD } from "../layout.js";
import { RegisterFile, SEG } from "../register-file.js";

export const FAULTED = -1n;

function loadHost(core: X86Core, host: number, bytes: number): bigint {
  switch (bytes) {
    case 1:
      return BigInt(core.u8[host]);
    case 2:
      return BigInt(core.dv.getUint16(host, true));
    case 4:
      return BigInt(core.dv.getUint32(host, true));
    default:
      return core.dv.getBigUint64(host, true);
  }
}
function storeHost(core: X86Core, host: number, bytes: number, value: bigint): void {
  switch (bytes) {
    case 1:
      core.u8[host] = Number(value & 0xffn);
      break;
    case 2:
      core.dv.setUint16(host, Number(value & 0xffffn), true);
      break;
    case 4:
      core.dv.setUint32(host, Number(value & 0xffffffffn), true);
      break;
    default:
      core.dv.setBigUint64(host, value, true);
  }
  if (host === core.scratch) core.commit();
}

/** Host address of a linear address; 0 on a fault. @param system supervisor privilege at any CPL */
export function hostOf(
  core: X86Core,
  linear: bigint,
  bytes: number,
  access: number,
  system: boolean,
): number {
  core.implicit = system;
  const host = core.fn.linear(BigInt.asUintN(64, linear), bytes | access, 0);
  core.implicit = false;
  return host;
}
/** Reads a system structure (descriptor, TSS) with supervisor privilege. */
export function readSystem(core: X86Core, linear: bigint, bytes: number): bigint {
  const host = hostOf(core, wrapLinear(core, linear), bytes, 0, true);
  return host ? loadHost(core, host, bytes) : FAULTED;
}
export function writeSystem(core: X86Core, linear: bigint, bytes: number, value: bigint): boolean {
  const host = hostOf(core, wrapLinear(core, linear), bytes, Access.WRITE, true);
  if (host) storeHost(core, host, bytes, value);
  return host !== 0;
}
/** Writes at a linear address with the privilege given. */
export function writeLinear(
  core: X86Core,
  linear: bigint,
  bytes: number,
  value: bigint,
  system: boolean,
): boolean {
  const host = hostOf(core, wrapLinear(core, linear), bytes, Access.WRITE, system);
  if (host) storeHost(core, host, bytes, value);
  return host !== 0;
}
/** Linear address of an offset in a segment, without checks. */
export function linearAddress(core: X86Core, segment: number, offset: bigint): bigint {
  if (core.code64 && segment < 4) return offset;
  return BigInt.asUintN(core.code64 ? 64 : 32, core.get64(RegisterFile.segment(segment) + SEG.BASE) + offset);
}
function wrapLinear(core: X86Core, linear: bigint): bigint {
  return core.mode & Mode.LONG ? linear : linear & 0xffffffffn;
}

/** Reads the record's memory operand, `displacement` bytes further. */
export function readOperand(core: X86Core, pc: number, bytes: number, displacement = 0n): bigint {
  const host = core.fn.memory(pc, displacement, bytes);
  return host ? loadHost(core, host, bytes) : FAULTED;
}
export function writeOperand(
  core: X86Core,
  pc: number,
  bytes: number,
  value: bigint,
  displacement = 0n,
): boolean {
  const host = core.fn.memory(pc, displacement, bytes | Access.WRITE);
  if (host) storeHost(core, host, bytes, value);
  return host !== 0;
}
/** Reads at an offset of a segment. */
export function readSegment(core: X86Core, segment: number, offset: bigint, bytes: number, pc = 0): bigint {
  const host = core.fn.segment(segment, offset, bytes, pc);
  return host ? loadHost(core, host, bytes) : FAULTED;
}
export function writeSegment(
  core: X86Core,
  segment: number,
  offset: bigint,
  bytes: number,
  value: bigint,
  pc = 0,
): boolean {
  const host = core.fn.segment(segment, offset, bytes | Access.WRITE, pc);
  if (host) storeHost(core, host, bytes, value);
  return host !== 0;
}

// --- operands of the record

/** Operand 0 as a register of `bits`, or the memory operand. */
export function readOperand0(core: X86Core, pc: number, bits: number, memory: boolean): bigint {
  if (memory) return readOperand(core, pc, bits / 8);
  return loadHost(core, core.regs.base + core.dv.getUint16(pc + RECORD.A, true), bits / 8);
}
export function readOperand1(core: X86Core, pc: number, bits: number, memory: boolean): bigint {
  if (memory) return readOperand(core, pc, bits / 8);
  return loadHost(core, core.dv.getInt32(pc + RECORD.B, true), bits / 8);
}
/** Writes a register with the architecture's rule for its upper half. */
export function writeRegister(core: X86Core, offset: number, bits: number, value: bigint): void {
  const address = core.regs.base + offset;
  if (bits >= 32) core.dv.setBigUint64(address, BigInt.asUintN(bits, value), true);
  else if (bits === 16) core.dv.setUint16(address, Number(value & 0xffffn), true);
  else core.u8[address] = Number(value & 0xffn);
}
export function writeOperand0(
  core: X86Core,
  pc: number,
  bits: number,
  memory: boolean,
  value: bigint,
): boolean {
  if (memory) return writeOperand(core, pc, bits / 8, value);
  writeRegister(core, core.dv.getUint16(pc + RECORD.A, true), bits, value);
  return true;
}
export function immediate(core: X86Core, pc: number): number {
  return core.dv.getInt32(pc + RECORD.IMM, true);
}
/** Field A: a number, or the offset of operand 0. */
export function fieldA(core: X86Core, pc: number): number {
  return core.dv.getUint16(pc + RECORD.A, true);
}
export function nextRip(core: X86Core, pc: number): bigint {
  return (core.get64(128) + BigInt(core.u8[pc + RECORD.LENGTH])) & core.get64(ENGINE.RIP_MASK);
}

// --- the stack, in the current mode

/** A stack pointer that operations move without committing it. */
export function stackPointer(core: X86Core): bigint {
  return core.get64(32);
}
function place(core: X86Core, pointer: bigint): bigint {
  return pointer & core.get64(ENGINE.STACK_MASK);
}
/** Pushes below `pointer`; the new pointer, or FAULTED. */
export function pushAt(core: X86Core, pointer: bigint, bytes: number, value: bigint): bigint {
  const moved = movePointer(core, pointer, -bytes);
  return writeSegment(core, 2, place(core, moved), bytes, BigInt.asUintN(bytes * 8, value)) ? moved : FAULTED;
}
/** Value at `pointer`. */
export function peekAt(core: X86Core, pointer: bigint, bytes: number): bigint {
  return readSegment(core, 2, place(core, pointer), bytes);
}
/** A stack pointer moved within the stack's size. */
export function movePointer(core: X86Core, pointer: bigint, delta: number): bigint {
  const mask = core.get64(ENGINE.STACK_MASK);
  const low = (pointer + BigInt(delta)) & mask;
  return mask === 0xffffn ? (pointer & ~0xffffn) | low : low;
}
