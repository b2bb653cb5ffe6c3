/**
 * start_kernel: from the EFI stub to init. The order of the log's lines is Linux's.
 */
import { EFI_STATUS, guest, type Guest, type GuestFrame, type GuestProgram } from "@swtdx/abi";
import { TdvmcallFailed, tdxPanic } from "../arch/tdcall.js";
import { tdxEarlyInit, type TdxPlatform } from "../arch/tdx.js";
import { createVeHandler, VE_VECTOR, type VeStatistics } from "../arch/ve.js";
import { readAcpiTables } from "../drivers/acpi.js";
import { scanPci } from "../drivers/pci.js";
import { Swiotlb } from "../drivers/swiotlb.js";
import { TdxGuestDriver } from "../drivers/tdx-guest.js";
import { MemoryManager } from "../mm/memory.js";
import { PageTables } from "../mm/page-tables.js";
import { type BootParams, efiStub, StubError } from "./efi-stub.js";
import { type Init, Kernel, printk } from "./kernel.js";

const VERSION = "Linux version 6.12.0-swtdx (TypeScript)";
const SWIOTLB_PAGES = 64;
const GIB = 2 ** 30;
const CPUID_TSC = 0x15;

function* unexpectedException(frame: GuestFrame): Guest<void> {
  yield* tdxPanic(`Oops: exception ${frame.vector}, CR2 0x${frame.cr2.toString(16)}`);
}

function* installIdt(tdx: TdxPlatform, statistics: VeStatistics): Guest<void> {
  const handlers = new Map(Array.from({ length: 32 }, (_, vector) => [vector, unexpectedException] as const));
  yield* guest.lidt(new Map([...handlers, [VE_VECTOR, createVeHandler(tdx.sharedMask, statistics)]]));
}

/** TSC frequency in Hz from CPUID 0x15: the TDX module always gives it. */
function* tscFrequency(): Guest<number> {
  const { eax, ebx, ecx } = yield* guest.cpuid(CPUID_TSC);
  return eax === 0 ? 0 : Math.round((ecx * ebx) / eax);
}

const hex = (value: number | bigint, digits = 16) => value.toString(16).padStart(digits, "0");

function* startKernel(params: BootParams, init: Init): Guest<void> {
  const tdx = yield* tdxEarlyInit();
  if (!tdx) return;
  const ve: VeStatistics = new Map();
  yield* installIdt(tdx, ve);
  const tscHz = yield* tscFrequency();
  const log = (text: string) => printk(text, tscHz);
  yield* log(VERSION);
  yield* log(`Command line: ${params.commandLine}`);
  yield* log("tdx: Guest detected");
  yield* log(`tdx: Attributes: 0x${hex(tdx.attributes)}`);
  yield* log("BIOS-provided physical RAM map:");
  for (const { base, size, type } of params.memoryMap)
    yield* log(`efi: [mem 0x${hex(base)}-0x${hex(base + size - 1)}] type ${type}`);
  yield* log(`tsc: Detected ${(tscHz / 1e6).toFixed(3)} MHz processor`);

  const memory = new MemoryManager(params.memoryMap);
  const top = Math.max(...params.memoryMap.map(({ base, size }) => base + size));
  const tables = yield* PageTables.install(memory, tdx.sharedMask, Math.ceil(top / GIB));
  yield* log(`Memory: ${memory.totalBytes / 1024}K total, ${memory.unacceptedBytes / 1024}K unaccepted`);
  const swiotlb = yield* Swiotlb.create(memory, tables, SWIOTLB_PAGES);
  const poolEnd = swiotlb.base + swiotlb.pages * 4096 - 1;
  yield* log(
    `software IO TLB: mapped [mem 0x${hex(swiotlb.base)}-0x${hex(poolEnd)}] (${swiotlb.pages * 4}KB)`,
  );
  yield* log("Memory Encryption Features active: Intel TDX");
  const acpi = params.rsdp === 0 ? [] : yield* readAcpiTables(params.rsdp);
  yield* log(`ACPI: ${acpi.map(({ signature }) => signature).join(" ") || "no tables"}`);
  const pci = yield* scanPci();
  for (const { slot, fn, vendor, device, authorized } of pci)
    yield* log(
      `pci 0000:00:${hex(slot, 2)}.${fn}: [${hex(vendor, 4)}:${hex(device, 4)}] ${authorized ? "authorized" : "not authorized by the device filter"}`,
    );
  const tdxGuest = yield* TdxGuestDriver.probe(memory, swiotlb, tdx.sharedMask);
  const { commandLine, initrd } = params;
  const parts = { commandLine, tdx, ve, memory, tables, swiotlb, tdxGuest, acpi, pci, initrd, tscHz };
  const kernel = new Kernel(parts);
  yield* log("Run /init as init process");
  yield* init(kernel);
  yield* tdxPanic("Attempted to kill init!");
}

/** The image's entry point: RCX is the image handle, RDX the system table. */
export const createKernelProgram = (init: Init): GuestProgram =>
  function* kernelEntry(regs) {
    try {
      yield* startKernel(yield* efiStub(regs.rcx, regs.rdx), init);
    } catch (error) {
      if (error instanceof StubError) return error.status;
      // The module refused a hypercall: Linux panics, and so silently.
      if (error instanceof TdvmcallFailed) for (;;) yield* guest.hlt();
      throw error;
    }
    return EFI_STATUS.UNSUPPORTED;
  };
