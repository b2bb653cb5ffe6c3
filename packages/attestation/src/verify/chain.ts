/** Certificate chains and revocation lists of DCAP (RFC 5280, as far as this hierarchy needs it). */
import { equal, fromHex } from "../bytes.js";
import { type Certificate, isSignedBy, parseCertificate } from "../pki/certificate.js";
import { type Crl, parseCrl } from "../pki/crl.js";
import { verify } from "../pki/ecdsa.js";
import { parsePem } from "../pki/pem.js";

/** A reason why not, or null. */
export type Problem = string | null;

const expired = (certificate: Certificate, now: Date): Problem => {
  if (now < certificate.notBefore)
    return `"${certificate.commonName}" is not valid before ${certificate.notBefore.toISOString()}`;
  if (now > certificate.notAfter)
    return `"${certificate.commonName}" expired on ${certificate.notAfter.toISOString()}`;
  return null;
};

/**
 * Checks a chain from its leaf to the trusted root: the last certificate is the trusted one, byte for byte;
 * names, signatures, validity, CA flags, key usage and path length fit.
 */
export function chainProblem(chain: readonly Certificate[], root: Certificate, now: Date): Problem {
  const last = chain.at(-1);
  if (!last) return "the chain is empty";
  if (!equal(last.der, root.der)) return `the chain ends at "${last.subject}", which is not the trusted root`;
  for (const [i, certificate] of chain.entries()) {
    const issuer = chain[i + 1] ?? certificate;
    const name = `"${certificate.commonName}"`;
    const problem = expired(certificate, now);
    if (problem) return problem;
    if (!equal(certificate.issuerDer, issuer.subjectDer))
      return `${name} was issued by "${certificate.issuer}", but "${issuer.subject}" comes next`;
    if (!isSignedBy(certificate, issuer))
      return `the signature of ${name} by "${issuer.commonName}" is wrong`;
    if (i === 0 && chain.length > 1 && certificate.ca) return `${name} is a CA, expected an end entity`;
    if (i > 0) {
      if (!certificate.ca || !certificate.keyCertSign) return `${name} may not issue certificates`;
      if (certificate.pathLength !== null && certificate.pathLength < i - 1)
        return `${name} allows ${certificate.pathLength} CAs below it, there are ${i - 1}`;
    }
  }
  return null;
}

/** Checks a revocation list: signed by `issuer`, which may do so, and current. */
export function crlProblem(crl: Crl, issuer: Certificate, now: Date): Problem {
  if (!issuer.crlSign) return `"${issuer.commonName}" may not sign revocation lists`;
  if (!equal(crl.issuerDer, issuer.subjectDer))
    return `was issued by "${crl.issuer}", expected "${issuer.subject}"`;
  if (!verify(issuer.publicKey, crl.tbs, crl.signature))
    return `its signature by "${issuer.commonName}" is wrong`;
  if (now < crl.thisUpdate) return `is not valid before ${crl.thisUpdate.toISOString()}`;
  if (!crl.nextUpdate) return "does not say when it expires";
  if (now > crl.nextUpdate) return `expired on ${crl.nextUpdate.toISOString()}`;
  return null;
}

/** Whether `crl` revokes `certificate`. */
export const revokedProblem = (crl: Crl, certificate: Certificate): Problem =>
  crl.revoked.has(certificate.serial)
    ? `"${certificate.commonName}" with serial ${certificate.serial} is revoked`
    : null;

/** A parser of bytes that does its work once for the same bytes: quotes and collateral repeat certificates. */
function once<T>(parse: (der: Uint8Array, field: string) => T): (der: Uint8Array, field: string) => T {
  const known = new Map<string, T>();
  const latin1 = new TextDecoder("latin1");
  return (der, field) => {
    const key = latin1.decode(der);
    let value = known.get(key);
    if (value === undefined) {
      value = parse(der, field);
      if (known.size >= 64) known.clear();
      known.set(key, value);
    }
    return value;
  };
}

/** `parseCertificate`. @throws CertificateError */
export const readCertificate = once(parseCertificate);
const readCrlDer = once(parseCrl);

/** Reads a PEM chain. @throws CertificateError */
export const readChain = (pem: string, field: string): Certificate[] =>
  parsePem(pem).map((der, i) => readCertificate(der, `${field}[${i}]`));

/** Reads a CRL in hexadecimal. @throws CertificateError */
export const readCrl = (text: string, field: string): Crl =>
  readCrlDer(fromHex(text) ?? new Uint8Array(), field);
