/**
 * AES-XTS-128 (IEEE 1619-2018) over memory lines: the data unit is a 64-byte line, its sequence number the line's
 * number (HPA / 64), so that equal plaintext at two addresses has different ciphertext.
 */
import { type Aes128, createAes128 } from "@swtdx/crypto";

/** Bytes of a memory line: what is encrypted, authenticated and poisoned as one. */
export const LINE_SIZE = 64;
/** Bytes of an AES block, and of a tweak. */
export const XTS_BLOCK = 16;
const BLOCK = XTS_BLOCK;
const WORDS = BLOCK / 4;

/** The two halves of an XTS key. */
export interface XtsKey {
  data: Aes128;
  tweak: Aes128;
}

/** @param dataKey 16 bytes @param tweakKey 16 bytes */
export const createXtsKey = (dataKey: Uint8Array, tweakKey: Uint8Array): XtsKey => ({
  data: createAes128(dataKey),
  tweak: createAes128(tweakKey),
});

/** Writes a data unit's number as a block, little-endian. */
function setNumber(words: Uint32Array, at: number, unit: number): void {
  words[at] = unit;
  words[at + 1] = unit / 2 ** 32;
}

/** The tweak of a data unit's first block: the unit's number under the tweak key. */
export function xtsTweak(key: XtsKey, unit: number): Uint8Array {
  const number = new Uint32Array(WORDS);
  setNumber(number, 0, unit);
  return key.tweak.encryptBlocks(new Uint8Array(number.buffer));
}

/** The tweaks of every block of `units` consecutive data units of `blocks` blocks, as 32-bit words. */
function tweaks(key: XtsKey, firstUnit: number, units: number, blocks: number): Uint32Array {
  const numbers = new Uint32Array(units * WORDS);
  for (let i = 0; i < units; i++) setNumber(numbers, i * WORDS, firstUnit + i);
  const first = toWords(key.tweak.encryptBlocks(new Uint8Array(numbers.buffer)));
  const out = new Uint32Array(units * blocks * WORDS);
  for (let unit = 0, at = 0; unit < units; unit++) {
    let w0 = first[unit * WORDS];
    let w1 = first[unit * WORDS + 1];
    let w2 = first[unit * WORDS + 2];
    let w3 = first[unit * WORDS + 3];
    for (let block = 0; block < blocks; block++, at += WORDS) {
      out[at] = w0;
      out[at + 1] = w1;
      out[at + 2] = w2;
      out[at + 3] = w3;
      // Times x in GF(2^128).
      const carry = w3 >>> 31;
      w3 = (w3 << 1) | (w2 >>> 31);
      w2 = (w2 << 1) | (w1 >>> 31);
      w1 = (w1 << 1) | (w0 >>> 31);
      w0 = (w0 << 1) ^ (carry * 0x87);
    }
  }
  return out;
}

/** A copy as words: the source may start at any address. */
function toWords(source: Uint8Array): Uint32Array {
  const out = new Uint32Array(source.length / 4);
  new Uint8Array(out.buffer).set(source);
  return out;
}

/** `source` XOR `mask`. */
function masked(source: Uint8Array, mask: Uint32Array): Uint8Array {
  const words = toWords(source);
  for (let i = 0; i < words.length; i++) words[i] ^= mask[i];
  return new Uint8Array(words.buffer);
}

/**
 * Encrypts consecutive data units. `source` holds a multiple of `unitSize` bytes, itself a multiple of 16.
 * @param firstUnit sequence number of the first one
 */
export function xtsEncrypt(
  key: XtsKey,
  firstUnit: number,
  source: Uint8Array,
  unitSize = LINE_SIZE,
): Uint8Array {
  const mask = tweaks(key, firstUnit, source.length / unitSize, unitSize / BLOCK);
  return masked(key.data.encryptBlocks(masked(source, mask)), mask);
}

/** The inverse of `xtsEncrypt`. */
export function xtsDecrypt(
  key: XtsKey,
  firstUnit: number,
  source: Uint8Array,
  unitSize = LINE_SIZE,
): Uint8Array {
  const mask = tweaks(key, firstUnit, source.length / unitSize, unitSize / BLOCK);
  return masked(key.data.decryptBlocks(masked(source, mask)), mask);
}
