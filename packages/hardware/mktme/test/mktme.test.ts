import { createCipheriv } from "node:crypto";
import { type Hpa, hpa, keyId, pfn } from "@swtdx/abi";
import { SeededRandom } from "@swtdx/crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  Arena,
  ArenaExhausted,
  createXtsKey,
  MemoryController,
  MemoryStatus,
  xtsDecrypt,
  xtsEncrypt,
} from "../src/index.js";
import { EagerMemory, type ModelKey } from "./eager-model.js";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const unhex = (text: string) => new Uint8Array(Buffer.from(text, "hex"));
const repeat = (byte: number, count: number) => new Uint8Array(count).fill(byte);
const random = (seed = "seed") => new SeededRandom(new TextEncoder().encode(seed));
const memory = (options: Partial<ConstructorParameters<typeof MemoryController>[1]> = {}) => {
  const controller = new MemoryController(new Arena({ residentBytes: 2 ** 22 }), {
    dramBytes: 2 ** 36,
    random: random(),
    ...options,
  });
  controller.activate({ mktmeKeyIds: 2, tdxKeyIds: 2 });
  return controller;
};
const SHARED = keyId(1);
const SHARED2 = keyId(2);
const PRIVATE = keyId(3);
const PRIVATE2 = keyId(4);
const TME = keyId(0);

describe("AES-XTS-128 (IEEE 1619-2018, annex B)", () => {
  it.each([
    // Vectors 1 to 3: one data unit of 32 bytes.
    [
      "00".repeat(16),
      "00".repeat(16),
      0,
      "00".repeat(32),
      "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e",
    ],
    [
      "11".repeat(16),
      "22".repeat(16),
      0x3333333333,
      "44".repeat(32),
      "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0",
    ],
    [
      "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0",
      "22".repeat(16),
      0x3333333333,
      "44".repeat(32),
      "af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89",
    ],
  ])("key %s %s, unit %i", (data, tweak, unit, plain, cipher) => {
    const key = createXtsKey(unhex(data), unhex(tweak));
    expect(hex(xtsEncrypt(key, unit, unhex(plain), 32))).toBe(cipher);
    expect(hex(xtsDecrypt(key, unit, unhex(cipher), 32))).toBe(plain);
  });

  it("vector 4: a data unit of 512 bytes", () => {
    const key = createXtsKey(
      unhex("27182818284590452353602874713526"),
      unhex("31415926535897932384626433832795"),
    );
    const plain = Uint8Array.from({ length: 512 }, (_, i) => i & 0xff);
    const cipher = hex(xtsEncrypt(key, 0, plain, 512));
    expect(cipher.slice(0, 128)).toBe(
      "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c" +
        "c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412",
    );
    expect(cipher.slice(-32)).toBe("0a282df920147beabe421ee5319d0568");
    expect(xtsDecrypt(key, 0, unhex(cipher), 512)).toEqual(plain);
  });

  it("equals OpenSSL on any lines", () => {
    const key = fc.uint8Array({ minLength: 16, maxLength: 16 });
    const lines = fc.integer({ min: 1, max: 5 });
    fc.assert(
      fc.property(key, key, fc.nat(2 ** 40), lines, fc.nat(255), (data, tweak, first, count, byte) => {
        // OpenSSL refuses equal halves.
        fc.pre(hex(data) !== hex(tweak));
        const plain = Uint8Array.from({ length: 64 * count }, (_, i) => (i * 31 + byte) & 0xff);
        const expected = Array.from({ length: count }, (_, i) => {
          const iv = Buffer.alloc(16);
          iv.writeBigUInt64LE(BigInt(first + i));
          const cipher = createCipheriv("aes-128-xts", Buffer.concat([data, tweak]), iv);
          return hex(cipher.update(plain.subarray(i * 64, (i + 1) * 64)));
        });
        const sealed = xtsEncrypt(createXtsKey(data, tweak), first, plain);
        expect(hex(sealed)).toBe(expected.join(""));
        expect(xtsDecrypt(createXtsKey(data, tweak), first, sealed)).toEqual(plain);
      }),
    );
  });
});

