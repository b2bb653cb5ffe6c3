/** The paging walk against an independent naive walker in bigint, and cases from the SDM. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  newPagingMode,
  PagingWalker,
  PF,
  Walk,
  type PagingMode,
  type TableMemory,
} from "../src/memory/paging.js";

/** Guest-physical memory that is a map of entries. */
class MapMemory implements TableMemory {
  lo = 0;
  hi = 0;
  readonly entries = new Map<number, bigint>();
  readEntry(gpa: number, bytes: 4 | 8): number {
    const value = this.entries.get(gpa - (gpa % 8)) ?? 0n;
    const shifted = bytes === 4 && gpa % 8 === 4 ? value >> 32n : value;
    this.lo = Number(shifted & 0xffffffffn);
    this.hi = bytes === 8 ? Number(shifted >> 32n) : 0;
    return 0;
  }
  setEntryFlags(gpa: number, lo: number, bytes: 4 | 8): number {
    const at = gpa - (gpa % 8);
    const value = this.entries.get(at) ?? 0n;
    const word = BigInt(lo >>> 0);
    const high = bytes === 4 && gpa % 8 === 4;
    this.entries.set(at, high ? (value & 0xffffffffn) | (word << 32n) : (value & ~0xffffffffn) | word);
    return 0;
  }
}

interface Naive {
  fault: number | null;
  gpa: bigint;
}
/** Straight from SDM section 4.5: no shortcuts, all bigint. */
function naive(
  memory: Map<number, bigint>,
  mode: PagingMode,
  la: bigint,
  access: number,
  user: boolean,
): Naive {
  const levels: number = mode.levels;
  const p = (n: bigint, from: number, to: number): bigint =>
    (n >> BigInt(to)) & ((1n << BigInt(from - to + 1)) - 1n);
  let table = BigInt(mode.cr3) & 0xf_ffff_ffff_f000n;
  let writable = true;
  let userPage = true;
  let xd = false;
  const code = (extra: number): number =>
    extra | (access === 2 ? 2 : 0) | (user ? 4 : 0) | (access === 16 && (mode.nx || mode.smep) ? 16 : 0);
  for (let level = levels; level >= 1; level--) {
    const shift = 12 + 9 * (level - 1);
    const entry = memory.get(Number(table + p(la, shift + 8, shift) * 8n)) ?? 0n;
    if ((entry & 1n) === 0n) return { fault: code(0), gpa: 0n };
    const big = level > 1 && p(entry, 7, 7) === 1n;
    const reserved =
      (mode.maxpa < 52 && p(entry, 51, mode.maxpa) !== 0n) ||
      (!mode.nx && p(entry, 63, 63) === 1n) ||
      (level >= 4 && big) ||
      (level === 3 && big && p(entry, 29, 13) !== 0n) ||
      (level === 2 && big && p(entry, 20, 13) !== 0n);
    if (reserved) return { fault: code(9), gpa: 0n };
    writable &&= p(entry, 1, 1) === 1n;
    userPage &&= p(entry, 2, 2) === 1n;
    xd ||= p(entry, 63, 63) === 1n;
    if (level === 1 || big) {
      const denied = user
        ? !userPage || (access === 2 && !writable) || (access === 16 && xd)
        : access === 16
          ? xd || (mode.smep && userPage)
          : (mode.smap && userPage) || (access === 2 && mode.wp && !writable);
      if (denied) return { fault: code(1), gpa: 0n };
      const size = 1n << BigInt(shift);
      return { fault: null, gpa: (entry & 0xf_ffff_ffff_f000n & ~(size - 1n)) | (la & (size - 1n)) };
    }
    table = entry & 0xf_ffff_ffff_f000n;
  }
  throw new Error("not reached");
}

