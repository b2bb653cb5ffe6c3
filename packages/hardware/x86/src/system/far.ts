/** Far transfers and segment loads: JMP, CALL, RET far, IRET, INT, MOV sreg, LAR, LSL, VERR, LLDT, LTR. SDM vol. 2, vol. 3A ch. 5, 6. */
import { AR, RFLAGS } from "../bits.js";
import type { X86Core } from "../core.js";
import { Hook } from "../environment.js";
import { ENGINE, Mode, RECORD, Status, Vector } from "../layout.js";
import { REG, RegisterFile, SEG, SegmentRegister } from "../register-file.js";
import { hooked, isBase, isCanonical, writableFlags } from "./control.js";
import { EventType, softwareEvent } from "./interrupts.js";
import {
  FAULTED,
  fieldA,
  immediate,
  movePointer,
  nextRip,
  peekAt,
  pushAt,
  readOperand,
  readOperand1,
  readOperand0,
  readSystem,
  stackPointer,
  writeLinear,
  writeOperand0,
  writeRegister,
  writeSystem,
} from "./memory.js";
import type { Operation } from "./operations.js";
import {
  type Descriptor,
  dropPrivilegedSegments,
  loadRealSegment,
  loadSegment,
  markAccessed,
  readDescriptor,
  selectorOf,
  setSegment,
} from "./segments.js";

const { CS, SS } = SegmentRegister;
const maskOf = (bits: number) => (1n << BigInt(bits)) - 1n;

/** Loads CS from a checked descriptor and goes to the offset. */
function enterCode(core: X86Core, selector: number, cpl: number, d: Descriptor, offset: bigint): number {
  if (!markAccessed(core, d)) return core.status;
  setSegment(core, CS, (selector & 0xfffc) | cpl, d.base, d.limit, d.ar);
  core.updateMode();
  core.set64(REG.RIP, offset);
  return Status.JUMP;
}
/** Is the offset within the code segment, or canonical in 64-bit mode? */
function goodTarget(core: X86Core, d: Descriptor, offset: bigint): boolean {
  if (core.long && d.ar & AR.L) return isCanonical(core, offset);
  return offset <= BigInt(d.limit >>> 0);
}
function realTransfer(core: X86Core, selector: number, offset: bigint): number {
  if (offset > BigInt(core.get32(RegisterFile.segment(CS) + SEG.LIMIT) >>> 0))
    return core.raise(Vector.GP, 0);
  loadRealSegment(core, CS, selector);
  core.set64(REG.RIP, offset);
  return Status.JUMP;
}
/** Checks a code descriptor for a direct far transfer. Undefined with a fault prepared. */
function codeDescriptor(core: X86Core, selector: number, d: Descriptor): boolean {
  const error = selector & 0xfffc;
  const dpl = (d.ar >> AR.DPL_SHIFT) & 3;
  const conforming = (d.ar & 4) !== 0;
  const bad = conforming ? dpl > core.cpl : dpl !== core.cpl || (selector & 3) > core.cpl;
  if (bad || (core.long && (d.ar & (AR.L | AR.DB)) === (AR.L | AR.DB))) core.raise(Vector.GP, error);
  else if (!(d.ar & AR.P)) core.raise(Vector.NP, error);
  else return true;
  return false;
}
interface Gate {
  selector: number;
  offset: bigint;
  bits: number;
  parameters: number;
}
/** Reads the call gate at a selector. */
function callGate(core: X86Core, selector: number, d: Descriptor): Gate | undefined {
  const type = d.ar & 15;
  const error = selector & 0xfffc;
  const dpl = (d.ar >> AR.DPL_SHIFT) & 3;
  if (d.ar & AR.S || !(type === 12 || (type === 4 && !core.long)) || dpl < core.cpl || (selector & 3) > dpl) {
    core.raise(Vector.GP, error);
    return undefined;
  }
  if (!(d.ar & AR.P)) {
    core.raise(Vector.NP, error);
    return undefined;
  }
  let offset = BigInt(((d.low & 0xffff) | (type === 12 ? d.high & 0xffff0000 : 0)) >>> 0);
  if (core.long) {
    const upper = readSystem(core, d.address + 8n, 8);
    if (upper === FAULTED) return undefined;
    offset |= (upper & 0xffffffffn) << 32n;
  }
  return {
    selector: d.low >>> 16,
    offset,
    bits: core.long ? 64 : type === 12 ? 32 : 16,
    parameters: d.high & 31,
  };
}

