/**
 * Messages of the quote generation service (QGS), which a VMM asks for quotes over a socket.
 * Source: Intel DCAP QuoteGeneration/quote_wrapper/qgs_msg_lib; client: QEMU target/i386/kvm/tdx-quote-generator.c.
 * On a stream every message is preceded by its length in bytes, 32-bit big-endian; all else is little-endian.
 */
import { struct, u16, u32, type StructOf } from "./struct.js";

export const QGS_MSG_LIB_MAJOR_VER = 1;
export const QGS_MSG_LIB_MINOR_VER = 1;

export const QGS_MSG_TYPE = {
  GET_QUOTE_REQ: 0,
  GET_QUOTE_RESP: 1,
  GET_COLLATERAL_REQ: 2,
  GET_COLLATERAL_RESP: 3,
  GET_PLATFORM_INFO_REQ: 4,
  GET_PLATFORM_INFO_RESP: 5,
} as const;

export const QGS_MSG_ERROR = {
  SUCCESS: 0,
  UNEXPECTED: 0x0001_2001,
  OUT_OF_MEMORY: 0x0001_2002,
  INVALID_PARAMETER: 0x0001_2003,
  INVALID_VERSION: 0x0001_2004,
  INVALID_TYPE: 0x0001_2005,
  INVALID_SIZE: 0x0001_2006,
  INVALID_CODE: 0x0001_2007,
} as const;
export type QgsMsgError = (typeof QGS_MSG_ERROR)[keyof typeof QGS_MSG_ERROR];

const header = {
  major_version: u16(0),
  minor_version: u16(2),
  /** QGS_MSG_TYPE. */
  type: u32(4),
  /** Of the whole message, in bytes. */
  size: u32(8),
  /** QGS_MSG_ERROR; 0 in a request. */
  error_code: u32(12),
};
export const QGS_MSG_HEADER = struct("qgs_msg_header_t", 16, header);
export type QgsMsgHeader = StructOf<typeof QGS_MSG_HEADER>;

/** Followed by the TDREPORT and a list of attestation key ids. */
export const QGS_MSG_GET_QUOTE_REQ = struct("qgs_msg_get_quote_req_t", 24, {
  ...header,
  report_size: u32(16),
  id_list_size: u32(20),
});
/** Followed by the chosen attestation key id and the quote. */
export const QGS_MSG_GET_QUOTE_RESP = struct("qgs_msg_get_quote_resp_t", 24, {
  ...header,
  selected_id_size: u32(16),
  quote_size: u32(20),
});
/** Followed by FMSPC and the name of the PCK certificate's issuer ("platform" or "processor"). */
export const QGS_MSG_GET_COLLATERAL_REQ = struct("qgs_msg_get_collateral_req_t", 24, {
  ...header,
  fsmpc_size: u32(16),
  pckca_size: u32(20),
});
/** Followed by the seven pieces in the order of their sizes. */
export const QGS_MSG_GET_COLLATERAL_RESP = struct("qgs_msg_get_collateral_resp_t", 48, {
  ...header,
  collateral_major_version: u16(16),
  collateral_minor_version: u16(18),
  pck_crl_issuer_chain_size: u32(20),
  root_ca_crl_size: u32(24),
  pck_crl_size: u32(28),
  tcb_info_issuer_chain_size: u32(32),
  tcb_info_size: u32(36),
  qe_identity_issuer_chain_size: u32(40),
  qe_identity_size: u32(44),
});
/** Followed by the platform id (QEID) and CPUSVN. */
export const QGS_MSG_GET_PLATFORM_INFO_RESP = struct("qgs_msg_get_platform_info_resp_t", 28, {
  ...header,
  tdqe_isvsvn: u16(16),
  pce_isvsvn: u16(18),
  platform_id_size: u32(20),
  cpusvn_size: u32(24),
});
