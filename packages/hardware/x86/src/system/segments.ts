/** Segment registers and descriptors. SDM vol. 3A ch. 3.4, 3.5, 5; vol. 2, MOV to segment register. */
import { AR } from "../bits.js";
import type { X86Core } from "../core.js";
import { Status, Vector } from "../layout.js";
import { REG, RegisterFile, SEG, SegmentRegister } from "../register-file.js";
import { FAULTED, readSystem, writeSystem } from "./memory.js";

/** A descriptor's two words, and the upper base of a 16-byte one. */
export interface Descriptor {
  low: number;
  high: number;
  base: bigint;
  limit: number;
  /** In VMX format. */
  ar: number;
  /** Where it was read, for the accessed and busy bits. */
  address: bigint;
}

export function selectorOf(core: X86Core, segment: number): number {
  return core.get32(RegisterFile.segment(segment) + SEG.SELECTOR) & 0xffff;
}
export function baseOf(core: X86Core, segment: number): bigint {
  return core.get64(RegisterFile.segment(segment) + SEG.BASE);
}
export function setSegment(
  core: X86Core,
  segment: number,
  selector: number,
  base: bigint,
  limit: number,
  ar: number,
): void {
  const at = RegisterFile.segment(segment);
  core.set32(at + SEG.SELECTOR, selector);
  core.set64(at + SEG.BASE, base);
  core.set32(at + SEG.LIMIT, limit);
  core.set32(at + SEG.AR, ar);
}
/** Loads a segment register as real and virtual-8086 mode do. */
export function loadRealSegment(core: X86Core, segment: number, selector: number): void {
  const at = RegisterFile.segment(segment);
  core.set32(at + SEG.SELECTOR, selector);
  core.set64(at + SEG.BASE, BigInt(selector) << 4n);
  if (!core.protectedMode && core.get32(REG.CR0) & 1) {
    core.set32(at + SEG.LIMIT, 0xffff);
    core.set32(at + SEG.AR, 0xf3);
  }
  core.updateMode();
}

function decode(low: number, high: number, address: bigint): Descriptor {
  let limit = (low & 0xffff) | (high & 0xf0000);
  if (high & 0x800000) limit = (limit << 12) | 0xfff;
  const base = BigInt(((high & 0xff000000) | ((high & 0xff) << 16) | (low >>> 16)) >>> 0);
  return { low, high, base, limit, ar: (high >>> 8) & 0xf0ff, address };
}
/**
 * Reads a descriptor from the GDT or LDT. Undefined with a fault prepared if the selector is outside its table.
 * @param vector fault for a bad selector @param wide it is a 16-byte system descriptor in long mode
 */
export function readDescriptor(
  core: X86Core,
  selector: number,
  vector: number = Vector.GP,
  wide = false,
): Descriptor | undefined {
  const error = selector & 0xfffc;
  let base: bigint;
  let limit: number;
  if (selector & 4) {
    const ldt = RegisterFile.segment(SegmentRegister.LDTR);
    if (core.get32(ldt + SEG.AR) & AR.UNUSABLE) {
      core.raise(vector, error);
      return undefined;
    }
    base = core.get64(ldt + SEG.BASE);
    limit = core.get32(ldt + SEG.LIMIT) >>> 0;
  } else {
    base = core.get64(REG.GDTR_BASE);
    limit = core.get32(REG.GDTR_LIMIT) >>> 0;
  }
  const index = selector & 0xfff8;
  if (index + (wide ? 15 : 7) > limit) {
    core.raise(vector, error);
    return undefined;
  }
  const address = base + BigInt(index);
  const words = readSystem(core, address, 8);
  if (words === FAULTED) return undefined;
  const d = decode(Number(words & 0xffffffffn) | 0, Number(words >> 32n) | 0, address);
  if (wide) {
    const upper = readSystem(core, address + 8n, 8);
    if (upper === FAULTED) return undefined;
    d.base |= (upper & 0xffffffffn) << 32n;
  }
  return d;
}
/** Sets the accessed bit of a code or data descriptor. False on a fault. */
export function markAccessed(core: X86Core, d: Descriptor): boolean {
  if (d.ar & 1) return true;
  d.ar |= 1;
  d.high |= 0x100;
  return writeSystem(core, d.address + 5n, 1, BigInt((d.high >>> 8) & 0xff));
}

/** Loads ES, SS, DS, FS or GS as MOV does. Returns a Status: NEXT or FAULT. */
export function loadSegment(core: X86Core, segment: number, selector: number): number {
  if (!core.protectedMode) {
    loadRealSegment(core, segment, selector);
    return Status.NEXT;
  }
  const stack = segment === SegmentRegister.SS;
  const error = selector & 0xfffc;
  const { cpl } = core;
  if (error === 0) {
    if (stack && (!core.code64 || cpl === 3 || (selector & 3) !== cpl)) return core.raise(Vector.GP, 0);
    // A null selector: unusable; SS keeps the privilege in its DPL.
    const at = RegisterFile.segment(segment);
    setSegment(
      core,
      segment,
      selector,
      core.code64 && !stack ? (segment >= 4 ? 0n : core.get64(at + SEG.BASE)) : 0n,
      0,
      AR.UNUSABLE | (stack ? cpl << AR.DPL_SHIFT : 0),
    );
    if (!core.code64) core.set64(at + SEG.BASE, 0n);
    core.updateMode();
    return Status.NEXT;
  }
  const d = readDescriptor(core, selector);
  if (!d) return core.status;
  const rpl = selector & 3;
  const dpl = (d.ar >> AR.DPL_SHIFT) & 3;
  const code = (d.ar & 8) !== 0;
  if (!(d.ar & AR.S)) return core.raise(Vector.GP, error);
  if (stack) {
    if (code || !(d.ar & 2) || rpl !== cpl || dpl !== cpl) return core.raise(Vector.GP, error);
    if (!(d.ar & AR.P)) return core.raise(Vector.SS, error);
  } else {
    if (code && !(d.ar & 2)) return core.raise(Vector.GP, error);
    if (!(code && d.ar & 4) && (rpl > dpl || cpl > dpl)) return core.raise(Vector.GP, error);
    if (!(d.ar & AR.P)) return core.raise(Vector.NP, error);
  }
  if (!markAccessed(core, d)) return core.status;
  setSegment(core, segment, selector, d.base, d.limit, d.ar);
  core.updateMode();
  return Status.NEXT;
}

/** Makes a data segment register null if the new privilege may not use it (RET and IRET to an outer level). */
export function dropPrivilegedSegments(core: X86Core, cpl: number): void {
  for (const segment of [SegmentRegister.ES, SegmentRegister.DS, SegmentRegister.FS, SegmentRegister.GS]) {
    const ar = core.segmentAr(segment);
    const conforming = (ar & 12) === 12;
    if (!(ar & AR.UNUSABLE) && !conforming && ((ar >> AR.DPL_SHIFT) & 3) < cpl) {
      setSegment(core, segment, 0, 0n, 0, AR.UNUSABLE);
    }
  }
}
