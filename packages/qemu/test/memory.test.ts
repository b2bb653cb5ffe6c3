import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FirmwareError, OptionError } from "../src/errors.js";
import { buildTdHob } from "../src/firmware/td-hob.js";
import { parseTdvf } from "../src/firmware/tdvf.js";
import { e820Table, encodeE820, layoutMemory, splitTdRam } from "../src/memory/memory-map.js";
import { goodSections, tdvfImage } from "./support/tdvf-image.js";

const MIB = 2 ** 20;
const tdvf = parseTdvf(tdvfImage(), "a.fd");

describe("layoutMemory", () => {
  it("splits RAM as QEMU's q35 does", () => {
    expect(layoutMemory(512 * MIB, 4 * MIB)).toEqual({
      below4g: { address: 0, length: 512 * MIB },
      above4g: { address: 2 ** 32, length: 0 },
      firmware: { address: 0xffc00000, length: 4 * MIB },
    });
    expect(layoutMemory(2815 * MIB, 4 * MIB).below4g.length).toBe(2815 * MIB);
    expect(layoutMemory(2816 * MIB, 4 * MIB).below4g.length).toBe(2048 * MIB);
    expect(layoutMemory(4096 * MIB, 4 * MIB).above4g.length).toBe(2048 * MIB);
  });
  it.each([0, 1, 31 * MIB, 64 * MIB + 1, 65 * 1024 * MIB, Number.NaN, -MIB])("refuses %d bytes", (bytes) => {
    expect(() => layoutMemory(bytes, 4 * MIB)).toThrow(OptionError);
  });
  it("encodes e820", () => {
    const bytes = encodeE820(e820Table(layoutMemory(4096 * MIB, 4 * MIB)));
    expect(Buffer.from(bytes).toString("hex")).toBe(
      "0000000000000000" +
        "0000008000000000" +
        "01000000" +
        "0000000001000000" +
        "0000008000000000" +
        "01000000",
    );
  });
});

describe("splitTdRam", () => {
  it("cuts the added sections out of RAM, sorted", () => {
    expect(
      splitTdRam(layoutMemory(64 * MIB, 0x20000), tdvf).map((r) => [r.address, r.address + r.length, r.type]),
    ).toEqual([
      [0, 0x800000, "UNACCEPTED"],
      [0x800000, 0x806000, "ADDED"],
      [0x806000, 0x809000, "UNACCEPTED"],
      [0x809000, 0x80b000, "ADDED"],
      [0x80b000, 0x80d000, "ADDED"],
      [0x80d000, 0x810000, "UNACCEPTED"],
      [0x810000, 0x820000, "ADDED"],
      [0x820000, 64 * MIB, "UNACCEPTED"],
    ]);
  });
  it("refuses a section outside RAM and a volume outside the firmware's memory", () => {
    const with2 = (gpa: number, i: number) => {
      const sections = goodSections();
      sections[i] = { ...sections[i], gpa };
      return parseTdvf(tdvfImage({ sections }), "b.fd");
    };
    const map = layoutMemory(64 * MIB, 0x20000);
    expect(() => splitTdRam(map, with2(64 * MIB, 2))).toThrow(FirmwareError);
    expect(() => splitTdRam(map, with2(64 * MIB - 4096, 2))).toThrow(
      /section 2 MemoryAddress: .* is not in RAM/,
    );
    expect(() => splitTdRam(map, with2(0x1000000, 0))).toThrow(
      /section 0 MemoryAddress: .* firmware's memory/,
    );
  });
  it("covers RAM exactly once, whatever is cut out", () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(255), { minLength: 1, maxLength: 20 }),
        fc.constantFrom(64, 3072, 8192),
        (blocks, mib) => {
          const sections = blocks.map((block, i) => ({
            gpa: block * 65536,
            memorySize: 65536,
            type: i === 0 ? 2 : 3,
          }));
          sections.push({ gpa: 17 * MIB, memorySize: 4096, type: 3 });
          const map = layoutMemory(mib * MIB, 0x20000);
          const ram = splitTdRam(map, parseTdvf(tdvfImage({ sections }), "c.fd"));
          let total = 0;
          ram.forEach((range, i) => {
            total += range.length;
            if (i > 0) expect(ram[i - 1].address + ram[i - 1].length).toBeLessThanOrEqual(range.address);
          });
          expect(total).toBe(mib * MIB);
          const added = ram
            .filter(({ type }) => type === "ADDED")
            .reduce((sum, { length }) => sum + length, 0);
          expect(added).toBe(blocks.length * 65536 + 4096);
        },
      ),
    );
  });
});

describe("buildTdHob", () => {
  it("is what QEMU builds", () => {
    const ram = [
      { address: 0, length: 0x800000, type: "UNACCEPTED" },
      { address: 0x800000, length: 0x6000, type: "ADDED" },
    ] as const;
    const u64 = (value: number) => Buffer.from(new BigUint64Array([BigInt(value)]).buffer).toString("hex");
    expect(Buffer.from(buildTdHob(tdvf, ram)).toString("hex")).toBe(
      "0100380000000000" +
        "0900000000000000" +
        u64(0).repeat(4) +
        u64(0x809000 + 56 + 96 + 8) +
        "0300300000000000" +
        "00".repeat(16) +
        "0700000007000000" +
        u64(0) +
        u64(0x800000) +
        "0300300000000000" +
        "00".repeat(16) +
        "0000000007000000" +
        u64(0x800000) +
        u64(0x6000) +
        "ffff080000000000",
    );
  });
  it("refuses more ranges than the section holds", () => {
    const ram = Array.from({ length: 200 }, (_, i) => ({
      address: i * 8192,
      length: 4096,
      type: "ADDED" as const,
    }));
    expect(() => buildTdHob(tdvf, ram)).toThrow(
      "a.fd: TD_HOB MemoryDataSize: 8192 bytes; the list of 200 memory ranges",
    );
  });
});
