/** SYSCALL, SYSRET, SYSENTER, SYSEXIT. SDM vol. 2. */
import { AR, EFER, RFLAGS } from "../bits.js";
import type { X86Core } from "../core.js";
import { Status, Vector } from "../layout.js";
import { REG } from "../register-file.js";
import { isCanonical } from "./control.js";
import { nextRip } from "./memory.js";
import type { Operation } from "./operations.js";
import { setSegment } from "./segments.js";

/** Flat code and stack segments, as these instructions load them without reading descriptors. */
function flat(core: X86Core, code: number, stack: number, cpl: number, long: boolean): void {
  const rights = AR.G | AR.P | AR.S | (cpl << AR.DPL_SHIFT);
  setSegment(core, 1, (code & 0xfffc) | cpl, 0n, -1, rights | 11 | (long ? AR.L : AR.DB));
  setSegment(core, 2, (stack & 0xfffc) | cpl, 0n, -1, rights | 3 | AR.DB);
  core.updateMode();
}

const syscall: Operation = (core, pc) => {
  if (!(core.get32(REG.EFER) & EFER.SCE) || !core.code64) return core.raise(Vector.UD);
  const flags = core.getFlags();
  core.set64(8, nextRip(core, pc));
  core.set64(11 * 8, BigInt((flags & ~RFLAGS.RF) >>> 0));
  const star = core.get32(REG.STAR + 4) & 0xffff;
  core.setFlags(flags & ~core.get32(REG.FMASK) & ~RFLAGS.RF);
  flat(core, star, star + 8, 0, true);
  core.set64(REG.RIP, core.get64(REG.LSTAR));
  // The single-step trap is by TF as the instruction leaves it.
  core.trapSuppressed = !(core.get32(REG.RFLAGS) & RFLAGS.TF);
  return Status.JUMP;
};

const sysret: Operation = (core, _pc, bits) => {
  if (!(core.get32(REG.EFER) & EFER.SCE) || !core.code64) return core.raise(Vector.UD);
  if (core.cpl !== 0) return core.raise(Vector.GP, 0);
  const rip = core.get64(8);
  const wide = bits === 64;
  if (wide && !isCanonical(core, rip)) return core.raise(Vector.GP, 0);
  const star = (core.get32(REG.STAR + 4) >>> 16) & 0xffff;
  core.setFlags((core.get32(11 * 8) & 0x3c7fd7) | 2);
  flat(core, wide ? star + 16 : star, star + 8, 3, wide);
  core.set64(REG.RIP, wide ? rip : rip & 0xffffffffn);
  core.trapPending = (core.get32(REG.RFLAGS) & RFLAGS.TF) !== 0;
  return core.get32(REG.RFLAGS) & (RFLAGS.IF | RFLAGS.TF) ? Status.ATTENTION : Status.JUMP;
};

const sysenter: Operation = (core) => {
  const selector = core.get32(REG.SYSENTER_CS) & 0xffff;
  if (!core.protectedMode || (selector & 0xfffc) === 0) return core.raise(Vector.GP, 0);
  core.setFlags(core.getFlags() & ~(RFLAGS.VM | RFLAGS.IF | RFLAGS.RF));
  flat(core, selector, selector + 8, 0, core.long);
  const mask = core.long ? 0xffffffffffffffffn : 0xffffffffn;
  core.set64(32, core.get64(REG.SYSENTER_ESP) & mask);
  core.set64(REG.RIP, core.get64(REG.SYSENTER_EIP) & mask);
  return Status.JUMP;
};

const sysexit: Operation = (core, _pc, bits) => {
  const selector = core.get32(REG.SYSENTER_CS) & 0xffff;
  if (!core.protectedMode || (selector & 0xfffc) === 0 || core.cpl !== 0) return core.raise(Vector.GP, 0);
  const wide = bits === 64;
  const rip = core.get64(16);
  const rsp = core.get64(8);
  if (wide && (!isCanonical(core, rip) || !isCanonical(core, rsp))) return core.raise(Vector.GP, 0);
  const code = selector + (wide ? 32 : 16);
  flat(core, code, code + 8, 3, wide);
  core.set64(32, wide ? rsp : rsp & 0xffffffffn);
  core.set64(REG.RIP, wide ? rip : rip & 0xffffffffn);
  return Status.JUMP;
};

export const syscallOperations: Record<string, Operation> = { syscall, sysret, sysenter, sysexit };
