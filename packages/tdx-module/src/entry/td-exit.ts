/**
 * TD exits: from the TD back to the VMM, asynchronous ones and the one of TDG.VP.VMCALL.
 *
 * Source: intel/tdx-module 1.5.05 src/td_transitions/td_exit.c.
 */
import { TDX_STATUS } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import { advanceGuestRip } from "../exits/inject.js";
import { TDCS } from "../structures/tdcs.js";
import { TDR } from "../structures/tdr.js";
import { LastTdExit, TDVPS, VcpuState } from "../structures/tdvps.js";
import { GuestXmm, initializeExtendedState, saveGuestExtendedState } from "./extended-state.js";
import { loadVmmState, saveGuestState } from "./guest-state.js";
import { Flow, type VpContext } from "./vp-context.js";

const FATAL = 1n << 61n;
const HOST_RECOVERABILITY_HINT = 1n << 60n;
const BUS_LOCK_PREEMPTED = 1 << 26;
const XFAM_SSE = 2;

/**
 * Asynchronous TD exit. `status` decides what becomes of the vCPU and the TD; the low half of RAX is the exit reason.
 * @param gpa for EPT violations and misconfigurations
 */
export function asyncTdexitToVmm(
  vp: VpContext,
  status: bigint,
  exitReason: number,
  qualification: bigint,
  extendedQualification: bigint,
  gpa: bigint,
  intrInfo: bigint,
): Flow {
  let reason = exitReason;
  if (vp.busLockPreempted) reason |= BUS_LOCK_PREEMPTED;
  return asyncTdexit(vp, status, reason, qualification, extendedQualification, gpa, intrInfo);
}

/** TD exit with a status alone. */
export const asyncTdexitEmptyReason = (vp: VpContext, status: bigint): Flow =>
  asyncTdexit(vp, status, 0, 0n, 0n, 0n, 0n);

function asyncTdexit(
  vp: VpContext,
  status: bigint,
  reason: number,
  qualification: bigint,
  extendedQualification: bigint,
  gpa: bigint,
  intrInfo: bigint,
): Flow {
  const { vmm } = vp;
  vp.busLockPreempted = false;
  let state = vp.tdvps.get(TDVPS.VCPU_STATE);
  let lastTdExit = vp.tdvps.get(TDVPS.LAST_TD_EXIT);
  let code = status;
  switch (status) {
    case TDX_STATUS.TDX_SUCCESS:
    case TDX_STATUS.TDX_CROSS_TD_FAULT:
      state = VcpuState.VCPU_READY;
      lastTdExit = LastTdExit.ASYNC_FAULT;
      break;
    case TDX_STATUS.TDX_CROSS_TD_TRAP:
    case TDX_STATUS.TDX_HOST_PRIORITY_BUSY_TIMEOUT:
      state = VcpuState.VCPU_READY;
      lastTdExit = LastTdExit.ASYNC_TRAP;
      break;
    case TDX_STATUS.TDX_NON_RECOVERABLE_VCPU:
      state = VcpuState.VCPU_DISABLED;
      break;
    default:
      // TDX_NON_RECOVERABLE_TD*: no vCPU of this TD will run again.
      vp.tdr.set(TDR.FATAL, 1);
      code |= FATAL;
  }
  const rbp = vmm[Gpr.RBP];
  vmm.fill(0n);
  if (vp.noRbpMod) vmm[Gpr.RBP] = rbp;
  vmm[Gpr.RAX] = code | BigInt(reason >>> 0);
  // Bits 33:32 hold the VM index: 0, the L1.
  vmm[Gpr.RCX] = qualification & 0xffff_ffffn;
  vmm[Gpr.RDX] = extendedQualification;
  vmm[Gpr.R8] = gpa;
  vmm[Gpr.R9] = intrInfo;
  tdVmexitToVmm(
    vp,
    state,
    lastTdExit,
    0,
    status === TDX_STATUS.TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE,
    (code & HOST_RECOVERABILITY_HINT) !== 0n,
  );
  return Flow.TD_EXIT;
}

/**
 * Saves the guest's state, scrubs the processor and hands over to the VMM with the registers in `vp.vmm`.
 * @param xmmSelect guest XMM registers that the VMM gets
 * @param dead the TD's memory is not to be touched
 * @param trap the instruction is done: RIP moves on
 */
export function tdVmexitToVmm(
  vp: VpContext,
  state: number,
  lastTdExit: number,
  xmmSelect: number,
  dead: boolean,
  trap: boolean,
): void {
  const { lp, tdcs, tdvps } = vp;
  const xmm = xmmSelect === 0 ? null : new GuestXmm(lp.regs, xmmSelect);
  if (!dead) {
    saveGuestState(vp);
    tdvps.set(TDVPS.VCPU_STATE, state);
    tdvps.set(TDVPS.LAST_TD_EXIT, lastTdExit);
    saveGuestExtendedState(vp);
    if (trap) advanceGuestRip(vp);
    const epoch = tdvps.low(TDVPS.VCPU_EPOCH) & 1;
    tdcs.setAt(TDCS.REFCOUNT, epoch, (tdcs.getAt(TDCS.REFCOUNT, epoch) - 1) & 0xffff);
  }
  vp.locks.release(lp);
  initializeExtendedState(lp, vp.xfamLow | XFAM_SSE);
  loadVmmState(vp);
  xmm?.load(lp.regs);
  const { u32 } = lp.regs;
  const { vmmWords } = vp;
  for (let i = 0; i < Gpr.RSP * 2; i++) u32[i] = vmmWords[i];
  for (let i = Gpr.RBP * 2; i < 32; i++) u32[i] = vmmWords[i];
}
