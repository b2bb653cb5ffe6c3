/**
 * X.509 certificates of the DCAP hierarchy, made and read. Profile: Intel SGX PCK Certificate and CRL Profile
 * Specification, 1.3; every key is on P-256, every signature ecdsa-with-SHA256.
 */
import { AsnConvert, OctetString } from "@peculiar/asn1-schema";
import {
  AlgorithmIdentifier,
  AuthorityKeyIdentifier,
  BasicConstraints,
  Certificate as AsnCertificate,
  CRLDistributionPoints,
  DistributionPoint,
  DistributionPointName,
  Extension,
  Extensions,
  GeneralName,
  KeyIdentifier,
  KeyUsage,
  KeyUsageFlags,
  type Name,
  SubjectKeyIdentifier,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Validity,
  Version,
  id_ce_authorityKeyIdentifier,
  id_ce_basicConstraints,
  id_ce_cRLDistributionPoints,
  id_ce_keyUsage,
  id_ce_subjectKeyIdentifier,
} from "@peculiar/asn1-x509";
import { sha1 } from "@noble/hashes/legacy.js";
import { concat, equal, hex, toArrayBuffer } from "../bytes.js";
import { CertificateError } from "../errors.js";
import { type KeyPair, sign, signatureFromDer, signatureToDer, verify } from "./ecdsa.js";
import { commonNameOf, distinguishedName, nameText } from "./names.js";
import {
  SGX_EXTENSION_OID,
  type SgxExtension,
  decodeSgxExtension,
  encodeSgxExtension,
} from "./sgx-extension.js";

const ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2";
const EC_PUBLIC_KEY = "1.2.840.10045.2.1";
/** OBJECT IDENTIFIER prime256v1. */
const PRIME256V1 = Uint8Array.of(0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07);
/** AlgorithmIdentifier of ecdsa-with-SHA256, DER. */
const SIGNATURE_ALGORITHM = Uint8Array.of(
  ...[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
);

export const signatureAlgorithm = (): AlgorithmIdentifier =>
  new AlgorithmIdentifier({ algorithm: ECDSA_WITH_SHA256 });

/** One DER element. */
const element = (tag: number, value: Uint8Array): Uint8Array => {
  const size = value.length;
  const head = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff];
  return concat(Uint8Array.of(tag, ...head), value);
};

/** SEQUENCE { body, signatureAlgorithm, signature }: a signed certificate or CRL. */
export const signedDer = (body: Uint8Array, signature: Uint8Array): Uint8Array =>
  element(
    0x30,
    concat(body, SIGNATURE_ALGORITHM, element(0x03, concat(Uint8Array.of(0), signatureToDer(signature)))),
  );

/** Key identifier of a public key x ‖ y: SHA-1 of the point (RFC 5280, 4.2.1.2 method 1). */
export const keyIdentifier = (publicKey: Uint8Array): Uint8Array => sha1(concat(Uint8Array.of(4), publicKey));

export const extension = (extnID: string, critical: boolean, value: unknown): Extension =>
  new Extension({
    extnID,
    critical,
    extnValue: new OctetString(value instanceof Uint8Array ? value : AsnConvert.serialize(value)),
  });

/** What goes into a certificate. */
export interface CertificateTemplate {
  commonName: string;
  issuerCommonName: string;
  /** x ‖ y of the subject. */
  publicKey: Uint8Array;
  /** x ‖ y of the issuer. */
  issuerPublicKey: Uint8Array;
  /** Big-endian, positive. */
  serial: Uint8Array;
  notBefore: Date;
  notAfter: Date;
  /** Where the CRL which may revoke it is published. */
  crlUrl: string;
  /** Certificate authority, with its path length constraint; otherwise an end entity. */
  ca?: { pathLength: number };
  sgx?: SgxExtension;
}