function pushFrame(core: X86Core, bits: number, values: bigint[]): bigint {
  let pointer = stackPointer(core);
  for (const value of values) {
    pointer = pushAt(core, pointer, bits / 8, value);
    if (pointer === FAULTED) return FAULTED;
  }
  return pointer;
}

/** JMP and CALL far. */
function transfer(
  core: X86Core,
  pc: number,
  bits: number,
  selector: number,
  offset: bigint,
  isCall: boolean,
): number {
  const back = [BigInt(selectorOf(core, CS)), nextRip(core, pc)];
  if (!core.protectedMode) {
    if (isCall) {
      const pointer = pushFrame(core, bits, back);
      if (pointer === FAULTED) return core.status;
      core.set64(32, pointer);
    }
    return realTransfer(core, selector, offset & maskOf(bits));
  }
  if ((selector & 0xfffc) === 0) return core.raise(Vector.GP, 0);
  let d = readDescriptor(core, selector);
  if (!d) return core.status;
  if ((d.ar & 24) === 24) {
    if (!codeDescriptor(core, selector, d)) return core.status;
    if (!goodTarget(core, d, offset)) return core.raise(Vector.GP, 0);
    if (isCall) {
      const pointer = pushFrame(core, bits, back);
      if (pointer === FAULTED) return core.status;
      core.set64(32, pointer);
    }
    return enterCode(core, selector, core.cpl, d, offset);
  }
  const gate = callGate(core, selector, d);
  if (!gate) return core.status;
  const error = gate.selector & 0xfffc;
  if (error === 0) return core.raise(Vector.GP, 0);
  d = readDescriptor(core, gate.selector);
  if (!d) return core.status;
  const dpl = (d.ar >> AR.DPL_SHIFT) & 3;
  if ((d.ar & 24) !== 24 || dpl > core.cpl) return core.raise(Vector.GP, error);
  if (core.long && (d.ar & (AR.L | AR.DB)) !== AR.L) return core.raise(Vector.GP, error);
  if (!(d.ar & AR.P)) return core.raise(Vector.NP, error);
  const conforming = (d.ar & 4) !== 0;
  const cpl = conforming ? core.cpl : dpl;
  if (cpl === core.cpl) {
    if (isCall) {
      const pointer = pushFrame(core, gate.bits, back);
      if (pointer === FAULTED) return core.status;
      core.set64(32, pointer);
    }
    return enterCode(core, gate.selector, cpl, d, gate.offset);
  }
  if (!isCall) return core.raise(Vector.GP, error);
  return callInner(core, gate, d, cpl, back);
}
/** A call through a gate to more privilege: new stack from the TSS, parameters copied. */
function callInner(core: X86Core, gate: Gate, d: Descriptor, cpl: number, back: bigint[]): number {
  const tss = RegisterFile.segment(SegmentRegister.TR);
  const base = core.get64(tss + SEG.BASE);
  const bytes = gate.bits / 8;
  const wide = core.long;
  const tss32 = (core.get32(tss + SEG.AR) & 8) !== 0;
  const at = wide || tss32 ? 4 + cpl * 8 : 2 + cpl * 4;
  const pointer = readSystem(core, base + BigInt(at), wide ? 8 : tss32 ? 4 : 2);
  if (pointer === FAULTED) return core.status;
  let ss: Descriptor | undefined;
  let selector = cpl;
  if (!wide) {
    const read = readSystem(core, base + BigInt(at + (tss32 ? 4 : 2)), 2);
    if (read === FAULTED) return core.status;
    selector = Number(read);
    ss = readDescriptor(core, selector, Vector.TS);
    if (!ss) return core.status;
    if ((selector & 3) !== cpl || (ss.ar & 0x1a) !== 0x12 || ((ss.ar >> AR.DPL_SHIFT) & 3) !== cpl)
      return core.raise(Vector.TS, selector & 0xfffc);
    if (!(ss.ar & AR.P)) return core.raise(Vector.SS, selector & 0xfffc);
  }
  const values = [BigInt(selectorOf(core, SS)), core.get64(32)];
  for (let i = wide ? 0 : gate.parameters; i > 0; i--) {
    const value = peekAt(core, movePointer(core, stackPointer(core), (i - 1) * bytes), bytes);
    if (value === FAULTED) return core.status;
    values.push(value);
  }
  values.push(...back);
  const mask = wide ? ~0n : ss!.ar & AR.DB ? 0xffffffffn : 0xffffn;
  let top = pointer;
  for (const value of values) {
    top -= BigInt(bytes);
    const linear = (wide ? 0n : ss!.base) + (top & mask);
    if (!writeLinear(core, linear, bytes, value & maskOf(gate.bits), cpl < 3)) return core.status;
  }
  if (!markAccessed(core, d) || (ss && !markAccessed(core, ss))) return core.status;
  if (ss) setSegment(core, SS, selector, ss.base, ss.limit, ss.ar);
  else setSegment(core, SS, cpl, 0n, 0, AR.UNUSABLE | (cpl << AR.DPL_SHIFT));
  setSegment(core, CS, (gate.selector & 0xfffc) | cpl, d.base, d.limit, d.ar);
  core.updateMode();
  core.set64(32, BigInt.asUintN(64, top & (wide ? ~0n : mask)));
  core.set64(REG.RIP, gate.offset);
  return Status.JUMP;
}

