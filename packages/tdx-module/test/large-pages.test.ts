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
