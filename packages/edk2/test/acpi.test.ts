import {
  ACPI_RSDP,
  ACPI_TABLE_HEADER,
  BIOS_LINKER_LOADER_ADD_CHECKSUM,
  BIOS_LINKER_LOADER_ADD_POINTER,
  BIOS_LINKER_LOADER_COMMAND,
  BIOS_LINKER_LOADER_ENTRY_SIZE,
  viewOf,
} from "@swtdx/abi";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { applyEntry, type Blob, readNumber, writeNumber } from "../src/dxe/acpi-loader.js";
import { tablesOf, withWakeup } from "../src/dxe/acpi.js";

const ascii = (text: string) => new TextEncoder().encode(text);
const { ADD_POINTER, ADD_CHECKSUM } = BIOS_LINKER_LOADER_COMMAND;
const entry = (bytes: Uint8Array) => {
  const out = new Uint8Array(BIOS_LINKER_LOADER_ENTRY_SIZE);
  out.set(bytes.subarray(0, out.length));
  return out;
};
const pointer = (offset: number, size: number, dest = "a", src = "b") => {
  const fields = { command: ADD_POINTER, dest_file: ascii(dest), src_file: ascii(src), offset, size };
  return entry(BIOS_LINKER_LOADER_ADD_POINTER.encode(fields));
};
const checksum = (offset: number, start: number, length: number, file = "a") => {
  const fields = { command: ADD_CHECKSUM, file: ascii(file), offset, start, length };
  return entry(BIOS_LINKER_LOADER_ADD_CHECKSUM.encode(fields));
};
const blobs = () =>
  new Map<string, Blob>([
    ["a", { bytes: new Uint8Array(64), base: 0x100_0000 }],
    ["b", { bytes: new Uint8Array(32), base: 0x200_0000 }],
  ]);

describe("the loader script", () => {
  it("makes addresses and checksums", () => {
    const files = blobs();
    const a = files.get("a")!.bytes;
    a.set([0x10, 0, 0, 0], 8);
    expect(applyEntry(files, pointer(8, 4))).toBe(true);
    expect(readNumber(a, 8, 4)).toBe(0x200_0010);
    expect(applyEntry(files, checksum(0, 0, 64))).toBe(true);
    expect(a.reduce((x, y) => (x + y) & 0xff, 0)).toBe(0);
  });
  it.each([
    ["a field outside of its file", pointer(61, 4)],
    ["a huge offset", pointer(0xffff_fffe, 4)],
    ["no size of a pointer", pointer(0, 3)],
    ["an address that does not fit", pointer(0, 2)],
    ["an unknown target", pointer(0, 4, "c")],
    ["an unknown source", pointer(0, 4, "a", "c")],
    ["a checksum outside of its file", checksum(64, 0, 8)],
    ["a checksum of more than the file", checksum(0, 60, 8)],
    ["a checksum of nearly everything", checksum(0, 0xffff_ffff, 0xffff_ffff)],
    ["a checksum in an unknown file", checksum(0, 0, 8, "c")],
  ])("is refused for %s", (_what, bytes) => {
    const files = blobs();
    expect(applyEntry(files, bytes)).toBe(false);
    expect(files).toEqual(blobs());
  });
  it("refuses a pointer beyond its source", () => {
    const files = blobs();
    files.get("a")!.bytes[0] = 33;
    expect(applyEntry(files, pointer(0, 4))).toBe(false);
  });
  it("never throws and never writes outside of its files", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 128, maxLength: 128 }),
        fc.constantFrom(1, 2, 3, 4),
        (bytes, command) => {
          viewOf(bytes).setUint32(0, command, true);
          bytes.set([0x61, 0], 4);
          bytes.set([0x62, 0], 60);
          const files = blobs();
          applyEntry(files, bytes);
          expect(files.get("a")!.bytes.length).toBe(64);
        },
      ),
    );
  });
  it("reads and writes numbers of all sizes", () => {
    fc.assert(
      fc.property(fc.constantFrom(1, 2, 4), fc.nat(), (size, value) => {
        const bytes = new Uint8Array(8);
        writeNumber(bytes, 2, size, value % 256 ** size);
        expect(readNumber(bytes, 2, size)).toBe(value % 256 ** size);
      }),
    );
  });
});

/** A blob at 0x1000: RSDP, at 0x40 the RSDT, from 0x80 on tables. */
function tables(...signatures: string[]): Blob {
  const bytes = new Uint8Array(0x1000);
  const view = viewOf(bytes);
  ACPI_RSDP.write(view, { Signature: ascii("RSD PTR "), RsdtAddress: 0x1040 });
  const length = ACPI_TABLE_HEADER.size + 4 * signatures.length;
  ACPI_TABLE_HEADER.write(view, { Signature: ascii("RSDT"), Length: length }, 0x40);
  signatures.forEach((signature, i) => {
    const at = 0x100 + i * 0x40;
    view.setUint32(0x40 + ACPI_TABLE_HEADER.size + 4 * i, 0x1000 + at, true);
    ACPI_TABLE_HEADER.write(view, { Signature: ascii(signature), Length: 0x40 }, at);
  });
  return { bytes, base: 0x1000 };
}
const names = (blob: Blob) =>
  tablesOf([blob]).map(({ bytes }) => new TextDecoder().decode(bytes.subarray(0, 4)));

describe("the machine's tables", () => {
  it("are found, but for an event log", () => {
    expect(names(tables("FACP", "CCEL", "APIC"))).toEqual(["FACP", "APIC"]);
    expect(tablesOf([])).toEqual([]);
  });
  it("are not looked for outside of the script's files", () => {
    const wild = tables("FACP", "APIC");
    viewOf(wild.bytes).setUint32(0x40 + ACPI_TABLE_HEADER.size, 0x9000_0000, true);
    expect(names(wild)).toEqual(["APIC"]);
    ACPI_TABLE_HEADER.write(viewOf(wild.bytes), { Length: 0xffff_ffff }, 0x140);
    expect(names(wild)).toEqual([]);
    ACPI_RSDP.write(viewOf(wild.bytes), { RsdtAddress: 0xffff_fff0 });
    expect(names(wild)).toEqual([]);
  });
  it("never throw, whatever is in them", () => {
    const good = tables("FACP", "APIC");
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(0x1ff), fc.nat(255)), { maxLength: 8 }), (changes) => {
        const bytes = good.bytes.slice();
        for (const [at, value] of changes) bytes[at] = value;
        for (const table of tablesOf([{ bytes, base: 0x1000 }]))
          expect(table.address + table.bytes.length).toBeLessThanOrEqual(0x2000);
      }),
    );
  });
  it("get the wakeup structure with a right checksum", () => {
    const madt = new Uint8Array(52);
    ACPI_TABLE_HEADER.write(viewOf(madt), { Signature: ascii("APIC"), Length: 52 });
    const out = withWakeup(madt, 0x80c000);
    expect(ACPI_TABLE_HEADER.decode(out).Length).toBe(68);
    expect([...out.subarray(52)]).toEqual([16, 16, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0x80, 0, 0, 0, 0, 0]);
    expect(out.reduce((a, b) => (a + b) & 0xff, 0)).toBe(0);
  });
});
