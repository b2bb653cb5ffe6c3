/**
 * TD entry: the part of TDH.VP.ENTER after the vCPU is found, locked and associated; and the loop of VM entries and VM
 * exits until the TD exit.
 *
 * Source: intel/tdx-module 1.5.05 src/td_transitions/tdh_vp_enter.c.
 */
import { TDX_STATUS, VMX_EEQ_TYPE, withOperand, type HpaAndKeyId } from "@swtdx/abi";
import { Gpr, VMCS } from "@swtdx/cpu";
import { requestNmiWindow } from "../exits/td-other-exits.js";
import { tdDispatcher } from "../exits/td-dispatcher.js";
import { injectVe } from "../exits/inject.js";
import { TDCS } from "../structures/tdcs.js";
import { LastTdExit, TDVPS, VcpuState } from "../structures/tdvps.js";
import { CpuidFlag } from "../tables/td-cpuid.js";
import { ExitReason } from "../tables/exit-reasons.js";
import { initializeExtendedState, restoreGuestExtendedState, saveXmmsByMask } from "./extended-state.js";
import {
  readMsr,
  restoreExtendedStateControl,
  restoreGuestState,
  saveVmmState,
  writeSpecCtrlShadow,
} from "./guest-state.js";
import { tdEntrySteppingFilter } from "./stepping.js";
import { asyncTdexitToVmm } from "./td-exit.js";
import { initHostState } from "./td-vmcs-init.js";
import { adjustTlbTrackingState, flushAllTdAsids, revertTlbTrackingState } from "./tlb-tracking.js";
import { Flow, type VpContext } from "./vp-context.js";

const IA32_TSC_ADJUST = 0x3b;
const IA32_PRED_CMD = 0x49;
export const IA32_MISC_ENABLE = 0x1a0;
/** IA32_MISC_ENABLE[18]: ENABLE_MONITOR_FSM. */
const ENABLE_MONITOR_FSM = 1 << 18;
const HOST_RECOVERABILITY_HINT = 1n << 60n;
const NO_RBP_MOD = 4;

/** RCX of TDH.VP.ENTER. */
export interface VcpuAndFlags {
  readonly tdvpr: number;
  readonly hostRecoverabilityHint: boolean;
  readonly resumeL1: boolean;
}

/** The halves of RCX. @returns null: reserved bits are set */
export function decodeVcpuAndFlags(low: number, high: number): VcpuAndFlags | null {
  if ((low & 0xfff) !== 0 || high >>> 22 !== 0) return null;
  return {
    tdvpr: (high & 0xf_ffff) * 0x1_0000_0000 + low,
    hostRecoverabilityHint: (high & (1 << 20)) !== 0,
    resumeL1: (high & (1 << 21)) !== 0,
  };
}

/** What TDH.VP.ENTER needs beyond the vCPU: platform values and which vCPU ran here last. */
export interface TdEntry {
  readonly flags: VcpuAndFlags;
  readonly newAssociation: boolean;
  /** IA32_TSC_ADJUST as TDH.SYS.INIT found it. */
  readonly tscAdjust: bigint;
  /** TDVPR of the vCPU that ran on this logical processor last. */
  readonly lastTdvpr: number;
  /** Number of locks held while the vCPU runs: all but OP_STATE's. */
  readonly pageLocks: number;
}

/**
 * Runs the vCPU until it leaves to the VMM. Guest and VMM registers are exchanged here.
 * @returns the status of a failed entry, to be returned by TDH.VP.ENTER with its locks still held; or null after a TD
 * exit: the VMM's registers are in place and the locks are released
 */
