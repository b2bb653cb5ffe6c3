/** FXSAVE, FXRSTOR, the XSAVE family and MXCSR. SDM vol. 1 ch. 10.5 and 13. */
import { CR4 } from "../bits.js";
import type { X86Core } from "../core.js";
import { Access, ENGINE, Status, Vector } from "../layout.js";
import { REG } from "../register-file.js";
import { FAULTED, readOperand, writeOperand } from "./memory.js";
import type { Operation } from "./operations.js";
import { requireSse } from "./vector.js";
import { setControl } from "./x87-control.js";
import { abridgedTag, getTop, initialize, setAbridgedTag, summarize } from "./x87-state.js";

const MXCSR_MASK = 0xffff;
/** Component sizes and offsets in the standard format: x87 and SSE (legacy area), AVX. */
const AVX_OFFSET = 576;
const HEADER = 512;

/** Reads or writes an area by 8-byte pieces; the pieces of an area on two pages are checked first. */
class Area {
  constructor(
    private readonly core: X86Core,
    private readonly pc: number,
  ) {}
  /** All of the area is accessible. */
  probe(length: number, access: number): boolean {
    // An area is shorter than a page: its first and last bytes reach all of its pages.
    return [0, length - 8].every((at) => this.core.fn.memory(this.pc, BigInt(at), 8 | access) !== 0);
  }
  get(at: number): bigint {
    return readOperand(this.core, this.pc, 8, BigInt(at));
  }
  set(at: number, value: bigint): boolean {
    return writeOperand(this.core, this.pc, 8, value, BigInt(at));
  }
}

function saveX87(core: X86Core, area: Area, wide: boolean): boolean {
  const fcw = BigInt(core.get32(REG.FCW) & 0xffff);
  const fsw = BigInt(core.get32(REG.FSW) & 0xffff);
  const tag = BigInt(abridgedTag(core));
  const fop = BigInt(core.get32(REG.FOP) & 0x7ff);
  const mask = wide ? 0xffffffffffffffffn : 0xffffffffn;
  if (!area.set(0, fcw | (fsw << 16n) | (tag << 32n) | (fop << 48n))) return false;
  if (!area.set(8, core.get64(REG.FIP) & mask)) return false;
  if (!area.set(16, core.get64(REG.FDP) & mask)) return false;
  const top = getTop(core);
  for (let n = 0; n < 8; n++) {
    const register = REG.ST + ((top + n) & 7) * 16;
    if (!area.set(32 + n * 16, core.get64(register))) return false;
    if (!area.set(40 + n * 16, core.get64(register + 8) & 0xffffn)) return false;
  }
  return true;
}
function loadX87(core: X86Core, area: Area): void {
  const control = area.get(0);
  setControl(core, Number(control & 0xffffn));
  core.set32(REG.FSW, Number((control >> 16n) & 0xffffn));
  core.set32(REG.FOP, Number((control >> 48n) & 0x7ffn));
  core.set64(REG.FIP, area.get(8));
  core.set64(REG.FDP, area.get(16));
  const top = getTop(core);
  for (let n = 0; n < 8; n++) {
    const register = REG.ST + ((top + n) & 7) * 16;
    core.set64(register, area.get(32 + n * 16));
    core.set64(register + 8, area.get(40 + n * 16) & 0xffffn);
  }
  setAbridgedTag(core, Number((control >> 32n) & 0xffn));
  summarize(core);
}
const vectorCount = (core: X86Core) => (core.code64 ? 16 : 8);
function saveMxcsr(core: X86Core, area: Area): boolean {
  return area.set(24, BigInt(core.get32(REG.MXCSR) >>> 0) | (BigInt(MXCSR_MASK) << 32n));
}
function saveXmm(core: X86Core, area: Area): boolean {
  for (let n = 0; n < vectorCount(core); n++) {
    const at = REG.ZMM + n * 64;
    if (!area.set(160 + n * 16, core.get64(at)) || !area.set(168 + n * 16, core.get64(at + 8))) return false;
  }
  return true;
}
function loadXmm(core: X86Core, area: Area | undefined): void {
  for (let n = 0; n < vectorCount(core); n++) {
    const at = REG.ZMM + n * 64;
    core.set64(at, area ? area.get(160 + n * 16) : 0n);
    core.set64(at + 8, area ? area.get(168 + n * 16) : 0n);
  }
}
function initX87(core: X86Core): void {
  initialize(core);
  for (let n = 0; n < 16; n++) core.set64(REG.ST + n * 8, 0n);
}
/** #NM, and #GP for an address that is not aligned. NEXT if neither. */
function checks(core: X86Core, pc: number, align: bigint, xsave: boolean): number {
  if (xsave && !(core.get32(REG.CR4) & CR4.OSXSAVE)) return core.raise(Vector.UD);
  if (core.get32(ENGINE.FPU_BLOCK) & (xsave ? 8 : 1)) return core.raise(Vector.NM);
  if (core.fn.address(pc) & (align - 1n)) return core.raise(Vector.GP, 0);
  return Status.NEXT;
}

const fxsave: Operation = (core, pc, bits) => {
  const status = checks(core, pc, 16n, false);
  if (status !== Status.NEXT) return status;
  const area = new Area(core, pc);
  if (!area.probe(512, Access.WRITE)) return core.status;
  return saveX87(core, area, bits === 64) && saveMxcsr(core, area) && saveXmm(core, area)
    ? Status.NEXT
    : core.status;
};
const fxrstor: Operation = (core, pc) => {
  const status = checks(core, pc, 16n, false);
  if (status !== Status.NEXT) return status;
  const area = new Area(core, pc);
  if (!area.probe(512, Access.READ)) return core.status;
  const mxcsr = Number(area.get(24) & 0xffffffffn);
  if (mxcsr & ~MXCSR_MASK) return core.raise(Vector.GP, 0);
  loadX87(core, area);
  core.set32(REG.MXCSR, mxcsr);
  loadXmm(core, area);
  return Status.NEXT;
};

