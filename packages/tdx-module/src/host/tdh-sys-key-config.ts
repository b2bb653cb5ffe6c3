/** TDH.SYS.KEY.CONFIG: the module's own key, on each package. Source: intel/tdx-module tdh_sys_key_config.c. */
import { TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { SysState } from "../sys-state.js";

export const tdhSysKeyConfig: SeamcallHandler = (call) => {
  const { module, lp } = call;
  if (module.state !== SysState.SYSCONFIG_DONE) return TDX_STATUS.TDX_SYS_KEY_CONFIG_NOT_PENDING;
  const package_ = 1n << BigInt(lp.packageIndex);
  if ((module.packageBitmap & package_) !== 0n) return TDX_STATUS.TDX_KEY_CONFIGURED;
  const status = module.programKey(lp, module.globalHkid);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  module.packageBitmap |= package_;
  // The platform has one package.
  module.state = SysState.SYS_READY;
  return TDX_STATUS.TDX_SUCCESS;
};