export function enterTd(vp: VpContext, entry: TdEntry): bigint | null {
  const { lp, tdcs, tdvps } = vp;
  loadContext(vp);
  lp.vmptrld(vp.vmcs as HpaAndKeyId);
  const refused = check(vp, entry);
  if (refused !== null) return refused;

  saveVmmState(vp);
  if (!adjustTlbTrackingState(lp, tdcs, tdvps, entry.newAssociation))
    return withOperand(TDX_STATUS.TDX_OPERAND_BUSY, "TD_EPOCH");
  const filter = tdEntrySteppingFilter(vp);
  if (filter.kind === "busy") {
    revertTlbTrackingState(tdcs, tdvps);
    return withOperand(TDX_STATUS.TDX_OPERAND_BUSY, "SEPT_TREE");
  }
  if (filter.kind === "fault") {
    revertTlbTrackingState(tdcs, tdvps);
    emulateEptViolationTdExit(vp, filter.gpa);
    return BigInt(ExitReason.EPT_VIOLATION);
  }
  if (filter.kind === "notify") notifyZeroStep(vp);

  vp.locks.release(lp, entry.pageLocks);
  if (entry.flags.tdvpr !== entry.lastTdvpr) {
    // Translations and branch predictions do not tell vCPUs of a TD apart.
    flushAllTdAsids(lp, tdcs);
    lp.wrmsr(IA32_PRED_CMD, 1n);
  }
  for (let i = 0; i < 32; i++) vp.vmmWords[i] = lp.regs.u32[i];
  resumeTdcall(vp, entry.flags);
  requestNmiWindow(vp);
  writeSpecCtrlShadow(vp);
  const failure = restoreState(vp);
  if (failure !== null) return null;
  updateHostState(vp);
  tdvps.set(TDVPS.VCPU_STATE, VcpuState.VCPU_ACTIVE);
  run(vp);
  return null;
}

/** What is asked often, out of TDCS and TDVPS once. */
function loadContext(vp: VpContext): void {
  const { tdcs } = vp;
  vp.debug = (tdcs.low(TDCS.ATTRIBUTES) & 1) !== 0;
  vp.perfmon = tdcs.high(TDCS.ATTRIBUTES) >>> 31 !== 0;
  vp.xfamLow = vp.tdvps.low(TDVPS.XFAM);
  vp.gpaw = tdcs.get(TDCS.GPAW) !== 0;
  vp.noRbpMod = (tdcs.low(TDCS.CONFIG_FLAGS) & NO_RBP_MOD) !== 0;
}

function check(vp: VpContext, entry: TdEntry): bigint | null {
  const { lp, tdcs, tdvps } = vp;
  if (entry.flags.hostRecoverabilityHint && tdvps.get(TDVPS.LAST_TD_EXIT) !== LastTdExit.ASYNC_TRAP)
    return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  // RESUME_L1 is for TD exits from an L2.
  if (entry.flags.resumeL1) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  if (readMsr(lp, IA32_TSC_ADJUST) !== entry.tscAdjust)
    return withOperand(TDX_STATUS.TDX_INCONSISTENT_MSR, IA32_TSC_ADJUST);
  if (lp.rdtscNumber() < tdvps.getNumber(TDVPS.LAST_EXIT_TSC)) return TDX_STATUS.TDX_TSC_ROLLBACK;
  if (
    tdcs.getAt(TDCS.CPUID_FLAGS, CpuidFlag.monitor_mwait_supported) !== 0 &&
    (lp.rdmsrLow(IA32_MISC_ENABLE) & ENABLE_MONITOR_FSM) === 0
  )
    return withOperand(TDX_STATUS.TDX_INCORRECT_MSR_VALUE, IA32_MISC_ENABLE);
  return null;
}

/** The outcome of the TDCALL that led to the last TD exit. */
function resumeTdcall(vp: VpContext, flags: VcpuAndFlags): void {
  const { tdvps } = vp;
  const last = tdvps.get(TDVPS.LAST_TD_EXIT);
  if (last === LastTdExit.TDVMCALL) {
    const gprs = TDVPS.GPR.offset;
    const control = tdvps.get32(gprs + 8 * Gpr.RCX);
    saveXmmsByMask(vp, control >>> 16);
    for (let i = 2; i < 16; i++)
      if ((control & (1 << i)) !== 0) tdvps.store32(gprs + 8 * i, vp.vmmWords, 2 * i, 2);
    // RAX: TDX_SUCCESS.
    tdvps.setHalves(TDVPS.GPR, 0, 0);
  } else if (last === LastTdExit.ASYNC_TRAP) {
    const status = tdvps.getAt(TDVPS.GPR, Gpr.RAX) & ~HOST_RECOVERABILITY_HINT;
    tdvps.setAt(
      TDVPS.GPR,
      Gpr.RAX,
      flags.hostRecoverabilityHint ? status | HOST_RECOVERABILITY_HINT : status,
    );
  }
}

