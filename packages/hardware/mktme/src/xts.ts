/**
 * AES-XTS-128 (IEEE 1619-2018) over memory lines: the data unit is a 64-byte line, its sequence number the line's
 * number (HPA / 64), so that equal plaintext at two addresses has different ciphertext.
 */
import { type Aes128, createAes128 } from "@swtdx/crypto";

/** Bytes of a memory line: what is encrypted, authenticated and poisoned as one. */
export const LINE_SIZE = 64;
const BLOCK = 16;

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

/** Multiplies a tweak by x in GF(2^128), in place. */
function double(bytes: Uint8Array, at: number): void {
  let carry = 0;
  for (let i = 0; i < BLOCK; i++) {
    const value = bytes[at + i]!;
    bytes[at + i] = ((value << 1) | carry) & 0xff;
    carry = value >>> 7;
  }
  if (carry) bytes[at] = bytes[at]! ^ 0x87;
}

/** The tweaks of every block of `units` consecutive data units of `unitSize` bytes. */
function tweaks(key: XtsKey, firstUnit: number, units: number, unitSize: number): Uint8Array {
  const numbers = new Uint8Array(units * BLOCK);
  const view = new DataView(numbers.buffer);
  for (let i = 0; i < units; i++) view.setBigUint64(i * BLOCK, BigInt(firstUnit + i), true);
  const first = key.tweak.encryptBlocks(numbers);
  const out = new Uint8Array(units * unitSize);
  for (let unit = 0; unit < units; unit++) {
    const base = unit * unitSize;
    out.set(first.subarray(unit * BLOCK, (unit + 1) * BLOCK), base);
    for (let at = base + BLOCK; at < base + unitSize; at += BLOCK) {
      out.copyWithin(at, at - BLOCK, at);
      double(out, at);
    }
  }
  return out;
}

function xor(a: Uint8Array, b: Uint8Array): Uint8Array {
  const out = new Uint8Array(a.length);
  for (let i = 0; i < a.length; i++) out[i] = a[i]! ^ b[i]!;
  return out;
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
  const mask = tweaks(key, firstUnit, source.length / unitSize, unitSize);
  return xor(key.data.encryptBlocks(xor(source, mask)), mask);
}

/** The inverse of `xtsEncrypt`. */
export function xtsDecrypt(
  key: XtsKey,
  firstUnit: number,
  source: Uint8Array,
  unitSize = LINE_SIZE,
): Uint8Array {
  const mask = tweaks(key, firstUnit, source.length / unitSize, unitSize);
  return xor(key.data.decryptBlocks(xor(source, mask)), mask);
}
