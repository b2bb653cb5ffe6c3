/**
 * VM exits from a TD: what is handled here, what is injected, what goes to the VMM.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/tdx_td_dispatcher.c.
 */
import { TDX_STATUS } from "@swtdx/abi";
import { checkForwardProgress } from "../entry/stepping.js";
import { asyncTdexitToVmm } from "../entry/td-exit.js";
import { Flow, type VpContext } from "../entry/vp-context.js";
import { tdCall } from "../guest/td-call.js";
import { TDR } from "../structures/tdr.js";
import { TDVPS } from "../structures/tdvps.js";
import { VMCS } from "@swtdx/cpu";
import { ExitReason } from "../tables/exit-reasons.js";
import { advanceGuestRip, blockNmi, eventInjected, injectGp, injectUd, injectVe } from "./inject.js";
import { tdCpuidExit } from "./td-cpuid.js";
import { tdCrAccessExit } from "./td-cr-access.js";
import { tdEptMisconfigurationExit, tdEptViolationExit } from "./td-ept-violation.js";
import { tdRdmsrExit, tdWrmsrExit, type MsrAccess } from "./td-msr-access.js";
import { requestNmiWindow, tdExceptionOrNmiExit, tdNmiWindowExit, tdRdpmcExit } from "./td-other-exits.js";
import { tdXsetbvExit } from "./td-xsetbv.js";

const ENTRY_FAILED = 0x8000_0000;
const BUS_LOCK_PREEMPTED = 1 << 26;
const INTR_VALID = 0x8000_0000;
/** Exit-reason bits that must be 0: 25:16, 28, 29, 30. */
const REASON_RESERVED = 0x73ff_0000;

/**
 * Handles one VM exit.
 * @returns Flow.TD_EXIT, or else the TD is to be resumed
 */
export function tdDispatcher(vp: VpContext): Flow {
  const { lp, tdvps } = vp;
  tdvps.setNumber(TDVPS.LAST_EXIT_TSC, lp.rdtscNumber());
  vp.exitReason = lp.vmreadLow(VMCS.VM_EXIT_REASON);
  vp.exitIntrInfo = lp.vmreadLow(VMCS.VM_EXIT_INTR_INFO) | 0;
  const failed = (vp.exitReason & ENTRY_FAILED) !== 0;
  if (!failed && tdvps.getAt(TDVPS.VM_LAUNCHED, 0) === 0) tdvps.setAt(TDVPS.VM_LAUNCHED, 0, 1);
  // Another logical processor met a machine check in this TD.
  if (vp.tdr.get(TDR.FATAL) !== 0)
    return exitToVmm(vp, TDX_STATUS.TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE, true);
  if ((vp.exitReason & BUS_LOCK_PREEMPTED) !== 0) vp.busLockPreempted = true;
  if (!vp.debug && (vp.exitReason & REASON_RESERVED) !== 0)
    vp.fatalError(`VM exit reason 0x${vp.exitReason.toString(16)}`);
  checkForwardProgress(vp);
  const vectoring = handleIdtVectoring(vp);
  if (vectoring !== null) return vectoring;
  if (failed) return handleVmEntryFailure(vp);

  const flow = dispatch(vp);
  if (flow === Flow.TD_EXIT) return flow;
  if (flow !== Flow.REENTER && !eventInjected(vp) && flow !== Flow.INTERRUPTED) {
    requestNmiWindow(vp);
    advanceIfInstruction(vp);
  }
  if (vp.busLockPreempted)
    return asyncTdexitToVmm(vp, TDX_STATUS.TDX_SUCCESS, ExitReason.BUS_LOCK, 0n, 0n, 0n, 0n);
  return checkPendingVoeOnDebugTdReturn(vp);
}

/** NMI-window exits are no instruction. */
const advanceIfInstruction = (vp: VpContext): void => {
  if ((vp.exitReason & 0xffff) !== ExitReason.NMI_WINDOW) advanceGuestRip(vp);
};

