/** TDH.SYS.RDALL: all metadata fields of the module, as a list. Source: intel/tdx-module tdh_sys_rdall.c. */
import { METADATA_CONTEXT, PAGE_SIZE, TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { MD_FIELD_ID_NA, withContext } from "../guest/metadata-access.js";
import { dumpSysList } from "../metadata/list.js";
import { readSysField } from "../metadata/sys.js";
import { sharedHpaOperand, splitSharedHpa } from "./shared-memory.js";

/** RDX: HPA of a page for the list, shared. R8: field identifier to start with. R8 out: to go on with. */
export const tdhSysRdall: SeamcallHandler = (call) => {
  const { module, lp } = call;
  const start = withContext(call.r8, METADATA_CONTEXT.SYS);
  call.set("R8", MD_FIELD_ID_NA);
  if (!module.local(lp.index).initialized) return TDX_STATUS.TDX_SYS_LP_INIT_NOT_DONE;
  const pa = sharedHpaOperand(call, call.rdx, PAGE_SIZE);
  if (pa < 0) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");

  const list = new Uint8Array(PAGE_SIZE);
  const { status, next } = dumpSysList(
    start,
    list,
    "hostRead",
    (id) => readSysField(module, id, "hostRead").value,
  );
  const { hpa, keyId } = splitSharedHpa(call, pa);
  lp.write(hpa, keyId, list);
  call.set("R8", next);
  return status;
};
