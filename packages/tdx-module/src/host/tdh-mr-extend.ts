/** TDH.MR.EXTEND: 256 bytes of a page that was added are measured. Source: intel/tdx-module tdh_mr_extend.c. */
import { type Hpa, TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { SeptLevel } from "../structures/sept.js";
import { isPrivateGpa, lockTd, reportSept, septStateAllowed, walkSept } from "./support.js";

const NAME = new TextEncoder().encode("MR.EXTEND");
const CHUNK = 256;
/** Bytes that an entry of each level maps. */
const PAGE_SIZES = [2 ** 12, 2 ** 21, 2 ** 30] as const;

/** RCX: GPA, 256-byte aligned. RDX: HPA of the TDR. */
export const tdhMrExtend: SeamcallHandler = (call) => {
  const { lp, module } = call;
  const gpa = call.operand(Gpr.RCX);
  const handle = call.rdx;
  call.clearRcxRdx();
  const status = lockTd(call, handle, "RDX", Lock.EXCLUSIVE, Lock.NONE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  if (gpa >= 2 ** 52 || gpa % CHUNK !== 0 || !isPrivateGpa(call, gpa))
    return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  walkSept(call, gpa, SeptLevel.PT);
  const { sept } = call;
  if (!sept.leaf || !sept.present) {
    reportSept(call);
    return withOperand(TDX_STATUS.TDX_EPT_ENTRY_NOT_PRESENT, "RCX");
  }
  if (!septStateAllowed(call)) return TDX_STATUS.TDX_EPT_ENTRY_NOT_PRESENT;

  const mrtd = module.mrtd(call.tdr.base);
  mrtd.block(NAME, gpa);
  const offset = gpa % PAGE_SIZES[sept.level];
  lp.read((sept.hpa + offset) as Hpa, sept.keyId, mrtd.next(CHUNK));
  return TDX_STATUS.TDX_SUCCESS;
};
