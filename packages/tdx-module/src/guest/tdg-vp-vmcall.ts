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
const BUS_LOCK_PREEMPTED = 1n << 26n;

export function tdgVpVmcall(vp: VpContext): bigint | Flow {
  const { regs, vmm } = vp;
  const control = regs.gpr(Gpr.RCX);
  const forbidden = vp.noRbpMod ? NOT_SELECTABLE | (1 << Gpr.RBP) : NOT_SELECTABLE;
  const gprSelect = regs.get32(Gpr.RCX * 8) & 0xffff;
  if ((gprSelect & forbidden) !== 0 || control >> 32n !== 0n)
    return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");

  for (let i = 2; i < 16; i++) {
    if ((gprSelect & (1 << i)) !== 0) vmm[i] = regs.gpr(i);
    else if (i !== Gpr.RBP || !vp.noRbpMod) vmm[i] = 0n;
  }
  vmm[Gpr.RCX] = control;
  vmm[Gpr.RAX] = BigInt(ExitReason.TDCALL) | (vp.busLockPreempted ? BUS_LOCK_PREEMPTED : 0n);
  vp.busLockPreempted = false;
  const { trace } = vp.platform;
  trace.tdcalls[TDCALL_LEAF["TDG.VP.VMCALL"]]++;
  if (trace.on.TDCALL) traceVmcall(vp);
  tdVmexitToVmm(vp, VcpuState.VCPU_READY, LastTdExit.TDVMCALL, Number(control >> 16n) & 0xffff, false, true);
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