const farPointer =
  (isCall: boolean): Operation =>
  (core, pc, bits, memory) => {
    let offset: bigint;
    let selector: number;
    if (memory) {
      const read = readOperand(core, pc, bits / 8);
      if (read === FAULTED) return core.status;
      const second = readOperand(core, pc, 2, BigInt(bits / 8));
      if (second === FAULTED) return core.status;
      offset = read;
      selector = Number(second);
    } else {
      offset = BigInt(immediate(core, pc) >>> 0) & maskOf(bits);
      selector = core.dv.getUint16(pc + RECORD.IMM + 4, true);
    }
    return transfer(core, pc, bits, selector, offset, isCall);
  };

/** What RETF and IRET share in protected mode: CS, RIP and, for an outer level, SS, RSP. */
function returnTo(
  core: X86Core,
  bits: number,
  selector: number,
  offset: bigint,
  pointer: bigint,
  release: number,
  always: boolean,
  flags: ((cpl: number) => void) | undefined,
): number {
  const error = selector & 0xfffc;
  if (error === 0) return core.raise(Vector.GP, 0);
  const d = readDescriptor(core, selector);
  if (!d) return core.status;
  const rpl = selector & 3;
  const dpl = (d.ar >> AR.DPL_SHIFT) & 3;
  const conforming = (d.ar & 4) !== 0;
  if ((d.ar & 24) !== 24 || rpl < core.cpl || (conforming ? dpl > rpl : dpl !== rpl))
    return core.raise(Vector.GP, error);
  if (core.long && (d.ar & (AR.L | AR.DB)) === (AR.L | AR.DB)) return core.raise(Vector.GP, error);
  if (!(d.ar & AR.P)) return core.raise(Vector.NP, error);
  if (!goodTarget(core, d, offset)) return core.raise(Vector.GP, 0);
  const outer = rpl !== core.cpl;
  let ss: Descriptor | undefined;
  let stackSelector = 0;
  let newPointer = movePointer(core, pointer, release);
  if (outer || always) {
    const read = peekAt(core, newPointer, bits / 8);
    if (read === FAULTED) return core.status;
    const next = peekAt(core, movePointer(core, newPointer, bits / 8), bits / 8);
    if (next === FAULTED) return core.status;
    stackSelector = Number(next & 0xffffn);
    const stackError = stackSelector & 0xfffc;
    if (stackError === 0) {
      if (!(d.ar & AR.L) || rpl === 3 || (stackSelector & 3) !== rpl) return core.raise(Vector.GP, 0);
    } else {
      ss = readDescriptor(core, stackSelector);
      if (!ss) return core.status;
      if ((stackSelector & 3) !== rpl || (ss.ar & 0x1a) !== 0x12 || ((ss.ar >> AR.DPL_SHIFT) & 3) !== rpl)
        return core.raise(Vector.GP, stackError);
      if (!(ss.ar & AR.P)) return core.raise(Vector.SS, stackError);
      if (!markAccessed(core, ss)) return core.status;
    }
    newPointer = read;
  }
  if (!markAccessed(core, d)) return core.status;
  flags?.(core.cpl);
  setSegment(core, CS, (selector & 0xfffc) | rpl, d.base, d.limit, d.ar);
  if (outer || always) {
    if (ss) setSegment(core, SS, stackSelector, ss.base, ss.limit, ss.ar);
    else setSegment(core, SS, stackSelector, 0n, 0, AR.UNUSABLE | (rpl << AR.DPL_SHIFT));
    core.updateMode();
    if (outer) dropPrivilegedSegments(core, rpl);
    // Parameters are released from the outer stack too.
    if (flags === undefined) newPointer = movePointer(core, newPointer, release - (bits / 8) * 2);
  }
  core.updateMode();
  if (core.code64) core.set64(32, newPointer);
  else if (core.segmentAr(SS) & AR.DB) core.set64(32, newPointer & 0xffffffffn);
  else core.set64(32, (core.get64(32) & ~0xffffn) | (newPointer & 0xffffn));
  core.set64(REG.RIP, offset);
  return Status.JUMP;
}

