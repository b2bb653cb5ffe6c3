/** Delivery of interrupts and exceptions through the IVT or IDT. SDM vol. 3A ch. 6; double faults: 6.15, table 6-5. */
import { AR, RFLAGS } from "../bits.js";
import type { X86Core } from "../core.js";
import { Access, ENGINE, Mode, Status, Vector } from "../layout.js";
import { REG, RegisterFile, SEG, SegmentRegister } from "../register-file.js";
import { FAULTED, hostOf, readSystem, writeLinear } from "./memory.js";
import { loadRealSegment, markAccessed, readDescriptor, setSegment, selectorOf } from "./segments.js";

/** Types of events, as VMX numbers them. */
export const EventType = {
  EXTERNAL: 0,
  NMI: 2,
  HARDWARE_EXCEPTION: 3,
  SOFTWARE_INTERRUPT: 4,
  PRIVILEGED_SOFTWARE_EXCEPTION: 5,
  SOFTWARE_EXCEPTION: 6,
} as const;

const CONTRIBUTORY = new Set<number>([Vector.DE, Vector.TS, Vector.NP, Vector.SS, Vector.GP, Vector.CP]);
/** Faults push RIP with RFLAGS.RF set. */
const FAULTS = new Set<number>([0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19, 20, 21]);

/** What `deliver` yields if execution goes on. */
const CONTINUE = -1;
const STOP_ENVIRONMENT = 1;
const STOP_SHUTDOWN = 2;

/** Delivers the exception in ENGINE.VECTOR. */
export function deliverPending(core: X86Core): number {
  return deliver(
    core,
    core.get32(ENGINE.VECTOR),
    core.get32(ENGINE.ERROR_CODE),
    EventType.HARDWARE_EXCEPTION,
    0,
  );
}

/**
 * Delivers an event; faults on the way become further events, double fault or shutdown.
 * @param errorCode -1 if it has none @param length of the instruction of a software event, added to the saved RIP
 * @returns -1 to go on, or a Stop
 */
export function deliver(
  core: X86Core,
  vector: number,
  errorCode: number,
  type: number,
  length: number,
): number {
  const event = core.event;
  event.vector = vector;
  event.errorCode = errorCode;
  event.type = type;
  event.length = length;
  for (;;) {
    const exception = event.type === 3 || event.type === 5 || event.type === 6;
    if (exception && core.environment.intercept(core)) return STOP_ENVIRONMENT;
    core.vectoring = event.vector;
    core.vectoringErrorCode = event.errorCode;
    core.vectoringType = event.type;
    const status = deliverOnce(core, event.vector, event.errorCode, event.type, event.length);
    if (status === Status.STOP) return STOP_ENVIRONMENT;
    const first = event.vector;
    const firstException = exception;
    if (status !== Status.FAULT) {
      core.vectoring = -1;
      return CONTINUE;
    }
    const second = core.get32(ENGINE.VECTOR);
    event.type = EventType.HARDWARE_EXCEPTION;
    event.length = 0;
    const bad = CONTRIBUTORY.has(second) || second === Vector.PF || second === Vector.VE;
    if (firstException && first === Vector.DF && bad) {
      core.environment.shutdown(core);
      return STOP_SHUTDOWN;
    }
    const double =
      firstException &&
      ((CONTRIBUTORY.has(first) && CONTRIBUTORY.has(second)) ||
        ((first === Vector.PF || first === Vector.VE) && bad));
    event.vector = double ? Vector.DF : second;
    event.errorCode = double ? 0 : core.get32(ENGINE.ERROR_CODE);
  }
}

