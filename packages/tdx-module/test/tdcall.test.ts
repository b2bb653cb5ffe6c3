import { describe, expect, test } from "vitest";
import fc from "fast-check";
import { TDINFO_STRUCT, TDX_STATUS, withOperand, type TraceEvent } from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";
import { Gpr, VMCS } from "@swtdx/cpu";
import { SeptState } from "../src/structures/sept.js";
import { TDCS } from "../src/structures/tdcs.js";
import { TDVPS } from "../src/structures/tdvps.js";
import { TDCALL_TABLE } from "../src/guest/td-call.js";
import { MD_FIELD_ID_NA, type GuestMetadata } from "../src/guest/metadata-access.js";
import { instruction, stop, tdcall, TD_HKID, TestTd } from "./support/fake-seam.js";

type Registers = Partial<Record<keyof typeof Gpr, bigint>>;
/** Executes one TDCALL that returns to the guest. @returns the registers the guest sees */
function call(td: TestTd, registers: Registers): Record<keyof typeof Gpr, bigint> {
  const out = {} as Record<keyof typeof Gpr, bigint>;
  td.enter(
    tdcall(registers),
    stop(({ regs }) => {
      for (const [name, number] of Object.entries(Gpr)) out[name as keyof typeof Gpr] = regs.gpr(number);
    }),
  );
  return out;
}
const invalid = (operand: "RAX" | "RCX" | "RDX" | "R8"): bigint =>
  withOperand(TDX_STATUS.TDX_OPERAND_INVALID, operand);
const ACCEPT = 6n;

describe("TDCALL", () => {
  test("outside 64-bit mode: #GP(0)", () => {
    const td = new TestTd();
    td.enter(tdcall({ RAX: 1n }), stop());
    expect(td.lp.injected).toEqual([0x80000b0dn]);
  });

  test.each([
    ["an unknown leaf", 13n],
    ["a version", 1n | (1n << 16n)],
    ["reserved bits", 1n | (1n << 24n)],
    ["bit 63", 1n | (1n << 63n)],
    ["version 2 of TDG.VM.RD", 7n | (2n << 16n)],
  ])("%s: OPERAND_INVALID | RAX", (_what, rax) => {
    expect(call(new TestTd().longMode(), { RAX: rax }).RAX).toBe(invalid("RAX"));
  });

  test("registers that are no outputs keep their values", () => {
    const td = new TestTd().longMode(0x400n);
    const out = call(td, { RAX: 5n, RCX: 0n, RBX: 1n, R8: 2n, R15: 3n });
    expect([out.RAX, out.RCX, out.RBX, out.R8, out.R15]).toEqual([0n, 0n, 1n, 2n, 3n]);
    expect(td.lp.vmread(VMCS.GUEST_RIP)).toBe(0x404n);
  });

  test("TDG.VP.INFO", () => {
    const out = call(new TestTd().longMode(), { RAX: 1n });
    expect([out.RAX, out.RCX, out.RDX, out.R8, out.R9, out.R10, out.R11]).toEqual([
      0n,
      48n,
      0x10000000n,
      0x4_0000_0001n,
      0n,
      1n,
      0n,
    ]);
  });

  test("TDG.VP.VEINFO.GET: once for each #VE", () => {
    const td = new TestTd().longMode();
    expect(call(td, { RAX: 3n, RCX: 9n })).toMatchObject({ RAX: TDX_STATUS.TDX_NO_VALID_VE_INFO, RCX: 0n });
    td.enter(
      instruction(30, 1, {}, 0x3f80008n),
      tdcall({ RAX: 3n }),
      stop(({ regs }) => {
        const at = (name: keyof typeof Gpr): bigint => regs.gpr(Gpr[name]);
        expect([at("RAX"), at("RCX"), at("RDX"), at("R10")]).toEqual([0n, 30n, 0x3f80008n, 1n]);
      }),
    );
    expect(call(td, { RAX: 3n }).RAX).toBe(TDX_STATUS.TDX_NO_VALID_VE_INFO);
  });

  test("TDG.VP.CPUIDVE.SET refuses reserved bits", () => {
    expect(call(new TestTd().longMode(), { RAX: 5n, RCX: 4n }).RAX).toBe(invalid("RCX"));
  });

  test("L2 functions name no VM", () => {
    for (const leaf of [25n, 26n, 27n, 18n, 20n])
      expect(call(new TestTd().longMode(), { RAX: leaf, RCX: 2n }).RAX).toBe(invalid("RCX"));
    expect(call(new TestTd().longMode(), { RAX: 26n, RCX: 0n }).RAX).toBe(0n);
  });
});

