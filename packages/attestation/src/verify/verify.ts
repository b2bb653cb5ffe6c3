/**
 * Verification of a TD quote: every check is made and reported, so that a verdict says all that is wrong and not
 * only the first thing. Nothing is thrown: what does not parse is a failed check.
 */
import {
  CERTIFICATION_DATA_TYPE,
  INTEL_QE_VENDOR_ID,
  SGX_ATTRIBUTES_DEBUG,
  SGX_REPORT_BODY,
  type SgxReportBody,
} from "@swtdx/abi";
import { sha256 } from "@swtdx/crypto";
import { concat, equal, fromHex, hex, isZero, utf8 } from "../bytes.js";
import { parseQeIdentity, parseTcbInfo } from "../collateral/parse.js";
import { type Collateral, type TcbStatus, TCB_STATUS } from "../collateral/types.js";
import type { Certificate } from "../pki/certificate.js";
import { verify as verifySignature } from "../pki/ecdsa.js";
import { COMMON_NAME } from "../pki/names.js";
import { parsePemBytes } from "../pki/pem.js";
import { type DecodedQuote, decodeQuote } from "../quote/decode.js";
import {
  chainProblem,
  crlProblem,
  type Problem,
  readCertificate,
  readChain,
  readCrl,
  revokedProblem,
} from "./chain.js";
import { attributesProblem, DEFAULT_TCB_STATUSES, expectedProblem, type Policy } from "./policy.js";
import {
  convergeTcbStatus,
  type LevelMatch,
  matchQe,
  matchTcbLevel,
  matchTdxModule,
  qeIdentityProblem,
} from "./tcb.js";

/** The checks, in the order in which they are made. */
export const CHECKS = [
  "quote format",
  "root certificate",
  "root CA CRL",
  "PCK certificate chain",
  "PCK CRL",
  "TCB info",
  "QE identity",
  "QE report signature",
  "attestation key",
  "QE report",
  "quote signature",
  "platform",
  "TCB level",
  "TDX module",
  "QE TCB level",
  "TCB status",
  "TD attributes",
  "TD measurements",
] as const;
export type CheckName = (typeof CHECKS)[number];

export interface Check {
  readonly name: CheckName;
  readonly ok: boolean;
  /** What was found; when the check failed, what is wrong. */
  readonly detail: string;
}

export interface Verdict {
  /** Every check passed. */
  readonly ok: boolean;
  /** Of platform, TDX module and quoting enclave together; null when that could not be found out. */
  readonly tcbStatus: TcbStatus | null;
  readonly advisoryIDs: readonly string[];
  readonly checks: readonly Check[];
  /** The quote, if it could be read. */
  readonly quote: DecodedQuote | null;
}

export interface VerifyOptions {
  /** The trusted root certificate, DER. */
  root: Uint8Array;
  collateral: Collateral;
  now: Date;
  policy?: Policy;
}

/** Thrown inside a check to fail it; never leaves this file. */
class Failed extends Error {}
const must = (problem: Problem): void => {
  if (problem !== null) throw new Failed(problem);
};
const need = <T>(value: T | null | undefined, what: string): T => {
  if (value === null || value === undefined) throw new Failed(`cannot be checked without ${what}`);
  return value;
};

