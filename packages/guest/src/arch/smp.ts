/**
 * Application processors: they wait in the firmware at the mailbox that the MADT names, are woken one by one with the
 * address of the trampoline, take over the kernel's page tables and handlers, and idle.
 * Linux: arch/x86/kernel/acpi/madt_wakeup.c, smpboot.c. Source: ACPI 6.5, ch. 5.2.12.19.
 */
import {
  ACPI_MADT_TYPE,
  EFI_MEMORY_TYPE,
  encodeProgramImage,
  guest,
  type Guest,
  type GuestFrame,
  type GuestProgram,
  PAGE_SIZE,
  viewOf,
  tdcall,
} from "@swtdx/abi";
import type { AcpiTable } from "../drivers/acpi.js";
import { acceptMemory, type MemoryRange } from "../mm/memory.js";
import { tdxPanic } from "./tdcall.js";
import { createVeHandler, VE_VECTOR, type VeStatistics } from "./ve.js";

/** The trampoline's page, below 1 MiB as Linux has it: the program's image, then what it needs to know. */
const TRAMPOLINE = 0x9_8000;
const AT = { cr3: TRAMPOLINE + 0x800, online: TRAMPOLINE + 0x808 } as const;
/** The mailbox: command, APIC ID, wakeup vector. */
const MAILBOX = { command: 0n, apicId: 4n, vector: 8n } as const;
const COMMAND_WAKEUP = 1n;
/** PAUSEs before a processor that does not come is given up. */
const MAX_POLLS = 1_000_000;
const MADT_ENTRIES = 44;
const ENABLED = 1;

/** What the MADT says of processors. */
export interface Processors {
  /** APIC IDs of the enabled ones. */
  apicIds: readonly number[];
  /** GPA of the wakeup mailbox, 0 without one. */
  mailbox: number;
}

/** Reads the MADT; without one there is a single processor. An entry that does not fit ends the list. */
export function readProcessors(tables: readonly AcpiTable[]): Processors {
  const madt = tables.find(({ signature }) => signature === "APIC")?.bytes;
  const apicIds: number[] = [];
  let mailbox = 0;
  for (let at = MADT_ENTRIES; madt && at + 2 <= madt.length;) {
    const view = viewOf(madt);
    const [type, length] = [madt[at], madt[at + 1]];
    if (length < 2 || at + length > madt.length) break;
    if (type === ACPI_MADT_TYPE.LOCAL_APIC && length >= 8) {
      if ((view.getUint32(at + 4, true) & ENABLED) !== 0) apicIds.push(madt[at + 3]);
    } else if (type === ACPI_MADT_TYPE.LOCAL_X2APIC && length >= 16) {
      if ((view.getUint32(at + 8, true) & ENABLED) !== 0) apicIds.push(view.getUint32(at + 4, true));
    } else if (type === ACPI_MADT_TYPE.MULTIPROC_WAKEUP && length >= 16) {
      mailbox = Number(view.getBigUint64(at + 8, true));
    }
    at += length;
  }
  return { apicIds: apicIds.length > 0 ? apicIds : [0], mailbox };
}

export function* unexpectedException(frame: GuestFrame): Guest<void> {
  yield* tdxPanic(`Oops: exception ${frame.vector}, CR2 0x${frame.cr2.toString(16)}`);
}

/** This processor's handlers: #VE, and a panic for everything else. */
export function* installIdt(sharedMask: bigint, statistics: VeStatistics): Guest<void> {
  const handlers = new Map(Array.from({ length: 32 }, (_, vector) => [vector, unexpectedException] as const));
  yield* guest.lidt(new Map([...handlers, [VE_VECTOR, createVeHandler(sharedMask, statistics)]]));
}

/** Where a woken processor begins. It knows nothing but the trampoline's address. */
export const secondaryStart: GuestProgram = function* () {
  yield* guest.writeCr(3, yield* guest.load(BigInt(AT.cr3), 8));
  const { rcx } = yield* tdcall("TDG.VP.INFO");
  yield* installIdt(1n << ((rcx & 0x3fn) - 1n), new Map());
  yield* guest.store(BigInt(AT.online), 4, (yield* guest.load(BigInt(AT.online), 4)) + 1n);
  yield* guest.cli();
  for (;;) yield* guest.hlt();
};

/** Makes the trampoline's page usable. @returns whether the memory map allows it */
function* claimTrampoline(map: readonly MemoryRange[]): Guest<boolean> {
  const range = map.find(({ base, size }) => TRAMPOLINE >= base && TRAMPOLINE + PAGE_SIZE <= base + size);
  if (range?.type === EFI_MEMORY_TYPE.Unaccepted) yield* acceptMemory(TRAMPOLINE, PAGE_SIZE);
  return range?.type === EFI_MEMORY_TYPE.Unaccepted || range?.type === EFI_MEMORY_TYPE.Conventional;
}

/** Waits until the `size`-byte value at `address` is `value`. @returns whether it came */
function* waitFor(address: bigint, size: 2 | 4, value: bigint): Guest<boolean> {
  for (let polls = 0; polls < MAX_POLLS; polls++) {
    if ((yield* guest.load(address, size)) === value) return true;
    yield* guest.pause();
  }
  return false;
}

/**
 * Wakes all application processors.
 * @param program name of `secondaryStart` in the trampoline's image
 * @returns how many processors there are now
 */
export function* bringUpSecondaries(
  { apicIds, mailbox }: Processors,
  map: readonly MemoryRange[],
  program: string,
  log: (text: string) => Guest<void>,
): Guest<number> {
  if (apicIds.length < 2) return 1;
  yield* log("smp: Bringing up secondary CPUs ...");
  if (mailbox === 0 || !(yield* claimTrampoline(map))) {
    yield* log("smpboot: no mailbox to wake them with");
    return 1;
  }
  yield* guest.storeBytes(BigInt(TRAMPOLINE), encodeProgramImage(program));
  yield* guest.store(BigInt(AT.cr3), 8, yield* guest.readCr(3));
  yield* guest.store(BigInt(AT.online), 4, 1n);
  yield* log("smpboot: x86: Booting SMP configuration:");
  let online = 1;
  const box = BigInt(mailbox);
  for (const [cpu, apicId] of apicIds.entries()) {
    if (cpu === 0) continue;
    yield* guest.store(box + MAILBOX.apicId, 4, BigInt(apicId));
    yield* guest.store(box + MAILBOX.vector, 8, BigInt(TRAMPOLINE));
    yield* guest.store(box + MAILBOX.command, 2, COMMAND_WAKEUP);
    const woken = yield* waitFor(box + MAILBOX.command, 2, 0n);
    if (!woken || !(yield* waitFor(BigInt(AT.online), 4, BigInt(online + 1)))) {
      yield* log(`smpboot: do_boot_cpu failed(-5) to wakeup CPU#${cpu}`);
      break;
    }
    online++;
  }
  yield* log(`smp: Brought up 1 node, ${online} CPUs`);
  return online;
}
