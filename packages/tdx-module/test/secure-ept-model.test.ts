/**
 * The host's and the guest's operations on two times 2 MiB of private memory, at random, against a model: each status,
 * every page in one place, the PAMT and the count of children with it, and the guest's memory as the guest left it.
 */
import {
  guest,
  type Guest,
  PAGE_SIZE,
  SEPT_STATE,
  type SeamcallName,
  TDX_STATUS,
  withOperand,
} from "@swtdx/abi";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { PageType } from "../src/structures/pamt.js";
import { RESET_PAGE, resetPage, Td, TdHost } from "./support/td-host.js";

const TABLES = 0x1_0000;
const BASE = 0x40_0000;
const MIB2 = 2 ** 21;
const UNITS = 2;
const BLOCKS = 3;
const ENTRIES = 512;
const CHILDREN = 0x8010000300000004n;
/** Entries of a page table that single operations work on. */
const SPOTS = [0, 3, 511];
const {
  TDX_SUCCESS,
  TDX_EPT_WALK_FAILED,
  TDX_EPT_ENTRY_STATE_INCORRECT,
  TDX_GPA_RANGE_NOT_BLOCKED,
  TDX_GPA_RANGE_ALREADY_BLOCKED,
  TDX_TLB_TRACKING_NOT_DONE,
  TDX_PAGE_METADATA_INCORRECT,
  TDX_EPT_INVALID_PROMOTE_CONDITIONS,
  TDX_EPT_PAGE_NOT_FREE,
  TDX_PAGE_ALREADY_ACCEPTED,
  TDX_PAGE_SIZE_MISMATCH,
  TDX_OPERAND_INVALID,
} = TDX_STATUS;
/** `expect` costs more than most of what is compared here. */
const same = (actual: unknown, expected: unknown): void => {
  if (actual !== expected) expect(actual).toBe(expected);
};
const RCX = (status: bigint): bigint => withOperand(status, "RCX");

interface Leaf {
  page: number;
  pending: boolean;
  /** Epoch in which it was blocked. */
  blocked: number | null;
}
interface Table {
  page: number;
  blocked: number | null;
  entries: (Leaf | null)[];
}
/** What a PD entry is. */
type Unit = { kind: "free" } | { kind: "leaf"; leaf: Leaf } | { kind: "table"; table: Table };

const spot = fc.constantFrom(...SPOTS);
const unit = fc.nat(UNITS - 1);
const block = fc.nat(BLOCKS - 1);
const level = fc.constantFrom(0 as const, 1 as const);
const at = { unit, spot, level };
const operation = fc.oneof(
  { weight: 2, arbitrary: fc.record({ op: fc.constant("sept.add" as const), unit }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant("aug" as const), ...at, block, from: spot }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant("fill" as const), unit, block }) },
  { weight: 6, arbitrary: fc.record({ op: fc.constant("block" as const), ...at }) },
  { weight: 5, arbitrary: fc.record({ op: fc.constant("track" as const) }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant("unblock" as const), ...at }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constant("remove" as const), ...at }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant("demote" as const), unit }) },
  { weight: 3, arbitrary: fc.record({ op: fc.constant("promote" as const), unit }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant("sept.remove" as const), unit }) },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant("relocate" as const), unit, spot, block, from: spot }),
  },
  { weight: 5, arbitrary: fc.record({ op: fc.constant("accept" as const), ...at }) },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant("write" as const), value: fc.integer({ min: 1, max: 99 }) }),
  },
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

function stateOf(leaf: Leaf | null): number {
  if (leaf === null) return SEPT_STATE.FREE;
  if (leaf.blocked === null) return leaf.pending ? SEPT_STATE.PENDING : SEPT_STATE.MAPPED;
  return leaf.pending ? SEPT_STATE.PENDING_BLOCKED : SEPT_STATE.BLOCKED;
}

function* enter64(): Guest<void> {
  const table = new Uint8Array(2 * PAGE_SIZE);
  const view = new DataView(table.buffer);
  view.setBigUint64(0, BigInt(TABLES + PAGE_SIZE) | 3n, true);
  for (let gib = 0; gib < 4; gib++)
    view.setBigUint64(PAGE_SIZE + 8 * gib, BigInt(gib * 2 ** 30) | 0x83n, true);
  yield* guest.storeBytes(BigInt(TABLES), table);
  yield* guest.writeCr(4, (yield* guest.readCr(4)) | 0x20n);
  yield* guest.writeCr(3, BigInt(TABLES));
  yield* guest.writeCr(0, (yield* guest.readCr(0)) | 0x8000_0000n);
}

