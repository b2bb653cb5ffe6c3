/**
 * TDH.MEM.SEPT.ADD: a Secure EPT page. Version 1 also takes pages for L2 VMs; this module offers none, so they must be
 * "no page" there. Source: intel/tdx-module tdh_mem_sept_add.c.
 */
import { type Hpa, TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { PageType, setPamtBepoch, setPamtEntry } from "../structures/pamt.js";
import { SeptLevel, SeptState } from "../structures/sept.js";
import { fillSeptPage } from "./fill.js";
import {
  hpaOperand,
  lockAndWalkSept,
  lockPage,
  lockSeptEntry,
  lockTd,
  pageInfo,
  septRootLevel,
  septStateIncorrect,
  traceSept,
  writeSeptAndUnlock,
} from "./support.js";

const NULL_PA = 0xffff_ffff_ffff_ffffn;
/** RDX[0]: pages that exist already are no error. */
const ALLOW_EXISTING = 1n;

/** RCX: GPA and level. RDX: HPA of the TDR and flags. R8: HPA of the page; R9-R11 (version 1): pages for L2 VMs. */
export const tdhMemSeptAdd: SeamcallHandler = (call, version) => {
  const { lp } = call;
  const [mapping, handle, page] = [call.rcx, call.rdx, call.r8];
  const l2 = version > 0 ? [Gpr.R9, Gpr.R10, Gpr.R11].map((register) => call.regs.gpr(register)) : [];
  call.clear("RCX", "RDX");
  if ((handle & 0xffen) !== 0n || handle >> 52n !== 0n)
    return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");
  const allowExisting = (handle & ALLOW_EXISTING) !== 0n;
  let status = lockTd(call, handle & ~0xfffn, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const info = pageInfo(mapping, SeptLevel.PD, septRootLevel(call));
  if (info === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  status = lockAndWalkSept(call, info.gpa, info.level, Lock.SHARED);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockSeptEntry(call);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { sept } = call;
  const exists = sept.state === SeptState.NL_MAPPED;
  if (!exists && sept.state !== SeptState.FREE) return septStateIncorrect(call);
  const given = page !== NULL_PA;
  if (!given && version === 0) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "R8");
  if ((!given && !exists) || (given && exists && !allowExisting)) return septStateIncorrect(call);
  const missing = l2.findIndex((pa) => pa !== NULL_PA);
  if (missing >= 0) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, missing + 9);
  if (exists) return TDX_STATUS.TDX_SUCCESS;
  const pa = hpaOperand(call, page & ~(1n << 63n)) as Hpa;
  status = lockPage(call, pa, "R8", Lock.EXCLUSIVE, PageType.PT_NDA);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;

  fillSeptPage(lp, pa, call.tdr.hkid);
  setPamtEntry(lp, call.pamtEntry, call.globalHkid, PageType.PT_EPT, call.tdr.base);
  setPamtBepoch(lp, call.pamtEntry, call.globalHkid, 0n);
  call.tdr.addChildren(1);
  sept.setTable(pa);
  writeSeptAndUnlock(call);
  if (version > 0) call.set("R8", NULL_PA);
  traceSept(call, "SEPT.ADD", info.gpa);
  return TDX_STATUS.TDX_SUCCESS;
};
