/**
 * TDG.MR.VERIFYREPORT (leaf 22): whether a REPORTMACSTRUCT was made on this platform.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_mr_verifyreport.c.
 */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr, SeamOpsStatus } from "@swtdx/cpu";
import type { Flow, VpContext } from "../entry/vp-context.js";
import { GPA_INVALID, GPA_OK, guestSideGpa } from "./gpa.js";

const REPORTMACSTRUCT_SIZE = 256;

export function tdgMrVerifyreport(vp: VpContext): bigint | Flow {
  const { lp, regs } = vp;
  if (!vp.platform.seamverifyreportAvailable) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RAX");
  const gpa = regs.gpr(Gpr.RCX);
  if (gpa % BigInt(REPORTMACSTRUCT_SIZE) !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  const mapped = guestSideGpa(vp, gpa, false, true);
  if (mapped === GPA_INVALID) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  if (mapped !== GPA_OK) return mapped as Flow;
  const mac = new Uint8Array(REPORTMACSTRUCT_SIZE);
  lp.read(vp.mappedHpa, vp.mappedKeyId, mac);
  switch (lp.seamverifyreport(mac)) {
    case SeamOpsStatus.SUCCESS:
      return TDX_STATUS.TDX_SUCCESS;
    case SeamOpsStatus.INVALID_CPUSVN:
      return TDX_STATUS.TDX_INVALID_CPUSVN;
    case SeamOpsStatus.INVALID_REPORTMACSTRUCT:
      return TDX_STATUS.TDX_INVALID_REPORTMACSTRUCT;
    default:
      return vp.fatalError("SEAMVERIFYREPORT failed");
  }
}
