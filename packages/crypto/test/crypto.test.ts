/** Published vectors, and the platform's implementation against the library's. */
import { ecb } from "@noble/ciphers/aes.js";
import { sha384 as nobleSha384 } from "@noble/hashes/sha2.js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createAes128, createSha384, hmacSha256, SeededRandom, sha256, sha384 } from "../src/index.js";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const unhex = (text: string) => new Uint8Array(Buffer.from(text, "hex"));
const ascii = (text: string) => new TextEncoder().encode(text);

describe("SHA-2 (FIPS 180-4 examples)", () => {
  it("SHA-384 of abc", () => {
    const expected =
      "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7";
    expect(hex(sha384(ascii("abc")))).toBe(expected);
    const hash = createSha384();
    hash.update(ascii("a"));
    hash.update(ascii("bc"));
    expect(hex(hash.digest())).toBe(expected);
  });
  it("SHA-256 of abc", () => {
    expect(hex(sha256(ascii("abc")))).toBe(
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    );
  });
  it("equals the library on any bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), (data) => hex(sha384(data)) === hex(nobleSha384(data))),
    );
  });
});

it("HMAC-SHA-256 (RFC 4231, test case 2)", () => {
  expect(hex(hmacSha256(ascii("Jefe"), ascii("what do ya want for nothing?")))).toBe(
    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
  );
});

describe("AES-128", () => {
  it("FIPS 197, appendix C.1", () => {
    const aes = createAes128(unhex("000102030405060708090a0b0c0d0e0f"));
    const cipher = aes.encryptBlocks(unhex("00112233445566778899aabbccddeeff"));
    expect(hex(cipher)).toBe("69c4e0d86a7b0430d8cdb78070b4c55a");
    expect(hex(aes.decryptBlocks(cipher))).toBe("00112233445566778899aabbccddeeff");
  });
  it("equals the library on any blocks, call after call", () => {
    const key = unhex("2b7e151628aed2a6abf7158809cf4f3c");
    const aes = createAes128(key);
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 64, maxLength: 64 }), (data) => {
        expect(hex(aes.encryptBlocks(data))).toBe(hex(ecb(key, { disablePadding: true }).encrypt(data)));
        expect(hex(aes.decryptBlocks(data))).toBe(hex(ecb(key, { disablePadding: true }).decrypt(data)));
      }),
    );
  });
  it("refuses other key sizes", () => {
    expect(() => createAes128(new Uint8Array(32))).toThrow(RangeError);
  });
});

describe("SeededRandom", () => {
  it("gives the same bytes for the same seed, however they are drawn", () => {
    const one = new SeededRandom(ascii("seed"));
    const two = new SeededRandom(ascii("seed"));
    const parts = [one.bytes(5), one.bytes(5000), one.bytes(1)];
    expect(hex(two.bytes(5006))).toBe(parts.map(hex).join(""));
  });
  it("forks do not depend on what else was drawn", () => {
    const one = new SeededRandom(ascii("seed"));
    one.u64();
    const two = new SeededRandom(ascii("seed"));
    expect(one.fork("cpu").u64()).toBe(two.fork("cpu").u64());
    expect(one.fork("cpu").u64()).not.toBe(one.fork("mktme").u64());
  });
});