/** A TD, and what the model says of its memory. */
class Machine {
  readonly td: Td;
  readonly units: Unit[] = Array.from({ length: UNITS }, () => ({ kind: "free" }));
  /** 4 KiB pages of the pool that are the TD's. */
  readonly used = new Set<number>();
  /** What the guest left in the spots that it can read, by GPA. */
  readonly contents = new Map<number, number>();
  epoch = 0;
  work: () => Guest<void> = function* () {};

  constructor(
    readonly host: TdHost,
    readonly blocks: readonly number[],
    hkid: number,
  ) {
    host.programs.set("@swtdx/test:Model", this.#program.bind(this));
    this.td = new Td(host, host.lp, hkid).create().init();
    this.td.addVcpu();
    this.td.addPage(RESET_PAGE, resetPage("@swtdx/test:Model"), false);
    this.td.addPage(TABLES, undefined, false);
    this.td.addPage(TABLES + PAGE_SIZE, undefined, false);
    this.td.addSept(BASE, 1);
    this.td.finalize();
  }
  *#program(): Guest<void> {
    yield* enter64();
    yield* guest.ljmp64();
    for (;;) {
      yield* this.work();
      yield* guest.tdcall({ rax: 0n, rcx: 0x1c00n, r10: 0n, r11: 1n, r12: 0n });
    }
  }
  guest(work: () => Guest<void>): void {
    this.work = work;
    expect(this.td.enter().status).toBe(77n);
  }

  call(name: SeamcallName, gpa: number, level: number, r8 = 0) {
    return this.host.call(name, { rcx: BigInt(gpa + level), rdx: this.td.handle, r8: BigInt(r8) });
  }
  gpa(unit: number, level: number, spot: number): number {
    return BASE + unit * MIB2 + (level === 0 ? spot * PAGE_SIZE : 0);
  }
  tracked(blocked: number): boolean {
    return this.epoch > blocked;
  }
  /** The page table of a unit if a walk gets through it. */
  walkable(unit: number): Table | null {
    const one = this.units[unit];
    return one.kind === "table" && one.table.blocked === null ? one.table : null;
  }
  /** The leaf or table at an operand; undefined: no walk gets there. */
  entry(unit: number, level: number, spot: number): Leaf | Table | null | undefined {
    if (level === 0) return this.walkable(unit)?.entries[spot];
    const one = this.units[unit];
    return one.kind === "free" ? null : one.kind === "leaf" ? one.leaf : one.table;
  }
  setEntry(unit: number, level: number, spot: number, leaf: Leaf | null): void {
    if (level === 0) this.walkable(unit)!.entries[spot] = leaf;
    else this.units[unit] = leaf ? { kind: "leaf", leaf } : { kind: "free" };
  }
  frames(page: number, level: number): number[] {
    return Array.from({ length: ENTRIES ** level }, (_, i) => page + i * PAGE_SIZE);
  }
  isFree(page: number, level: number): boolean {
    return this.frames(page, level).every((frame) => !this.used.has(frame));
  }
  take(page: number, level: number): Leaf {
    for (const frame of this.frames(page, level)) this.used.add(frame);
    return { page, pending: true, blocked: null };
  }
  give(page: number, level: number): void {
    for (const frame of this.frames(page, level)) this.used.delete(frame);
  }
  /** Spots of the guest's memory under an operand. */
  spots(unit: number, level: number, spot: number): number[] {
    return (level === 0 ? [spot] : SPOTS).map((one) => this.gpa(unit, 0, one));
  }
  /** The status where blocking and tracking come first; null when they are done. */
  notBlocked(blocked: number | null): bigint | null {
    if (blocked === null) return RCX(TDX_GPA_RANGE_NOT_BLOCKED);
    return this.tracked(blocked) ? null : RCX(TDX_TLB_TRACKING_NOT_DONE);
  }

