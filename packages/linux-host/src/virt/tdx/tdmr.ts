/**
 * Trust Domain Memory Regions: how Linux covers its memory with TDMRs, sizes and places their PAMTs, and reserves
 * what in them is no TDX memory. The order of steps and the rules are construct_tdmrs()'s of Linux
 * arch/x86/virt/vmx/tdx/tdx.c; TDMR_INFO is the TDX Module ABI specification's.
 *
 * Addresses and sizes are bytes.
 */
import { Errno, PAGE_SIZE, pfn, type Pfn } from "@swtdx/abi";

/** What TDH.SYS.RD tells of TDMRs (struct tdx_sys_info_tdmr). Entry sizes are bytes per page. */
export interface TdmrSysInfo {
  readonly maxTdmrs: number;
  readonly maxReservedPerTdmr: number;
  readonly pamt4kEntrySize: number;
  readonly pamt2mEntrySize: number;
  readonly pamt1gEntrySize: number;
}

/** A memory region of the kernel's, in bytes, `end` exclusive (struct tdx_memblock). */
export interface TdxMemblock {
  readonly start: number;
  readonly end: number;
}

export interface TdmrReservedArea {
  /** From the TDMR's base. */
  readonly offset: number;
  readonly size: number;
}

export interface Tdmr {
  readonly base: number;
  readonly size: number;
  pamt1gBase: number;
  pamt1gSize: number;
  pamt2mBase: number;
  pamt2mSize: number;
  pamt4kBase: number;
  pamt4kSize: number;
  reservedAreas: TdmrReservedArea[];
}

/** Where PAMTs come from. */
export interface PamtPages {
  /** @returns the first of `pages` contiguous pages, or null for ENOMEM */
  alloc(pages: number): Pfn | null;
  free(head: Pfn, pages: number): void;
}

export type Printk = (level: "err" | "warn" | "info", text: string) => void;

/** A negated errno, or a result. */
export type Result<T> =
  { readonly ok: true; readonly value: T } | { readonly ok: false; readonly errno: number };

const SZ_1G = 2 ** 30;
const SZ_2M = 2 ** 21;
const SZ_1M = 2 ** 20;
/** Linux warns when fewer TDMRs than this are left. */
const TDMR_NR_WARN = 4;

const alignDown = (value: number, to: number) => Math.floor(value / to) * to;
const alignUp = (value: number, to: number) => Math.ceil(value / to) * to;
const tdmrEnd = (tdmr: Tdmr) => tdmr.base + tdmr.size;
const hex = (value: number) => `0x${value.toString(16)}`;

/** The memory regions that become TDX memory: memblock's without the first megabyte, which is in no CMR. */
export function buildTdxMemlist(regions: readonly TdxMemblock[]): TdxMemblock[] {
  return regions
    .map(({ start, end }) => ({ start: Math.max(start, SZ_1M), end }))
    .filter(({ start, end }) => start < end);
}

/** Bytes of the PAMT that covers a TDMR with entries for pages of `pageSize` bytes. */
export function pamtSize(tdmrSize: number, pageSize: number, entrySize: number): number {
  return alignUp((tdmrSize / pageSize) * entrySize, PAGE_SIZE);
}

/** The PAMTs of a TDMR, which are one allocation: 4K, then 2M, then 1G. */
export function tdmrPamt(tdmr: Tdmr): { base: number; size: number } {
  return { base: tdmr.pamt4kBase, size: tdmr.pamt4kSize + tdmr.pamt2mSize + tdmr.pamt1gSize };
}

export function tdmrsFreePamtAll(tdmrs: readonly Tdmr[], pages: PamtPages): void {
  for (const tdmr of tdmrs) {
    const { base, size } = tdmrPamt(tdmr);
    if (size !== 0) pages.free(pfn(base / PAGE_SIZE), size / PAGE_SIZE);
  }
}

/**
 * TDMRs with PAMTs and reserved areas for the given memory.
 * @returns -ENOSPC when the module has too few TDMRs or reserved areas, -ENOMEM without memory for a PAMT
 */
export function constructTdmrs(
  memlist: readonly TdxMemblock[],
  info: TdmrSysInfo,
  pages: PamtPages,
  printk: Printk,
): Result<Tdmr[]> {
  const filled = fillOutTdmrs(memlist, info, printk);
  if (!filled.ok) return filled;
  const tdmrs = filled.value;
  const fail = (errno: number): Result<Tdmr[]> => {
    tdmrsFreePamtAll(tdmrs, pages);
    return { ok: false, errno };
  };
  for (const tdmr of tdmrs) if (!setUpPamt(tdmr, info, pages)) return fail(-Errno.ENOMEM);
  for (const tdmr of tdmrs) {
    const errno = populateReservedAreas(tdmr, memlist, tdmrs, info.maxReservedPerTdmr, printk);
    if (errno !== 0) return fail(errno);
  }
  return { ok: true, value: tdmrs };
}

