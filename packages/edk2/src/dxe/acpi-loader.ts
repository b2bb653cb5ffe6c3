/**
 * QEMU's ACPI loader script: which fw_cfg files to place in memory, which fields of them become addresses, which
 * checksums to set. The script is the VMM's: an entry that does not fit its file ends it.
 * Follows OvmfPkg/AcpiPlatformDxe/QemuFwCfgAcpi.c (edk2); QEMU, hw/acpi/bios-linker-loader.c.
 */
import {
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
import { allocate } from "./memory-map.js";

/** A file that the script works on: its bytes and where they lie. */
export interface Blob {
  bytes: Uint8Array;
  base: number;
}
/** Files by name. */
export type Blobs = Map<string, Blob>;

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).replace(/\0.*$/s, "");
/** The event of everything that is measured here. */
const ACPI_DATA = new TextEncoder().encode("ACPI DATA");
/** Entries and files beyond these are no machine's. */
const MAX_ENTRIES = 4096;
const MAX_FILE = 2 ** 20;

/** Reads a little-endian number of 1, 2, 4 or 8 bytes. */
export function readNumber(bytes: Uint8Array, at: number, size: number): number {
  let value = 0;
  for (let i = size - 1; i >= 0; i--) value = value * 256 + bytes[at + i];
  return value;
}
export function writeNumber(bytes: Uint8Array, at: number, size: number, value: number): void {
  for (let i = 0; i < size; i++) {
    bytes[at + i] = value % 256;
    value = Math.floor(value / 256);
  }
}

/** Applies one entry to the files that are there. @returns whether it fits them; ALLOCATE is not its concern */
export function applyEntry(blobs: Blobs, entry: Uint8Array): boolean {
  const view = viewOf(entry);
  switch (view.getUint32(0, true)) {
    case BIOS_LINKER_LOADER_COMMAND.ADD_POINTER: {
      const { dest_file, src_file, offset, size } = BIOS_LINKER_LOADER_ADD_POINTER.read(view);
      const target = blobs.get(text(dest_file));
      const source = blobs.get(text(src_file));
      if (!target || !source || ![1, 2, 4, 8].includes(size) || offset + size > target.bytes.length)
        return false;
      const at = readNumber(target.bytes, offset, size);
      const address = at + source.base;
      if (at > source.bytes.length || address >= 256 ** size) return false;
      writeNumber(target.bytes, offset, size, address);
      return true;
    }
    case BIOS_LINKER_LOADER_COMMAND.ADD_CHECKSUM: {
      const { file, offset, start, length } = BIOS_LINKER_LOADER_ADD_CHECKSUM.read(view);
      const blob = blobs.get(text(file));
      if (!blob || start + length > blob.bytes.length || offset >= blob.bytes.length) return false;
      blob.bytes[offset] = 0;
      const sum = blob.bytes.subarray(start, start + length).reduce((a, b) => (a + b) & 0xff, 0);
      blob.bytes[offset] = -sum;
      return true;
    }
    default:
      // Unknown commands are ignored, as OVMF does.
      return true;
  }
}

/** Places a file of the machine's in memory. @returns whether there is one, and room for it */
function* allocateFile(blobs: Blobs, name: string): Guest<boolean> {
  const given = blobs.has(name) ? null : yield* fwCfgFile(name);
  if (!given || given.length === 0 || given.length > MAX_FILE) return false;
  yield* measure(1, EV.PLATFORM_CONFIG_FLAGS, given, ACPI_DATA);
  const size = Math.ceil(given.length / PAGE_SIZE) * PAGE_SIZE;
  const base = yield* allocate(size, EFI_MEMORY_TYPE.ACPIMemoryNVS);
  if (base < 0) return false;
  blobs.set(name, { bytes: new Uint8Array(given), base });
  return true;
}

/** Runs the machine's script. @returns the files in memory; none without a script, or after a bad entry */
export function* runLoader(): Guest<Blob[]> {
  const script = yield* fwCfgFile(ACPI_TABLE_LOADER_FILE);
  if (!script || script.length > MAX_ENTRIES * BIOS_LINKER_LOADER_ENTRY_SIZE) return [];
  yield* measure(1, EV.PLATFORM_CONFIG_FLAGS, script, ACPI_DATA);
  const blobs: Blobs = new Map();
  for (let at = 0; at + BIOS_LINKER_LOADER_ENTRY_SIZE <= script.length; at += BIOS_LINKER_LOADER_ENTRY_SIZE) {
    const entry = script.slice(at, at + BIOS_LINKER_LOADER_ENTRY_SIZE);
    const isAllocate = viewOf(entry).getUint32(0, true) === BIOS_LINKER_LOADER_COMMAND.ALLOCATE;
    const name = text(BIOS_LINKER_LOADER_ALLOCATE.decode(entry).file);
    if (!(isAllocate ? yield* allocateFile(blobs, name) : applyEntry(blobs, entry))) return [];
  }
  for (const { bytes, base } of blobs.values()) yield* guest.storeBytes(BigInt(base), bytes);
  return [...blobs.values()];
}
