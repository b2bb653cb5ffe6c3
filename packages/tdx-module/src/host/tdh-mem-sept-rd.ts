/** TDH.MEM.SEPT.RD: an entry of the Secure EPT. Source: intel/tdx-module tdh_mem_sept_rd.c. */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { SeptLevel } from "../structures/sept.js";
import { lockAndWalkSept, lockTd, pageInfo, reportSept, septRootLevel } from "./support.js";

/** RCX: GPA and level. RDX: HPA of the TDR. RCX, RDX out: entry, level and state. */
export const tdhMemSeptRd: SeamcallHandler = (call) => {
  const [mapping, handle] = [call.rcx, call.rdx];
  call.clear("RCX", "RDX");
  let status = lockTd(call, handle, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const info = pageInfo(mapping, SeptLevel.PT, septRootLevel(call));
  if (info === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  status = lockAndWalkSept(call, info.gpa, info.level, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  reportSept(call);
  return TDX_STATUS.TDX_SUCCESS;
};
