/** TDH.MEM.SEPT.REMOVE: an empty, blocked Secure EPT page goes back. Source: intel/tdx-module tdh_mem_sept_remove.c. */
import { type Hpa, TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { Level, PageType, setPamtPageType } from "../structures/pamt.js";
import { SeptEntry, SeptLevel, SeptState } from "../structures/sept.js";
import { TDCS } from "../structures/tdcs.js";
import { opStateNeedsTlbTracking } from "../tables/op-state.js";
import { isTlbTracked } from "./tlb-tracked.js";
import {
  implicitPamtEntry,
  lockAndWalkSept,
  lockImplicit,
  lockSeptEntry,
  lockTd,
  pageInfo,
  reportSept,
  septRootLevel,
  septStateIncorrect,
  traceSept,
  writeSeptAndUnlock,
} from "./support.js";

const child = new SeptEntry();

/** RCX: GPA and level. RDX: HPA of the TDR. RCX out: HPA of the page. */
export const tdhMemSeptRemove: SeamcallHandler = (call) => {
  const { lp } = call;
  const [mapping, handle] = [call.rcx, call.rdx];
  call.clear("RCX", "RDX");
  let status = lockTd(call, handle, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const info = pageInfo(mapping, SeptLevel.PD, septRootLevel(call));
  if (info === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  status = lockAndWalkSept(call, info.gpa, info.level, Lock.EXCLUSIVE);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockSeptEntry(call);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { sept, tdcs } = call;
  if (sept.state !== SeptState.NL_MAPPED && sept.state !== SeptState.NL_BLOCKED)
    return septStateIncorrect(call);
  const page = sept.hpa;
  const entry = implicitPamtEntry(call, page, Level.PT_4KB);
  status = lockImplicit(call, entry, Lock.EXCLUSIVE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return withOperand(status, "RCX");
  if (opStateNeedsTlbTracking(tdcs.get(TDCS.OP_STATE))) {
    if (sept.state !== SeptState.NL_BLOCKED) {
      reportSept(call);
      return withOperand(TDX_STATUS.TDX_GPA_RANGE_NOT_BLOCKED, "RCX");
    }
    if (!isTlbTracked(call, entry)) return withOperand(TDX_STATUS.TDX_TLB_TRACKING_NOT_DONE, "RCX");
  }
  child.keyId = tdcs.keyId;
  for (let at = 0; at < 4096; at += 8) {
    child.pa = (page + at) as Hpa;
    child.read(lp);
    if (child.state !== SeptState.FREE) return withOperand(TDX_STATUS.TDX_EPT_PAGE_NOT_FREE, "RCX");
  }

  traceSept(call, "SEPT.REMOVE", info.gpa);
  sept.setFree();
  writeSeptAndUnlock(call);
  call.tdr.addChildren(-1);
  setPamtPageType(lp, entry, call.globalHkid, PageType.PT_NDA);
  call.set("RCX", BigInt(page));
  return TDX_STATUS.TDX_SUCCESS;
};
