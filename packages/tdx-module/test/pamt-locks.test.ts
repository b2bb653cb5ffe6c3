/** PAMT and its locks: a page that somebody else holds is busy; what a TD's life leaves behind is nothing. */
import { type Hpa, type KeyId, PAGE_SIZE, TDX_STATUS as S, withOperand } from "@swtdx/abi";
import { describe, expect, test } from "vitest";
import { PAMT_ENTRY_SIZE, PageType } from "../src/structures/pamt.js";
import { TDCS } from "../src/structures/tdcs.js";
import { Td, TdHost } from "./support/td-host.js";

const EXCLUSIVE = 1;
const HOST_PRIORITY = 2;
const READER = 4;
const at = new TdHost({ lps: 1 });
const tdx = at.host.tdx!;
const [tdmr] = tdx.tdmrs;
const globalKey = tdx.globalKeyId as KeyId;

/** HPA of the PAMT entry of a page of `level`. */
function entryOf(page: number, level = 0): Hpa {
  const base = [tdmr.pamt4kBase, tdmr.pamt2mBase, tdmr.pamt1gBase][level];
  return (base + Math.floor((page - tdmr.base) / 2 ** (12 + 9 * level)) * PAMT_ENTRY_SIZE) as Hpa;
}
function u16(pa: number, keyId: KeyId): number {
  const out = new Uint8Array(2);
  at.memory.read(pa as Hpa, keyId, out);
  return out[0] | (out[1] << 8);
}
const setU16 = (pa: number, keyId: KeyId, value: number): void =>
  void at.memory.write(pa as Hpa, keyId, Uint8Array.of(value & 0xff, value >> 8));
const lockOf = (page: number, level = 0): number => u16(entryOf(page, level), globalKey);

/** Does `work` while somebody else holds a lock; the lock's value afterwards. */
function held(pa: number, keyId: KeyId, value: number, work: () => void): number {
  const before = u16(pa, keyId);
  setU16(pa, keyId, before + value);
  work();
  const after = u16(pa, keyId);
  setU16(pa, keyId, before);
  return after - before;
}

describe("locks", () => {
  const td = new Td(at).create().init();
  td.addVcpu();
  td.addPage(0x1000);
  const free = at.page();
  const rd = () => at.call("TDH.MNG.RD", { rcx: td.handle, rdx: 0x1110000300000000n }).status;
  const key = td.hkid as KeyId;
  const tdcs = td.tdcx[0];

  test("of a TDR: shared ones go together, an exclusive one keeps others out and notes who waits", () => {
    const finalize = () => at.call("TDH.MR.FINALIZE", { rcx: td.handle }).status;
    const busy = withOperand(S.TDX_OPERAND_BUSY, "RCX");
    expect(held(entryOf(td.tdr), globalKey, READER, () => expect(rd()).toBe(0n))).toBe(READER);
    const noted = held(entryOf(td.tdr), globalKey, READER, () => expect(finalize()).toBe(busy));
    expect(noted).toBe(READER + HOST_PRIORITY);
    held(entryOf(td.tdr), globalKey, EXCLUSIVE, () => expect(rd()).toBe(busy));
    // A host that was told to come back gets the lock; nothing stays of it.
    setU16(entryOf(td.tdr), globalKey, HOST_PRIORITY);
    expect(rd()).toBe(0n);
    expect(lockOf(td.tdr)).toBe(0);
  });

  test("of the 2M and 1G entries above a page", () => {
    for (const level of [1, 2])
      held(entryOf(td.tdr, level), globalKey, EXCLUSIVE, () =>
        expect(rd()).toBe(withOperand(S.TDX_OPERAND_BUSY, "RCX")),
      );
    expect(rd()).toBe(0n);
  });

  test("of a page that is to be taken, of OP_STATE, the Secure EPT and the TD epoch", () => {
    const args = { rcx: 0x2000n, rdx: td.handle, r8: BigInt(free) };
    const aug = () => at.call("TDH.MEM.PAGE.AUG", args).status;
    held(entryOf(free), globalKey, READER, () => expect(aug()).toBe(withOperand(S.TDX_OPERAND_BUSY, "R8")));
    const opState = tdcs + TDCS.OP_STATE_LOCK.offset;
    held(opState, key, EXCLUSIVE, () => expect(aug()).toBe(withOperand(S.TDX_OPERAND_BUSY, "OP_STATE")));
    const sept = tdcs + TDCS.SECURE_EPT_LOCK.offset;
    held(sept, key, EXCLUSIVE, () => expect(aug()).toBe(withOperand(S.TDX_OPERAND_BUSY, "SEPT_TREE")));
    const epoch = tdcs + TDCS.EPOCH_LOCK.offset;
    held(epoch, key, 2, () =>
      expect(at.call("TDH.MEM.TRACK", { rcx: td.handle }).status).toBe(
        withOperand(S.TDX_OPERAND_BUSY, "TD_EPOCH"),
      ),
    );
    expect(aug()).toBe(0n);
  });

  test("are all free after any call", () => {
    for (const page of [td.tdr, free, ...td.children])
      for (const level of [0, 1, 2]) expect(lockOf(page, level)).toBe(0);
    for (const offset of [TDCS.OP_STATE_LOCK.offset, TDCS.SECURE_EPT_LOCK.offset, TDCS.EPOCH_LOCK.offset])
      expect(u16(tdcs + offset, key)).toBe(0);
  });
});

describe("the PAMT", () => {
  test("knows no page of a TD after its last RECLAIM", () => {
    const host = new TdHost({ lps: 1 });
    const [range] = host.host.tdx!.tdmrs;
    const pages = (range.size / PAGE_SIZE) * PAMT_ENTRY_SIZE;
    const inUse = () => {
      const entries = new Uint8Array(pages);
      for (let done = 0; done < pages; done += PAGE_SIZE)
        host.memory.read(
          (range.pamt4kBase + done) as Hpa,
          host.host.tdx!.globalKeyId as KeyId,
          entries.subarray(done, done + PAGE_SIZE),
        );
      let count = 0;
      for (let i = 2; i < entries.length; i += PAMT_ENTRY_SIZE)
        if (entries[i] !== PageType.PT_NDA && entries[i] !== PageType.PT_RSVD) count++;
      return count;
    };
    expect(inUse()).toBe(0);
    for (let n = 1; n <= 3; n++) {
      const td = new Td(host).create().init();
      for (let i = 0; i < n; i++) td.addVcpu();
      td.addPage(0xffff_f000);
      td.aug(0x40_0000);
      td.finalize();
      expect(inUse()).toBe(td.children.length + 1);
      td.destroy();
      expect(inUse()).toBe(0);
    }
  });
});
