/**
 * A private DCAP hierarchy, one per installation: root CA, PCK Platform CA, the platform's PCK certificate and
 * the TCB signing certificate. Everything follows from the random source and the date; nothing else goes in.
 */
import { concat } from "../bytes.js";
import { type Certificate, issueCertificate, parseCertificate } from "./certificate.js";
import { type KeyPair, type RandomSource, generateKeyPair } from "./ecdsa.js";
import { COMMON_NAME } from "./names.js";
import { toPemChain } from "./pem.js";
import { SGX_TYPE } from "./sgx-extension.js";

/** What the PCK certificate says about the platform. */
export interface PlatformIdentity {
  /** 16 bytes. */
  ppid: Uint8Array;
  /** 6 bytes. */
  fmspc: Uint8Array;
  /** 2 bytes. */
  pceId: Uint8Array;
  /** SVNs of the 16 SGX TCB components. */
  tcbComponents: Uint8Array;
  pceSvn: number;
  /** Raw CPUSVN, 16 bytes. */
  cpuSvn: Uint8Array;
  /** 16 bytes. */
  platformInstanceId: Uint8Array;
}

/** A certificate and its key. */
export interface Identity {
  readonly key: KeyPair;
  readonly certificate: Certificate;
}

export interface Pki {
  readonly root: Identity;
  readonly platformCa: Identity;
  readonly pck: Identity;
  readonly tcbSigning: Identity;
  readonly platform: PlatformIdentity;
  /** PEM: PCK, Platform CA, root. */
  readonly pckChain: string;
  /** PEM: Platform CA, root. */
  readonly pckCrlIssuerChain: string;
  /** PEM: TCB signing, root. */
  readonly tcbSigningChain: string;
}

export interface PkiOptions {
  /** Start of every certificate's validity; default 2024-01-01. PCK and TCB signing last 7 years, the CA 15. */
  notBefore?: Date;
  /** Where CRLs are said to be published, as Intel's provisioning certification service publishes them. */
  pcsUrl?: string;
  platform?: Partial<PlatformIdentity>;
}

/** SVNs of a platform with current firmware: microcode, SINIT, BIOS, …, SEAMLDR ACM, in TCB info's order. */
export const DEFAULT_TCB_COMPONENTS: readonly number[] = [3, 3, 2, 2, 3, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0];
export const DEFAULT_PCE_SVN = 13;
/** Reserved by RFC 2606, so nobody is ever asked for these lists by mistake. */
export const DEFAULT_PCS_URL = "https://pcs.swtdx.invalid";

const ROOT_NOT_AFTER = new Date("2049-12-31T23:59:59Z");

const later = (date: Date, years: number): Date => {
  const out = new Date(date);
  out.setUTCFullYear(out.getUTCFullYear() + years);
  return out < ROOT_NOT_AFTER ? out : ROOT_NOT_AFTER;
};

/** 20 bytes, positive and without a leading zero. */
const serial = (random: RandomSource): Uint8Array =>
  concat(Uint8Array.of(0x40 | (random.bytes(1)[0] & 0x3f)), random.bytes(19));

/** Makes the hierarchy. Equal random sources and options give equal certificates. */
export function createPki(random: RandomSource, options: PkiOptions = {}): Pki {
  const notBefore = options.notBefore ?? new Date("2024-01-01T00:00:00Z");
  const pcsUrl = options.pcsUrl ?? DEFAULT_PCS_URL;
  const identityRandom = random.fork("platform");
  const components = options.platform?.tcbComponents ?? Uint8Array.from(DEFAULT_TCB_COMPONENTS);
  const platform: PlatformIdentity = {
    ppid: identityRandom.bytes(16),
    platformInstanceId: identityRandom.bytes(16),
    // Family 6, model 0x8F (Sapphire Rapids), in the byte order FMSPCs have.
    fmspc: Uint8Array.of(0xf0, 0x8f, 0x06, 0x5d, 0x00, 0x00),
    pceId: new Uint8Array(2),
    tcbComponents: components,
    pceSvn: DEFAULT_PCE_SVN,
    cpuSvn: components,
    ...options.platform,
  };
  const rootCrlUrl = `${pcsUrl}/sgx/certification/v4/rootcacrl`;
  const pckCrlUrl = `${pcsUrl}/sgx/certification/v4/pckcrl?ca=platform&encoding=der`;

  const identity = (
    label: string,
    commonName: string,
    issuer: { commonName: string; key: KeyPair } | null,
    rest: Pick<Parameters<typeof issueCertificate>[0], "notAfter" | "crlUrl" | "ca" | "sgx">,
  ): Identity => {
    const own = random.fork(label);
    const key = generateKeyPair(own);
    const signer = issuer ?? { commonName, key };
    const der = issueCertificate(
      {
        commonName,
        issuerCommonName: signer.commonName,
        publicKey: key.publicKey,
        issuerPublicKey: signer.key.publicKey,
        serial: serial(own),
        notBefore,
        ...rest,
      },
      signer.key,
    );
    return { key, certificate: parseCertificate(der) };
  };

  const root = identity("root", COMMON_NAME.ROOT_CA, null, {
    notAfter: ROOT_NOT_AFTER,
    crlUrl: rootCrlUrl,
    ca: { pathLength: 1 },
  });
  const rootIssuer = { commonName: COMMON_NAME.ROOT_CA, key: root.key };
  const platformCa = identity("platform-ca", COMMON_NAME.PLATFORM_CA, rootIssuer, {
    notAfter: later(notBefore, 15),
    crlUrl: rootCrlUrl,
    ca: { pathLength: 0 },
  });
  const tcbSigning = identity("tcb-signing", COMMON_NAME.TCB_SIGNING, rootIssuer, {
    notAfter: later(notBefore, 7),
    crlUrl: rootCrlUrl,
  });
  const pck = identity(
    "pck",
    COMMON_NAME.PCK,
    { commonName: COMMON_NAME.PLATFORM_CA, key: platformCa.key },
    {
      notAfter: later(notBefore, 7),
      crlUrl: pckCrlUrl,
      sgx: {
        ppid: platform.ppid,
        tcb: { components: platform.tcbComponents, pceSvn: platform.pceSvn, cpuSvn: platform.cpuSvn },
        pceId: platform.pceId,
        fmspc: platform.fmspc,
        sgxType: SGX_TYPE.SCALABLE,
        platformInstanceId: platform.platformInstanceId,
        configuration: { dynamicPlatform: true, cachedKeys: true, smtEnabled: true },
      },
    },
  );
  const ders = (...identities: Identity[]): Uint8Array[] => identities.map((i) => i.certificate.der);
  return {
    root,
    platformCa,
    pck,
    tcbSigning,
    platform,
    pckChain: toPemChain(ders(pck, platformCa, root)),
    pckCrlIssuerChain: toPemChain(ders(platformCa, root)),
    tcbSigningChain: toPemChain(ders(tcbSigning, root)),
  };
}
