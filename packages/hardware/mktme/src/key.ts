/**
 * Keys of the memory-encryption engine and the integrity MAC.
 *
 * A key object is one programming of a KeyID: what was written under it stays under it when the KeyID is programmed
 * anew. Two objects are never equal.
 */
import { sha3Sha256 } from "@swtdx/crypto";
import { createXtsKey, LINE_SIZE, type XtsKey, xtsDecrypt, xtsEncrypt } from "./xts.js";

/** One programming of a KeyID. */
export interface MemoryKey {
  /** Null: not encrypted. */
  readonly xts: XtsKey | null;
  /** Key of the MAC, 16 bytes. */
  readonly mac: Uint8Array;
  /** The KeyID was in the private (TDX) range: lines written under it have the TD-owner bit. */
  readonly isPrivate: boolean;
}

/** What PCONFIG gives a KeyID. */
export type KeyMaterial =
  | { mode: "encrypt"; dataKey: Uint8Array; tweakKey: Uint8Array }
  /** MKTME "no encryption". */
  | { mode: "none" };

/** @throws RangeError unless both keys have 16 bytes */
export function createMemoryKey(material: KeyMaterial, mac: Uint8Array, isPrivate: boolean): MemoryKey {
  const xts = material.mode === "none" ? null : createXtsKey(material.dataKey, material.tweakKey);
  return { xts, mac, isPrivate };
}

/** What the DIMM holds of consecutive lines that were written under `key`. */
export const toDimm = (key: MemoryKey, firstLine: number, plaintext: Uint8Array): Uint8Array =>
  key.xts ? xtsEncrypt(key.xts, firstLine, plaintext) : plaintext.slice();

/** What a reader with `key` makes of the DIMM's bytes. */
export const fromDimm = (key: MemoryKey, firstLine: number, stored: Uint8Array): Uint8Array =>
  key.xts ? xtsDecrypt(key.xts, firstLine, stored) : stored.slice();

/** Bits of the MAC that is kept with each line. */
export const MAC_BITS = 28;

/**
 * The line's MAC: 28 bits of SHA3-256 over the MAC key, the line's number, the TD-owner bit and the ciphertext.
 * Intel documents a 28-bit SHA-3-based MAC; what exactly goes in is not public.
 */
export function lineMac(key: MemoryKey, line: number, tdOwner: boolean, stored: Uint8Array): number {
  const input = new Uint8Array(16 + 8 + 1 + LINE_SIZE);
  input.set(key.mac);
  const view = new DataView(input.buffer);
  view.setBigUint64(16, BigInt(line), true);
  view.setUint8(24, tdOwner ? 1 : 0);
  input.set(stored, 25);
  return new DataView(sha3Sha256(input).buffer).getUint32(0, true) >>> (32 - MAC_BITS);
}
