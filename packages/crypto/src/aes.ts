/** AES-128 on whole blocks (FIPS 197), as modes of operation need it. */
import { ecb } from "@noble/ciphers/aes.js";
import { native } from "./platform.js";

/** A key; both functions take a multiple of 16 bytes and return as many. */
export interface Aes128 {
  encryptBlocks(data: Uint8Array): Uint8Array;
  decryptBlocks(data: Uint8Array): Uint8Array;
}

/** @throws RangeError unless the key has 16 bytes */
export function createAes128(key: Uint8Array): Aes128 {
  if (key.length !== 16) throw new RangeError(`an AES-128 key of ${key.length} bytes`);
  if (native) {
    // Without chaining and padding a cipher object keeps no state between whole blocks.
    const encrypt = native.createCipheriv("aes-128-ecb", key, null).setAutoPadding(false);
    const decrypt = native.createDecipheriv("aes-128-ecb", key, null).setAutoPadding(false);
    return { encryptBlocks: (data) => encrypt.update(data), decryptBlocks: (data) => decrypt.update(data) };
  }
  // The library's cipher objects are for one use.
  const copy = key.slice();
  return {
    encryptBlocks: (data) => ecb(copy, { disablePadding: true }).encrypt(data),
    decryptBlocks: (data) => ecb(copy, { disablePadding: true }).decrypt(data),
  };
}
