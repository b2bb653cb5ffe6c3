/** The whole life of a TD by SEAMCALLs on a booted host, from TDH.MNG.CREATE to the last TDH.PHYMEM.PAGE.RECLAIM. */
import { guest, PAGE_SIZE, TDX_STATUS, VP_METADATA, vmcsFieldId, type Guest, withOperand } from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";
import { describe, expect, test } from "vitest";
import { PageType } from "../src/structures/pamt.js";
import { NULL_PA, RESET_PAGE, resetPage, Td, tdParams, TdHost } from "./support/td-host.js";

const VMCALL_EXIT = 77n;
const EPT_VIOLATION_EXIT = 48n;
const TABLES = 0x1_0000;
/** Linear addresses from here on are shared memory. */
const SHARED_WINDOW = 0x4000_0000n;
const SHARED_BIT = 1n << 47n;
/** Encodings of TD VMCS fields that the host writes. */
const POSTED_INTR_NV = vmcsFieldId(0x0002);
const POSTED_INTR_DESC_ADDR = vmcsFieldId(0x2016);
const PIN_BASED_VM_EXEC_CONTROL = vmcsFieldId(0x4000);
const GUEST_RIP = vmcsFieldId(0x681e);
const SHARED_EPTP = vmcsFieldId(0x203c);

/** From the reset state to 64-bit mode: 1 GiB pages at PDPTE 0 (private), 1 (shared) and 3 (firmware). */
function* enter64(): Guest<void> {
  const pdpt = BigInt(TABLES + PAGE_SIZE);
  const table = new Uint8Array(2 * PAGE_SIZE);
  const view = new DataView(table.buffer);
  view.setBigUint64(0, pdpt | 3n, true);
  view.setBigUint64(PAGE_SIZE, 0x83n, true);
  view.setBigUint64(PAGE_SIZE + 8, SHARED_BIT | 0x83n, true);
  view.setBigUint64(PAGE_SIZE + 24, 0xc000_0083n, true);
  yield* guest.storeBytes(BigInt(TABLES), table);
  yield* guest.writeCr(4, (yield* guest.readCr(4)) | 0x20n);
  yield* guest.writeCr(3, BigInt(TABLES));
  yield* guest.writeCr(0, (yield* guest.readCr(0)) | 0x8000_0000n);
  yield* guest.ljmp64();
}
const tdcall = (leaf: bigint, rcx = 0n, rdx = 0n) => guest.tdcall({ rax: leaf, rcx, rdx });
const vmcall = (r11: bigint, r12 = 0n) => guest.tdcall({ rax: 0n, rcx: 0x1c00n, r10: 0n, r11, r12 });

/** A TD with the firmware page, page tables, one vCPU, not finalized. */
function build(at: TdHost, program: string, params = tdParams()): Td {
  const td = new Td(at).create().init(params);
  td.addVcpu(0x5555n);
  td.addPage(RESET_PAGE, resetPage(program));
  td.addPage(TABLES, undefined, false);
  td.addPage(TABLES + PAGE_SIZE, undefined, false);
  return td;
}

