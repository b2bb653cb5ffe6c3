/** TDH.SYS.SHUTDOWN: the module takes no more calls (before an update). Source: intel/tdx-module tdh_sys_shutdown.c. */
import { TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { SysState } from "../sys-state.js";

export const tdhSysShutdown: SeamcallHandler = (call) => {
  call.module.state = SysState.SYS_SHUTDOWN;
  return TDX_STATUS.TDX_SUCCESS;
};
