/**
 * ACPI tables: QEMU's loader script is executed, then the CCEL table (where the event log is) is added.
 * Follows OvmfPkg/AcpiPlatformDxe and TdTcg2Dxe (edk2); script: QEMU, hw/acpi/bios-linker-loader.c.
 */
import {
  ACPI_CCEL,
  ACPI_RSDP,
  ACPI_TABLE_HEADER,
  ACPI_TABLE_LOADER_FILE,
  BIOS_LINKER_LOADER_ADD_CHECKSUM,
  BIOS_LINKER_LOADER_ADD_POINTER,
  BIOS_LINKER_LOADER_ALLOCATE,
  BIOS_LINKER_LOADER_COMMAND,
  BIOS_LINKER_LOADER_ENTRY_SIZE,
  EFI_MEMORY_TYPE,
  EV,
  guest,
  type Guest,
  PAGE_SIZE,
  viewOf,
} from "@swtdx/abi";
import { fwCfgFile } from "../lib/fw-cfg.js";
import { measure } from "../lib/measure.js";
import { readState } from "../lib/state.js";
import { allocate } from "./memory-map.js";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).replace(/\0.*$/s, "");
const ascii = (value: string) => new TextEncoder().encode(value);
const sum = (bytes: Uint8Array) => bytes.reduce((a, b) => (a + b) & 0xff, 0);
const ACPI_DATA = ascii("ACPI DATA\0");

/** A fw_cfg file that the script works on: its bytes and where they will lie. */
interface Blob {
  bytes: Uint8Array;
  base: number;
}

/** Reads a little-endian number of 1, 2, 4 or 8 bytes. */
function readNumber(bytes: Uint8Array, at: number, size: number): number {
  let value = 0;
  for (let i = size - 1; i >= 0; i--) value = value * 256 + bytes[at + i]!;
  return value;
}
function writeNumber(bytes: Uint8Array, at: number, size: number, value: number): void {
  for (let i = 0; i < size; i++) {
    bytes[at + i] = value % 256;
    value = Math.floor(value / 256);
  }
}

/** Runs the script. @returns GPA of the RSDP, or null when the VMM gives no (usable) tables */
function* runLoader(script: Uint8Array): Guest<number | null> {
  const blobs = new Map<string, Blob>();
  const view = viewOf(script);
  for (let at = 0; at + BIOS_LINKER_LOADER_ENTRY_SIZE <= script.length; at += BIOS_LINKER_LOADER_ENTRY_SIZE) {
    switch (view.getUint32(at, true)) {
      case BIOS_LINKER_LOADER_COMMAND.ALLOCATE: {
        const { file } = BIOS_LINKER_LOADER_ALLOCATE.read(view, at);
        const bytes = yield* fwCfgFile(text(file));
        if (!bytes || bytes.length === 0) return null;
        yield* measure(1, EV.PLATFORM_CONFIG_FLAGS, bytes, ACPI_DATA);
        const size = Math.ceil(bytes.length / PAGE_SIZE) * PAGE_SIZE;
        const base = yield* allocate(size, EFI_MEMORY_TYPE.ACPIMemoryNVS);
        if (base < 0) return null;
        blobs.set(text(file), { bytes, base });
        break;
      }
      case BIOS_LINKER_LOADER_COMMAND.ADD_POINTER: {
        const { dest_file, src_file, offset, size } = BIOS_LINKER_LOADER_ADD_POINTER.read(view, at);
        const target = blobs.get(text(dest_file));
        const source = blobs.get(text(src_file));
        if (!target || !source || ![1, 2, 4, 8].includes(size) || offset + size > target.bytes.length)
          return null;
        writeNumber(target.bytes, offset, size, readNumber(target.bytes, offset, size) + source.base);
        break;
      }
      case BIOS_LINKER_LOADER_COMMAND.ADD_CHECKSUM: {
        const { file, offset, start, length } = BIOS_LINKER_LOADER_ADD_CHECKSUM.read(view, at);
        const blob = blobs.get(text(file));
        if (!blob || start + length > blob.bytes.length || offset >= blob.bytes.length) return null;
        blob.bytes[offset] = 0;
        blob.bytes[offset] = -sum(blob.bytes.subarray(start, start + length));
        break;
      }
      default:
    }
  }
  for (const { bytes, base } of blobs.values()) yield* guest.storeBytes(BigInt(base), bytes);
  for (const { bytes, base } of blobs.values()) if (text(bytes.subarray(0, 8)) === "RSD PTR ") return base;
  return null;
}

