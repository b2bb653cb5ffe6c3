/**
 * The TD quoting enclave: turns a TDREPORT of this platform into a quote. Its attestation key is certified by the
 * provisioning certification enclave, which holds the PCK: the PCE's signature over the quoting enclave's report.
 * Source: Intel TDX DCAP Quoting Library API; the steps are those of DCAP's tdqe.
 */
import {
  ATTESTATION_KEY_TYPE,
  CERTIFICATION_DATA_TYPE,
  INTEL_QE_VENDOR_ID,
  QUOTE_VERSION,
  REPORTMACSTRUCT,
  SGX_REPORT_BODY,
  TDREPORT_STRUCT,
  TEE_TCB_INFO,
  TEE_TYPE,
  type TdReport,
} from "@swtdx/abi";
import { sha256, sha384 } from "@swtdx/crypto";
import { concat, equal } from "../bytes.js";
import { type KeyPair, type RandomSource, generateKeyPair, sign } from "../pki/ecdsa.js";
import { pemChainBytes } from "../pki/pem.js";
import type { Pki } from "../pki/pki.js";
import { encodeQuote, encodeSigned } from "../quote/encode.js";
import type { QuoteBody } from "../quote/quote.js";
import { QE_ATTRIBUTES, QE_ISVPRODID, QE_ISVSVN, QE_MRENCLAVE, QE_MRSIGNER } from "./identity.js";

/** EVERIFYREPORT2: whether this CPU made the REPORTMACSTRUCT (256 bytes). */
export type VerifyReport = (reportMacStruct: Uint8Array) => boolean;

/** Forms of a quote: version 4, or version 5 with the body of TDX 1.0 or 1.5. */
export type QuoteForm = "v4" | "v5-td10" | "v5-td15";
export const QUOTE_FORMS: readonly QuoteForm[] = ["v4", "v5-td10", "v5-td15"];

/** Why a report gets no quote. */
export type QuoteRefusal =
  | { error: "REPORT_SIZE"; detail: string }
  | { error: "REPORT_TYPE"; detail: string }
  | { error: "REPORT_MAC"; detail: string }
  | { error: "TEE_TCB_INFO_HASH"; detail: string }
  | { error: "TEE_INFO_HASH"; detail: string };
export type QuoteResult = { ok: true; quote: Uint8Array } | ({ ok: false } & QuoteRefusal);

export interface QuotingEnclaveOptions {
  pki: Pki;
  /** Source of the attestation key and of the QE's identity. */
  random: RandomSource;
  verifyReport: VerifyReport;
  /** Default "v4", which every verifier of TDX reads. */
  form?: QuoteForm;
}

export class QuotingEnclave {
  readonly #pki: Pki;
  readonly #verifyReport: VerifyReport;
  readonly #form: QuoteForm;
  readonly #attestationKey: KeyPair;
  readonly #qeReport: Uint8Array;
  readonly #qeReportSignature: Uint8Array;
  readonly #authData: Uint8Array;
  /** Identifies the platform's QE, 16 bytes. */
  readonly qeId: Uint8Array;
  readonly isvSvn = QE_ISVSVN;

  constructor(options: QuotingEnclaveOptions) {
    this.#pki = options.pki;
    this.#verifyReport = options.verifyReport;
    this.#form = options.form ?? "v4";
    this.#attestationKey = generateKeyPair(options.random.fork("attestation-key"));
    this.qeId = options.random.fork("qe-id").bytes(16);
    // Intel's QE writes the numbers 0..31 here.
    this.#authData = Uint8Array.from({ length: 32 }, (_, i) => i);
    this.#qeReport = SGX_REPORT_BODY.encode({
      CPUSVN: options.pki.platform.cpuSvn,
      ATTRIBUTES: QE_ATTRIBUTES,
      MRENCLAVE: QE_MRENCLAVE,
      MRSIGNER: QE_MRSIGNER,
      ISVPRODID: QE_ISVPRODID,
      ISVSVN: QE_ISVSVN,
      REPORTDATA: sha256(concat(this.#attestationKey.publicKey, this.#authData)),
    });
    this.#qeReportSignature = sign(options.pki.pck.key, this.#qeReport);
  }

