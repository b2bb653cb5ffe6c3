/**
 * What the interface functions share: operand checks, PAMT walks with their locks, finding a TD and its state, walking
 * the Secure EPT.
 *
 * Source: intel/tdx-module src/common/helpers/helpers.c, src/common/memory_handlers/pamt_manager.c.
 */
import { type Hpa, type OperandIdName, TDX_STATUS, withOperand, withOperandFatal } from "@swtdx/abi";
import { acquireSharex, acquireSharexHp, Lock, promoteSharexHp } from "../locks.js";
import type { SeamCall } from "../call.js";
import { findTdmr, Level, PageType, pamtEntryPa, pamtPageType, type TdmrEntry } from "../structures/pamt.js";
import { septWalk } from "../structures/sept.js";
import { MIN_NUM_TDCS_PAGES, TDCS } from "../structures/tdcs.js";
import { LifecycleState, TDR, type TdrStructure } from "../structures/tdr.js";
import { MIN_TDVPS_PAGES, TDVPS, type TdvpsStructure } from "../structures/tdvps.js";
import { opStateIsSeamcallAllowed, opStateNeedsTlbTracking } from "../tables/op-state.js";
import { septStateIsSeamcallAllowed } from "../tables/sept-state.js";
import { isTlbTracked } from "./tlb-tracked.js";

const {
  TDX_SUCCESS,
  TDX_OPERAND_INVALID,
  TDX_OPERAND_ADDR_RANGE_ERROR,
  TDX_PAGE_METADATA_INCORRECT,
  TDX_OPERAND_BUSY,
} = TDX_STATUS;

/** An HPA operand without KeyID, aligned to `alignment`; -1 when it is none. */
export function hpaOperand(call: SeamCall, value: bigint | number, alignment = 4096): number {
  const address = Number(value);
  if (address >= call.module.keyIdUnit) return -1;
  return address % alignment === 0 ? address : -1;
}

/** A shared HPA operand, with KeyID bits: no private KeyID, not in the SEAM range; -1 when it is none. */
export function sharedHpaOperand(call: SeamCall, value: bigint, size: number, alignment = size): number {
  if (value >> 52n !== 0n) return -1;
  const address = Number(value);
  return address % alignment === 0 && call.module.isSharedHpa(address, size) ? address : -1;
}

const lockEntry = (call: SeamCall, entry: Hpa, lock: Lock): bigint => {
  const status = acquireSharexHp(call.lp, entry, call.globalHkid, lock);
  if (status === TDX_SUCCESS) call.locks.push(entry, call.globalHkid, lock, true);
  return status;
};

/**
 * Walks the PAMT to the entry of `target` level, or to the leaf that is there, locking what is on the way shared and
 * the entry as asked. On success `call.pamtEntry` and `call.pamtLevel` tell what was found.
 */
export function pamtWalk(call: SeamCall, tdmr: TdmrEntry, pa: number, lock: Lock, target: number): bigint {
  const { lp, globalHkid } = call;
  for (let level: number = Level.PT_1GB; ; level--) {
    const entry = pamtEntryPa(tdmr, pa, level);
    if (level === Level.PT_4KB) {
      const status = lockEntry(call, entry, lock);
      if (status !== TDX_SUCCESS) return status;
      call.pamtEntry = entry;
      call.pamtLevel = level;
      return TDX_SUCCESS;
    }
    const last = level === target;
    // The root is taken shared first; a leaf that is wanted exclusive is promoted, as others may be on their way down.
    const shared = lockEntry(call, entry, Lock.SHARED);
    if (shared !== TDX_SUCCESS) return shared;
    if (last || pamtPageType(lp, entry, globalHkid) === PageType.PT_REG) {
      if (lock === Lock.EXCLUSIVE) {
        const promoted = promoteSharexHp(lp, entry, globalHkid);
        if (promoted !== TDX_SUCCESS) return promoted;
        call.locks.replaceNewest(Lock.EXCLUSIVE);
      }
      call.pamtEntry = entry;
      call.pamtLevel = level;
      return TDX_SUCCESS;
    }
  }
}

/**
 * Checks and locks the page of `level` at an HPA operand: aligned, in a TDMR, of the expected type.
 * @returns TDX_SUCCESS or the status with operand id
 */
export function lockPage(
  call: SeamCall,
  pa: number,
  operand: OperandIdName,
  lock: Lock,
  expected: PageType,
  level: number = Level.PT_4KB,
): bigint {
  if (pa < 0) return withOperand(TDX_OPERAND_INVALID, operand);
  const tdmr = findTdmr(call.module.tdmrs, pa);
  if (tdmr === null) return withOperand(TDX_OPERAND_ADDR_RANGE_ERROR, operand);
  const status = pamtWalk(call, tdmr, pa, lock, level);
  if (status !== TDX_SUCCESS) return withOperand(status, operand);
  if (call.pamtLevel !== level || pamtPageType(call.lp, call.pamtEntry, call.globalHkid) !== expected)
    return withOperand(TDX_PAGE_METADATA_INCORRECT, operand);
  return TDX_SUCCESS;
}

