/** A TD quote, version 4 or 5, as a value. Layouts: @swtdx/abi quote.ts. */
import type { QuoteHeader, TdQuoteBody10, TdQuoteBody15 } from "@swtdx/abi";

/** Certification data: how a verifier finds the key that signed the quoting enclave's report. */
export interface CertificationData {
  /** CERTIFICATION_DATA_TYPE. */
  type: number;
  data: Uint8Array;
}

/** The quote's signature data: attestation key, and the quoting enclave's report that vouches for it. */
export interface QuoteSignature {
  /** r ‖ s over the header and the body, by the attestation key. */
  signature: Uint8Array;
  /** x ‖ y. */
  attestationKey: Uint8Array;
  /** SGX_REPORT_BODY, 384 bytes. */
  qeReport: Uint8Array;
  /** r ‖ s over `qeReport`, by the PCK. */
  qeReportSignature: Uint8Array;
  qeAuthData: Uint8Array;
  /** Of the PCK; type 5 is a PEM chain: PCK, its issuer, root. */
  certification: CertificationData;
}

/** A version 4 quote's body and a version 5 quote's body of type 2. */
export interface Td10Body {
  kind: "TD_10";
  fields: TdQuoteBody10;
}
/** A version 5 quote's body of type 3. */
export interface Td15Body {
  kind: "TD_15";
  fields: TdQuoteBody15;
}
export type QuoteBody = Td10Body | Td15Body;

export interface Quote {
  header: QuoteHeader;
  body: QuoteBody;
  signature: QuoteSignature;
}
