/** TDH.SYS.RD: a metadata field of the module. Source: intel/tdx-module tdh_sys_rd.c. */
import { METADATA_CONTEXT, TDX_STATUS } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { isNullFieldId, MD_FIELD_ID_NA, withContext } from "../guest/metadata-access.js";
import { checkSingleElementId, nextFieldId } from "../metadata/fields.js";
import { readSysField } from "../metadata/sys.js";

const { SYS } = METADATA_CONTEXT;

/** RDX: field identifier. RDX out: the next one. R8 out: value. */
export const tdhSysRd: SeamcallHandler = (call) => {
  const { module, lp } = call;
  const id = withContext(call.rdx, SYS);
  call.set("RDX", MD_FIELD_ID_NA);
  call.clear("R8");
  if (!module.local(lp.index).initialized) return TDX_STATUS.TDX_SYS_LP_INIT_NOT_DONE;
  if (isNullFieldId(id)) {
    call.set("RDX", nextFieldId(SYS, id, "hostRead"));
    return TDX_STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT;
  }
  const single = checkSingleElementId(id);
  if (single !== TDX_STATUS.TDX_SUCCESS) return single;
  const { status, value } = readSysField(module, id, "hostRead");
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  call.set("R8", value);
  call.set("RDX", nextFieldId(SYS, id, "hostRead"));
  return TDX_STATUS.TDX_SUCCESS;
};
