/** TDH.VP.ADDCX: the next page of a TDVPS. Source: intel/tdx-module tdh_vp_addcx.c. */
import { type Hpa, TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { PageType, setPamtEntry } from "../structures/pamt.js";
import { MAX_TDVPS_PAGES, TDVPS, TdvpsStructure, VcpuState } from "../structures/tdvps.js";
import { hpaOperand, lockPage, lockTdcs, lockTdvpr } from "./support.js";

/** RCX: HPA of the page. RDX: HPA of the TDVPR. */
export const tdhVpAddcx: SeamcallHandler = (call) => {
  const { lp } = call;
  let status = lockTdvpr(call, call.rdx, "RDX", Lock.EXCLUSIVE);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockTdcs(call, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { tdr } = call;
  const tdvps = new TdvpsStructure(lp, Number(call.rdx) as Hpa, tdr.hkid);
  if (tdvps.get(TDVPS.VCPU_STATE) !== VcpuState.VCPU_UNINITIALIZED)
    return TDX_STATUS.TDX_VCPU_STATE_INCORRECT;
  const index = tdvps.get(TDVPS.NUM_TDVPS_PAGES);
  if (index >= MAX_TDVPS_PAGES) return TDX_STATUS.TDX_TDCX_NUM_INCORRECT;
  const page = hpaOperand(call, call.rcx) as Hpa;
  const locked = lockPage(call, page, "RCX", Lock.EXCLUSIVE, PageType.PT_NDA);
  if (locked !== TDX_STATUS.TDX_SUCCESS) return locked;

  lp.zero(page, tdr.hkid, 4096);
  tdvps.setNumber({ offset: TDVPS.TDVPS_PAGE_PA.offset + index * 8, size: 8 }, page);
  tdvps.set(TDVPS.NUM_TDVPS_PAGES, index + 1);
  tdr.addChildren(1);
  setPamtEntry(lp, call.pamtEntry, call.globalHkid, PageType.PT_TDCX, tdr.base);
  return TDX_STATUS.TDX_SUCCESS;
};