  step(one: Operation): void {
    switch (one.op) {
      case "sept.add":
        return this.septAdd(one.unit);
      case "aug":
        return this.aug(
          one.unit,
          one.level,
          one.spot,
          this.blocks[one.block] + (one.level ? 0 : one.from * PAGE_SIZE),
        );
      case "fill":
        return this.fill(one.unit, this.blocks[one.block]);
      case "block":
        return this.block(one.unit, one.level, one.spot);
      case "track":
        this.td.ok("TDH.MEM.TRACK", { rcx: this.td.handle });
        this.epoch++;
        return;
      case "unblock":
        return this.unblock(one.unit, one.level, one.spot);
      case "remove":
        return this.remove(one.unit, one.level, one.spot);
      case "demote":
        return this.demote(one.unit);
      case "promote":
        return this.promote(one.unit);
      case "sept.remove":
        return this.septRemove(one.unit);
      case "relocate":
        return this.relocate(one.unit, one.spot, this.blocks[one.block] + one.from * PAGE_SIZE);
      case "accept":
        return this.accept(one.unit, one.level, one.spot);
      case "write":
        return this.write(one.value);
    }
  }

  septAdd(unit: number): void {
    const page = this.host.page();
    const { status } = this.call("TDH.MEM.SEPT.ADD", this.gpa(unit, 1, 0), 1, page);
    const free = this.units[unit].kind === "free";
    expect(status).toBe(free ? TDX_SUCCESS : RCX(TDX_EPT_ENTRY_STATE_INCORRECT));
    if (free)
      this.units[unit] = {
        kind: "table",
        table: { page, blocked: null, entries: new Array<null>(ENTRIES).fill(null) },
      };
    else this.host.host.pages.freePage((page / PAGE_SIZE) as never);
  }
  aug(unit: number, level: number, spot: number, page: number): void {
    const { status } = this.call("TDH.MEM.PAGE.AUG", this.gpa(unit, level, spot), level, page);
    const entry = this.entry(unit, level, spot);
    if (entry === undefined) same(status, RCX(TDX_EPT_WALK_FAILED));
    else if (entry !== null) same(status, RCX(TDX_EPT_ENTRY_STATE_INCORRECT));
    else if (!this.isFree(page, level)) same(status, withOperand(TDX_PAGE_METADATA_INCORRECT, "R8"));
    else {
      same(status, TDX_SUCCESS);
      this.setEntry(unit, level, spot, this.take(page, level));
    }
  }
  /** All that is free of a page table, from the pages of a block. */
  fill(unit: number, block: number): void {
    const table = this.walkable(unit);
    if (!table) return;
    for (let i = 0; i < ENTRIES; i++)
      if (table.entries[i] === null && this.isFree(block + i * PAGE_SIZE, 0))
        this.aug(unit, 0, i, block + i * PAGE_SIZE);
  }
  block(unit: number, level: number, spot: number): void {
    const { status } = this.call("TDH.MEM.RANGE.BLOCK", this.gpa(unit, level, spot), level);
    const entry = this.entry(unit, level, spot);
    if (entry === undefined) expect(status).toBe(RCX(TDX_EPT_WALK_FAILED));
    else if (entry === null) expect(status).toBe(RCX(TDX_EPT_ENTRY_STATE_INCORRECT));
    else if (entry.blocked !== null) expect(status).toBe(RCX(TDX_GPA_RANGE_ALREADY_BLOCKED));
    else {
      expect(status).toBe(TDX_SUCCESS);
      entry.blocked = this.epoch;
    }
  }
  unblock(unit: number, level: number, spot: number): void {
    const { status } = this.call("TDH.MEM.RANGE.UNBLOCK", this.gpa(unit, level, spot), level);
    const entry = this.entry(unit, level, spot);
    if (entry === undefined) expect(status).toBe(RCX(TDX_EPT_WALK_FAILED));
    else if (entry === null || entry.blocked === null)
      expect(status).toBe(RCX(TDX_EPT_ENTRY_STATE_INCORRECT));
    else if (!this.tracked(entry.blocked))
      expect(status).toBe(withOperand(TDX_TLB_TRACKING_NOT_DONE, "SEPT_TREE"));
    else {
      expect(status).toBe(TDX_SUCCESS);
      entry.blocked = null;
    }
  }
  remove(unit: number, level: number, spot: number): void {
    const { status, rcx } = this.call("TDH.MEM.PAGE.REMOVE", this.gpa(unit, level, spot), level);
    const entry = this.entry(unit, level, spot);
    if (entry === undefined) expect(status).toBe(RCX(TDX_EPT_WALK_FAILED));
    else if (entry === null || "entries" in entry) expect(status).toBe(RCX(TDX_EPT_ENTRY_STATE_INCORRECT));
    else if (this.notBlocked(entry.blocked) !== null) expect(status).toBe(this.notBlocked(entry.blocked));
    else {
      expect([status, rcx]).toEqual([TDX_SUCCESS, BigInt(entry.page)]);
      this.give(entry.page, level);
      this.setEntry(unit, level, spot, null);
      for (const gpa of this.spots(unit, level, spot)) this.contents.delete(gpa);
    }
  }
  demote(unit: number): void {
    const page = this.host.page();
    const { status } = this.call("TDH.MEM.PAGE.DEMOTE", this.gpa(unit, 1, 0), 1, page);
    const one = this.units[unit];
    const refused =
      one.kind === "leaf" ? this.notBlocked(one.leaf.blocked) : RCX(TDX_EPT_ENTRY_STATE_INCORRECT);
    expect(status).toBe(refused ?? TDX_SUCCESS);
    if (one.kind !== "leaf" || refused !== null) {
      this.host.host.pages.freePage((page / PAGE_SIZE) as never);
      return;
    }
    const { page: first, pending } = one.leaf;
    const entries = this.frames(first, 1).map((frame) => ({ page: frame, pending, blocked: null }));
    this.units[unit] = { kind: "table", table: { page, blocked: null, entries } };
  }
  promote(unit: number): void {
    const { status, rcx } = this.call("TDH.MEM.PAGE.PROMOTE", this.gpa(unit, 1, 0), 1);
    const one = this.units[unit];
    if (one.kind !== "table") {
      expect(status).toBe(RCX(TDX_EPT_ENTRY_STATE_INCORRECT));
      return;
    }
    const { table } = one;
    const refused = this.notBlocked(table.blocked);
    const [first] = table.entries;
    const fit =
      first !== null &&
      first.page % MIB2 === 0 &&
      table.entries.every(
        (entry, i) =>
          entry !== null &&
          entry.blocked === null &&
          entry.pending === first.pending &&
          entry.page === first.page + i * PAGE_SIZE,
      );
    if (refused !== null || !fit) {
      expect(status).toBe(refused ?? RCX(TDX_EPT_INVALID_PROMOTE_CONDITIONS));
      return;
    }
    expect([status, rcx]).toEqual([TDX_SUCCESS, BigInt(table.page)]);
    this.units[unit] = { kind: "leaf", leaf: { page: first.page, pending: first.pending, blocked: null } };
    this.freeTable(table);
  }
  septRemove(unit: number): void {
    const { status, rcx } = this.call("TDH.MEM.SEPT.REMOVE", this.gpa(unit, 1, 0), 1);
    const one = this.units[unit];
    if (one.kind !== "table") {
      expect(status).toBe(RCX(TDX_EPT_ENTRY_STATE_INCORRECT));
      return;
    }
    const { table } = one;
    const refused = this.notBlocked(table.blocked);
    if (refused !== null) expect(status).toBe(refused);
    else if (table.entries.some((entry) => entry !== null)) expect(status).toBe(RCX(TDX_EPT_PAGE_NOT_FREE));
    else {
      expect([status, rcx]).toEqual([TDX_SUCCESS, BigInt(table.page)]);
      this.units[unit] = { kind: "free" };
      this.freeTable(table);
    }
  }
  freeTable({ page }: Table): void {
    expect(this.host.pageType(page)).toBe(PageType.PT_NDA);
    this.host.host.pages.freePage((page / PAGE_SIZE) as never);
  }
  relocate(unit: number, spot: number, page: number): void {
    const { status, rcx } = this.call("TDH.MEM.PAGE.RELOCATE", this.gpa(unit, 0, spot), 0, page);
    const entry = this.entry(unit, 0, spot) as Leaf | null | undefined;
    if (entry === undefined) expect(status).toBe(RCX(TDX_EPT_WALK_FAILED));
    else if (entry === null) expect(status).toBe(RCX(TDX_EPT_ENTRY_STATE_INCORRECT));
    else if (entry.page === page) expect(status).toBe(withOperand(TDX_OPERAND_INVALID, "R8"));
    else if (this.notBlocked(entry.blocked) !== null) expect(status).toBe(this.notBlocked(entry.blocked));
    else if (!this.isFree(page, 0)) expect(status).toBe(withOperand(TDX_PAGE_METADATA_INCORRECT, "R8"));
    else {
      expect([status, rcx]).toEqual([TDX_SUCCESS, BigInt(entry.page)]);
      this.give(entry.page, 0);
      this.setEntry(unit, 0, spot, { ...this.take(page, 0), pending: entry.pending });
    }
  }

