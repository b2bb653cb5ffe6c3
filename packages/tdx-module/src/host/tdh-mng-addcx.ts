/** TDH.MNG.ADDCX: the next page of a TDCS. Source: intel/tdx-module tdh_mng_add_cx.c. */
import { type Hpa, TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { PageType, setPamtEntry } from "../structures/pamt.js";
import { MAX_NUM_TDCS_PAGES, MIN_NUM_TDCS_PAGES, TDCS, TdcsPage, TdcsStructure } from "../structures/tdcs.js";
import { LifecycleState, TDR } from "../structures/tdr.js";
import { opStateIsSeamcallAllowed } from "../tables/op-state.js";
import { fillPage, fillSeptPage } from "./fill.js";
import { hpaOperand, lockPage, lockTdr } from "./support.js";

/** RCX: HPA of the page. RDX: HPA of the TDR. */
export const tdhMngAddcx: SeamcallHandler = (call) => {
  const { lp } = call;
  const status = lockTdr(call, call.rdx, "RDX", Lock.EXCLUSIVE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { tdr } = call;
  if (tdr.get(TDR.FATAL) !== 0) return TDX_STATUS.TDX_TD_FATAL;
  if (tdr.get(TDR.LIFECYCLE_STATE) !== LifecycleState.TD_KEYS_CONFIGURED)
    return TDX_STATUS.TDX_TD_KEYS_NOT_CONFIGURED;
  const index = tdr.get(TDR.NUM_TDCX);
  if (index >= MAX_NUM_TDCS_PAGES) return TDX_STATUS.TDX_TDCX_NUM_INCORRECT;
  const page = hpaOperand(call, call.rcx) as Hpa;
  const locked = lockPage(call, page, "RCX", Lock.EXCLUSIVE, PageType.PT_NDA);
  if (locked !== TDX_STATUS.TDX_SUCCESS) return locked;
  // Pages beyond the required ones are for a TD that is not initialized yet.
  if (index >= MIN_NUM_TDCS_PAGES) {
    const opState = new TdcsStructure(tdr).get(TDCS.OP_STATE);
    if (!opStateIsSeamcallAllowed(call.leaf, opState)) return TDX_STATUS.TDX_OP_STATE_INCORRECT;
  }

  const hkid = tdr.hkid;
  if (index === TdcsPage.MSR_BITMAPS) fillPage(lp, page, hkid, 0xff);
  else if (index === TdcsPage.SEPT_ROOT) fillSeptPage(lp, page, hkid);
  else lp.zero(page, hkid, 4096);
  tdr.setNumber({ offset: TDR.TDCX_PA.offset + index * 8, size: 8 }, page);
  tdr.set(TDR.NUM_TDCX, index + 1);
  tdr.addChildren(1);
  setPamtEntry(lp, call.pamtEntry, call.globalHkid, PageType.PT_TDCX, tdr.base);
  return TDX_STATUS.TDX_SUCCESS;
};
