/** The running kernel, as its init sees it. */
import { EV, guest, type Guest } from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";
import type { TdxPlatform } from "../arch/tdx.js";
import type { VeStatistics } from "../arch/ve.js";
import { type AcpiTable, powerOff } from "../drivers/acpi.js";
import { appendEvent, readEventLog } from "../drivers/event-log.js";
import type { PciDevice } from "../drivers/pci.js";
import { serialWrite } from "../drivers/serial8250.js";
import type { Swiotlb } from "../drivers/swiotlb.js";
import type { TdxGuestDriver } from "../drivers/tdx-guest.js";
import type { MemoryManager } from "../mm/memory.js";
import type { PageTables } from "../mm/page-tables.js";

export interface KernelParts {
  commandLine: string;
  tdx: TdxPlatform;
  ve: VeStatistics;
  memory: MemoryManager;
  tables: PageTables;
  swiotlb: Swiotlb;
  tdxGuest: TdxGuestDriver;
  acpi: readonly AcpiTable[];
  pci: readonly PciDevice[];
  initrd: { address: number; size: number } | null;
  /** TSC frequency in Hz. */
  tscHz: number;
  /** Processors that run. */
  cpus: number;
}

export class Kernel {
  constructor(readonly parts: KernelParts) {}

  /** A line to the console, as a user program writes it. */
  *write(text: string): Guest<void> {
    yield* serialWrite(text);
  }

  /** A line of the kernel's log, with its time. */
  *printk(text: string): Guest<void> {
    yield* printk(text, this.parts.tscHz);
  }

  /** The value of `name=` on the command line, or null. */
  parameter(name: string): string | null {
    const word = this.parts.commandLine.split(" ").find((one) => one.startsWith(`${name}=`));
    return word ? word.slice(name.length + 1) : null;
  }

  /** Extends RTMR[index] with the SHA-384 of `event`, and logs it as the firmware would. @throws AttestationError */
  *measure(index: number, event: Uint8Array): Guest<void> {
    const digest = sha384(event);
    yield* this.parts.tdxGuest.extendRtmr(index, digest);
    yield* appendEvent(this.parts.acpi, { mrIndex: index + 1, type: EV.EVENT_TAG, digest, event });
  }

  /** The area of the event log (CCEL), or null. */
  eventLog(): Guest<Uint8Array | null> {
    return readEventLog(this.parts.acpi);
  }

  powerOff(): Guest<never> {
    return powerOff(this.parts.acpi);
  }
}

/** `[    0.001234] text`; the time is the TSC's, from the TD's start. */
export function* printk(text: string, tscHz: number): Guest<void> {
  const microseconds = Number(((yield* guest.rdtsc()) * 1_000_000n) / BigInt(tscHz || 1));
  const seconds = `${Math.floor(microseconds / 1e6)}`.padStart(5);
  const fraction = `${microseconds % 1e6}`.padStart(6, "0");
  yield* serialWrite(`[${seconds}.${fraction}] ${text}\n`);
}

/** The first process: what a user of this package writes. */
export type Init = (kernel: Kernel) => Guest<void>;
