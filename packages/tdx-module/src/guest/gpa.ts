/**
 * Guest-physical addresses as operands of TDCALL functions: checks, and translation through the Secure or the shared
 * EPT as the processor would do it, with the same consequences: #VE or TD exit.
 *
 * Source: intel/tdx-module 1.5.05 src/common/helpers/helpers.c (check_gpa_validity, check_walk_and_map_guest_side_gpa,
 * verify_page_info_input), src/common/memory_handlers/sept_manager.c (gpa_translate).
 */
import { TD_CTLS, VMX_EEQ_TYPE, type Hpa, type KeyId } from "@swtdx/abi";
import { Flow, type VpContext } from "../entry/vp-context.js";
import { eptMisconfigExitToVmm, eptViolationExitToVmm } from "../exits/td-ept-violation.js";
import { injectVe } from "../exits/inject.js";
import { SEPT_HIGH, SEPT_LOW, SeptEntry, septIndex, septWalk } from "../structures/sept.js";
import { TDCS } from "../structures/tdcs.js";
import { VMCS } from "@swtdx/cpu";
import { ExitReason } from "../tables/exit-reasons.js";

const septEntry = new SeptEntry();

/** Depth of the TD's EPT: level of its root table, 3 or 4. */
const rootLevel = (eptp: bigint): number => Number((eptp >> 3n) & 7n);
const EPTP_ADDRESS = 0x000f_ffff_ffff_f000n;

/** Walks the Secure EPT to the entry of `level` or the last one there is. The entry object is reused by the next walk. */
export function walkSecureEpt(vp: VpContext, gpa: number, level: number): SeptEntry {
  const eptp = vp.tdcs.get(TDCS.EPTP);
  const root = vp.tdcs.pa(TDCS.SEPT_ROOT.offset);
  septWalk(vp.lp, root, rootLevel(eptp), vp.hkid, gpa, level, septEntry);
  return septEntry;
}

const sharedBitValue = (vp: VpContext): number => (vp.gpaw ? 2 ** 51 : 2 ** 47);
export const isSharedGpa = (vp: VpContext, gpa: number): boolean =>
  Math.floor(gpa / sharedBitValue(vp)) % 2 === 1;

/** A GPA within the guest's address width, and without the shared bit where that is asked. */
export function checkGpaValidity(vp: VpContext, gpa: bigint, privateOnly: boolean): boolean {
  if (gpa >> (vp.gpaw ? 52n : 48n) !== 0n) return false;
  return !privateOnly || (gpa & (vp.gpaw ? 1n << 51n : 1n << 47n)) === 0n;
}

/** An operand with level in bits 2:0 and GPA in 51:12: the page's GPA, or null. */
export function pageInfo(operand: bigint, maxLevel: number): { gpa: bigint; level: number } | null {
  if ((operand & ~0x000f_ffff_ffff_f007n) !== 0n) return null;
  const level = Number(operand & 7n);
  const gpa = operand & 0x000f_ffff_ffff_f000n;
  if (level > maxLevel || (gpa & ((1n << BigInt(12 + 9 * level)) - 1n)) !== 0n) return null;
  return { gpa, level };
}

/** Outcomes of `guestSideGpa` besides Flow. */
export const GPA_OK = -1;
export const GPA_INVALID = -2;

/**
 * Where a GPA is: `vp.mappedHpa` and `vp.mappedKeyId`, valid to the end of the 4K page.
 * @returns GPA_OK; GPA_INVALID; or the Flow of an EPT violation or misconfiguration that was dealt with
 */
export function guestSideGpa(vp: VpContext, gpa: bigint, write: boolean, privateOnly: boolean): number {
  if (!checkGpaValidity(vp, gpa, privateOnly)) return GPA_INVALID;
  const address = Number(gpa);
  return isSharedGpa(vp, address)
    ? sharedWalk(vp, gpa, address, write)
    : privateWalk(vp, gpa, address, write);
}

const rightsWanted = (write: boolean): number => (write ? SEPT_LOW.R | SEPT_LOW.W : SEPT_LOW.R);
/** Exit qualification: access in bits 2:0 as far as refused, rights in 5:3. */
const qualificationOf = (wanted: number, rights: number): bigint =>
  BigInt((wanted & ~rights) | (rights << 3));

