/**
 * TDG.VP.RD (leaf 9) and TDG.VP.WR (leaf 10): metadata of the own vCPU.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_vp_rd_wr.c.
 */
import { METADATA_CONTEXT, TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import type { VpContext } from "../entry/vp-context.js";
import { isNullFieldId, MD_FIELD_ID_NA, withContext } from "./metadata-access.js";

const { VP } = METADATA_CONTEXT;

export function tdgVpRd(vp: VpContext): bigint {
  const { regs } = vp;
  const { metadata } = vp.platform;
  const id = withContext(regs.gpr(Gpr.RDX), VP);
  regs.setGpr(Gpr.RDX, MD_FIELD_ID_NA);
  regs.setGpr(Gpr.R8, 0n);
  if (regs.gpr(Gpr.RCX) !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  if (isNullFieldId(id)) {
    regs.setGpr(Gpr.RDX, metadata.next(VP, MD_FIELD_ID_NA));
    return TDX_STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT;
  }
  const single = metadata.checkSingleElementId(id);
  if (single !== TDX_STATUS.TDX_SUCCESS) return single;
  const { status, value } = metadata.read(VP, id, vp);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  regs.setGpr(Gpr.RDX, metadata.next(VP, id));
  regs.setGpr(Gpr.R8, value);
  return status;
}

export function tdgVpWr(vp: VpContext): bigint {
  const { regs } = vp;
  const { metadata } = vp.platform;
  const id = withContext(regs.gpr(Gpr.RDX), VP);
  const value = regs.gpr(Gpr.R8);
  regs.setGpr(Gpr.R8, 0n);
  if (regs.gpr(Gpr.RCX) !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  const single = metadata.checkSingleElementId(id);
  if (single !== TDX_STATUS.TDX_SUCCESS) return single;
  const written = metadata.write(VP, id, value, regs.gpr(Gpr.R9), vp);
  if (written.status === TDX_STATUS.TDX_SUCCESS) regs.setGpr(Gpr.R8, written.value);
  return written.status;
}
