/** TDH.MEM.PAGE.PROMOTE: 512 small private pages side by side become a large one. Source: intel/tdx-module tdh_mem_page_promote.c. */
import { type Hpa, TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamCall, SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { Level, PageType, setPamtPageType } from "../structures/pamt.js";
import { SEPT_HIGH, SeptEntry, SeptLevel, SeptState } from "../structures/sept.js";
import { pamtPromote } from "./pamt-range.js";
import {
  checkBlockedAndTracked,
  implicitPamtEntry,
  lockAndWalkSept,
  lockImplicit,
  lockSeptEntry,
  lockTd,
  pageInfo,
  reportSept,
  septStateAllowed,
  septStateIncorrect,
  traceSept,
  writeSeptAndUnlock,
} from "./support.js";

const NULL_PA = 0xffff_ffff_ffff_ffffn;
const ENTRIES = 512;
const child = new SeptEntry();

/**
 * Whether the entries of the table at `table` map one large page: all in one state (mapped or pending), side by side
 * from an aligned address. The first is left in `child`.
 */
function checkMerge(call: SeamCall, table: Hpa, level: number): bigint {
  const size = 2 ** (12 + 9 * (level - 1));
  child.keyId = call.tdcs.keyId;
  child.level = level - 1;
  let [low, high, start] = [0, 0, 0];
  for (let i = 0; i < ENTRIES; i++) {
    child.pa = (table + 8 * i) as Hpa;
    child.read(call.lp);
    if (child.locked) {
      child.high |= SEPT_HIGH.TDHP;
      child.write(call.lp);
      return TDX_STATUS.TDX_OPERAND_BUSY;
    }
    child.cleanupPending();
    const attributes = child.high & ~SEPT_HIGH.HPA_MASK & ~SEPT_HIGH.TDHP;
    if (i === 0) {
      start = child.hpa;
      [low, high] = [child.low & 0xfff, attributes];
      const { state } = child;
      if (start % 2 ** (12 + 9 * level) !== 0) return TDX_STATUS.TDX_EPT_INVALID_PROMOTE_CONDITIONS;
      if (state !== SeptState.MAPPED && state !== SeptState.PENDING)
        return TDX_STATUS.TDX_EPT_INVALID_PROMOTE_CONDITIONS;
    } else if ((child.low & 0xfff) !== low || attributes !== high || child.hpa !== start + i * size)
      return TDX_STATUS.TDX_EPT_INVALID_PROMOTE_CONDITIONS;
  }
  child.pa = table;
  child.read(call.lp);
  child.cleanupPending();
  return TDX_STATUS.TDX_SUCCESS;
}

/** RCX: GPA and level (1 or 2). RDX: HPA of the TDR. RCX out: HPA of the Secure EPT page; R9-R11 out (version 1): no L2 pages. */
export const tdhMemPagePromote: SeamcallHandler = (call, version) => {
  const { lp } = call;
  const [mapping, handle] = [call.rcx, call.rdx];
  call.clear("RCX", "RDX");
  if (version > 0) for (const register of ["R9", "R10", "R11"] as const) call.set(register, NULL_PA);
  let status = lockTd(call, handle, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const info = pageInfo(mapping, SeptLevel.PD, SeptLevel.PDPT);
  if (info === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  status = lockAndWalkSept(call, info.gpa, info.level, Lock.SHARED);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockSeptEntry(call);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { sept } = call;
  if (!septStateAllowed(call)) return septStateIncorrect(call);
  const table = sept.hpa;
  const tableEntry = implicitPamtEntry(call, table, Level.PT_4KB);
  status = lockImplicit(call, tableEntry, Lock.EXCLUSIVE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return withOperand(status, "RCX");
  status = checkBlockedAndTracked(call, tableEntry);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  status = checkMerge(call, table, info.level);
  if (status !== TDX_STATUS.TDX_SUCCESS) {
    reportSept(call);
    return withOperand(status, "RCX");
  }
  if (lp.interruptPending) {
    call.set("RCX", mapping);
    call.set("RDX", handle);
    return TDX_STATUS.TDX_INTERRUPTED_RESTARTABLE;
  }
  status = pamtPromote(call, child.hpa, info.level);
  if (status !== TDX_STATUS.TDX_SUCCESS) return withOperand(status, "RCX");

  [sept.low, sept.high] = [child.low, child.high];
  writeSeptAndUnlock(call);
  call.tdr.addChildren(-1);
  setPamtPageType(lp, tableEntry, call.globalHkid, PageType.PT_NDA);
  traceSept(call, "PAGE.PROMOTE", info.gpa);
  call.set("RCX", BigInt(table));
  return TDX_STATUS.TDX_SUCCESS;
};