describe("Arena", () => {
  it("gives aligned, zeroed memory and says when there is no more", () => {
    const arena = new Arena({ residentBytes: 0x1_0000 });
    expect(arena.reserve(10, 64) % 64).toBe(0);
    const frames = Array.from({ length: 14 }, () => arena.allocFrame());
    expect(frames.every((offset) => offset % 4096 === 0)).toBe(true);
    expect(() => arena.allocFrame()).toThrow(ArenaExhausted);
    arena.u8.fill(7, frames[0], frames[0] + 4096);
    arena.freeFrame(frames[0]);
    expect(arena.u8[arena.allocFrame()]).toBe(0);
  });
});

describe("encryption", () => {
  it("hides what was written: the DIMM holds ciphertext, another KeyID does not read it", () => {
    const controller = memory({ tdOwnedRead: "ciphertext" });
    controller.programRandomKey(PRIVATE);
    const secret = new TextEncoder().encode(
      "attack at dawn, says the trust domain, sixty-four bytes of secret",
    );
    const page = repeat(0, 4096);
    page.set(secret);
    controller.write(hpa(0x5000), PRIVATE, page);
    const back = new Uint8Array(secret.length);
    expect(controller.read(hpa(0x5000), PRIVATE, back)).toBe(MemoryStatus.OK);
    expect(back).toEqual(secret);
    expect(Buffer.from(controller.probe(hpa(0x5000), 4096)).includes("attack")).toBe(false);
    expect(controller.read(hpa(0x5000), TME, back)).toBe(MemoryStatus.OK);
    expect(Buffer.from(back).includes("attack")).toBe(false);
    expect(hex(back)).not.toBe("00".repeat(back.length));
  });

  it("a shared KeyID reads zeros of TD-owned lines, without poison", () => {
    const controller = memory();
    controller.programRandomKey(PRIVATE);
    controller.write(hpa(0), PRIVATE, repeat(9, 4096));
    const back = repeat(1, 64);
    expect(controller.read(hpa(0), SHARED, back)).toBe(MemoryStatus.OK);
    expect(hex(back)).toBe("00".repeat(64));
    expect(controller.read(hpa(0), PRIVATE, back)).toBe(MemoryStatus.OK);
    expect(hex(back)).toBe("09".repeat(64));
  });

  it("what was written under a KeyID stays under its key when the KeyID is programmed anew", () => {
    const controller = memory();
    controller.programRandomKey(SHARED);
    controller.write(hpa(0), SHARED, repeat(5, 4096));
    const before = hex(controller.probe(hpa(0), 4096));
    const changed: number[] = [];
    controller.onFrameChange((frame) => changed.push(frame));
    controller.programRandomKey(SHARED);
    expect(changed).toEqual([0]);
    expect(hex(controller.probe(hpa(0), 4096))).toBe(before);
    expect(controller.frameForRead(pfn(0), SHARED)).toBe(-1);
    const back = new Uint8Array(64);
    controller.read(hpa(0), SHARED, back);
    expect(hex(back)).not.toBe("05".repeat(64));
  });

  it("equal plaintext at two addresses has different ciphertext", () => {
    const controller = memory();
    controller.write(hpa(0), TME, repeat(5, 8192));
    expect(hex(controller.probe(hpa(0), 64))).not.toBe(hex(controller.probe(hpa(64), 64)));
    expect(hex(controller.probe(hpa(0), 64))).not.toBe(hex(controller.probe(hpa(4096), 64)));
  });

  it("a KeyID without encryption stores plaintext", () => {
    const controller = memory();
    controller.programKey(SHARED2, { mode: "none" });
    controller.write(hpa(0), SHARED2, repeat(5, 64));
    expect(hex(controller.probe(hpa(0), 64))).toBe("05".repeat(64));
  });
});

