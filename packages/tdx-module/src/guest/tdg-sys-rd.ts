/**
 * TDG.SYS.RD (leaf 11) and TDG.SYS.RDALL (leaf 12): metadata of the TDX module.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_sys_rd.c, tdg_sys_rdall.c.
 */
import { METADATA_CONTEXT, TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import type { Flow, VpContext } from "../entry/vp-context.js";
import { GPA_INVALID, GPA_OK, guestSideGpa } from "./gpa.js";
import { isNullFieldId, MD_FIELD_ID_NA, withContext } from "./metadata-access.js";

const { SYS } = METADATA_CONTEXT;

export function tdgSysRd(vp: VpContext): bigint {
  const { regs } = vp;
  const { metadata } = vp.platform;
  const id = withContext(regs.gpr(Gpr.RDX), SYS);
  regs.setGpr(Gpr.RDX, MD_FIELD_ID_NA);
  regs.setGpr(Gpr.R8, 0n);
  if (isNullFieldId(id)) {
    regs.setGpr(Gpr.RDX, metadata.next(SYS, MD_FIELD_ID_NA));
    return TDX_STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT;
  }
  const single = metadata.checkSingleElementId(id);
  if (single !== TDX_STATUS.TDX_SUCCESS) return single;
  const { status, value } = metadata.read(SYS, id, vp);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  regs.setGpr(Gpr.R8, value);
  regs.setGpr(Gpr.RDX, metadata.next(SYS, id));
  return status;
}

/** RDX: GPA of a 4K page for the list, R8: the first field. */
export function tdgSysRdall(vp: VpContext): bigint | Flow {
  const { lp, regs } = vp;
  const gpa = regs.gpr(Gpr.RDX);
  const first = regs.gpr(Gpr.R8);
  regs.setGpr(Gpr.R8, MD_FIELD_ID_NA);
  if ((gpa & 0xfffn) !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");
  const mapped = guestSideGpa(vp, gpa, true, true);
  if (mapped === GPA_INVALID) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");
  if (mapped !== GPA_OK) return mapped as Flow;
  const { mappedHpa, mappedKeyId } = vp;
  const list = new Uint8Array(4096);
  lp.read(mappedHpa, mappedKeyId, list);
  const { status, next } = vp.platform.metadata.dumpList(SYS, withContext(first, SYS), list, vp);
  lp.write(mappedHpa, mappedKeyId, list);
  regs.setGpr(Gpr.R8, next);
  return status;
}