/** One TDMR a memory region, each a multiple of 1 GB; a region that starts in the last TDMR is covered from its end. */
function fillOutTdmrs(memlist: readonly TdxMemblock[], info: TdmrSysInfo, printk: Printk): Result<Tdmr[]> {
  const tdmrs: Tdmr[] = [];
  for (const region of memlist) {
    let start = alignDown(region.start, SZ_1G);
    const end = alignUp(region.end, SZ_1G);
    const last = tdmrs.at(-1);
    if (last) {
      if (end <= tdmrEnd(last)) continue;
      start = Math.max(start, tdmrEnd(last));
    }
    if (tdmrs.length >= info.maxTdmrs) {
      printk("warn", "initialization failed: TDMRs exhausted.");
      return { ok: false, errno: -Errno.ENOSPC };
    }
    tdmrs.push({
      base: start,
      size: end - start,
      pamt1gBase: 0,
      pamt1gSize: 0,
      pamt2mBase: 0,
      pamt2mSize: 0,
      pamt4kBase: 0,
      pamt4kSize: 0,
      reservedAreas: [],
    });
  }
  if (info.maxTdmrs - tdmrs.length < TDMR_NR_WARN)
    printk("warn", `consumed TDMRs reaching limit: ${tdmrs.length} used out of ${info.maxTdmrs}`);
  return { ok: true, value: tdmrs };
}

function setUpPamt(tdmr: Tdmr, info: TdmrSysInfo, pages: PamtPages): boolean {
  const size4k = pamtSize(tdmr.size, PAGE_SIZE, info.pamt4kEntrySize);
  const size2m = pamtSize(tdmr.size, SZ_2M, info.pamt2mEntrySize);
  const size1g = pamtSize(tdmr.size, SZ_1G, info.pamt1gEntrySize);
  const head = pages.alloc((size4k + size2m + size1g) / PAGE_SIZE);
  if (head === null) return false;
  tdmr.pamt4kBase = head * PAGE_SIZE;
  tdmr.pamt4kSize = size4k;
  tdmr.pamt2mBase = tdmr.pamt4kBase + size4k;
  tdmr.pamt2mSize = size2m;
  tdmr.pamt1gBase = tdmr.pamt2mBase + size2m;
  tdmr.pamt1gSize = size1g;
  return true;
}

function populateReservedAreas(
  tdmr: Tdmr,
  memlist: readonly TdxMemblock[],
  tdmrs: readonly Tdmr[],
  max: number,
  printk: Printk,
): number {
  const areas: TdmrReservedArea[] = [];
  const add = (start: number, end: number): boolean => {
    if (areas.length >= max) {
      printk(
        "warn",
        `initialization failed: TDMR [${hex(tdmr.base)}, ${hex(tdmrEnd(tdmr))}): reserved areas exhausted.`,
      );
      return false;
    }
    areas.push({ offset: start - tdmr.base, size: end - start });
    return true;
  };
  for (const [start, end] of holesIn(tdmr, memlist)) if (!add(start, end)) return -Errno.ENOSPC;
  for (const other of tdmrs) {
    // Only the part of a PAMT within this TDMR.
    const pamt = tdmrPamt(other);
    const start = Math.max(pamt.base, tdmr.base);
    const end = Math.min(pamt.base + pamt.size, tdmrEnd(tdmr));
    if (start < end && !add(start, end)) return -Errno.ENOSPC;
  }
  // The module wants them in ascending order.
  tdmr.reservedAreas = areas.sort((a, b) => a.offset - b.offset);
  return 0;
}

/** What of a TDMR no memory region covers. */
function holesIn(tdmr: Tdmr, memlist: readonly TdxMemblock[]): [number, number][] {
  const holes: [number, number][] = [];
  let covered = tdmr.base;
  for (const { start, end } of memlist) {
    if (start >= tdmrEnd(tdmr)) break;
    if (end < tdmr.base) continue;
    if (start > covered) holes.push([covered, start]);
    covered = end;
  }
  if (covered < tdmrEnd(tdmr)) holes.push([covered, tdmrEnd(tdmr)]);
  return holes;
}
