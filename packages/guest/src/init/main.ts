/**
 * start_kernel: from the EFI stub to init. The order of the log's lines is Linux's.
 */
import {
  ACPI_TABLE_HEADER,
  EFI_STATUS,
  guest,
  type Guest,
  type GuestProgram,
  TD_ATTRIBUTES,
} from "@swtdx/abi";
import { bringUpSecondaries, installIdt, readProcessors } from "../arch/smp.js";
import { TdvmcallFailed, tdxPanic } from "../arch/tdcall.js";
import { tdxEarlyInit, type TdxPlatform } from "../arch/tdx.js";
import type { VeStatistics } from "../arch/ve.js";
import { type AcpiTable, readAcpiTables } from "../drivers/acpi.js";
import { type PciDevice, scanPci } from "../drivers/pci.js";
import { Swiotlb } from "../drivers/swiotlb.js";
import { TdxGuestDriver } from "../drivers/tdx-guest.js";
import { MemoryManager } from "../mm/memory.js";
import { PageTables } from "../mm/page-tables.js";
import { e820Lines } from "./e820.js";
import { type BootParams, efiStub, StubError } from "./efi-stub.js";
import { type Init, Kernel, printk } from "./kernel.js";

const VERSION = "Linux version 6.12.0-swtdx (TypeScript)";
const SWIOTLB_PAGES = 64;
const GIB = 2 ** 30;
const CPUID_TSC = 0x15;

/** TSC frequency in Hz from CPUID 0x15: the TDX module always gives it. */
function* tscFrequency(): Guest<number> {
  const { eax, ebx, ecx } = yield* guest.cpuid(CPUID_TSC);
  return eax === 0 ? 0 : Math.round((ecx * ebx) / eax);
}

const hex = (value: number | bigint, digits = 16) => value.toString(16).padStart(digits, "0");

/** "SEPT_VE_DISABLE MIGRATABLE": the names of the attributes that are set. */
const attributeNames = (attributes: bigint) =>
  Object.entries(TD_ATTRIBUTES)
    .filter(([, bit]) => (attributes & bit) !== 0n)
    .map(([name]) => name)
    .join(" ");

/** A line on a table as acpi_tb_print_table_header() writes it. */
function tableLine({ signature, address, bytes }: AcpiTable): string {
  const header = ACPI_TABLE_HEADER.decode(bytes);
  const text = (field: Uint8Array) => new TextDecoder("latin1").decode(field);
  const ids = `${text(header.OemId)} ${text(header.OemTableId)} ${hex(header.OemRevision, 8)}`;
  const creator = `${text(header.CreatorId)} ${hex(header.CreatorRevision, 8)}`;
  const size = hex(header.Length, 6).toUpperCase();
  const where = hex(address).toUpperCase();
  return printable(`ACPI: ${signature} 0x${where} ${size} (v${hex(header.Revision, 2)} ${ids} ${creator})`);
}
// What a VMM wrote into a table must not steer a terminal.
const printable = (text: string) => text.replace(/[^\x20-\x7e]/g, " ");

function* reportPlatform(params: BootParams, tdx: TdxPlatform, tscHz: number, log: Log): Guest<void> {
  yield* log(VERSION);
  yield* log(printable(`Command line: ${params.commandLine}`));
  yield* log("BIOS-provided physical RAM map:");
  for (const line of e820Lines(params.memoryMap)) yield* log(line);
  yield* log("NX (Execute Disable) protection: active");
  yield* log("tdx: Guest detected");
  yield* log(`tdx: Attributes: ${attributeNames(tdx.attributes)}`);
  yield* log(`tsc: Detected ${(tscHz / 1e6).toFixed(3)} MHz processor`);
}

type Log = (text: string) => Guest<void>;

function* reportDevices(pci: readonly PciDevice[], log: Log): Guest<void> {
  for (const { slot, fn, vendor, device, classCode, authorized } of pci) {
    const where = `pci 0000:00:${hex(slot, 2)}.${fn}:`;
    yield* log(`${where} [${hex(vendor, 4)}:${hex(device, 4)}] type 00 class 0x${hex(classCode, 6)}`);
    if (!authorized) yield* log(`${where} not authorized by the device filter`);
  }
}

function* startKernel(params: BootParams, init: Init, secondary: string): Guest<void> {
  const tdx = yield* tdxEarlyInit();
  if (!tdx) return;
  const ve: VeStatistics = new Map();
  yield* installIdt(tdx.sharedMask, ve);
  const tscHz = yield* tscFrequency();
  const log: Log = (text) => printk(text, tscHz);
  yield* reportPlatform(params, tdx, tscHz, log);

  const acpi = params.rsdp === 0 ? [] : yield* readAcpiTables(params.rsdp);
  for (const table of acpi) yield* log(tableLine(table));
  const processors = readProcessors(acpi);
  yield* log(`smpboot: Allowing ${processors.apicIds.length} CPUs, 0 hotplug CPUs`);

  const memory = new MemoryManager(params.memoryMap);
  const top = Math.max(...params.memoryMap.map(({ base, size }) => base + size));
  const tables = yield* PageTables.install(memory, tdx.sharedMask, Math.ceil(top / GIB));
  yield* log(
    `Memory: ${memory.freeBytes / 1024}K/${memory.totalBytes / 1024}K available, ${memory.unacceptedBytes / 1024}K of it unaccepted`,
  );
  const cpus = yield* bringUpSecondaries(processors, params.memoryMap, secondary, log);
  const swiotlb = yield* Swiotlb.create(memory, tables, SWIOTLB_PAGES);
  const poolEnd = swiotlb.base + swiotlb.pages * 4096 - 1;
  yield* log(
    `software IO TLB: mapped [mem 0x${hex(swiotlb.base)}-0x${hex(poolEnd)}] (${swiotlb.pages * 4}KB)`,
  );
  yield* log("Memory Encryption Features active: Intel TDX");
  const pci = yield* scanPci();
  yield* reportDevices(pci, log);
  const tdxGuest = yield* TdxGuestDriver.probe(memory, swiotlb, tdx.sharedMask);
  const { commandLine, initrd } = params;
  const parts = { commandLine, tdx, ve, memory, tables, swiotlb, tdxGuest, acpi, pci, initrd, tscHz, cpus };
  const kernel = new Kernel(parts);
  yield* log("Run /init as init process");
  yield* init(kernel);
  yield* tdxPanic("Attempted to kill init!");
}

/**
 * The image's entry point: RCX is the image handle, RDX the system table.
 * @param secondary name of the program that application processors begin with
 */
export const createKernelProgram = (init: Init, secondary: string): GuestProgram =>
  function* kernelEntry(regs) {
    try {
      yield* startKernel(yield* efiStub(regs.rcx, regs.rdx), init, secondary);
    } catch (error) {
      if (error instanceof StubError) return error.status;
      // The module refused a hypercall: Linux panics, and so silently.
      if (error instanceof TdvmcallFailed) for (;;) yield* guest.hlt();
      throw error;
    }
    return EFI_STATUS.UNSUPPORTED;
  };
