/** guest_memfd against a model: folios, holes, and every page back. */
import { PAGE_SIZE, type Pfn } from "@swtdx/abi";
import { PageAllocator } from "@swtdx/linux-host";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GuestMemfd } from "../src/guest-memfd.js";

const UNIT = 512;
/** Two whole folios and half of one. */
const PAGES = 2.5 * UNIT;
const index = fc.oneof(fc.nat(PAGES - 1), fc.constantFrom(0, 511, 512, 1023, 1024));
const step = fc.oneof(
  fc.record({ op: fc.constant("page" as const), index }),
  fc.record({ op: fc.constant("punch" as const), index, count: fc.constantFrom(1, 3, 512, 600) }),
);

function build(huge: boolean, frames = 8 * UNIT) {
  const allocator = new PageAllocator([{ start: UNIT + 3, end: UNIT + 3 + frames }]);
  const scrubbed: number[] = [];
  const invalidated: [number, number][] = [];
  const memfd = new GuestMemfd(
    PAGES * PAGE_SIZE,
    allocator,
    (page, count) => scrubbed.push(...Array.from({ length: count }, (_, i) => page + i)),
    huge,
  );
  memfd.onInvalidate = (first, count) => invalidated.push([first, count]);
  return { allocator, memfd, scrubbed, invalidated };
}

describe("guest_memfd", () => {
  it.each([true, false])("keeps its pages until they are punched (folios of 2 MiB: %s)", (huge) => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const { allocator, memfd, scrubbed } = build(huge);
        const free = allocator.freePageCount;
        const model = new Map<number, Pfn>();
        for (const one of steps)
          if (one.op === "page") {
            const page = memfd.page(one.index);
            if (model.has(one.index)) expect(page).toBe(model.get(one.index));
            else expect([...model.values()]).not.toContain(page);
            model.set(one.index, page);
            expect(allocator.ownerOf(page)).toBe("guest_memfd");
            // Within a folio, place in the file and in memory go together.
            if (memfd.isHuge(one.index)) expect(page % UNIT).toBe(one.index % UNIT);
          } else {
            const count = Math.min(one.count, PAGES - one.index);
            scrubbed.length = 0;
            expect(memfd.punchHole(one.index * PAGE_SIZE, count * PAGE_SIZE)).toBe(0);
            const gone = new Set(scrubbed);
            for (let at = one.index; at < one.index + count; at++) {
              const page = model.get(at);
              if (page === undefined) continue;
              expect(gone.has(page)).toBe(true);
              expect(allocator.ownerOf(page)).toBe(null);
              model.delete(at);
            }
            for (const page of model.values()) expect(gone.has(page)).toBe(false);
          }
        scrubbed.length = 0;
        memfd.unreferenced();
        expect(allocator.freePageCount).toBe(free);
        for (const page of model.values()) expect(scrubbed).toContain(page);
      }),
      { numRuns: 40 },
    );
  });

  it("has folios only where 2 MiB of the file are empty", () => {
    const { memfd } = build(true);
    expect(memfd.isHuge(0)).toBe(false);
    memfd.page(7);
    expect([0, 511, 512].map((at) => memfd.isHuge(at))).toEqual([true, true, false]);
    // A hole splits it; what is left is single pages, until nothing is left.
    memfd.punchHole(PAGE_SIZE, PAGE_SIZE);
    memfd.page(1);
    expect(memfd.isHuge(0)).toBe(false);
    memfd.punchHole(0, UNIT * PAGE_SIZE);
    memfd.page(1);
    expect(memfd.isHuge(0)).toBe(true);
    // Half of 2 MiB at the end of the file.
    memfd.page(2 * UNIT);
    expect(memfd.isHuge(2 * UNIT)).toBe(false);
  });

  it("makes do with single pages when the host has no block", () => {
    const { memfd, allocator } = build(true, UNIT);
    expect(allocator.allocPages(9, "test")).toBe(null);
    memfd.page(0);
    expect(memfd.isHuge(0)).toBe(false);
    for (let at = 1; at < UNIT; at++) memfd.page(at);
    expect(() => memfd.page(UNIT)).toThrow(/errno/);
  });

  it("tells of holes before they are there, and refuses bad ones", () => {
    const { memfd, invalidated } = build(true);
    expect(memfd.punchHole(PAGE_SIZE, 2 * PAGE_SIZE)).toBe(0);
    expect(invalidated).toEqual([[1, 2]]);
    for (const [offset, length] of [
      [1, PAGE_SIZE],
      [0, 5],
      [-PAGE_SIZE, PAGE_SIZE],
      [0, (PAGES + 1) * PAGE_SIZE],
    ])
      expect(memfd.punchHole(offset, length)).toBeLessThan(0);
  });
});