const retf: Operation = (core, pc, bits) => {
  // With an immediate the record has it; without, the field is zero.
  const extra = core.built.keys[core.dv.getUint16(pc, true)].startsWith("retf:i")
    ? immediate(core, pc) & 0xffff
    : 0;
  const bytes = bits / 8;
  const pointer = stackPointer(core);
  const offset = peekAt(core, pointer, bytes);
  if (offset === FAULTED) return core.status;
  const selector = peekAt(core, movePointer(core, pointer, bytes), bytes);
  if (selector === FAULTED) return core.status;
  if (!core.protectedMode) {
    const status = realTransfer(core, Number(selector & 0xffffn), offset);
    if (status === Status.JUMP) core.set64(32, movePointer(core, pointer, 2 * bytes + extra));
    return status;
  }
  return returnTo(
    core,
    bits,
    Number(selector & 0xffffn),
    offset,
    pointer,
    2 * bytes + extra,
    false,
    undefined,
  );
};

const iret: Operation = (core, _pc, bits) => {
  const bytes = bits / 8;
  const pointer = stackPointer(core);
  const frame: bigint[] = [];
  for (let i = 0; i < 3; i++) {
    const value = peekAt(core, movePointer(core, pointer, i * bytes), bytes);
    if (value === FAULTED) return core.status;
    frame.push(value);
  }
  const selector = Number(frame[1] & 0xffffn);
  const image = Number(frame[2] & 0xffffffffn) | 0;
  const keepMask = bits === 16 ? 0xffff : 0x3f7fd5;
  if (!(core.mode & Mode.PROTECTED)) {
    const status = realTransfer(core, selector, frame[0]);
    if (status !== Status.JUMP) return status;
    core.set64(32, movePointer(core, pointer, 3 * bytes));
    const mask = (bits === 16 ? 0x7fd5 : 0x257fd5) & ~RFLAGS.VM;
    core.setFlags((core.getFlags() & ~mask) | (image & mask));
    core.updateMode();
    core.environment.interruptReturn(core);
    return Status.ATTENTION;
  }
  if (core.mode & Mode.V86) {
    if (((core.get32(REG.RFLAGS) >> 12) & 3) !== 3) return core.raise(Vector.GP, 0);
    const status = realTransfer(core, selector, frame[0]);
    if (status !== Status.JUMP) return status;
    core.set64(32, movePointer(core, pointer, 3 * bytes));
    const mask = 0x254fd5 & (bits === 16 ? 0xffff : -1);
    core.setFlags((core.getFlags() & ~mask) | (image & mask));
    return Status.ATTENTION;
  }
  if (core.getFlags() & RFLAGS.NT) return core.raise(Vector.GP, 0);
  if (!core.long && bits === 32 && image & RFLAGS.VM && core.cpl === 0)
    return iretToV86(core, pointer, frame);
  const setFlags = (oldCpl: number) => {
    let mask = writableFlags(core, bits) | RFLAGS.RF;
    if (oldCpl === 0) mask |= RFLAGS.VIF | RFLAGS.VIP;
    mask &= keepMask;
    core.setFlags((core.getFlags() & ~mask) | (image & mask));
  };
  const status = returnTo(core, bits, selector, frame[0], pointer, 3 * bytes, core.code64, setFlags);
  if (status !== Status.JUMP) return status;
  core.updateMode();
  core.environment.interruptReturn(core);
  return core.get32(REG.RFLAGS) & (RFLAGS.IF | RFLAGS.TF | RFLAGS.RF) ? Status.ATTENTION : Status.JUMP;
};
function iretToV86(core: X86Core, pointer: bigint, frame: bigint[]): number {
  const rest: bigint[] = [];
  for (let i = 3; i < 9; i++) {
    const value = peekAt(core, movePointer(core, pointer, i * 4), 4);
    if (value === FAULTED) return core.status;
    rest.push(value);
  }
  core.setFlags(Number(frame[2] & 0xffffffffn) | 0);
  core.set32(REG.RFLAGS, core.get32(REG.RFLAGS) | RFLAGS.VM);
  core.updateMode();
  const selectors = { 1: frame[1], 2: rest[1], 0: rest[2], 3: rest[3], 4: rest[4], 5: rest[5] };
  for (const [n, selector] of Object.entries(selectors))
    loadRealSegment(core, Number(n), Number(selector & 0xffffn));
  core.set64(32, rest[0]);
  core.set64(REG.RIP, frame[0] & 0xffffn);
  return Status.ATTENTION;
}

