/** TDH.SYS.INIT: checks the platform, once per load of the module. Source: intel/tdx-module tdh_sys_init.c. */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { SysState } from "../sys-state.js";
import { samplePlatform } from "../platform.js";

/** RCX: attributes, reserved. On TDX_INCORRECT_CPUID_VALUE RCX, RDX, R8-R10 tell leaf, mask and value expected. */
export const tdhSysInit: SeamcallHandler = (call) => {
  const { module, lp } = call;
  const attributes = call.rcx;
  call.clear("RCX", "RDX", "R8", "R9", "R10");
  if (attributes !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  if (module.state !== SysState.SYSINIT_PENDING) return TDX_STATUS.TDX_SYS_INIT_NOT_PENDING;
  const platform = samplePlatform(lp);
  if (typeof platform === "bigint") return platform;
  if (!module.sysInfo.valid) return TDX_STATUS.TDX_CMR_LIST_INVALID;
  module.initialize(lp, platform);
  return TDX_STATUS.TDX_SUCCESS;
};
