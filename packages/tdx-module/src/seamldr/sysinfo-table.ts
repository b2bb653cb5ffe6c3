/**
 * SYSINFO_TABLE: what MCHECK verified of the platform, for the module: a page at the top of the SEAM range's module
 * part, written by the P-SEAMLDR. Here: the convertible memory ranges.
 * Source: intel/tdx-module src/common/data_structures/loader_data.h (sysinfo_table_t).
 */
import { array, CMR_INFO, MAX_CMRS, nested, struct, u32, u64, viewOf } from "@swtdx/abi";

const SYSINFO_TABLE = struct("SYSINFO_TABLE", 4096, {
  VERSION: u64(0),
  TDX_WITHOUT_INTEGRITY: u32(8),
  NUM_CMRS: u32(12),
  CMRS: array(0x100, MAX_CMRS, (at) => nested(at, CMR_INFO)),
});
export const SYSINFO_TABLE_SIZE = SYSINFO_TABLE.size;
const VERSION = 1n;

/** A range of convertible memory, bytes. */
export interface Cmr {
  readonly base: number;
  readonly size: number;
}

export interface PlatformInfo {
  readonly cmrs: readonly Cmr[];
  /** TD memory has the TD-owner bit but no MAC. */
  readonly tdxWithoutIntegrity: boolean;
}

/** @throws RangeError for more CMRs than the table takes */
export const encodeSysInfoTable = ({ cmrs, tdxWithoutIntegrity }: PlatformInfo): Uint8Array =>
  SYSINFO_TABLE.encode({
    VERSION,
    TDX_WITHOUT_INTEGRITY: tdxWithoutIntegrity ? 1 : 0,
    NUM_CMRS: cmrs.length,
    CMRS: cmrs.map(({ base, size }) => ({ CMR_BASE: base, CMR_SIZE: size })),
  });

export class SysInfoTable implements PlatformInfo {
  readonly cmrs: readonly Cmr[];
  readonly tdxWithoutIntegrity: boolean;
  /** The list is ordered, aligned and without overlaps. */
  readonly valid: boolean;
  /** Neighbours merged. */
  readonly #merged: readonly Cmr[];

  constructor(page: Uint8Array) {
    const table = SYSINFO_TABLE.read(viewOf(page));
    this.tdxWithoutIntegrity = table.TDX_WITHOUT_INTEGRITY !== 0;
    this.cmrs = table.CMRS.slice(0, table.NUM_CMRS).map(({ CMR_BASE, CMR_SIZE }) => ({
      base: CMR_BASE,
      size: CMR_SIZE,
    }));
    this.valid =
      table.VERSION === VERSION &&
      this.cmrs.length > 0 &&
      this.cmrs.every(({ base, size }, i) => {
        const previous = this.cmrs[i - 1];
        return (
          base % 4096 === 0 &&
          size % 4096 === 0 &&
          size > 0 &&
          (!previous || base >= previous.base + previous.size)
        );
      });
    const merged: { base: number; size: number }[] = [];
    for (const { base, size } of this.cmrs) {
      const last = merged.at(-1);
      if (last && last.base + last.size === base) last.size += size;
      else merged.push({ base, size });
    }
    this.#merged = merged;
  }

  /** The range is convertible memory throughout. */
  contains(range: Cmr): boolean {
    return this.#merged.some(
      ({ base, size }) => range.base >= base && range.base + range.size <= base + size,
    );
  }
}
