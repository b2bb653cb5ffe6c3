/**
 * TDREPORT_STRUCT: output of TDG.MR.REPORT, input of TDG.MR.VERIFYREPORT and of the quoting enclave.
 * TDX Module 1.5 ABI specification, as in intel/tdx-module include/tdx_api_defs.h.
 */
import { array, bytes, nested, struct, u64, u8, type StructOf } from "../struct.js";

/** Alignment of a TDREPORT_STRUCT in guest memory, in bytes. */
export const TDREPORT_ALIGN = 1024;
/** Alignment of the REPORTDATA operand, in bytes. */
export const REPORTDATA_ALIGN = 64;
export const REPORTDATA_SIZE = 64;
/** Bytes of a measurement register (SHA-384). */
export const MEASUREMENT_SIZE = 48;
export const NUM_RTMRS = 4;

/** REPORTTYPE.TYPE. */
export const TEE_TYPE = { SGX: 0x00, TDX: 0x81 } as const;

export const REPORTTYPE = struct("REPORTTYPE", 4, {
  TYPE: u8(0),
  SUBTYPE: u8(1),
  /** TDX: 0, or 1 when a service TD is bound. */
  VERSION: u8(2),
  RESERVED: u8(3),
});

export const REPORTMACSTRUCT = struct("REPORTMACSTRUCT", 256, {
  REPORTTYPE: nested(0, REPORTTYPE),
  RESERVED_0: bytes(4, 12),
  CPUSVN: bytes(16, 16),
  /** SHA-384 of TEE_TCB_INFO: 239 bytes; what stands behind it in TDREPORT_STRUCT is reserved. */
  TEE_TCB_INFO_HASH: bytes(32, 48),
  /** SHA-384 of TDINFO_STRUCT. */
  TEE_INFO_HASH: bytes(80, 48),
  REPORTDATA: bytes(128, 64),
  RESERVED_1: bytes(192, 32),
  /** Over the bytes before it, with a key that only this platform has. */
  MAC: bytes(224, 32),
});
export type ReportMacStruct = StructOf<typeof REPORTMACSTRUCT>;
/** Bytes of REPORTMACSTRUCT that the MAC covers. */
export const REPORTMACSTRUCT_MACED_SIZE = 224;

export const TEE_TCB_INFO = struct("TEE_TCB_INFO", 239, {
  /** Bit i: the field at offset 8 * i is populated. */
  VALID: u64(0),
  TEE_TCB_SVN: bytes(8, 16),
  MRSEAM: bytes(24, 48),
  MRSIGNERSEAM: bytes(72, 48),
  ATTRIBUTES: u64(120),
  /** TEE_TCB_SVN of the module that was first loaded since reset, before any update. */
  TEE_TCB_SVN2: bytes(128, 16),
  RESERVED: bytes(144, 95),
});
export type TeeTcbInfo = StructOf<typeof TEE_TCB_INFO>;

export const TDINFO_STRUCT = struct("TDINFO_STRUCT", 512, {
  ATTRIBUTES: u64(0),
  XFAM: u64(8),
  MRTD: bytes(16, 48),
  MRCONFIGID: bytes(64, 48),
  MROWNER: bytes(112, 48),
  MROWNERCONFIG: bytes(160, 48),
  RTMR: array(208, NUM_RTMRS, (at) => bytes(at, 48)),
  SERVTD_HASH: bytes(400, 48),
  RESERVED: bytes(448, 64),
});
export type TdInfo = StructOf<typeof TDINFO_STRUCT>;

export const TDREPORT_STRUCT = struct("TDREPORT_STRUCT", 1024, {
  REPORTMACSTRUCT: nested(0, REPORTMACSTRUCT),
  TEE_TCB_INFO: nested(256, TEE_TCB_INFO),
  RESERVED: bytes(495, 17),
  TDINFO_STRUCT: nested(512, TDINFO_STRUCT),
});
export type TdReport = StructOf<typeof TDREPORT_STRUCT>;
