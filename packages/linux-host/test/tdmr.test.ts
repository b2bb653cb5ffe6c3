/** construct_tdmrs(): the rules that TDH.SYS.CONFIG checks, for any memory map. */
import { Errno, PAGE_SIZE } from "@swtdx/abi";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  buildTdxMemlist,
  constructTdmrs,
  PageAllocator,
  pamtSize,
  tdmrPamt,
  type TdmrSysInfo,
} from "../src/index.js";

const GIB = 2 ** 30;
const MIB = 2 ** 20;
const INFO: TdmrSysInfo = {
  maxTdmrs: 64,
  maxReservedPerTdmr: 16,
  pamt4kEntrySize: 16,
  pamt2mEntrySize: 16,
  pamt1gEntrySize: 16,
};
interface Region {
  start: number;
  end: number;
}
function construct(regions: readonly Region[], info = INFO) {
  const log: string[] = [];
  const allocator = new PageAllocator(
    regions.map(({ start, end }) => ({ start: start / PAGE_SIZE, end: end / PAGE_SIZE })),
  );
  const pages = {
    alloc: (count: number) => allocator.allocContigPages(count, "PAMT"),
    free: (head: Parameters<PageAllocator["freeContigRange"]>[0], count: number) =>
      allocator.freeContigRange(head, count),
  };
  const result = constructTdmrs(buildTdxMemlist(regions), info, pages, (_level, text) => log.push(text));
  return { result, log, allocator };
}

describe("constructTdmrs", () => {
  it("covers one GiB with a hole at either end", () => {
    const { result } = construct([
      { start: 0x1000, end: 0xa0000 },
      { start: MIB, end: 984 * MIB },
    ]);
    if (!result.ok) throw new Error("errno");
    expect(result.value).toHaveLength(1);
    const [tdmr] = result.value;
    expect([tdmr.base, tdmr.size]).toEqual([0, GIB]);
    // 16 bytes a page: 4 MiB, one page, one page; in this order.
    expect([tdmr.pamt4kSize, tdmr.pamt2mSize, tdmr.pamt1gSize]).toEqual([4 * MIB, 2 * PAGE_SIZE, PAGE_SIZE]);
    expect(tdmr.pamt2mBase).toBe(tdmr.pamt4kBase + 4 * MIB);
    expect(tdmr.pamt1gBase).toBe(tdmr.pamt2mBase + 2 * PAGE_SIZE);
    const pamt = tdmrPamt(tdmr);
    expect(tdmr.reservedAreas).toEqual([
      { offset: 0, size: MIB },
      { offset: pamt.base, size: pamt.size },
      { offset: 984 * MIB, size: 40 * MIB },
    ]);
  });

  it("sizes PAMTs in whole pages", () => {
    expect(pamtSize(GIB, GIB, 16)).toBe(PAGE_SIZE);
    expect(pamtSize(3 * GIB, 2 * MIB, 16)).toBe(6 * PAGE_SIZE);
  });

  it("keeps the rules for any map", () => {
    const map = fc
      .array(fc.tuple(fc.integer({ min: 1, max: 400 }), fc.integer({ min: 40, max: 700 })), {
        minLength: 1,
        maxLength: 6,
      })
      .map((gaps) => {
        // Gap and length in units of 16 MiB.
        const regions: Region[] = [];
        let at = 0;
        for (const [gap, length] of gaps) {
          const start = at + gap * 16 * MIB;
          at = start + length * 16 * MIB;
          regions.push({ start, end: at });
        }
        return regions;
      });
    fc.assert(
      fc.property(map, (regions) => {
        const { result } = construct(regions);
        if (!result.ok) return;
        const tdmrs = result.value;
        let last = 0;
        for (const tdmr of tdmrs) {
          expect(tdmr.base % GIB).toBe(0);
          expect(tdmr.size % GIB).toBe(0);
          expect(tdmr.base).toBeGreaterThanOrEqual(last);
          last = tdmr.base + tdmr.size;
          let end = 0;
          for (const { offset, size } of tdmr.reservedAreas) {
            expect(offset % PAGE_SIZE).toBe(0);
            expect(size).toBeGreaterThan(0);
            expect(offset).toBeGreaterThanOrEqual(end);
            end = offset + size;
          }
          expect(end).toBeLessThanOrEqual(tdmr.size);
        }
        // A page is usable exactly when it is memory and in no PAMT.
        const usable = (pa: number) =>
          tdmrs.some(
            (tdmr) =>
              pa >= tdmr.base &&
              pa < tdmr.base + tdmr.size &&
              !tdmr.reservedAreas.some(
                ({ offset, size }) => pa >= tdmr.base + offset && pa < tdmr.base + offset + size,
              ),
          );
        const memory = (pa: number) =>
          pa >= MIB &&
          regions.some(({ start, end }) => pa >= start && pa < end) &&
          !tdmrs.some((tdmr) => {
            const { base, size } = tdmrPamt(tdmr);
            return pa >= base && pa < base + size;
          });
        const edges = [
          ...regions,
          ...tdmrs.map((tdmr) => ({
            start: tdmrPamt(tdmr).base,
            end: tdmrPamt(tdmr).base + tdmrPamt(tdmr).size,
          })),
        ];
        for (const { start, end } of edges)
          for (const pa of [start - PAGE_SIZE, start, end - PAGE_SIZE, end])
            if (pa >= 0) expect(usable(pa)).toBe(memory(pa));
      }),
      { numRuns: 30 },
    );
  });

  it("runs out of TDMRs, of reserved areas and of memory as Linux does, and leaks no PAMT", () => {
    const islands = Array.from({ length: 8 }, (_, i) => ({
      start: 2 * i * GIB + MIB,
      end: 2 * i * GIB + 64 * MIB,
    }));
    const tdmrs = construct(islands, { ...INFO, maxTdmrs: 4 });
    expect(tdmrs.result).toEqual({ ok: false, errno: -Errno.ENOSPC });
    expect(tdmrs.log).toEqual(["initialization failed: TDMRs exhausted."]);
    const crumbs = Array.from({ length: 20 }, (_, i) => ({
      start: (1 + 2 * i) * 16 * MIB,
      end: (2 + 2 * i) * 16 * MIB,
    }));
    const areas = construct(crumbs);
    expect(areas.result).toEqual({ ok: false, errno: -Errno.ENOSPC });
    expect(areas.log).toEqual(["initialization failed: TDMR [0x0, 0x40000000): reserved areas exhausted."]);
    expect(areas.allocator.usage().size).toBe(0);
    expect(construct([{ start: MIB, end: 2 * MIB }]).result).toEqual({ ok: false, errno: -Errno.ENOMEM });
    const few = construct([{ start: MIB, end: 64 * MIB }], { ...INFO, maxTdmrs: 4 });
    expect(few.log).toEqual(["consumed TDMRs reaching limit: 1 used out of 4"]);
  });
});
