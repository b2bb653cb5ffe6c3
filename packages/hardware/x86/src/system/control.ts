/** Control and debug registers, descriptor tables, FS/GS bases, XGETBV, flags. SDM vol. 2 and vol. 3A ch. 2. */
import { CR0, CR4, RFLAGS } from "../bits.js";
import type { X86Core } from "../core.js";
import { ControlSource, Hook, type PolicyInstruction } from "../environment.js";
import { Mode, RECORD, Status, Vector } from "../layout.js";
import { REG, RegisterFile, SEG, SegmentRegister } from "../register-file.js";
import {
  FAULTED,
  fieldA,
  immediate,
  movePointer,
  peekAt,
  pushAt,
  readOperand,
  readOperand0,
  readOperand1,
  stackPointer,
  writeOperand,
  writeOperand0,
  writeRegister,
} from "./memory.js";
import type { Operation } from "./operations.js";
import { selectorOf } from "./segments.js";

/** Widest linear addresses of the processor. */
const LINEAR_BITS = 57;

/** What the interpreter does after a hook. */
export function hooked(core: X86Core, pc: number, result: number): number {
  switch (result) {
    case Hook.DONE:
      return Status.NEXT;
    case Hook.FAULT:
      return Status.FAULT;
    case Hook.DONE_STOP:
      core.advance(pc);
      core.stopRequested = true;
      return Status.ATTENTION;
    case Hook.RESYNC:
      core.updateMode();
      core.stopRequested = true;
      return Status.ATTENTION;
    default:
      return Status.STOP;
  }
}
/** After changes to paging or mode the next instruction is looked up anew. */
export function resume(core: X86Core, pc: number): number {
  core.advance(pc);
  core.updateMode();
  return Status.JUMP;
}
const privileged = (core: X86Core) => core.cpl !== 0;
const umip = (core: X86Core) => (core.get32(REG.CR4) & CR4.UMIP) !== 0 && core.cpl !== 0;

const controlBits = (core: X86Core) => (core.code64 ? 64 : 32);
const movfromcr: Operation = (core, pc) => {
  if (privileged(core)) return core.raise(Vector.GP, 0);
  const register = immediate(core, pc);
  if (register === 8 && !core.code64) return core.raise(Vector.UD);
  core.operandRegister = fieldA(core, pc) >> 3;
  const result = core.environment.readControl(core, register);
  if (result === Hook.DONE || result === Hook.DONE_STOP) {
    writeRegister(core, fieldA(core, pc), controlBits(core), core.value);
  }
  return hooked(core, pc, result);
};
function writeControl(core: X86Core, pc: number, register: number, value: bigint): number {
  core.value = value;
  const result = core.environment.writeControl(core, register);
  if (result === Hook.DONE) return register === 2 || register === 8 ? Status.NEXT : resume(core, pc);
  return hooked(core, pc, result);
}
/** Number of the general-purpose register that is operand 1. */
const sourceRegister = (core: X86Core, pc: number) =>
  (core.dv.getInt32(pc + RECORD.B, true) - core.regs.base) >> 3;
