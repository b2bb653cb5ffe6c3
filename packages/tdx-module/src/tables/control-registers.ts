/**
 * CR0 and CR4 of a TD: which bits the module owns (CR0/CR4 guest/host masks), what the guest reads in their place
 * (read shadows), and what comes of a write that exits.
 *
 * Source: intel/tdx-module 1.5.05 src/common/data_structures/td_vmcs_init.c, src/common/helpers/helpers.c
 * (write_guest_cr0, write_guest_cr4).
 */
import { TD_ATTRIBUTES } from "@swtdx/abi";

const M64 = (1n << 64n) - 1n;
const bits = (high: bigint, low: bigint): bigint => ((1n << (high - low + 1n)) - 1n) << low;
const bit = (value: bigint, n: bigint): boolean => ((value >> n) & 1n) !== 0n;

export const CR0 = {
  PE: 1n << 0n,
  NE: 1n << 5n,
  WP: 1n << 16n,
  NW: 1n << 29n,
  CD: 1n << 30n,
  PG: 1n << 31n,
} as const;
export const CR4 = {
  MCE: 1n << 6n,
  VMXE: 1n << 13n,
  SMXE: 1n << 14n,
  OSXSAVE: 1n << 18n,
  KL: 1n << 19n,
  PKE: 1n << 22n,
  CET: 1n << 23n,
  PKS: 1n << 24n,
  UINTR: 1n << 25n,
  LASS: 1n << 27n,
} as const;

export const GUEST_CR0_INIT = 0x21n;
export const GUEST_CR4_INIT = 0x2040n;
/** Reserved bits 28:19, 17 and 15:6 of CR0: writes to them are ignored. */
export const CR0_IGNORED_MASK = 0x1ffaffc0n;

/** IA32_VMX_CR0_FIXED0 / FIXED1, IA32_VMX_CR4_FIXED0 / FIXED1 of the processor. */
export interface CrFixedBits {
  readonly cr0Fixed0: bigint;
  readonly cr0Fixed1: bigint;
  readonly cr4Fixed0: bigint;
  readonly cr4Fixed1: bigint;
}

export const cr0GuestHostMask = (fixed: CrFixedBits): bigint =>
  ((fixed.cr0Fixed0 | (~fixed.cr0Fixed1 & M64)) & ~CR0.PG & M64) |
  CR0.PE |
  CR0.NE |
  CR0.NW |
  CR0.CD |
  bits(63n, 32n) |
  CR0_IGNORED_MASK;

export const cr0ReadShadow = (fixed: CrFixedBits): bigint => fixed.cr0Fixed0 | CR0.PE | CR0.NE;

export function cr4GuestHostMask(fixed: CrFixedBits, attributes: bigint, xfam: bigint): bigint {
  let mask =
    fixed.cr4Fixed0 |
    (~fixed.cr4Fixed1 & M64) |
    CR4.MCE |
    CR4.VMXE |
    CR4.SMXE |
    (1n << 15n) |
    (1n << 26n) |
    bits(31n, 29n) |
    bits(63n, 33n);
  if (!bit(xfam, 9n)) mask |= CR4.PKE;
  if ((xfam & bits(12n, 11n)) !== bits(12n, 11n)) mask |= CR4.CET;
  if (!bit(xfam, 14n)) mask |= CR4.UINTR;
  if ((attributes & TD_ATTRIBUTES.KL) === 0n) mask |= CR4.KL;
  if ((attributes & TD_ATTRIBUTES.PKS) === 0n) mask |= CR4.PKS;
  if ((attributes & TD_ATTRIBUTES.LASS) === 0n) mask |= CR4.LASS;
  return mask;
}

export const cr4ReadShadow = (fixed: CrFixedBits): bigint => (fixed.cr4Fixed0 & ~CR4.VMXE) | CR4.MCE;

/** What a MOV to CR0 or CR4 that exits comes to: the value to load, #GP(0) or #VE. */
export type CrWrite = { readonly kind: "load"; readonly value: bigint } | { readonly kind: "GP" | "VE" };
const GP: CrWrite = { kind: "GP" };
const VE: CrWrite = { kind: "VE" };

/** @param cr0 and @param cr4 the guest's registers before the write */
export function writeGuestCr0(value: bigint, cr0: bigint, cr4: bigint, fixed: CrFixedBits): CrWrite {
  const mustBe1 = fixed.cr0Fixed0 & ~(CR0.PE | CR0.PG);
  if ((~value & mustBe1) !== 0n || (value & ~fixed.cr0Fixed1 & M64) !== 0n) return GP;
  if ((value & CR0.PE) === 0n && (value & CR0.PG) !== 0n) return GP;
  if ((cr4 & CR4.CET) !== 0n && (value & CR0.WP) === 0n) return GP;
  const owned = (value & CR0.PE) === 0n || (value & CR0.NE) === 0n || (value & (CR0.NW | CR0.CD)) !== 0n;
  if (owned || value >> 32n !== 0n) return VE;
  return { kind: "load", value: (value & ~CR0_IGNORED_MASK) | (cr0 & CR0_IGNORED_MASK) };
}

/** No write of CR4 that exits succeeds. */
export function writeGuestCr4(
  value: bigint,
  cr0: bigint,
  fixed: CrFixedBits,
  attributes: bigint,
  xfam: bigint,
): CrWrite {
  const mustBe1 = fixed.cr4Fixed0 & ~CR4.VMXE;
  if ((~value & mustBe1) !== 0n || (value & ~fixed.cr4Fixed1 & M64) !== 0n) return GP;
  if (!isGuestCr4AllowedByTdConfig(value, attributes, xfam)) return GP;
  if ((value & CR4.CET) !== 0n && (cr0 & CR0.WP) === 0n) return GP;
  return VE;
}

const isGuestCr4AllowedByTdConfig = (cr4: bigint, attributes: bigint, xfam: bigint): boolean => {
  if ((cr4 & CR4.PKE) !== 0n && !bit(xfam, 9n)) return false;
  if ((cr4 & CR4.CET) !== 0n && !(bit(xfam, 11n) && bit(xfam, 12n))) return false;
  if ((cr4 & CR4.UINTR) !== 0n && !bit(xfam, 14n)) return false;
  if ((cr4 & CR4.KL) !== 0n) return false;
  if ((cr4 & CR4.PKS) !== 0n && (attributes & TD_ATTRIBUTES.PKS) === 0n) return false;
  return (cr4 & CR4.LASS) === 0n || (attributes & TD_ATTRIBUTES.LASS) !== 0n;
};
