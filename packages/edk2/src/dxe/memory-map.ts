/**
 * The memory map: EFI_MEMORY_DESCRIPTORs in guest memory, from the TD HOB. Memory is accepted when it is first
 * allocated; what nobody asked for stays EfiUnacceptedMemory and is the operating system's to accept.
 * Source: UEFI 2.10, ch. 7.2.
 */
import { EFI_MEMORY_DESCRIPTOR, EFI_MEMORY_TYPE, guest, type Guest, PAGE_SIZE, viewOf } from "@swtdx/abi";
import { MAILBOX, MEMORY_MAP, PAGE_TABLES, TD_HOB, TEMP_RAM, WORK_AREA } from "../image/layout.js";
import { acceptRange } from "../sec/accept.js";
import type { MemoryResource } from "../sec/hob.js";
import { readState, updateState } from "../lib/state.js";

/** A range of the map; addresses and sizes in bytes. */
export interface MapEntry {
  type: number;
  base: number;
  size: number;
}

/** The firmware's own type (of the range that UEFI leaves to firmware vendors): shared memory for DMA. */
export const FIRMWARE_DMA = 0x8000_0001;
/** Write-back cacheable. */
const ATTRIBUTE_WB = 8n;
export const MAX_MAP_ENTRIES = Math.floor(MEMORY_MAP.size / EFI_MEMORY_DESCRIPTOR.size);
/** Memory is accepted in steps of this many bytes. */
const ACCEPT_STEP = 0x20_0000;
/** Allocations come from above this: below are the firmware's fixed areas. */
const POOL_START = 0x100_0000;

export function encodeMap(entries: readonly MapEntry[]): Uint8Array {
  const out = new Uint8Array(entries.length * EFI_MEMORY_DESCRIPTOR.size);
  entries.forEach((entry, i) => {
    const descriptor = {
      Type: entry.type,
      PhysicalStart: entry.base,
      NumberOfPages: entry.size / PAGE_SIZE,
      Attribute: ATTRIBUTE_WB,
    };
    EFI_MEMORY_DESCRIPTOR.write(viewOf(out), descriptor, i * EFI_MEMORY_DESCRIPTOR.size);
  });
  return out;
}

export function* readMap(): Guest<MapEntry[]> {
  const { MapEntries } = yield* readState();
  const bytes = yield* guest.loadBytes(BigInt(MEMORY_MAP.base), MapEntries * EFI_MEMORY_DESCRIPTOR.size);
  return Array.from({ length: MapEntries }, (_, i) => {
    const entry = EFI_MEMORY_DESCRIPTOR.read(viewOf(bytes), i * EFI_MEMORY_DESCRIPTOR.size);
    return { type: entry.Type, base: entry.PhysicalStart, size: entry.NumberOfPages * PAGE_SIZE };
  });
}

/** Merges neighbours of one type. */
export function normalise(entries: readonly MapEntry[]): MapEntry[] {
  const out: MapEntry[] = [];
  for (const entry of [...entries].filter(({ size }) => size > 0).sort((a, b) => a.base - b.base)) {
    const last = out.at(-1);
    if (last && last.type === entry.type && last.base + last.size === entry.base) last.size += entry.size;
    else out.push({ ...entry });
  }
  return out;
}

/** The map with [base, base + size), which lies in one entry, turned into `type`. */
export function carve(entries: readonly MapEntry[], base: number, size: number, type: number): MapEntry[] {
  return normalise(
    entries.flatMap((entry) => {
      const end = entry.base + entry.size;
      if (base < entry.base || base + size > end) return [entry];
      return [
        { ...entry, size: base - entry.base },
        { type, base, size },
        { ...entry, base: base + size, size: end - base - size },
      ];
    }),
  );
}

function* writeMap(entries: readonly MapEntry[]): Guest<void> {
  const { MapKey } = yield* readState();
  yield* guest.storeBytes(BigInt(MEMORY_MAP.base), encodeMap(entries));
  yield* updateState({ MapEntries: entries.length, MapKey: MapKey + 1 });
}

/** Builds the map: what was added before the TD ran holds the firmware's areas, the rest is unaccepted. */
export function* initMemoryMap(resources: readonly MemoryResource[]): Guest<void> {
  let entries: MapEntry[] = resources.map(({ base, size, accepted }) => ({
    type: accepted ? EFI_MEMORY_TYPE.BootServicesData : EFI_MEMORY_TYPE.Unaccepted,
    base,
    size,
  }));
  for (const area of [TD_HOB, WORK_AREA, TEMP_RAM])
    entries = carve(entries, area.base, area.size, EFI_MEMORY_TYPE.BootServicesData);
  // Application processors wait at the mailbox, with these page tables, until the operating system wakes them.
  entries = carve(entries, PAGE_TABLES.base, PAGE_TABLES.size, EFI_MEMORY_TYPE.ACPIMemoryNVS);
  entries = carve(entries, MAILBOX, PAGE_SIZE, EFI_MEMORY_TYPE.ACPIMemoryNVS);
  yield* writeMap(entries);
}

const alignUp = (value: number, to: number) => Math.ceil(value / to) * to;

/** Where `size` bytes of conventional memory are free in [low, high), or -1. */
function findFree(entries: readonly MapEntry[], size: number, low: number, high: number): number {
  for (const entry of entries) {
    if (entry.type !== EFI_MEMORY_TYPE.Conventional) continue;
    const base = Math.max(entry.base, low);
    if (base + size <= Math.min(entry.base + entry.size, high)) return base;
  }
  return -1;
}

/**
 * Allocates `size` bytes (a multiple of 4 KiB) below `high` as `type`, accepting memory as needed.
 * @returns its GPA, or -1 when there is not enough
 */
export function* allocate(size: number, type: number, high = 2 ** 32): Guest<number> {
  for (;;) {
    const entries = yield* readMap();
    if (entries.length + 2 > MAX_MAP_ENTRIES) return -1;
    const base = findFree(entries, size, POOL_START, high);
    if (base >= 0) {
      yield* writeMap(carve(entries, base, size, type));
      return base;
    }
    const step = alignUp(size, ACCEPT_STEP);
    const source = entries.find((entry) => {
      const start = Math.max(entry.base, POOL_START);
      return (
        entry.type === EFI_MEMORY_TYPE.Unaccepted && start + step <= Math.min(entry.base + entry.size, high)
      );
    });
    if (!source) return -1;
    const start = Math.max(source.base, POOL_START);
    yield* acceptRange(start, step);
    yield* writeMap(carve(entries, start, step, EFI_MEMORY_TYPE.Conventional));
  }
}

/** Takes `size` bytes out of the unaccepted memory above `low`, aligned to `size`, as `type`, without accepting them; -1: none. */
export function* reserveUnaccepted(size: number, low: number, type: number): Guest<number> {
  const entries = yield* readMap();
  for (const entry of entries) {
    const base = alignUp(Math.max(entry.base, low), size);
    if (entry.type !== EFI_MEMORY_TYPE.Unaccepted || base + size > Math.min(entry.base + entry.size, 2 ** 32))
      continue;
    yield* writeMap(carve(entries, base, size, type));
    return base;
  }
  return -1;
}

/** Turns a whole allocation into `type` (freeing: Conventional; never accepted: Unaccepted). @returns whether it is one */
export function* retype(base: number, size: number, type: number): Guest<boolean> {
  const entries = yield* readMap();
  if (!entries.some((entry) => base >= entry.base && base + size <= entry.base + entry.size)) return false;
  yield* writeMap(carve(entries, base, size, type));
  return true;
}