/** Makes and signs a certificate. The extensions stand in the order Intel's have. Returns DER. */
export function issueCertificate(template: CertificateTemplate, issuerKey: KeyPair): Uint8Array {
  const usage = template.ca
    ? KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign
    : KeyUsageFlags.digitalSignature | KeyUsageFlags.nonRepudiation;
  const extensions = [
    extension(
      id_ce_authorityKeyIdentifier,
      false,
      new AuthorityKeyIdentifier({
        keyIdentifier: new KeyIdentifier(keyIdentifier(template.issuerPublicKey)),
      }),
    ),
    extension(
      id_ce_cRLDistributionPoints,
      false,
      new CRLDistributionPoints([
        new DistributionPoint({
          distributionPoint: new DistributionPointName({
            fullName: [new GeneralName({ uniformResourceIdentifier: template.crlUrl })],
          }),
        }),
      ]),
    ),
    extension(id_ce_subjectKeyIdentifier, false, new SubjectKeyIdentifier(keyIdentifier(template.publicKey))),
    extension(id_ce_keyUsage, true, new KeyUsage(usage)),
    extension(
      id_ce_basicConstraints,
      true,
      new BasicConstraints(template.ca ? { cA: true, pathLenConstraint: template.ca.pathLength } : {}),
    ),
  ];
  if (template.sgx) extensions.push(extension(SGX_EXTENSION_OID, false, encodeSgxExtension(template.sgx)));
  const tbs = new TBSCertificate({
    version: Version.v3,
    serialNumber: toArrayBuffer(template.serial),
    signature: signatureAlgorithm(),
    issuer: distinguishedName(template.issuerCommonName),
    validity: new Validity({ notBefore: template.notBefore, notAfter: template.notAfter }),
    subject: distinguishedName(template.commonName),
    subjectPublicKeyInfo: new SubjectPublicKeyInfo({
      algorithm: new AlgorithmIdentifier({
        algorithm: EC_PUBLIC_KEY,
        parameters: toArrayBuffer(PRIME256V1),
      }),
      subjectPublicKey: toArrayBuffer(concat(Uint8Array.of(4), template.publicKey)),
    }),
    extensions: new Extensions(extensions),
  });
  const body = new Uint8Array(AsnConvert.serialize(tbs));
  return signedDer(body, sign(issuerKey, body));
}

/** A certificate as it was read. */
export interface Certificate {
  readonly der: Uint8Array;
  /** The part that is signed, within `der`. */
  readonly tbs: Uint8Array;
  /** r ‖ s. */
  readonly signature: Uint8Array;
  /** Hexadecimal, no leading zero byte. */
  readonly serial: string;
  readonly subject: string;
  readonly issuer: string;
  readonly commonName: string;
  /** DER of the names, to compare. */
  readonly subjectDer: Uint8Array;
  readonly issuerDer: Uint8Array;
  readonly notBefore: Date;
  readonly notAfter: Date;
  /** x ‖ y. */
  readonly publicKey: Uint8Array;
  readonly ca: boolean;
  readonly pathLength: number | null;
  readonly keyCertSign: boolean;
  readonly crlSign: boolean;
  readonly crlUrl: string | null;
  readonly sgx: SgxExtension | null;
}

export const serialText = (serial: Uint8Array): string => hex(serial).replace(/^(00)+(?=..)/, "");

/** Offset of `part` inside `whole`; both are DER, so the first occurrence is the one. */
export function tbsRange(der: Uint8Array, tbs: Uint8Array): Uint8Array {
  const head = (der[1] ?? 0) < 0x80 ? 2 : 2 + ((der[1] ?? 0) & 0x7f);
  return der.subarray(head, head + tbs.length);
}

const KNOWN_CRITICAL = new Set<string>([id_ce_keyUsage, id_ce_basicConstraints]);

/**
 * Reads a certificate strictly: DER in the one form `issueCertificate` and Intel write it, so that no bit of it
 * is free. @throws CertificateError
 */
