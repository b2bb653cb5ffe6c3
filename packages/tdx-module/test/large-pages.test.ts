/** Large pages split, merged and moved under a running TD, with the PAMT that goes with it. */
import { guest, type Guest, PAGE_SIZE, TDX_STATUS, withOperand } from "@swtdx/abi";
import { describe, expect, test } from "vitest";
import { PageType } from "../src/structures/pamt.js";
import { RESET_PAGE, resetPage, Td, TdHost } from "./support/td-host.js";

const TABLES = 0x1_0000;
const LARGE = 0x40_0000;
const MIB2 = 2 ** 21;
const S = TDX_STATUS;

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
  yield* guest.ljmp64();
}
/** To the VMM and back. */
const pauseGuest = () => guest.tdcall({ rax: 0n, rcx: 0x1c00n, r10: 0n, r11: 1n, r12: 0n });

/** A finalized TD that accepts the 2 MiB at LARGE, marks each page there and reads the marks at each entry. */
function build() {
  const at = new TdHost({ lps: 1 });
  const seen: bigint[][] = [];
  const accepted: bigint[] = [];
  at.programs.set("@swtdx/test:Large", function* () {
    yield* enter64();
    accepted.push((yield* guest.tdcall({ rax: 6n, rcx: BigInt(LARGE) | 1n })).rax);
    const marks = [0, 1, 7, 511];
    for (const page of marks)
      yield* guest.store(BigInt(LARGE + page * PAGE_SIZE + 8), 8, 0xabc000n + BigInt(page));
    for (;;) {
      yield* pauseGuest();
      const values: bigint[] = [];
      for (const page of marks) values.push(yield* guest.load(BigInt(LARGE + page * PAGE_SIZE + 8), 8));
      seen.push(values);
    }
  });
  const td = new Td(at).create().init();
  td.addVcpu();
  td.addPage(RESET_PAGE, resetPage("@swtdx/test:Large"));
  td.addPage(TABLES, undefined, false);
  td.addPage(TABLES + PAGE_SIZE, undefined, false);
  const page = td.aug(LARGE, 1);
  td.finalize();
  expect(td.enter().status).toBe(77n);
  expect(accepted).toEqual([0n]);
  const marks = [0xabc000n, 0xabc001n, 0xabc007n, 0xabc1ffn];
  const guestReads = () => {
    seen.length = 0;
    expect(td.enter().status).toBe(77n);
    expect(seen).toEqual([marks]);
  };
  const block = (mapping: number) => {
    td.ok("TDH.MEM.RANGE.BLOCK", { rcx: BigInt(mapping), rdx: td.handle });
    td.ok("TDH.MEM.TRACK", { rcx: td.handle });
  };
  const call =
    (name: "TDH.MEM.PAGE.DEMOTE" | "TDH.MEM.PAGE.PROMOTE" | "TDH.MEM.PAGE.RELOCATE") =>
    (mapping: number, r8 = 0) =>
      at.call(name, { rcx: BigInt(mapping), rdx: td.handle, r8: BigInt(r8) });
  return {
    at,
    td,
    page,
    guestReads,
    block,
    demote: call("TDH.MEM.PAGE.DEMOTE"),
    promote: call("TDH.MEM.PAGE.PROMOTE"),
    relocate: call("TDH.MEM.PAGE.RELOCATE"),
  };
}

