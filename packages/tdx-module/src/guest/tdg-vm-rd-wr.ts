/**
 * TDG.VM.RD (leaf 7) and TDG.VM.WR (leaf 8): metadata of the own TD.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_vm_rd_wr.c.
 */
import { METADATA_CONTEXT, TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import type { VpContext } from "../entry/vp-context.js";
import { isNullFieldId, MD_FIELD_ID_NA, withContext } from "./metadata-access.js";

const { TD } = METADATA_CONTEXT;

export function tdgVmRd(vp: VpContext, version: number): bigint {
  const { regs } = vp;
  const { metadata } = vp.platform;
  const id = withContext(regs.gpr(Gpr.RDX), TD);
  if (version > 0) regs.setGpr(Gpr.RDX, MD_FIELD_ID_NA);
  regs.setGpr(Gpr.R8, 0n);
  if (regs.gpr(Gpr.RCX) !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  if (version > 0 && isNullFieldId(id)) {
    regs.setGpr(Gpr.RDX, metadata.next(TD, MD_FIELD_ID_NA));
    return TDX_STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT;
  }
  const single = metadata.checkSingleElementId(id);
  if (single !== TDX_STATUS.TDX_SUCCESS) return single;
  const { status, value } = metadata.read(TD, id, vp);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  if (version > 0) regs.setGpr(Gpr.RDX, metadata.next(TD, id));
  regs.setGpr(Gpr.R8, value);
  return status;
}

export function tdgVmWr(vp: VpContext): bigint {
  const { regs } = vp;
  const { metadata } = vp.platform;
  const id = withContext(regs.gpr(Gpr.RDX), TD);
  const value = regs.gpr(Gpr.R8);
  regs.setGpr(Gpr.R8, 0n);
  if (regs.gpr(Gpr.RCX) !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  const single = metadata.checkSingleElementId(id);
  if (single !== TDX_STATUS.TDX_SUCCESS) return single;
  const written = metadata.write(TD, id, value, regs.gpr(Gpr.R9), vp);
  if (written.status === TDX_STATUS.TDX_SUCCESS) regs.setGpr(Gpr.R8, written.value);
  return written.status;
}
