/** A Secure EPT entry as it was before TDH.MEM.RANGE.BLOCK. Source: intel/tdx-module sept_manager.h (sept_unblock). */
import { SEPT_LOW, type SeptEntry, SeptState } from "../structures/sept.js";

/** Blocked states and what they were; the pending ones have no access rights to give back. */
const UNBLOCKED: Partial<Record<SeptState, SeptState>> = {
  [SeptState.NL_BLOCKED]: SeptState.NL_MAPPED,
  [SeptState.BLOCKED]: SeptState.MAPPED,
  [SeptState.PENDING_BLOCKED]: SeptState.PENDING,
};

/** Takes blocking back in the entry at hand; one that is not blocked stays as it is. */
export function unblock(sept: SeptEntry): void {
  const state = UNBLOCKED[sept.state];
  if (state === undefined) return;
  sept.setState(state);
  if (state !== SeptState.PENDING) sept.low |= SEPT_LOW.RWX;
}