const movtocr: Operation = (core, pc) => {
  if (privileged(core)) return core.raise(Vector.GP, 0);
  const bits = controlBits(core);
  const value = readOperand1(core, pc, bits, false);
  core.operandRegister = sourceRegister(core, pc);
  return writeControl(core, pc, fieldA(core, pc), value);
};
const debugField = (n: number) => (n < 4 ? REG.DR0 + n * 8 : n === 4 || n === 6 ? REG.DR6 : REG.DR7);
/** #UD for DR4 and DR5 with CR4.DE, #GP outside ring 0, #DB with DR7.GD. */
function debugAccess(core: X86Core, pc: number, register: number, write: boolean): number {
  if ((register === 4 || register === 5) && core.get32(REG.CR4) & CR4.DE) return core.raise(Vector.UD);
  if (privileged(core)) return core.raise(Vector.GP, 0);
  const result = core.environment.accessDebug(core, register, write);
  if (result !== Hook.DONE) return hooked(core, pc, result);
  if (core.get32(REG.DR7) & 0x2000) {
    core.set32(REG.DR6, core.get32(REG.DR6) | 0x2000);
    core.set32(REG.DR7, core.get32(REG.DR7) & ~0x2000);
    return core.raise(Vector.DB);
  }
  return Status.NEXT;
}
const movfromdr: Operation = (core, pc) => {
  const register = immediate(core, pc);
  core.operandRegister = fieldA(core, pc) >> 3;
  const status = debugAccess(core, pc, register, false);
  if (status !== Status.NEXT) return status;
  writeRegister(core, fieldA(core, pc), controlBits(core), core.get64(debugField(register)));
  return Status.NEXT;
};
const movtodr: Operation = (core, pc) => {
  const register = fieldA(core, pc);
  core.operandRegister = sourceRegister(core, pc);
  const status = debugAccess(core, pc, register, true);
  if (status !== Status.NEXT) return status;
  let value = readOperand1(core, pc, controlBits(core), false);
  const field = debugField(register);
  if (register >= 4) {
    if (value >> 32n) return core.raise(Vector.GP, 0);
    value = field === REG.DR6 ? (value & 0x1e00fn) | 0xffff0ff0n : (value & 0xffff2fffn) | 0x400n;
  }
  core.set64(field, value);
  return Status.NEXT;
};
const lmsw: Operation = (core, pc, _bits, memory) => {
  if (privileged(core)) return core.raise(Vector.GP, 0);
  const value = readOperand0(core, pc, 16, memory);
  if (value === FAULTED) return core.status;
  const cr0 = core.get64(REG.CR0);
  core.operandRegister = ControlSource.LMSW;
  return writeControl(core, pc, 0, (cr0 & ~14n) | (value & 15n) | (cr0 & 1n));
};
const smsw: Operation = (core, pc, bits, memory) => {
  if (umip(core)) return core.raise(Vector.GP, 0);
  const value = core.get64(REG.CR0);
  return writeOperand0(core, pc, memory ? 16 : bits, memory, value) ? Status.NEXT : core.status;
};

const tableBits = (core: X86Core) => (core.code64 ? 8 : 4);
const storeTable =
  (name: string, base: number, limit: number): Operation =>
  (core, pc) => {
    if (umip(core)) return core.raise(Vector.GP, 0);
    const result = core.environment.descriptorTable(core, name);
    if (result !== Hook.DONE) return hooked(core, pc, result);
    if (!writeOperand(core, pc, 2, core.get64(limit) & 0xffffn)) return core.status;
    return writeOperand(core, pc, tableBits(core), core.get64(base), 2n) ? Status.NEXT : core.status;
  };
const loadTable =
  (name: string, base: number, limit: number): Operation =>
  (core, pc, bits) => {
    if (privileged(core)) return core.raise(Vector.GP, 0);
    const result = core.environment.descriptorTable(core, name);
    if (result !== Hook.DONE) return hooked(core, pc, result);
    const newLimit = readOperand(core, pc, 2);
    if (newLimit === FAULTED) return core.status;
    let newBase = readOperand(core, pc, tableBits(core), 2n);
    if (newBase === FAULTED) return core.status;
    if (!core.code64 && bits === 16) newBase &= 0xffffffn;
    if (core.code64 && !isBase(newBase)) return core.raise(Vector.GP, 0);
    core.set64(base, newBase);
    core.set32(limit, Number(newLimit));
    return Status.NEXT;
  };
export function isCanonical(core: X86Core, address: bigint): boolean {
  const bits = core.get32(REG.CR4) & CR4.LA57 ? 57 : 48;
  return BigInt.asUintN(64, BigInt.asIntN(bits, address)) === address;
}
/** Bases are checked for the width that the processor has, whatever CR4.LA57 is. SDM vol. 3A 3.3.7.1. */
export const isBase = (base: bigint): boolean =>
  BigInt.asUintN(64, BigInt.asIntN(LINEAR_BITS, base)) === base;
const storeSelector =
  (name: string, segment: number): Operation =>
  (core, pc, bits, memory) => {
    if (!core.protectedMode) return core.raise(Vector.UD);
    if (umip(core)) return core.raise(Vector.GP, 0);
    const result = core.environment.descriptorTable(core, name);
    if (result !== Hook.DONE) return hooked(core, pc, result);
    const value = BigInt(selectorOf(core, segment));
    return writeOperand0(core, pc, memory ? 16 : bits, memory, value) ? Status.NEXT : core.status;
  };

// --- bases of FS and GS

const baseField = (segment: number) => RegisterFile.segment(segment) + SEG.BASE;
const fsgs =
  (segment: number, write: boolean): Operation =>
  (core, pc, bits) => {
    if (!(core.get32(REG.CR4) & CR4.FSGSBASE)) return core.raise(Vector.UD);
    const width = bits === 64 ? 64 : 32;
    if (write) {
      const value = readOperand0(core, pc, width, false);
      if (!isBase(value)) return core.raise(Vector.GP, 0);
      core.set64(baseField(segment), value);
    } else writeRegister(core, fieldA(core, pc), width, core.get64(baseField(segment)));
    return Status.NEXT;
  };
