import { X509Certificate, createPublicKey, verify as nodeVerify } from "node:crypto";
import { describe, expect, test } from "vitest";
import fc from "fast-check";
import {
  CertificateError,
  COMMON_NAME,
  SGX_EXTENSION_OID,
  SWTDX_ORGANIZATIONAL_UNIT,
  generateKeyPair,
  issueCrl,
  parseCertificate,
  parseCrl,
  parsePem,
  sign,
  toPem,
  toPemChain,
  verify,
} from "../src/index.js";
import { makePlatform, random } from "./support/platform.js";

const { pki } = makePlatform();
const node = (der: Uint8Array): X509Certificate => new X509Certificate(Buffer.from(der));

describe("the hierarchy, as OpenSSL reads it", () => {
  const { root, platformCa, pck, tcbSigning } = pki;
  test.each([
    ["root", root, root, COMMON_NAME.ROOT_CA, true],
    ["platform CA", platformCa, root, COMMON_NAME.PLATFORM_CA, true],
    ["PCK", pck, platformCa, COMMON_NAME.PCK, false],
    ["TCB signing", tcbSigning, root, COMMON_NAME.TCB_SIGNING, false],
  ])("%s", (_, identity, issuer, commonName, ca) => {
    const certificate = node(identity.certificate.der);
    const signer = node(issuer.certificate.der);
    expect(certificate.subject).toBe(
      `CN=${commonName}\nO=Intel Corporation\nOU=${SWTDX_ORGANIZATIONAL_UNIT}\nL=Santa Clara\nST=CA\nC=US`,
    );
    expect(certificate.checkIssued(signer)).toBe(true);
    expect(certificate.verify(signer.publicKey)).toBe(true);
    expect(certificate.ca).toBe(ca);
    expect(certificate.serialNumber.toLowerCase()).toBe(identity.certificate.serial);
    expect(new Date(certificate.validTo)).toEqual(identity.certificate.notAfter);
    expect(new Date(certificate.validFrom)).toEqual(identity.certificate.notBefore);
    const { x, y } = certificate.publicKey.export({ format: "jwk" });
    expect(Buffer.concat([Buffer.from(x!, "base64url"), Buffer.from(y!, "base64url")])).toEqual(
      Buffer.from(identity.key.publicKey),
    );
  });

  test("the PCK certificate says what the platform is", () => {
    expect(pki.pck.certificate.sgx).toMatchObject({
      ppid: pki.platform.ppid,
      tcb: { components: pki.platform.tcbComponents, pceSvn: 13, cpuSvn: pki.platform.cpuSvn },
      fmspc: pki.platform.fmspc,
      pceId: Uint8Array.of(0, 0),
      sgxType: 1,
      platformInstanceId: pki.platform.platformInstanceId,
      configuration: { dynamicPlatform: true, cachedKeys: true, smtEnabled: true },
    });
    expect(SGX_EXTENSION_OID).toBe("1.2.840.113741.1.13.1");
    expect(pki.platformCa.certificate.sgx).toBeNull();
    expect(pki.pck.certificate.crlUrl).toContain("pckcrl?ca=platform");
  });
});

test("signatures are deterministic, and those OpenSSL verifies", () => {
  const key = generateKeyPair(random("key"));
  const b64 = (part: Uint8Array): string => Buffer.from(part).toString("base64url");
  const native = createPublicKey({
    key: {
      kty: "EC",
      crv: "P-256",
      x: b64(key.publicKey.subarray(0, 32)),
      y: b64(key.publicKey.subarray(32)),
    },
    format: "jwk",
  });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (message) => {
      const signature = sign(key, message);
      expect(sign(key, message)).toEqual(signature);
      expect(verify(key.publicKey, message, signature)).toBe(true);
      expect(nodeVerify("sha256", message, { key: native, dsaEncoding: "ieee-p1363" }, signature)).toBe(true);
    }),
    { numRuns: 20 },
  );
  expect(verify(new Uint8Array(64), new Uint8Array(), new Uint8Array(64))).toBe(false);
});

test("RFC 6979, A.2.5: P-256, SHA-256", () => {
  const secretKey = Buffer.from("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721", "hex");
  const key = { secretKey, publicKey: new Uint8Array(64) };
  expect(
    Buffer.from(sign(key, Buffer.from("sample")))
      .toString("hex")
      .toUpperCase(),
  ).toBe(
    "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716" +
      "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
  );
});

describe("revocation lists", () => {
  const template = {
    issuerCommonName: COMMON_NAME.PLATFORM_CA,
    thisUpdate: new Date("2026-05-01T00:00:00Z"),
    nextUpdate: new Date("2026-06-01T00:00:00Z"),
    number: 1,
  };
  test("round trip, with high serial numbers too", () => {
    const revoked = [pki.pck.certificate.serial, "8c5f6b3257da05b17429e2e61ba965d67330606a", "7f"];
    const crl = parseCrl(issueCrl({ ...template, revoked }, pki.platformCa.key));
    expect([...crl.revoked]).toEqual(revoked);
    expect(crl).toMatchObject({ thisUpdate: template.thisUpdate, nextUpdate: template.nextUpdate });
    expect(crl.issuer).toBe(pki.platformCa.certificate.subject);
    expect(verify(pki.platformCa.key.publicKey, crl.tbs, crl.signature)).toBe(true);
    expect(parseCrl(issueCrl({ ...template, revoked: [] }, pki.platformCa.key)).revoked.size).toBe(0);
  });
});

describe("what is read", () => {
  const der = pki.pck.certificate.der;
  test("PEM round trip", () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ minLength: 1, maxLength: 300 }), { maxLength: 3 }), (ders) => {
        expect(parsePem(toPemChain(ders))).toEqual(ders);
      }),
    );
    expect(parsePem(toPem("CERTIFICATE", der).replaceAll("\n", "\r\n") + "\0")).toEqual([der]);
  });
  test.each([
    ["junk before", `x${toPem("CERTIFICATE", der)}`],
    ["another label", toPem("X509 CRL", der)],
    ["no end", toPem("CERTIFICATE", der).slice(0, -30)],
    ["no base64", toPem("CERTIFICATE", der).replace("MII", "M I")],
    ["spare bits", "-----BEGIN CERTIFICATE-----\nAB==\n-----END CERTIFICATE-----\n"],
  ])("PEM with %s is refused", (_, text) => expect(() => parsePem(text)).toThrow(CertificateError));

  test("a certificate with a changed bit is refused or has a changed signed part", () => {
    fc.assert(
      fc.property(fc.nat(der.length * 8 - 1), (bit) => {
        const bytes = der.slice();
        bytes[bit >> 3] ^= 1 << (bit & 7);
        try {
          const read = parseCertificate(bytes);
          expect(verify(pki.platformCa.key.publicKey, read.tbs, read.signature)).toBe(false);
        } catch (error) {
          expect(error).toBeInstanceOf(CertificateError);
        }
      }),
      { numRuns: 150 },
    );
  });
  test("nothing but CertificateError is thrown", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 64 }),
          fc.nat(der.length - 1).map((n) => der.slice(0, n)),
        ),
        (x) => {
          expect(() => parseCertificate(x)).toThrow(CertificateError);
          expect(() => parseCrl(x)).toThrow(CertificateError);
        },
      ),
    );
  });
});