describe("TDG.MEM.PAGE.ACCEPT", () => {
  test("a pending 4K page is zeroed and mapped", () => {
    const td = new TestTd().longMode();
    const hpa = td.map(0x8000, SeptState.PENDING);
    td.lp.write(hpa, TD_HKID, new Uint8Array(4096).fill(0xee));
    expect(call(td, { RAX: ACCEPT, RCX: 0x8000n }).RAX).toBe(0n);
    expect(td.septState(0x8000)).toBe(SeptState.MAPPED);
    const page = new Uint8Array(4096);
    td.lp.read(hpa, TD_HKID, page);
    expect(page.every((byte) => byte === 0)).toBe(true);
    expect(call(td, { RAX: ACCEPT, RCX: 0x8000n }).RAX).toBe(TDX_STATUS.TDX_PAGE_ALREADY_ACCEPTED);
  });

  test.each([
    ["1G level", 0x40000002n],
    ["reserved bits", 0x8008n],
    ["an unaligned 2M GPA", 0x101001n],
    ["the shared bit", (1n << 47n) | 0x8000n],
    ["a GPA above 48 bits", 1n << 48n],
    ["bit 63", (1n << 63n) | 0x8000n],
  ])("%s: OPERAND_INVALID | RCX", (_what, rcx) => {
    expect(call(new TestTd().longMode(), { RAX: ACCEPT, RCX: rcx }).RAX).toBe(invalid("RCX"));
  });

  test("no table, a free entry: EPT violation with ACCEPT's details, the instruction is not done", () => {
    const td = new TestTd().longMode(0x600n);
    expect(td.enter(tdcall({ RAX: ACCEPT, RCX: 0x8000n }))).toBe(48n);
    // Requested level 0, found level 3, FREE.
    expect([Gpr.RCX, Gpr.RDX, Gpr.R8].map((r) => td.lp.regs.gpr(r))).toEqual([
      2n,
      1n | (0x18n << 32n),
      0x8000n,
    ]);
    expect(td.lp.vmread(VMCS.GUEST_RIP)).toBe(0x600n);
    td.map(0x9000, SeptState.MAPPED);
    expect(td.enter(tdcall({ RAX: ACCEPT, RCX: 0x8000n }))).toBe(48n);
    expect(td.lp.regs.gpr(Gpr.RDX)).toBe(1n);
    td.map(0x8000, SeptState.BLOCKED);
    expect(td.enter(tdcall({ RAX: ACCEPT, RCX: 0x8000n }))).toBe(48n);
    expect(td.lp.regs.gpr(Gpr.RDX)).toBe(1n | (((1n << 6n) | (1n << 14n)) << 32n));
    td.map(0x8000, SeptState.PENDING);
    td.enter(
      (lp) => {
        expect(lp.regs.gpr(Gpr.RAX)).toBe(ACCEPT);
        return tdcall({})(lp);
      },
      stop((lp) => expect(lp.regs.gpr(Gpr.RAX)).toBe(0n)),
    );
  });

  test("sizes: 2M asked and 4K there, 4K asked and 2M there", () => {
    const td = new TestTd().longMode();
    td.map(0x200000, SeptState.PENDING);
    expect(call(td, { RAX: ACCEPT, RCX: 0x200001n }).RAX).toBe(
      withOperand(TDX_STATUS.TDX_PAGE_SIZE_MISMATCH, 1),
    );
    td.map(0x400000, SeptState.MAPPED, 1);
    expect(call(td, { RAX: ACCEPT, RCX: 0x401000n }).RAX).toBe(0x00000b0a_00000001n);
    td.map(0x600000, SeptState.PENDING, 1);
    expect(td.enter(tdcall({ RAX: ACCEPT, RCX: 0x601000n }))).toBe(48n);
    // Requested level 0, found level 1: PENDING (2), a leaf.
    expect(td.lp.regs.gpr(Gpr.RDX)).toBe(1n | (((1n << 3n) | (2n << 6n) | (1n << 14n)) << 32n));
    td.map(0x800000, SeptState.PENDING_BLOCKED, 1);
    for (const [rcx, level] of [
      [0x800001n, 1n],
      [0x801000n, 0n],
    ]) {
      expect(td.enter(tdcall({ RAX: ACCEPT, RCX: rcx }))).toBe(48n);
      expect(td.lp.regs.gpr(Gpr.RDX)).toBe(1n | ((level | (1n << 3n) | (3n << 6n) | (1n << 14n)) << 32n));
    }
    // A page table that is blocked still is one.
    td.map(0xa00000, SeptState.NL_BLOCKED, 1);
    expect(call(td, { RAX: ACCEPT, RCX: 0xa00001n }).RAX).toBe(
      withOperand(TDX_STATUS.TDX_PAGE_SIZE_MISMATCH, 1),
    );
    expect(td.enter(tdcall({ RAX: ACCEPT, RCX: 0xa00000n }))).toBe(48n);
    // Level 1 is free.
    expect(td.enter(tdcall({ RAX: ACCEPT, RCX: 0xc00001n }))).toBe(48n);
    expect(td.lp.regs.gpr(Gpr.RDX)).toBe(1n | (((1n << 0n) | (1n << 3n)) << 32n));
  });

  test("2M: an interrupt stops it between 4K pages, and it goes on from there", () => {
    const td = new TestTd().longMode(0x600n);
    const hpa = td.map(0x200000, SeptState.PENDING, 1);
    td.lp.write(hpa + 0x1ff000, TD_HKID, new Uint8Array(4096).fill(1));
    td.lp.interruptPending = true;
    td.enter(
      tdcall({ RAX: ACCEPT, RCX: 0x200001n }),
      stop((lp) => {
        expect(lp.regs.gpr(Gpr.RAX)).toBe(ACCEPT);
        expect(lp.vmread(VMCS.GUEST_RIP)).toBe(0x600n);
        lp.interruptPending = false;
      }),
    );
    expect(td.septState(0x200000, 1)).toBe(SeptState.PENDING);
    td.enter(
      tdcall({}),
      stop((lp) => expect(lp.regs.gpr(Gpr.RAX)).toBe(0n)),
    );
    expect(td.septState(0x200000, 1)).toBe(SeptState.MAPPED);
    expect(td.lp.readU8(hpa + 0x1ff000, TD_HKID)).toBe(0);
  });
});

