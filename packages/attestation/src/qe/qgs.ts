/**
 * The quote generation service: answers a VMM's messages. Source: Intel DCAP qgs and qgs_msg_lib.
 * Like the real service it closes the connection, here: returns no bytes, when a message is so malformed that
 * there is no response type to answer with.
 */
import {
  QGS_MSG_ERROR,
  QGS_MSG_GET_COLLATERAL_REQ,
  QGS_MSG_GET_COLLATERAL_RESP,
  QGS_MSG_GET_PLATFORM_INFO_RESP,
  QGS_MSG_GET_QUOTE_REQ,
  QGS_MSG_GET_QUOTE_RESP,
  QGS_MSG_HEADER,
  QGS_MSG_LIB_MAJOR_VER,
  QGS_MSG_LIB_MINOR_VER,
  QGS_MSG_TYPE,
  type QgsMsgError,
  type QgsMsgHeader,
} from "@swtdx/abi";
import { concat, equal, fromHex, utf8 } from "../bytes.js";
import type { Collateral } from "../collateral/types.js";
import type { Pki } from "../pki/pki.js";
import type { QuotingEnclave } from "./quoting-enclave.js";

export interface QgsOptions {
  enclave: Pick<QuotingEnclave, "quote" | "qeId" | "isvSvn">;
  pki: Pki;
  /** The collateral to hand out; without it such requests are answered with an error. */
  collateral?: () => Collateral;
}

/** Size of a response that carries an error: the message's fixed part. */
const FIXED_SIZE = {
  [QGS_MSG_TYPE.GET_QUOTE_RESP]: QGS_MSG_GET_QUOTE_RESP.size,
  [QGS_MSG_TYPE.GET_COLLATERAL_RESP]: QGS_MSG_GET_COLLATERAL_RESP.size,
  [QGS_MSG_TYPE.GET_PLATFORM_INFO_RESP]: QGS_MSG_GET_PLATFORM_INFO_RESP.size,
} as const;
type ResponseType = keyof typeof FIXED_SIZE;

const header = (type: number, size: number, error_code: number = QGS_MSG_ERROR.SUCCESS): QgsMsgHeader => ({
  major_version: QGS_MSG_LIB_MAJOR_VER,
  minor_version: QGS_MSG_LIB_MINOR_VER,
  type,
  size,
  error_code,
});

function errorResponse(type: ResponseType, error: QgsMsgError): Uint8Array {
  const out = new Uint8Array(FIXED_SIZE[type]);
  out.set(QGS_MSG_HEADER.encode(header(type, out.length, error)));
  return out;
}

/** Checks what every request has in common. `size` is what its own sizes add up to. */
function requestError(head: QgsMsgHeader, length: number, size: number): QgsMsgError {
  if (head.size !== length) return QGS_MSG_ERROR.INVALID_SIZE;
  if (head.error_code !== 0) return QGS_MSG_ERROR.INVALID_CODE;
  return size === length ? QGS_MSG_ERROR.SUCCESS : QGS_MSG_ERROR.INVALID_SIZE;
}

export class Qgs {
  readonly #options: QgsOptions;
  constructor(options: QgsOptions) {
    this.#options = options;
  }

  /** Answers one message, without the length that precedes it on a stream. Never throws. */
  handle(message: Uint8Array): Uint8Array {
    if (message.length < QGS_MSG_HEADER.size) return new Uint8Array();
    const head = QGS_MSG_HEADER.decode(message);
    if (head.major_version !== QGS_MSG_LIB_MAJOR_VER) return new Uint8Array();
    switch (head.type) {
      case QGS_MSG_TYPE.GET_QUOTE_REQ:
        return this.#getQuote(message, head);
      case QGS_MSG_TYPE.GET_COLLATERAL_REQ:
        return this.#getCollateral(message, head);
      case QGS_MSG_TYPE.GET_PLATFORM_INFO_REQ:
        return this.#getPlatformInfo(message, head);
      default:
        return new Uint8Array();
    }
  }

