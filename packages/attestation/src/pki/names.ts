/**
 * Distinguished names. Common name and the rest are those of Intel's certificates, because verifiers compare
 * them; the organizational unit, which Intel's have not, says whose key it really is.
 */
import { AttributeTypeAndValue, AttributeValue, Name, RelativeDistinguishedName } from "@peculiar/asn1-x509";

/** Stands in the subject and issuer of every certificate made here. */
export const SWTDX_ORGANIZATIONAL_UNIT = "swtdx private root - not Intel hardware";

const ATTRIBUTES = {
  CN: "2.5.4.3",
  O: "2.5.4.10",
  OU: "2.5.4.11",
  L: "2.5.4.7",
  ST: "2.5.4.8",
  C: "2.5.4.6",
} as const;
const SHORT = new Map<string, string>(Object.entries(ATTRIBUTES).map(([short, type]) => [type, short]));

/** Common names of Intel's SGX and TDX certificates. */
export const COMMON_NAME = {
  ROOT_CA: "Intel SGX Root CA",
  PLATFORM_CA: "Intel SGX PCK Platform CA",
  PCK: "Intel SGX PCK Certificate",
  TCB_SIGNING: "Intel SGX TCB Signing",
} as const;

/** The name with the given common name. */
export function distinguishedName(commonName: string): Name {
  const part = (type: string, value: AttributeValue): RelativeDistinguishedName =>
    new RelativeDistinguishedName([new AttributeTypeAndValue({ type, value })]);
  const text = (utf8String: string): AttributeValue => new AttributeValue({ utf8String });
  return new Name([
    part(ATTRIBUTES.CN, text(commonName)),
    part(ATTRIBUTES.O, text("Intel Corporation")),
    part(ATTRIBUTES.OU, text(SWTDX_ORGANIZATIONAL_UNIT)),
    part(ATTRIBUTES.L, text("Santa Clara")),
    part(ATTRIBUTES.ST, text("CA")),
    part(ATTRIBUTES.C, new AttributeValue({ printableString: "US" })),
  ]);
}

/** "CN=…, O=…" as tools print it. */
export const nameText = (name: Name): string =>
  name
    .flatMap((part) => part.map(({ type, value }) => `${SHORT.get(type) ?? type}=${value.toString()}`))
    .join(", ");

/** The common name, or "" when there is none. */
export function commonNameOf(name: Name): string {
  for (const part of name)
    for (const { type, value } of part) if (type === ATTRIBUTES.CN) return value.toString();
  return "";
}
