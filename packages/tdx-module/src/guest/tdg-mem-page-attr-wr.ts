/**
 * TDG.MEM.PAGE.ATTR.WR (leaf 24): sets a page's attributes for L2 VMs. Without L2 VMs all attributes must be 0.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_mem_page_attr_wr.c.
 */
import { TDX_STATUS, VMX_EEQ_TYPE, withOperand } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import type { Flow, VpContext } from "../entry/vp-context.js";
import { asyncTdexitEptViolation } from "../exits/td-ept-violation.js";
import { SeptState } from "../structures/sept.js";
import { checkGpaValidity, pageInfo, walkSecureEpt } from "./gpa.js";
import { failPageAttr, mappingAndFlags } from "./tdg-mem-page-attr-rd.js";

const LEVEL_1G = 2;
/** States whose attributes may change: MAPPED, EXPORTED_DIRTY, PENDING, PENDING_EXPORTED_DIRTY. */
const ALLOWED: ReadonlySet<SeptState> = new Set([
  SeptState.MAPPED,
  SeptState.EXPORTED_DIRTY,
  SeptState.PENDING,
  SeptState.PENDING_EXPORTED_DIRTY,
]);

export function tdgMemPageAttrWr(vp: VpContext): bigint | Flow {
  const { lp, regs } = vp;
  const { TDX_OPERAND_INVALID } = TDX_STATUS;
  if (regs.gpr(Gpr.RDX) !== 0n) return failPageAttr(vp, withOperand(TDX_OPERAND_INVALID, "RDX"));
  if (regs.gpr(Gpr.R8) !== 0n) return failPageAttr(vp, withOperand(TDX_OPERAND_INVALID, "R8"));
  const operand = pageInfo(regs.gpr(Gpr.RCX), LEVEL_1G);
  if (operand === null || !checkGpaValidity(vp, operand.gpa, true))
    return failPageAttr(vp, withOperand(TDX_OPERAND_INVALID, "RCX"));
  const gpa = Number(operand.gpa);
  const entry = walkSecureEpt(vp, gpa, operand.level);
  if (entry.level !== operand.level)
    return asyncTdexitEptViolation(vp, gpa, operand.level, entry, VMX_EEQ_TYPE.ATTR_WR);
  const locked = entry.lockForGuest(lp);
  if (locked !== "ok") {
    const busy = locked === "busy" ? TDX_STATUS.TDX_OPERAND_BUSY : TDX_STATUS.TDX_OPERAND_BUSY_HOST_PRIORITY;
    return failPageAttr(vp, withOperand(busy, "RCX"));
  }
  entry.unlock(lp);
  if (!entry.leaf && entry.state !== SeptState.FREE)
    return failPageAttr(vp, withOperand(TDX_STATUS.TDX_PAGE_SIZE_MISMATCH, entry.level));
  if (!ALLOWED.has(entry.state))
    return asyncTdexitEptViolation(vp, gpa, operand.level, entry, VMX_EEQ_TYPE.ATTR_WR);
  regs.setGpr(Gpr.RCX, mappingAndFlags(operand.gpa, entry));
  regs.setGpr(Gpr.RDX, 0n);
  return TDX_STATUS.TDX_SUCCESS;
}