// --- software interrupts

const length = (core: X86Core, pc: number) => core.u8[pc + RECORD.LENGTH];
const int: Operation = (core, pc) => {
  if (core.mode & Mode.V86 && ((core.get32(REG.RFLAGS) >> 12) & 3) < 3) return core.raise(Vector.GP, 0);
  return softwareEvent(core, immediate(core, pc) & 0xff, EventType.SOFTWARE_INTERRUPT, length(core, pc));
};

// --- segment registers

const movtoseg: Operation = (core, pc, _bits, memory) => {
  const selector = readOperand1(core, pc, 16, memory);
  if (selector === FAULTED) return core.status;
  return loadVisible(core, pc, fieldA(core, pc), Number(selector));
};
/** Loads a segment register; SS blocks interrupts until the next instruction is done. */
function loadVisible(core: X86Core, pc: number, segment: number, selector: number): number {
  const status = loadSegment(core, segment, selector);
  if (status !== Status.NEXT) return status;
  core.advance(pc);
  if (segment !== SS) return Status.JUMP;
  core.set32(REG.INTERRUPTIBILITY, (core.get32(REG.INTERRUPTIBILITY) & ~3) | 2);
  core.shadowSet = true;
  core.trapSuppressed = true;
  return Status.ATTENTION;
}
const loadFar =
  (segment: number): Operation =>
  (core, pc, bits) => {
    const offset = readOperand(core, pc, bits / 8);
    if (offset === FAULTED) return core.status;
    const selector = readOperand(core, pc, 2, BigInt(bits / 8));
    if (selector === FAULTED) return core.status;
    const status = loadSegment(core, segment, Number(selector));
    if (status !== Status.NEXT) return status;
    writeRegister(core, fieldA(core, pc), bits, offset);
    core.advance(pc);
    return Status.JUMP;
  };

/** Descriptor for LAR, LSL, VERR, VERW: undefined if it is not to be seen (ZF clear), or with a fault prepared. */
function visible(core: X86Core, selector: number, types: number): Descriptor | "fault" | undefined {
  if ((selector & 0xfffc) === 0) return undefined;
  core.set32(ENGINE.VECTOR, -1);
  const d = readDescriptor(core, selector, Vector.GP);
  if (!d) return core.get32(ENGINE.VECTOR) === Vector.GP ? undefined : "fault";
  const dpl = (d.ar >> AR.DPL_SHIFT) & 3;
  const conforming = (d.ar & 28) === 28;
  if (!(d.ar & AR.S) && !((types >> (d.ar & 15)) & 1)) return undefined;
  if (!conforming && (dpl < core.cpl || dpl < (selector & 3))) return undefined;
  return d;
}
function setZero(core: X86Core, zero: boolean): number {
  const flags = core.getFlags();
  core.setFlags(zero ? flags | RFLAGS.ZF : flags & ~RFLAGS.ZF);
  return Status.NEXT;
}
const inspect =
  (limit: boolean): Operation =>
  (core, pc, bits, memory) => {
    if (!core.protectedMode) return core.raise(Vector.UD);
    const selector = readOperand1(core, pc, 16, memory);
    if (selector === FAULTED) return core.status;
    const types = limit ? (core.long ? 0xa04 : 0xa0e) : core.long ? 0x1a04 : 0x1a3e;
    const d = visible(core, Number(selector), types);
    if (d === "fault") return core.status;
    if (d) writeRegister(core, fieldA(core, pc), bits, BigInt((limit ? d.limit : d.high & 0xffff00) >>> 0));
    return setZero(core, d !== undefined);
  };
