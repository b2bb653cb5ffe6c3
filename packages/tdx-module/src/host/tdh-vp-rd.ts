/** TDH.VP.RD and TDH.VP.WR: metadata of a vCPU. Source: intel/tdx-module tdh_vp_rd.c, tdh_vp_wr.c. */
import { METADATA_CONTEXT, TDX_STATUS } from "@swtdx/abi";
import type { SeamCall, SeamcallHandler } from "../call.js";
import { tdVmcsAddress } from "../entry/td-vmcs-init.js";
import { checkAndAssociateVcpu } from "../entry/vcpu-association.js";
import { isNullFieldId, MD_FIELD_ID_NA, withContext } from "../guest/metadata-access.js";
import { Lock } from "../locks.js";
import { checkSingleElementId, nextFieldId } from "../metadata/fields.js";
import { readVpField, writeVpField } from "../metadata/vp.js";
import type { TdvpsStructure } from "../structures/tdvps.js";
import { lockTdcs, lockTdvpr, mapTdvps } from "./support.js";

const { VP } = METADATA_CONTEXT;

/** Finds the vCPU, associates it with this logical processor and makes its TD VMCS current. */
function enterContext(call: SeamCall, handle: bigint, allowDisabled: boolean): TdvpsStructure | bigint {
  let status = lockTdvpr(call, handle, "RCX", Lock.SHARED);
  if (status === TDX_STATUS.TDX_SUCCESS) status = lockTdcs(call, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const tdvps = mapTdvps(call, Number(handle));
  if (tdvps === null) return TDX_STATUS.TDX_TDCX_NUM_INCORRECT;
  const association = checkAndAssociateVcpu(call.lp, call.tdcs, tdvps, allowDisabled);
  if (association.status !== TDX_STATUS.TDX_SUCCESS) return association.status;
  call.lp.vmptrld(tdVmcsAddress(tdvps, call.module.keyIdShift));
  return tdvps;
}

/** RCX: HPA of the TDVPR. RDX: field identifier. RDX out (version 1): the next one. R8 out: value. */
export const tdhVpRd: SeamcallHandler = (call, version) => {
  const id = withContext(call.rdx, VP);
  const handle = call.rcx;
  if (version > 0) call.set("RDX", MD_FIELD_ID_NA);
  call.clear("R8");
  const tdvps = enterContext(call, handle, true);
  if (typeof tdvps === "bigint") return tdvps;
  const access = call.tdcs.debug ? "debugRead" : "hostRead";
  if (version > 0 && isNullFieldId(id)) {
    call.set("RDX", nextFieldId(VP, MD_FIELD_ID_NA, access));
    return TDX_STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT;
  }
  const single = checkSingleElementId(id);
  if (single !== TDX_STATUS.TDX_SUCCESS) return single;
  const read = readVpField(call.lp, tdvps, id, access);
  if (read.status !== TDX_STATUS.TDX_SUCCESS) return read.status;
  call.set("R8", read.value);
  if (version > 0) call.set("RDX", nextFieldId(VP, id, access));
  return TDX_STATUS.TDX_SUCCESS;
};

/** RCX: HPA of the TDVPR. RDX: field identifier. R8: value. R9: mask. R8 out: old value. */
export const tdhVpWr: SeamcallHandler = (call) => {
  const id = withContext(call.rdx, VP);
  const [handle, value, mask] = [call.rcx, call.r8, call.r9];
  call.clear("R8");
  const tdvps = enterContext(call, handle, false);
  if (typeof tdvps === "bigint") return tdvps;
  const single = checkSingleElementId(id);
  if (single !== TDX_STATUS.TDX_SUCCESS) return single;
  const access = call.tdcs.debug ? "debugWrite" : "hostWrite";
  const written = writeVpField(call.lp, tdvps, id, value, mask, access, call.module);
  if (written.status === TDX_STATUS.TDX_SUCCESS) call.set("R8", written.value);
  return written.status;
};