describe("a TD's life", () => {
  test("from CREATE to the last RECLAIM", () => {
    const at = new TdHost();
    const seen: Record<string, unknown> = {};
    at.programs.set("@swtdx/test:Life", function* (regs) {
      seen.initial = [regs.rbx, regs.rcx, regs.rdx !== 0n, regs.rsi, regs.r8];
      yield* enter64();
      const info = yield* tdcall(1n);
      seen.info = [info.rax, info.rcx, info.rdx, info.r8, info.r9];
      const answer = yield* vmcall(10n, 0x4000_0000n);
      seen.answer = [answer.rax, answer.r10, answer.r11];
      seen.accept = (yield* tdcall(6n, 0x20_0000n)).rax;
      yield* guest.store(0x20_0008n, 8, 0x1234n);
      seen.value = yield* guest.load(0x20_0008n, 8);
      seen.shared = yield* guest.load(SHARED_WINDOW + 0x3000n, 4);
      yield* guest.store(SHARED_WINDOW + 0x3004n, 4, 0xabcdn);
      yield* vmcall(12n);
      seen.again = yield* guest.load(0x20_0008n, 8);
      yield* vmcall(13n);
    });
    const td = build(at, "@swtdx/test:Life");
    const vcpu = td.vcpus[0];
    const tdvpr = BigInt(vcpu.tdvpr);

    // What KVM writes (tdx_vcpu_init_vmcs).
    const descriptor = BigInt(at.page());
    const vpWr = (id: bigint, value: bigint, mask = NULL_PA) =>
      at.call("TDH.VP.WR", { rcx: tdvpr, rdx: id, r8: value, r9: mask });
    const root = notPresentTable(at);
    const notInitialized = (field: number) => TDX_STATUS.TDX_TD_VMCS_FIELD_NOT_INITIALIZED | BigInt(field);
    expect(vpWr(PIN_BASED_VM_EXEC_CONTROL, 0x80n, 0x80n).status).toBe(notInitialized(0x0002));
    expect(vpWr(POSTED_INTR_NV, 0x100n, 0xffffn).status).toBe(TDX_STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID);
    expect(vpWr(POSTED_INTR_NV, 0xf2n, 0xffffn).status).toBe(0n);
    expect(vpWr(PIN_BASED_VM_EXEC_CONTROL, 0x80n, 0x80n).status).toBe(notInitialized(0x2016));
    expect(vpWr(POSTED_INTR_DESC_ADDR, descriptor + 4n).status).toBe(
      TDX_STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID,
    );
    expect(vpWr(POSTED_INTR_DESC_ADDR, descriptor).status).toBe(0n);
    expect(vpWr(PIN_BASED_VM_EXEC_CONTROL, 0x80n, 0x80n).status).toBe(0n);
    expect(vpWr(PIN_BASED_VM_EXEC_CONTROL, 0n, 1n).status).toBe(TDX_STATUS.TDX_METADATA_FIELD_NOT_WRITABLE);
    expect(vpWr(VP_METADATA.PEND_NMI.id, 1n, 0xffn).status).toBe(0n);
    expect(vpWr(VP_METADATA.PEND_NMI.id, 0n, 0xffn).r8).toBe(1n);
    expect(vpWr(GUEST_RIP, 0n).status).toBe(TDX_STATUS.TDX_METADATA_FIELD_NOT_WRITABLE);
    expect(vpWr(SHARED_EPTP, BigInt(root)).status).toBe(0n);
    const details = at.ok("TDH.VP.RD", { rcx: tdvpr, rdx: VP_METADATA.VCPU_STATE_DETAILS.id }, at.lp, 0);
    expect(details.r8).toBe(0n);

    td.finalize();
    const entry = td.enter();
    expect(entry.status).toBe(VMCALL_EXIT);
    expect([entry.rcx, entry.r10, entry.r11]).toEqual([0x1c00n, 0n, 10n]);
    expect(seen.initial).toEqual([48n, 0x5555n, true, 0n, 0x5555n]);
    expect(seen.info).toEqual([0n, 48n, 1n << 28n, 1n | (4n << 32n), 0n]);

    // ACCEPT of a page that is not there: the VMM adds it.
    const wanted = td.enter(vcpu, { r10: 0n, r11: 77n });
    expect(wanted.status & 0xffff_ffffn).toBe(EPT_VIOLATION_EXIT);
    expect(wanted.r8).toBe(0x20_0000n);
    expect(seen.answer).toEqual([0n, 0n, 77n]);
    const page = td.aug(0x20_0000);
    expect(at.pageType(page)).toBe(PageType.PT_REG);
    // Then the access to shared memory: the VMM's own EPT.
    const missing = td.enter(vcpu);
    expect(missing.status & 0xffff_ffffn).toBe(EPT_VIOLATION_EXIT);
    expect(missing.r8).toBe(SHARED_BIT | 0x3000n);
    expect(seen.accept).toBe(0n);
    expect(seen.value).toBe(0x1234n);
    const data = mapShared(at, root, 0x3000);
    at.write(data, Uint8Array.of(1, 2, 3, 4));
    expect(td.enter(vcpu).r11).toBe(12n);
    expect(seen.shared).toBe(0x04030201n);
    const answer = new Uint8Array(8);
    expect(at.lp.memRead(data as never, answer).kind).toBe("ok");
    expect([...answer]).toEqual([1, 2, 3, 4, 0xcd, 0xab, 0, 0]);

    // Block, track, remove; the guest misses the page afterwards.
    const gpa = { rcx: 0x20_0000n, rdx: td.handle };
    const failed = (name: "TDH.MEM.PAGE.REMOVE", code: bigint) =>
      expect(at.call(name, gpa).status).toBe(withOperand(code, "RCX"));
    failed("TDH.MEM.PAGE.REMOVE", TDX_STATUS.TDX_GPA_RANGE_NOT_BLOCKED);
    td.ok("TDH.MEM.RANGE.BLOCK", gpa);
    failed("TDH.MEM.PAGE.REMOVE", TDX_STATUS.TDX_TLB_TRACKING_NOT_DONE);
    td.ok("TDH.MEM.TRACK", { rcx: td.handle });
    expect(td.ok("TDH.MEM.PAGE.REMOVE", gpa).rcx).toBe(BigInt(page));
    td.pages.delete(0x20_0000);
    expect(at.pageType(page)).toBe(PageType.PT_NDA);
    expect(td.enter(vcpu).status & 0xffff_ffffn).toBe(EPT_VIOLATION_EXIT);
    expect(seen.again).toBeUndefined();

    // Teardown, in its only order.
    expect(at.call("TDH.MNG.VPFLUSHDONE", { rcx: td.handle }).status).toBe(TDX_STATUS.TDX_FLUSHVP_NOT_DONE);
    expect(at.call("TDH.MNG.KEY.FREEID", { rcx: td.handle }).status).toBe(
      TDX_STATUS.TDX_LIFECYCLE_STATE_INCORRECT,
    );
    expect(at.call("TDH.PHYMEM.PAGE.RECLAIM", { rcx: td.handle }).status).toBe(
      TDX_STATUS.TDX_LIFECYCLE_STATE_INCORRECT,
    );
    td.ok("TDH.VP.FLUSH", { rcx: tdvpr });
    expect(at.call("TDH.VP.FLUSH", { rcx: tdvpr }).status).toBe(TDX_STATUS.TDX_VCPU_NOT_ASSOCIATED);
    td.ok("TDH.MNG.VPFLUSHDONE", { rcx: td.handle });
    expect(at.call("TDH.MNG.KEY.FREEID", { rcx: td.handle }).status).toBe(
      TDX_STATUS.TDX_WBCACHE_NOT_COMPLETE,
    );
    expect(at.call("TDH.MNG.CREATE", { rcx: BigInt(at.page()), rdx: BigInt(td.hkid) }).status).toBe(
      TDX_STATUS.TDX_HKID_NOT_FREE,
    );
    td.ok("TDH.PHYMEM.CACHE.WB");
    td.ok("TDH.MNG.KEY.FREEID", { rcx: td.handle });
    expect(at.call("TDH.PHYMEM.CACHE.WB").status).toBe(TDX_STATUS.TDX_NO_HKID_READY_TO_WBCACHE);
    expect(at.call("TDH.PHYMEM.PAGE.RECLAIM", { rcx: td.handle }).status).toBe(
      TDX_STATUS.TDX_TD_ASSOCIATED_PAGES_EXIST,
    );
    for (const child of td.children) {
      const reclaimed = td.ok("TDH.PHYMEM.PAGE.RECLAIM", { rcx: BigInt(child) });
      expect(reclaimed.rdx).toBe(td.handle);
      expect(at.pageType(child)).toBe(PageType.PT_NDA);
    }
    const root4 = td.ok("TDH.PHYMEM.PAGE.RECLAIM", { rcx: td.handle });
    expect([root4.rcx, root4.rdx, root4.r8]).toEqual([BigInt(PageType.PT_TDR), 0n, 0n]);
    expect(at.pageType(td.tdr)).toBe(PageType.PT_NDA);

    // The HKID and the pages can be used again.
    const next = new Td(at, at.lp, td.hkid).create().init();
    next.addVcpu();
    next.finalize().destroy();
  });

  test("two vCPUs on two logical processors; blocking waits for both", () => {
    const at = new TdHost({ lps: 2 });
    const seen: unknown[] = [];
    at.programs.set("@swtdx/test:Smp", function* (regs) {
      if (regs.rsi === 0n) yield* enter64();
      else {
        yield* guest.writeCr(4, (yield* guest.readCr(4)) | 0x20n);
        yield* guest.writeCr(3, BigInt(TABLES));
        yield* guest.writeCr(0, (yield* guest.readCr(0)) | 0x8000_0000n);
        yield* guest.ljmp64();
      }
      const info = yield* tdcall(1n);
      seen.push([regs.rsi, info.r9, info.r8 & 0xffff_ffffn]);
      for (;;) yield* vmcall(yield* guest.load(0x30_0000n, 8));
    });
    const td = build(at, "@swtdx/test:Smp");
    td.addVcpu(0n, 7);
    td.addPage(0x30_0000, new Uint8Array(PAGE_SIZE).fill(3));
    td.finalize();
    const [first, second] = at.host.lps;
    const value = 0x0303030303030303n;
    expect(td.enter(td.vcpus[0], {}, first).r11).toBe(value);
    // TDH.VP.INIT was on the first one.
    expect(td.enter(td.vcpus[1], {}, second).status).toBe(TDX_STATUS.TDX_VCPU_ASSOCIATED);
    at.ok("TDH.VP.FLUSH", { rcx: BigInt(td.vcpus[1].tdvpr) });
    expect(td.enter(td.vcpus[1], {}, second).r11).toBe(value);
    expect(seen).toEqual([
      [0n, 0n, 2n],
      [1n, 1n, 2n],
    ]);
    expect(td.enter(td.vcpus[1], {}, first).status).toBe(TDX_STATUS.TDX_VCPU_ASSOCIATED);
    const gpa = { rcx: 0x30_0000n, rdx: td.handle };
    td.ok("TDH.MEM.RANGE.BLOCK", gpa);
    // Translations from before live on until the epoch changes.
    expect(td.enter(td.vcpus[1], {}, second).r11).toBe(value);
    td.ok("TDH.MEM.TRACK", { rcx: td.handle });
    for (const [i, lp] of [first, second].entries())
      expect(td.enter(td.vcpus[i], {}, lp).status & 0xffff_ffffn).toBe(EPT_VIOLATION_EXIT);
    td.ok("TDH.MEM.RANGE.UNBLOCK", gpa);
    for (const [i, lp] of [first, second].entries()) expect(td.enter(td.vcpus[i], {}, lp).r11).toBe(value);
    at.ok("TDH.VP.FLUSH", { rcx: BigInt(td.vcpus[1].tdvpr) }, second);
    td.destroy();
  });

  test("a debug TD lets the VMM read and write its memory and registers", () => {
    const at = new TdHost({ lps: 1 });
    at.programs.set("@swtdx/test:Debug", function* () {
      yield* enter64();
      for (;;) yield* vmcall(yield* guest.load(0x30_0000n, 8));
    });
    const td = build(at, "@swtdx/test:Debug", tdParams({ ATTRIBUTES: 1n }));
    td.addPage(0x30_0000, new Uint8Array(PAGE_SIZE).fill(3));
    td.finalize();
    expect(td.enter().r11).toBe(0x0303030303030303n);
    const at8 = { rcx: 0x30_0000n, rdx: td.handle };
    expect(td.ok("TDH.MEM.RD", at8).r8).toBe(0x0303030303030303n);
    expect(td.ok("TDH.MEM.WR", { ...at8, r8: 0x42n }).r8).toBe(0x0303030303030303n);
    expect(td.enter().r11).toBe(0x42n);
    const missing = at.call("TDH.MEM.RD", { rcx: 0x31_0000n, rdx: td.handle });
    expect(missing.status).toBe(withOperand(TDX_STATUS.TDX_EPT_ENTRY_NOT_PRESENT, "RCX"));
    const rcx = BigInt(td.vcpus[0].tdvpr);
    const rip = td.ok("TDH.VP.RD", { rcx, rdx: GUEST_RIP }).r8;
    expect(rip >> 12n).toBe(BigInt(RESET_PAGE / PAGE_SIZE));
    expect(td.ok("TDH.VP.WR", { rcx, rdx: GUEST_RIP, r8: rip, r9: NULL_PA }).r8).toBe(rip);
    expect(at.call("TDH.VP.RD", { rcx, rdx: vmcsFieldId(0x6c16) }).status).toBe(
      TDX_STATUS.TDX_METADATA_FIELD_NOT_READABLE,
    );
    // Every field that enumeration names can be read.
    let fields = 0;
    for (let id = at.call("TDH.VP.RD", { rcx, rdx: NULL_PA }, at.lp, 1).rdx; id !== NULL_PA; fields++)
      id = at.ok("TDH.VP.RD", { rcx, rdx: id }, at.lp, 1).rdx;
    expect(fields).toBeGreaterThan(500);
    td.destroy();
  });

  test("MRTD is what the specification's algorithm gives", () => {
    const at = new TdHost();
    at.programs.set("@swtdx/test:Empty", function* () {
      yield* guest.pause();
    });
    const td = build(at, "@swtdx/test:Empty");
    td.addPage(0x80_0000, new Uint8Array(PAGE_SIZE).fill(0xa5));
    td.finalize();
    const chunks: Uint8Array[] = [];
    const block = (name: string, gpa: number) => {
      const bytes = new Uint8Array(128);
      bytes.set(new TextEncoder().encode(name));
      new DataView(bytes.buffer).setBigUint64(16, BigInt(gpa), true);
      chunks.push(bytes);
    };
    const add = (gpa: number, contents: Uint8Array | null) => {
      block("MEM.PAGE.ADD", gpa);
      for (let i = 0; contents && i < PAGE_SIZE; i += 256) {
        block("MR.EXTEND", gpa + i);
        chunks.push(contents.subarray(i, i + 256));
      }
    };
    add(RESET_PAGE, resetPage("@swtdx/test:Empty"));
    add(TABLES, null);
    add(TABLES + PAGE_SIZE, null);
    add(0x80_0000, new Uint8Array(PAGE_SIZE).fill(0xa5));
    const all = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
    chunks.reduce((position, chunk) => (all.set(chunk, position), position + chunk.length), 0);
    const mrtd = new Uint8Array(48);
    for (let i = 0; i < 6; i++)
      new DataView(mrtd.buffer).setBigUint64(
        i * 8,
        at.ok("TDH.MNG.RD", { rcx: td.handle, rdx: 0x1310000300000000n + BigInt(i) }).r8,
        true,
      );
    expect(mrtd).toEqual(sha384(all));
  });
});

/** A table of the VMM's EPT as KVM makes it: no #VE where nothing is mapped. */
function notPresentTable(at: TdHost): number {
  const table = at.page();
  at.write(table, new Uint8Array(new BigUint64Array(512).fill(1n << 63n).buffer));
  return table;
}

/** A 4-level EPT of the VMM with one page; @returns its HPA */
function mapShared(at: TdHost, root: number, gpa: number): number {
  const entry = (table: number, index: number, value: number) =>
    at.write(table + index * 8, new Uint8Array(new BigUint64Array([BigInt(value)]).buffer));
  const [pdpt, pd, pt] = [notPresentTable(at), notPresentTable(at), notPresentTable(at)];
  const data = at.page();
  entry(root, 256, pdpt + 7);
  entry(pdpt, 0, pd + 7);
  entry(pd, 0, pt + 7);
  entry(pt, (gpa / PAGE_SIZE) & 511, data + 7 + (6 << 3));
  at.write(data, new Uint8Array(PAGE_SIZE));
  return data;
}
