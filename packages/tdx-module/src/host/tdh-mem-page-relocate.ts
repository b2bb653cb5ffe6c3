/** TDH.MEM.PAGE.RELOCATE: another page of memory takes the place of a private one. Source: intel/tdx-module tdh_mem_page_relocate.c. */
import { type Hpa, TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { Level, PageType, setPamtBepoch, setPamtEntry, setPamtPageType } from "../structures/pamt.js";
import { SEPT_HIGH, SeptLevel } from "../structures/sept.js";
import { unblock } from "./sept-unblock.js";
import {
  checkBlockedAndTracked,
  hpaOperand,
  implicitPamtEntry,
  lockAndWalkSept,
  lockImplicit,
  lockPage,
  lockSeptEntry,
  lockTd,
  pageInfo,
  septStateAllowed,
  septStateIncorrect,
  traceSept,
  writeSeptAndUnlock,
} from "./support.js";

/** RCX: GPA and level (0). RDX: HPA of the TDR. R8: HPA of the new page. RCX out: HPA of the old page. */
export const tdhMemPageRelocate: SeamcallHandler = (call) => {
  const { lp } = call;
  const [mapping, handle] = [call.rcx, call.rdx];
  call.clear("RCX", "RDX");
  let status = lockTd(call, handle, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const info = pageInfo(mapping, SeptLevel.PT, SeptLevel.PT);
  if (info === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  status = lockAndWalkSept(call, info.gpa, info.level, Lock.SHARED);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockSeptEntry(call);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { sept } = call;
  if (!sept.leaf || !septStateAllowed(call)) return septStateIncorrect(call);
  const old = sept.hpa;
  const page = hpaOperand(call, call.r8) as Hpa;
  if (page === old) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "R8");
  const oldEntry = implicitPamtEntry(call, old, Level.PT_4KB);
  status = lockImplicit(call, oldEntry, Lock.EXCLUSIVE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return withOperand(status, "RCX");
  status = checkBlockedAndTracked(call, oldEntry);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  status = lockPage(call, page, "R8", Lock.EXCLUSIVE, PageType.PT_NDA);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;

  if (!sept.info.anyPending) lp.copy(page, sept.keyId, old, sept.keyId, 4096);
  setPamtPageType(lp, oldEntry, call.globalHkid, PageType.PT_NDA);
  setPamtEntry(lp, call.pamtEntry, call.globalHkid, PageType.PT_REG, call.tdr.base);
  setPamtBepoch(lp, call.pamtEntry, call.globalHkid, 0n);
  sept.low = (sept.low & 0xfff) | (page & 0xffff_f000);
  sept.high = (sept.high & ~SEPT_HIGH.HPA_MASK) | Math.floor(page / 2 ** 32);
  unblock(sept);
  writeSeptAndUnlock(call);
  traceSept(call, "PAGE.RELOCATE", info.gpa);
  call.set("RCX", BigInt(old));
  return TDX_STATUS.TDX_SUCCESS;
};
