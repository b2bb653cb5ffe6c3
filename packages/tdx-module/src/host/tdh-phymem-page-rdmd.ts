/** TDH.PHYMEM.PAGE.RDMD: a page's metadata. Source: intel/tdx-module tdh_phymem_page_rdmd.c. */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { findTdmr, Level, PageType, pamtBepoch, pamtPageType } from "../structures/pamt.js";
import { hpaOperand, pamtWalk } from "./support.js";

/** RCX: HPA of the page. RCX, RDX, R8, R9 out: page type, owner's TDR, size, BEPOCH. */
export const tdhPhymemPageRdmd: SeamcallHandler = (call) => {
  const { lp, module } = call;
  const page = hpaOperand(call, call.rcx);
  call.clear("RCX", "RDX", "R8", "R9", "R10", "R11");
  if (page < 0) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  const tdmr = findTdmr(module.tdmrs, page);
  if (tdmr === null) return withOperand(TDX_STATUS.TDX_OPERAND_ADDR_RANGE_ERROR, "RCX");
  const status = pamtWalk(call, tdmr, page, Lock.SHARED, Level.PT_4KB);
  if (status !== TDX_STATUS.TDX_SUCCESS) return withOperand(status, "RCX");
  const type = pamtPageType(lp, call.pamtEntry, call.globalHkid);
  call.set("RCX", BigInt(type));
  call.set("RDX", BigInt(module.pamtOwner(lp, call.pamtEntry)));
  call.set("R8", BigInt(call.pamtLevel));
  if (type === PageType.PT_REG || type === PageType.PT_EPT)
    call.set("R9", pamtBepoch(lp, call.pamtEntry, call.globalHkid));
  return TDX_STATUS.TDX_SUCCESS;
};
