/**
 * VM exits of RDPMC, exceptions and NMIs, and the NMI window.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/td_other_exits.c.
 */
import { TDX_STATUS } from "@swtdx/abi";
import { asyncTdexitToVmm } from "../entry/td-exit.js";
import { Flow, type VpContext } from "../entry/vp-context.js";
import { TDVPS } from "../structures/tdvps.js";
import { PROCBASED_NMI_WINDOW_EXITING } from "../tables/td-vmcs.js";
import { VMCS } from "@swtdx/cpu";
import { injectGp, injectNmi } from "./inject.js";

const VECTOR_MC = 18;
const TYPE_NMI = 2;

export function tdRdpmcExit(vp: VpContext): Flow {
  if (!vp.perfmon) {
    injectGp(vp);
    return Flow.RESUME;
  }
  if (!vp.debug) return vp.fatalError("RDPMC exited in a TD with PERFMON");
  return asyncTdexitToVmm(vp, TDX_STATUS.TDX_SUCCESS, vp.exitReason, vp.exitQualification, 0n, 0n, 0n);
}

/** An NMI is the VMM's; a machine check ends the TD; in a TD under debug the VMM may intercept exceptions. */
export function tdExceptionOrNmiExit(vp: VpContext): Flow {
  let status: bigint = TDX_STATUS.TDX_SUCCESS;
  if (((vp.exitIntrInfo >> 8) & 7) !== TYPE_NMI) {
    if ((vp.exitIntrInfo & 0xff) === VECTOR_MC) status = TDX_STATUS.TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE;
    else if (!vp.debug) return vp.fatalError(`exception ${vp.exitIntrInfo & 0xff} exited`);
  }
  return asyncTdexitToVmm(
    vp,
    status,
    vp.exitReason,
    vp.exitQualification,
    0n,
    0n,
    BigInt(vp.exitIntrInfo >>> 0),
  );
}

/** PEND_NMI was set and the guest has fetched its last #VE's information: watch for the NMI window. */
export function requestNmiWindow(vp: VpContext): void {
  const { lp, tdvps } = vp;
  if (tdvps.get(TDVPS.PEND_NMI) === 0 || vp.veInfoValid) return;
  const controls = lp.vmread(VMCS.CPU_BASED_VM_EXEC_CONTROL);
  if ((controls & PROCBASED_NMI_WINDOW_EXITING) === 0n)
    lp.vmwrite(VMCS.CPU_BASED_VM_EXEC_CONTROL, controls | PROCBASED_NMI_WINDOW_EXITING);
}

export function tdNmiWindowExit(vp: VpContext): void {
  const { lp, tdvps } = vp;
  if (tdvps.get(TDVPS.PEND_NMI) !== 0 && !vp.veInfoValid) {
    injectNmi(vp);
    tdvps.set(TDVPS.PEND_NMI, 0);
  }
  lp.vmwrite(
    VMCS.CPU_BASED_VM_EXEC_CONTROL,
    lp.vmread(VMCS.CPU_BASED_VM_EXEC_CONTROL) & ~PROCBASED_NMI_WINDOW_EXITING,
  );
}