/** The PAMT entry of a page that a structure refers to: known to be there. */
export function implicitPamtEntry(call: SeamCall, pa: number, level: number): Hpa {
  const tdmr = findTdmr(call.module.tdmrs, pa);
  if (tdmr === null) return call.lp.shutdown(`TDX module: no PAMT for 0x${pa.toString(16)}`);
  return pamtEntryPa(tdmr, pa, level);
}

/** Locks only that entry. */
export const lockImplicit = (call: SeamCall, entry: Hpa, lock: Lock): bigint => lockEntry(call, entry, lock);

/** Finds and locks the TD whose TDR is an operand. */
export function lockTdr(
  call: SeamCall,
  value: bigint,
  operand: OperandIdName,
  lock: Lock,
  expected: PageType = PageType.PT_TDR,
): bigint {
  const pa = hpaOperand(call, value);
  const status = lockPage(call, pa, operand, lock, expected);
  if (status === TDX_SUCCESS) call.useTdr(pa as Hpa);
  return status;
}

/** Locks the TD that owns a page. */
export function lockImplicitTdr(call: SeamCall, tdr: Hpa, lock: Lock): bigint {
  const status = lockEntry(call, implicitPamtEntry(call, tdr, Level.PT_4KB), lock);
  if (status !== TDX_SUCCESS) return withOperand(status, "TDR");
  call.useTdr(tdr);
  return TDX_SUCCESS;
}

/** Whether the TD is built far enough for its TDCS to be used. */
function checkBuildState(tdr: TdrStructure): bigint {
  if (tdr.get(TDR.FATAL) !== 0) return withOperandFatal(TDX_STATUS.TDX_TD_FATAL, 0);
  if (tdr.get(TDR.LIFECYCLE_STATE) !== LifecycleState.TD_KEYS_CONFIGURED)
    return TDX_STATUS.TDX_TD_KEYS_NOT_CONFIGURED;
  if (tdr.get(TDR.NUM_TDCX) < MIN_NUM_TDCS_PAGES) return TDX_STATUS.TDX_TDCS_NOT_ALLOCATED;
  return TDX_SUCCESS;
}

/** Checks the TD's state for this function and locks OP_STATE as asked; `call.tdcs` is there afterwards. */
export function lockTdcs(call: SeamCall, lock: Lock): bigint {
  const built = checkBuildState(call.tdr);
  if (built !== TDX_SUCCESS) return built;
  const tdcs = call.findTdcs();
  if (lock !== Lock.NONE) {
    const pa = tdcs.pa(TDCS.OP_STATE_LOCK.offset);
    const status = acquireSharexHp(call.lp, pa, tdcs.keyId, lock);
    if (status !== TDX_SUCCESS) return withOperand(status, "OP_STATE");
    call.locks.push(pa, tdcs.keyId, lock, true);
  }
  if (!opStateIsSeamcallAllowed(call.leaf, tdcs.get(TDCS.OP_STATE))) return TDX_STATUS.TDX_OP_STATE_INCORRECT;
  call.tdcs = tdcs;
  return TDX_SUCCESS;
}

/** TDR and TDCS in one step. */
export function lockTd(
  call: SeamCall,
  value: bigint,
  operand: OperandIdName,
  tdrLock: Lock,
  opStateLock: Lock,
): bigint {
  const status = lockTdr(call, value, operand, tdrLock);
  return status === TDX_SUCCESS ? lockTdcs(call, opStateLock) : status;
}

/** A vCPU by its TDVPR operand: TDVPR, then its TD. `call.pamtEntry` is the TDVPR's. */
export function lockTdvpr(
  call: SeamCall,
  value: bigint | number,
  operand: OperandIdName,
  lock: Lock,
): bigint {
  const pa = hpaOperand(call, value);
  const status = lockPage(call, pa, operand, lock, PageType.PT_TDVPR);
  if (status !== TDX_SUCCESS) return status;
  const owner = call.module.pamtOwner(call.lp, call.pamtEntry);
  return lockImplicitTdr(call, owner, Lock.SHARED);
}

/** The vCPU's TDVPS, or null when it has not all its pages. */
export function mapTdvps(call: SeamCall, tdvpr: number): TdvpsStructure | null {
  const tdvps = call.findTdvps(tdvpr as Hpa);
  return tdvps.get(TDVPS.NUM_TDVPS_PAGES) < MIN_TDVPS_PAGES ? null : tdvps;
}

/** GPA and level of a memory operand: level in bits 2:0, GPA from bit 12; null when bits or alignment are off. */
export function pageInfo(
  operand: bigint,
  minLevel: number,
  maxLevel: number,
): { gpa: number; level: number } | null {
  const level = Number(operand & 7n);
  if ((operand & 0xff8n) !== 0n || operand >> 52n !== 0n || level < minLevel || level > maxLevel) return null;
  const gpa = Number(operand & ~0xfffn);
  return gpa % 2 ** (12 + 9 * level) === 0 ? { gpa, level } : null;
}

