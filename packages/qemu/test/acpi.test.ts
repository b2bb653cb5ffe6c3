import {
  BIOS_LINKER_LOADER_ADD_CHECKSUM,
  BIOS_LINKER_LOADER_ADD_POINTER,
  BIOS_LINKER_LOADER_ALLOCATE,
  viewOf,
} from "@swtdx/abi";
import { describe, expect, it } from "vitest";
import { amlEisaId, amlInt, amlPath, amlScope } from "../src/acpi/aml.js";
import { buildAcpi } from "../src/acpi/build.js";
import { layoutMemory } from "../src/memory/memory-map.js";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).replace(/\0.*$/s, "");
const ecam = { address: 0xe0000000, length: 2 ** 28 };

/** Executes the loader script as firmware does. @returns the tables by signature, and their memory. */
function link(options: Parameters<typeof buildAcpi>[0]) {
  const { tables, rsdp, loader } = buildAcpi(options);
  const base = new Map([
    ["etc/acpi/tables", 0x7f000000],
    ["etc/acpi/rsdp", 0xf5000],
  ]);
  const files = new Map([
    ["etc/acpi/tables", tables],
    ["etc/acpi/rsdp", rsdp],
  ]);
  const allocated: string[] = [];
  const script = viewOf(loader);
  for (let at = 0; at < loader.length; at += 128) {
    const command = script.getUint32(at, true);
    if (command === 1) allocated.push(text(BIOS_LINKER_LOADER_ALLOCATE.read(script, at).file));
    else if (command === 2) {
      const { dest_file, src_file, offset, size } = BIOS_LINKER_LOADER_ADD_POINTER.read(script, at);
      const view = viewOf(files.get(text(dest_file))!);
      const add = base.get(text(src_file))!;
      if (size === 4) view.setUint32(offset, view.getUint32(offset, true) + add, true);
      else view.setBigUint64(offset, view.getBigUint64(offset, true) + BigInt(add), true);
    } else if (command === 3) {
      const { file, offset, start, length } = BIOS_LINKER_LOADER_ADD_CHECKSUM.read(script, at);
      const bytes = files.get(text(file))!;
      bytes[offset] = -bytes.subarray(start, start + length).reduce((a, b) => a + b, 0);
    }
  }
  expect(allocated).toEqual(["etc/acpi/rsdp", "etc/acpi/tables"]);
  const at = (address: number) => tables.subarray(address - 0x7f000000);
  const table = (address: number) => {
    const bytes = at(address);
    return bytes.subarray(0, viewOf(bytes).getUint32(4, true));
  };
  expect(rsdp.reduce((a, b) => (a + b) & 0xff, 0)).toBe(0);
  const rsdt = table(viewOf(rsdp).getUint32(16, true));
  const found = new Map([["RSDT", rsdt]]);
  for (let i = 36; i < rsdt.length; i += 4) {
    const one = table(viewOf(rsdt).getUint32(i, true));
    found.set(text(one.subarray(0, 4)), one);
  }
  found.set("DSDT", table(viewOf(found.get("FACP")!).getUint32(40, true)));
  return { found, at };
}

describe("ACPI tables", () => {
  const map = layoutMemory(4096 * 2 ** 20, 2 ** 22);
  const machine = "pc-q35-10.1";
  const common = { map, machine, hole64: { address: 2 ** 33, length: 2 ** 35 }, functions: [0, 8, 0xf8] };
  it("link and have right checksums", () => {
    const { found, at } = link({ vcpus: 2, ...common, ecam });
    expect([...found.keys()]).toEqual(["RSDT", "FACP", "APIC", "MCFG", "WAET", "DSDT"]);
    for (const [name, bytes] of found)
      expect([name, bytes.reduce((a, b) => (a + b) & 0xff, 0)]).toEqual([name, 0]);
    const fadt = viewOf(found.get("FACP")!);
    expect(found.get("FACP")!.length).toBe(244);
    expect(text(at(fadt.getUint32(36, true)).subarray(0, 4))).toBe("FACS");
    expect(fadt.getUint32(36, true) % 64).toBe(0);
    expect(Number(fadt.getBigUint64(140, true))).toBe(fadt.getUint32(40, true));
    expect([fadt.getUint32(56, true), fadt.getUint32(64, true), fadt.getUint32(76, true)]).toEqual([
      0x600, 0x604, 0x608,
    ]);
    expect([fadt.getUint32(48, true), fadt.getUint16(46, true)]).toEqual([0, 9]);
    expect([Number(fadt.getBigUint64(120, true)), fadt.getUint8(128)]).toEqual([0xcf9, 0x0f]);
    expect(Number(viewOf(found.get("MCFG")!).getBigUint64(44, true))).toBe(0xe0000000);
    expect(found.get("MCFG")![55]).toBe(255);
  });
  it("list every processor, the I/O APIC, and no 8259", () => {
    const madt = link({ vcpus: 3, ...common, ecam: null }).found.get("APIC")!;
    expect(viewOf(madt).getUint32(40, true)).toBe(0);
    const types: number[] = [];
    for (let at = 44; at < madt.length; at += madt[at + 1]) types.push(madt[at]);
    expect(types).toEqual([0, 0, 0, 1, 2, 2, 2, 2, 2, 4]);
  });
  it("have no MCFG without a window", () => {
    expect(link({ vcpus: 1, ...common, ecam: null }).found.has("MCFG")).toBe(false);
  });
  it("stay parsable with many processors", () => {
    expect(link({ vcpus: 255, ...common, ecam }).found.get("DSDT")!.length).toBeGreaterThan(6000);
  });
});

describe("AML", () => {
  it("encodes integers, names, IDs and package lengths", () => {
    expect(amlInt(0)).toEqual([0]);
    expect(amlInt(0xff)).toEqual([0x0a, 0xff]);
    expect(amlInt(0x1234)).toEqual([0x0b, 0x34, 0x12]);
    expect(amlInt(2 ** 32)).toEqual([0x0e, 0, 0, 0, 0, 1, 0, 0, 0]);
    expect(amlEisaId("PNP0A08")).toEqual([0x0c, 0x41, 0xd0, 0x0a, 0x08]);
    expect(String.fromCharCode(...amlPath("\\_SB.PCI0"))).toBe("\\._SB_PCI0");
    expect(amlScope("\\", [1]).slice(0, 4)).toEqual([0x10, 4, 0x5c, 0]);
    const long = amlScope("ABCD", new Array<number>(0x1000).fill(0));
    expect(long.slice(0, 4)).toEqual([0x10, 0x87, 0x00, 0x01]);
    expect(long.length).toBe(1 + 0x1007);
  });
});
