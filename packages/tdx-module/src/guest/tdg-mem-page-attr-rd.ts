/**
 * TDG.MEM.PAGE.ATTR.RD (leaf 23): how a private page is mapped. Attributes are those of L2 VMs; the L1 has none.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_mem_page_attr_rd.c.
 */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import type { Flow, VpContext } from "../entry/vp-context.js";
import { eptViolationExitToVmm } from "../exits/td-ept-violation.js";
import type { SeptEntry } from "../structures/sept.js";
import { ExitReason } from "../tables/exit-reasons.js";
import { checkGpaValidity, walkSecureEpt } from "./gpa.js";

/** RCX: GPA and level, bit 62 pending. */
export const mappingAndFlags = (gpa: bigint, entry: SeptEntry): bigint =>
  ((gpa >> BigInt(12 + 9 * entry.level)) << BigInt(12 + 9 * entry.level)) |
  BigInt(entry.level) |
  (entry.info.anyPending ? 1n << 62n : 0n);

/** RCX and RDX on failure. */
export function failPageAttr(vp: VpContext, status: bigint): bigint {
  vp.regs.setGpr(Gpr.RCX, 0n);
  vp.regs.setGpr(Gpr.RDX, 0n);
  return status;
}

export function tdgMemPageAttrRd(vp: VpContext): bigint | Flow {
  const { lp, regs } = vp;
  const gpa = regs.gpr(Gpr.RCX);
  if (!checkGpaValidity(vp, gpa, true))
    return failPageAttr(vp, withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX"));
  const entry = walkSecureEpt(vp, Number(gpa), 0);
  const locked = entry.lockForGuest(lp);
  if (locked !== "ok") {
    const busy = locked === "busy" ? TDX_STATUS.TDX_OPERAND_BUSY : TDX_STATUS.TDX_OPERAND_BUSY_HOST_PRIORITY;
    return failPageAttr(vp, withOperand(busy, "RCX"));
  }
  entry.unlock(lp);
  // Leaves that are not blocked.
  if (!entry.leaf || entry.info.anyBlocked)
    return eptViolationExitToVmm(vp, gpa, ExitReason.EPT_VIOLATION, 0n, 0n);
  regs.setGpr(Gpr.RCX, mappingAndFlags(gpa, entry));
  regs.setGpr(Gpr.RDX, 0n);
  return TDX_STATUS.TDX_SUCCESS;
}
