/** TDH.MNG.RD and TDH.MNG.WR: metadata of a TD. Source: intel/tdx-module tdh_mng_rd.c, tdh_mng_wr.c. */
import { METADATA_CONTEXT, TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { isNullFieldId, MD_FIELD_ID_NA, withContext } from "../guest/metadata-access.js";
import { Lock } from "../locks.js";
import { checkSingleElementId, nextFieldId } from "../metadata/fields.js";
import { readTdField, writeTdField } from "../metadata/td.js";
import { lockTd } from "./support.js";

const { TD } = METADATA_CONTEXT;

/** RCX: HPA of the TDR. RDX: field identifier. RDX out (version 1): the next one. R8 out: value. */
export const tdhMngRd: SeamcallHandler = (call, version) => {
  const id = withContext(call.rdx, TD);
  const handle = call.rcx;
  if (version > 0) call.set("RDX", MD_FIELD_ID_NA);
  call.clear("R8");
  const status = lockTd(call, handle, "RCX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const access = call.tdcs.debug ? "debugRead" : "hostRead";
  if (version > 0 && isNullFieldId(id)) {
    call.set("RDX", nextFieldId(TD, MD_FIELD_ID_NA, access));
    return TDX_STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT;
  }
  const single = checkSingleElementId(id);
  if (single !== TDX_STATUS.TDX_SUCCESS) return single;
  const read = readTdField(call.tdcs, id, access);
  if (read.status !== TDX_STATUS.TDX_SUCCESS) return read.status;
  call.set("R8", read.value);
  if (version > 0) call.set("RDX", nextFieldId(TD, id, access));
  return TDX_STATUS.TDX_SUCCESS;
};

/** RCX: HPA of the TDR. RDX: field identifier. R8: value. R9: mask. R8 out: old value. */
export const tdhMngWr: SeamcallHandler = (call) => {
  const id = withContext(call.rdx, TD);
  const [handle, value, mask] = [call.rcx, call.r8, call.r9];
  call.clear("R8");
  const status = lockTd(call, handle, "RCX", Lock.SHARED, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const single = checkSingleElementId(id);
  if (single !== TDX_STATUS.TDX_SUCCESS) return single;
  const access = call.tdcs.debug ? "debugWrite" : "hostWrite";
  const written = writeTdField(call.tdcs, id, value, mask, access, call.module.platform.tscHz);
  if (written.status === TDX_STATUS.TDX_SUCCESS) call.set("R8", written.value);
  return written.status;
};
