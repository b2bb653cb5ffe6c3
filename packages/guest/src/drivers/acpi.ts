/** ACPI as far as the kernel needs it: tables by signature, the event log's place, power-off. Source: ACPI 6.5. */
import { ACPI_CCEL, ACPI_RSDP, ACPI_TABLE_HEADER, guest, type Guest, readStruct, viewOf } from "@swtdx/abi";

/** Where a table lies, and its bytes. */
export interface AcpiTable {
  signature: string;
  address: number;
  bytes: Uint8Array;
}

/** A table longer than this is not read: the VMM made it. */
const MAX_TABLE = 0x10_0000;

const checksumFails = (bytes: Uint8Array) => bytes.reduce((a, b) => (a + b) & 0xff, 0) !== 0;

/** All tables that the XSDT names and whose checksums hold. */
export function* readAcpiTables(rsdp: number): Guest<AcpiTable[]> {
  const root = yield* readStruct(rsdp, ACPI_RSDP);
  const xsdt = yield* readTable(root.XsdtAddress);
  if (!xsdt) return [];
  const out: AcpiTable[] = [];
  for (let at = ACPI_TABLE_HEADER.size; at + 8 <= xsdt.bytes.length; at += 8) {
    const table = yield* readTable(Number(viewOf(xsdt.bytes).getBigUint64(at, true)));
    if (table) out.push(table);
  }
  return out;
}

function* readTable(address: number): Guest<AcpiTable | null> {
  const header = yield* readStruct(address, ACPI_TABLE_HEADER);
  if (header.Length < ACPI_TABLE_HEADER.size || header.Length > MAX_TABLE) return null;
  const bytes = yield* guest.loadBytes(BigInt(address), header.Length);
  if (checksumFails(bytes)) return null;
  return { signature: new TextDecoder().decode(header.Signature), address, bytes };
}

/** The event log's area (CCEL), which the firmware began, or null. */
export function eventLogArea(tables: readonly AcpiTable[]): { address: number; length: number } | null {
  const ccel = tables.find(({ signature }) => signature === "CCEL");
  if (!ccel || ccel.bytes.length < ACPI_CCEL.size) return null;
  const { LogAreaStartAddress: address, LogAreaMinimumLength: length } = ACPI_CCEL.decode(ccel.bytes);
  return { address, length };
}

const FADT_PM1A_CNT_BLK = 64;
/** Q35's PM1a control block, for firmware without a FADT. */
const DEFAULT_PM1A_CNT = 0x604;
const SLP_EN = 1 << 13;

/** Enters S5: SLP_TYP of S5 is 0 on QEMU's machines. */
export function* powerOff(tables: readonly AcpiTable[]): Guest<never> {
  const fadt = tables.find(({ signature }) => signature === "FACP");
  const port = fadt && fadt.bytes.length > 68 ? viewOf(fadt.bytes).getUint32(FADT_PM1A_CNT_BLK, true) : 0;
  yield* guest.out(port || DEFAULT_PM1A_CNT, 2, SLP_EN);
  for (;;) yield* guest.hlt();
}