function deliverOnce(core: X86Core, vector: number, errorCode: number, type: number, length: number): number {
  const software = type === EventType.SOFTWARE_INTERRUPT || type === EventType.SOFTWARE_EXCEPTION;
  const savedRip = (core.get64(REG.RIP) + BigInt(length)) & core.get64(ENGINE.RIP_MASK);
  let flags = core.getFlags();
  // IDT entries are reached by EXT in the error code if the event is not the program's own.
  const ext = software || type === EventType.PRIVILEGED_SOFTWARE_EXCEPTION ? 0 : 1;
  if (!(core.mode & Mode.PROTECTED)) return deliverReal(core, vector, savedRip, flags);
  if (type === EventType.HARDWARE_EXCEPTION && FAULTS.has(vector)) flags |= RFLAGS.RF;

  const long = (core.mode & Mode.LONG) !== 0;
  const size = long ? 16 : 8;
  const selectorError = vector * 8 + 2 + ext;
  if (vector * size + size - 1 > core.get32(REG.IDTR_LIMIT) >>> 0)
    return core.raise(Vector.GP, selectorError);
  const entry = core.get64(REG.IDTR_BASE) + BigInt(vector * size);
  const words = readSystem(core, entry, 8);
  if (words === FAULTED) return core.status;
  const upper = long ? readSystem(core, entry + 8n, 8) : 0n;
  if (upper === FAULTED) return core.status;
  const low = Number(words & 0xffffffffn) >>> 0;
  const high = Number(words >> 32n) >>> 0;
  const gateType = (high >>> 8) & 31;
  const is32 = gateType === 14 || gateType === 15;
  if (!(is32 || (!long && (gateType === 6 || gateType === 7)))) return core.raise(Vector.GP, selectorError);
  if (software && ((high >>> 13) & 3) < core.cpl) return core.raise(Vector.GP, selectorError);
  if (!(high & 0x8000)) return core.raise(Vector.NP, selectorError);
  let offset = BigInt((low & 0xffff) | (is32 ? high & 0xffff0000 : 0)) & 0xffffffffn;
  if (long) offset |= (upper & 0xffffffffn) << 32n;

  const selector = low >>> 16;
  if ((selector & 0xfffc) === 0) return core.raise(Vector.GP, ext);
  const cs = readDescriptor(core, selector, Vector.GP);
  if (!cs) {
    if (core.get32(ENGINE.VECTOR) === Vector.GP) core.raise(Vector.GP, (selector & 0xfffc) | ext);
    return core.status;
  }
  const dpl = (cs.ar >> AR.DPL_SHIFT) & 3;
  const error = (selector & 0xfffc) | ext;
  if ((cs.ar & 24) !== 24 || dpl > core.cpl) return core.raise(Vector.GP, error);
  if (long && (cs.ar & (AR.L | AR.DB)) !== AR.L) return core.raise(Vector.GP, error);
  if (!(cs.ar & AR.P)) return core.raise(Vector.NP, error);

  const v86 = (core.mode & Mode.V86) !== 0;
  const conforming = (cs.ar & 4) !== 0;
  const newCpl = conforming ? core.cpl : dpl;
  const inner = newCpl < core.cpl;
  if (v86 && (conforming || dpl !== 0)) return core.raise(Vector.GP, error);
  const ss = { selector: selectorOf(core, SegmentRegister.SS), base: 0n, limit: 0, ar: 0, change: false };
  let rsp = core.get64(32);
  let stackMask = core.get64(ENGINE.STACK_MASK);
  let stackBase = core.code64 ? 0n : core.get64(RegisterFile.segment(2) + SEG.BASE);
  const tss = RegisterFile.segment(SegmentRegister.TR);
  const tssBase = core.get64(tss + SEG.BASE);
  if (long) {
    const ist = high & 7;
    if (ist || inner) {
      const at = ist ? 36 + (ist - 1) * 8 : 4 + newCpl * 8;
      if (at + 7 > core.get32(tss + SEG.LIMIT) >>> 0)
        return core.raise(Vector.TS, (selectorOf(core, 7) & 0xfffc) | ext);
      const pointer = readSystem(core, tssBase + BigInt(at), 8);
      if (pointer === FAULTED) return core.status;
      rsp = pointer;
    }
    rsp &= ~15n;
    stackMask = 0xffffffffffffffffn;
    stackBase = 0n;
    if (inner) {
      ss.change = true;
      ss.ar = AR.UNUSABLE | (newCpl << AR.DPL_SHIFT);
    }
  } else if (inner) {
    const tss32 = (core.get32(tss + SEG.AR) & 8) !== 0;
    const at = tss32 ? 4 + newCpl * 8 : 2 + newCpl * 4;
    if (at + (tss32 ? 5 : 3) > core.get32(tss + SEG.LIMIT) >>> 0)
      return core.raise(Vector.TS, (selectorOf(core, 7) & 0xfffc) | ext);
    const pointer = readSystem(core, tssBase + BigInt(at), tss32 ? 4 : 2);
    if (pointer === FAULTED) return core.status;
    const stackSelector = readSystem(core, tssBase + BigInt(at + (tss32 ? 4 : 2)), 2);
    if (stackSelector === FAULTED) return core.status;
    const sel = Number(stackSelector);
    const stackError = (sel & 0xfffc) | ext;
    if ((sel & 0xfffc) === 0) return core.raise(Vector.TS, ext);
    const d = readDescriptor(core, sel, Vector.TS);
    if (!d) return core.status;
    if ((sel & 3) !== newCpl || (d.ar & 0x1a) !== 0x12 || ((d.ar >> AR.DPL_SHIFT) & 3) !== newCpl)
      return core.raise(Vector.TS, stackError);
    if (!(d.ar & AR.P)) return core.raise(Vector.SS, stackError);
    if (!markAccessed(core, d)) return core.status;
    ss.change = true;
    ss.selector = sel;
    ss.base = d.base;
    ss.limit = d.limit;
    ss.ar = d.ar;
    rsp = pointer;
    stackBase = d.base;
    stackMask = d.ar & AR.DB ? 0xffffffffn : 0xffffn;
  }

  // The frame, top first.
  const values: bigint[] = [];
  if (v86) for (const n of [5, 4, 3, 0]) values.push(BigInt(selectorOf(core, n)));
  if (long || inner) values.push(BigInt(selectorOf(core, 2)), core.get64(32));
  values.push(BigInt(flags >>> 0), BigInt(selectorOf(core, 1)), savedRip);
  if (errorCode !== -1) values.push(BigInt(errorCode >>> 0));
  const bytes = long ? 8 : is32 ? 4 : 2;
  const system = newCpl < 3;
  const linear = (pointer: bigint) => stackBase + (pointer & stackMask);
  const bottom = rsp - BigInt(values.length * bytes);
  // Every slot must be writable before any is written.
  for (let i = 1; i <= values.length; i++) {
    const at = linear(rsp - BigInt(i * bytes));
    if (!hostOf(core, long ? at : at & 0xffffffffn, bytes, Access.WRITE | Access.STACK, system))
      return core.status;
  }
  for (let i = 0; i < values.length; i++) {
    if (
      !writeLinear(
        core,
        linear(rsp - BigInt((i + 1) * bytes)),
        bytes,
        BigInt.asUintN(bytes * 8, values[i]),
        system,
      )
    )
      return core.status;
  }
  if (!markAccessed(core, cs)) return core.status;

  core.set64(
    32,
    long
      ? bottom & 0xffffffffffffffffn
      : stackMask === 0xffffn
        ? (rsp & ~0xffffn) | (bottom & 0xffffn)
        : bottom & stackMask,
  );
  if (v86) for (const n of [5, 4, 3, 0]) setSegment(core, n, 0, 0n, 0, AR.UNUSABLE);
  if (ss.change) setSegment(core, 2, long ? newCpl : ss.selector, ss.base, ss.limit, ss.ar);
  setSegment(core, 1, (selector & 0xfffc) | newCpl, cs.base, cs.limit, cs.ar);
  const interruptGate = (gateType & 1) === 0;
  core.setFlags(flags & ~(RFLAGS.TF | RFLAGS.NT | RFLAGS.VM | RFLAGS.RF | (interruptGate ? RFLAGS.IF : 0)));
  core.updateMode();
  core.set64(REG.RIP, offset);
  return Status.JUMP;
}