function privateWalk(vp: VpContext, gpa: bigint, address: number, write: boolean): number {
  const entry = walkSecureEpt(vp, address, 0);
  const wanted = rightsWanted(write);
  const rights = entry.low & SEPT_LOW.RWX;
  if (entry.leaf && (rights & wanted) === wanted) {
    const inPage = address % 2 ** (12 + 9 * entry.level);
    vp.mappedHpa = (entry.hpa - (entry.hpa % 2 ** (12 + 9 * entry.level)) + inPage) as Hpa;
    vp.mappedKeyId = vp.hkid;
    return GPA_OK;
  }
  const qualification = qualificationOf(wanted, rights);
  if (!entry.info.guestAcceptable)
    return eptViolationExitToVmm(vp, gpa, ExitReason.EPT_VIOLATION, qualification, 0n);
  if ((vp.tdcs.get(TDCS.TD_CTLS) & TD_CTLS.PENDING_VE_DISABLE) !== 0n)
    return eptViolationExitToVmm(
      vp,
      gpa,
      ExitReason.EPT_VIOLATION,
      qualification,
      BigInt(VMX_EEQ_TYPE.PENDING_EPT_VIOLATION),
    );
  injectVe(vp, ExitReason.EPT_VIOLATION, qualification, gpa);
  return Flow.REENTER;
}

/** Bits of a present shared EPT entry that must be 0: 51 and below are address, X without R is allowed, W without R is not. */
const isMisconfigured = (low: number, level: number): boolean => {
  if ((low & 7) === 0) return false;
  if ((low & 3) === 2) return true;
  const leaf = level === 0 || (low & 0x80) !== 0;
  if (!leaf) return (low & 0xf8) !== 0;
  if (level > 2) return true;
  const type = (low >> 3) & 7;
  if (type === 2 || type === 3 || type === 7) return true;
  return level > 0 && (low & ((2 ** (9 * level) - 1) * 4096)) !== 0;
};

function sharedWalk(vp: VpContext, gpa: bigint, address: number, write: boolean): number {
  const { lp, platform } = vp;
  const keyUnit = 2 ** platform.keyIdShift;
  const wanted = rightsWanted(write);
  let rights: number = SEPT_LOW.RWX;
  let table = Number(lp.vmread(VMCS.SHARED_EPT_POINTER) & EPTP_ADDRESS);
  for (let level = rootLevel(vp.tdcs.get(TDCS.EPTP)); ; level--) {
    const pa = table + septIndex(address, level) * 8;
    const at = (pa % keyUnit) as Hpa;
    const key = Math.floor(pa / keyUnit) as KeyId;
    const low = lp.readU32(at, key);
    const high = lp.readU32((at + 4) as Hpa, key);
    rights &= low;
    if (isMisconfigured(low, level)) return eptMisconfigExitToVmm(vp, gpa);
    const leaf = level === 0 || (low & 0x80) !== 0;
    if ((low & wanted) !== wanted) {
      const present = (low & 7) !== 0;
      const suppressed = (high & SEPT_HIGH.SVE) !== 0;
      const qualification = qualificationOf(wanted, rights);
      if (suppressed || (present && !leaf))
        return eptViolationExitToVmm(vp, gpa, ExitReason.EPT_VIOLATION, qualification, 0n);
      injectVe(vp, ExitReason.EPT_VIOLATION, qualification, gpa);
      return Flow.REENTER;
    }
    const next = (high & SEPT_HIGH.HPA_MASK) * 0x1_0000_0000 + ((low & 0xffff_f000) >>> 0);
    if (leaf) {
      const size = 2 ** (12 + 9 * level);
      const mapped = next - (next % size) + (address % size);
      if (!platform.isSharedHpa(mapped - (mapped % 4096), 4096)) return eptMisconfigExitToVmm(vp, gpa);
      vp.mappedHpa = (mapped % keyUnit) as Hpa;
      vp.mappedKeyId = Math.floor(mapped / keyUnit) as KeyId;
      return GPA_OK;
    }
    table = next;
  }
}