const exitToVmm = (vp: VpContext, status: bigint, intrInfo = false): Flow =>
  asyncTdexitToVmm(
    vp,
    status,
    vp.exitReason,
    vp.exitQualification,
    0n,
    0n,
    intrInfo ? BigInt(vp.exitIntrInfo >>> 0) : 0n,
  );
const { TDX_SUCCESS, TDX_NON_RECOVERABLE_TD, TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE } = TDX_STATUS;

function dispatch(vp: VpContext): Flow {
  switch (vp.exitReason & 0xffff) {
    case ExitReason.IO_INSTRUCTION:
    case ExitReason.HLT:
    case ExitReason.INVD:
    case ExitReason.VMCALL:
    case ExitReason.WBINVD:
    case ExitReason.PCONFIG:
    case ExitReason.APIC_WRITE:
      injectVe(vp, vp.exitReason, vp.exitQualification);
      return Flow.RESUME;
    case ExitReason.GETSEC:
    case ExitReason.RSM:
    case ExitReason.VMCLEAR:
    case ExitReason.VMLAUNCH:
    case ExitReason.VMPTRLD:
    case ExitReason.VMPTRST:
    case ExitReason.VMREAD:
    case ExitReason.VMRESUME:
    case ExitReason.VMWRITE:
    case ExitReason.VMXOFF:
    case ExitReason.VMXON:
    case ExitReason.INVEPT:
    case ExitReason.INVVPID:
    case ExitReason.VMFUNC:
    case ExitReason.ENCLS:
    case ExitReason.ENCLV:
    case ExitReason.ENQCMDS_PASID:
    case ExitReason.SEAMCALL:
    case ExitReason.MWAIT:
    case ExitReason.MONITOR:
      injectUd(vp);
      return Flow.RESUME;
    case ExitReason.ENQCMD_PASID:
      injectGp(vp);
      return Flow.RESUME;
    case ExitReason.TASK_SWITCH:
    case ExitReason.BUS_LOCK:
    case ExitReason.INIT:
      return exitToVmm(vp, TDX_SUCCESS);
    case ExitReason.NOTIFY:
      if ((vp.exitQualification & (1n << 12n)) !== 0n) blockNmi(vp);
      return exitToVmm(vp, (vp.exitQualification & 1n) !== 0n ? TDX_NON_RECOVERABLE_TD : TDX_SUCCESS);
    case ExitReason.TRIPLE_FAULT:
      return exitToVmm(vp, TDX_STATUS.TDX_NON_RECOVERABLE_VCPU);
    case ExitReason.SMI:
      // Bit 0: machine-check SMI.
      return exitToVmm(
        vp,
        (vp.exitQualification & 1n) !== 0n ? TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE : TDX_SUCCESS,
        true,
      );
    case ExitReason.EXTERNAL_INTERRUPT:
    case ExitReason.C_STATE_SMI:
      return exitToVmm(vp, TDX_SUCCESS, true);
    case ExitReason.RDPMC:
      return tdRdpmcExit(vp);
    case ExitReason.EPT_MISCONFIG:
      return tdEptMisconfigurationExit(vp);
    case ExitReason.CPUID:
      tdCpuidExit(vp);
      return Flow.RESUME;
    case ExitReason.EPT_VIOLATION:
      return tdEptViolationExit(vp);
    case ExitReason.XSETBV:
      tdXsetbvExit(vp);
      return Flow.RESUME;
    case ExitReason.CR_ACCESS:
      if (tdCrAccessExit(vp)) return Flow.RESUME;
      return exitToVmm(vp, vp.debug ? TDX_SUCCESS : TDX_NON_RECOVERABLE_TD);
    case ExitReason.EXCEPTION_OR_NMI:
      return tdExceptionOrNmiExit(vp);
    case ExitReason.MSR_READ:
      return msrOutcome(vp, tdRdmsrExit(vp));
    case ExitReason.MSR_WRITE:
      return msrOutcome(vp, tdWrmsrExit(vp));
    case ExitReason.TDCALL:
      return tdCall(vp);
    case ExitReason.NMI_WINDOW:
      tdNmiWindowExit(vp);
      return Flow.RESUME;
    default:
      // Only a TD under debug has controls that give other exits.
      return exitToVmm(vp, vp.debug ? TDX_SUCCESS : TDX_NON_RECOVERABLE_TD);
  }
}

