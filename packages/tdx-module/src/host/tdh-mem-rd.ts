/** TDH.MEM.RD and TDH.MEM.WR: 8 bytes of a debug TD's private memory. Source: intel/tdx-module tdh_mem_rd.c, tdh_mem_wr.c. */
import { type Hpa, TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamCall, SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { SeptLevel } from "../structures/sept.js";
import {
  isPrivateGpa,
  lockSeptEntry,
  lockSeptTree,
  lockTd,
  reportSept,
  septStateAllowed,
  septStateIncorrect,
  walkSept,
} from "./support.js";

/** @returns HPA of the bytes, or the status */
function find(call: SeamCall, operand: bigint, handle: bigint): Hpa | bigint {
  const status = lockTd(call, handle, "RDX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  if (!call.tdcs.debug) return TDX_STATUS.TDX_TD_NON_DEBUG;
  const gpa = operand >> 52n === 0n ? Number(operand) : -1;
  if (gpa < 0 || gpa % 8 !== 0 || !isPrivateGpa(call, gpa))
    return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  const lock = lockSeptTree(call, Lock.SHARED);
  if (lock !== TDX_STATUS.TDX_SUCCESS) return lock;
  walkSept(call, gpa, SeptLevel.PT);
  const { sept } = call;
  if (!sept.leaf || !sept.present) {
    reportSept(call);
    return withOperand(TDX_STATUS.TDX_EPT_ENTRY_NOT_PRESENT, "RCX");
  }
  const locked = lockSeptEntry(call);
  if (locked !== TDX_STATUS.TDX_SUCCESS) return locked;
  if (!septStateAllowed(call)) return septStateIncorrect(call);
  return (sept.hpa + (gpa % 2 ** (12 + 9 * sept.level))) as Hpa;
}

/** RCX: GPA. RDX: HPA of the TDR. R8 out: value. */
export const tdhMemRd: SeamcallHandler = (call) => {
  const [operand, handle] = [call.rcx, call.rdx];
  call.clear("RCX", "RDX", "R8");
  const at = find(call, operand, handle);
  if (typeof at === "bigint") return at;
  call.set("R8", call.lp.readU64(at, call.sept.keyId));
  return TDX_STATUS.TDX_SUCCESS;
};

/** RCX: GPA. RDX: HPA of the TDR. R8: value. R8 out: old value. */
export const tdhMemWr: SeamcallHandler = (call) => {
  const [operand, handle, value] = [call.rcx, call.rdx, call.r8];
  call.clear("RCX", "RDX", "R8");
  const at = find(call, operand, handle);
  if (typeof at === "bigint") return at;
  call.set("R8", call.lp.readU64(at, call.sept.keyId));
  call.lp.writeU64(at, call.sept.keyId, value);
  return TDX_STATUS.TDX_SUCCESS;
};