describe("measurements", () => {
  test("TDG.MR.RTMR.EXTEND", () => {
    const td = new TestTd().longMode();
    const hpa = td.map(0x8000, SeptState.MAPPED);
    const digest = sha384(new Uint8Array([1, 2, 3]));
    td.lp.write(hpa + 64, TD_HKID, digest);
    const events: TraceEvent[] = [];
    td.trace.subscribe((event) => events.push(event));
    expect(call(td, { RAX: 2n, RCX: 0x8040n, RDX: 2n }).RAX).toBe(0n);
    const expected = sha384(new Uint8Array([...new Uint8Array(48), ...digest]));
    expect(td.tdcs.getBytes(TDCS.RTMR2)).toEqual(expected);
    expect(events.map((event) => event.type)).toEqual(["MEASURE", "TDCALL"]);
    expect(call(td, { RAX: 2n, RCX: 0x8040n, RDX: 4n }).RAX).toBe(invalid("RDX"));
    expect(call(td, { RAX: 2n, RCX: 0x8041n, RDX: 0n }).RAX).toBe(invalid("RCX"));
    expect(call(td, { RAX: 2n, RCX: 1n << 47n, RDX: 0n }).RAX).toBe(invalid("RCX"));
    td.tdcs.set(TDCS.RTMR_LOCK, 1);
    expect(call(td, { RAX: 2n, RCX: 0x8040n, RDX: 0n }).RAX).toBe(
      withOperand(TDX_STATUS.TDX_OPERAND_BUSY, "RTMR"),
    );
  });

  test("TDG.MR.REPORT: the report in the guest's memory", () => {
    const td = new TestTd().longMode();
    const hpa = td.map(0x8000, SeptState.MAPPED);
    td.tdcs.setBytes(TDCS.MRTD, new Uint8Array(48).fill(9));
    td.lp.write(hpa + 2048, TD_HKID, new Uint8Array(64).fill(5));
    expect(call(td, { RAX: 4n, RCX: 0x8000n, RDX: 0x8800n, R8: 0n }).RAX).toBe(0n);
    const report = new Uint8Array(1024);
    td.lp.read(hpa, TD_HKID, report);
    expect(report[0]).toBe(0x81);
    expect(report.subarray(80, 128)).toEqual(sha384(report.subarray(512)));
    expect(report.subarray(128, 192)).toEqual(new Uint8Array(64).fill(5));
    expect(TDINFO_STRUCT.decode(report.subarray(512))).toMatchObject({
      ATTRIBUTES: 0x10000000n,
      XFAM: 7n,
      MRTD: new Uint8Array(48).fill(9),
    });
    expect(call(td, { RAX: 4n, RCX: 0x8200n, RDX: 0x8800n, R8: 0n }).RAX).toBe(invalid("RCX"));
    expect(call(td, { RAX: 4n, RCX: 0x8000n, RDX: 0x8820n, R8: 0n }).RAX).toBe(invalid("RDX"));
    expect(call(td, { RAX: 4n, RCX: 0x8000n, RDX: 0x8800n, R8: 1n }).RAX).toBe(invalid("R8"));
    expect(call(td, { RAX: 22n, RCX: 0x8000n }).RAX).toBe(0n);
    td.lp.writeU8(hpa, TD_HKID, 0);
    expect(call(td, { RAX: 22n, RCX: 0x8000n }).RAX).toBe(TDX_STATUS.TDX_INVALID_REPORTMACSTRUCT);
  });

  test("an operand in a page that is not there or not accepted", () => {
    const td = new TestTd({ tdCtls: 0n }).longMode();
    expect(td.enter(tdcall({ RAX: 2n, RCX: 0x8040n, RDX: 0n }))).toBe(48n);
    td.map(0x8000, SeptState.PENDING);
    td.enter(tdcall({ RAX: 2n, RCX: 0x8040n, RDX: 0n }), stop());
    expect(td.lp.injected).toEqual([0x80000314n]);
    expect(td.tdvps.get(TDVPS.VE_INFO_GPA)).toBe(0x8040n);
  });

  test("an operand in shared memory goes through the shared EPT", () => {
    const td = new TestTd().longMode();
    const [pml4, pdpt, pd, pt, page] = [0x800000, 0x801000, 0x802000, 0x803000, 0x804000];
    const { lp } = td;
    lp.vmwrite(VMCS.SHARED_EPT_POINTER, BigInt(pml4));
    lp.writeU64(pml4 + 256 * 8, 0, BigInt(pdpt) | 7n);
    lp.writeU64(pdpt, 0, BigInt(pd) | 7n);
    lp.writeU64(pd, 0, BigInt(pt) | 7n);
    lp.writeU64(pt + 8 * 8, 0, BigInt(page) | 0x37n);
    lp.write(page + 0x800, 0, new Uint8Array(64).fill(3));
    const shared = 1n << 47n;
    expect(call(td, { RAX: 4n, RCX: shared | 0x8000n, RDX: shared | 0x8800n, R8: 0n }).RAX).toBe(0n);
    expect(lp.readU8(page, 0)).toBe(0x81);
    expect(lp.readU8(page + 128, 0)).toBe(3);
    // Not present with #VE allowed, and suppressed.
    td.enter(tdcall({ RAX: 4n, RCX: shared | 0x9000n, RDX: shared | 0x9800n, R8: 0n }), stop());
    expect(lp.injected).toEqual([0x80000314n]);
    lp.writeU64(pt + 9 * 8, 0, 1n << 63n);
    expect(td.enter(tdcall({ RAX: 4n, RCX: shared | 0x9000n, RDX: shared | 0x9800n, R8: 0n }))).toBe(48n);
    lp.writeU64(pt + 9 * 8, 0, BigInt(page) | 2n);
    expect(td.enter(tdcall({ RAX: 4n, RCX: shared | 0x9000n, RDX: shared | 0x9800n, R8: 0n }))).toBe(49n);
    // A private KeyID in a shared mapping.
    lp.writeU64(pt + 9 * 8, 0, BigInt(page) | 0x37n | (33n << 46n));
    expect(td.enter(tdcall({ RAX: 4n, RCX: shared | 0x9000n, RDX: shared | 0x9800n, R8: 0n }))).toBe(49n);
  });
});

