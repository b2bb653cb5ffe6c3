/** TDH.VP.CREATE: a TDVPR page becomes the root of a vCPU. Source: intel/tdx-module tdh_vp_create.c. */
import { type Hpa, TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { PageType, setPamtEntry } from "../structures/pamt.js";
import { TDVPS, TdvpsStructure, VCPU_NO_LP } from "../structures/tdvps.js";
import { hpaOperand, lockPage, lockTd } from "./support.js";

/** RCX: HPA of the page for the TDVPR. RDX: HPA of the TDR. */
export const tdhVpCreate: SeamcallHandler = (call) => {
  const { lp } = call;
  const status = lockTd(call, call.rdx, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const page = hpaOperand(call, call.rcx) as Hpa;
  const locked = lockPage(call, page, "RCX", Lock.EXCLUSIVE, PageType.PT_NDA);
  if (locked !== TDX_STATUS.TDX_SUCCESS) return locked;

  const { tdr } = call;
  lp.zero(page, tdr.hkid, 4096);
  const tdvps = new TdvpsStructure(lp, page, tdr.hkid);
  tdvps.set(TDVPS.NUM_TDVPS_PAGES, 1);
  tdvps.set(TDVPS.ASSOC_LPID, VCPU_NO_LP);
  tdvps.setNumber(TDVPS.TDVPS_PAGE_PA, page);
  tdr.addChildren(1);
  setPamtEntry(lp, call.pamtEntry, call.globalHkid, PageType.PT_TDVPR, tdr.base);
  return TDX_STATUS.TDX_SUCCESS;
};
