/** TDH.SYS.LP.INIT: this logical processor joins. Source: intel/tdx-module tdh_sys_lp_init.c. */
import { TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { SysState } from "../sys-state.js";
import { comparePlatform } from "../platform.js";

export const tdhSysLpInit: SeamcallHandler = (call) => {
  const { module, lp } = call;
  call.clear("RCX", "RDX", "R8");
  if (module.state !== SysState.SYSINIT_DONE) return TDX_STATUS.TDX_SYS_LP_INIT_NOT_PENDING;
  const local = module.local(lp.index);
  if (local.initialized) return TDX_STATUS.TDX_SYS_LP_INIT_DONE;
  lp.invept(2);
  const same = comparePlatform(lp, module.platform);
  if (same !== TDX_STATUS.TDX_SUCCESS) return same;
  local.initialized = true;
  return TDX_STATUS.TDX_SUCCESS;
};
