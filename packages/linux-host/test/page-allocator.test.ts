/** The page allocator against a model: no page is given twice, nothing is lost. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Pfn } from "@swtdx/abi";
import { BadPageError, MAX_PAGE_ORDER, PageAllocator } from "../src/index.js";

const regions = [
  { start: 1, end: 160 },
  { start: 256, end: 5000 },
  { start: 8192, end: 8192 + 2048 },
];
const total = regions.reduce((sum, { start, end }) => sum + end - start, 0);

describe("PageAllocator", () => {
  it("gives every page once, and takes all back", () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            fc.record({ kind: fc.constant("pages" as const), order: fc.nat(4) }),
            fc.record({
              kind: fc.constant("contig" as const),
              pages: fc.integer({ min: 1, max: 300 }),
              align: fc.constantFrom(1, 4, 64),
            }),
            fc.record({ kind: fc.constant("free" as const), which: fc.nat() }),
            fc.record({ kind: fc.constant("split" as const), which: fc.nat() }),
          ),
          { maxLength: 150 },
        ),
        (steps) => {
          const allocator = new PageAllocator(regions);
          const held: { head: Pfn; pages: number; order: number }[] = [];
          const used = new Set<number>();
          const take = (head: Pfn | null, pages: number, order: number): void => {
            if (head === null) return;
            for (let page: number = head; page < head + pages; page++) {
              expect(used.has(page)).toBe(false);
              expect(regions.some(({ start, end }) => page >= start && page < end)).toBe(true);
              used.add(page);
            }
            held.push({ head, pages, order });
          };
          for (const step of steps)
            if (step.kind === "pages") {
              const head = allocator.allocPages(step.order, "a");
              take(head, 2 ** step.order, step.order);
              if (head !== null) expect(head % 2 ** step.order).toBe(0);
            } else if (step.kind === "contig") {
              const head = allocator.allocContigPages(step.pages, "b", step.align);
              take(head, step.pages, -1);
              if (head !== null) expect(head % step.align).toBe(0);
            } else if (step.kind === "split") {
              const which = step.which % Math.max(held.length, 1);
              if (!held[which] || held[which].order < 0) continue;
              const [{ head, pages, order }] = held.splice(which, 1);
              allocator.splitPages(head, order);
              for (let i = 0; i < pages; i++) held.push({ head: (head + i) as Pfn, pages: 1, order: 0 });
            } else if (held.length > 0) {
              const [one] = held.splice(step.which % held.length, 1);
              for (let page: number = one.head; page < one.head + one.pages; page++) used.delete(page);
              if (one.order >= 0) allocator.freePages(one.head, one.order);
              else allocator.freeContigRange(one.head, one.pages);
            }
          expect(allocator.freePageCount).toBe(total - used.size);
          expect([...allocator.usage().values()].reduce((sum, pages) => sum + pages, 0)).toBe(used.size);
          for (const { head, pages, order } of held)
            if (order >= 0) allocator.freePages(head, order);
            else allocator.freeContigRange(head, pages);
          expect(allocator.freePageCount).toBe(total);
          // All merged again: the largest blocks are there.
          expect(allocator.allocPages(MAX_PAGE_ORDER, "c")).not.toBeNull();
        },
      ),
      { numRuns: 100 },
    );
  });

  it("names owners, and gives a freed page out first", () => {
    const allocator = new PageAllocator(regions);
    const page = allocator.allocPage("TD control")!;
    expect(allocator.ownerOf(page)).toBe("TD control");
    expect([...allocator.usage()]).toEqual([["TD control", 1]]);
    allocator.freePage(page);
    expect(allocator.ownerOf(page)).toBeNull();
    expect(allocator.allocPage("user")).toBe(page);
  });

  it("refuses to free what was not allocated so", () => {
    const allocator = new PageAllocator(regions);
    const page = allocator.allocPages(2, "x")!;
    expect(() => allocator.freePage(page)).toThrow(BadPageError);
    expect(() => allocator.freePages(1 as Pfn, 0)).toThrow(BadPageError);
    allocator.freePages(page, 2);
    expect(() => allocator.freePages(page, 2)).toThrow(BadPageError);
  });

  it("has an end", () => {
    const allocator = new PageAllocator([{ start: 16, end: 20 }]);
    expect(allocator.allocPages(3, "x")).toBeNull();
    for (let i = 0; i < 4; i++) expect(allocator.allocPage("x")).not.toBeNull();
    expect(allocator.allocPage("x")).toBeNull();
    expect(allocator.allocContigPages(1, "x")).toBeNull();
  });
});
