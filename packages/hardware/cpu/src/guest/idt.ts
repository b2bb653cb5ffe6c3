/**
 * Delivery of an event through the guest's interrupt-descriptor table in memory, for machine code.
 * Intel SDM vol. 3A sections 6.11 to 6.14 (gates, stack switches, error codes), 20.1.4 (real mode).
 */
import { Gpr, REG, RegisterFile, SEG, SegmentRegister, Vector } from "@swtdx/x86";
import { Step } from "../interface/engine.js";
import type { Guest } from "./guest.js";
import { EventType } from "./events.js";

const LOW32 = 0xffffffffn;
const read = (g: Guest, address: bigint, size: number): Step =>
  g.load(Number(address & LOW32), Number((address >> 32n) & LOW32), size, 0);
const value = (g: Guest): bigint => (BigInt(g.high) << 32n) | BigInt(g.low);

/** Loads a segment register's cache from an 8-byte descriptor. */
function loadCache(g: Guest, segment: number, selector: number, low: number, high: number): void {
  const at = RegisterFile.segment(segment);
  const { regs } = g;
  const granular = (high & 0x800000) !== 0;
  const limit = (low & 0xffff) | (high & 0xf0000);
  regs.set(at + SEG.BASE, BigInt(((low >>> 16) | ((high & 0xff) << 16) | (high & 0xff000000)) >>> 0));
  regs.set32(at + SEG.LIMIT, granular ? ((limit << 12) | 0xfff) >>> 0 : limit);
  regs.set32(at + SEG.AR, ((high >>> 8) & 0xf0ff) | 1);
  regs.set32(at + SEG.SELECTOR, selector);
}

/**
 * Delivers `guest.event`. DONE: RIP is at the handler. EXIT: a VM exit came up. Faults on the way become another
 * event (or #DF, or shutdown), which is delivered in turn.
 */
export function deliverThroughIdt(g: Guest): Step {
  for (let attempt = 0; attempt < 4; attempt++) {
    g.setDelivering(true);
    const step = (g.regs.get32(REG.CR0) & 1) === 0 ? deliverReal(g) : deliverProtected(g);
    if (step === Step.DONE) {
      g.setDelivering(false);
      g.updateMode();
      return Step.DONE;
    }
    if (step === Step.EXIT) return Step.EXIT;
  }
  return g.tripleFault();
}

function deliverReal(g: Guest): Step {
  const { regs, event } = g;
  const entry = regs.get(REG.IDTR_BASE) + BigInt(event.vector * 4);
  let step = read(g, entry, 4);
  if (step !== Step.DONE) return step;
  const target = g.low;
  const cs = RegisterFile.segment(SegmentRegister.CS);
  const ss = RegisterFile.segment(SegmentRegister.SS);
  const flags = regs.get32(REG.RFLAGS);
  const next = (regs.get32(REG.RIP) + (event.type >= EventType.SOFTWARE ? event.length : 0)) & 0xffff;
  let sp = Number(regs.gpr(Gpr.RSP) & 0xffffn);
  for (const word of [flags & 0xffff, regs.get32(cs + SEG.SELECTOR) & 0xffff, next]) {
    sp = (sp - 2) & 0xffff;
    const at = regs.get(ss + SEG.BASE) + BigInt(sp);
    step = g.store(Number(at & LOW32), 0, 2, word, 0);
    if (step !== Step.DONE) return step;
  }
  regs.setGpr(Gpr.RSP, (regs.gpr(Gpr.RSP) & ~0xffffn) | BigInt(sp));
  regs.set32(REG.RFLAGS, flags & ~0x40300);
  regs.set32(cs + SEG.SELECTOR, target >>> 16);
  regs.set(cs + SEG.BASE, BigInt((target >>> 16) * 16));
  regs.set(REG.RIP, BigInt(target & 0xffff));
  return Step.DONE;
}

/** Error code that names the IDT entry. */
const idtError = (vector: number, external: boolean): number => vector * 8 + 2 + (external ? 1 : 0);

function deliverProtected(g: Guest): Step {
  const { regs, event } = g;
  const { vector } = event;
  const long = g.longMode;
  const software = event.type === EventType.SOFTWARE || event.type === EventType.SOFTWARE_EXCEPTION;
  const gateSize = long ? 16 : 8;
  const error = (kind: number): Step => g.raise(kind, idtError(vector, !software));
  if (vector * gateSize + gateSize - 1 > regs.get32(REG.IDTR_LIMIT)) return error(Vector.GP);
  const gate = regs.get(REG.IDTR_BASE) + BigInt(vector * gateSize);
  const cplBefore = g.cpl;
  // Descriptor tables and stacks are read with supervisor rights.
  g.cpl = 0;
  const done = deliverGate(g, gate, long, software, error, cplBefore);
  if (done !== Step.DONE) g.cpl = cplBefore;
  return done;
}

