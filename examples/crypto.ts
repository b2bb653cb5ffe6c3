/** Hashes, a MAC, a cipher, and chance that can be repeated: the platform's own implementations where it has them. */
import { createAes128, createSha384, hmacSha256, SeededRandom, sha384 } from "@swtdx/crypto";

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const hex = (bytes: Uint8Array): string => Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");

console.log("SHA-384(abc)  ", hex(sha384(text("abc"))));
// As an RTMR is extended: hash of the register and the digest.
const rtmr = createSha384();
rtmr.update(new Uint8Array(48));
rtmr.update(sha384(text("an event")));
console.log("RTMR          ", hex(rtmr.digest()));
console.log("HMAC-SHA-256  ", hex(hmacSha256(text("key"), text("report"))));

const key = Uint8Array.from({ length: 16 }, (_, i) => i);
const block = Uint8Array.from({ length: 16 }, (_, i) => i * 0x11);
console.log("AES-128       ", hex(createAes128(key).encryptBlocks(block)));

// The same seed gives the same platform, byte for byte; each part of it draws from a source of its own.
const seed = new SeededRandom(text("a seed"));
console.log("cpu, mktme    ", seed.fork("cpu").u64(), seed.fork("mktme").u64());