/** Loads the guest's state; a value that the processor refuses ends the TD. */
function restoreState(vp: VpContext): typeof Flow.TD_EXIT | null {
  let msr = restoreGuestState(vp);
  if (msr < 0) {
    if (!restoreGuestExtendedState(vp))
      return loadFailure(
        vp,
        ExitReason.INVALID_GUEST_STATE,
        BigInt(VMX_EEQ_TYPE.TD_ENTRY_XSTATE_LOAD_FAILURE),
      );
    msr = restoreExtendedStateControl(vp);
  }
  if (msr < 0) return null;
  const extended = BigInt(VMX_EEQ_TYPE.TD_ENTRY_MSR_LOAD_FAILURE) | (BigInt(msr) << 32n);
  return loadFailure(vp, ExitReason.MSR_LOADING, extended);
}

function loadFailure(vp: VpContext, reason: number, extended: bigint): typeof Flow.TD_EXIT {
  asyncTdexitToVmm(vp, TDX_STATUS.TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE, reason, 0n, extended, 0n, 0n);
  return Flow.TD_EXIT;
}

/** Host fields of the TD VMCS follow the logical processor. */
function updateHostState(vp: VpContext): void {
  const { tdvps } = vp;
  if (
    tdvps.getAt(TDVPS.LP_DEPENDENT_HPA_UPDATED, 0) !== 0 &&
    tdvps.getAt(TDVPS.MODULE_DEPENDENT_FIELDS_UPDATED, 0) !== 0
  )
    return;
  initHostState(vp.lp);
  tdvps.setAt(TDVPS.LP_DEPENDENT_HPA_UPDATED, 0, 1);
  tdvps.setAt(TDVPS.MODULE_DEPENDENT_FIELDS_UPDATED, 0, 1);
}

/** VM entries and VM exits until the TD exit. */
function run(vp: VpContext): void {
  const { lp, tdvps } = vp;
  let outcome = tdvps.getAt(TDVPS.VM_LAUNCHED, 0) !== 0 ? lp.vmresume() : lp.vmlaunch();
  for (;;) {
    if (outcome.kind !== "exit")
      vp.fatalError(
        `VM entry failed${outcome.kind === "failValid" ? ` with error ${outcome.error}` : ""}, RIP 0x${lp
          .vmread(VMCS.GUEST_RIP)
          .toString(16)}`,
      );
    if (tdDispatcher(vp) === Flow.TD_EXIT) return;
    outcome = tdvps.getAt(TDVPS.VM_LAUNCHED, 0) !== 0 ? lp.vmresume() : lp.vmlaunch();
  }
}

/** The TD is not entered while a page that the VMM has taken away under it is missing. */
function emulateEptViolationTdExit(vp: VpContext, gpa: bigint): void {
  const { lp, tdvps } = vp;
  const { regs } = lp;
  initializeExtendedState(lp, vp.xfamLow);
  tdvps.set(TDVPS.VCPU_STATE, VcpuState.VCPU_READY);
  tdvps.set(TDVPS.LAST_TD_EXIT, LastTdExit.ASYNC_FAULT);
  for (let i = 1; i < 16; i++) if (i !== Gpr.RSP && i !== Gpr.RBP) regs.setGpr(i, 0n);
  // A write.
  regs.setGpr(Gpr.RCX, 2n);
  regs.setGpr(Gpr.R8, gpa & ~0xfffn);
}

/** #VE for the guest that asked to hear of suspected zero-stepping, when it can take one. */
function notifyZeroStep(vp: VpContext): void {
  const { lp } = vp;
  const reason = Number(lp.vmread(VMCS.VM_EXIT_REASON));
  const gpa = lp.vmread(VMCS.GUEST_PHYSICAL_ADDRESS);
  const qualification = lp.vmread(VMCS.EXIT_QUALIFICATION);
  const shared = vp.gpaw ? 1n << 51n : 1n << 47n;
  if ((reason & 0xffff) !== ExitReason.EPT_VIOLATION || (gpa & shared) !== 0n) return;
  const canInject =
    (lp.vmread(VMCS.GUEST_INTERRUPTIBILITY_INFO) & 8n) === 0n &&
    (qualification & (1n << 12n)) === 0n &&
    (lp.vmread(VMCS.IDT_VECTORING_INFO_FIELD) & (1n << 31n)) === 0n &&
    !vp.veInfoValid;
  if (canInject) injectVe(vp, reason, qualification, gpa);
}
