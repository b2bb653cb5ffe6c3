/**
 * Identity page tables for 0-4 GiB with 2 MiB pages at 8 MiB, and the way into 64-bit mode.
 * Follows OvmfPkg/ResetVector/Ia32/PageTables64.asm (edk2): accessed and dirty are preset, the shared bit is not.
 */
import { guest, type Guest } from "@swtdx/abi";
import { PAGE_TABLES } from "../image/layout.js";

const PRESENT_WRITABLE_ACCESSED = 0x23n;
/** Present, writable, accessed, dirty, page size. */
const LARGE_PAGE = 0xe3n;
const PDPT = PAGE_TABLES.base + 0x1000;
const PD = PAGE_TABLES.base + 0x2000;
const CR4_PAE = 1n << 5n;
const CR0_PG = 1n << 31n;

function table(entry: (index: number) => bigint, count = 512): Uint8Array {
  const out = new Uint8Array(4096);
  const view = new DataView(out.buffer);
  for (let i = 0; i < count; i++) view.setBigUint64(8 * i, entry(i), true);
  return out;
}

/** Builds the tables, switches paging on and enters 64-bit mode. EFER.LME is set in a TD from the start. */
export function* enterLongMode(): Guest<void> {
  yield* guest.storeBytes(
    BigInt(PAGE_TABLES.base),
    table(() => BigInt(PDPT) | PRESENT_WRITABLE_ACCESSED, 1),
  );
  yield* guest.storeBytes(
    BigInt(PDPT),
    table((i) => BigInt(PD + i * 0x1000) | PRESENT_WRITABLE_ACCESSED, 4),
  );
  for (let gib = 0; gib < 4; gib++)
    yield* guest.storeBytes(
      BigInt(PD + gib * 0x1000),
      table((i) => BigInt(gib * 2 ** 30 + i * 2 ** 21) | LARGE_PAGE),
    );
  yield* joinLongMode();
}

/** Switches paging on with the tables that are there, and enters 64-bit mode. */
export function* joinLongMode(): Guest<void> {
  yield* guest.writeCr(3, BigInt(PAGE_TABLES.base));
  yield* guest.writeCr(4, (yield* guest.readCr(4)) | CR4_PAE);
  yield* guest.writeCr(0, (yield* guest.readCr(0)) | CR0_PG);
  yield* guest.ljmp64();
}

/** Maps the 2 MiB page at `gpa` (below 4 GiB) as shared or private. */
export function* mapLargePage(gpa: number, sharedBit: number, shared: boolean): Guest<void> {
  const entry = BigInt(gpa) | LARGE_PAGE | (shared ? 1n << BigInt(sharedBit) : 0n);
  yield* guest.store(BigInt(PD + Math.floor(gpa / 2 ** 21) * 8), 8, entry);
  yield* guest.invlpg(BigInt(gpa));
}