  /** TDG.MEM.PAGE.ACCEPT where it returns; what makes it exit would be tried again at the next entry. */
  accept(unit: number, level: number, spot: number): void {
    const large = this.entry(unit, 1, 0) ?? null;
    let expected: bigint | null = null;
    const of = (leaf: Leaf, at: number): bigint | null => {
      if (leaf.blocked !== null) return null;
      if (!leaf.pending) return withOperand(TDX_PAGE_ALREADY_ACCEPTED, at);
      return at === level ? TDX_SUCCESS : null;
    };
    if (large !== null && !("entries" in large)) expected = of(large, 1);
    else if (large !== null && level === 1) expected = withOperand(TDX_PAGE_SIZE_MISMATCH, 1);
    else if (large !== null) {
      const leaf = this.walkable(unit)?.entries[spot] ?? null;
      if (leaf !== null) expected = of(leaf, 0);
    }
    if (expected === null) return;
    let status = -1n;
    const operand = BigInt(this.gpa(unit, level, spot) + level);
    this.guest(function* () {
      status = (yield* guest.tdcall({ rax: 6n, rcx: operand })).rax;
    });
    expect(status).toBe(expected);
    if (status !== TDX_SUCCESS) return;
    (this.entry(unit, level, spot) as Leaf).pending = false;
    for (const gpa of this.spots(unit, level, spot)) this.contents.set(gpa, 0);
  }

