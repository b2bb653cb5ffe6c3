/** Quotes from bytes. Every size is checked before it is used; what is wrong is named with its field and offset. */
import {
  ATTESTATION_KEY_TYPE,
  CERTIFICATION_DATA_HEADER,
  CERTIFICATION_DATA_TYPE,
  ECDSA_P256_SIZE,
  QUOTE_BODY_DESCRIPTOR,
  QUOTE_BODY_TYPE,
  QUOTE_HEADER,
  QUOTE_VERSION,
  SGX_REPORT_BODY,
  TD_QUOTE_BODY_10,
  TD_QUOTE_BODY_15,
  TEE_TYPE,
} from "@swtdx/abi";
import { QuoteError } from "../errors.js";
import type { Quote, QuoteBody } from "./quote.js";

/** Where the parts of a quote stand: [start, end) in bytes. */
export interface QuoteLayout {
  readonly header: Range;
  readonly body: Range;
  /** Header to the body's end: what the attestation key signs. */
  readonly signed: Range;
  readonly signatureSize: Range;
  readonly signature: Range;
  readonly attestationKey: Range;
  readonly qeCertificationHeader: Range;
  readonly qeReport: Range;
  readonly qeReportSignature: Range;
  readonly qeAuthDataSize: Range;
  readonly qeAuthData: Range;
  readonly certificationHeader: Range;
  readonly certification: Range;
  /** What follows the quote: VMMs that hand out a fixed buffer leave the rest of it there. Nobody signed it. */
  readonly trailing: Range;
}
export type Range = readonly [start: number, end: number];

/** A quote and where its parts stand. */
export interface DecodedQuote extends Quote {
  readonly layout: QuoteLayout;
  /** The signed bytes, as they are in the input. */
  readonly signed: Uint8Array;
}

const hexNumber = (value: number): string => `0x${value.toString(16)}`;

class Reader {
  at = 0;
  constructor(
    readonly source: Uint8Array,
    public end = source.length,
  ) {}
  range(size: number, field: string): Range {
    if (size > this.end - this.at)
      throw new QuoteError(field, `has ${size} bytes, but ${this.end - this.at} are left`, this.at);
    this.at += size;
    return [this.at - size, this.at];
  }
  slice([start, end]: Range): Uint8Array {
    return this.source.slice(start, end);
  }
}

/**
 * Reads a quote of version 4 or 5 over a TD's report, with an ECDSA P-256 attestation key.
 * @throws QuoteError
 */
export function decodeQuote(source: Uint8Array): DecodedQuote {
  const reader = new Reader(source);
  const headerRange = reader.range(QUOTE_HEADER.size, "QUOTE_HEADER");
  const header = QUOTE_HEADER.decode(reader.slice(headerRange));
  if (header.VERSION !== QUOTE_VERSION.V4 && header.VERSION !== QUOTE_VERSION.V5)
    throw new QuoteError("QUOTE_HEADER.VERSION", `is ${header.VERSION}, expected 4 or 5`, 0);
  if (header.ATT_KEY_TYPE !== ATTESTATION_KEY_TYPE.ECDSA_P256)
    throw new QuoteError(
      "QUOTE_HEADER.ATT_KEY_TYPE",
      `is ${header.ATT_KEY_TYPE}, expected 2 (ECDSA P-256)`,
      2,
    );
  if (header.TEE_TYPE !== TEE_TYPE.TDX)
    throw new QuoteError("QUOTE_HEADER.TEE_TYPE", `is ${hexNumber(header.TEE_TYPE)}, expected 0x81 (TDX)`, 4);

  const [body, bodyRange] = readBody(reader, header.VERSION);
  const signed: Range = [0, reader.at];
  const signatureSize = reader.range(4, "signature data length");
  const signatureBytes = u32(source, signatureSize[0]);
  if (signatureBytes > source.length - reader.at)
    throw new QuoteError(
      "signature data length",
      `is ${signatureBytes}, but ${source.length - reader.at} bytes follow`,
      signatureSize[0],
    );
  reader.end = reader.at + signatureBytes;
  const signature = reader.range(ECDSA_P256_SIZE, "signature");
  const attestationKey = reader.range(ECDSA_P256_SIZE, "attestation public key");
  const qeCertificationHeader = certificationHeader(reader, "certification data", [
    CERTIFICATION_DATA_TYPE.QE_REPORT,
  ]);
  const qeReport = reader.range(SGX_REPORT_BODY.size, "QE report");
  const qeReportSignature = reader.range(ECDSA_P256_SIZE, "QE report signature");
  const qeAuthDataSize = reader.range(2, "QE authentication data size");
  const qeAuthData = reader.range(
    source[qeAuthDataSize[0]] | (source[qeAuthDataSize[0] + 1] << 8),
    "QE authentication data",
  );
  const inner = certificationHeader(reader, "QE certification data", [1, 2, 3, 4, 5, 7]);
  const certification = reader.range(reader.end - reader.at, "QE certification data");
  const trailing: Range = [reader.end, source.length];
  return {
    header,
    body,
    signature: {
      signature: reader.slice(signature),
      attestationKey: reader.slice(attestationKey),
      qeReport: reader.slice(qeReport),
      qeReportSignature: reader.slice(qeReportSignature),
      qeAuthData: reader.slice(qeAuthData),
      certification: {
        type: CERTIFICATION_DATA_HEADER.decode(reader.slice(inner)).TYPE,
        data: reader.slice(certification),
      },
    },
    signed: source.slice(...signed),
    layout: {
      header: headerRange,
      body: bodyRange,
      signed,
      signatureSize,
      signature,
      attestationKey,
      qeCertificationHeader,
      qeReport,
      qeReportSignature,
      qeAuthDataSize,
      qeAuthData,
      certificationHeader: inner,
      certification,
      trailing,
    },
  };
}

