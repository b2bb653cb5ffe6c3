/** TDH.MEM.PAGE.AUG: a private page for a TD, pending the guest's acceptance. Source: intel/tdx-module tdh_mem_page_aug.c. */
import { type Hpa, TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { PageType, setPamtBepoch, setPamtEntry } from "../structures/pamt.js";
import { SeptLevel, SeptState } from "../structures/sept.js";
import {
  hpaOperand,
  lockAndWalkSept,
  lockPage,
  lockSeptEntry,
  lockTd,
  pageInfo,
  septStateAllowed,
  septStateIncorrect,
  traceSept,
  writeSeptAndUnlock,
} from "./support.js";
import { is2mRangeFree } from "./pamt-range.js";

/** RCX: GPA and level (0 or 1). RDX: HPA of the TDR. R8: HPA of the page. */
export const tdhMemPageAug: SeamcallHandler = (call) => {
  const { lp } = call;
  const [mapping, handle] = [call.rcx, call.rdx];
  call.clear("RCX", "RDX");
  let status = lockTd(call, handle, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const info = pageInfo(mapping, SeptLevel.PT, SeptLevel.PD);
  if (info === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  status = lockAndWalkSept(call, info.gpa, info.level, Lock.SHARED);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockSeptEntry(call);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { sept } = call;
  if (!septStateAllowed(call)) return septStateIncorrect(call);
  const page = hpaOperand(call, call.r8, 2 ** (12 + 9 * info.level)) as Hpa;
  status = lockPage(call, page, "R8", Lock.EXCLUSIVE, PageType.PT_NDA, info.level);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  if (info.level === SeptLevel.PD && !is2mRangeFree(call, page))
    return withOperand(TDX_STATUS.TDX_PAGE_METADATA_INCORRECT, "R8");

  sept.setLeaf(SeptState.PENDING, page, 0);
  writeSeptAndUnlock(call);
  call.tdr.addChildren(512 ** info.level);
  setPamtEntry(lp, call.pamtEntry, call.globalHkid, PageType.PT_REG, call.tdr.base);
  setPamtBepoch(lp, call.pamtEntry, call.globalHkid, 0n);
  traceSept(call, "PAGE.AUG", info.gpa);
  return TDX_STATUS.TDX_SUCCESS;
};
