/** TDH.MR.FINALIZE: MRTD is complete, the TD may run. Source: intel/tdx-module tdh_mr_finalize.c. */
import { TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { Lock } from "../locks.js";
import { OpState, TDCS } from "../structures/tdcs.js";
import { lockTd } from "./support.js";

const hex = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** RCX: HPA of the TDR. */
export const tdhMrFinalize: SeamcallHandler = (call) => {
  const { module } = call;
  const status = lockTd(call, call.rcx, "RCX", Lock.EXCLUSIVE, Lock.NONE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { tdcs } = call;
  if (tdcs.get(TDCS.NUM_VCPUS) === 0) return TDX_STATUS.TDX_NO_VCPUS;

  const digest = module.mrtd(call.tdr.base).digest();
  module.endMrtd(call.tdr.base);
  tdcs.setBytes(TDCS.MRTD, digest);
  tdcs.set(TDCS.OP_STATE, OpState.RUNNABLE);
  if (module.trace.on.MEASURE)
    module.trace.emit({ type: "MEASURE", register: "MRTD", digest: hex(digest), what: "TDH.MR.FINALIZE" });
  return TDX_STATUS.TDX_SUCCESS;
};