export function parseCertificate(der: Uint8Array, field = "certificate"): Certificate {
  try {
    return read(der, field);
  } catch (error) {
    if (error instanceof CertificateError) throw error;
    throw new CertificateError(field, `is no X.509 certificate (${(error as Error).message})`);
  }
}

function read(der: Uint8Array, field: string): Certificate {
  const parsed = AsnConvert.parse(toArrayBuffer(der), AsnCertificate);
  const { tbsCertificate } = parsed;
  const tbs = new Uint8Array(parsed.tbsCertificateRaw ?? new ArrayBuffer(0));
  const signature = signatureFromDer(new Uint8Array(parsed.signatureValue));
  if (!signature || !equal(signedDer(tbs, signature), der))
    throw new CertificateError(field, "is not DER with an ecdsa-with-SHA256 signature");
  if (tbsCertificate.signature.algorithm !== ECDSA_WITH_SHA256)
    throw new CertificateError(`${field} signature algorithm`, "is not ecdsa-with-SHA256");
  const spki = tbsCertificate.subjectPublicKeyInfo;
  const point = new Uint8Array(spki.subjectPublicKey);
  if (
    spki.algorithm.algorithm !== EC_PUBLIC_KEY ||
    !equal(new Uint8Array(spki.algorithm.parameters ?? new ArrayBuffer(0)), PRIME256V1) ||
    point.length !== 65 ||
    point[0] !== 4
  )
    throw new CertificateError(`${field} public key`, "is no uncompressed point on P-256");

  const extensions = new Map<string, Uint8Array>();
  for (const { extnID, critical, extnValue } of tbsCertificate.extensions ?? []) {
    if (extensions.has(extnID)) throw new CertificateError(field, `has extension ${extnID} twice`);
    if (critical && !KNOWN_CRITICAL.has(extnID))
      throw new CertificateError(field, `has the unknown critical extension ${extnID}`);
    extensions.set(extnID, new Uint8Array(extnValue.buffer));
  }
  const get = <T>(oid: string, type: new () => T): T | null => {
    const value = extensions.get(oid);
    return value ? AsnConvert.parse(toArrayBuffer(value), type) : null;
  };
  const constraints = get(id_ce_basicConstraints, BasicConstraints);
  const usage = get(id_ce_keyUsage, KeyUsage)?.toNumber() ?? 0;
  const points = get(id_ce_cRLDistributionPoints, CRLDistributionPoints);
  const sgx = extensions.get(SGX_EXTENSION_OID);
  return {
    der,
    tbs: tbsRange(der, tbs),
    signature,
    serial: serialText(new Uint8Array(tbsCertificate.serialNumber)),
    subject: nameText(tbsCertificate.subject),
    issuer: nameText(tbsCertificate.issuer),
    commonName: commonNameOf(tbsCertificate.subject),
    subjectDer: nameDer(tbsCertificate.subject),
    issuerDer: nameDer(tbsCertificate.issuer),
    notBefore: tbsCertificate.validity.notBefore.getTime(),
    notAfter: tbsCertificate.validity.notAfter.getTime(),
    publicKey: point.subarray(1),
    ca: constraints?.cA ?? false,
    pathLength: constraints?.pathLenConstraint ?? null,
    keyCertSign: (usage & KeyUsageFlags.keyCertSign) !== 0,
    crlSign: (usage & KeyUsageFlags.cRLSign) !== 0,
    crlUrl: points?.[0]?.distributionPoint?.fullName?.[0]?.uniformResourceIdentifier ?? null,
    sgx: sgx ? decodeSgxExtension(sgx) : null,
  };
}

export const nameDer = (name: Name): Uint8Array => new Uint8Array(AsnConvert.serialize(name));

/** Whether `issuer`'s key signed `certificate`. */
export const isSignedBy = (certificate: Certificate, issuer: Certificate): boolean =>
  verify(issuer.publicKey, certificate.tbs, certificate.signature);
