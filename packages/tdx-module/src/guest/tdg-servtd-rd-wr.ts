/**
 * TDG.SERVTD.RD (leaf 18) and TDG.SERVTD.WR (leaf 20): a service TD reads and writes metadata of a TD bound to it.
 *
 * Source: intel/tdx-module 1.5.05 src/vmm_dispatcher/migration_api_calls/tdg_servtd_rd_wr.c. No TD is ever bound here
 * (TDH.SERVTD.BIND is not there), so a binding handle is always wrong.
 */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { VpContext } from "../entry/vp-context.js";

export const tdgServtdRdWr = (_vp: VpContext): bigint => withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
