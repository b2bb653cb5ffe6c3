/**
 * TDMR_INFO: a Trust Domain Memory Region with its PAMT areas; operand of TDH.SYS.CONFIG.
 * TDX Module 1.5 ABI specification, as in intel/tdx-module include/tdx_api_defs.h.
 */
import { addr, array, nested, struct, type StructOf } from "../struct.js";

/** Alignment of each TDMR_INFO, in bytes. */
export const TDMR_INFO_ALIGN = 512;
/** Alignment of the array of pointers to TDMR_INFO structures, in bytes. */
export const TDMR_INFO_PA_ARRAY_ALIGN = 512;
/** TDMRs are aligned to and a multiple of this many bytes. */
export const TDMR_GRANULARITY = 2 ** 30;
export const TDMR_MAX_RESERVED_AREAS = 16;
/** TDMRs a 1.5 module takes. */
export const TDX_1_5_MAX_TDMRS = 64;
/** Bytes of a PAMT entry for a page of each size, in a 1.5 module. */
export const TDX_1_5_PAMT_ENTRY_SIZE = 16;

export const TDMR_RESERVED_AREA = struct("TDMR_RESERVED_AREA", 16, {
  /** From TDMR_BASE, in bytes. */
  OFFSET: addr(0),
  /** In bytes; 0: no entry. */
  SIZE: addr(8),
});

/** Addresses are HPAs without KeyID; sizes are in bytes. */
export const TDMR_INFO = struct("TDMR_INFO", 512, {
  TDMR_BASE: addr(0),
  TDMR_SIZE: addr(8),
  PAMT_1G_BASE: addr(16),
  PAMT_1G_SIZE: addr(24),
  PAMT_2M_BASE: addr(32),
  PAMT_2M_SIZE: addr(40),
  PAMT_4K_BASE: addr(48),
  PAMT_4K_SIZE: addr(56),
  RESERVED_AREAS: array(64, TDMR_MAX_RESERVED_AREAS, (at) => nested(at, TDMR_RESERVED_AREA)),
});
export type TdmrInfo = StructOf<typeof TDMR_INFO>;
/** Bytes of TDMR_INFO that mean something. */
export const TDMR_INFO_USED_SIZE = 320;
