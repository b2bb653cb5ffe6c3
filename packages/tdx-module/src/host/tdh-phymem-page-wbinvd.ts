/** TDH.PHYMEM.PAGE.WBINVD: writes back the lines of a page that no TD owns. Source: intel/tdx-module tdh_phymem_page_wbinvd.c. */
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { PageType } from "../structures/pamt.js";
import { hpaOperand, lockPage } from "./support.js";

/** RCX: HPA of the page with the KeyID whose lines are meant. There are no caches here: memory is what was written. */
export const tdhPhymemPageWbinvd: SeamcallHandler = (call) => {
  const page = call.rcx >> 52n === 0n ? call.rcx & ((1n << BigInt(call.module.keyIdShift)) - 1n) : call.rcx;
  return lockPage(call, hpaOperand(call, page), "RCX", Lock.SHARED, PageType.PT_NDA);
};
