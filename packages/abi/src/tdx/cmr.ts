/**
 * CMR_INFO: a Convertible Memory Range as the BIOS declares it and MCHECK verifies it.
 * TDX Module 1.5 ABI specification, as in intel/tdx-module include/tdx_api_defs.h.
 */
import { addr, array, nested, struct, type StructOf } from "../struct.js";

/** Entries of the CMR table. */
export const MAX_CMRS = 32;
/** Alignment of the CMR_INFO array that TDH.SYS.INFO fills, in bytes. */
export const CMR_INFO_ARRAY_ALIGN = 512;

export const CMR_INFO = struct("CMR_INFO", 16, {
  /** HPA, 4 KiB aligned. */
  CMR_BASE: addr(0),
  /** In bytes, a multiple of 4 KiB; 0: no entry. */
  CMR_SIZE: addr(8),
});
export type CmrInfo = StructOf<typeof CMR_INFO>;

export const CMR_INFO_ARRAY = struct("CMR_INFO_ARRAY", MAX_CMRS * 16, {
  CMRS: array(0, MAX_CMRS, (at) => nested(at, CMR_INFO)),
});
