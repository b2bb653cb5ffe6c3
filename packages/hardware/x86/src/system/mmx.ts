/** MMX state, which is x87's: entering MMX mode, EMMS, MASKMOVQ's checks. SDM vol. 1 ch. 9.5, 9.6, vol. 3A ch. 13. */
import type { X86Core } from "../core.js";
import { ENGINE, FpuBlock, Status, Vector } from "../layout.js";
import { REG } from "../register-file.js";
import type { Operation } from "./operations.js";
import { setTop, waits } from "./x87-state.js";

const ALL_EMPTY = 0xffff;

/** Status if MMX may not run now, else NEXT. */
export function requireMmx(core: X86Core): number {
  const block = core.get32(ENGINE.FPU_BLOCK);
  if (block & FpuBlock.MMX_UD) return core.raise(Vector.UD);
  if (block & FpuBlock.SSE_NM) return core.raise(Vector.NM);
  return waits(core) ? Status.FAULT : Status.NEXT;
}
/** What every MMX instruction but EMMS does to the x87 state: top of stack 0, all tags valid. */
export function enterMmx(core: X86Core): void {
  setTop(core, 0);
  core.set32(REG.FTW, 0);
}

export const mmxOperations: Record<string, Operation> = {
  emms: (core) => {
    const status = requireMmx(core);
    if (status !== Status.NEXT) return status;
    setTop(core, 0);
    core.set32(REG.FTW, ALL_EMPTY);
    return Status.NEXT;
  },
};
