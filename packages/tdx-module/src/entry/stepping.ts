/**
 * Zero-step defence: a VMM that takes a private page away again and again at the same instruction is found out, and the
 * TD is not entered while such a page is missing.
 *
 * Source: intel/tdx-module 1.5.05 src/td_transitions/td_exit_stepping.c. (Its single-step defence, which steps a random
 * number of instructions with the monitor trap flag after an early interrupt, has no counterpart here.)
 */
import { SEPT_LOW } from "../structures/sept.js";
import { TDCS } from "../structures/tdcs.js";
import { TDVPS } from "../structures/tdvps.js";
import { acquireSharex, Lock, releaseSharex } from "../locks.js";
import { TDX_STATUS } from "@swtdx/abi";
import { VMCS } from "@swtdx/cpu";
import { walkSecureEpt } from "../guest/gpa.js";
import type { VpContext } from "./vp-context.js";

/** EPT violations at the same RIP that are taken for accidents. */
const STEPPING_EPF_THRESHOLD = 6;
const EPF_GPA_LIST_SIZE = 32;

const resetEpfTracking = (vp: VpContext): void => {
  vp.tdvps.set(TDVPS.LAST_EPF_GPA_LIST_IDX, 0);
  vp.tdvps.set(TDVPS.POSSIBLY_EPF_STEPPING, 0);
};

const atEntryRip = ({ lp, ripOnTdEntryLow, ripOnTdEntryHigh }: VpContext): boolean =>
  lp.vmreadLow(VMCS.GUEST_RIP) === ripOnTdEntryLow && lp.vmreadHigh(VMCS.GUEST_RIP) === ripOnTdEntryHigh;

/** At every VM exit: forward progress clears the suspicion. */
export function checkForwardProgress(vp: VpContext): void {
  if (vp.tdvps.get(TDVPS.POSSIBLY_EPF_STEPPING) === 0 && vp.tdvps.get(TDVPS.LAST_EPF_GPA_LIST_IDX) === 0)
    return;
  if (!atEntryRip(vp)) resetEpfTracking(vp);
}

/** At a TD exit for an EPT violation of a private GPA. */
export function logEpfStepping(vp: VpContext, gpa: number): void {
  const { tdvps } = vp;
  if (!atEntryRip(vp)) resetEpfTracking(vp);
  const count = tdvps.get(TDVPS.POSSIBLY_EPF_STEPPING);
  if (count < STEPPING_EPF_THRESHOLD) {
    tdvps.set(TDVPS.POSSIBLY_EPF_STEPPING, count + 1);
    return;
  }
  const listed = tdvps.get(TDVPS.LAST_EPF_GPA_LIST_IDX);
  if (listed >= EPF_GPA_LIST_SIZE) return;
  const page = BigInt(gpa) & ~0xfffn;
  for (let i = 0; i < listed; i++) if (tdvps.getAt(TDVPS.LAST_EPF_GPA_LIST, i) === page) return;
  tdvps.setAt(TDVPS.LAST_EPF_GPA_LIST, listed, page);
  tdvps.set(TDVPS.LAST_EPF_GPA_LIST_IDX, listed + 1);
}

/** What TDH.VP.ENTER does about it. `faultGpa`: a page is still missing; `notify`: the TD wants to be told. */
export type SteppingFilter =
  { readonly kind: "ok" | "busy" | "notify" } | { readonly kind: "fault"; readonly gpa: bigint };

const NOTHING_MISSING: SteppingFilter = { kind: "ok" };
export function tdEntrySteppingFilter(vp: VpContext): SteppingFilter {
  const { lp, tdvps, tdcs } = vp;
  vp.ripOnTdEntryLow = lp.vmreadLow(VMCS.GUEST_RIP);
  vp.ripOnTdEntryHigh = lp.vmreadHigh(VMCS.GUEST_RIP);
  const listed = tdvps.get(TDVPS.LAST_EPF_GPA_LIST_IDX);
  if (listed === 0) return NOTHING_MISSING;
  const lock = tdcs.pa(TDCS.SECURE_EPT_LOCK.offset);
  const key = tdcs.keyId;
  if (acquireSharex(lp, lock, key, Lock.EXCLUSIVE) !== TDX_STATUS.TDX_SUCCESS) return { kind: "busy" };
  let missing = -1n;
  for (let i = 0; i < listed && missing < 0n; i++) {
    const gpa = tdvps.getAt(TDVPS.LAST_EPF_GPA_LIST, i);
    const entry = walkSecureEpt(vp, Number(gpa), 0);
    if (!entry.leaf || (entry.low & SEPT_LOW.RWX) !== SEPT_LOW.RWX) missing = gpa;
  }
  releaseSharex(lp, lock, key, Lock.EXCLUSIVE);
  if (missing >= 0n) return { kind: "fault", gpa: missing };
  return { kind: (tdcs.get(TDCS.NOTIFY_ENABLES) & 1n) !== 0n ? "notify" : "ok" };
}
