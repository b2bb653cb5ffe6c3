/** Quotes to bytes. */
import {
  CERTIFICATION_DATA_HEADER,
  CERTIFICATION_DATA_TYPE,
  QUOTE_BODY_DESCRIPTOR,
  QUOTE_BODY_TYPE,
  QUOTE_HEADER,
  QUOTE_VERSION,
  type QuoteHeader,
  TD_QUOTE_BODY_10,
  TD_QUOTE_BODY_15,
} from "@swtdx/abi";
import { concat } from "../bytes.js";
import { QuoteError } from "../errors.js";
import type { CertificationData, Quote, QuoteBody, QuoteSignature } from "./quote.js";

const u16 = (value: number): Uint8Array => Uint8Array.of(value & 0xff, value >> 8);
const u32 = (value: number): Uint8Array => concat(u16(value & 0xffff), u16(value >>> 16));

/**
 * What the attestation key signs: header, in version 5 the body's type and size, body.
 * @throws QuoteError when the version has no such body
 */
export function encodeSigned(header: QuoteHeader, body: QuoteBody): Uint8Array {
  const bytes =
    body.kind === "TD_15" ? TD_QUOTE_BODY_15.encode(body.fields) : TD_QUOTE_BODY_10.encode(body.fields);
  const head = QUOTE_HEADER.encode(header);
  if (header.VERSION === QUOTE_VERSION.V5) {
    const TYPE = QUOTE_BODY_TYPE[body.kind];
    return concat(head, QUOTE_BODY_DESCRIPTOR.encode({ TYPE, SIZE: bytes.length }), bytes);
  }
  if (header.VERSION !== QUOTE_VERSION.V4 || body.kind !== "TD_10")
    throw new QuoteError("QUOTE_HEADER.VERSION", `${header.VERSION} has no body of kind ${body.kind}`);
  return concat(head, bytes);
}

const certification = ({ type, data }: CertificationData): Uint8Array =>
  concat(CERTIFICATION_DATA_HEADER.encode({ TYPE: type, SIZE: data.length }), data);

function encodeSignature(signature: QuoteSignature): Uint8Array {
  const qe = concat(
    signature.qeReport,
    signature.qeReportSignature,
    u16(signature.qeAuthData.length),
    signature.qeAuthData,
    certification(signature.certification),
  );
  const outer = certification({ type: CERTIFICATION_DATA_TYPE.QE_REPORT, data: qe });
  return concat(signature.signature, signature.attestationKey, outer);
}

/** A quote's bytes. @throws QuoteError when the version has no such body */
export function encodeQuote(quote: Quote): Uint8Array {
  const signature = encodeSignature(quote.signature);
  return concat(encodeSigned(quote.header, quote.body), u32(signature.length), signature);
}
