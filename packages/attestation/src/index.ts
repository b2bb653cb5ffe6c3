/**
 * @swtdx/attestation: quotes, the quoting enclave, PCK certificates under a private root, collateral, event logs,
 * verification.
 */
export * from "./errors.js";
export { type KeyPair, type RandomSource, generateKeyPair, sign, verify } from "./pki/ecdsa.js";
export { COMMON_NAME, SWTDX_ORGANIZATIONAL_UNIT } from "./pki/names.js";
export { parsePem, toPem, toPemChain } from "./pki/pem.js";
export { SGX_EXTENSION_OID, SGX_TYPE, type SgxExtension } from "./pki/sgx-extension.js";
export {
  type Certificate,
  type CertificateTemplate,
  issueCertificate,
  parseCertificate,
} from "./pki/certificate.js";
export { type Crl, type CrlTemplate, issueCrl, parseCrl } from "./pki/crl.js";
export * from "./pki/pki.js";
export * from "./quote/quote.js";
export * from "./quote/encode.js";
export * from "./quote/decode.js";
export * from "./quote/describe.js";
export * from "./collateral/types.js";
export * from "./collateral/create.js";
export { parseCollateral, parseQeIdentity, parseTcbInfo } from "./collateral/parse.js";
export * from "./qe/identity.js";
export * from "./qe/quoting-enclave.js";
export * from "./qe/qgs.js";
export { type Policy, DEFAULT_TCB_STATUSES } from "./verify/policy.js";
export * from "./verify/verify.js";
export * from "./eventlog/parse.js";
export * from "./eventlog/replay.js";
export * from "./eventlog/describe.js";