/** A private GPA of the TD. */
export function isPrivateGpa(call: SeamCall, gpa: number): boolean {
  return gpa < (call.tdcs.get(TDCS.GPAW) !== 0 ? 2 ** 51 : 2 ** 47);
}

/** Level of the root table: 3 or 4. */
export function septRootLevel({ lp, tdcs }: SeamCall): number {
  return (lp.readU32(tdcs.pa(TDCS.EPTP.offset), tdcs.keyId) >>> 3) & 7;
}

/** The Secure EPT entry at hand, for the VMM: RCX and RDX. */
export function reportSept(call: SeamCall): void {
  call.set("RCX", call.sept.archEntry);
  call.set("RDX", call.sept.archInfo);
}

/** Walks to `level` or as far as it goes; the outcome is in `call.sept`. */
export function walkSept(call: SeamCall, gpa: number, level: number): void {
  const { tdcs } = call;
  septWalk(call.lp, tdcs.pa(TDCS.SEPT_ROOT.offset), septRootLevel(call), tdcs.keyId, gpa, level, call.sept);
}

/** Locks the Secure EPT tree. */
export function lockSeptTree(call: SeamCall, lock: Lock): bigint {
  const { tdcs } = call;
  const pa = tdcs.pa(TDCS.SECURE_EPT_LOCK.offset);
  if (acquireSharex(call.lp, pa, tdcs.keyId, lock) !== TDX_SUCCESS)
    return withOperand(TDX_OPERAND_BUSY, "SEPT_TREE");
  call.locks.push(pa, tdcs.keyId, lock, false);
  return TDX_SUCCESS;
}

/**
 * Checks a private GPA, locks the Secure EPT tree and walks to the entry of `level`.
 * @returns TDX_SUCCESS, or the status; after TDX_EPT_WALK_FAILED the entry found is in RCX and RDX
 */
export function lockAndWalkSept(call: SeamCall, gpa: number, level: number, lock: Lock): bigint {
  if (!isPrivateGpa(call, gpa)) return withOperand(TDX_OPERAND_INVALID, "RCX");
  const status = lockSeptTree(call, lock);
  if (status !== TDX_SUCCESS) return status;
  walkSept(call, gpa, level);
  if (call.sept.level === level) return TDX_SUCCESS;
  reportSept(call);
  return withOperand(TDX_STATUS.TDX_EPT_WALK_FAILED, "RCX");
}

/** Locks the entry that a walk found. */
export function lockSeptEntry(call: SeamCall): bigint {
  if (call.sept.lockForHost(call.lp)) {
    call.septLocked = true;
    return TDX_SUCCESS;
  }
  reportSept(call);
  return withOperand(TDX_OPERAND_BUSY, "RCX");
}

/** Writes the entry at hand, with its lock released. */
export function writeSeptAndUnlock(call: SeamCall): void {
  call.sept.low &= ~(1 << 11);
  call.sept.write(call.lp);
  call.septLocked = false;
}

/** Whether the state of the entry at hand allows the function. */
export const septStateAllowed = (call: SeamCall): boolean =>
  septStateIsSeamcallAllowed(call.leaf, call.sept.state);

/** Whether the entry at hand may only be changed after blocking and TLB tracking. */
export const needsTlbTracking = (call: SeamCall): boolean =>
  call.sept.info.tlbTrackingRequired && opStateNeedsTlbTracking(call.tdcs.get(TDCS.OP_STATE));

/**
 * Blocking and TLB tracking of a range whose PAMT entry is `entry`, where they are needed.
 * @returns TDX_SUCCESS, or the status
 */
export function checkBlockedAndTracked(call: SeamCall, entry: Hpa): bigint {
  if (!needsTlbTracking(call)) return TDX_SUCCESS;
  if (!call.sept.info.anyBlocked) {
    reportSept(call);
    return withOperand(TDX_STATUS.TDX_GPA_RANGE_NOT_BLOCKED, "RCX");
  }
  return isTlbTracked(call, entry) ? TDX_SUCCESS : withOperand(TDX_STATUS.TDX_TLB_TRACKING_NOT_DONE, "RCX");
}

/** The entry's state does not allow the function. */
export function septStateIncorrect(call: SeamCall): bigint {
  reportSept(call);
  return withOperand(TDX_STATUS.TDX_EPT_ENTRY_STATE_INCORRECT, "RCX");
}

/** Tells whoever listens of a change of the Secure EPT. */
export function traceSept(call: SeamCall, op: string, gpa: number): void {
  const { trace } = call.module;
  if (!trace.on.SEPT) return;
  const { sept } = call;
  trace.emit({ type: "SEPT", op, gpa, level: sept.level, state: sept.info.name, hpa: sept.hpa });
}