const swapgs: Operation = (core) => {
  if (core.cpl !== 0) return core.raise(Vector.GP, 0);
  const base = core.get64(baseField(SegmentRegister.GS));
  core.set64(baseField(SegmentRegister.GS), core.get64(REG.KERNEL_GS_BASE));
  core.set64(REG.KERNEL_GS_BASE, base);
  return Status.NEXT;
};

// --- flags

const iopl = (core: X86Core) => (core.get32(REG.RFLAGS) >> 12) & 3;
const v86 = (core: X86Core) => (core.mode & Mode.V86) !== 0;
/** IF may be changed by CLI, STI and port instructions at this privilege. */
const mayChangeIf = (core: X86Core) => (v86(core) ? iopl(core) === 3 : core.cpl <= iopl(core));
const cli: Operation = (core) => {
  if (!mayChangeIf(core)) return core.raise(Vector.GP, 0);
  core.set32(REG.RFLAGS, core.get32(REG.RFLAGS) & ~RFLAGS.IF);
  return Status.NEXT;
};
const sti: Operation = (core, pc) => {
  if (!mayChangeIf(core)) return core.raise(Vector.GP, 0);
  const flags = core.get32(REG.RFLAGS);
  if (flags & RFLAGS.IF) return Status.NEXT;
  core.set32(REG.RFLAGS, flags | RFLAGS.IF);
  core.set32(REG.INTERRUPTIBILITY, (core.get32(REG.INTERRUPTIBILITY) & ~3) | 1);
  core.shadowSet = true;
  core.advance(pc);
  return Status.ATTENTION;
};
const pushf: Operation = (core, _pc, bits) => {
  if (v86(core) && iopl(core) < 3) return core.raise(Vector.GP, 0);
  const flags = BigInt(core.getFlags() & ~(RFLAGS.RF | RFLAGS.VM));
  const pointer = pushAt(core, stackPointer(core), bits / 8, flags);
  if (pointer === FAULTED) return core.status;
  core.set64(32, pointer);
  return Status.NEXT;
};
/** Bits that POPF and IRET may change at this privilege. */
export function writableFlags(core: X86Core, bits: number): number {
  let mask = 0x254dd5; // ID AC NT DF OF TF and the arithmetic ones, without IOPL and IF
  if (bits === 16) mask &= 0xffff;
  if (core.cpl <= iopl(core)) mask |= RFLAGS.IF;
  if (core.cpl === 0) mask |= RFLAGS.IOPL;
  return mask;
}
const popf: Operation = (core, pc, bits) => {
  if (v86(core) && iopl(core) < 3) return core.raise(Vector.GP, 0);
  const value = peekAt(core, stackPointer(core), bits / 8);
  if (value === FAULTED) return core.status;
  core.set64(32, movePointer(core, stackPointer(core), bits / 8));
  const mask = writableFlags(core, bits);
  const old = core.getFlags();
  // RF is cleared.
  core.setFlags((old & ~mask & ~RFLAGS.RF) | (Number(value & 0xffffffffn) & mask));
  const changed = old ^ core.get32(REG.RFLAGS);
  if (changed & RFLAGS.AC) core.updateMode();
  if (changed & (RFLAGS.TF | RFLAGS.IF) && core.get32(REG.RFLAGS) & (RFLAGS.TF | RFLAGS.IF)) {
    core.advance(pc);
    // TF takes effect after the next instruction.
    if (!(old & RFLAGS.TF)) core.trapSuppressed = (core.get32(REG.RFLAGS) & RFLAGS.TF) === 0;
    return Status.ATTENTION;
  }
  return Status.NEXT;
};
const smapFlag =
  (set: boolean): Operation =>
  (core) => {
    // CR4.SMAP need not be set.
    if (core.cpl !== 0) return core.raise(Vector.UD);
    const flags = core.get32(REG.RFLAGS);
    core.set32(REG.RFLAGS, set ? flags | RFLAGS.AC : flags & ~RFLAGS.AC);
    core.updateMode();
    return Status.NEXT;
  };

// --- instructions that are the environment's

