/**
 * XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS and XGETBV 1: the header, the two formats, and the state components
 * with their sizes as CPUID.0DH enumerates them. SDM vol. 1 ch. 13.
 */
import { CR4 } from "../bits.js";
import type { X86Core } from "../core.js";
import { Hook } from "../environment.js";
import { Access, ENGINE, FpuBlock, Status, Vector } from "../layout.js";
import { REG } from "../register-file.js";
import type { Operation } from "./operations.js";
import {
  Area,
  MXCSR_MASK,
  XMM_OFFSET,
  aligned,
  clearLanes,
  clearX87,
  loadLanes,
  loadX87,
  saveLanes,
  saveMxcsr,
  saveX87,
  usesLanes,
  usesX87,
} from "./state.js";

const HEADER = 512;
/** Where components behind the header begin in the compacted format. */
const EXTENDED = HEADER + 64;
const X87 = 1;
const SSE = 2;
const AVX = 4;
const COMPACTED = 1n << 63n;
const MXCSR_INITIAL = 0x1f80;
/** Components of XCR0 and IA32_XSS have numbers below this. */
const COMPONENTS = 16;

/** State behind the header. */
interface Component {
  readonly size: number;
  /** Offset in the standard format; supervisor state is not in it. */
  readonly standard?: number;
  readonly uses: (core: X86Core) => boolean;
  readonly save: (core: X86Core, area: Area, at: number) => void;
  /** @returns false if a value is reserved: #GP */
  readonly load: (core: X86Core, area: Area, at: number) => boolean;
  readonly clear: (core: X86Core) => void;
}
const ZMM_UPPER = 16;
const avx: Component = {
  size: 256,
  standard: 576,
  uses: (core) => usesLanes(core, ZMM_UPPER),
  save: (core, area, at) => saveLanes(core, area, at, ZMM_UPPER),
  load: (core, area, at) => {
    loadLanes(core, area, at, ZMM_UPPER);
    return true;
  },
  clear: (core) => clearLanes(core, ZMM_UPPER),
};
function setPkru(core: X86Core, value: number): void {
  if (core.get32(REG.PKRU) === value) return;
  core.set32(REG.PKRU, value);
  core.flushTlb();
}
const pkru: Component = {
  size: 8,
  standard: 0xa80,
  uses: (core) => core.get32(REG.PKRU) !== 0,
  save: (core, area, at) => area.set(at, BigInt(core.get32(REG.PKRU) >>> 0)),
  load: (core, area, at) => {
    setPkru(core, Number(area.get(at) & 0xffffffffn) | 0);
    return true;
  },
  clear: (core) => setPkru(core, 0),
};
/** State in MSRs, which are the environment's. */
const msrs = (...indexes: number[]): Component => ({
  size: indexes.length * 8,
  uses: (core) => indexes.some((index) => (core.environment.stateMsr?.(core, index) ?? 0n) !== 0n),
  save: (core, area, at) =>
    indexes.forEach((index, n) => area.set(at + n * 8, core.environment.stateMsr?.(core, index) ?? 0n)),
  load: (core, area, at) =>
    indexes.every((index, n) => core.environment.setStateMsr?.(core, index, area.get(at + n * 8)) ?? true),
  clear: (core) => indexes.forEach((index) => core.environment.setStateMsr?.(core, index, 0n)),
});
/** State that nothing here changes: it is always initial. */
const unused = (size: number): Component => ({
  size,
  uses: () => false,
  save: () => undefined,
  load: () => true,
  clear: () => undefined,
});
/** By number: AVX, processor trace, PKRU, CET of user and supervisor (IA32_U_CET, SSPs), last branch records. */
const components: (Component | undefined)[] = Array<undefined>(COMPONENTS).fill(undefined);
components[2] = avx;
components[8] = unused(0x80);
components[9] = pkru;
components[11] = msrs(0x6a0, 0x6a7);
components[12] = msrs(0x6a4, 0x6a5, 0x6a6);
components[15] = unused(0x328);

