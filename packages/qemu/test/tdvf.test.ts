import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FirmwareError } from "../src/errors.js";
import { parseTdvf, type Tdvf } from "../src/firmware/tdvf.js";
import { layoutMemory, splitTdRam } from "../src/memory/memory-map.js";
import { mrtdOfSections } from "../../../tools/mrtd-oracle.mjs";
import { debianImages } from "./support/debian-images.js";
import { goodSections, type ImageOptions, type RawSection, tdvfImage } from "./support/tdvf-image.js";

const measured = (tdvf: Tdvf) =>
  tdvf.sections.map((section) => ({
    gpa: section.memoryAddress,
    memorySize: section.memoryDataSize,
    data: tdvf.image.subarray(section.dataOffset, section.dataOffset + section.rawDataSize),
    extend: section.measured,
  }));

describe("Debian's images, where SWTDX_IMAGES names the folder that has them", () => {
  it("parse and have the MRTD that an independent calculator gives", () => {
    for (const { path, image, descriptor, mrtd } of debianImages) {
      const tdvf = parseTdvf(image, path);
      expect(tdvf.descriptorOffset).toBe(descriptor);
      expect(mrtdOfSections(measured(tdvf))).toBe(mrtd);
    }
  });
});

describe("parseTdvf", () => {
  it("reads the sections in the descriptor's order", () => {
    const tdvf = parseTdvf(tdvfImage(), "a.fd");
    expect(tdvf.descriptorOffset).toBe(0x20000 - 0xa00);
    expect(tdvf.sections.map(({ type }) => type)).toEqual([
      "BFV",
      "CFV",
      "TEMP_MEM",
      "TEMP_MEM",
      "TD_HOB",
      "TEMP_MEM",
    ]);
    expect(tdvf.sections[0]).toEqual({
      type: "BFV",
      dataOffset: 0x10000,
      rawDataSize: 0x10000,
      memoryAddress: 0xffff0000,
      memoryDataSize: 0x10000,
      attributes: 1,
      measured: true,
    });
    expect(tdvf.tdHob.memoryAddress).toBe(0x809000);
  });

  const change = (i: number, part: Partial<RawSection>): ImageOptions => {
    const sections = goodSections();
    sections[i] = { ...sections[i], ...part };
    return { sections };
  };
  const bad: [string, ImageOptions, string][] = [
    ["no footer", { footerGuid: "00000000-0000-0000-0000-000000000000" }, "a.fd: OVMF table: no TDVF image"],
    [
      "no metadata entry",
      { entryGuid: "00000000-0000-0000-0000-000000000000" },
      "a.fd: OVMF table: no TDX metadata",
    ],
    ["table length 0", { tableLength: 0 }, "a.fd: OVMF table length: 0 bytes"],
    [
      "table too long",
      { size: 0x10000, sections: goodSections(0x20000), tableLength: 0xffff },
      "OVMF table length: 65535",
    ],
    ["entry too long", { entryLength: 4000 }, "OVMF table entry length: 4000"],
    ["entry without data", { entryLength: 18 }, "TDX metadata offset: 0 bytes of data"],
    ["offset outside", { offset: 0x20001 }, "TDX metadata offset: 0x20001"],
    ["offset at the end", { offset: 8 }, "TDX metadata offset: 0x8"],
    ["signature", { signature: "TDVG" }, 'Signature: 0x47564454; "TDVF"'],
    ["length past the end", { length: 0xa01 }, "Length: 2561 bytes of metadata; 2560"],
    ["version", { version: 2 }, "Version: 2; only 1"],
    ["one section", { sections: goodSections().slice(0, 1) }, "NumberOfSectionEntries: 1"],
    ["length and count disagree", { count: 5 }, "Length: 208 bytes; 5 sections make 176"],
    ["count overflows", { count: 0xffffffff }, "Length: 208 bytes; 4294967295 sections"],
    ["memory less than data", change(0, { memorySize: 0xf000 }), "section 0 MemoryDataSize: 0xf000 is less"],
    ["unaligned address", change(2, { gpa: 0x810800 }), "section 2 MemoryAddress: 0x810800"],
    ["unaligned size", change(2, { memorySize: 0x10001 }), "section 2 MemoryDataSize: 0x10001"],
    ["empty memory", change(2, { memorySize: 0 }), "section 2 MemoryDataSize: 0"],
    ["BFV without data", change(0, { rawSize: 0 }), "section 0 RawDataSize: 0"],
    ["CFV without data", change(1, { rawSize: 0 }), "section 1 RawDataSize: 0"],
    ["TD_HOB with data", change(4, { rawSize: 16 }), "section 4 RawDataSize: 0x10"],
    ["TEMP_MEM with data", change(3, { rawSize: 4096 }), "section 3 RawDataSize: 0x1000"],
    ["TD-Shim's type", change(3, { type: 4 }), "section 3 Type: 4 (PERM_MEM)"],
    ["unknown type", change(3, { type: 99 }), "section 3 Type: 99;"],
    ["data outside the image", change(0, { dataOffset: 0x18000 }), "section 0 DataOffset: 0x18000"],
    [
      "data not at a page",
      change(1, { dataOffset: 0x10 }),
      "section 1 DataOffset: 0x10; a multiple of 0x1000",
    ],
    ["address wraps", change(2, { gpa: 0xfffffffffffff000n }), "section 2 MemoryAddress"],
    ["overlap", change(3, { gpa: 0x80a000 }), "section 3 MemoryAddress: 0x80a000 overlaps section 4"],
    ["two TD HOBs", change(3, { type: 2 }), "Type: 2 sections of type TD_HOB"],
    ["no TD HOB", change(4, { type: 3 }), "Type: 0 sections of type TD_HOB"],
  ];
  it.each(bad)("refuses: %s", (_name, options, message) => {
    let error: unknown;
    try {
      parseTdvf(tdvfImage(options), "a.fd");
    } catch (caught) {
      error = caught;
    }
    expect(error).toBeInstanceOf(FirmwareError);
    expect((error as Error).message).toContain(message);
    expect((error as Error).message).not.toContain("\n");
  });
  it.each([0, 1, 47, 65535, 65537, 17 * 2 ** 20])("refuses a file of %i bytes", (size) => {
    expect(() => parseTdvf(new Uint8Array(size), "a.fd")).toThrow(FirmwareError);
  });

  it("gives a FirmwareError or a valid parse for any mutated or truncated image", () => {
    const base = tdvfImage();
    const tail = 0xb00;
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: tail }), fc.nat(255)), { maxLength: 12 }),
        fc.option(fc.integer({ min: 0, max: base.length })),
        (changes, cut) => {
          const image = base.slice(0, cut ?? base.length);
          for (const [back, value] of changes) if (back <= image.length) image[image.length - back] = value;
          check(image);
        },
      ),
      { numRuns: 1000 },
    );
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            dataOffset: fc.oneof(fc.nat(0x30000), fc.nat(0xffffffff)),
            rawSize: fc.oneof(fc.constant(0), fc.nat(0x30000), fc.nat(0xffffffff)),
            gpa: fc.oneof(
              fc.nat(0x2000).map((page) => page * 4096),
              fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
            ),
            memorySize: fc.oneof(
              fc.nat(64).map((page) => page * 4096),
              fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
            ),
            type: fc.nat(9),
            attributes: fc.nat(3),
          }),
          { minLength: 1, maxLength: 40 },
        ),
        (sections) => check(tdvfImage({ sections })),
      ),
      { numRuns: 500 },
    );
  });

  function check(image: Uint8Array): void {
    try {
      const tdvf = parseTdvf(image, "x");
      const ranges = tdvf.sections.map((s) => [s.memoryAddress, s.memoryAddress + s.memoryDataSize] as const);
      for (const section of tdvf.sections) {
        expect(section.memoryAddress % 4096).toBe(0);
        expect(section.memoryDataSize % 4096).toBe(0);
        expect(section.dataOffset + section.rawDataSize <= image.length || section.rawDataSize === 0).toBe(
          true,
        );
      }
      for (const [i, a] of ranges.entries())
        for (const b of ranges.slice(i + 1)) expect(a[1] <= b[0] || b[1] <= a[0]).toBe(true);
      splitTdRam(layoutMemory(512 * 2 ** 20, image.length), tdvf);
    } catch (error) {
      if (!(error instanceof FirmwareError)) throw error;
      expect(error.message).not.toContain("\n");
    }
  }
});
