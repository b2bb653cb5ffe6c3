/** A Secure EPT entry as it was before TDH.MEM.RANGE.BLOCK. Source: intel/tdx-module sept_manager.h (sept_unblock). */
import { SEPT_LOW, type SeptEntry, SeptState } from "../structures/sept.js";
import { SEPT_UNBLOCKED } from "../tables/sept-state.js";

/** Takes blocking back in the entry at hand; one that is not blocked stays as it is. Pending ones have no rights to give back. */
export function unblock(sept: SeptEntry): void {
  const state = SEPT_UNBLOCKED[sept.state];
  if (state === undefined) return;
  sept.setState(state);
  if (state !== SeptState.PENDING) sept.low |= SEPT_LOW.RWX;
}
