/** TDH.MEM.RANGE.UNBLOCK: takes RANGE.BLOCK back, once TLB tracking is done. Source: intel/tdx-module tdh_mem_range_unblock.c. */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { Level } from "../structures/pamt.js";
import { SeptLevel } from "../structures/sept.js";
import { unblock } from "./sept-unblock.js";
import { isTlbTracked } from "./tlb-tracked.js";
import {
  implicitPamtEntry,
  lockAndWalkSept,
  lockSeptEntry,
  lockTd,
  needsTlbTracking,
  pageInfo,
  septRootLevel,
  septStateAllowed,
  septStateIncorrect,
  traceSept,
  writeSeptAndUnlock,
} from "./support.js";

/** RCX: GPA and level. RDX: HPA of the TDR. */
export const tdhMemRangeUnblock: SeamcallHandler = (call) => {
  const [mapping, handle] = [call.rcx, call.rdx];
  call.clear("RCX", "RDX");
  let status = lockTd(call, handle, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const info = pageInfo(mapping, SeptLevel.PT, septRootLevel(call));
  if (info === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  status = lockAndWalkSept(call, info.gpa, info.level, Lock.EXCLUSIVE);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockSeptEntry(call);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { sept } = call;
  if (!septStateAllowed(call)) return septStateIncorrect(call);
  if (needsTlbTracking(call)) {
    const entry = implicitPamtEntry(call, sept.hpa, sept.leaf ? sept.level : Level.PT_4KB);
    if (!isTlbTracked(call, entry)) return withOperand(TDX_STATUS.TDX_TLB_TRACKING_NOT_DONE, "SEPT_TREE");
  }

  unblock(sept);
  writeSeptAndUnlock(call);
  traceSept(call, "RANGE.UNBLOCK", info.gpa);
  return TDX_STATUS.TDX_SUCCESS;
};
