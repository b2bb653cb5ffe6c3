/** FXSAVE, FXRSTOR, MXCSR, and the state that FXSAVE and XSAVE share. SDM vol. 1 ch. 10.5, 13.5. */
import type { X86Core } from "../core.js";
import { Access, ENGINE, FpuBlock, Misc, RECORD, Status, Vector } from "../layout.js";
import { REG, RegisterFile, SEG } from "../register-file.js";
import { FAULTED, readOperand, writeOperand } from "./memory.js";
import type { Operation } from "./operations.js";
import { requireSse } from "./vector.js";
import { setControl } from "./x87-control.js";
import { abridgedTag, getTop, initialize, setAbridgedTag, summarize } from "./x87-state.js";

export const MXCSR_MASK = 0xffff;
export const XMM_OFFSET = 160;

/** Reads or writes an area by 8-byte pieces, all of which have been probed. */
export class Area {
  constructor(
    private readonly core: X86Core,
    private readonly pc: number,
  ) {}
  /** Part of the area, of at most a page, is accessible. */
  probe(from: number, length: number, access: number): boolean {
    // Its first and last bytes reach all of its pages.
    return [from, from + length - 8].every(
      (at) => this.core.fn.memory(this.pc, BigInt(at), 8 | access) !== 0,
    );
  }
  get(at: number): bigint {
    return readOperand(this.core, this.pc, 8, BigInt(at));
  }
  set(at: number, value: bigint): void {
    writeOperand(this.core, this.pc, 8, value, BigInt(at));
  }
}

/** @param wide the pointers are of 64 bits, else of 32 with a selector, which is deprecated */
export function saveX87(core: X86Core, area: Area, wide: boolean): void {
  const fcw = BigInt(core.get32(REG.FCW) & 0xffff);
  const fsw = BigInt(core.get32(REG.FSW) & 0xffff);
  const tag = BigInt(abridgedTag(core));
  const fop = BigInt(core.get32(REG.FOP) & 0x7ff);
  const mask = wide ? 0xffffffffffffffffn : 0xffffffffn;
  area.set(0, fcw | (fsw << 16n) | (tag << 32n) | (fop << 48n));
  area.set(8, core.get64(REG.FIP) & mask);
  area.set(16, core.get64(REG.FDP) & mask);
  const top = getTop(core);
  for (let n = 0; n < 8; n++) {
    const register = REG.ST + ((top + n) & 7) * 16;
    area.set(32 + n * 16, core.get64(register));
    area.set(40 + n * 16, core.get64(register + 8) & 0xffffn);
  }
}
export function loadX87(core: X86Core, area: Area, wide: boolean): void {
  const control = area.get(0);
  const mask = wide ? 0xffffffffffffffffn : 0xffffffffn;
  setControl(core, Number(control & 0xffffn));
  core.set32(REG.FSW, Number((control >> 16n) & 0xffffn));
  core.set32(REG.FOP, Number((control >> 48n) & 0x7ffn));
  core.set64(REG.FIP, area.get(8) & mask);
  core.set64(REG.FDP, area.get(16) & mask);
  const top = getTop(core);
  for (let n = 0; n < 8; n++) {
    const register = REG.ST + ((top + n) & 7) * 16;
    core.set64(register, area.get(32 + n * 16));
    core.set64(register + 8, area.get(40 + n * 16) & 0xffffn);
  }
  setAbridgedTag(core, Number((control >> 32n) & 0xffn));
  summarize(core);
}
export function clearX87(core: X86Core): void {
  initialize(core);
  for (let n = 0; n < 16; n++) core.set64(REG.ST + n * 8, 0n);
}
/** Not as after `clearX87`. */
export function usesX87(core: X86Core): boolean {
  if (core.get32(REG.FCW) !== 0x37f || (core.get32(REG.FSW) & 0xffff) !== 0) return true;
  if ((core.get32(REG.FTW) & 0xffff) !== 0xffff || core.get32(REG.FOP) !== 0) return true;
  if ((core.get64(REG.FIP) | core.get64(REG.FDP)) !== 0n) return true;
  for (let n = 0; n < 16; n++)
    if ((core.get64(REG.ST + n * 8) & (n & 1 ? 0xffffn : 0xffffffffffffffffn)) !== 0n) return true;
  return false;
}
const vectorCount = (core: X86Core) => (core.code64 ? 16 : 8);
export function saveMxcsr(core: X86Core, area: Area): void {
  area.set(24, BigInt(core.get32(REG.MXCSR) >>> 0) | (BigInt(MXCSR_MASK) << 32n));
}
/** Saves 16 bytes of each vector register, from `part` bytes on, at `at`. */
export function saveLanes(core: X86Core, area: Area, at: number, part: number): void {
  for (let n = 0; n < vectorCount(core); n++) {
    const register = REG.ZMM + n * 64 + part;
    area.set(at + n * 16, core.get64(register));
    area.set(at + n * 16 + 8, core.get64(register + 8));
  }
}
export function loadLanes(core: X86Core, area: Area, at: number, part: number): void {
  for (let n = 0; n < vectorCount(core); n++) {
    const register = REG.ZMM + n * 64 + part;
    core.set64(register, area.get(at + n * 16));
    core.set64(register + 8, area.get(at + n * 16 + 8));
  }
}
export function clearLanes(core: X86Core, part: number): void {
  for (let n = 0; n < vectorCount(core); n++) {
    core.set64(REG.ZMM + n * 64 + part, 0n);
    core.set64(REG.ZMM + n * 64 + part + 8, 0n);
  }
}
/** Any of these lanes is not zero. */
export function usesLanes(core: X86Core, part: number): boolean {
  for (let n = 0; n < vectorCount(core); n++) {
    const register = REG.ZMM + n * 64 + part;
    if ((core.get64(register) | core.get64(register + 8)) !== 0n) return true;
  }
  return false;
}
/** The memory operand's linear address is a multiple of `align`. */
export function aligned(core: X86Core, pc: number, align: bigint): boolean {
  const segment = (core.dv.getUint16(pc + RECORD.MISC, true) >> Misc.SEGMENT_SHIFT) & 7;
  const base = core.code64 && segment < 4 ? 0n : core.get64(RegisterFile.segment(segment) + SEG.BASE);
  return ((core.fn.address(pc) + base) & (align - 1n)) === 0n;
}
/** #NM, and #GP for an address that is not aligned. NEXT if neither. */
function checks(core: X86Core, pc: number): number {
  if (core.get32(ENGINE.FPU_BLOCK) & FpuBlock.X87_NM) return core.raise(Vector.NM);
  return aligned(core, pc, 16n) ? Status.NEXT : core.raise(Vector.GP, 0);
}

