/**
 * The machine's ACPI tables. They are built when firmware first asks for one of their files: by then it has placed the
 * ECAM window. QEMU, hw/i386/acpi-build.c (acpi_build, acpi_build_update).
 */
import {
  ACPI_RSDP,
  ACPI_RSDP_FILE,
  ACPI_TABLE_LOADER_FILE,
  ACPI_TABLES_FILE,
  BIOS_LINKER_LOADER_ZONE,
} from "@swtdx/abi";
import type { Q35Board } from "../hw/i386/q35.js";
import { PCIEXBAR_DEFAULT_ADDRESS } from "../hw/pci/q35-mch.js";
import { FOUR_GIB, type GpaRange, type MemoryMap } from "../memory/memory-map.js";
import { buildDsdt, type DsdtOptions } from "./dsdt.js";
import { buildFacs, buildFadt, linkedPointer } from "./fadt.js";
import { Blob, Linker } from "./linker.js";
import { buildMadt } from "./madt.js";
import { buildMcfg } from "./mcfg.js";

/** Files are padded to this many bytes: their sizes must not change once the directory is read. */
const TABLES_SIZE_UNIT = 0x20000;
const SCRIPT_SIZE_UNIT = 0x1000;
/** The FACS needs it. */
const TABLES_ALIGN = 64;
const RSDP_ALIGN = 16;
/** RSDP of ACPI 1.0: up to and including the address of the RSDT. */
const RSDP_SIZE = 20;
const HOLE64_SIZE = 32 * 2 ** 30;
const HOLE64_UNIT = 2 ** 30;
/** WAET: one read of the PM timer is good. */
const WAET_PM_TIMER_GOOD = 1 << 1;

export type AcpiOptions = DsdtOptions;

export interface AcpiFiles {
  readonly tables: Uint8Array;
  readonly rsdp: Uint8Array;
  readonly loader: Uint8Array;
}

export function buildAcpi(options: AcpiOptions): AcpiFiles {
  const linker = new Linker();
  const tables = new Blob(ACPI_TABLES_FILE);
  const rsdp = new Blob(ACPI_RSDP_FILE);
  linker.allocate(tables, TABLES_ALIGN, BIOS_LINKER_LOADER_ZONE.HIGH);
  linker.allocate(rsdp, RSDP_ALIGN, BIOS_LINKER_LOADER_ZONE.FSEG);

  const facs = buildFacs(tables);
  const dsdt = buildDsdt(tables, linker, options);
  const listed = [
    buildFadt(tables, linker, facs, dsdt, options.vcpus),
    buildMadt(tables, linker, options.vcpus),
    ...(options.ecam ? [buildMcfg(tables, linker, options.ecam)] : []),
    linker.table(tables, "WAET", 1, () => tables.int(WAET_PM_TIMER_GOOD, 4)),
  ];
  const rsdt = linker.table(tables, "RSDT", 1, () => {
    for (const table of listed) linkedPointer(tables, linker, 4, table);
  });

  rsdp.append(
    ACPI_RSDP.encode({ Signature: ascii("RSD PTR "), OemId: ascii("BOCHS ") }).subarray(0, RSDP_SIZE),
  );
  linker.pointer(rsdp, ACPI_RSDP.fields.RsdtAddress.offset, 4, tables, rsdt);
  linker.checksum(rsdp, ACPI_RSDP.fields.Checksum.offset, 0, RSDP_SIZE);

  tables.align(TABLES_SIZE_UNIT);
  const script = new Blob(ACPI_TABLE_LOADER_FILE);
  script.append(linker.script());
  script.align(SCRIPT_SIZE_UNIT);
  return { tables: tables.toBytes(), rsdp: rsdp.toBytes(), loader: script.toBytes() };
}

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Offers the tables by fw_cfg. */
export function addAcpiTables(
  board: Q35Board,
  options: Pick<AcpiOptions, "vcpus" | "map" | "machine">,
): void {
  const { pci, mch } = board;
  const functions = pci.functions().map(([devfn]) => devfn);
  const build = (ecam: GpaRange | null) =>
    buildAcpi({ ...options, ecam, hole64: hole64(options.map, pci.memory64()), functions });
  // The sizes are those of the tables with everything that firmware can turn on.
  const first = build({ address: PCIEXBAR_DEFAULT_ADDRESS, length: 2 ** 28 });
  let latest: AcpiFiles | null = null;
  const refresh = (part: keyof AcpiFiles, size: number) => () => {
    latest ??= build(mch.ecam);
    const bytes = new Uint8Array(size);
    bytes.set(latest[part].subarray(0, size));
    return bytes;
  };
  const files: [string, keyof AcpiFiles][] = [
    [ACPI_TABLES_FILE, "tables"],
    [ACPI_RSDP_FILE, "rsdp"],
    [ACPI_TABLE_LOADER_FILE, "loader"],
  ];
  for (const [name, part] of files)
    board.fwCfg.addFile(name, first[part], { onSelect: refresh(part, first[part].length) });
}

/** The window for 64-bit BARs: from the lowest that firmware has placed, or from the end of RAM, 32 GiB or more. */
function hole64(map: MemoryMap, used: GpaRange | null): GpaRange {
  const ramEnd = Math.max(FOUR_GIB, map.above4g.address + map.above4g.length);
  const address = used?.address ?? roundUp(ramEnd, HOLE64_UNIT);
  const end = Math.max(used ? used.address + used.length : 0, roundUp(address + HOLE64_SIZE, HOLE64_UNIT));
  return { address, length: end - address };
}
const roundUp = (value: number, unit: number): number => Math.ceil(value / unit) * unit;