/** Calls back for the components of a mask that are behind the header, until it says false. @returns whether all said true */
function each(mask: number, visit: (component: Component, bit: number, number: number) => boolean): boolean {
  for (let n = 2; n < COMPONENTS; n++) {
    const component = components[n];
    if (component && (mask >> n) & 1 && !visit(component, 1 << n, n)) return false;
  }
  return true;
}
const STANDARD = -1;
/** Offset of a component in an area with these components in the compacted format, or in the STANDARD one. */
function offsetOf(number: number, format: number): number {
  if (format === STANDARD) return components[number]?.standard ?? 0;
  let at = EXTENDED;
  for (let n = 2; n < number; n++) if ((format >> n) & 1) at += components[n]?.size ?? 0;
  return at;
}
/** Components of XCR0, or XCR0 and IA32_XSS, that EDX:EAX asks for. None of them is above bit 31. */
function requested(core: X86Core, supervisor: boolean): number {
  return core.get32(0) & (core.get32(REG.XCR0) | (supervisor ? core.get32(REG.XSS) : 0));
}
/** XINUSE: components of a mask that are not in their initial state. MXCSR does not count. */
function inUse(core: X86Core, mask: number): number {
  let used = 0;
  if (mask & X87 && usesX87(core)) used |= X87;
  if (mask & SSE && usesLanes(core, 0)) used |= SSE;
  each(mask, (component, bit) => {
    if (component.uses(core)) used |= bit;
    return true;
  });
  return used;
}
/** What precedes all of them. NEXT if nothing is in the way. @param supervisor XSAVES or XRSTORS, which may exit */
function checks(core: X86Core, pc: number, supervisor: "xsaves" | "xrstors" | undefined): number {
  if (!(core.get32(REG.CR4) & CR4.OSXSAVE)) return core.raise(Vector.UD);
  if (core.get32(ENGINE.FPU_BLOCK) & FpuBlock.SSE_NM) return core.raise(Vector.NM);
  if (supervisor) {
    if (core.cpl !== 0) return core.raise(Vector.GP, 0);
    const asked = core.environment.extendedState?.(core, supervisor) ?? Hook.DONE;
    if (asked === Hook.FAULT) return Status.FAULT;
    if (asked !== Hook.DONE) return Status.STOP;
  }
  return aligned(core, pc, 64n) ? Status.NEXT : core.raise(Vector.GP, 0);
}

/** @param compacted XSAVEC, XSAVES @param initial components in their initial state are not written */
const save =
  (compacted: boolean, initial: boolean, supervisor = false): Operation =>
  (core, pc, bits) => {
    const status = checks(core, pc, supervisor ? "xsaves" : undefined);
    if (status !== Status.NEXT) return status;
    const wanted = requested(core, supervisor);
    const used = inUse(core, wanted);
    const mxcsr = wanted & SSE && core.get32(REG.MXCSR) !== MXCSR_INITIAL ? SSE : 0;
    // In the compacted format MXCSR is part of SSE state; else it is saved with SSE or AVX, whatever they are.
    const present = compacted ? used | mxcsr : used;
    const written = initial ? present : wanted;
    const area = new Area(core, pc);
    const format = compacted ? wanted : STANDARD;
    const accessible =
      area.probe(0, EXTENDED, Access.WRITE) &&
      each(written, (component, _bit, n) => area.probe(offsetOf(n, format), component.size, Access.WRITE));
    if (!accessible) return core.status;
    if (written & X87) saveX87(core, area, bits === 64);
    if (compacted ? written & SSE : wanted & (SSE | AVX)) saveMxcsr(core, area);
    if (written & SSE) saveLanes(core, area, XMM_OFFSET, 0);
    each(written, (component, _bit, n) => {
      component.save(core, area, offsetOf(n, format));
      return true;
    });
    const others = compacted ? 0n : area.get(HEADER) & ~BigInt(wanted);
    area.set(HEADER, others | BigInt(present));
    if (compacted) area.set(HEADER + 8, COMPACTED | BigInt(wanted));
    return Status.NEXT;
  };

