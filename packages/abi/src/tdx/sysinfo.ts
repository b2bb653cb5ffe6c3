/**
 * TDSYSINFO_STRUCT: output of TDH.SYS.INFO.
 * TDX Module 1.5 ABI specification, as in intel/tdx-module include/tdx_api_defs.h.
 */
import { array, nested, struct, u16, u32, u64, u8, type StructOf } from "../struct.js";

/** Alignment of TDSYSINFO_STRUCT in host memory, in bytes. */
export const TDSYSINFO_ALIGN = 1024;
export const TDX_VENDOR_ID_INTEL = 0x8086;
/** Entries that fit in CPUID_CONFIGS. */
export const TDSYSINFO_CPUID_CONFIG_MAX = 37;

/** A CPUID leaf whose bits TD_PARAMS may configure. */
export const CPUID_CONFIG = struct("CPUID_CONFIG", 24, {
  LEAF: u32(0),
  /** 0xFFFFFFFF: the leaf has no sub-leaves. */
  SUB_LEAF: u32(4),
  /** Bits that may be configured. */
  EAX: u32(8),
  EBX: u32(12),
  ECX: u32(16),
  EDX: u32(20),
});
/** SUB_LEAF of a leaf without sub-leaves. */
export const CPUID_CONFIG_NO_SUB_LEAF = 0xffff_ffff;

export const TDSYSINFO_STRUCT = struct("TDSYSINFO_STRUCT", 1024, {
  /** Bit 31: debug module. */
  ATTRIBUTES: u32(0),
  VENDOR_ID: u32(4),
  /** Decimal digits yyyymmdd in hexadecimal. */
  BUILD_DATE: u32(8),
  BUILD_NUM: u16(12),
  MINOR_VERSION: u16(14),
  MAJOR_VERSION: u16(16),
  /** TDH.SYS.RD is there. */
  SYS_RD: u8(18),
  MAX_TDMRS: u16(32),
  MAX_RESERVED_PER_TDMR: u16(34),
  PAMT_ENTRY_SIZE: u16(36),
  TDCS_BASE_SIZE: u16(48),
  TDVPS_BASE_SIZE: u16(52),
  TDVPS_XFAM_DEPENDENT_SIZE: u8(54),
  ATTRIBUTES_FIXED0: u64(64),
  ATTRIBUTES_FIXED1: u64(72),
  XFAM_FIXED0: u64(80),
  XFAM_FIXED1: u64(88),
  NUM_CPUID_CONFIG: u32(128),
  CPUID_CONFIGS: array(132, TDSYSINFO_CPUID_CONFIG_MAX, (at) => nested(at, CPUID_CONFIG)),
});
export type TdSysInfo = StructOf<typeof TDSYSINFO_STRUCT>;
