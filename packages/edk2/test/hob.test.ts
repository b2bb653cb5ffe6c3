import { EFI_HOB_TYPE, viewOf } from "@swtdx/abi";
import { buildTdHob, layoutMemory, parseTdvf, splitTdRam } from "@swtdx/qemu";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { buildFirmware, validateTdHob } from "../src/index.js";

const tdvf = parseTdvf(buildFirmware(), "edk2");
const list = buildTdHob(tdvf, splitTdRam(layoutMemory(512 * 2 ** 20, 0x40000), tdvf));
const PHIT = 56;
const RESOURCE = 48;
/** Offsets in the first resource descriptor. */
const at = (field: number) => PHIT + field;

const changed = (...changes: [number, number, (8 | 16 | 32 | 64)?][]) => {
  const out = list.slice();
  for (const [where, value, bits = 32] of changes) {
    if (bits === 64) viewOf(out).setBigUint64(where, BigInt(value), true);
    else if (bits === 16) viewOf(out).setUint16(where, value, true);
    else if (bits === 8) viewOf(out).setUint8(where, value);
    else viewOf(out).setUint32(where, value, true);
  }
  return out;
};

describe("validateTdHob", () => {
  it("takes QEMU's list and measures it up to the END HOB", () => {
    const hob = validateTdHob(list);
    if ("error" in hob) throw new Error(hob.error);
    expect(hob.measuredLength).toBe(list.length - 8);
    expect(hob.resources.reduce((sum, { size }) => sum + size, 0)).toBe(512 * 2 ** 20);
  });
  it.each([
    ["no END HOB", list.subarray(0, list.length - 8), "no END HOB in"],
    ["nothing", new Uint8Array(), "no END HOB in 0 bytes"],
    ["only an END HOB", list.subarray(list.length - 8), "the list is empty"],
    ["no PHIT", list.subarray(PHIT), "the list does not start with a PHIT"],
    ["a second PHIT", new Uint8Array([...list.subarray(0, PHIT), ...list]), "HOB at 0x38: a second PHIT"],
    ["a short PHIT", changed([2, 48, 16]), "PHIT of 48 bytes"],
    ["length 0", changed([at(2), 0, 16]), "HOB at 0x38: length 0"],
    ["an odd length", changed([at(2), 49, 16]), "HOB at 0x38: length 49"],
    ["a length beyond the list", changed([at(2), 0xfff8, 16]), "HOB at 0x38: length 65528"],
    ["a reserved field", changed([at(4), 1]), "HOB at 0x38: reserved field is not 0"],
    [
      "memory allocations",
      changed([at(0), EFI_HOB_TYPE.MEMORY_ALLOCATION, 16]),
      "HOB at 0x38: type 2 is not allowed",
    ],
    ["an unknown kind of resource", changed([at(24), 8]), "HOB at 0x38: resource type 8"],
    ["unknown attributes", changed([at(28), 0x8000_0000]), "HOB at 0x38: resource attribute"],
    ["no whole page", changed([at(32), 0x800, 64]), "HOB at 0x38: range 0x800"],
    ["no memory", changed([at(40), 0, 64]), "HOB at 0x38: range 0x0 + 0x0"],
    ["more than there is", changed([at(40), 2 ** 52, 64]), "HOB at 0x38: range"],
    ["overlaps", changed([at(40), 0x80_1000, 64]), "ranges overlap at 0x800000"],
    [
      "memory over the firmware",
      changed([at(32), 0xfffc_0000, 64], [at(40), 0x1000, 64]),
      "covers the firmware",
    ],
  ])("refuses %s", (_what, bytes, error) => {
    const out = validateTdHob(bytes);
    expect("error" in out && out.error).toContain(error);
  });
  it("refuses a list without end", () => {
    const many = new Uint8Array([
      ...list.subarray(0, PHIT),
      ...Array.from({ length: 129 }, (_, i) => [
        ...changed([at(32), i * 0x1000, 64], [at(40), 0x1000, 64]).subarray(PHIT, PHIT + RESOURCE),
      ]).flat(),
      ...list.subarray(list.length - 8),
    ]);
    expect(validateTdHob(many)).toEqual({ error: "more than 128 ranges of memory" });
  });
  it("never throws, and what it takes is sound", () => {
    const mutation = fc.array(fc.tuple(fc.nat(list.length - 1), fc.nat(255)), { maxLength: 5 });
    fc.assert(
      fc.property(mutation, fc.nat(list.length), (changes, cut) => {
        const bytes = list.slice(0, changes.length % 2 === 0 ? list.length : cut);
        for (const [where, value] of changes) if (where < bytes.length) bytes[where] = value;
        const out = validateTdHob(bytes);
        if ("error" in out) return;
        expect(out.measuredLength).toBeLessThan(bytes.length);
        out.resources.forEach(({ base, size }, i) => {
          expect(base % 4096 === 0 && size % 4096 === 0 && size > 0).toBe(true);
          expect(base + size).toBeLessThanOrEqual(out.resources[i + 1]?.base ?? 2 ** 52);
        });
      }),
      { numRuns: 2000 },
    );
  });
});
