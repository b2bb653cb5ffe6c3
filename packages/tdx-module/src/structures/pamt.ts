/**
 * PAMT: the physical address metadata tables. For each 4K, 2M and 1G page of a TDMR an entry of 16 bytes, in DRAM
 * under the global private HKID: who owns the page, and for what.
 *
 * Layout and walk: TDX module 1.5 base architecture specification, "Physical Memory Management"; intel/tdx-module
 * src/common/memory_handlers/pamt_manager.{h,c}.
 */
import { type Hpa, type KeyId, PAGE_SIZE_LEVEL, PAGE_TYPE } from "@swtdx/abi";
import type { SeamContext } from "@swtdx/cpu";

/** Page types. */
export const PageType = PAGE_TYPE;
export type PageType = (typeof PageType)[keyof typeof PageType];

/** Levels of pages and of PAMT entries. */
export const Level = PAGE_SIZE_LEVEL;

export const PAMT_ENTRY_SIZE = 16;
/** Offsets within an entry. */
export const PAMT = {
  /** 16-bit shared/exclusive lock with host priority. */
  ENTRY_LOCK: 0,
  /** 8-bit page type. */
  PT: 2,
  /** 40-bit owner: frame number of the TDR. */
  OWNER: 3,
  /** 64-bit BEPOCH: TD epoch at which the range was blocked. */
  BEPOCH: 8,
} as const;
export const PAMT_CHILD_ENTRIES = 512;
const ENTRIES_2M_IN_1G = 512;
const ENTRIES_4K_IN_1G = 512 * 512;
export const GIB = 2 ** 30;
export const MIB2 = 2 ** 21;

/** A TDMR as TDH.SYS.CONFIG accepted it. Addresses and sizes in bytes. */
export interface TdmrEntry {
  readonly base: number;
  readonly size: number;
  /** Where TDH.SYS.TDMR.INIT continues. */
  lastInitialized: number;
  readonly pamt1gBase: number;
  readonly pamt2mBase: number;
  readonly pamt4kBase: number;
  readonly reserved: readonly { readonly offset: number; readonly size: number }[];
  /** Mutex of TDH.SYS.TDMR.INIT. */
  lock: boolean;
}

/** The TDMR whose PAMT covers `pa` and is initialized there, or null. `tdmrs` is sorted by base. */
export function findTdmr(tdmrs: readonly TdmrEntry[], pa: number): TdmrEntry | null {
  let found: TdmrEntry | null = null;
  for (const tdmr of tdmrs) {
    if (tdmr.base > pa) break;
    found = tdmr;
  }
  if (found === null || pa >= found.base + found.size) return null;
  return pa >= found.lastInitialized - (found.lastInitialized % GIB) ? null : found;
}

/** HPA of the entry of the page of `level` that holds `pa`. */
export function pamtEntryPa(tdmr: TdmrEntry, pa: number, level: number): Hpa {
  const offset = pa - tdmr.base;
  switch (level) {
    case Level.PT_4KB:
      return (tdmr.pamt4kBase + Math.floor(offset / 4096) * PAMT_ENTRY_SIZE) as Hpa;
    case Level.PT_2MB:
      return (tdmr.pamt2mBase + Math.floor(offset / MIB2) * PAMT_ENTRY_SIZE) as Hpa;
    default:
      return (tdmr.pamt1gBase + Math.floor(offset / GIB) * PAMT_ENTRY_SIZE) as Hpa;
  }
}

export const pamtPageType = (lp: SeamContext, entry: Hpa, key: KeyId): number =>
  lp.readU8((entry + PAMT.PT) as Hpa, key);

/** HPA of the owning TDR. */
export function pamtOwner(lp: SeamContext, entry: Hpa, key: KeyId): Hpa {
  const low = lp.readU8((entry + PAMT.OWNER) as Hpa, key);
  return ((lp.readU32((entry + 4) as Hpa, key) * 256 + low) * 4096) as Hpa;
}

/** Sets page type and owner (HPA of the TDR; 0 for none). The lock is kept. */
export function setPamtEntry(lp: SeamContext, entry: Hpa, key: KeyId, type: PageType, owner: number): void {
  const frame = owner / 4096;
  lp.writeU16((entry + PAMT.PT) as Hpa, key, type | ((frame % 256) << 8));
  lp.writeU32((entry + 4) as Hpa, key, Math.floor(frame / 256));
}
export const setPamtPageType = (lp: SeamContext, entry: Hpa, key: KeyId, type: PageType): void =>
  lp.writeU8((entry + PAMT.PT) as Hpa, key, type);

export const pamtBepoch = (lp: SeamContext, entry: Hpa, key: KeyId): bigint =>
  lp.readU64((entry + PAMT.BEPOCH) as Hpa, key);
export const setPamtBepoch = (lp: SeamContext, entry: Hpa, key: KeyId, value: bigint): void =>
  lp.writeU64((entry + PAMT.BEPOCH) as Hpa, key, value);

/** Sizes in bytes of the three PAMT areas of a TDMR of `size` bytes (multiple of 1 GiB). */
export const pamtSizes = (size: number): { size4k: number; size2m: number; size1g: number } => ({
  size4k: (size / GIB) * ENTRIES_4K_IN_1G * PAMT_ENTRY_SIZE,
  size2m: (size / GIB) * ENTRIES_2M_IN_1G * PAMT_ENTRY_SIZE,
  size1g: Math.ceil(((size / GIB) * PAMT_ENTRY_SIZE) / 4096) * 4096,
});
