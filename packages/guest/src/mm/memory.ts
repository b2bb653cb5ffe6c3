/**
 * The page allocator over the memory map of the firmware, and acceptance of what the firmware left unaccepted:
 * memory is accepted, 2 MiB at a time, when it is first allocated (Linux: mm/page_alloc.c, accept_memory()).
 */
import { EFI_MEMORY_TYPE, type Guest, PAGE_SIZE, tdcall } from "@swtdx/abi";
import { tdxPanic } from "../arch/tdcall.js";

/** A range of physical memory in bytes, and its EFI memory type. */
export interface MemoryRange {
  type: number;
  base: number;
  size: number;
}

const SIZE_2M = 0x20_0000;
/** The kernel uses memory from here on. */
const LOW_LIMIT = 0x100_0000;

export class MemoryManager {
  readonly #free: { base: number; size: number }[];
  readonly #unaccepted: { base: number; size: number }[];
  /** Bytes accepted by the kernel so far. */
  acceptedBytes = 0;

  constructor(readonly map: readonly MemoryRange[]) {
    const usable = (type: number) =>
      map
        .filter((range) => range.type === type && range.base >= LOW_LIMIT)
        .map(({ base, size }) => ({ base, size }));
    this.#free = [];
    for (const { base, size } of usable(EFI_MEMORY_TYPE.Conventional)) this.#release(base, size);
    this.#unaccepted = usable(EFI_MEMORY_TYPE.Unaccepted);
  }

  /** Bytes of memory of any usable kind. */
  get totalBytes(): number {
    const kinds: readonly number[] = [
      EFI_MEMORY_TYPE.Conventional,
      EFI_MEMORY_TYPE.Unaccepted,
      EFI_MEMORY_TYPE.LoaderCode,
      EFI_MEMORY_TYPE.LoaderData,
      EFI_MEMORY_TYPE.BootServicesCode,
      EFI_MEMORY_TYPE.BootServicesData,
    ];
    return this.map.filter(({ type }) => kinds.includes(type)).reduce((sum, { size }) => sum + size, 0);
  }

  /** Bytes that can be allocated, accepted or not. */
  get freeBytes(): number {
    return this.#free.reduce((sum, { size }) => sum + size, this.unacceptedBytes);
  }

  /** Bytes that nobody has accepted yet. */
  get unacceptedBytes(): number {
    return this.#unaccepted.reduce((sum, { size }) => sum + size, 0);
  }

  /** Physical address of `count` contiguous pages; panics without memory. */
  *allocPages(count: number): Guest<number> {
    const size = count * PAGE_SIZE;
    for (;;) {
      const range = this.#free.find((one) => one.size >= size);
      if (range) {
        const { base } = range;
        range.base += size;
        range.size -= size;
        if (range.size === 0) this.#free.splice(this.#free.indexOf(range), 1);
        return base;
      }
      yield* this.#acceptMore(Math.ceil(size / SIZE_2M) * SIZE_2M);
    }
  }

  /** Gives pages back. */
  freePages(base: number, count: number): void {
    this.#release(base, count * PAGE_SIZE);
  }

  /** Adds a free range, merged with its neighbours. */
  #release(base: number, size: number): void {
    const after = this.#free.findIndex((range) => range.base >= base);
    const at = after < 0 ? this.#free.length : after;
    const [before, next] = [this.#free[at - 1], this.#free[at]];
    if (before && before.base + before.size === base) {
      before.size += size;
      if (next && before.base + before.size === next.base) {
        before.size += next.size;
        this.#free.splice(at, 1);
      }
    } else if (next && base + size === next.base) {
      next.base = base;
      next.size += size;
    } else this.#free.splice(at, 0, { base, size });
  }

  *#acceptMore(wanted: number): Guest<void> {
    const range = this.#unaccepted.find(({ size }) => size >= wanted) ?? this.#unaccepted[0];
    if (!range) return yield* tdxPanic("Out of memory");
    // Up to a 2 MiB boundary first, so that large pages can be accepted as such afterwards.
    const head = range.base % SIZE_2M === 0 ? 0 : SIZE_2M - (range.base % SIZE_2M);
    const size = Math.min(range.size, head + wanted);
    yield* acceptMemory(range.base, size);
    this.acceptedBytes += size;
    this.#release(range.base, size);
    range.base += size;
    range.size -= size;
    if (range.size === 0) this.#unaccepted.splice(this.#unaccepted.indexOf(range), 1);
  }
}

/**
 * One page of a level (0: 4K, 1: 2M, 2: 1G). Any status means: try smaller ones. "Already accepted" is a failure too:
 * a page that is accepted twice is one whose contents the VMM could have changed.
 */
function* tryAccept(gpa: number, level: number): Guest<boolean> {
  return (yield* tdcall("TDG.MEM.PAGE.ACCEPT", { rcx: BigInt(gpa + level) })).rax === 0n;
}

const LEVEL_SIZES = [2 ** 30, 2 ** 21, 2 ** 12] as const;

/** Accepts a range: 1 GiB, 2 MiB and 4 KiB pages are tried in this order (tdx_accept_memory in Linux). */
export function* acceptMemory(base: number, size: number): Guest<void> {
  const end = base + size;
  for (let at = base; at < end;) {
    let done = 0;
    for (let i = 0; i < LEVEL_SIZES.length && done === 0; i++) {
      const bytes = LEVEL_SIZES[i];
      if (at % bytes === 0 && at + bytes <= end && (yield* tryAccept(at, 2 - i))) done = bytes;
    }
    if (done === 0) yield* tdxPanic(`Accepting 0x${at.toString(16)} failed`);
    at += done;
  }
}