describe("large pages", () => {
  test("are split, moved in part and merged again; the guest does not notice", () => {
    const { at, td, page, guestReads, block, demote, promote, relocate } = build();
    guestReads();
    const rdmd = (hpa: number) => {
      const { rcx, rdx, r8 } = at.ok("TDH.PHYMEM.PAGE.RDMD", { rcx: BigInt(hpa) });
      return [Number(rcx), rdx, Number(r8)];
    };
    expect(rdmd(page + 0x5000)).toEqual([PageType.PT_REG, td.handle, 1]);

    // Split: not before it is blocked and tracked.
    const table = at.page();
    expect(demote(LARGE + 1, table).status).toBe(withOperand(S.TDX_GPA_RANGE_NOT_BLOCKED, "RCX"));
    td.ok("TDH.MEM.RANGE.BLOCK", { rcx: BigInt(LARGE + 1), rdx: td.handle });
    expect(demote(LARGE + 1, table).status).toBe(withOperand(S.TDX_TLB_TRACKING_NOT_DONE, "RCX"));
    td.ok("TDH.MEM.TRACK", { rcx: td.handle });
    expect(demote(LARGE + 1, td.tdr).status).toBe(withOperand(S.TDX_OPERAND_BUSY, "R8"));
    expect(demote(LARGE + 1, page).status).toBe(withOperand(S.TDX_PAGE_METADATA_INCORRECT, "R8"));
    const split = demote(LARGE + 1, table);
    expect([split.status, split.rcx, split.rdx]).toEqual([0n, 0n, 0n]);
    expect(rdmd(page)).toEqual([PageType.PT_REG, td.handle, 0]);
    expect(rdmd(page + MIB2 - PAGE_SIZE)).toEqual([PageType.PT_REG, td.handle, 0]);
    expect(rdmd(table)).toEqual([PageType.PT_EPT, td.handle, 0]);
    guestReads();

    // One 4 KiB page moves, and the parts are no large page any more.
    const other = at.page();
    const moved = LARGE + 7 * PAGE_SIZE;
    expect(relocate(moved, other).status).toBe(withOperand(S.TDX_GPA_RANGE_NOT_BLOCKED, "RCX"));
    block(moved);
    expect(relocate(moved, page + 7 * PAGE_SIZE).status).toBe(withOperand(S.TDX_OPERAND_INVALID, "R8"));
    const gone = relocate(moved, other);
    expect([gone.status, gone.rcx]).toEqual([0n, BigInt(page + 7 * PAGE_SIZE)]);
    expect(rdmd(page + 7 * PAGE_SIZE)[0]).toBe(PageType.PT_NDA);
    expect(rdmd(other)).toEqual([PageType.PT_REG, td.handle, 0]);
    guestReads();
    block(LARGE + 1);
    const refused = promote(LARGE + 1);
    expect(refused.status).toBe(withOperand(S.TDX_EPT_INVALID_PROMOTE_CONDITIONS, "RCX"));
    expect(refused.rdx).toBe(0x8101n);
    td.ok("TDH.MEM.RANGE.UNBLOCK", { rcx: BigInt(LARGE + 1), rdx: td.handle });

    // Back, and merged.
    block(moved);
    expect(relocate(moved, page + 7 * PAGE_SIZE).status).toBe(0n);
    block(LARGE + 1);
    const merged = promote(LARGE + 1);
    expect([merged.status, merged.rcx]).toEqual([0n, BigInt(table)]);
    expect(rdmd(table)[0]).toBe(PageType.PT_NDA);
    expect(rdmd(page + 0x5000)).toEqual([PageType.PT_REG, td.handle, 1]);
    guestReads();
  });

  test("children are counted in units of 4 KiB through it all", () => {
    const { at, td, page, block, demote, promote } = build();
    const count = () => Number(at.ok("TDH.MNG.RD", { rcx: td.handle, rdx: 0x8010000300000004n }).r8);
    const before = count();
    block(LARGE + 1);
    demote(LARGE + 1, at.page());
    expect(count()).toBe(before + 1);
    block(LARGE + 1);
    promote(LARGE + 1);
    expect(count()).toBe(before);
    block(LARGE + 1);
    expect(td.ok("TDH.MEM.PAGE.REMOVE", { rcx: BigInt(LARGE + 1), rdx: td.handle }).rcx).toBe(BigInt(page));
    expect(count()).toBe(before - 512);
    td.pages.delete(LARGE);
    td.destroy();
    for (let i = 0; i < 512; i++) expect(at.pageType(page + i * PAGE_SIZE)).toBe(PageType.PT_NDA);
  });
});