function encodeTable(
  signature: string,
  size: number,
  revision: number,
  body: (bytes: Uint8Array) => void,
): Uint8Array {
  const out = new Uint8Array(size);
  ACPI_TABLE_HEADER.write(viewOf(out), {
    Signature: ascii(signature),
    Length: size,
    Revision: revision,
    OemId: ascii("SWTDX "),
    OemTableId: ascii("SWTDX   "),
    OemRevision: 1,
    CreatorId: ascii("SWTX"),
    CreatorRevision: 1,
  });
  body(out);
  out[9] = -sum(out);
  return out;
}

/** Addresses of the tables that the RSDP at `rsdp` leads to. */
function* tablesOf(rsdp: number): Guest<number[]> {
  const root = ACPI_RSDP.read(viewOf(yield* guest.loadBytes(BigInt(rsdp), ACPI_RSDP.size)));
  const [table, width] =
    root.Revision >= 2 && root.XsdtAddress !== 0 ? [root.XsdtAddress, 8] : [root.RsdtAddress, 4];
  const length = Number(yield* guest.load(BigInt(table + 4), 4));
  const bytes = yield* guest.loadBytes(BigInt(table), length);
  const out: number[] = [];
  for (let at = ACPI_TABLE_HEADER.size; at + width <= length; at += width)
    out.push(readNumber(bytes, at, width));
  return out;
}

/** Installs the tables. @returns GPA of the RSDP, or -1 without memory for it */
export function* installAcpi(): Guest<number> {
  const script = yield* fwCfgFile(ACPI_TABLE_LOADER_FILE);
  let tables: number[] = [];
  if (script) {
    yield* measure(1, EV.PLATFORM_CONFIG_FLAGS, script, ACPI_DATA);
    const rsdp = yield* runLoader(script);
    if (rsdp !== null) tables = yield* tablesOf(rsdp);
  }
  const page = yield* allocate(PAGE_SIZE, EFI_MEMORY_TYPE.ACPIMemoryNVS);
  if (page < 0) return -1;
  const { LogBase, LogSize } = yield* readState();
  const ccelBase = page + 0x100;
  const ccel = encodeTable("CCEL", ACPI_CCEL.size, 1, (bytes) =>
    ACPI_CCEL.write(viewOf(bytes), {
      CcType: 2,
      LogAreaMinimumLength: LogSize,
      LogAreaStartAddress: LogBase,
    }),
  );
  const xsdtBase = page + 0x200;
  const entries = [...tables, ccelBase];
  const xsdt = encodeTable("XSDT", ACPI_TABLE_HEADER.size + 8 * entries.length, 1, (bytes) =>
    entries.forEach((address, i) => writeNumber(bytes, ACPI_TABLE_HEADER.size + 8 * i, 8, address)),
  );
  const rsdp = ACPI_RSDP.encode({
    Signature: ascii("RSD PTR "),
    OemId: ascii("SWTDX "),
    Revision: 2,
    Length: ACPI_RSDP.size,
    XsdtAddress: xsdtBase,
  });
  rsdp[8] = -sum(rsdp.subarray(0, 20));
  rsdp[32] = -sum(rsdp);
  yield* guest.storeBytes(BigInt(page), rsdp);
  yield* guest.storeBytes(BigInt(ccelBase), ccel);
  yield* guest.storeBytes(BigInt(xsdtBase), xsdt);
  return page;
}
