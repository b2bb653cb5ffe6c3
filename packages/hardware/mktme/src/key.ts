/**
 * Keys of the memory-encryption engine and the integrity MAC.
 *
 * A key object is one programming of a KeyID: what was written under it stays under it when the KeyID is programmed
 * anew. Two objects are never equal.
 */
import { sha3Sha256 } from "@swtdx/crypto";
import { createXtsKey, LINE_SIZE, XTS_BLOCK, type XtsKey, xtsDecrypt, xtsEncrypt, xtsTweak } from "./xts.js";

/** One programming of a KeyID. */
export interface MemoryKey {
  /** Null: not encrypted. */
  readonly xts: XtsKey | null;
  /** The KeyID was in the private (TDX) range: lines written under it have the TD-owner bit. */
  readonly isPrivate: boolean;
}

/** What PCONFIG gives a KeyID. */
export type KeyMaterial =
  | { mode: "encrypt"; dataKey: Uint8Array; tweakKey: Uint8Array }
  /** MKTME "no encryption". */
  | { mode: "none" };

/** @throws RangeError unless both keys have 16 bytes */
export function createMemoryKey(material: KeyMaterial, isPrivate: boolean): MemoryKey {
  const xts = material.mode === "none" ? null : createXtsKey(material.dataKey, material.tweakKey);
  return { xts, isPrivate };
}

/** What the DIMM holds of consecutive lines that were written under `key`. */
export const toDimm = (key: MemoryKey, firstLine: number, plaintext: Uint8Array): Uint8Array =>
  key.xts ? xtsEncrypt(key.xts, firstLine, plaintext) : plaintext.slice();

/** What a reader with `key` makes of the DIMM's bytes. */
export const fromDimm = (key: MemoryKey, firstLine: number, stored: Uint8Array): Uint8Array =>
  key.xts ? xtsDecrypt(key.xts, firstLine, stored) : stored.slice();

/** Bits of the MAC that is kept with each line. */
export const MAC_BITS = 28;
/** Bytes of the platform's MAC key. */
export const MAC_KEY_SIZE = 16;

/**
 * The line's MAC: the first 28 bits of SHA3-256 over the platform's MAC key, the 512 bits of ciphertext, the 128-bit
 * encryption tweak (the line's number under the KeyID's tweak key; zeros without encryption) and a byte for the
 * TD-owner bit. These components are the specification's (TDX Module base specification 1.5, table "MAC
 * Calculation Components"); how they are put together is not public.
 */
export function lineMac(
  macKey: Uint8Array,
  key: MemoryKey,
  line: number,
  tdOwner: boolean,
  stored: Uint8Array,
): number {
  const input = new Uint8Array(MAC_KEY_SIZE + LINE_SIZE + XTS_BLOCK + 1);
  input.set(macKey);
  input.set(stored, MAC_KEY_SIZE);
  if (key.xts) input.set(xtsTweak(key.xts, line), MAC_KEY_SIZE + LINE_SIZE);
  input[input.length - 1] = tdOwner ? 1 : 0;
  return new DataView(sha3Sha256(input).buffer).getUint32(0, true) >>> (32 - MAC_BITS);
}