function deliverReal(core: X86Core, vector: number, rip: bigint, flags: number): number {
  if (vector * 4 + 3 > core.get32(REG.IDTR_LIMIT) >>> 0) return core.raise(Vector.GP);
  const entry = readSystem(core, core.get64(REG.IDTR_BASE) + BigInt(vector * 4), 4);
  if (entry === FAULTED) return core.status;
  let sp = core.get64(32);
  const base = core.get64(RegisterFile.segment(2) + SEG.BASE);
  for (const value of [BigInt(flags & 0xffff), BigInt(selectorOf(core, 1)), rip & 0xffffn]) {
    sp = (sp & ~0xffffn) | ((sp - 2n) & 0xffffn);
    if (!writeLinear(core, base + (sp & 0xffffn), 2, value, true)) return core.status;
  }
  core.set64(32, sp);
  core.setFlags(flags & ~(RFLAGS.IF | RFLAGS.TF | RFLAGS.AC));
  loadRealSegment(core, 1, Number(entry >> 16n));
  core.updateMode();
  core.set64(REG.RIP, entry & 0xffffn);
  return Status.JUMP;
}

/** A software event raised by an instruction: its status for the interpreter. */
export function softwareEvent(core: X86Core, vector: number, type: number, length: number): number {
  core.trapSuppressed = true;
  const stop = deliver(core, vector, -1, type, length);
  if (stop === CONTINUE) return Status.ATTENTION;
  core.stopRequested = true;
  return Status.STOP;
}
