/**
 * TDG.VP.ENTER (leaf 25): the L1 enters an L2 VM.
 *
 * Source: intel/tdx-module 1.5.05 src/td_transitions/tdg_vp_enter.c (checks). There are no L2 VMs here.
 */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { VpContext } from "../entry/vp-context.js";

export const tdgVpEnter = (_vp: VpContext): bigint => withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
