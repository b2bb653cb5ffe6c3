/**
 * TDH.VP.ENTER: enters a TD's vCPU.
 *
 * Source: intel/tdx-module 1.5.05 src/td_transitions/tdh_vp_enter.c; checks in its order.
 */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr } from "@swtdx/cpu";
import type { SeamCall } from "../call.js";
import { lockTdcs, lockTdvpr, mapTdvps } from "../host/support.js";
import { Lock } from "../locks.js";
import { decodeVcpuAndFlags, enterTd, IA32_MISC_ENABLE } from "./td-entry.js";
import { checkAndAssociateVcpu } from "./vcpu-association.js";
import type { GuestSidePlatform } from "./vp-context.js";

/** IA32_MISC_ENABLE[22]: LIMIT_CPUID_MAXVAL. */
const LIMIT_CPUID_MAXVAL = 1 << 22;

/** What TDH.VP.ENTER needs of the module besides what every function does. */
export interface VpEnterHost {
  readonly guestSide: GuestSidePlatform;
  /** IA32_TSC_ADJUST as TDH.SYS.INIT found it. */
  readonly tscAdjust: bigint;
  /** TDVPR of the vCPU that ran last, by number of the logical processor. */
  readonly lastTdvpr: (number | undefined)[];
}

/**
 * After a TD exit the caller's registers are what it is to see and `call` holds no locks.
 * @returns RAX
 */
export function tdhVpEnter(call: SeamCall, host: VpEnterHost): bigint {
  const { lp } = call;
  if ((lp.rdmsrLow(IA32_MISC_ENABLE) & LIMIT_CPUID_MAXVAL) !== 0)
    return TDX_STATUS.TDX_LIMIT_CPUID_MAXVAL_SET;
  const { u32 } = lp.regs;
  const flags = decodeVcpuAndFlags(u32[Gpr.RCX * 2], u32[Gpr.RCX * 2 + 1]);
  if (flags === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  let status = lockTdvpr(call, flags.tdvpr, "RCX", Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const pageLocks = call.locks.count;
  status = lockTdcs(call, Lock.SHARED);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const { tdcs } = call;
  const tdvps = mapTdvps(call, flags.tdvpr);
  if (tdvps === null) return TDX_STATUS.TDX_TDCX_NUM_INCORRECT;
  const association = checkAndAssociateVcpu(lp, tdcs, tdvps, false);
  if (association.status !== TDX_STATUS.TDX_SUCCESS) return association.status;

  const vp = call.vpContext(host.guestSide, tdvps);
  const lastTdvpr = host.lastTdvpr[lp.index] ?? -1;
  // OP_STATE is not held while the guest runs.
  const { newAssociation } = association;
  const refused = enterTd(vp, { flags, newAssociation, tscAdjust: host.tscAdjust, lastTdvpr, pageLocks });
  if (refused !== null) return refused;
  host.lastTdvpr[lp.index] = flags.tdvpr;
  return lp.regs.gpr(Gpr.RAX);
}
