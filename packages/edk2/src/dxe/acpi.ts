/**
 * ACPI tables: QEMU's loader script is executed, then the firmware's own tables are added: the CCEL (where the event
 * log is) and the MADT's multiprocessor wakeup structure (where application processors wait).
 * Follows OvmfPkg/AcpiPlatformDxe, TdxDxe and TdTcg2Dxe (edk2); script: QEMU, hw/acpi/bios-linker-loader.c.
 */
import {
  ACPI_CCEL,
  ACPI_MADT_TYPE,
  ACPI_RSDP,
  ACPI_TABLE_HEADER,
  EFI_MEMORY_TYPE,
  guest,
  type Guest,
  PAGE_SIZE,
  viewOf,
} from "@swtdx/abi";
import { MAILBOX } from "../image/layout.js";
import { readState } from "../lib/state.js";
import { type Blob, readNumber, runLoader, writeNumber } from "./acpi-loader.js";
import { allocate } from "./memory-map.js";

const ascii = (value: string) => new TextEncoder().encode(value);
const sum = (bytes: Uint8Array) => bytes.reduce((a, b) => (a + b) & 0xff, 0);
const CHECKSUM = 9;

/** ACPI 6.5, ch. 5.2.12: where the MADT's entries begin; the multiprocessor wakeup structure's size, version 0. */
const MADT_ENTRIES = 44;
const MP_WAKEUP_SIZE = 16;
/** Where in the firmware's page its tables are. */
const AT = { rsdp: 0, ccel: 0x100, xsdt: 0x200 } as const;
/** Tables that the VMM may list: the XSDT with all of them fits its part of the page. */
const MAX_TABLES = 64;

/** A table of QEMU's: its address and its bytes. */
export interface Table {
  address: number;
  bytes: Uint8Array;
}
const signatureOf = ({ bytes }: Table) => new TextDecoder().decode(bytes.subarray(0, 4));

/** The bytes that lie at `address`, if a blob holds them all. */
function bytesAt(blobs: readonly Blob[], address: number, length: number): Uint8Array | null {
  const blob = blobs.find(({ base, bytes }) => address >= base && address + length <= base + bytes.length);
  return blob ? blob.bytes.subarray(address - blob.base, address - blob.base + length) : null;
}
function tableAt(blobs: readonly Blob[], address: number): Table | null {
  const header = bytesAt(blobs, address, ACPI_TABLE_HEADER.size);
  if (!header) return null;
  const length = ACPI_TABLE_HEADER.decode(header).Length;
  const bytes = length >= ACPI_TABLE_HEADER.size ? bytesAt(blobs, address, length) : null;
  return bytes && { address, bytes };
}

/** The tables that the script's RSDP leads to; nothing outside of the script's blobs is looked at. */
export function tablesOf(blobs: readonly Blob[]): Table[] {
  const rsdp = blobs.find(({ bytes }) => new TextDecoder().decode(bytes.subarray(0, 8)) === "RSD PTR ");
  if (!rsdp) return [];
  // The RSDP of ACPI 1.0 ends before the fields of 2.0. Any 64 bits may stand in them.
  const root = new Uint8Array(ACPI_RSDP.size);
  root.set(rsdp.bytes.subarray(0, root.length));
  const { Revision, RsdtAddress, XsdtAddress } = ACPI_RSDP.fields;
  const xsdt = readNumber(root, XsdtAddress.offset, 8);
  const extended = Revision.read(viewOf(root), 0) >= 2 && xsdt !== 0;
  const width = extended ? 8 : 4;
  const list = tableAt(blobs, extended ? xsdt : readNumber(root, RsdtAddress.offset, 4));
  const out: Table[] = [];
  for (
    let at = ACPI_TABLE_HEADER.size;
    list && at + width <= list.bytes.length && out.length < MAX_TABLES;
    at += width
  ) {
    const table = tableAt(blobs, readNumber(list.bytes, at, width));
    // The event log is the firmware's to describe.
    if (table && signatureOf(table) !== "CCEL") out.push(table);
  }
  return out;
}

/** The MADT with a wakeup structure that names the mailbox. */
export function withWakeup(madt: Uint8Array, mailbox: number): Uint8Array {
  const out = new Uint8Array(madt.length + MP_WAKEUP_SIZE);
  out.set(madt);
  const view = viewOf(out);
  view.setUint8(madt.length, ACPI_MADT_TYPE.MULTIPROC_WAKEUP);
  view.setUint8(madt.length + 1, MP_WAKEUP_SIZE);
  view.setBigUint64(madt.length + 8, BigInt(mailbox), true);
  ACPI_TABLE_HEADER.write(view, { Length: out.length, Checksum: 0 });
  out[CHECKSUM] = -sum(out);
  return out;
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
  out[CHECKSUM] = -sum(out);
  return out;
}

/** Puts the MADT with the wakeup structure into memory of its own. @returns its address, or -1 without memory */
function* installWakeup(madt: Uint8Array): Guest<number> {
  const table = withWakeup(madt, MAILBOX);
  const base = yield* allocate(
    Math.ceil(table.length / PAGE_SIZE) * PAGE_SIZE,
    EFI_MEMORY_TYPE.ACPIMemoryNVS,
  );
  if (base >= 0) yield* guest.storeBytes(BigInt(base), table);
  return base;
}

/** Installs the tables. @returns GPA of the RSDP, or -1 without memory for it */
export function* installAcpi(): Guest<number> {
  const tables = tablesOf(yield* runLoader());
  const page = yield* allocate(PAGE_SIZE, EFI_MEMORY_TYPE.ACPIMemoryNVS);
  if (page < 0) return -1;
  const { LogBase, LogSize, NumberOfVcpus } = yield* readState();
  const ccel = encodeTable("CCEL", ACPI_CCEL.size, 1, (bytes) =>
    ACPI_CCEL.write(viewOf(bytes), {
      CcType: 2,
      LogAreaMinimumLength: LogSize,
      LogAreaStartAddress: LogBase,
    }),
  );
  const entries: number[] = [];
  for (const table of tables) {
    const isMadt = signatureOf(table) === "APIC" && table.bytes.length >= MADT_ENTRIES;
    const address = isMadt && NumberOfVcpus > 1 ? yield* installWakeup(table.bytes) : table.address;
    if (address < 0) return -1;
    entries.push(address);
  }
  entries.push(page + AT.ccel);
  const xsdt = encodeTable("XSDT", ACPI_TABLE_HEADER.size + 8 * entries.length, 1, (bytes) =>
    entries.forEach((address, i) => writeNumber(bytes, ACPI_TABLE_HEADER.size + 8 * i, 8, address)),
  );
  const rsdp = ACPI_RSDP.encode({
    Signature: ascii("RSD PTR "),
    OemId: ascii("SWTDX "),
    Revision: 2,
    Length: ACPI_RSDP.size,
    XsdtAddress: page + AT.xsdt,
  });
  rsdp[8] = -sum(rsdp.subarray(0, 20));
  rsdp[32] = -sum(rsdp);
  yield* guest.storeBytes(BigInt(page + AT.rsdp), rsdp);
  yield* guest.storeBytes(BigInt(page + AT.ccel), ccel);
  yield* guest.storeBytes(BigInt(page + AT.xsdt), xsdt);
  return page;
}