  /** GPAs of spots that the guest can use now. */
  readable(): number[] {
    return [...this.contents.keys()].filter((gpa) => {
      const unit = Math.floor((gpa - BASE) / MIB2);
      const one = this.units[unit];
      if (one.kind === "leaf") return one.leaf.blocked === null && !one.leaf.pending;
      const leaf = this.walkable(unit)?.entries[((gpa - BASE) % MIB2) / PAGE_SIZE];
      return leaf && leaf.blocked === null && !leaf.pending;
    });
  }
  /** Reads what is there, and writes something else. */
  write(value: number): void {
    const gpas = this.readable();
    const seen: number[] = [];
    this.guest(function* () {
      for (const gpa of gpas) {
        seen.push(Number(yield* guest.load(BigInt(gpa + 8), 8)));
        yield* guest.store(BigInt(gpa + 8), 8, BigInt(value + (gpa / PAGE_SIZE) * 100));
      }
    });
    expect(seen).toEqual(gpas.map((gpa) => this.contents.get(gpa)));
    for (const gpa of gpas) this.contents.set(gpa, value + (gpa / PAGE_SIZE) * 100);
  }

  /** What the module says of every entry and every page of the pool. */
  checkAll(): void {
    const { host, td } = this;
    /** "level state page" as TDH.MEM.SEPT.RD says it. */
    const read = (gpa: number, level: number): string => {
      const { status, rcx, rdx } = this.call("TDH.MEM.SEPT.RD", gpa, level);
      same(status, TDX_SUCCESS);
      return `${rdx & 7n} ${(rdx >> 8n) & 0xffn} ${rcx & 0x000f_ffff_ffff_f000n}`;
    };
    const model = (leaf: Leaf | null, level: number): string =>
      `${level} ${stateOf(leaf)} ${leaf?.page ?? 0}`;
    const [seen, wanted]: string[][] = [[], []];
    const sizes = new Map<number, number>();
    let tables = 0;
    this.units.forEach((one, unit) => {
      seen.push(read(this.gpa(unit, 1, 0), 1));
      if (one.kind !== "table") {
        const leaf = one.kind === "leaf" ? one.leaf : null;
        wanted.push(model(leaf, 1));
        if (leaf) for (const frame of this.frames(leaf.page, 1)) sizes.set(frame, 1);
        return;
      }
      tables++;
      const { page, blocked, entries } = one.table;
      wanted.push(`1 ${blocked === null ? SEPT_STATE.NL_MAPPED : SEPT_STATE.NL_BLOCKED} 0`);
      expect(host.pageType(page)).toBe(PageType.PT_EPT);
      entries.forEach((leaf, i) => {
        if (leaf) sizes.set(leaf.page, 0);
        if (blocked !== null) return;
        seen.push(read(this.gpa(unit, 0, i), 0));
        wanted.push(model(leaf, 0));
      });
    });
    for (const block of this.blocks)
      for (const frame of this.frames(block, 1)) {
        const { rcx, rdx, r8 } = host.ok("TDH.PHYMEM.PAGE.RDMD", { rcx: BigInt(frame) });
        const size = sizes.get(frame);
        // An owner is kept when a page goes, but means nothing.
        seen.push(size === undefined ? `${rcx} ${r8}` : `${rcx} ${r8} ${rdx}`);
        wanted.push(size === undefined ? `${PageType.PT_NDA} 0` : `${PageType.PT_REG} ${size} ${td.handle}`);
      }
    expect(seen).toEqual(wanted);
    expect([...sizes.keys()].sort()).toEqual([...this.used].sort());
    const children = Number(host.ok("TDH.MNG.RD", { rcx: td.handle, rdx: CHILDREN }).r8);
    expect(children).toBe(td.children.length + tables + this.used.size);
  }

