/** TDH.SYS.LP.SHUTDOWN: does nothing since TDH.SYS.SHUTDOWN is there; kept for old VMMs. Source: intel/tdx-module tdh_sys_lp_shutdown.c. */
import { TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";

export const tdhSysLpShutdown: SeamcallHandler = () => TDX_STATUS.TDX_SUCCESS;
