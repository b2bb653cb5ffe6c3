/** TDH.SYS.SHUTDOWN: the module takes no more calls (before an update). Source: intel/tdx-module tdh_sys_shutdown.c. */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { SysState } from "../sys-state.js";
import { MODULE_HV } from "../version.js";

/** RCX: version of the handoff data. */
export const tdhSysShutdown: SeamcallHandler = (call) => {
  if (call.rcx !== BigInt(MODULE_HV)) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  call.module.state = SysState.SYS_SHUTDOWN;
  return TDX_STATUS.TDX_SUCCESS;
};