describe("integrity", () => {
  it.each(["logical", "cryptographic"] as const)(
    "%s: the host's write is poison to the TD, a whole line heals",
    (integrity) => {
      const controller = memory({ integrity });
      controller.programRandomKey(PRIVATE);
      controller.write(hpa(0), PRIVATE, repeat(5, 4096));
      controller.write(hpa(64), TME, repeat(1, 8));
      const back = new Uint8Array(4096);
      expect(controller.read(hpa(0), PRIVATE, back)).toBe(MemoryStatus.POISON);
      expect(controller.read(hpa(0), PRIVATE, back.subarray(0, 64))).toBe(MemoryStatus.OK);
      expect(controller.write(hpa(64), PRIVATE, repeat(2, 8))).toBe(MemoryStatus.POISON);
      expect(controller.write(hpa(64), PRIVATE, repeat(6, 64))).toBe(MemoryStatus.OK);
      expect(controller.read(hpa(0), PRIVATE, back)).toBe(MemoryStatus.OK);
      expect(controller.frameForRead(pfn(0), PRIVATE)).toBeGreaterThan(0);
    },
  );

  it("poison stays with the line, for readers under any KeyID, until it is written whole", () => {
    const controller = memory();
    controller.programRandomKey(PRIVATE);
    controller.write(hpa(0), TME, repeat(7, 4096));
    const changed: number[] = [];
    controller.onFrameChange((frame) => changed.push(frame));
    const back = repeat(1, 64);
    expect(controller.read(hpa(64), PRIVATE, back)).toBe(MemoryStatus.POISON);
    expect(hex(back)).toBe("00".repeat(64));
    expect(changed).toEqual([0]);
    expect(controller.frameForRead(pfn(0), TME)).toBe(-1);
    expect(controller.read(hpa(64), TME, back)).toBe(MemoryStatus.POISON);
    expect(controller.dimmReadLine(hpa(64))).toMatchObject({ poison: true, tdOwner: false });
    expect(controller.read(hpa(0), TME, back)).toBe(MemoryStatus.OK);
    expect(controller.write(hpa(64), TME, repeat(8, 64))).toBe(MemoryStatus.OK);
    expect(controller.read(hpa(64), TME, back)).toBe(MemoryStatus.OK);
    expect(controller.frameForRead(pfn(0), TME)).toBeGreaterThan(0);
  });

  it("another private key: garbage under logical integrity, poison under cryptographic", () => {
    for (const integrity of ["logical", "cryptographic"] as const) {
      const controller = memory({ integrity });
      controller.programRandomKey(PRIVATE);
      controller.programRandomKey(PRIVATE2);
      controller.write(hpa(0), PRIVATE, repeat(5, 4096));
      const back = new Uint8Array(64);
      const status = controller.read(hpa(0), PRIVATE2, back);
      expect(status).toBe(integrity === "logical" ? MemoryStatus.OK : MemoryStatus.POISON);
      expect(hex(back)).not.toBe("05".repeat(64));
    }
  });

  it("tampering at the DIMM is seen only by the MAC; replay is not seen", () => {
    for (const integrity of ["logical", "cryptographic"] as const) {
      const controller = memory({ integrity });
      controller.programRandomKey(PRIVATE);
      controller.write(hpa(0), PRIVATE, repeat(5, 4096));
      const old = controller.dimmReadLine(hpa(0));
      controller.write(hpa(0), PRIVATE, repeat(6, 4096));
      const tampered = controller.dimmReadLine(hpa(64));
      tampered.data[3] ^= 1;
      controller.dimmWriteLine(hpa(64), tampered);
      controller.dimmWriteLine(hpa(0), old);
      const back = new Uint8Array(64);
      expect(controller.read(hpa(64), PRIVATE, back)).toBe(integrity === "logical" ? 0 : 1);
      expect(controller.read(hpa(0), PRIVATE, back)).toBe(MemoryStatus.OK);
      expect(hex(back)).toBe("05".repeat(64));
    }
  });

  it("an injected error is poison until the line is written whole", () => {
    const controller = memory();
    controller.write(hpa(0), TME, repeat(5, 4096));
    controller.poison(hpa(128));
    const back = new Uint8Array(8);
    expect(controller.read(hpa(130), TME, back)).toBe(MemoryStatus.POISON);
    expect(controller.write(hpa(130), TME, back)).toBe(MemoryStatus.POISON);
    controller.write(hpa(128), TME, repeat(1, 64));
    expect(controller.read(hpa(130), TME, back)).toBe(MemoryStatus.OK);
  });
});

