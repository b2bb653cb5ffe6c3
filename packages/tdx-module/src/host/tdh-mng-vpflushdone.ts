/** TDH.MNG.VPFLUSHDONE: all vCPUs are flushed; the TD's key may go. Source: intel/tdx-module tdh_mng_vpflushdone.c. */
import { TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { KotState } from "../kot.js";
import { Lock } from "../locks.js";
import { MIN_NUM_TDCS_PAGES, OpState, TDCS, TdcsStructure } from "../structures/tdcs.js";
import { LifecycleState, TDR } from "../structures/tdr.js";
import { lockTdr } from "./support.js";

/** RCX: HPA of the TDR. */
export const tdhMngVpflushdone: SeamcallHandler = (call) => {
  const { module } = call;
  const status = lockTdr(call, call.rcx, "RCX", Lock.EXCLUSIVE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { tdr } = call;
  const state = tdr.get(TDR.LIFECYCLE_STATE);
  if (state !== LifecycleState.TD_KEYS_CONFIGURED && state !== LifecycleState.TD_HKID_ASSIGNED)
    return TDX_STATUS.TDX_LIFECYCLE_STATE_INCORRECT;
  if (tdr.get(TDR.NUM_TDCX) >= MIN_NUM_TDCS_PAGES) {
    const tdcs = new TdcsStructure(tdr);
    const initialized = tdcs.get(TDCS.OP_STATE) !== OpState.UNINITIALIZED;
    if (initialized && tdcs.get(TDCS.NUM_ASSOC_VCPUS) !== 0) return TDX_STATUS.TDX_FLUSHVP_NOT_DONE;
  }

  const key = module.kot.entry(tdr.hkid);
  key.wbinvdBitmap = module.packageBitmap;
  key.state = KotState.HKID_FLUSHED;
  tdr.set(TDR.LIFECYCLE_STATE, LifecycleState.TD_BLOCKED);
  return TDX_STATUS.TDX_SUCCESS;
};
