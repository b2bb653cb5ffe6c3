/** TDH.MEM.SEPT.RD: an entry of the Secure EPT. Source: intel/tdx-module tdh_mem_sept_rd.c. */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { SeptLevel } from "../structures/sept.js";
import { lockAndWalkSept, lockSeptEntry, lockTd, pageInfo, reportSept, septRootLevel } from "./support.js";

/** RDX[0]: attributes of the L2 VMs in R8 (debug TDs only). */
const READ_L2_ATTRIBUTES = 1n;

/** RCX: GPA and level. RDX: HPA of the TDR. RCX, RDX out: entry, level and state. */
export const tdhMemSeptRd: SeamcallHandler = (call) => {
  const [mapping, handle] = [call.rcx, call.rdx];
  call.clear("RCX", "RDX");
  const l2Attributes = (handle & READ_L2_ATTRIBUTES) !== 0n;
  let status = lockTd(call, handle & ~READ_L2_ATTRIBUTES, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  if (l2Attributes && !call.tdcs.debug) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");
  const info = pageInfo(mapping, SeptLevel.PT, septRootLevel(call));
  if (info === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  status = lockAndWalkSept(call, info.gpa, info.level, Lock.SHARED);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockSeptEntry(call);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  // There are no L2 VMs, so no attributes of theirs.
  if (l2Attributes) call.clear("R8");
  reportSept(call);
  return TDX_STATUS.TDX_SUCCESS;
};
