/**
 * TDG.VP.VEINFO.GET (leaf 3): information on the last #VE, which frees the area for the next.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_vp_veinfo_get.c.
 */
import { TDX_STATUS } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import type { VpContext } from "../entry/vp-context.js";
import { TDVPS } from "../structures/tdvps.js";

const OUTPUTS = [Gpr.RCX, Gpr.RDX, Gpr.R8, Gpr.R9, Gpr.R10] as const;

export function tdgVpVeinfoGet(vp: VpContext): bigint {
  const { regs, tdvps } = vp;
  if (!vp.veInfoValid) {
    for (const output of OUTPUTS) regs.setGpr(output, 0n);
    return TDX_STATUS.TDX_NO_VALID_VE_INFO;
  }
  regs.setGpr(Gpr.RCX, BigInt(tdvps.get(TDVPS.VE_INFO_EXIT_REASON)));
  regs.setGpr(Gpr.RDX, tdvps.get(TDVPS.VE_INFO_EXIT_QUALIFICATION));
  regs.setGpr(Gpr.R8, tdvps.get(TDVPS.VE_INFO_GLA));
  regs.setGpr(Gpr.R9, tdvps.get(TDVPS.VE_INFO_GPA));
  const length = BigInt(tdvps.get(TDVPS.VE_INFO_INSTRUCTION_LENGTH));
  regs.setGpr(Gpr.R10, length | (BigInt(tdvps.get(TDVPS.VE_INFO_INSTRUCTION_INFORMATION)) << 32n));
  tdvps.set(TDVPS.VE_INFO_VALID, 0);
  return TDX_STATUS.TDX_SUCCESS;
}