const fxsave: Operation = (core, pc, bits) => {
  const status = checks(core, pc);
  if (status !== Status.NEXT) return status;
  const area = new Area(core, pc);
  if (!area.probe(0, 512, Access.WRITE)) return core.status;
  saveX87(core, area, bits === 64);
  saveMxcsr(core, area);
  saveLanes(core, area, XMM_OFFSET, 0);
  return Status.NEXT;
};
const fxrstor: Operation = (core, pc, bits) => {
  const status = checks(core, pc);
  if (status !== Status.NEXT) return status;
  const area = new Area(core, pc);
  if (!area.probe(0, 512, Access.READ)) return core.status;
  const mxcsr = Number(area.get(24) & 0xffffffffn);
  if (mxcsr & ~MXCSR_MASK) return core.raise(Vector.GP, 0);
  loadX87(core, area, bits === 64);
  core.set32(REG.MXCSR, mxcsr);
  loadLanes(core, area, XMM_OFFSET, 0);
  return Status.NEXT;
};

const ldmxcsr: Operation = (core, pc) => {
  const status = requireSse(core);
  if (status !== Status.NEXT) return status;
  const value = readOperand(core, pc, 4);
  if (value === FAULTED) return core.status;
  if (Number(value) & ~MXCSR_MASK) return core.raise(Vector.GP, 0);
  core.set32(REG.MXCSR, Number(value));
  return Status.NEXT;
};
const stmxcsr: Operation = (core, pc) => {
  const status = requireSse(core);
  if (status !== Status.NEXT) return status;
  return writeOperand(core, pc, 4, BigInt(core.get32(REG.MXCSR) >>> 0)) ? Status.NEXT : core.status;
};

export const stateOperations: Record<string, Operation> = {
  fxsave,
  fxrstor,
  ldmxcsr,
  stmxcsr,
};
