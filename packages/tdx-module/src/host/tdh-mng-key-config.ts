/** TDH.MNG.KEY.CONFIG: a random key for the TD's HKID on this package. Source: intel/tdx-module tdh_mng_key_config.c. */
import { TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { LifecycleState, TDR } from "../structures/tdr.js";
import { lockTdr } from "./support.js";

/** RCX: HPA of the TDR. */
export const tdhMngKeyConfig: SeamcallHandler = (call) => {
  const { lp, module } = call;
  const status = lockTdr(call, call.rcx, "RCX", Lock.EXCLUSIVE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { tdr } = call;
  if (tdr.get(TDR.FATAL) !== 0) return TDX_STATUS.TDX_TD_FATAL;
  if (tdr.get(TDR.LIFECYCLE_STATE) !== LifecycleState.TD_HKID_ASSIGNED)
    return TDX_STATUS.TDX_LIFECYCLE_STATE_INCORRECT;
  const configured = tdr.get(TDR.PKG_CONFIG_BITMAP);
  const package_ = 1n << BigInt(lp.packageIndex);
  if ((configured & package_) !== 0n) return TDX_STATUS.TDX_KEY_CONFIGURED;
  const programmed = module.programKey(lp, tdr.hkid);
  if (programmed !== TDX_STATUS.TDX_SUCCESS) return programmed;

  tdr.set(TDR.PKG_CONFIG_BITMAP, configured | package_);
  if ((configured | package_) === module.packageBitmap)
    tdr.set(TDR.LIFECYCLE_STATE, LifecycleState.TD_KEYS_CONFIGURED);
  return TDX_STATUS.TDX_SUCCESS;
};