const u32 = (source: Uint8Array, at: number): number =>
  new DataView(source.buffer, source.byteOffset).getUint32(at, true);

function readBody(reader: Reader, version: number): [QuoteBody, Range] {
  if (version === QUOTE_VERSION.V4) {
    const range = reader.range(TD_QUOTE_BODY_10.size, "TD_QUOTE_BODY");
    return [{ kind: "TD_10", fields: TD_QUOTE_BODY_10.decode(reader.slice(range)) }, range];
  }
  const at = reader.at;
  const { TYPE, SIZE } = QUOTE_BODY_DESCRIPTOR.decode(
    reader.slice(reader.range(QUOTE_BODY_DESCRIPTOR.size, "QUOTE_BODY_DESCRIPTOR")),
  );
  if (TYPE !== QUOTE_BODY_TYPE.TD_10 && TYPE !== QUOTE_BODY_TYPE.TD_15)
    throw new QuoteError("QUOTE_BODY_DESCRIPTOR.TYPE", `is ${TYPE}, expected 2 (TD 1.0) or 3 (TD 1.5)`, at);
  const size = TYPE === QUOTE_BODY_TYPE.TD_10 ? TD_QUOTE_BODY_10.size : TD_QUOTE_BODY_15.size;
  if (SIZE !== size)
    throw new QuoteError(
      "QUOTE_BODY_DESCRIPTOR.SIZE",
      `is ${SIZE}, expected ${size} for type ${TYPE}`,
      at + 2,
    );
  const range = reader.range(size, "TD_QUOTE_BODY");
  const bytes = reader.slice(range);
  return TYPE === QUOTE_BODY_TYPE.TD_10
    ? [{ kind: "TD_10", fields: TD_QUOTE_BODY_10.decode(bytes) }, range]
    : [{ kind: "TD_15", fields: TD_QUOTE_BODY_15.decode(bytes) }, range];
}

/** Reads type and size of certification data, which must be of one of the types and fill what is left. */
function certificationHeader(reader: Reader, field: string, types: readonly number[]): Range {
  const range = reader.range(CERTIFICATION_DATA_HEADER.size, `${field} header`);
  const { TYPE, SIZE } = CERTIFICATION_DATA_HEADER.decode(reader.slice(range));
  if (!types.includes(TYPE))
    throw new QuoteError(`${field} type`, `is ${TYPE}, expected ${types.join(", ")}`, range[0]);
  const left = reader.end - reader.at;
  if (SIZE !== left)
    throw new QuoteError(
      `${field} size`,
      `is ${SIZE}, but ${left} bytes of signature data are left`,
      range[0] + 2,
    );
  return range;
}
