/** TDH.MNG.KEY.RECLAIMID: does nothing since module 1.0; kept for old VMMs. Source: intel/tdx-module tdh_mng_key_reclaimid.c. */
import { TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";

export const tdhMngKeyReclaimid: SeamcallHandler = () => TDX_STATUS.TDX_SUCCESS;
