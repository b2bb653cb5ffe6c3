/**
 * SYSINFO_TABLE: what MCHECK verified of the platform, for the module: the first page of the SEAM range, written by
 * the P-SEAMLDR from its own P_SYSINFO_TABLE.
 * Source: intel/tdx-module src/common/data_structures/loader_data.h (sysinfo_table_t).
 */
import { array, CMR_INFO, MAX_CMRS, nested, struct, u32, u64, u8, viewOf } from "@swtdx/abi";

const MAX_PKGS = 8;
/** Bytes of the part that MCHECK fills in. */
export const SYSINFO_MCHECK_SIZE = 2048;
export const SYSINFO_TABLE = struct("SYSINFO_TABLE", 4096, {
  VERSION: u64(0),
  TOT_NUM_LPS: u32(8),
  TOT_NUM_SOCKETS: u32(12),
  /** CPUID(1).EAX of each socket. */
  SOCKET_CPUID_TABLE: array(16, MAX_PKGS, u32),
  SMRR2_NOT_SUPPORTED: u8(64),
  TDX_WITHOUT_INTEGRITY: u8(65),
  CMRS: array(128, MAX_CMRS, (at) => nested(at, CMR_INFO)),
  // P-SEAMLDR's part
  SEAM_STATUS: u64(2048),
  CODE_RGN_BASE: u64(2056),
  CODE_RGN_SIZE: u64(2064),
  DATA_RGN_BASE: u64(2072),
  DATA_RGN_SIZE: u64(2080),
  STACK_RGN_BASE: u64(2088),
  STACK_RGN_SIZE: u64(2096),
  NUM_STACK_PAGES: u64(2136),
  NUM_TLS_PAGES: u64(2144),
});
export const SYSINFO_TABLE_SIZE = SYSINFO_TABLE.size;
const VERSION = 0n;

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
    const end = table.CMRS.findIndex(({ CMR_SIZE }) => CMR_SIZE === 0);
    const list = end < 0 ? table.CMRS : table.CMRS.slice(0, end);
    this.cmrs = list.map(({ CMR_BASE, CMR_SIZE }) => ({ base: CMR_BASE, size: CMR_SIZE }));
    this.valid =
      table.VERSION === VERSION &&
      this.cmrs.length > 0 &&
      this.cmrs.every(({ base, size }, i) => {
        const previous = this.cmrs[i - 1];
        return base % 4096 === 0 && size % 4096 === 0 && (!previous || base >= previous.base + previous.size);
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