  destroy(): void {
    const { td } = this;
    for (const one of this.units)
      if (one.kind === "leaf") td.pages.set(one.leaf.page, one.leaf.page);
      else if (one.kind === "table") {
        td.sept.set(`table ${one.table.page}`, one.table.page);
        for (const leaf of one.table.entries) if (leaf) td.pages.set(leaf.page, leaf.page);
      }
    td.destroy();
    for (const block of this.blocks)
      for (const frame of this.frames(block, 1)) same(this.host.pageType(frame), PageType.PT_NDA);
    for (const page of [...td.children, td.tdr])
      if (!this.blocks.some((block) => page >= block && page < block + MIB2))
        this.host.host.pages.freePage((page / PAGE_SIZE) as never);
  }
}

describe("Secure EPT, PAMT and children", () => {
  const host = new TdHost({ lps: 1 });
  const hkid = host.nextHkid();
  const blocks = Array.from({ length: BLOCKS }, () => host.page(9));
  /** All at once what a random walk rarely finds in this order: fill, accept, merge, split. */
  const merge: Operation[] = [
    { op: "sept.add", unit: 0 },
    { op: "fill", unit: 0, block: 0 },
    { op: "block", unit: 0, level: 1, spot: 0 },
    { op: "track" },
    { op: "promote", unit: 0 },
    { op: "accept", unit: 0, level: 1, spot: 0 },
    { op: "write", value: 5 },
    { op: "block", unit: 0, level: 1, spot: 0 },
    { op: "track" },
    { op: "demote", unit: 0 },
    { op: "write", value: 6 },
    { op: "block", unit: 0, level: 0, spot: 3 },
    { op: "track" },
    { op: "relocate", unit: 0, spot: 3, block: 1, from: 0 },
    { op: "write", value: 7 },
  ];
  const live = (operations: readonly Operation[]): Machine => {
    const machine = new Machine(host, blocks, hkid);
    for (const one of operations) machine.step(one);
    return machine;
  };

  test("merged, split, moved", () => {
    const machine = live(merge);
    expect(machine.contents.size).toBe(SPOTS.length);
    expect(machine.units[0].kind).toBe("table");
    machine.checkAll();
    machine.destroy();
  });

  test("stay consistent under any operations", () => {
    const start = fc.nat(merge.length).map((count) => merge.slice(0, count));
    fc.assert(
      fc.property(start, fc.array(operation, { minLength: 20, maxLength: 80 }), (first, operations) => {
        const machine = live([...first, ...operations, { op: "write", value: 1 }, { op: "write", value: 2 }]);
        machine.checkAll();
        machine.destroy();
      }),
      { numRuns: 15 },
    );
  });
});
