/**
 * The SGX extension of a PCK certificate. Source: Intel SGX PCK Certificate and CRL Profile Specification, 1.3.
 */
import * as asn1js from "asn1js";
import { toArrayBuffer } from "../bytes.js";
import { CertificateError } from "../errors.js";

export const SGX_EXTENSION_OID = "1.2.840.113741.1.13.1";
const oid = (suffix: string): string => `${SGX_EXTENSION_OID}.${suffix}`;

/** SGX Type: how the platform protects enclave memory. */
export const SGX_TYPE = { STANDARD: 0, SCALABLE: 1, SCALABLE_WITH_INTEGRITY: 2 } as const;

export interface SgxExtension {
  /** Platform provisioning id, 16 bytes. */
  ppid: Uint8Array;
  tcb: {
    /** SVNs of the 16 TCB components. */
    components: Uint8Array;
    pceSvn: number;
    /** Raw CPUSVN, 16 bytes. */
    cpuSvn: Uint8Array;
  };
  /** 2 bytes. */
  pceId: Uint8Array;
  /** Family, model, stepping, platform, custom SKU: 6 bytes. */
  fmspc: Uint8Array;
  sgxType: number;
  /** 16 bytes; absent under a Processor CA. */
  platformInstanceId?: Uint8Array;
  configuration?: { dynamicPlatform: boolean; cachedKeys: boolean; smtEnabled: boolean };
}

const entry = (suffix: string, value: asn1js.AsnType): asn1js.Sequence =>
  new asn1js.Sequence({ value: [new asn1js.ObjectIdentifier({ value: oid(suffix) }), value] });
const octets = (value: Uint8Array): asn1js.OctetString =>
  new asn1js.OctetString({ valueHex: toArrayBuffer(value) });
const integer = (value: number): asn1js.Integer => new asn1js.Integer({ value });

/** The extension's value, DER. */
export function encodeSgxExtension(extension: SgxExtension): Uint8Array {
  const { tcb, configuration } = extension;
  const entries = [
    entry("1", octets(extension.ppid)),
    entry(
      "2",
      new asn1js.Sequence({
        value: [
          ...Array.from(tcb.components, (svn, i) => entry(`2.${i + 1}`, integer(svn))),
          entry("2.17", integer(tcb.pceSvn)),
          entry("2.18", octets(tcb.cpuSvn)),
        ],
      }),
    ),
    entry("3", octets(extension.pceId)),
    entry("4", octets(extension.fmspc)),
    entry("5", new asn1js.Enumerated({ value: extension.sgxType })),
  ];
  if (extension.platformInstanceId) entries.push(entry("6", octets(extension.platformInstanceId)));
  if (configuration)
    entries.push(
      entry(
        "7",
        new asn1js.Sequence({
          value: [configuration.dynamicPlatform, configuration.cachedKeys, configuration.smtEnabled].map(
            (value, i) => entry(`7.${i + 1}`, new asn1js.Boolean({ value })),
          ),
        }),
      ),
    );
  return new Uint8Array(new asn1js.Sequence({ value: entries }).toBER());
}

/** OID → value of a SEQUENCE of { OID, value }. */
function entries(node: asn1js.AsnType | undefined, field: string): Map<string, asn1js.AsnType> {
  if (!(node instanceof asn1js.Sequence)) throw new CertificateError(field, "is no SEQUENCE");
  const out = new Map<string, asn1js.AsnType>();
  for (const item of node.valueBlock.value) {
    const pair = item instanceof asn1js.Sequence ? item.valueBlock.value : [];
    const [id, value] = pair;
    if (!(id instanceof asn1js.ObjectIdentifier) || !value || pair.length !== 2)
      throw new CertificateError(field, "has an element that is no pair of OID and value");
    out.set(id.valueBlock.toString(), value);
  }
  return out;
}

function octetsOf(map: Map<string, asn1js.AsnType>, suffix: string, name: string, size: number): Uint8Array {
  const node = map.get(oid(suffix));
  const value = node instanceof asn1js.OctetString ? new Uint8Array(node.valueBlock.valueHexView) : null;
  if (value?.length !== size)
    throw new CertificateError(`SGX extension ${name}`, `is missing or has not ${size} bytes`);
  return value.slice();
}

function numberOf(map: Map<string, asn1js.AsnType>, suffix: string, name: string, max: number): number {
  const node = map.get(oid(suffix));
  const value =
    node instanceof asn1js.Integer || node instanceof asn1js.Enumerated ? node.valueBlock.valueDec : NaN;
  if (!(value >= 0 && value <= max))
    throw new CertificateError(`SGX extension ${name}`, `is missing or not in 0..${max}`);
  return value;
}

const booleanOf = (map: Map<string, asn1js.AsnType>, suffix: string): boolean => {
  const node = map.get(oid(suffix));
  return node instanceof asn1js.Boolean && node.valueBlock.value;
};

/** Reads the extension's value. @throws CertificateError */
export function decodeSgxExtension(der: Uint8Array): SgxExtension {
  const { result, offset } = asn1js.fromBER(toArrayBuffer(der));
  if (offset !== der.length) throw new CertificateError("SGX extension", "is no DER");
  const all = entries(result, "SGX extension");
  const tcb = entries(all.get(oid("2")), "SGX extension TCB");
  return {
    ppid: octetsOf(all, "1", "PPID", 16),
    tcb: {
      components: Uint8Array.from({ length: 16 }, (_, i) =>
        numberOf(tcb, `2.${i + 1}`, `TCB component ${i + 1}`, 255),
      ),
      pceSvn: numberOf(tcb, "2.17", "PCESVN", 65535),
      cpuSvn: octetsOf(tcb, "2.18", "CPUSVN", 16),
    },
    pceId: octetsOf(all, "3", "PCE-ID", 2),
    fmspc: octetsOf(all, "4", "FMSPC", 6),
    sgxType: numberOf(all, "5", "SGX Type", 2),
    ...(all.has(oid("6")) && { platformInstanceId: octetsOf(all, "6", "Platform Instance ID", 16) }),
    ...(all.has(oid("7")) && configurationOf(entries(all.get(oid("7")), "SGX extension Configuration"))),
  };
}

const configurationOf = (map: Map<string, asn1js.AsnType>): Pick<SgxExtension, "configuration"> => ({
  configuration: {
    dynamicPlatform: booleanOf(map, "7.1"),
    cachedKeys: booleanOf(map, "7.2"),
    smtEnabled: booleanOf(map, "7.3"),
  },
});
