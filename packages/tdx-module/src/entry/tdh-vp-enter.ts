/**
 * TDH.VP.ENTER: enters a TD's vCPU.
 *
 * Source: intel/tdx-module 1.5.05 src/td_transitions/tdh_vp_enter.c; checks in its order.
 */
import { TDX_STATUS, withOperand, type Hpa, type KeyId } from "@swtdx/abi";
import { Gpr, type SeamContext } from "@swtdx/cpu";
import { acquireSharexHp, HeldLocks, Lock, releaseSharexHp } from "../locks.js";
import { MIN_NUM_TDCS_PAGES, TDCS, TdcsStructure } from "../structures/tdcs.js";
import { LifecycleState, TDR, TdrStructure } from "../structures/tdr.js";
import { MIN_TDVPS_PAGES, TDVPS, TdvpsStructure } from "../structures/tdvps.js";
import { opStateIsSeamcallAllowed } from "../tables/op-state.js";
import { readMsr } from "./guest-state.js";
import { decodeVcpuAndFlags, enterTd, IA32_MISC_ENABLE } from "./td-entry.js";
import { checkAndAssociateVcpu } from "./vcpu-association.js";
import { VpContext, type GuestSidePlatform } from "./vp-context.js";

/** IA32_MISC_ENABLE[22]: LIMIT_CPUID_MAXVAL. */
const LIMIT_CPUID_MAXVAL = 1n << 22n;
const TDH_VP_ENTER = 0;

/** What TDH.VP.ENTER needs of the module. */
export interface VpEnterHost {
  readonly platform: GuestSidePlatform;
  readonly globalHkid: KeyId;
  /** IA32_TSC_ADJUST as TDH.SYS.INIT found it. */
  readonly tscAdjust: bigint;
  /** TDVPR of the vCPU that ran last, by number of the logical processor. */
  readonly lastTdvpr: Map<number, number>;
  /**
   * Checks a 4 KiB page given by RCX, finds its PAMT entry, of type PT_TDVPR, and locks it (and those above it) shared;
   * the locks are added to `locks`. @returns the status, and the owner: HPA of the TDR
   */
  lockTdvpr(lp: SeamContext, pa: bigint, locks: HeldLocks): { readonly status: bigint; readonly owner: Hpa };
  /** Locks the PAMT entry of a TDR shared: operand TDR when busy. */
  lockTdr(lp: SeamContext, tdr: Hpa, locks: HeldLocks): bigint;
}

/** Leaves RAX and the other registers of the caller as it is to see them. */
export function tdhVpEnter(lp: SeamContext, host: VpEnterHost): void {
  const locks = new HeldLocks();
  const status = enter(lp, host, locks);
  if (status === null) return;
  locks.release(lp);
  lp.regs.setGpr(Gpr.RAX, status);
}

function enter(lp: SeamContext, host: VpEnterHost, locks: HeldLocks): bigint | null {
  if ((readMsr(lp, IA32_MISC_ENABLE) & LIMIT_CPUID_MAXVAL) !== 0n)
    return TDX_STATUS.TDX_LIMIT_CPUID_MAXVAL_SET;
  const flags = decodeVcpuAndFlags(lp.regs.gpr(Gpr.RCX));
  if (flags === null) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  const page = host.lockTdvpr(lp, BigInt(flags.tdvpr), locks);
  if (page.status !== TDX_STATUS.TDX_SUCCESS) return page.status;
  const tdrStatus = host.lockTdr(lp, page.owner, locks);
  if (tdrStatus !== TDX_STATUS.TDX_SUCCESS) return tdrStatus;

  const tdr = new TdrStructure(lp, page.owner, host.globalHkid);
  const built = checkBuildState(tdr);
  if (built !== TDX_STATUS.TDX_SUCCESS) return built;
  const tdcs = new TdcsStructure(tdr);
  const opStateLock = tdcs.pa(TDCS.OP_STATE_LOCK.offset);
  const locked = acquireSharexHp(lp, opStateLock, tdcs.keyId, Lock.SHARED);
  if (locked !== TDX_STATUS.TDX_SUCCESS) return withOperand(locked, "OP_STATE");
  let opStateLocked = true;
  const releaseOpState = (): void => {
    if (opStateLocked) releaseSharexHp(lp, opStateLock, tdcs.keyId, Lock.SHARED);
    opStateLocked = false;
  };
  const status = enterVcpu();
  releaseOpState();
  return status;

  function enterVcpu(): bigint | null {
    if (!opStateIsSeamcallAllowed(TDH_VP_ENTER, tdcs.get(TDCS.OP_STATE)))
      return TDX_STATUS.TDX_OP_STATE_INCORRECT;
    const tdvps = new TdvpsStructure(lp, flags!.tdvpr as Hpa, tdr.hkid);
    if (tdvps.get(TDVPS.NUM_TDVPS_PAGES) < MIN_TDVPS_PAGES) return TDX_STATUS.TDX_TDCX_NUM_INCORRECT;
    const association = checkAndAssociateVcpu(lp, tdcs, tdvps, false);
    if (association.status !== TDX_STATUS.TDX_SUCCESS) return association.status;
    const vp = new VpContext(lp, host.platform, tdr, tdcs, tdvps, locks);
    vp.hkid = tdr.hkid;
    return enterTd(vp, {
      flags: flags!,
      newAssociation: association.newAssociation,
      tscAdjust: host.tscAdjust,
      lastTdvpr: host.lastTdvpr.get(lp.index) ?? -1,
      commit: () => {
        releaseOpState();
        host.lastTdvpr.set(lp.index, flags!.tdvpr);
      },
    });
  }
}

/** The TD's keys are configured and its TDCS is complete. */
function checkBuildState(tdr: TdrStructure): bigint {
  if (tdr.get(TDR.FATAL) !== 0) return TDX_STATUS.TDX_TD_FATAL;
  if (tdr.get(TDR.LIFECYCLE_STATE) !== LifecycleState.TD_KEYS_CONFIGURED)
    return TDX_STATUS.TDX_TD_KEYS_NOT_CONFIGURED;
  if (tdr.get(TDR.NUM_TDCX) < MIN_NUM_TDCS_PAGES) return TDX_STATUS.TDX_TDCS_NOT_ALLOCATED;
  return TDX_STATUS.TDX_SUCCESS;
}
