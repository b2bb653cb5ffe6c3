/** Whether all translations from before a range was blocked are gone. Source: intel/tdx-module src/common/helpers/helpers.h (is_tlb_tracked). */
import type { Hpa } from "@swtdx/abi";
import type { SeamCall } from "../call.js";
import { pamtBepoch } from "../structures/pamt.js";
import { TDCS } from "../structures/tdcs.js";

/** @param entry PAMT entry of the page, whose BEPOCH is the epoch it was blocked in */
export function isTlbTracked(call: SeamCall, entry: Hpa): boolean {
  const { tdcs } = call;
  const epoch = tdcs.get(TDCS.TD_EPOCH);
  const blocked = pamtBepoch(call.lp, entry, call.globalHkid);
  if (epoch > blocked + 1n) return true;
  // In the very next epoch: no vCPU may still run in the one before.
  return epoch === blocked + 1n && tdcs.getAt(TDCS.REFCOUNT, Number(blocked & 1n)) === 0;
}
