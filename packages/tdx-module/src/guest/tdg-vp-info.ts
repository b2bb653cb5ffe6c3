/**
 * TDG.VP.INFO (leaf 1): what the TD and this vCPU are.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_vp_info.c.
 */
import { TDX_STATUS } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import type { VpContext } from "../entry/vp-context.js";
import { TDCS } from "../structures/tdcs.js";
import { TDVPS } from "../structures/tdvps.js";

export function tdgVpInfo(vp: VpContext): bigint {
  const { regs, tdcs, tdvps } = vp;
  regs.setGpr(Gpr.RCX, vp.gpaw ? 52n : 48n);
  regs.setGpr(Gpr.RDX, tdcs.get(TDCS.ATTRIBUTES));
  regs.setGpr(Gpr.R8, (BigInt(tdcs.get(TDCS.MAX_VCPUS)) << 32n) | BigInt(tdcs.get(TDCS.NUM_VCPUS)));
  regs.setGpr(Gpr.R9, BigInt(tdvps.get(TDVPS.VCPU_INDEX)));
  // TDG.SYS.RD is available.
  regs.setGpr(Gpr.R10, 1n);
  regs.setGpr(Gpr.R11, 0n);
  return TDX_STATUS.TDX_SUCCESS;
}
