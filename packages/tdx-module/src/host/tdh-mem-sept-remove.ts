/** TDH.MEM.SEPT.REMOVE: an empty, blocked Secure EPT page goes back. Source: intel/tdx-module tdh_mem_sept_remove.c. */
import { type Hpa, TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { Level, PageType, setPamtPageType } from "../structures/pamt.js";
import { SeptEntry, SeptLevel, SeptState } from "../structures/sept.js";
import {
  checkBlockedAndTracked,
  implicitPamtEntry,
  lockAndWalkSept,
  lockImplicit,
  lockSeptEntry,
  lockTd,
  pageInfo,
  reportSept,
  septRootLevel,
  septStateAllowed,
  septStateIncorrect,
  traceSept,
  writeSeptAndUnlock,
} from "./support.js";

const NULL_PA = 0xffff_ffff_ffff_ffffn;
const child = new SeptEntry();

/** RCX: GPA and level. RDX: HPA of the TDR. RCX out: HPA of the page; R9-R11 out (version 1): no L2 pages. */
export const tdhMemSeptRemove: SeamcallHandler = (call, version) => {
  const { lp } = call;
  const [mapping, handle] = [call.rcx, call.rdx];
  call.clear("RCX", "RDX");
  if (version > 0) for (const register of ["R9", "R10", "R11"] as const) call.set(register, NULL_PA);
  let status = lockTd(call, handle, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const info = pageInfo(mapping, SeptLevel.PD, septRootLevel(call));
  if (info === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  status = lockAndWalkSept(call, info.gpa, info.level, Lock.EXCLUSIVE);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockSeptEntry(call);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { sept } = call;
  if (!septStateAllowed(call)) return septStateIncorrect(call);
  const page = sept.hpa;
  const entry = implicitPamtEntry(call, page, Level.PT_4KB);
  status = lockImplicit(call, entry, Lock.EXCLUSIVE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return withOperand(status, "RCX");
  status = checkBlockedAndTracked(call, entry);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  child.keyId = call.tdcs.keyId;
  for (let at = 0; at < 4096; at += 8) {
    child.pa = (page + at) as Hpa;
    child.read(lp);
    if (child.state === SeptState.FREE) continue;
    reportSept(call);
    return withOperand(TDX_STATUS.TDX_EPT_PAGE_NOT_FREE, "RCX");
  }

  traceSept(call, "SEPT.REMOVE", info.gpa);
  sept.setFree();
  writeSeptAndUnlock(call);
  call.tdr.addChildren(-1);
  setPamtPageType(lp, entry, call.globalHkid, PageType.PT_NDA);
  call.set("RCX", BigInt(page));
  return TDX_STATUS.TDX_SUCCESS;
};
