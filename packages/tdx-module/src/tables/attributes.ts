/**
 * ATTRIBUTES, XFAM and CONFIG_FLAGS: which bits exist, which combinations TDH.MNG.INIT accepts.
 *
 * Source: TDX module 1.5 ABI specification, ATTRIBUTES, XFAM, CONFIG_FLAGS; intel/tdx-module 1.5.05
 * src/common/data_structures/td_control_structures.h, src/common/helpers/helpers.c (verify_td_attributes, check_xfam,
 * verify_td_config_flags, check_guest_xcr0_value).
 */

import { CONFIG_FLAGS, TD_ATTRIBUTES, TD_CTLS, XFAM_XCR0_MASK, XFAM_XSS_MASK } from "@swtdx/abi";

/** Bits that may be set; enumerated by TDH.SYS.RD. LASS and Key Locker are not offered. */
export const ATTRIBUTES_FIXED0 =
  TD_ATTRIBUTES.DEBUG |
  TD_ATTRIBUTES.SEPT_VE_DISABLE |
  TD_ATTRIBUTES.MIGRATABLE |
  TD_ATTRIBUTES.PKS |
  TD_ATTRIBUTES.PERFMON;
/** Bits that must be set. */
export const ATTRIBUTES_FIXED1 = 0n;

/** Bits that may be set in XFAM (if the processor has them too) and must be. */
export const XFAM_FIXED0 = 0x6dbe7n;
export const XFAM_FIXED1 = 0x3n;
/** Features of the processor that the module knows: of XCR0 and of IA32_XSS. */
export const XCR0_USER_BIT_MASK = XFAM_XCR0_MASK;
export const XCR0_SUPERVISOR_BIT_MASK = XFAM_XSS_MASK;
export const XCR0_MAX_VALID_BIT = 18;

export const CONFIG_FLAGS_FIXED0 =
  CONFIG_FLAGS.GPAW | CONFIG_FLAGS.FLEXIBLE_PENDING_VE | CONFIG_FLAGS.NO_RBP_MOD;
export const CONFIG_FLAGS_FIXED1 = 0n;

/** Bits of TD_CTLS that the guest may write. REDUCE_VE (bit 3) is not offered. */
export const TD_CTLS_WRITABLE = TD_CTLS.PENDING_VE_DISABLE | TD_CTLS.ENUM_TOPOLOGY | TD_CTLS.VIRT_CPUID2;

/** Limits of TD_PARAMS.TSC_FREQUENCY, in units of 25 MHz. */
export const VIRT_TSC_FREQUENCY_MIN = 4;
export const VIRT_TSC_FREQUENCY_MAX = 400;
/** Limit of TD_PARAMS.MAX_VCPUS. */
export const MAX_VCPUS_PER_TD = 576;

export function verifyTdAttributes(attributes: bigint, imported = false): boolean {
  if ((attributes & ~ATTRIBUTES_FIXED0) !== 0n) return false;
  if ((attributes & ATTRIBUTES_FIXED1) !== ATTRIBUTES_FIXED1) return false;
  if ((attributes & TD_ATTRIBUTES.MIGRATABLE) === 0n) return !imported;
  return (attributes & (TD_ATTRIBUTES.DEBUG | TD_ATTRIBUTES.PERFMON)) === 0n;
}

export const verifyTdConfigFlags = (flags: bigint): boolean =>
  (flags & ~CONFIG_FLAGS_FIXED0) === 0n && (flags & CONFIG_FLAGS_FIXED1) === CONFIG_FLAGS_FIXED1;

const bit = (value: bigint, n: bigint): boolean => ((value >> n) & 1n) !== 0n;
/** AVX-512 and AMX come as a whole; AVX-512 needs AVX. */
const combinationsAllowed = (value: bigint): boolean =>
  !(bit(value, 5n) && !bit(value, 2n)) &&
  bit(value, 5n) === bit(value, 6n) &&
  bit(value, 5n) === bit(value, 7n) &&
  bit(value, 17n) === bit(value, 18n);

/** @param supported features of the processor: CPUID(0xD,0).EAX and CPUID(0xD,1).ECX, within the masks above */
export const checkXfam = (xfam: bigint, supported: bigint): boolean =>
  (xfam & ~(XFAM_FIXED0 & supported)) === 0n &&
  (xfam & XFAM_FIXED1) === XFAM_FIXED1 &&
  combinationsAllowed(xfam) &&
  bit(xfam, 11n) === bit(xfam, 12n);

/** Whether XSETBV may load `xcr0` in a TD. */
export const checkGuestXcr0Value = (xcr0: bigint, xfam: bigint, xcr0Supported: bigint): boolean =>
  (xcr0 & ~(xcr0Supported & xfam)) === 0n &&
  bit(xcr0, 0n) &&
  !(bit(xcr0, 2n) && !bit(xcr0, 1n)) &&
  combinationsAllowed(xcr0);
