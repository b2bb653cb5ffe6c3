/** TDH.VP.FLUSH: nothing of the vCPU stays on this logical processor. Source: intel/tdx-module tdh_vp_flush.c. */
import { TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { tdVmcsAddress } from "../entry/td-vmcs-init.js";
import { flushAllTdAsids } from "../entry/tlb-tracking.js";
import { Lock } from "../locks.js";
import { TDCS, TdcsStructure } from "../structures/tdcs.js";
import { LifecycleState, TDR } from "../structures/tdr.js";
import { TDVPS, VCPU_NO_LP } from "../structures/tdvps.js";
import { lockTdvpr, mapTdvps } from "./support.js";

/** RCX: HPA of the TDVPR. */
export const tdhVpFlush: SeamcallHandler = (call) => {
  const { lp, module } = call;
  const status = lockTdvpr(call, call.rcx, "RCX", Lock.EXCLUSIVE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  if (call.tdr.get(TDR.LIFECYCLE_STATE) !== LifecycleState.TD_KEYS_CONFIGURED)
    return TDX_STATUS.TDX_TD_KEYS_NOT_CONFIGURED;
  const tdcs = new TdcsStructure(call.tdr);
  const tdvps = mapTdvps(call, Number(call.rcx));
  if (tdvps === null) return TDX_STATUS.TDX_TDCX_NUM_INCORRECT;
  if (tdvps.get(TDVPS.ASSOC_LPID) !== lp.index) return TDX_STATUS.TDX_VCPU_NOT_ASSOCIATED;

  flushAllTdAsids(lp, tdcs);
  lp.vmclear(tdVmcsAddress(tdvps, module.keyIdShift));
  tdvps.setAt(TDVPS.VM_LAUNCHED, 0, 0);
  tdvps.set(TDVPS.ASSOC_LPID, VCPU_NO_LP);
  tdcs.set(TDCS.NUM_ASSOC_VCPUS, tdcs.get(TDCS.NUM_ASSOC_VCPUS) - 1);
  module.lastTdvpr[lp.index] = undefined;
  return TDX_STATUS.TDX_SUCCESS;
};
