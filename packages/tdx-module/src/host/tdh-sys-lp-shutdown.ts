/** TDH.SYS.LP.SHUTDOWN: the module is left on this logical processor. Source: intel/tdx-module tdh_sys_lp_shutdown.c. */
import { TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { SysState } from "../sys-state.js";

export const tdhSysLpShutdown: SeamcallHandler = (call) => {
  const { module, lp } = call;
  module.state = SysState.SYS_SHUTDOWN;
  module.local(lp.index).initialized = false;
  lp.invept(2);
  return TDX_STATUS.TDX_SUCCESS;
};
