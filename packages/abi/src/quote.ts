/**
 * TD quotes of version 4 and 5: header, bodies, SGX report of the quoting enclave, certification data.
 * Source: Intel TDX DCAP Quoting Library API, appendix 3 (quote format); checked with google/go-tdx-guest abi/.
 */
import { bytes, struct, u16, u32, u64, type StructOf } from "./struct.js";

/** Quote versions which carry a TD's report. */
export const QUOTE_VERSION = { V4: 4, V5: 5 } as const;

/** Attestation key types of a quote header. */
export const ATTESTATION_KEY_TYPE = { ECDSA_P256: 2, ECDSA_P384: 3 } as const;

/** "Quote vendor": Intel's quoting enclave, 939A7233-F79C-4CA9-940A-0DB3957F0607 as bytes. */
export const INTEL_QE_VENDOR_ID: Uint8Array = Uint8Array.of(
  ...[0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07],
);

export const QUOTE_HEADER = struct("QUOTE_HEADER", 48, {
  VERSION: u16(0),
  /** ATTESTATION_KEY_TYPE. */
  ATT_KEY_TYPE: u16(2),
  /** TEE_TYPE: 0x81 for TDX. */
  TEE_TYPE: u32(4),
  /** Version 3 put the SVNs of QE and PCE here; versions 4 and 5 reserve the bytes. */
  RESERVED_0: u16(8),
  RESERVED_1: u16(10),
  QE_VENDOR_ID: bytes(12, 16),
  /** The first 16 bytes identify the platform's QE (QEID), the rest is zero. */
  USER_DATA: bytes(28, 20),
});
export type QuoteHeader = StructOf<typeof QUOTE_HEADER>;

/** Body types of a version 5 quote. */
export const QUOTE_BODY_TYPE = { SGX: 1, TD_10: 2, TD_15: 3 } as const;

/** Version 5: what follows the header and precedes the body. */
export const QUOTE_BODY_DESCRIPTOR = struct("QUOTE_BODY_DESCRIPTOR", 6, { TYPE: u16(0), SIZE: u32(2) });

const td10 = {
  TEE_TCB_SVN: bytes(0, 16),
  MRSEAM: bytes(16, 48),
  MRSIGNERSEAM: bytes(64, 48),
  SEAMATTRIBUTES: u64(112),
  TDATTRIBUTES: u64(120),
  XFAM: u64(128),
  MRTD: bytes(136, 48),
  MRCONFIGID: bytes(184, 48),
  MROWNER: bytes(232, 48),
  MROWNERCONFIG: bytes(280, 48),
  RTMR0: bytes(328, 48),
  RTMR1: bytes(376, 48),
  RTMR2: bytes(424, 48),
  RTMR3: bytes(472, 48),
  REPORTDATA: bytes(520, 64),
};
/** The TD's report of TDX 1.0: the only body of version 4, type 2 of version 5. */
export const TD_QUOTE_BODY_10 = struct("TD_QUOTE_BODY_10", 584, td10);
export type TdQuoteBody10 = StructOf<typeof TD_QUOTE_BODY_10>;
/** The TD's report of TDX 1.5: type 3 of version 5. */
export const TD_QUOTE_BODY_15 = struct("TD_QUOTE_BODY_15", 648, {
  ...td10,
  TEE_TCB_SVN2: bytes(584, 16),
  /** SERVTD_HASH of TDINFO_STRUCT. */
  MRSERVICETD: bytes(600, 48),
});
export type TdQuoteBody15 = StructOf<typeof TD_QUOTE_BODY_15>;

/** SGX's REPORT without key id and MAC (SDM vol. 3D, 37.16): what the PCK signs for the quoting enclave. */
export const SGX_REPORT_BODY = struct("SGX_REPORT_BODY", 384, {
  CPUSVN: bytes(0, 16),
  MISCSELECT: u32(16),
  RESERVED_0: bytes(20, 28),
  ATTRIBUTES: bytes(48, 16),
  MRENCLAVE: bytes(64, 32),
  RESERVED_1: bytes(96, 32),
  MRSIGNER: bytes(128, 32),
  RESERVED_2: bytes(160, 96),
  ISVPRODID: u16(256),
  ISVSVN: u16(258),
  RESERVED_3: bytes(260, 60),
  REPORTDATA: bytes(320, 64),
});
export type SgxReportBody = StructOf<typeof SGX_REPORT_BODY>;
/** ATTRIBUTES bit 1 of an SGX report: the enclave can be debugged. */
export const SGX_ATTRIBUTES_DEBUG = 0x02;

/** Bytes of an ECDSA P-256 signature (r ‖ s) and of a public key (x ‖ y), both big-endian. */
export const ECDSA_P256_SIZE = 64;

/** Types of certification data. */
export const CERTIFICATION_DATA_TYPE = {
  PPID_CLEAR: 1,
  PPID_RSA2048: 2,
  PPID_RSA3072: 3,
  PCK_LEAF: 4,
  PCK_CERT_CHAIN: 5,
  QE_REPORT: 6,
  PLATFORM_MANIFEST: 7,
} as const;

/** Precedes certification data. */
export const CERTIFICATION_DATA_HEADER = struct("CERTIFICATION_DATA", 6, { TYPE: u16(0), SIZE: u32(2) });
