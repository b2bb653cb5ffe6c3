/** TDH.MNG.KEY.FREEID: the TD's HKID is free again. Source: intel/tdx-module tdh_mng_key_freeid.c. */
import { TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { KotState } from "../kot.js";
import { Lock } from "../locks.js";
import { LifecycleState, TDR } from "../structures/tdr.js";
import { lockTdr } from "./support.js";

/** RCX: HPA of the TDR. */
export const tdhMngKeyFreeid: SeamcallHandler = (call) => {
  const status = lockTdr(call, call.rcx, "RCX", Lock.EXCLUSIVE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { tdr } = call;
  if (tdr.get(TDR.LIFECYCLE_STATE) !== LifecycleState.TD_BLOCKED)
    return TDX_STATUS.TDX_LIFECYCLE_STATE_INCORRECT;
  const key = call.module.kot.entry(tdr.hkid);
  if (key.wbinvdBitmap !== 0n) return TDX_STATUS.TDX_WBCACHE_NOT_COMPLETE;

  key.state = KotState.HKID_FREE;
  tdr.set(TDR.LIFECYCLE_STATE, LifecycleState.TD_TEARDOWN);
  return TDX_STATUS.TDX_SUCCESS;
};
