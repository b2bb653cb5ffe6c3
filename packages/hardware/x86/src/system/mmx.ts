/** MMX state, which is x87's: entering MMX mode, EMMS, MASKMOVQ's checks. SDM vol. 1 ch. 9.5, 9.6, vol. 3A ch. 13. */
import type { X86Core } from "../core.js";
import { ENGINE, FpuBlock, Status, Vector } from "../layout.js";
import { REG } from "../register-file.js";
import type { Operation } from "./operations.js";

const TOP_SHIFT = 11;
const TOP_MASK = 7 << TOP_SHIFT;
/** FSW.ES: an exception is pending. */
const PENDING = 0x80;
const REGISTERS = 8;
const REGISTER_SIZE = 16;
const ALL_EMPTY = 0xffff;

/** Status if MMX may not run now, else NEXT. */
export function requireMmx(core: X86Core): number {
  const block = core.get32(ENGINE.FPU_BLOCK);
  if (block & FpuBlock.MMX_UD) return core.raise(Vector.UD);
  if (block & FpuBlock.SSE_NM) return core.raise(Vector.NM);
  if (core.get32(REG.FSW) & PENDING) return core.raise(Vector.MF);
  return Status.NEXT;
}
/** The top of the stack becomes 0, so that ST(n) is mm n, which is where generated code looks. */
function resetTop(core: X86Core): void {
  const status = core.get32(REG.FSW);
  const top = (status & TOP_MASK) >> TOP_SHIFT;
  if (top === 0) return;
  const from = core.regs.base + REG.ST;
  const old = core.u8.slice(from, from + REGISTERS * REGISTER_SIZE);
  for (let n = 0; n < REGISTERS; n++) {
    const at = ((n - top) & 7) * REGISTER_SIZE;
    core.u8.set(old.subarray(at, at + REGISTER_SIZE), from + n * REGISTER_SIZE);
  }
  core.set32(REG.FSW, status & ~TOP_MASK);
}
/** What every MMX instruction but EMMS does to the x87 state: top of stack 0, all tags valid. */
export function enterMmx(core: X86Core): void {
  resetTop(core);
  core.set32(REG.FTW, 0);
}

export const mmxOperations: Record<string, Operation> = {
  emms: (core) => {
    const status = requireMmx(core);
    if (status !== Status.NEXT) return status;
    resetTop(core);
    core.set32(REG.FTW, ALL_EMPTY);
    return Status.NEXT;
  },
};
