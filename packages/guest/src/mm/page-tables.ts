/**
 * The kernel's page tables: an identity map, 2 MiB pages below 4 GiB (split where sharing needs it) and 1 GiB pages
 * above. The shared bit in an entry makes its memory the VMM's too.
 */
import { guest, type Guest, PAGE_SIZE } from "@swtdx/abi";
import { mapGpa, tdxPanic } from "../arch/tdcall.js";
import { acceptMemory, type MemoryManager } from "./memory.js";

const TABLE = 0x23n;
const LARGE = 0xe3n;
const SMALL = 0x63n;
const LARGE_BIT = 0x80n;
const ADDRESS_MASK = 0x000f_ffff_ffff_f000n;
const GIB = 2 ** 30;
const SIZE_2M = 2 ** 21;
const LOW_GIB = 4;
/** What one page directory pointer table reaches. */
const MAX_GIB = 512;

export class PageTables {
  private constructor(
    private readonly memory: MemoryManager,
    private readonly sharedMask: bigint,
    private readonly directories: readonly number[],
  ) {}

  /** Builds the tables for `gigabytes` of address space (at most 512) and loads CR3. */
  static *install(memory: MemoryManager, sharedMask: bigint, gigabytes: number): Guest<PageTables> {
    if (gigabytes > MAX_GIB) return yield* tdxPanic("Memory above 512 GiB");
    const pages = yield* memory.allocPages(2 + LOW_GIB);
    const page = (index: number) => pages + index * PAGE_SIZE;
    yield* writeTable(page(0), 1, () => BigInt(page(1)) | TABLE);
    yield* writeTable(page(1), Math.max(LOW_GIB, gigabytes), (gib) =>
      gib < LOW_GIB ? BigInt(page(2 + gib)) | TABLE : BigInt(gib * GIB) | LARGE,
    );
    const directories: number[] = [];
    for (let gib = 0; gib < LOW_GIB; gib++) {
      yield* writeTable(page(2 + gib), 512, (i) => BigInt(gib * GIB + i * SIZE_2M) | LARGE);
      directories.push(page(2 + gib));
    }
    yield* guest.writeCr(3, BigInt(page(0)));
    return new PageTables(memory, sharedMask, directories);
  }

  /** Address of the 4 KiB entry of `address`, splitting its large page if need be. */
  *#entryOf(address: number): Guest<bigint> {
    const directory = this.directories[Math.floor(address / GIB)];
    if (directory === undefined) return yield* tdxPanic("Only memory below 4 GiB can be shared");
    const at = BigInt(directory + Math.floor((address % GIB) / SIZE_2M) * 8);
    let entry = yield* guest.load(at, 8);
    if ((entry & LARGE_BIT) !== 0n) {
      const table = yield* this.memory.allocPages(1);
      const base = Math.floor(address / SIZE_2M) * SIZE_2M;
      yield* writeTable(table, 512, (i) => BigInt(base + i * PAGE_SIZE) | SMALL);
      entry = BigInt(table) | TABLE;
      yield* guest.store(at, 8, entry);
    }
    return (entry & ADDRESS_MASK) + BigInt(Math.floor((address % SIZE_2M) / PAGE_SIZE) * 8);
  }

  *#setShared(base: number, pages: number, shared: boolean): Guest<void> {
    for (let i = 0; i < pages; i++) {
      const address = base + i * PAGE_SIZE;
      const at = yield* this.#entryOf(address);
      yield* guest.store(at, 8, BigInt(address) | SMALL | (shared ? this.sharedMask : 0n));
      yield* guest.invlpg(BigInt(address));
    }
  }

  /** Turns pages shared (set_memory_decrypted): mapping first, then the VMM. */
  *setMemoryDecrypted(base: number, pages: number): Guest<void> {
    yield* this.#setShared(base, pages, true);
    if (!(yield* mapGpa(BigInt(base) | this.sharedMask, pages * PAGE_SIZE))) yield* tdxPanic("MapGPA failed");
  }

  /** Turns pages private (set_memory_encrypted): the VMM, acceptance (which zeroes them), then the mapping. */
  *setMemoryEncrypted(base: number, pages: number): Guest<void> {
    if (!(yield* mapGpa(BigInt(base), pages * PAGE_SIZE))) yield* tdxPanic("MapGPA failed");
    yield* acceptMemory(base, pages * PAGE_SIZE);
    yield* this.#setShared(base, pages, false);
  }

  /** Maps device registers shared (ioremap). */
  *ioremap(base: number, pages: number): Guest<void> {
    yield* this.#setShared(base, pages, true);
  }
}

function* writeTable(at: number, count: number, entry: (index: number) => bigint): Guest<void> {
  const bytes = new Uint8Array(PAGE_SIZE);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < count; i++) view.setBigUint64(8 * i, entry(i), true);
  yield* guest.storeBytes(BigInt(at), bytes);
}
