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
  septStateAllowed,
  septStateIncorrect,
  traceSept,
  writeSeptAndUnlock,
} from "./support.js";

const NULL_PA = 0xffff_ffff_ffff_ffffn;
/** RDX[0]: pages that exist already are no error. */
const ALLOW_EXISTING = 1n;

const L2_REGISTERS = ["R9", "R10", "R11"] as const;
/** Bit 63 of a page that comes back: it was not used. */
const NOT_USED = 1n << 63n;

/** RCX: GPA and level. RDX: HPA of the TDR and flags. R8: HPA of the page; R9-R11 (version 1): pages for L2 VMs. */
export const tdhMemSeptAdd: SeamcallHandler = (call, version) => {
  const { lp } = call;
  const [mapping, handle] = [call.rcx, call.rdx];
  const operand = (value: bigint): bigint => (value === NULL_PA ? value : value & ~NOT_USED);
  const page = operand(call.r8);
  const l2 = version > 0 ? L2_REGISTERS.map((register) => operand(call.regs.gpr(Gpr[register]))) : [];
  call.clear("RCX", "RDX");
  // What comes back in R8-R11: the pages that are left.
  if (version > 0) {
    call.set("R8", page);
    l2.forEach((pa, i) => call.set(L2_REGISTERS[i], pa));
  }
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
  if (!septStateAllowed(call)) return septStateIncorrect(call);
  const free = sept.state === SeptState.FREE;
  const given = page !== NULL_PA;
  if (!given && version === 0) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "R8");
  if (given ? !free && !allowExisting : sept.state !== SeptState.NL_MAPPED) return septStateIncorrect(call);
  const pa = hpaOperand(call, page) as Hpa;
  if (free) {
    status = lockPage(call, pa, "R8", Lock.EXCLUSIVE, PageType.PT_NDA);
    if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  }
  const l2Page = l2.findIndex((one) => one !== NULL_PA);
  if (l2Page >= 0) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, L2_REGISTERS[l2Page]);
  if (!free) {
    if (version > 0) call.set("R8", page | NOT_USED);
    return TDX_STATUS.TDX_SUCCESS;
  }

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