/** Requested and enabled components. */
function requested(core: X86Core, supervisor: boolean): number {
  const mask = core.get32(0) & (core.get32(REG.XCR0) | (supervisor ? core.get32(REG.XSS) : 0));
  return mask & 7;
}
/** Components that are not in their initial state. */
function inUse(core: X86Core): number {
  let used = 0;
  if (core.get32(REG.FCW) !== 0x37f || core.get32(REG.FSW) || (core.get32(REG.FTW) & 0xffff) !== 0xffff)
    used |= 1;
  for (let n = 0; n < vectorCount(core); n++) {
    const at = REG.ZMM + n * 64;
    if (core.get64(at) | core.get64(at + 8)) used |= 2;
    if (core.get64(at + 16) | core.get64(at + 24)) used |= 4;
  }
  return used;
}
/* AVX is the only component behind the header, so the compacted format puts it at the same place. */
const save =
  (kind: "xsave" | "xsaveopt" | "xsavec" | "xsaves"): Operation =>
  (core, pc, bits) => {
    const status = checks(core, pc, 64n, true);
    if (status !== Status.NEXT) return status;
    if (kind === "xsaves" && core.cpl !== 0) return core.raise(Vector.GP, 0);
    const compacted = kind === "xsavec" || kind === "xsaves";
    const rfbm = requested(core, kind === "xsaves");
    const used = kind === "xsave" ? rfbm : inUse(core) & rfbm;
    const area = new Area(core, pc);
    if (!area.probe(rfbm & 4 ? AVX_OFFSET + 256 : AVX_OFFSET, Access.WRITE)) return core.status;
    if (used & 1 && !saveX87(core, area, bits === 64)) return core.status;
    // MXCSR belongs to SSE and AVX, except in the compacted format.
    if (compacted ? used & 2 : rfbm & 6) saveMxcsr(core, area);
    if (used & 2) saveXmm(core, area);
    if (used & 4) {
      for (let n = 0; n < vectorCount(core); n++) {
        const at = REG.ZMM + n * 64 + 16;
        area.set(AVX_OFFSET + n * 16, core.get64(at));
        area.set(AVX_OFFSET + n * 16 + 8, core.get64(at + 8));
      }
    }
    const old = compacted ? 0n : area.get(HEADER);
    const actual = kind === "xsave" ? inUse(core) : used;
    area.set(HEADER, (old & ~BigInt(rfbm)) | BigInt(actual & rfbm));
    if (compacted) area.set(HEADER + 8, (1n << 63n) | BigInt(rfbm));
    return Status.NEXT;
  };
const restore =
  (supervisor: boolean): Operation =>
  (core, pc) => {
    const status = checks(core, pc, 64n, true);
    if (status !== Status.NEXT) return status;
    if (supervisor && core.cpl !== 0) return core.raise(Vector.GP, 0);
    const area = new Area(core, pc);
    if (!area.probe(AVX_OFFSET, Access.READ)) return core.status;
    const xstate = area.get(HEADER);
    const xcomp = area.get(HEADER + 8);
    const compacted = xcomp >> 63n === 1n;
    const allowed = core.get64(REG.XCR0) | (supervisor ? core.get64(REG.XSS) : 0n);
    if (supervisor && !compacted) return core.raise(Vector.GP, 0);
    if (xstate & ~allowed) return core.raise(Vector.GP, 0);
    if (compacted ? xstate & ~xcomp || xcomp & ~(allowed | (1n << 63n)) : xcomp !== 0n)
      return core.raise(Vector.GP, 0);
    for (let at = HEADER + 16; at < HEADER + 64; at += 8) if (area.get(at)) return core.raise(Vector.GP, 0);
    const rfbm = requested(core, supervisor);
    const present = Number(xstate & 7n);
    if (rfbm & 4 && present & 4 && !area.probe(AVX_OFFSET + 256, Access.READ)) return core.status;
    const wantsMxcsr = compacted ? rfbm & present & 2 : rfbm & 6;
    const mxcsr = Number(area.get(24) & 0xffffffffn);
    if (wantsMxcsr && mxcsr & ~MXCSR_MASK) return core.raise(Vector.GP, 0);
    if (rfbm & 1) {
      if (present & 1) loadX87(core, area);
      else initX87(core);
    }
    if (wantsMxcsr) core.set32(REG.MXCSR, mxcsr);
    else if (compacted && rfbm & 2) core.set32(REG.MXCSR, 0x1f80);
    if (rfbm & 2) loadXmm(core, present & 2 ? area : undefined);
    if (rfbm & 4) {
      for (let n = 0; n < vectorCount(core); n++) {
        const at = REG.ZMM + n * 64 + 16;
        const from = AVX_OFFSET + n * 16;
        core.set64(at, present & 4 ? area.get(from) : 0n);
        core.set64(at + 8, present & 4 ? area.get(from + 8) : 0n);
      }
    }
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
  xsave: save("xsave"),
  xsaveopt: save("xsaveopt"),
  xsavec: save("xsavec"),
  xsaves: save("xsaves"),
  xrstor: restore(false),
  xrstors: restore(true),
  ldmxcsr,
  stmxcsr,
};