describe("pages of zeros", () => {
  const REGION = 2 ** 21;
  const PAGES = REGION / 4096;

  it("take no frame, give theirs back, and are their KeyID's", () => {
    const controller = memory();
    controller.programRandomKey(PRIVATE);
    controller.write(hpa(REGION), TME, repeat(7, 3 * 4096));
    expect(controller.arena.frames).toBe(3);
    const changed: number[] = [];
    controller.onFrameChange((frame) => changed.push(frame));
    controller.zeroPages(pfn(PAGES), PAGES, PRIVATE);
    expect(changed).toEqual([PAGES, PAGES + 1, PAGES + 2]);
    expect(controller.arena.frames).toBe(0);
    expect(controller.residentFrames()).toEqual([]);
    const back = repeat(1, REGION);
    expect(controller.read(hpa(REGION), PRIVATE, back)).toBe(MemoryStatus.OK);
    expect(back.every((byte) => byte === 0)).toBe(true);
    // They are written, not absent: TD-owned, and ciphertext on the DIMM.
    expect(controller.dimmReadLine(hpa(2 * REGION - 64))).toMatchObject({ tdOwner: true, poison: false });
    expect(hex(controller.probe(hpa(2 * REGION - 64), 64))).not.toBe(hex(controller.probe(hpa(0), 64)));
    expect(controller.read(hpa(2 * REGION), PRIVATE, back.subarray(0, 64))).toBe(MemoryStatus.POISON);
  });

  it("become resident one by one when somebody writes", () => {
    const controller = memory();
    controller.programRandomKey(PRIVATE);
    controller.zeroPages(pfn(0), PAGES, PRIVATE);
    expect(controller.frameForRead(pfn(5), PRIVATE)).toBe(-1);
    expect(controller.frameForWrite(pfn(5), TME)).toBe(-1);
    const offset = controller.frameForWrite(pfn(5), PRIVATE);
    expect(offset).toBeGreaterThan(0);
    expect(controller.frameForRead(pfn(5), PRIVATE)).toBe(offset);
    controller.write(hpa(0x6008), PRIVATE, repeat(3, 8));
    expect(controller.arena.frames).toBe(2);
    expect(controller.residentFrames()).toEqual([5, 6]);
    controller.zeroPages(pfn(5), 1, TME);
    expect(controller.arena.frames).toBe(1);
    expect(controller.read(hpa(0x5000), PRIVATE, new Uint8Array(8))).toBe(MemoryStatus.POISON);
  });
});

describe("address space", () => {
  it("is sparse up to 64 GiB; past the end reads are ones and writes dropped", () => {
    const controller = memory();
    const top = hpa(2 ** 36 - 64);
    controller.write(top, TME, repeat(5, 128));
    const back = new Uint8Array(128);
    expect(controller.read(top, TME, back)).toBe(MemoryStatus.OK);
    expect(hex(back)).toBe("05".repeat(64) + "ff".repeat(64));
    expect(controller.arena.frames).toBe(1);
  });
  it("refuses sizes and KeyIDs that do not exist", () => {
    expect(() => memory({ dramBytes: 2 ** 37 })).toThrow(RangeError);
    expect(() => memory({ dramBytes: 100 })).toThrow(RangeError);
    expect(() => memory().programRandomKey(TME)).toThrow(RangeError);
    expect(() => memory().programRandomKey(keyId(5))).toThrow(RangeError);
    expect(() => memory({ dramBytes: 4096 }).poison(hpa(4096))).toThrow(RangeError);
    expect(() => memory({ dramBytes: 4096 }).dimmReadLine(hpa(4096))).toThrow(RangeError);
  });
});

/** Operations on two pages, so that lines are hit by several keys. */
const operation = fc.oneof(
  fc.record({
    op: fc.constant("write" as const),
    at: fc.oneof(
      fc.nat(8191),
      fc.nat(127).map((line) => line * 64),
    ),
    length: fc.oneof(fc.constantFrom(8, 64, 128, 4096), fc.nat(200)),
    key: fc.nat(4),
    byte: fc.nat(255),
  }),
  fc.record({ op: fc.constant("read" as const), at: fc.nat(8191), length: fc.nat(300), key: fc.nat(4) }),
  fc.record({ op: fc.constant("zero" as const), first: fc.nat(1), count: fc.nat(2), key: fc.nat(4) }),
  fc.record({ op: fc.constant("probe" as const), at: fc.nat(8191), length: fc.nat(300) }),
  fc.record({ op: fc.constant("program" as const), key: fc.integer({ min: 1, max: 4 }), byte: fc.nat(255) }),
  fc.record({ op: fc.constant("tamper" as const), line: fc.nat(127), byte: fc.nat(63) }),
);