const verify =
  (write: boolean): Operation =>
  (core, pc, _bits, memory) => {
    if (!core.protectedMode) return core.raise(Vector.UD);
    const selector = readOperand0(core, pc, 16, memory);
    if (selector === FAULTED) return core.status;
    const d = visible(core, Number(selector), 0);
    if (d === "fault") return core.status;
    const code = d !== undefined && (d.ar & 8) !== 0;
    const good = d !== undefined && (write ? !code && (d.ar & 2) !== 0 : !code || (d.ar & 2) !== 0);
    return setZero(core, good);
  };
const loadSystem =
  (name: string, segment: number): Operation =>
  (core, pc, _bits, memory) => {
    if (!core.protectedMode) return core.raise(Vector.UD);
    if (core.cpl !== 0) return core.raise(Vector.GP, 0);
    const hook = core.environment.descriptorTable(core, name);
    if (hook !== Hook.DONE) return hooked(core, pc, hook);
    const read = readOperand0(core, pc, 16, memory);
    if (read === FAULTED) return core.status;
    const selector = Number(read);
    const error = selector & 0xfffc;
    const task = segment === SegmentRegister.TR;
    if (error === 0) {
      if (task) return core.raise(Vector.GP, 0);
      setSegment(core, segment, selector, 0n, 0, AR.UNUSABLE);
      return Status.NEXT;
    }
    if (selector & 4) return core.raise(Vector.GP, error);
    const d = readDescriptor(core, selector, Vector.GP, core.long);
    if (!d) return core.status;
    const type = d.ar & 31;
    if (task ? type !== 9 && !(type === 1 && !core.long) : type !== 2) return core.raise(Vector.GP, error);
    if (!(d.ar & AR.P)) return core.raise(Vector.NP, error);
    if (core.long && !isBase(d.base)) return core.raise(Vector.GP, error);
    if (task) {
      d.ar |= 2;
      if (!writeSystem(core, d.address + 5n, 1, BigInt(((d.high >>> 8) & 0xff) | 2))) return core.status;
    }
    setSegment(core, segment, selector, d.base, d.limit, d.ar);
    return Status.NEXT;
  };

export const farOperations: Record<string, Operation> = {
  jmpfar: farPointer(false),
  callfar: farPointer(true),
  retf,
  iret,
  int,
  int3: (core, pc) => softwareEvent(core, Vector.BP, EventType.SOFTWARE_EXCEPTION, length(core, pc)),
  int1: (core, pc) =>
    softwareEvent(core, Vector.DB, EventType.PRIVILEGED_SOFTWARE_EXCEPTION, length(core, pc)),
  into: (core, pc) =>
    core.getFlags() & RFLAGS.OF
      ? softwareEvent(core, Vector.OF, EventType.SOFTWARE_EXCEPTION, length(core, pc))
      : Status.NEXT,
  movtoseg,
  movfromseg: (core, pc, bits, memory) => {
    const value = BigInt(selectorOf(core, immediate(core, pc)));
    return writeOperand0(core, pc, memory ? 16 : bits, memory, value) ? Status.NEXT : core.status;
  },
  pushseg: (core, pc, bits) => {
    // A 32-bit push of a segment register writes only 16 bits on some processors; the rest is zero here.
    const pointer = pushAt(core, stackPointer(core), bits / 8, BigInt(selectorOf(core, fieldA(core, pc))));
    if (pointer === FAULTED) return core.status;
    core.set64(32, pointer);
    return Status.NEXT;
  },
  popseg: (core, pc, bits) => {
    const pointer = stackPointer(core);
    const value = peekAt(core, pointer, bits / 8);
    if (value === FAULTED) return core.status;
    const moved = movePointer(core, pointer, bits / 8);
    const status = loadVisible(core, pc, fieldA(core, pc), Number(value & 0xffffn));
    if (status !== Status.FAULT) core.set64(32, moved);
    return status;
  },
  les: loadFar(0),
  lds: loadFar(3),
  lss: loadFar(2),
  lfs: loadFar(4),
  lgs: loadFar(5),
  lar: inspect(false),
  lsl: inspect(true),
  verr: verify(false),
  verw: verify(true),
  lldt: loadSystem("lldt", SegmentRegister.LDTR),
  ltr: loadSystem("ltr", SegmentRegister.TR),
};