describe("operands of the functions for large pages", () => {
  const { at, td, page, block } = build();
  const [free, large, bare] = [at.page(), at.page(9), at.page()];
  /** A page table with one page in it, and what is free beside them. */
  const TABLE = LARGE + MIB2;
  const FREE = LARGE + 2 * MIB2;
  td.aug(TABLE);
  block(LARGE + 1);
  /** 2 MiB of which one page is in use. */
  const mixed = at.page(9);
  td.ok("TDH.MEM.PAGE.AUG", {
    rcx: BigInt(TABLE + 8 * PAGE_SIZE),
    rdx: td.handle,
    r8: BigInt(mixed + 5 * PAGE_SIZE),
  });
  td.pages.set(TABLE + 8 * PAGE_SIZE, mixed + 5 * PAGE_SIZE);
  const handle = td.handle;
  const R = (code: bigint, operand: "RCX" | "RDX" | "R8") => withOperand(code, operand);
  type Operand = readonly [value: bigint, status: bigint];

  // In the order in which the module looks at them: RDX, then RCX, then R8.
  const TDRS: Operand[] = [
    [handle | 0x8000_0000_0000_0000n, R(S.TDX_OPERAND_INVALID, "RDX")],
    [BigInt(bare), R(S.TDX_PAGE_METADATA_INCORRECT, "RDX")],
    [1n << 40n, R(S.TDX_OPERAND_ADDR_RANGE_ERROR, "RDX")],
  ];
  const invalid = (...values: (number | bigint)[]): Operand[] =>
    values.map((value) => [BigInt(value), R(S.TDX_OPERAND_INVALID, "RCX")]);
  const walk = (...values: number[]): Operand[] =>
    values.map((value) => [BigInt(value), R(S.TDX_EPT_WALK_FAILED, "RCX")]);
  const state = (...values: number[]): Operand[] =>
    values.map((value) => [BigInt(value), R(S.TDX_EPT_ENTRY_STATE_INCORRECT, "RCX")]);
  const BEYOND: Operand[] = [
    [BigInt(large) + 8n, R(S.TDX_OPERAND_INVALID, "R8")],
    [BigInt(large) | (40n << 46n), R(S.TDX_OPERAND_INVALID, "R8")],
    [1n << 40n, R(S.TDX_OPERAND_ADDR_RANGE_ERROR, "R8")],
  ];
  const PAGES: Operand[] = [
    ...BEYOND,
    [BigInt(td.pages.get(RESET_PAGE)!), R(S.TDX_PAGE_METADATA_INCORRECT, "R8")],
    [BigInt(page + PAGE_SIZE), R(S.TDX_PAGE_METADATA_INCORRECT, "R8")],
  ];
  const shared = (1n << 47n) | BigInt(LARGE) | 1n;

  test.each([
    {
      name: "TDH.MEM.PAGE.AUG" as const,
      good: [FREE + 1, large],
      bad: [
        ...invalid(FREE + 2, FREE + PAGE_SIZE + 1, FREE + 9, shared, 1n << 52n),
        ...walk(2 ** 40 + 1, FREE),
        ...state(LARGE + 1, TABLE + 1, TABLE),
      ],
      pages: [
        ...BEYOND,
        [BigInt(large + PAGE_SIZE), R(S.TDX_OPERAND_INVALID, "R8")],
        [BigInt(page), R(S.TDX_PAGE_METADATA_INCORRECT, "R8")],
        [BigInt(mixed), R(S.TDX_PAGE_METADATA_INCORRECT, "R8")],
      ] as Operand[],
    },
    {
      name: "TDH.MEM.PAGE.DEMOTE" as const,
      good: [LARGE + 1, free],
      bad: [
        ...invalid(LARGE, LARGE + 3, LARGE + PAGE_SIZE + 1, shared),
        ...walk(2 ** 40 + 1),
        ...state(FREE + 1, TABLE + 1),
      ],
      pages: PAGES,
    },
    {
      name: "TDH.MEM.PAGE.PROMOTE" as const,
      good: [TABLE + 1, 0],
      bad: [
        ...invalid(TABLE, TABLE + 3, TABLE + PAGE_SIZE + 1, shared),
        ...walk(2 ** 40 + 1),
        ...state(LARGE + 1, FREE + 1),
        [BigInt(TABLE + 1), R(S.TDX_GPA_RANGE_NOT_BLOCKED, "RCX")] as Operand,
      ],
      pages: [],
    },
    {
      name: "TDH.MEM.PAGE.REMOVE" as const,
      good: [LARGE + 1, 0],
      bad: [
        ...invalid(LARGE + 3, LARGE + PAGE_SIZE + 1, shared),
        ...walk(2 ** 40 + 1, LARGE),
        ...state(FREE + 1, TABLE + 1),
        [BigInt(TABLE), R(S.TDX_GPA_RANGE_NOT_BLOCKED, "RCX")] as Operand,
      ],
      pages: [],
    },
    {
      name: "TDH.MEM.PAGE.RELOCATE" as const,
      good: [TABLE, free],
      bad: [
        ...invalid(LARGE + 1, TABLE + 8),
        ...walk(2 ** 40, LARGE),
        ...state(TABLE + PAGE_SIZE),
        [BigInt(TABLE), R(S.TDX_GPA_RANGE_NOT_BLOCKED, "RCX")] as Operand,
      ],
      pages: [],
    },
  ])("$name: the first that is wrong is reported", ({ name, good, bad, pages }) => {
    const fine = 0n;
    const tdrs: Operand[] = [[handle, fine], ...TDRS];
    const mappings: Operand[] = [[BigInt(good[0]), fine], ...bad];
    const r8s: Operand[] = [[BigInt(good[1]), fine], ...pages];
    for (const [rdx, wrongTdr] of tdrs)
      for (const [rcx, wrongMapping] of mappings)
        for (const [r8, wrongPage] of r8s) {
          const expected = [wrongTdr, wrongMapping, wrongPage].find((status) => status !== fine);
          if (expected === undefined) continue;
          expect([rcx, rdx, r8, at.call(name, { rcx, rdx, r8 }).status]).toEqual([rcx, rdx, r8, expected]);
        }
  });

  test("pages of 2 MiB go back whole, by their first address", () => {
    const wbinvd = (hpa: number) => at.call("TDH.PHYMEM.PAGE.WBINVD", { rcx: BigInt(hpa) }).status;
    const reclaim = (hpa: number) => at.call("TDH.PHYMEM.PAGE.RECLAIM", { rcx: BigInt(hpa) });
    expect(wbinvd(page)).toBe(R(S.TDX_PAGE_METADATA_INCORRECT, "RCX"));
    expect(wbinvd(page + PAGE_SIZE)).toBe(R(S.TDX_PAGE_METADATA_INCORRECT, "RCX"));
    expect(reclaim(page)).toMatchObject({
      status: S.TDX_LIFECYCLE_STATE_INCORRECT,
      rcx: BigInt(PageType.PT_REG),
      rdx: handle,
      r8: 1n,
    });
    td.destroy();
    expect(wbinvd(page + MIB2 - PAGE_SIZE)).toBe(0n);
    expect(reclaim(page).status).toBe(R(S.TDX_PAGE_METADATA_INCORRECT, "RCX"));

    const other = build();
    const { at: host, td: second, page: block2 } = other;
    host.call("TDH.VP.FLUSH", { rcx: BigInt(second.vcpus[0].tdvpr) });
    second.ok("TDH.MNG.VPFLUSHDONE", { rcx: second.handle });
    second.ok("TDH.PHYMEM.CACHE.WB");
    second.ok("TDH.MNG.KEY.FREEID", { rcx: second.handle });
    const part = host.call("TDH.PHYMEM.PAGE.RECLAIM", { rcx: BigInt(block2 + PAGE_SIZE) });
    expect([part.status, part.rcx, part.r8]).toEqual([
      R(S.TDX_OPERAND_INVALID, "RCX"),
      BigInt(PageType.PT_REG),
      1n,
    ]);
    expect(host.ok("TDH.PHYMEM.PAGE.RECLAIM", { rcx: BigInt(block2) }).r8).toBe(1n);
  });
});
