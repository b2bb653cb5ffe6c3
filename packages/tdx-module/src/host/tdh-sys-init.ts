/** TDH.SYS.INIT: checks the platform, once per load of the module. Source: intel/tdx-module tdh_sys_init.c. */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import { SeamOps } from "@swtdx/cpu";
import type { SeamcallHandler } from "../call.js";
import { SysState } from "../sys-state.js";
import { samplePlatform } from "../platform.js";

/** SEAMOPS leaves that a module needs to be updated under running TDs. */
const TD_PRESERVING = [
  SeamOps.SEAMDB_CLEAR,
  SeamOps.SEAMDB_INSERT,
  SeamOps.SEAMDB_GETREF,
  SeamOps.SEAMDB_REPORT,
].reduce((mask, leaf) => mask | (1n << BigInt(leaf)), 0n);

/** RCX: attributes, reserved. On TDX_INCORRECT_CPUID_VALUE RCX, RDX, R8-R10 tell leaf, mask and value expected. */
export const tdhSysInit: SeamcallHandler = (call) => {
  const { module, lp } = call;
  const attributes = call.rcx;
  call.clear("RCX", "RDX", "R8", "R9", "R10");
  if (attributes !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  if (module.state !== SysState.SYSINIT_PENDING) return TDX_STATUS.TDX_SYS_INIT_NOT_PENDING;
  const platform = samplePlatform(lp, module.sysInfo);
  if (typeof platform === "bigint") return platform;
  if ((lp.seamopsCapabilities() & TD_PRESERVING) !== TD_PRESERVING)
    return TDX_STATUS.TDX_INCOMPATIBLE_SEAM_CAPABILITIES;
  module.initialize(lp, platform);
  return TDX_STATUS.TDX_SUCCESS;
};