/** Whether a header may be restored. @param allowed XCR0, or XCR0 and IA32_XSS */
function headerIsGood(area: Area, supervisor: boolean, allowed: bigint): boolean {
  const xstate = area.get(HEADER);
  const xcomp = area.get(HEADER + 8);
  if (!(xcomp & COMPACTED)) {
    // The standard format, with bytes 23:8 zero.
    return !supervisor && (xstate & ~allowed) === 0n && xcomp === 0n && area.get(HEADER + 16) === 0n;
  }
  const format = xcomp & ~COMPACTED;
  if (format & ~allowed || xstate & ~format) return false;
  for (let at = 16; at < 64; at += 8) if (area.get(HEADER + at) !== 0n) return false;
  return true;
}
const restore =
  (supervisor: boolean): Operation =>
  (core, pc, bits) => {
    const status = checks(core, pc, supervisor ? "xrstors" : undefined);
    if (status !== Status.NEXT) return status;
    const area = new Area(core, pc);
    if (!area.probe(0, EXTENDED, Access.READ)) return core.status;
    const allowed = core.get64(REG.XCR0) | (supervisor ? core.get64(REG.XSS) : 0n);
    if (!headerIsGood(area, supervisor, allowed)) return core.raise(Vector.GP, 0);
    const xcomp = area.get(HEADER + 8);
    const compacted = (xcomp & COMPACTED) !== 0n;
    const format = compacted ? Number(xcomp & 0xffffn) : STANDARD;
    const wanted = requested(core, supervisor);
    const loaded = wanted & Number(area.get(HEADER) & 0xffffn);
    const accessible = each(loaded, (component, _bit, n) =>
      area.probe(offsetOf(n, format), component.size, Access.READ),
    );
    if (!accessible) return core.status;
    const loadsMxcsr = compacted ? loaded & SSE : wanted & (SSE | AVX);
    const mxcsr = Number(area.get(24) & 0xffffffffn);
    if (loadsMxcsr && mxcsr & ~MXCSR_MASK) return core.raise(Vector.GP, 0);
    if (!each(loaded, (component, _bit, n) => component.load(core, area, offsetOf(n, format))))
      return core.raise(Vector.GP, 0);
    if (loaded & X87) loadX87(core, area, bits === 64);
    else if (wanted & X87) clearX87(core);
    if (loadsMxcsr) core.set32(REG.MXCSR, mxcsr);
    else if (wanted & SSE) core.set32(REG.MXCSR, MXCSR_INITIAL);
    if (loaded & SSE) loadLanes(core, area, XMM_OFFSET, 0);
    else if (wanted & SSE) clearLanes(core, 0);
    each(wanted & ~loaded, (component) => {
      component.clear(core);
      return true;
    });
    return Status.NEXT;
  };

const xgetbv: Operation = (core) => {
  if (!(core.get32(REG.CR4) & CR4.OSXSAVE)) return core.raise(Vector.UD);
  const index = core.get32(8);
  if (index !== 0 && index !== 1) return core.raise(Vector.GP, 0);
  const xcr0 = core.get64(REG.XCR0);
  // XGETBV 1 reports what is in use.
  const value = index === 0 ? xcr0 : BigInt(inUse(core, Number(xcr0 & 0xffffn)));
  core.set64(0, value & 0xffffffffn);
  core.set64(16, value >> 32n);
  return Status.NEXT;
};

export const xsaveOperations: Record<string, Operation> = {
  xsave: save(false, false),
  xsaveopt: save(false, true),
  xsavec: save(true, true),
  xsaves: save(true, true, true),
  xrstor: restore(false),
  xrstors: restore(true),
  xgetbv,
};