describe("the paging walk", () => {
  it("agrees with a naive walker for 4 and 5 levels", () => {
    // Few frames and indices, so that random tables connect.
    const frame = fc.integer({ min: 1, max: 6 }).map((n) => BigInt(n) << 12n);
    const entry = fc
      .record({
        frame: fc.oneof({ weight: 9, arbitrary: frame }, fc.constant(0xf_ffe0_0000_0000n)),
        flags: fc.integer({ min: 0, max: 0xfff }),
        present: fc.integer({ min: 0, max: 9 }),
        big: fc.integer({ min: 0, max: 4 }),
        xd: fc.integer({ min: 0, max: 4 }),
      })
      .map(
        (e) =>
          e.frame |
          ((BigInt(e.flags) & ~0x81n) | (e.present ? 1n : 0n) | (e.big === 0 ? 0x80n : 0n)) |
          (e.xd === 0 ? 1n << 63n : 0n),
      );
    const tables = fc.array(fc.tuple(fc.integer({ min: 1, max: 6 }), fc.constantFrom(0, 1, 511), entry), {
      minLength: 4,
      maxLength: 40,
    });
    fc.assert(
      fc.property(
        tables,
        fc.constantFrom(4 as const, 5 as const),
        fc.array(fc.constantFrom(0n, 1n, 511n), { minLength: 5, maxLength: 5 }),
        fc.integer({ min: 0, max: 4095 }),
        fc.constantFrom(0, 2, 16),
        fc.record({
          user: fc.boolean(),
          wp: fc.boolean(),
          nx: fc.boolean(),
          smep: fc.boolean(),
          smap: fc.boolean(),
          maxpa: fc.constantFrom(46, 52),
        }),
        (list, levels, indices, offset, access, bits) => {
          const memory = new MapMemory();
          for (const [table, index, value] of list) memory.entries.set(table * 4096 + index * 8, value);
          const mode: PagingMode = { ...newPagingMode(), ...bits, levels, cr3: 4096 };
          let la = 0n;
          for (let i = 0; i < levels; i++) la = (la << 9n) | indices[i];
          la = (la << 12n) | BigInt(offset);
          const expected = naive(new Map(memory.entries), mode, la, access, bits.user);
          const walker = new PagingWalker(memory);
          const status = walker.walk(
            mode,
            Number(la & 0xffffffffn),
            Number((la >> 32n) & 0xffffffffn),
            access,
            bits.user,
            true,
          );
          if (expected.fault !== null) {
            expect(status).toBe(Walk.FAULT);
            expect(walker.errorCode).toBe(expected.fault);
          } else {
            expect(status).toBe(Walk.OK);
            expect(BigInt(walker.gpa)).toBe(expected.gpa & ~0xfffn);
          }
        },
      ),
      { numRuns: 2000 },
    );
  });

  it("sets accessed on the way and dirty at the leaf for writes", () => {
    const memory = new MapMemory();
    memory.entries.set(0x1000, 0x2007n);
    memory.entries.set(0x2000, 0x3007n);
    memory.entries.set(0x3000, 0x4007n);
    memory.entries.set(0x4000, 0x5007n);
    const mode: PagingMode = { ...newPagingMode(), levels: 4, cr3: 0x1000 };
    const walker = new PagingWalker(memory);
    walker.walk(mode, 0, 0, 0, false, true);
    expect([0x1000, 0x2000, 0x3000, 0x4000].map((at) => memory.entries.get(at)! & 0x60n)).toEqual([
      0x20n,
      0x20n,
      0x20n,
      0x20n,
    ]);
    expect(walker.dirty).toBe(false);
    walker.walk(mode, 0, 0, 2, false, true);
    expect(memory.entries.get(0x4000)! & 0x60n).toBe(0x60n);
    expect(memory.entries.get(0x3000)! & 0x60n).toBe(0x20n);
  });

  it("walks 32-bit tables with 4 MiB pages and PSE-36", () => {
    const memory = new MapMemory();
    const pde = (index: number, value: number): void => {
      const at = 0x1000 + index * 4;
      const old = memory.entries.get(at - (at % 8)) ?? 0n;
      memory.entries.set(at - (at % 8), at % 8 ? old | (BigInt(value) << 32n) : old | BigInt(value));
    };
    pde(0, 0x2003);
    pde(1, 0x00c00083 | (0x12 << 13));
    memory.entries.set(0x2008, 0x5003n);
    const mode: PagingMode = { ...newPagingMode(), levels: 2, cr3: 0x1000, pse: true };
    const walker = new PagingWalker(memory);
    expect(walker.walk(mode, 0x2abc, 0, 0, false, true)).toBe(Walk.OK);
    expect(walker.gpa).toBe(0x5000);
    expect(walker.walk(mode, 0x0041_2345, 0, 0, false, true)).toBe(Walk.OK);
    expect(walker.gpa).toBe(0x12_0000_0000 + 0xc00000 + 0x12000);
    expect(walker.walk(mode, 0x0080_0000, 0, 2, true, true)).toBe(Walk.FAULT);
    expect(walker.errorCode).toBe(PF.W | PF.U);
  });

  it("walks PAE tables from the loaded page-directory pointers", () => {
    const memory = new MapMemory();
    memory.entries.set(0x3000, 0x4003n);
    memory.entries.set(0x4000, 0x8000_0000_0000_5003n);
    const mode: PagingMode = { ...newPagingMode(), levels: 3, cr3: 0x1000, nx: true };
    mode.pdptes[2] = 0x3001;
    const walker = new PagingWalker(memory);
    expect(walker.walk(mode, 0x4000_0010, 0, 0, false, true)).toBe(Walk.OK);
    expect(walker.gpa).toBe(0x5000);
    expect(walker.walk(mode, 0x4000_0010, 0, 16, false, true)).toBe(Walk.FAULT);
    expect(walker.errorCode).toBe(PF.P | PF.I);
    expect(walker.walk(mode, 0x10, 0, 0, false, true)).toBe(Walk.FAULT);
  });
});