/** Verifies a quote against a root, collateral, a time and a policy. Never throws. */
export function verifyQuote(source: Uint8Array, options: VerifyOptions): Verdict {
  const { collateral, now, policy = {} } = options;
  const checks: Check[] = [];
  /** Runs a check. What it returns is there for later checks, which fail without it. */
  const check = <T>(name: CheckName, run: () => [value: T, detail: string]): T | null => {
    try {
      const [value, detail] = run();
      checks.push({ name, ok: true, detail });
      return value;
    } catch (error) {
      checks.push({ name, ok: false, detail: (error as Error).message });
      return null;
    }
  };

  const quote = check("quote format", () => {
    const decoded = decodeQuote(source);
    if (!equal(decoded.header.QE_VENDOR_ID, INTEL_QE_VENDOR_ID))
      throw new Failed(
        `QUOTE_HEADER.QE_VENDOR_ID is ${hex(decoded.header.QE_VENDOR_ID)}, which is not Intel's`,
      );
    return [decoded, `version ${decoded.header.VERSION}, body ${decoded.body.kind}`];
  });
  const root = check("root certificate", () => {
    const certificate = readCertificate(options.root, "root certificate");
    must(chainProblem([certificate], certificate, now));
    if (!certificate.ca) throw new Failed("is no CA");
    return [certificate, certificate.subject];
  });
  const rootCrl = check("root CA CRL", () => {
    const crl = readCrl(collateral.root_ca_crl, "root_ca_crl");
    must(crlProblem(crl, need(root, "the root certificate"), now));
    must(revokedProblem(crl, root!));
    return [crl, `${crl.revoked.size} revoked, valid until ${crl.nextUpdate!.toISOString()}`];
  });
  const chain = check("PCK certificate chain", () => {
    const { certification } = need(quote, "the quote").signature;
    if (certification.type !== CERTIFICATION_DATA_TYPE.PCK_CERT_CHAIN)
      throw new Failed(`certification data has type ${certification.type}, expected 5 (PCK chain)`);
    const certificates = parsePemBytes(certification.data).map((der, i) =>
      readCertificate(der, `PCK chain[${i}]`),
    );
    if (certificates.length !== 3) throw new Failed(`has ${certificates.length} certificates, expected 3`);
    must(chainProblem(certificates, need(root, "the root certificate"), now));
    const [pck, ca] = certificates as [Certificate, Certificate, Certificate];
    if (pck.commonName !== COMMON_NAME.PCK)
      throw new Failed(`its leaf is "${pck.commonName}", expected "${COMMON_NAME.PCK}"`);
    const sgx = pck.sgx;
    if (!sgx) throw new Failed("the PCK certificate has no SGX extension");
    must(revokedProblem(need(rootCrl, "the root CA's CRL"), ca));
    return [{ pck, ca, sgx }, `${pck.commonName}, FMSPC ${hex(sgx.fmspc).toUpperCase()}`];
  });
  check("PCK CRL", () => {
    const issuers = readChain(collateral.pck_crl_issuer_chain, "pck_crl_issuer_chain");
    must(
      chainProblem(issuers.length > 1 ? issuers.slice(1) : issuers, need(root, "the root certificate"), now),
    );
    const { pck, ca } = need(chain, "the PCK certificate chain");
    if (issuers.length !== 2 || !equal(issuers[0].der, ca.der))
      throw new Failed("pck_crl_issuer_chain is not the chain of the PCK certificate's issuer");
    const crl = readCrl(collateral.pck_crl, "pck_crl");
    must(crlProblem(crl, ca, now));
    must(revokedProblem(crl, pck));
    return [crl, `${crl.revoked.size} revoked, valid until ${crl.nextUpdate!.toISOString()}`];
  });

  /** Chain, signature and dates of a signed text. */
  const signedText = (name: "tcb_info" | "qe_identity"): void => {
    const issuers = readChain(collateral[`${name}_issuer_chain`], `${name}_issuer_chain`);
    must(chainProblem(issuers, need(root, "the root certificate"), now));
    const signer = issuers[0];
    if (issuers.length !== 2 || signer.commonName !== COMMON_NAME.TCB_SIGNING)
      throw new Failed(`was signed by "${signer.commonName}", expected "${COMMON_NAME.TCB_SIGNING}"`);
    must(revokedProblem(need(rootCrl, "the root CA's CRL"), signer));
    const signature = fromHex(collateral[`${name}_signature`]) ?? new Uint8Array();
    if (!verifySignature(signer.publicKey, utf8(collateral[name]), signature))
      throw new Failed("its signature is wrong");
  };
  const current = (value: { issueDate: string; nextUpdate: string }): void => {
    if (now < new Date(value.issueDate)) throw new Failed(`issueDate ${value.issueDate} is in the future`);
    if (now > new Date(value.nextUpdate)) throw new Failed(`expired: nextUpdate was ${value.nextUpdate}`);
  };
  const tcbInfo = check("TCB info", () => {
    signedText("tcb_info");
    const info = parseTcbInfo(collateral.tcb_info);
    current(info);
    return [info, `FMSPC ${info.fmspc}, valid until ${info.nextUpdate}`];
  });
  const qeIdentity = check("QE identity", () => {
    signedText("qe_identity");
    const identity = parseQeIdentity(collateral.qe_identity);
    current(identity);
    return [identity, `${identity.id}, valid until ${identity.nextUpdate}`];
  });

  check("QE report signature", () => {
    const { pck } = need(chain, "the PCK certificate chain");
    if (!verifySignature(pck.publicKey, quote!.signature.qeReport, quote!.signature.qeReportSignature))
      throw new Failed("the PCK did not sign the QE report");
    return [true, "by the PCK"];
  });
  const qeReport = check("attestation key", (): [SgxReportBody, string] => {
    const { attestationKey, qeAuthData, qeReport: bytes } = need(quote, "the quote").signature;
    const report = SGX_REPORT_BODY.decode(bytes);
    if (!equal(report.REPORTDATA.subarray(0, 32), sha256(concat(attestationKey, qeAuthData))))
      throw new Failed(
        "the QE report's REPORTDATA is not the hash of attestation key and authentication data",
      );
    if (!isZero(report.REPORTDATA.subarray(32)))
      throw new Failed("the QE report's REPORTDATA[63:32] is not zero");
    return [report, "bound by the QE report"];
  });
  check("QE report", () => {
    const report = need(qeReport, "a bound QE report");
    must(qeIdentityProblem(need(qeIdentity, "QE identity"), report));
    if (report.ATTRIBUTES[0] & SGX_ATTRIBUTES_DEBUG)
      throw new Failed("the quoting enclave is a debug enclave");
    return [true, `MRSIGNER ${hex(report.MRSIGNER).slice(0, 16)}…, ISVSVN ${report.ISVSVN}`];
  });
  check("quote signature", () => {
    const { signed, signature } = need(quote, "the quote");
    if (!verifySignature(signature.attestationKey, signed, signature.signature))
      throw new Failed("the attestation key did not sign header and body");
    return [true, "by the attestation key"];
  });
  check("platform", () => {
    const { sgx } = need(chain, "the PCK certificate chain");
    const info = need(tcbInfo, "TCB info");
    if (hex(sgx.fmspc) !== info.fmspc.toLowerCase())
      throw new Failed(
        `TCB info is for FMSPC ${info.fmspc}, the platform's is ${hex(sgx.fmspc).toUpperCase()}`,
      );
    if (hex(sgx.pceId) !== info.pceId.toLowerCase())
      throw new Failed(
        `TCB info is for PCE-ID ${info.pceId}, the platform's is ${hex(sgx.pceId).toUpperCase()}`,
      );
    return [true, `FMSPC ${info.fmspc}, PCE-ID ${info.pceId}`];
  });

  const level = (name: CheckName, run: () => LevelMatch) =>
    check(name, () => {
      const match = run();
      if (!match.ok) throw new Failed(match.detail);
      return [match, match.detail];
    });
  const levels = [
    level("TCB level", () =>
      matchTcbLevel(
        need(tcbInfo, "TCB info"),
        need(chain, "the PCK certificate chain").sgx,
        quote!.body.fields.TEE_TCB_SVN,
      ),
    ),
    level("TDX module", () =>
      matchTdxModule(need(tcbInfo, "TCB info"), need(quote, "the quote").body.fields),
    ),
    level("QE TCB level", () => matchQe(need(qeIdentity, "QE identity"), need(qeReport, "the QE report"))),
  ];
  let tcbStatus: TcbStatus | null = null;
  const advisoryIDs = new Set<string>();
  check("TCB status", () => {
    let status: TcbStatus = TCB_STATUS[0];
    for (const match of levels) {
      const found = need(match, "all three levels");
      status = convergeTcbStatus(status, found.status);
      for (const id of found.advisoryIDs) advisoryIDs.add(id);
    }
    tcbStatus = status;
    const accepted = policy.acceptedTcbStatuses ?? DEFAULT_TCB_STATUSES;
    if (!accepted.includes(status)) throw new Failed(`is ${status}, accepted are ${accepted.join(", ")}`);
    return [true, status];
  });
  check("TD attributes", () => {
    const { TDATTRIBUTES } = need(quote, "the quote").body.fields;
    must(attributesProblem(TDATTRIBUTES, policy));
    return [true, `0x${TDATTRIBUTES.toString(16).padStart(16, "0")}`];
  });
  check("TD measurements", () => {
    must(expectedProblem(need(quote, "the quote").body, policy));
    return [true, "as expected"];
  });
  return {
    ok: checks.every(({ ok }) => ok),
    tcbStatus,
    advisoryIDs: [...advisoryIDs],
    checks,
    quote,
  };
}
