/** TDH.MEM.PAGE.REMOVE: a private page goes back to the VMM. Source: intel/tdx-module tdh_mem_page_remove.c. */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { PageType, setPamtPageType } from "../structures/pamt.js";
import { SeptLevel, SeptState } from "../structures/sept.js";
import { OpState, TDCS } from "../structures/tdcs.js";
import {
  checkBlockedAndTracked,
  implicitPamtEntry,
  lockAndWalkSept,
  lockImplicit,
  lockSeptEntry,
  lockTd,
  pageInfo,
  septStateAllowed,
  septStateIncorrect,
  traceSept,
  writeSeptAndUnlock,
} from "./support.js";

/** RCX: GPA and level. RDX: HPA of the TDR. RCX out: HPA of the page. */
export const tdhMemPageRemove: SeamcallHandler = (call) => {
  const [mapping, handle] = [call.rcx, call.rdx];
  call.clear("RCX", "RDX");
  let status = lockTd(call, handle, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const info = pageInfo(mapping, SeptLevel.PT, SeptLevel.PDPT);
  if (info === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  status = lockAndWalkSept(call, info.gpa, info.level, Lock.SHARED);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockSeptEntry(call);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { sept, tdcs } = call;
  if (!sept.leaf || !septStateAllowed(call)) return septStateIncorrect(call);
  sept.cleanupPending();
  const page = sept.hpa;
  const entry = implicitPamtEntry(call, page, sept.level);
  status = lockImplicit(call, entry, Lock.EXCLUSIVE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return withOperand(status, "RCX");
  status = checkBlockedAndTracked(call, entry);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;

  const level = sept.level;
  traceSept(call, "PAGE.REMOVE", info.gpa);
  // An import would have to tell a removed page from one that never was.
  const opState = tdcs.get(TDCS.OP_STATE);
  sept.setFree();
  if (opState === OpState.MEMORY_IMPORT || opState === OpState.LIVE_IMPORT) sept.setState(SeptState.REMOVED);
  writeSeptAndUnlock(call);
  call.tdr.addChildren(-(512 ** level));
  setPamtPageType(call.lp, entry, call.globalHkid, PageType.PT_NDA);
  call.set("RCX", BigInt(page));
  return TDX_STATUS.TDX_SUCCESS;
};
