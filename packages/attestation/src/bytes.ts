/** Small helpers over byte arrays. */

/** Lower-case hexadecimal. */
export const hex = (data: Uint8Array): string => {
  let out = "";
  for (const byte of data) out += byte.toString(16).padStart(2, "0");
  return out;
};

/** Bytes of a hexadecimal text, or null when it is none. */
export function fromHex(text: string): Uint8Array | null {
  if (text.length % 2 !== 0 || !/^[0-9a-fA-F]*$/.test(text)) return null;
  return Uint8Array.from({ length: text.length / 2 }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16));
}

export function concat(...parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

export const equal = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i]);

export const isZero = (data: Uint8Array): boolean => data.every((byte) => byte === 0);

export const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A copy with an ArrayBuffer of exactly its size, as asn1js takes it. */
export const toArrayBuffer = (data: Uint8Array): ArrayBuffer => {
  const out = new ArrayBuffer(data.length);
  new Uint8Array(out).set(data);
  return out;
};
