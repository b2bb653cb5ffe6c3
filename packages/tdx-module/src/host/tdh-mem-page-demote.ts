/**
 * TDH.MEM.PAGE.DEMOTE: a large private page becomes 512 small ones. This module offers no L2 VMs, so their Secure EPT
 * pages stay the VMM's. Source: intel/tdx-module tdh_mem_page_demote.c.
 */
import { type Hpa, TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamCall, SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { PageType, setPamtEntry } from "../structures/pamt.js";
import { SEPT_HIGH, SEPT_LOW, SeptLevel } from "../structures/sept.js";
import { pamtDemote } from "./pamt-range.js";
import { unblock } from "./sept-unblock.js";
import {
  checkBlockedAndTracked,
  hpaOperand,
  implicitPamtEntry,
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

/** RDX[0]: L2 Secure EPT pages are taken only where needed. */
const L2_SEPT_ADD_MODE = 1n;
const ENTRIES = 512;
const table = new Uint8Array(ENTRIES * 8);
const words = new Uint32Array(table.buffer);

/** Fills the page at `pa` with entries like the one at hand for the parts of its page. */
function splitEntry(call: SeamCall, pa: Hpa): void {
  const { sept } = call;
  const size = 2 ** (12 + 9 * (sept.level - 1));
  const low = sept.low & 0xfff & ~SEPT_LOW.TDEL;
  const high = sept.high & ~SEPT_HIGH.HPA_MASK;
  for (let i = 0; i < ENTRIES; i++) {
    const part = sept.hpa + i * size;
    words[2 * i] = low | (part & 0xffff_f000);
    words[2 * i + 1] = high | Math.floor(part / 2 ** 32);
  }
  call.lp.write(pa, sept.keyId, table);
}

/** RCX: GPA and level (1 or 2). RDX: HPA of the TDR and flags. R8: HPA of a page for the Secure EPT. */
export const tdhMemPageDemote: SeamcallHandler = (call) => {
  const { lp } = call;
  const [mapping, handle] = [call.rcx, call.rdx];
  call.clear("RCX", "RDX");
  if ((handle & 0xffen) !== 0n || handle >> 52n !== 0n)
    return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");
  let status = lockTd(call, handle & ~L2_SEPT_ADD_MODE, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const info = pageInfo(mapping, SeptLevel.PD, SeptLevel.PDPT);
  if (info === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  status = lockAndWalkSept(call, info.gpa, info.level, Lock.SHARED);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockSeptEntry(call);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { sept } = call;
  if (!septStateAllowed(call)) return septStateIncorrect(call);
  sept.cleanupPending();
  const page = sept.hpa;
  const entry = implicitPamtEntry(call, page, sept.level);
  status = checkBlockedAndTracked(call, entry);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const septPage = hpaOperand(call, call.r8) as Hpa;
  status = lockPage(call, septPage, "R8", Lock.EXCLUSIVE, PageType.PT_NDA);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const septEntry = call.pamtEntry;
  unblock(sept);
  splitEntry(call, septPage);
  if (lp.interruptPending) {
    call.set("RCX", mapping);
    call.set("RDX", handle);
    return TDX_STATUS.TDX_INTERRUPTED_RESTARTABLE;
  }
  status = pamtDemote(call, page, sept.level);
  if (status !== TDX_STATUS.TDX_SUCCESS) return withOperand(status, "RCX");

  sept.setTable(septPage);
  writeSeptAndUnlock(call);
  setPamtEntry(lp, septEntry, call.globalHkid, PageType.PT_EPT, call.tdr.base);
  call.tdr.addChildren(1);
  traceSept(call, "PAGE.DEMOTE", info.gpa);
  return TDX_STATUS.TDX_SUCCESS;
};