  #getQuote(message: Uint8Array, head: QgsMsgHeader): Uint8Array {
    const type = QGS_MSG_TYPE.GET_QUOTE_RESP;
    const fixed = QGS_MSG_GET_QUOTE_REQ.size;
    if (message.length < fixed) return errorResponse(type, QGS_MSG_ERROR.INVALID_PARAMETER);
    const request = QGS_MSG_GET_QUOTE_REQ.decode(message);
    const error = requestError(head, message.length, fixed + request.report_size + request.id_list_size);
    if (error) return errorResponse(type, error);
    if (request.report_size === 0) return errorResponse(type, QGS_MSG_ERROR.INVALID_CODE);
    const result = this.#options.enclave.quote(message.slice(fixed, fixed + request.report_size));
    // The service reports every failure of the quoting library as this one.
    if (!result.ok) return errorResponse(type, QGS_MSG_ERROR.UNEXPECTED);
    const size = QGS_MSG_GET_QUOTE_RESP.size + result.quote.length;
    return concat(
      QGS_MSG_GET_QUOTE_RESP.encode({ ...header(type, size), quote_size: result.quote.length }),
      result.quote,
    );
  }

  #getCollateral(message: Uint8Array, head: QgsMsgHeader): Uint8Array {
    const type = QGS_MSG_TYPE.GET_COLLATERAL_RESP;
    const fixed = QGS_MSG_GET_COLLATERAL_REQ.size;
    if (message.length < fixed) return errorResponse(type, QGS_MSG_ERROR.INVALID_PARAMETER);
    const { fsmpc_size, pckca_size } = QGS_MSG_GET_COLLATERAL_REQ.decode(message);
    const error = requestError(head, message.length, fixed + fsmpc_size + pckca_size);
    if (error) return errorResponse(type, error);
    if (!fsmpc_size || !pckca_size) return errorResponse(type, QGS_MSG_ERROR.INVALID_SIZE);
    const fmspc = message.subarray(fixed, fixed + fsmpc_size);
    const collateral = this.#options.collateral?.();
    if (!collateral || !equal(fmspc, this.#options.pki.platform.fmspc))
      return errorResponse(type, QGS_MSG_ERROR.UNEXPECTED);
    const signed = (name: string, value: string, signature: string): Uint8Array =>
      utf8(`{"${name}":${value},"signature":"${signature}"}`);
    const pieces = [
      utf8(collateral.pck_crl_issuer_chain),
      fromHex(collateral.root_ca_crl) ?? new Uint8Array(),
      fromHex(collateral.pck_crl) ?? new Uint8Array(),
      utf8(collateral.tcb_info_issuer_chain),
      signed("tcbInfo", collateral.tcb_info, collateral.tcb_info_signature),
      utf8(collateral.qe_identity_issuer_chain),
      signed("enclaveIdentity", collateral.qe_identity, collateral.qe_identity_signature),
    ];
    const sizes = pieces.map((piece) => piece.length);
    const size = QGS_MSG_GET_COLLATERAL_RESP.size + sizes.reduce((sum, part) => sum + part, 0);
    return concat(
      QGS_MSG_GET_COLLATERAL_RESP.encode({
        ...header(type, size),
        collateral_major_version: 3,
        collateral_minor_version: 1,
        pck_crl_issuer_chain_size: sizes[0],
        root_ca_crl_size: sizes[1],
        pck_crl_size: sizes[2],
        tcb_info_issuer_chain_size: sizes[3],
        tcb_info_size: sizes[4],
        qe_identity_issuer_chain_size: sizes[5],
        qe_identity_size: sizes[6],
      }),
      ...pieces,
    );
  }

  #getPlatformInfo(message: Uint8Array, head: QgsMsgHeader): Uint8Array {
    const type = QGS_MSG_TYPE.GET_PLATFORM_INFO_RESP;
    const error = requestError(head, message.length, QGS_MSG_HEADER.size);
    if (error) return errorResponse(type, error);
    const { enclave, pki } = this.#options;
    const { qeId, isvSvn } = enclave;
    const { cpuSvn, pceSvn } = pki.platform;
    const size = QGS_MSG_GET_PLATFORM_INFO_RESP.size + qeId.length + cpuSvn.length;
    return concat(
      QGS_MSG_GET_PLATFORM_INFO_RESP.encode({
        ...header(type, size),
        tdqe_isvsvn: isvSvn,
        pce_isvsvn: pceSvn,
        platform_id_size: qeId.length,
        cpusvn_size: cpuSvn.length,
      }),
      qeId,
      cpuSvn,
    );
  }
}

/** A request for a quote of `report`. */
export function getQuoteRequest(report: Uint8Array): Uint8Array {
  const size = QGS_MSG_GET_QUOTE_REQ.size + report.length;
  return concat(
    QGS_MSG_GET_QUOTE_REQ.encode({
      ...header(QGS_MSG_TYPE.GET_QUOTE_REQ, size),
      report_size: report.length,
    }),
    report,
  );
}

/** The quote of a response, or the error it carries (INVALID_SIZE when it is malformed). */
export function getQuoteResponse(
  message: Uint8Array,
): { ok: true; quote: Uint8Array } | { ok: false; error: number } {
  if (message.length < QGS_MSG_GET_QUOTE_RESP.size) return { ok: false, error: QGS_MSG_ERROR.INVALID_SIZE };
  const response = QGS_MSG_GET_QUOTE_RESP.decode(message);
  if (response.type !== QGS_MSG_TYPE.GET_QUOTE_RESP) return { ok: false, error: QGS_MSG_ERROR.INVALID_TYPE };
  if (response.error_code !== 0) return { ok: false, error: response.error_code };
  const start = QGS_MSG_GET_QUOTE_RESP.size + response.selected_id_size;
  const end = start + response.quote_size;
  return response.size === message.length && end === message.length
    ? { ok: true, quote: message.slice(start, end) }
    : { ok: false, error: QGS_MSG_ERROR.INVALID_SIZE };
}

/** A message as it travels on a stream: its length, 32-bit big-endian, before it. */
export function frameQgsMessage(message: Uint8Array): Uint8Array {
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, message.length, false);
  return concat(length, message);
}