describe("metadata functions", () => {
  const metadata: Partial<GuestMetadata> = {
    checkSingleElementId: (id) => (id & 0x4000n ? TDX_STATUS.TDX_METADATA_FIELD_ID_INCORRECT : 0n),
    read: (context, id) => ({ status: 0n, value: (BigInt(context) << 32n) | (id & 0xffffn) }),
    write: (_context, _id, value, mask) => ({ status: 0n, value: value & mask }),
    next: (_context, id) => (id === MD_FIELD_ID_NA ? 0x1111n : 0x2222n),
    dumpList: (_context, _id, list) => {
      list[0] = 0x5a;
      return { status: 0n, next: 7n };
    },
  };
  test("TDG.VM.RD and TDG.VM.WR", () => {
    const td = new TestTd({ metadata }).longMode();
    expect(call(td, { RAX: 7n, RCX: 0n, RDX: 0x10n })).toMatchObject({
      RAX: 0n,
      RDX: 0x10n,
      R8: 0x1_0000_0010n,
    });
    expect(call(td, { RAX: 0x10007n, RCX: 0n, RDX: 0x10n })).toMatchObject({ RDX: 0x2222n });
    expect(call(td, { RAX: 0x10007n, RCX: 0n, RDX: MD_FIELD_ID_NA })).toMatchObject({
      RAX: TDX_STATUS.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT,
      RDX: 0x1111n,
    });
    expect(call(td, { RAX: 7n, RCX: 1n, RDX: 0x10n, R8: 5n })).toMatchObject({ RAX: invalid("RCX"), R8: 0n });
    expect(call(td, { RAX: 7n, RCX: 0n, RDX: 0x4000n }).RAX).toBe(TDX_STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
    expect(call(td, { RAX: 8n, RCX: 0n, RDX: 0x10n, R8: 0xffn, R9: 0xfn })).toMatchObject({
      RAX: 0n,
      R8: 0xfn,
    });
  });
  test("TDG.VP.RD, TDG.SYS.RD and TDG.SYS.RDALL", () => {
    const td = new TestTd({ metadata }).longMode();
    expect(call(td, { RAX: 9n, RCX: 0n, RDX: 0x10n })).toMatchObject({ R8: 0x2_0000_0010n, RDX: 0x2222n });
    expect(call(td, { RAX: 11n, RDX: 0x10n })).toMatchObject({ R8: 0x10n, RDX: 0x2222n });
    const hpa = td.map(0x8000, SeptState.MAPPED);
    expect(call(td, { RAX: 12n, RDX: 0x8000n, R8: 0n })).toMatchObject({ RAX: 0n, R8: 7n });
    expect(td.lp.readU8(hpa, TD_HKID)).toBe(0x5a);
    expect(call(td, { RAX: 12n, RDX: 0x8008n, R8: 0n }).RAX).toBe(invalid("RDX"));
  });

  test("no TDCALL with any registers does anything but return, exit or fault", () => {
    const leaf = fc.oneof(fc.nat(40).map(BigInt), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }));
    const word = fc.oneof(
      fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      fc.bigInt({ min: 0n, max: 0xffffn }),
      fc.bigInt({ min: 0n, max: (1n << 40n) - 1n }).map((x) => (x << 12n) & ((1n << 52n) - 1n)),
    );
    fc.assert(
      fc.property(leaf, word, word, word, word, (rax, rcx, rdx, r8, r9) => {
        const td = new TestTd({ metadata }).longMode();
        td.map(0x8000, SeptState.MAPPED);
        td.map(0x9000, SeptState.PENDING);
        const status = td.enter(tdcall({ RAX: rax, RCX: rcx, RDX: rdx, R8: r8, R9: r9 }), stop());
        expect([1n, 48n, 49n, 77n]).toContain(status & 0xffffn);
        expect(td.lp.regs.gpr(Gpr.RAX) >> 32n).toBe(0n);
      }),
      { numRuns: 300 },
    );
  });

  test("every leaf has its row", () => expect(Object.keys(TDCALL_TABLE)).toHaveLength(21));
});