function msrOutcome(vp: VpContext, access: MsrAccess): Flow {
  if (access === "GP") injectGp(vp);
  else if (access === "VE") injectVe(vp, vp.exitReason, 0n);
  return Flow.RESUME;
}

/** The event whose delivery the VM exit interrupted is injected again at the next VM entry. */
function handleIdtVectoring(vp: VpContext): Flow | null {
  const { lp } = vp;
  if ((lp.vmreadLow(VMCS.IDT_VECTORING_INFO_FIELD) & INTR_VALID) === 0) return null;
  const info = lp.vmread(VMCS.IDT_VECTORING_INFO_FIELD);
  const reason = vp.exitReason & 0xffff;
  const expected =
    reason === ExitReason.TASK_SWITCH ||
    reason === ExitReason.EPT_VIOLATION ||
    reason === ExitReason.EPT_MISCONFIG;
  if (!expected) {
    if (vp.debug) return exitToVmm(vp, TDX_SUCCESS);
    // Triple fault and machine check during delivery end the vCPU or the TD by themselves.
    if (reason === ExitReason.TRIPLE_FAULT || reason === ExitReason.EXCEPTION_OR_NMI) return null;
    return vp.fatalError(`VM exit ${reason} during event delivery`);
  }
  if (((info >> 8n) & 7n) === 2n)
    lp.vmwrite(VMCS.GUEST_INTERRUPTIBILITY_INFO, lp.vmread(VMCS.GUEST_INTERRUPTIBILITY_INFO) & ~8n);
  // Bit 12 is undefined in the vectoring information and reserved for entry.
  lp.vmwrite(VMCS.VM_ENTRY_INTR_INFO_FIELD, info & ~0x7fff_f000n);
  if ((info & (1n << 11n)) !== 0n)
    lp.vmwrite(VMCS.VM_ENTRY_EXCEPTION_ERROR_CODE, lp.vmread(VMCS.IDT_VECTORING_ERROR_CODE));
  lp.vmwrite(VMCS.VM_ENTRY_INSTRUCTION_LEN, lp.vmread(VMCS.VM_EXIT_INSTRUCTION_LEN));
  return null;
}

function handleVmEntryFailure(vp: VpContext): Flow {
  switch (vp.exitReason & 0xffff) {
    case ExitReason.INVALID_GUEST_STATE:
      return exitToVmm(vp, vp.debug ? TDX_SUCCESS : TDX_NON_RECOVERABLE_TD);
    case ExitReason.MCE_DURING_ENTRY:
      return exitToVmm(vp, TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE);
    default:
      return vp.fatalError(`VM entry failure ${vp.exitReason & 0xffff}`);
  }
}

/** A debugger's exception bitmap also catches the exceptions that the module injects. */
function checkPendingVoeOnDebugTdReturn(vp: VpContext): Flow {
  if (!vp.debug) return Flow.RESUME;
  const { lp } = vp;
  const info = lp.vmread(VMCS.VM_ENTRY_INTR_INFO_FIELD);
  if ((Number(info) & INTR_VALID) === 0 || ((info >> 8n) & 7n) !== 3n) return Flow.RESUME;
  const vector = info & 0xffn;
  if (vector > 31n || ((lp.vmread(VMCS.EXCEPTION_BITMAP) >> vector) & 1n) === 0n) return Flow.RESUME;
  if (vector === 14n) {
    const masked = lp.vmread(VMCS.VM_EXIT_INTR_ERROR_CODE) & lp.vmread(VMCS.PAGE_FAULT_ERROR_CODE_MASK);
    if (masked !== lp.vmread(VMCS.PAGE_FAULT_ERROR_CODE_MATCH)) return Flow.RESUME;
  }
  return asyncTdexitToVmm(vp, TDX_SUCCESS, ExitReason.EXCEPTION_OR_NMI, 0n, 0n, 0n, info);
}