describe("the lazy controller equals an eager cipher", () => {
  it.each([
    ["logical", "ciphertext"],
    ["logical", "zeros"],
    ["cryptographic", "ciphertext"],
    ["cryptographic", "zeros"],
  ] as const)("%s integrity, %s", (integrity, tdOwnedRead) => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 40 }), (operations) => {
        const controller = new MemoryController(new Arena({ residentBytes: 2 ** 17 }), {
          dramBytes: 8192,
          integrity,
          tdOwnedRead,
          random: random(),
        });
        controller.activate({ mktmeKeyIds: 2, tdxKeyIds: 2 });
        // The controller's draws in their order: TME's data and tweak keys, then the MAC key.
        const draws = random().fork("mktme");
        const tme: ModelKey = { data: draws.bytes(16), tweak: draws.bytes(16), isPrivate: false };
        const keys: ModelKey[] = [0, 1, 2, 3, 4].map((id) => ({ ...tme, isPrivate: id > 2 }));
        const cryptographic = integrity === "cryptographic";
        const model = new EagerMemory(tme, draws.bytes(16), cryptographic, tdOwnedRead === "zeros");
        for (const step of operations) {
          if (step.op === "program") {
            const material = { data: repeat(step.byte, 16), tweak: repeat(step.byte ^ 0xff, 16) };
            controller.programKey(keyId(step.key), {
              mode: "encrypt",
              dataKey: material.data,
              tweakKey: material.tweak,
            });
            keys[step.key] = { ...material, isPrivate: step.key > 2 };
          } else if (step.op === "tamper") {
            const stored = controller.dimmReadLine(hpa(step.line * 64));
            stored.data[step.byte] ^= 0x10;
            stored.poison = false;
            controller.dimmWriteLine(hpa(step.line * 64), stored);
            const cipher = model.line(step.line).cipher.slice();
            cipher[step.byte] ^= 0x10;
            model.setLine(step.line, { ...model.line(step.line), cipher, poisoned: false });
          } else if (step.op === "zero") {
            controller.zeroPages(pfn(step.first), step.count, keyId(step.key));
            const end = Math.min(step.first + step.count, 2);
            for (let line = step.first * 64; line < end * 64; line++)
              model.writeLine(line, keys[step.key], 0, repeat(0, 64));
          } else {
            const length = Math.min(step.length, 8192 - step.at);
            const pieces = split(step.at, length);
            if (step.op === "write") {
              const bytes = repeat(step.byte, length);
              const status = controller.write(step.at as Hpa, keyId(step.key), bytes);
              const met = pieces.map(([line, offset, count]) =>
                model.writeLine(line, keys[step.key], offset, bytes.subarray(0, count)),
              );
              expect(status).toBe(met.some(Boolean) ? 1 : 0);
            } else if (step.op === "read") {
              const bytes = new Uint8Array(length);
              const status = controller.read(step.at as Hpa, keyId(step.key), bytes);
              const parts = pieces.map(([line, offset, count]) => {
                const content = model.readLine(line, keys[step.key]);
                return content ? content.subarray(offset, offset + count) : null;
              });
              expect(status).toBe(parts.includes(null) ? 1 : 0);
              expect(hex(bytes)).toBe(parts.map((part, i) => hex(part ?? repeat(0, pieces[i][2]))).join(""));
            } else {
              const expected = pieces.map(([line, offset, count]) =>
                hex(model.line(line).cipher.subarray(offset, offset + count)),
              );
              expect(hex(controller.probe(step.at as Hpa, length))).toBe(expected.join(""));
            }
          }
        }
      }),
      { numRuns: 60 },
    );
  });
});

/** [line, offset in line, count] of each line that a range touches. */
function split(at: number, length: number): [number, number, number][] {
  const out: [number, number, number][] = [];
  for (let done = 0; done < length;) {
    const offset = (at + done) % 64;
    const count = Math.min(64 - offset, length - done);
    out.push([Math.floor((at + done) / 64), offset, count]);
    done += count;
  }
  return out;
}
