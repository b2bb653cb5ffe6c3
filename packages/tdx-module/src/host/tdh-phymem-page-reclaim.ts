/** TDH.PHYMEM.PAGE.RECLAIM: a page of a TD in teardown goes back; the TDR last. Source: intel/tdx-module tdh_phymem_page_reclaim.c. */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { Level, PageType, findTdmr, pamtPageType, setPamtPageType } from "../structures/pamt.js";
import { LifecycleState, TDR, TdrStructure } from "../structures/tdr.js";
import { hpaOperand, lockImplicitTdr, pamtWalk } from "./support.js";
import type { Hpa } from "@swtdx/abi";

/** RCX: HPA of the page. RCX, RDX, R8 out: page type, owner's TDR, size. */
export const tdhPhymemPageReclaim: SeamcallHandler = (call) => {
  const { lp, module } = call;
  const page = hpaOperand(call, call.rcx);
  call.clear("RCX", "RDX", "R8", "R9", "R10", "R11");
  if (page < 0) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  const tdmr = findTdmr(module.tdmrs, page);
  if (tdmr === null) return withOperand(TDX_STATUS.TDX_OPERAND_ADDR_RANGE_ERROR, "RCX");
  let status = pamtWalk(call, tdmr, page, Lock.EXCLUSIVE, Level.PT_4KB);
  if (status !== TDX_STATUS.TDX_SUCCESS) return withOperand(status, "RCX");
  const { pamtEntry: entry, pamtLevel: level } = call;
  const type = pamtPageType(lp, entry, call.globalHkid);
  if (type === PageType.PT_NDA || type === PageType.PT_RSVD)
    return withOperand(TDX_STATUS.TDX_PAGE_METADATA_INCORRECT, "RCX");
  const owner = module.pamtOwner(lp, entry);
  call.set("RCX", BigInt(type));
  call.set("RDX", BigInt(owner));
  call.set("R8", BigInt(level));
  if (page % 2 ** (12 + 9 * level) !== 0) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  if (type === PageType.PT_TDR) {
    const tdr = new TdrStructure(lp, page as Hpa, call.globalHkid);
    if (tdr.get(TDR.LIFECYCLE_STATE) !== LifecycleState.TD_TEARDOWN)
      return TDX_STATUS.TDX_LIFECYCLE_STATE_INCORRECT;
    if (tdr.getNumber(TDR.CHLDCNT) !== 0) return TDX_STATUS.TDX_TD_ASSOCIATED_PAGES_EXIST;
    module.endMrtd(tdr.base);
  } else {
    status = lockImplicitTdr(call, owner, Lock.SHARED);
    if (status !== TDX_STATUS.TDX_SUCCESS) return status;
    if (call.tdr.get(TDR.LIFECYCLE_STATE) !== LifecycleState.TD_TEARDOWN)
      return TDX_STATUS.TDX_LIFECYCLE_STATE_INCORRECT;
    call.tdr.addChildren(-(512 ** level));
  }
  setPamtPageType(lp, entry, call.globalHkid, PageType.PT_NDA);
  return TDX_STATUS.TDX_SUCCESS;
};
