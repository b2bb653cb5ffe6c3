/** A quote field by field, for people: names, offsets, values, and what the values mean. */
import {
  QUOTE_BODY_TYPE,
  QUOTE_HEADER,
  SGX_REPORT_BODY,
  TD_QUOTE_BODY_10,
  TD_QUOTE_BODY_15,
} from "@swtdx/abi";
import { concat, hex } from "../bytes.js";
import { type Certificate, parseCertificate } from "../pki/certificate.js";
import { parsePemBytes } from "../pki/pem.js";
import { type DecodedQuote, decodeQuote } from "./decode.js";

export interface FieldLine {
  readonly name: string;
  /** From the start of the quote, in bytes; null for what is inside a certificate. */
  readonly offset: number | null;
  readonly size: number | null;
  readonly value: string;
  /** What the value means, or "". */
  readonly note: string;
}
export interface FieldSection {
  readonly title: string;
  readonly fields: readonly FieldLine[];
}

/** Names of the bits of TDATTRIBUTES. Source: TDX Module 1.5 ABI, ATTRIBUTES. */
const TD_ATTRIBUTES: readonly [bit: number, name: string][] = [
  [0, "DEBUG"],
  [4, "HGS_PLUS_PROF"],
  [5, "PERF_PROF"],
  [6, "PMT_PROF"],
  [27, "LASS"],
  [28, "SEPT_VE_DISABLE"],
  [29, "MIGRATABLE"],
  [30, "PKS"],
  [31, "KL"],
  [63, "PERFMON"],
];
/** State components of XFAM. Source: SDM vol. 1, 13.1. */
const XFAM: readonly [bit: number, name: string][] = [
  [0, "x87"],
  [1, "SSE"],
  [2, "AVX"],
  [5, "opmask"],
  [6, "ZMM_Hi256"],
  [7, "Hi16_ZMM"],
  [8, "PT"],
  [9, "PKRU"],
  [10, "PASID"],
  [11, "CET_U"],
  [12, "CET_S"],
  [14, "UINTR"],
  [15, "LBR"],
  [17, "TILECFG"],
  [18, "TILEDATA"],
];
const bitNames = (value: bigint, names: readonly [number, string][]): string =>
  names
    .filter(([bit]) => (value >> BigInt(bit)) & 1n)
    .map(([, name]) => name)
    .join(" ");

const CERTIFICATION_TYPES: Readonly<Record<number, string>> = {
  1: "PPID, clear",
  2: "PPID, RSA-2048",
  3: "PPID, RSA-3072",
  4: "PCK leaf certificate",
  5: "PCK certificate chain",
  6: "QE report certification data",
  7: "platform manifest",
};

const NOTES: Readonly<Record<string, (value: never) => string>> = {
  ATT_KEY_TYPE: (value: number) => (value === 2 ? "ECDSA P-256" : ""),
  TEE_TYPE: (value: number) => (value === 0x81 ? "TDX" : ""),
  QE_VENDOR_ID: () => "",
  TDATTRIBUTES: (value: bigint) => bitNames(value, TD_ATTRIBUTES),
  XFAM: (value: bigint) => bitNames(value, XFAM),
  TEE_TCB_SVN: (value: Uint8Array) =>
    `TDX module SVN ${value[0]}, major version ${value[1]}, microcode SVN ${value[2]}`,
};

const show = (value: unknown, size: number): string =>
  value instanceof Uint8Array
    ? hex(value)
    : `0x${(value as number | bigint).toString(16).padStart(2 * size, "0")}`;

/** Every field of a structure that stands at `base`. */
function fieldsOf(
  struct: { readonly fields: Readonly<Record<string, { offset: number; size: number }>> },
  values: Record<string, unknown>,
  base: number,
): FieldLine[] {
  return Object.entries(struct.fields)
    .filter(([name]) => !name.startsWith("RESERVED"))
    .map(([name, field]) => ({
      name,
      offset: base + field.offset,
      size: field.size,
      value: show(values[name], field.size),
      note: NOTES[name]?.(values[name] as never) ?? "",
    }));
}

const certificateSection = (title: string, certificate: Certificate): FieldSection => {
  const line = (name: string, value: string): FieldLine => ({
    name,
    offset: null,
    size: null,
    value,
    note: "",
  });
  const { sgx } = certificate;
  return {
    title,
    fields: [
      line("subject", certificate.subject),
      line("issuer", certificate.issuer),
      line("serial", certificate.serial),
      line("not before", certificate.notBefore.toISOString()),
      line("not after", certificate.notAfter.toISOString()),
      line("public key", hex(certificate.publicKey)),
      ...(sgx
        ? [
            line("PPID", hex(sgx.ppid)),
            line("TCB components", Array.from(sgx.tcb.components).join(" ")),
            line("PCESVN", `${sgx.tcb.pceSvn}`),
            line("CPUSVN", hex(sgx.tcb.cpuSvn)),
            line("PCE-ID", hex(sgx.pceId)),
            line("FMSPC", hex(sgx.fmspc).toUpperCase()),
            line("SGX Type", `${sgx.sgxType}`),
          ]
        : []),
    ],
  };
};

/** Certificates of a quote's PCK chain, leaf first. @throws CertificateError */
export const quoteCertificates = (quote: DecodedQuote): Certificate[] =>
  parsePemBytes(quote.signature.certification.data).map((der, i) => parseCertificate(der, `PCK chain[${i}]`));

/**
 * Describes a quote, decoded or as bytes.
 * @throws QuoteError when the bytes are no quote, CertificateError when a chain in it is malformed
 */
export function describeQuote(input: Uint8Array | DecodedQuote): FieldSection[] {
  const quote = input instanceof Uint8Array ? decodeQuote(input) : input;
  const { layout, signature } = quote;
  const at = (name: string, range: readonly [number, number], value: string, note = ""): FieldLine => ({
    name,
    offset: range[0],
    size: range[1] - range[0],
    value,
    note,
  });
  const body = quote.body.kind === "TD_15" ? TD_QUOTE_BODY_15 : TD_QUOTE_BODY_10;
  const { type } = signature.certification;
  const sections: FieldSection[] = [
    { title: "header", fields: fieldsOf(QUOTE_HEADER, quote.header, 0) },
    {
      title: `body (${quote.body.kind === "TD_15" ? "TDX 1.5" : "TDX 1.0"}, type ${QUOTE_BODY_TYPE[quote.body.kind]})`,
      fields: fieldsOf(body, quote.body.fields, layout.body[0]),
    },
    {
      title: "signature data",
      fields: [
        at("signature", layout.signature, hex(signature.signature), "over the bytes before it"),
        at("attestation public key", layout.attestationKey, hex(signature.attestationKey)),
        at("QE report signature", layout.qeReportSignature, hex(signature.qeReportSignature), "by the PCK"),
        at("QE authentication data", layout.qeAuthData, hex(signature.qeAuthData)),
        at(
          "QE certification data",
          layout.certification,
          `type ${type}`,
          CERTIFICATION_TYPES[type] ?? "unknown",
        ),
        ...(layout.trailing[1] > layout.trailing[0]
          ? [at("after the quote", layout.trailing, "", "ignored: nobody signed it")]
          : []),
      ],
    },
    {
      title: "QE report",
      fields: fieldsOf(
        SGX_REPORT_BODY,
        SGX_REPORT_BODY.decode(concat(signature.qeReport)),
        layout.qeReport[0],
      ),
    },
  ];
  if (type === 5)
    sections.push(
      ...quoteCertificates(quote).map((certificate, i) =>
        certificateSection(`certificate ${i}`, certificate),
      ),
    );
  return sections;
}