/** @param ring0 #GP outside ring 0 @param operand the memory operand's linear address is passed */
const policy =
  (
    name: PolicyInstruction,
    ring0: boolean,
    kind: "" | "address" | "register" | "source" | "pair" = "",
  ): Operation =>
  (core, pc, bits, memory) => {
    if (ring0 && core.cpl !== 0) return core.raise(Vector.GP, 0);
    core.operandSize = bits;
    if (kind !== "") core.operandRegister = fieldA(core, pc) >> 3;
    if (kind === "address" || kind === "pair") {
      const misc = core.dv.getUint16(pc + RECORD.MISC, true);
      const segment = (misc >> 10) & 7;
      const base = core.code64 && segment < 4 ? 0n : core.get64(RegisterFile.segment(segment) + SEG.BASE);
      core.operand = BigInt.asUintN(64, core.fn.address(pc) + base);
      if (kind === "pair") {
        // A 128-bit descriptor: its halves become `value` and `operand`.
        const low = readOperand(core, pc, 8);
        if (low === FAULTED) return core.status;
        const high = readOperand(core, pc, 8, 8n);
        if (high === FAULTED) return core.status;
        core.value = low;
        core.operand = high;
      }
    }
    const generation = core.translations;
    const result = core.environment.instruction(core, name);
    if (kind === "register" && result === Hook.DONE) {
      writeRegister(core, fieldA(core, pc), name === "rdpid" ? 64 : bits, core.value);
    }
    void memory;
    if (result === Hook.DONE && generation !== core.translations) return resume(core, pc);
    return hooked(core, pc, result);
  };

export const controlOperations: Record<string, Operation> = {
  movfromcr,
  movtocr,
  movfromdr,
  movtodr,
  lmsw,
  smsw,
  clts: (core, pc) => {
    if (privileged(core)) return core.raise(Vector.GP, 0);
    core.operandRegister = ControlSource.CLTS;
    return writeControl(core, pc, 0, core.get64(REG.CR0) & ~BigInt(CR0.TS));
  },
  sgdt: storeTable("sgdt", REG.GDTR_BASE, REG.GDTR_LIMIT),
  sidt: storeTable("sidt", REG.IDTR_BASE, REG.IDTR_LIMIT),
  lgdt: loadTable("lgdt", REG.GDTR_BASE, REG.GDTR_LIMIT),
  lidt: loadTable("lidt", REG.IDTR_BASE, REG.IDTR_LIMIT),
  sldt: storeSelector("sldt", SegmentRegister.LDTR),
  str: storeSelector("str", SegmentRegister.TR),
  rdfsbase: fsgs(4, false),
  rdgsbase: fsgs(5, false),
  wrfsbase: fsgs(4, true),
  wrgsbase: fsgs(5, true),
  swapgs,
  cli,
  sti,
  pushf,
  popf,
  clac: smapFlag(false),
  stac: smapFlag(true),
  serialize: () => Status.NEXT,
  cpuid: policy("cpuid", false),
  rdmsr: policy("rdmsr", true),
  wrmsr: policy("wrmsr", true),
  rdpmc: policy("rdpmc", false),
  rdtsc: policy("rdtsc", false),
  rdtscp: policy("rdtscp", false),
  rdpid: policy("rdpid", false, "register"),
  rdrand: policy("rdrand", false, "register"),
  rdseed: policy("rdseed", false, "register"),
  hlt: policy("hlt", true),
  pause: policy("pause", false),
  monitor: policy("monitor", true),
  mwait: policy("mwait", true),
  umonitor: policy("umonitor", false, "source"),
  umwait: policy("umwait", false, "source"),
  tpause: policy("tpause", false, "source"),
  invd: policy("invd", true),
  wbinvd: policy("wbinvd", true),
  wbnoinvd: policy("wbnoinvd", true),
  invlpg: policy("invlpg", true, "address"),
  invpcid: policy("invpcid", true, "pair"),
  invept: policy("invept", true, "pair"),
  invvpid: policy("invvpid", true, "pair"),
  xsetbv: policy("xsetbv", true),
  vmcall: policy("vmcall", false),
  vmlaunch: policy("vmlaunch", false),
  vmresume: policy("vmresume", false),
  vmxoff: policy("vmxoff", false),
  tdcall: policy("tdcall", false),
  seamcall: policy("seamcall", false),
  getsec: policy("getsec", false),
  rsm: policy("rsm", false),
  rdpkru: policy("rdpkru", false),
  wrpkru: policy("wrpkru", false),
  clflush: policy("clflush", false, "address"),
  clflushopt: policy("clflush", false, "address"),
  clwb: policy("clflush", false, "address"),
};
