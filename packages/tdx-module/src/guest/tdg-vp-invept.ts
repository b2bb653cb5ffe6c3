/**
 * TDG.VP.INVEPT (leaf 26) and TDG.VP.INVVPID (leaf 27): flush translations of L2 VMs.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/tdg_vp_invept.c, tdg_vp_invvpid.c. L2 VMs are not run
 * here: TDH.MNG.INIT accepts none, so every VM that is named does not exist.
 */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import type { VpContext } from "../entry/vp-context.js";
import { TDCS } from "../structures/tdcs.js";

export function tdgVpInvept(vp: VpContext): bigint {
  const mask = vp.regs.gpr(Gpr.RCX);
  const vms = BigInt(vp.tdcs.get(TDCS.NUM_L2_VMS));
  if ((mask & 1n) !== 0n || mask >> (vms + 1n) !== 0n)
    return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  return TDX_STATUS.TDX_SUCCESS;
}

/** RCX: VM in bits 53:52, type of invalidation in 1:0 or an address list. */
export function tdgVpInvvpid(vp: VpContext): bigint {
  const vm = Number((vp.regs.gpr(Gpr.RCX) >> 52n) & 3n);
  if (vm === 0 || vm > vp.tdcs.get(TDCS.NUM_L2_VMS))
    return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");
}