  /**
   * Quotes a TDREPORT_STRUCT (1024 bytes) after checking that this platform made it.
   * @param form default: the one given to the constructor
   */
  quote(report: Uint8Array, form: QuoteForm = this.#form): QuoteResult {
    const no = (error: QuoteRefusal["error"], detail: string): QuoteResult => ({ ok: false, error, detail });
    if (report.length !== TDREPORT_STRUCT.size)
      return no("REPORT_SIZE", `${report.length} bytes, expected ${TDREPORT_STRUCT.size}`);
    const decoded = TDREPORT_STRUCT.decode(report);
    const mac = decoded.REPORTMACSTRUCT;
    if (mac.REPORTTYPE.TYPE !== TEE_TYPE.TDX || mac.REPORTTYPE.SUBTYPE !== 0 || mac.REPORTTYPE.VERSION > 1)
      return no("REPORT_TYPE", "not a TDREPORT of type 0x81, subtype 0, version 0 or 1");
    if (!this.#verifyReport(report.slice(0, REPORTMACSTRUCT.size)))
      return no("REPORT_MAC", "this platform did not make the report");
    const tcbInfo = report.subarray(256, 256 + TEE_TCB_INFO.size);
    if (!equal(sha384(tcbInfo), mac.TEE_TCB_INFO_HASH))
      return no("TEE_TCB_INFO_HASH", "TEE_TCB_INFO is not what the report's MAC covers");
    if (!equal(sha384(report.subarray(512, 1024)), mac.TEE_INFO_HASH))
      return no("TEE_INFO_HASH", "TDINFO_STRUCT is not what the report's MAC covers");

    const header = {
      VERSION: form === "v4" ? QUOTE_VERSION.V4 : QUOTE_VERSION.V5,
      ATT_KEY_TYPE: ATTESTATION_KEY_TYPE.ECDSA_P256,
      TEE_TYPE: TEE_TYPE.TDX,
      RESERVED_0: 0,
      RESERVED_1: 0,
      QE_VENDOR_ID: INTEL_QE_VENDOR_ID,
      USER_DATA: this.qeId,
    };
    const body = quoteBody(decoded, form);
    const quote = encodeQuote({
      header,
      body,
      signature: {
        signature: sign(this.#attestationKey, encodeSigned(header, body)),
        attestationKey: this.#attestationKey.publicKey,
        qeReport: this.#qeReport,
        qeReportSignature: this.#qeReportSignature,
        qeAuthData: this.#authData,
        certification: {
          type: CERTIFICATION_DATA_TYPE.PCK_CERT_CHAIN,
          data: pemChainBytes([
            this.#pki.pck.certificate.der,
            this.#pki.platformCa.certificate.der,
            this.#pki.root.certificate.der,
          ]),
        },
      },
    });
    return { ok: true, quote };
  }
}

/** What a quote says about the TD. */
export function quoteBody(report: TdReport, form: QuoteForm): QuoteBody {
  const { REPORTMACSTRUCT: mac, TEE_TCB_INFO: tcb, TDINFO_STRUCT: td } = report;
  const fields = {
    TEE_TCB_SVN: tcb.TEE_TCB_SVN,
    MRSEAM: tcb.MRSEAM,
    MRSIGNERSEAM: tcb.MRSIGNERSEAM,
    SEAMATTRIBUTES: tcb.ATTRIBUTES,
    TDATTRIBUTES: td.ATTRIBUTES,
    XFAM: td.XFAM,
    MRTD: td.MRTD,
    MRCONFIGID: td.MRCONFIGID,
    MROWNER: td.MROWNER,
    MROWNERCONFIG: td.MROWNERCONFIG,
    RTMR0: td.RTMR[0],
    RTMR1: td.RTMR[1],
    RTMR2: td.RTMR[2],
    RTMR3: td.RTMR[3],
    REPORTDATA: mac.REPORTDATA,
  };
  return form === "v5-td15"
    ? {
        kind: "TD_15",
        fields: { ...fields, TEE_TCB_SVN2: tcb.TEE_TCB_SVN2, MRSERVICETD: td.SERVTD_HASH },
      }
    : { kind: "TD_10", fields };
}
