import { EFI_MEMORY_DESCRIPTOR, EFI_MEMORY_TYPE, PAGE_SIZE } from "@swtdx/abi";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { carve, encodeMap, type MapEntry, normalise } from "../src/dxe/memory-map.js";

/** Maps with gaps, from lengths and types. */
const maps = fc
  .array(fc.tuple(fc.nat(3), fc.integer({ min: 1, max: 16 }), fc.nat(15)), { minLength: 1, maxLength: 20 })
  .map((parts) => {
    let at = 0;
    return parts.map(([gap, pages, type]): MapEntry => {
      const base = at + gap * PAGE_SIZE;
      at = base + pages * PAGE_SIZE;
      return { type, base, size: pages * PAGE_SIZE };
    });
  });
/** The type of each page, -1 outside. */
const pages = (map: readonly MapEntry[]) => {
  const out = new Map<number, number>();
  for (const { type, base, size } of map)
    for (let at = base; at < base + size; at += PAGE_SIZE) {
      expect(out.has(at)).toBe(false);
      out.set(at, type);
    }
  return out;
};
const sorted = (map: readonly MapEntry[]) => [...pages(map)].sort(([a], [b]) => a - b);

describe("the memory map", () => {
  it("normalised says the same with the fewest entries", () => {
    fc.assert(
      fc.property(maps, (map) => {
        const out = normalise([...map].reverse());
        expect(sorted(out)).toEqual(sorted(map));
        for (let i = 1; i < out.length; i++) {
          expect(out[i].base).toBeGreaterThanOrEqual(out[i - 1].base + out[i - 1].size);
          expect(out[i].type === out[i - 1].type && out[i].base === out[i - 1].base + out[i - 1].size).toBe(
            false,
          );
        }
        expect(normalise(out)).toEqual(out);
      }),
    );
  });
  it("carved changes just the range, if one entry holds it", () => {
    fc.assert(
      fc.property(
        maps,
        fc.nat(30),
        fc.integer({ min: 1, max: 20 }),
        fc.nat(15),
        (map, first, count, type) => {
          const whole = normalise(map);
          const [base, size] = [first * PAGE_SIZE, count * PAGE_SIZE];
          const inside = whole.some((one) => base >= one.base && base + size <= one.base + one.size);
          const wanted = pages(whole);
          if (inside) for (let at = base; at < base + size; at += PAGE_SIZE) wanted.set(at, type);
          expect(sorted(carve(whole, base, size, type))).toEqual([...wanted].sort(([a], [b]) => a - b));
        },
      ),
    );
  });
  it("has EFI's descriptors", () => {
    const bytes = encodeMap([{ type: EFI_MEMORY_TYPE.Unaccepted, base: 0x1_0000_0000, size: 0x20_0000 }]);
    expect(EFI_MEMORY_DESCRIPTOR.decode(bytes)).toEqual({
      Type: 15,
      PhysicalStart: 0x1_0000_0000,
      VirtualStart: 0,
      NumberOfPages: 512,
      Attribute: 8n,
    });
  });
});
