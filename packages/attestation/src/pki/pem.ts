/** PEM (RFC 7468), the strict reading: every byte of the text counts. */
import { concat, utf8 } from "../bytes.js";
import { CertificateError } from "../errors.js";

/** One block with a final newline, 64 characters a line. */
export function toPem(label: string, der: Uint8Array): string {
  const base64 = btoa(Array.from(der, (byte) => String.fromCharCode(byte)).join(""));
  const lines = base64.match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join("\n")}\n-----END ${label}-----\n`;
}

/** A chain of certificates, leaf first, as one text. */
export const toPemChain = (ders: readonly Uint8Array[]): string =>
  ders.map((der) => toPem("CERTIFICATE", der)).join("");

/**
 * The blocks of a PEM text. The whole text must be what `toPem` would write, save for how lines are broken
 * and for newlines or NULs at its end (Intel's quotes end the chain with a NUL).
 * @throws CertificateError
 */
export function parsePem(text: string, label = "CERTIFICATE"): Uint8Array[] {
  const begin = `-----BEGIN ${label}-----`;
  const end = `-----END ${label}-----`;
  const out: Uint8Array[] = [];
  let rest = text.replace(/[\r\n\0]+$/, "").replaceAll("\r\n", "\n");
  while (rest !== "") {
    const which = `PEM block ${out.length}`;
    if (!rest.startsWith(`${begin}\n`)) throw new CertificateError(which, `does not start with "${begin}"`);
    const stop = rest.indexOf(end);
    if (stop < 0) throw new CertificateError(which, `has no "${end}"`);
    const body = rest.slice(begin.length + 1, stop);
    if (!body.endsWith("\n")) throw new CertificateError(which, `"${end}" does not start a line`);
    const base64 = body.replaceAll("\n", "");
    let binary: string;
    try {
      binary = /^[A-Za-z0-9+/]+={0,2}$/.test(base64) ? atob(base64) : "";
    } catch {
      binary = "";
    }
    // Decoders ignore the spare bits of the last character; here they must be zero.
    if (binary === "" || btoa(binary) !== base64) throw new CertificateError(which, "is not base64");
    out.push(Uint8Array.from(binary, (char) => char.charCodeAt(0)));
    rest = rest.slice(stop + end.length);
    if (rest !== "" && !rest.startsWith("\n"))
      throw new CertificateError(which, "is followed by text on its last line");
    rest = rest.replace(/^\n+/, "");
  }
  return out;
}

/** `parsePem` of bytes that must be ASCII. @throws CertificateError */
export function parsePemBytes(bytes: Uint8Array): Uint8Array[] {
  const bad = bytes.findIndex((byte) => byte >= 0x80);
  if (bad >= 0)
    throw new CertificateError("PEM", `byte 0x${bytes[bad].toString(16)} where ASCII is expected`, bad);
  return parsePem(String.fromCharCode(...bytes));
}

/** A chain as bytes, ended by a NUL as Intel's quoting library writes it. */
export const pemChainBytes = (ders: readonly Uint8Array[]): Uint8Array =>
  concat(utf8(toPemChain(ders)), Uint8Array.of(0));
