/** Published vectors, and the platform's implementation against the library's. */
import { ecb } from "@noble/ciphers/aes.js";
import { sha384 as nobleSha384 } from "@noble/hashes/sha2.js";
import fc from "fast-check";
import { afterEach, describe, expect, it, vi } from "vitest";
import {
  createAes128,
  createSha384,
  hmacSha256,
  SeededRandom,
  sha256,
  sha384,
  sha3Sha256,
} from "../src/index.js";

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
  it("SHA-384 of two blocks", () => {
    const message =
      "abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu";
    expect(hex(sha384(ascii(message)))).toBe(
      "09330c33f71147e83d192fc782cd1b4753111b173b3b05d22fa08086e3b0f712fcc7c71a557e2db966c3e9fa91746039",
    );
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

it("SHA3-256 of abc (FIPS 202 examples)", () => {
  expect(hex(sha3Sha256(ascii("abc")))).toBe(
    "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
  );
});

const RFC_4231 = [
  [
    "1",
    "0b".repeat(20),
    hex(ascii("Hi There")),
    "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
  ],
  [
    "2",
    hex(ascii("Jefe")),
    hex(ascii("what do ya want for nothing?")),
    "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
  ],
  ["3", "aa".repeat(20), "dd".repeat(50), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"],
  [
    "6",
    "aa".repeat(131),
    hex(ascii("Test Using Larger Than Block-Size Key - Hash Key First")),
    "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
  ],
] as const;
it.each(RFC_4231)("HMAC-SHA-256 (RFC 4231, test case %s)", (_, key, data, expected) => {
  expect(hex(hmacSha256(unhex(key), unhex(data)))).toBe(expected);
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

describe("without the platform's crypto, as in a browser", () => {
  afterEach(() => {
    vi.restoreAllMocks();
    vi.resetModules();
  });
  it("everything gives the same bytes", async () => {
    const key = unhex("000102030405060708090a0b0c0d0e0f");
    const draw = (source: SeededRandom) => hex(source.fork("mktme").bytes(100));
    vi.spyOn(process, "getBuiltinModule").mockReturnValue(undefined);
    vi.resetModules();
    const bare = await import("../src/index.js");
    expect((await import("../src/platform.js")).native).toBeNull();
    const hash = bare.createSha384();
    hash.update(ascii("abc"));
    expect(hex(hash.digest())).toBe(hex(sha384(ascii("abc"))));
    expect(hex(bare.sha384(ascii("abc")))).toBe(hex(sha384(ascii("abc"))));
    expect(hex(bare.sha256(key))).toBe(hex(sha256(key)));
    for (const [, macKey, data, expected] of RFC_4231)
      expect(hex(bare.hmacSha256(unhex(macKey), unhex(data)))).toBe(expected);
    const aes = bare.createAes128(key);
    const blocks = new Uint8Array(64).fill(7);
    const sealed = aes.encryptBlocks(blocks);
    expect(hex(sealed)).toBe(hex(createAes128(key).encryptBlocks(blocks)));
    expect(hex(aes.decryptBlocks(sealed))).toBe(hex(blocks));
    expect(draw(new bare.SeededRandom(key))).toBe(draw(new SeededRandom(key)));
  });
});
