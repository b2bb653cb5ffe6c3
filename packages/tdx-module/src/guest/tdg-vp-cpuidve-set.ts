/**
 * TDG.VP.CPUIDVE.SET (leaf 5): #VE for every CPUID, by CPL.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_vp_cpuidve_set.c.
 */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import type { VpContext } from "../entry/vp-context.js";
import { TDVPS } from "../structures/tdvps.js";

export function tdgVpCpuidveSet(vp: VpContext): bigint {
  const control = vp.regs.gpr(Gpr.RCX);
  if (control >> 2n !== 0n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  vp.tdvps.set(TDVPS.CPUID_SUPERVISOR_VE, Number(control & 1n));
  vp.tdvps.set(TDVPS.CPUID_USER_VE, Number(control >> 1n));
  return TDX_STATUS.TDX_SUCCESS;
}
