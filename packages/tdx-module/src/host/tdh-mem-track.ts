/** TDH.MEM.TRACK: a new TLB tracking epoch. Source: intel/tdx-module tdh_mem_track.c. */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { acquireSharex, Lock } from "../locks.js";
import { TDCS } from "../structures/tdcs.js";
import { lockTd } from "./support.js";

/** RCX: HPA of the TDR. */
export const tdhMemTrack: SeamcallHandler = (call) => {
  const status = lockTd(call, call.rcx, "RCX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { tdcs } = call;
  const lock = tdcs.pa(TDCS.EPOCH_LOCK.offset);
  if (acquireSharex(call.lp, lock, tdcs.keyId, Lock.EXCLUSIVE) !== TDX_STATUS.TDX_SUCCESS)
    return withOperand(TDX_STATUS.TDX_OPERAND_BUSY, "TD_EPOCH");
  call.locks.push(lock, tdcs.keyId, Lock.EXCLUSIVE, false);
  const epoch = tdcs.get(TDCS.TD_EPOCH);
  if (tdcs.getAt(TDCS.REFCOUNT, Number(1n - (epoch & 1n))) !== 0)
    return TDX_STATUS.TDX_PREVIOUS_TLB_EPOCH_BUSY;

  tdcs.set(TDCS.TD_EPOCH, epoch + 1n);
  return TDX_STATUS.TDX_SUCCESS;
};
