/**
 * TLB tracking: which TD epoch a vCPU entered in, and how many vCPUs run in each.
 *
 * Source: intel/tdx-module 1.5.05 src/common/helpers/helpers.c (adjust_tlb_tracking_state), helpers.h
 * (revert_tlb_tracking_state, flush_all_td_asids).
 */
import { TDX_STATUS } from "@swtdx/abi";
import type { SeamContext } from "@swtdx/cpu";
import { acquireSharex, Lock, releaseSharex } from "../locks.js";
import { TDCS, type TdcsStructure } from "../structures/tdcs.js";
import { TDVPS, type TdvpsStructure } from "../structures/tdvps.js";

/** Drops all translations of the TD on this logical processor. */
export function flushAllTdAsids(lp: SeamContext, tdcs: TdcsStructure): void {
  lp.invept(1, tdcs.get(TDCS.EPTP));
}

/**
 * Counts this vCPU in under the current epoch, and flushes when it was last here in an older one.
 * @param newAssociation the vCPU came to this logical processor just now: there is nothing to flush
 * @returns false: TDH.MEM.TRACK holds the epoch's lock
 */
export function adjustTlbTrackingState(
  lp: SeamContext,
  tdcs: TdcsStructure,
  tdvps: TdvpsStructure,
  newAssociation: boolean,
): boolean {
  const lock = tdcs.pa(TDCS.EPOCH_LOCK.offset);
  const key = tdcs.keyId;
  if (acquireSharex(lp, lock, key, Lock.SHARED) !== TDX_STATUS.TDX_SUCCESS) return false;
  const low = tdcs.low(TDCS.TD_EPOCH);
  const high = tdcs.high(TDCS.TD_EPOCH);
  count(tdcs, low, 1);
  releaseSharex(lp, lock, key, Lock.SHARED);
  if (low !== tdvps.low(TDVPS.VCPU_EPOCH) || high !== tdvps.high(TDVPS.VCPU_EPOCH)) {
    if (!newAssociation) flushAllTdAsids(lp, tdcs);
    tdvps.setHalves(TDVPS.VCPU_EPOCH, low, high);
  }
  return true;
}

/** The vCPU will not be entered after all. */
export const revertTlbTrackingState = (tdcs: TdcsStructure, tdvps: TdvpsStructure): void =>
  count(tdcs, tdvps.low(TDVPS.VCPU_EPOCH), -1);

const count = (tdcs: TdcsStructure, epoch: number, by: number): void => {
  const index = epoch & 1;
  tdcs.setAt(TDCS.REFCOUNT, index, (tdcs.getAt(TDCS.REFCOUNT, index) + by) & 0xffff);
};
