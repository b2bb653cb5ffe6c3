/** Certificate revocation lists (RFC 5280, ch. 5), made and read, as Intel publishes them: v2, DER. */
import { AsnConvert } from "@peculiar/asn1-schema";
import {
  AuthorityKeyIdentifier,
  CertificateList,
  CRLNumber,
  CRLReason,
  CRLReasons,
  KeyIdentifier,
  RevokedCertificate,
  TBSCertList,
  Time,
  Version,
  id_ce_authorityKeyIdentifier,
  id_ce_cRLNumber,
  id_ce_cRLReasons,
} from "@peculiar/asn1-x509";
import { equal, fromHex, toArrayBuffer } from "../bytes.js";
import { CertificateError } from "../errors.js";
import {
  extension,
  keyIdentifier,
  nameDer,
  serialText,
  signatureAlgorithm,
  signedDer,
  tbsRange,
} from "./certificate.js";
import { type KeyPair, sign, signatureFromDer } from "./ecdsa.js";
import { distinguishedName, nameText } from "./names.js";

export interface CrlTemplate {
  issuerCommonName: string;
  thisUpdate: Date;
  nextUpdate: Date;
  number: number;
  /** Serial numbers, hexadecimal. */
  revoked: readonly string[];
}

/** Makes and signs a CRL. Returns DER. */
export function issueCrl(template: CrlTemplate, issuerKey: KeyPair): Uint8Array {
  const revokedCertificates = template.revoked.map((serial) => {
    const bytes = fromHex(serial);
    if (!bytes) throw new CertificateError("revoked serial", `"${serial}" is not hexadecimal`);
    return new RevokedCertificate({
      userCertificate: toArrayBuffer(bytes),
      revocationDate: new Time(template.thisUpdate),
      crlEntryExtensions: [extension(id_ce_cRLReasons, false, new CRLReason(CRLReasons.keyCompromise))],
    });
  });
  const tbs = new TBSCertList({
    version: Version.v2,
    signature: signatureAlgorithm(),
    issuer: distinguishedName(template.issuerCommonName),
    thisUpdate: new Time(template.thisUpdate),
    nextUpdate: new Time(template.nextUpdate),
    ...(revokedCertificates.length > 0 && { revokedCertificates }),
    crlExtensions: [
      extension(id_ce_cRLNumber, false, new CRLNumber(template.number)),
      extension(
        id_ce_authorityKeyIdentifier,
        false,
        new AuthorityKeyIdentifier({
          keyIdentifier: new KeyIdentifier(keyIdentifier(issuerKey.publicKey)),
        }),
      ),
    ],
  });
  const body = new Uint8Array(AsnConvert.serialize(tbs));
  return signedDer(body, sign(issuerKey, body));
}

/** A CRL as it was read. */
export interface Crl {
  readonly der: Uint8Array;
  readonly tbs: Uint8Array;
  /** r ‖ s. */
  readonly signature: Uint8Array;
  readonly issuer: string;
  readonly issuerDer: Uint8Array;
  readonly thisUpdate: Date;
  readonly nextUpdate: Date | null;
  /** Serial numbers, hexadecimal, no leading zero byte. */
  readonly revoked: ReadonlySet<string>;
}

/** Reads a CRL strictly. @throws CertificateError */
export function parseCrl(der: Uint8Array, field = "CRL"): Crl {
  try {
    const parsed = AsnConvert.parse(toArrayBuffer(der), CertificateList);
    const list = parsed.tbsCertList;
    const tbs = new Uint8Array(parsed.tbsCertListRaw ?? new ArrayBuffer(0));
    const signature = signatureFromDer(new Uint8Array(parsed.signature));
    if (!signature || !equal(signedDer(tbs, signature), der))
      throw new CertificateError(field, "is not DER with an ecdsa-with-SHA256 signature");
    return {
      der,
      tbs: tbsRange(der, tbs),
      signature,
      issuer: nameText(list.issuer),
      issuerDer: nameDer(list.issuer),
      thisUpdate: list.thisUpdate.getTime(),
      nextUpdate: list.nextUpdate?.getTime() ?? null,
      revoked: new Set(
        (list.revokedCertificates ?? []).map((entry) => serialText(new Uint8Array(entry.userCertificate))),
      ),
    };
  } catch (error) {
    if (error instanceof CertificateError) throw error;
    throw new CertificateError(field, `is no certificate revocation list (${(error as Error).message})`);
  }
}
