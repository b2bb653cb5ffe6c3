/**
 * VM exits of EPT violation and misconfiguration, and the TD exits for EPT violations that the module finds itself.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/td_ept_violation.c, td_other_exits.c
 * (tdx_ept_violation_exit_to_vmm, async_tdexit_ept_violation, td_ept_misconfiguration_exit).
 */
import { TD_CTLS, TDX_STATUS, VMX_EEQ_TYPE } from "@swtdx/abi";
import { logEpfStepping } from "../entry/stepping.js";
import { asyncTdexitToVmm } from "../entry/td-exit.js";
import { Flow, type VpContext } from "../entry/vp-context.js";
import { walkSecureEpt } from "../guest/gpa.js";
import type { SeptEntry } from "../structures/sept.js";
import { TDCS } from "../structures/tdcs.js";
import { VMCS } from "@swtdx/cpu";
import { ExitReason } from "../tables/exit-reasons.js";
import { blockNmi, guestCpl, injectPf, injectVe } from "./inject.js";

const NMI_UNBLOCKING = 1n << 12n;
const GLA_VALID = 1n << 7n;
/** Exit-qualification bits that the VMM does not get: 12:7. */
const HIDDEN = 0x1f80n;

export const sharedBit = (gpaw: boolean): bigint => (gpaw ? 1n << 51n : 1n << 47n);

export function tdEptViolationExit(vp: VpContext): Flow {
  const { lp } = vp;
  const qualification = vp.exitQualification;
  if ((qualification & NMI_UNBLOCKING) !== 0n) blockNmi(vp);
  const gpa = lp.vmread(VMCS.GUEST_PHYSICAL_ADDRESS);
  // With 48-bit GPAs the bits above the shared bit are reserved in the guest's paging structures.
  if (!vp.gpaw && gpa >> 48n !== 0n && (qualification & GLA_VALID) !== 0n) {
    const bit = (from: bigint, to: bigint): bigint => ((qualification >> from) & 1n) << to;
    const user = guestCpl(vp) === 3 ? 4n : 0n;
    return injectPf(
      vp,
      lp.vmread(VMCS.GUEST_LINEAR_ADDRESS),
      1n | bit(1n, 1n) | user | 8n | bit(2n, 4n) | bit(13n, 6n),
    );
  }
  let extended = 0n;
  if ((gpa & sharedBit(vp.gpaw)) === 0n) {
    const entry = walkSecureEpt(vp, Number(gpa), 0);
    if (entry.info.guestAcceptable) {
      if ((vp.tdcs.get(TDCS.TD_CTLS) & TD_CTLS.PENDING_VE_DISABLE) === 0n) {
        injectVe(vp, vp.exitReason, qualification, gpa, lp.vmread(VMCS.GUEST_LINEAR_ADDRESS));
        return Flow.RESUME;
      }
      extended = BigInt(VMX_EEQ_TYPE.PENDING_EPT_VIOLATION);
    }
    logEpfStepping(vp, Number(gpa));
  }
  return eptViolationExitToVmm(vp, gpa, vp.exitReason, qualification, extended);
}

export const eptViolationExitToVmm = (
  vp: VpContext,
  gpa: bigint,
  reason: number,
  qualification: bigint,
  extended: bigint,
): Flow =>
  asyncTdexitToVmm(vp, TDX_STATUS.TDX_SUCCESS, reason, qualification & ~HIDDEN, extended, gpa & ~0xfffn, 0n);

export const eptMisconfigExitToVmm = (vp: VpContext, gpa: bigint): Flow =>
  asyncTdexitToVmm(vp, TDX_STATUS.TDX_SUCCESS, ExitReason.EPT_MISCONFIG, 0n, 0n, gpa & ~0xfffn, 0n);

export function tdEptMisconfigurationExit(vp: VpContext): Flow {
  const gpa = vp.lp.vmread(VMCS.GUEST_PHYSICAL_ADDRESS);
  if ((gpa & sharedBit(vp.gpaw)) === 0n) return vp.fatalError("EPT misconfiguration of a private GPA");
  return eptMisconfigExitToVmm(vp, gpa);
}

/** The TD exit of TDG.MEM.PAGE.ACCEPT and TDG.MEM.PAGE.ATTR.WR when the VMM has to act on the Secure EPT first. */
export function asyncTdexitEptViolation(
  vp: VpContext,
  gpa: number,
  requestedLevel: number,
  entry: SeptEntry,
  type: number,
): Flow {
  // A write; bits 5:3 are the entry's rights.
  const qualification = 2n | (BigInt(entry.low & 7) << 3n);
  const info =
    requestedLevel | (entry.level << 3) | (entry.info.publicState << 6) | (entry.leaf ? 1 << 14 : 0);
  return eptViolationExitToVmm(
    vp,
    BigInt(gpa),
    ExitReason.EPT_VIOLATION,
    qualification,
    BigInt(type) | (BigInt(info) << 32n),
  );
}