function deliverGate(
  g: Guest,
  gate: bigint,
  long: boolean,
  software: boolean,
  error: (kind: number) => Step,
  cpl: number,
): Step {
  const { regs, event } = g;
  let step = read(g, gate, 8);
  if (step !== Step.DONE) return step;
  const low = g.low;
  const high = g.high;
  let offset = BigInt(((high & 0xffff0000) | (low & 0xffff)) >>> 0);
  if (long) {
    step = read(g, gate + 8n, 4);
    if (step !== Step.DONE) return step;
    offset |= BigInt(g.low) << 32n;
  }
  const type = (high >>> 8) & 0x1f;
  const interruptGate = type === 0xe || type === 6;
  const wide = type >= 0xe;
  if (!(type === 0xe || type === 0xf || (!long && (type === 6 || type === 7)))) return error(Vector.GP);
  if (software && ((high >>> 13) & 3) < cpl) return error(Vector.GP);
  if ((high & 0x8000) === 0) return error(Vector.NP);
  if (!wide) offset &= 0xffffn;
  const selector = low >>> 16;
  if ((selector & 0xfffc) === 0) return g.raise(Vector.GP, software ? 0 : 1);
  const ldt = (selector & 4) !== 0;
  const table = ldt
    ? regs.get(RegisterFile.segment(SegmentRegister.LDTR) + SEG.BASE)
    : regs.get(REG.GDTR_BASE);
  const limit = ldt
    ? regs.get32(RegisterFile.segment(SegmentRegister.LDTR) + SEG.LIMIT)
    : regs.get32(REG.GDTR_LIMIT);
  const selectorError = (kind: number): Step => g.raise(kind, (selector & 0xfffc) | (software ? 0 : 1));
  if ((selector & 0xfff8) + 7 > limit) return selectorError(Vector.GP);
  step = read(g, table + BigInt(selector & 0xfff8), 8);
  if (step !== Step.DONE) return step;
  const codeLow = g.low;
  const codeHigh = g.high;
  const dpl = (codeHigh >>> 13) & 3;
  const conforming = (codeHigh & 0x400) !== 0;
  if ((codeHigh & 0x1800) !== 0x1800 || dpl > cpl) return selectorError(Vector.GP);
  if ((codeHigh & 0x8000) === 0) return selectorError(Vector.NP);
  if (long && (codeHigh & 0x600000) !== 0x200000) return selectorError(Vector.GP);
  const newCpl = conforming ? cpl : dpl;
  const inner = newCpl < cpl;

  const ss = RegisterFile.segment(SegmentRegister.SS);
  const tss = regs.get(RegisterFile.segment(SegmentRegister.TR) + SEG.BASE);
  const oldSs = regs.get32(ss + SEG.SELECTOR) & 0xffff;
  const oldRsp = regs.gpr(Gpr.RSP);
  let rsp = oldRsp;
  let newSs = -1;
  let ssLow = 0;
  let ssHigh = 0;
  if (long) {
    const ist = high & 7;
    if (ist !== 0 || inner) {
      step = read(g, tss + BigInt(ist !== 0 ? 0x24 + (ist - 1) * 8 : 4 + newCpl * 8), 8);
      if (step !== Step.DONE) return step;
      rsp = value(g);
    }
    if (inner) newSs = newCpl;
    rsp &= ~0xfn;
  } else if (inner) {
    const tss32 = (regs.get32(RegisterFile.segment(SegmentRegister.TR) + SEG.AR) & 8) !== 0;
    step = read(g, tss + BigInt(tss32 ? 4 + newCpl * 8 : 2 + newCpl * 4), tss32 ? 8 : 4);
    if (step !== Step.DONE) return step;
    rsp = BigInt(tss32 ? g.low : g.low & 0xffff);
    newSs = tss32 ? g.high & 0xffff : g.low >>> 16;
    step = read(g, regs.get(REG.GDTR_BASE) + BigInt(newSs & 0xfff8), 8);
    if (step !== Step.DONE) return step;
    ssLow = g.low;
    ssHigh = g.high;
    if ((ssHigh & 0x8000) === 0) return g.raise(Vector.SS, (newSs & 0xfffc) | (software ? 0 : 1));
  }

  const cs = RegisterFile.segment(SegmentRegister.CS);
  const flags = BigInt(regs.get32(REG.RFLAGS));
  const rip = regs.get(REG.RIP) + (event.type >= EventType.SOFTWARE ? BigInt(event.length) : 0n);
  const size = long ? 8 : wide ? 4 : 2;
  const words: bigint[] = [];
  if (long || inner) words.push(BigInt(oldSs), oldRsp);
  words.push(flags, BigInt(regs.get32(cs + SEG.SELECTOR) & 0xffff), rip);
  if (event.hasErrorCode) words.push(BigInt(event.errorCode));
  const stackBase = long
    ? 0n
    : inner
      ? BigInt(((ssLow >>> 16) | ((ssHigh & 0xff) << 16) | (ssHigh & 0xff000000)) >>> 0)
      : regs.get(ss + SEG.BASE);
  for (const word of words) {
    rsp = BigInt.asUintN(long ? 64 : 32, rsp - BigInt(size));
    const at = stackBase + rsp;
    step = g.store(
      Number(at & LOW32),
      Number((at >> 32n) & LOW32),
      size,
      Number(word & LOW32),
      Number((word >> 32n) & LOW32),
    );
    if (step !== Step.DONE) return step;
  }

  regs.setGpr(Gpr.RSP, rsp);
  if (newSs >= 0) {
    if (long) {
      // In 64-bit mode an inner stack has a null selector.
      regs.set32(ss + SEG.SELECTOR, newCpl);
      regs.set32(ss + SEG.AR, 0x10000 | (newCpl << 5));
    } else loadCache(g, SegmentRegister.SS, newSs, ssLow, ssHigh);
  }
  loadCache(g, SegmentRegister.CS, (selector & 0xfffc) | newCpl, codeLow, codeHigh);
  regs.set(REG.RIP, offset);
  // TF, NT, RF, VM are cleared; an interrupt gate clears IF.
  regs.set32(REG.RFLAGS, regs.get32(REG.RFLAGS) & ~(0x34100 | (interruptGate ? 0x200 : 0)));
  if (event.type === EventType.NMI) regs.set32(REG.INTERRUPTIBILITY, regs.get32(REG.INTERRUPTIBILITY) | 8);
  return Step.DONE;
}
