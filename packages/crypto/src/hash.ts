/** SHA-256, SHA-384 (FIPS 180-4) and HMAC-SHA-256 (FIPS 198-1). */
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 as nobleSha256, sha384 as nobleSha384 } from "@noble/hashes/sha2.js";
import { native } from "./platform.js";

/** A hash that is fed piece by piece; `digest` ends it. */
export interface IncrementalHash {
  update(data: Uint8Array): void;
  digest(): Uint8Array;
}

const plain = (bytes: Uint8Array): Uint8Array =>
  new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function create(algorithm: string, fallback: () => IncrementalHash): IncrementalHash {
  if (!native) return fallback();
  const hash = native.createHash(algorithm);
  return { update: (data) => void hash.update(data), digest: () => plain(hash.digest()) };
}

export const createSha384 = (): IncrementalHash => create("sha384", () => nobleSha384.create());
export const createSha256 = (): IncrementalHash => create("sha256", () => nobleSha256.create());

/** 48 bytes. */
export const sha384 = (data: Uint8Array): Uint8Array =>
  native ? plain(native.createHash("sha384").update(data).digest()) : nobleSha384(data);
/** 32 bytes. */
export const sha256 = (data: Uint8Array): Uint8Array =>
  native ? plain(native.createHash("sha256").update(data).digest()) : nobleSha256(data);
/** 32 bytes. */
export const hmacSha256 = (key: Uint8Array, data: Uint8Array): Uint8Array =>
  native ? plain(native.createHmac("sha256", key).update(data).digest()) : hmac(nobleSha256, key, data);
