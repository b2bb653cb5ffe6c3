/**
 * TDG.VP.VMCALL (leaf 0): a TD exit that hands selected registers to the VMM.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_vp_vmcall.c.
 */
import { TDCALL_LEAF, TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import { tdVmexitToVmm } from "../entry/td-exit.js";
import { Flow, type VpContext } from "../entry/vp-context.js";
import { LastTdExit, VcpuState } from "../structures/tdvps.js";
import { ExitReason } from "../tables/exit-reasons.js";

/** Registers that cannot be passed: RAX, RCX, RSP; RBP too with CONFIG_FLAGS.NO_RBP_MOD. */
const NOT_SELECTABLE = (1 << Gpr.RAX) | (1 << Gpr.RCX) | (1 << Gpr.RSP);
const BUS_LOCK_PREEMPTED = 1 << 26;

export function tdgVpVmcall(vp: VpContext): bigint | Flow {
  const { vmmWords } = vp;
  const { u32 } = vp.regs;
  const control = u32[Gpr.RCX * 2];
  const forbidden = vp.noRbpMod ? NOT_SELECTABLE | (1 << Gpr.RBP) : NOT_SELECTABLE;
  if ((control & forbidden) !== 0 || u32[Gpr.RCX * 2 + 1] !== 0)
    return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");

  for (let i = 2; i < 16; i++) {
    const selected = (control & (1 << i)) !== 0;
    // RBP is the VMM's own.
    if (!selected && i === Gpr.RBP && vp.noRbpMod) continue;
    vmmWords[2 * i] = selected ? u32[2 * i] : 0;
    vmmWords[2 * i + 1] = selected ? u32[2 * i + 1] : 0;
  }
  vmmWords[Gpr.RCX * 2] = control;
  vmmWords[Gpr.RCX * 2 + 1] = 0;
  vmmWords[Gpr.RAX * 2] = ExitReason.TDCALL | (vp.busLockPreempted ? BUS_LOCK_PREEMPTED : 0);
  vmmWords[Gpr.RAX * 2 + 1] = 0;
  vp.busLockPreempted = false;
  const { trace } = vp.platform;
  trace.tdcalls[TDCALL_LEAF["TDG.VP.VMCALL"]]++;
  if (trace.on.TDCALL) traceVmcall(vp);
  tdVmexitToVmm(vp, VcpuState.VCPU_READY, LastTdExit.TDVMCALL, control >>> 16, false, true);
  return Flow.TD_EXIT;
}

function traceVmcall(vp: VpContext): void {
  const { regs } = vp;
  const input: Record<string, bigint> = {};
  for (const name of ["RCX", "R10", "R11", "R12", "R13", "R14", "R15"] as const)
    input[name] = regs.gpr(Gpr[name]);
  vp.platform.trace.emit({
    type: "TDCALL",
    lp: vp.lp.index,
    leaf: "TDG.VP.VMCALL",
    input,
    status: TDX_STATUS.TDX_SUCCESS,
    output: {},
  });
}
