/** TDH.MNG.CREATE: a TDR page becomes the root of a TD that owns an HKID. Source: intel/tdx-module tdh_mng_create.c. */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { KotState } from "../kot.js";
import { Lock } from "../locks.js";
import { PageType, setPamtEntry } from "../structures/pamt.js";
import { LifecycleState, TDR } from "../structures/tdr.js";
import { lockTdr } from "./support.js";

/** RCX: HPA of the page for the TDR. RDX[15:0]: HKID. */
export const tdhMngCreate: SeamcallHandler = (call) => {
  const { lp, module } = call;
  const hkid = Number(call.rdx & 0xffffn);
  if (call.rdx >> 16n !== 0n || !module.kot.isPrivate(hkid))
    return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");
  const status = lockTdr(call, call.rcx, "RCX", Lock.EXCLUSIVE, PageType.PT_NDA);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const key = module.kot.entry(hkid);
  if (key.state !== KotState.HKID_FREE) return TDX_STATUS.TDX_HKID_NOT_FREE;
  const uuid = module.random256(lp);
  if (uuid === null) return TDX_STATUS.TDX_RND_NO_ENTROPY;

  const { tdr } = call;
  lp.zero(tdr.base, call.globalHkid, 4096);
  tdr.setBytes(TDR.TD_UUID, uuid);
  key.state = KotState.HKID_ASSIGNED;
  tdr.set(TDR.HKID, hkid);
  tdr.set(TDR.LIFECYCLE_STATE, LifecycleState.TD_HKID_ASSIGNED);
  setPamtEntry(lp, call.pamtEntry, call.globalHkid, PageType.PT_TDR, 0);
  return TDX_STATUS.TDX_SUCCESS;
};
