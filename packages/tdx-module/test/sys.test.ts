/** Module-wide functions: what TDH.SYS.INIT and TDH.SYS.LP.INIT demand of a platform; TDH.SYS.INFO and TDH.SYS.RDALL. */
import {
  decodeMetadataFieldId,
  MD_FIELD_ID_NA,
  type HpaAndKeyId,
  PAGE_SIZE,
  SYS_METADATA,
  TDSYSINFO_STRUCT,
  TDX_STATUS as S,
  viewOf,
  withOperand,
} from "@swtdx/abi";
import type { Cpuid, SeamContext } from "@swtdx/cpu";
import { describe, expect, test } from "vitest";
import { comparePlatform, samplePlatform, type Platform } from "../src/platform.js";
import { encodeSysInfoTable, SysInfoTable } from "../src/seamldr/sysinfo-table.js";
import { Td, TdHost } from "./support/td-host.js";

const at = new TdHost({ lps: 1 });
const GIB = 2 ** 30;

type Words = Partial<Cpuid>;
/** The booted processor, with MSRs and CPUID words replaced. */
function processor(msrs: Record<number, bigint> = {}, cpuid: Record<string, Words> = {}) {
  const { lp } = at;
  return {
    regs: lp.regs,
    rdmsr: (index: number) => (index in msrs ? { kind: "ok", value: msrs[index] } : lp.rdmsr(index)),
    cpuid: (leaf: number, subleaf: number) => ({
      ...lp.cpuid(leaf, subleaf),
      ...cpuid[`${leaf.toString(16)}.${subleaf}`],
    }),
  } as unknown as SeamContext;
}
const info = (cmrs = [{ base: 0x10_0000, size: 0x3000_0000 }], tdxWithoutIntegrity = true) =>
  new SysInfoTable(encodeSysInfoTable({ cmrs, tdxWithoutIntegrity }));
const of = (index: number) => {
  const outcome = at.lp.rdmsr(index);
  return outcome.kind === "ok" ? outcome.value : 0n;
};
const good = samplePlatform(processor(), info());

describe("TDH.SYS.INIT", () => {
  test("is content with the processor", () => expect(typeof good).toBe("object"));

  const without = (index: number, bit: number) => ({ [index]: of(index) & ~(1n << BigInt(bit)) });
  const incorrect = (index: number) => withOperand(S.TDX_INCORRECT_MSR_VALUE, index);
  test.each<[string, Record<number, bigint>, bigint]>([
    ["ARCH_CAPABILITIES.MDS_NO", without(0x10a, 5), incorrect(0x10a)],
    ["ARCH_CAPABILITIES.RSBA", { 0x10a: of(0x10a) | 4n }, incorrect(0x10a)],
    ["legacy xAPIC", { 0xbd: 0n }, incorrect(0xbd)],
    ["energy filtering", { 0xbc: 0n }, incorrect(0xbc)],
    ["PERF_CAPABILITIES.FW_WRITE", without(0x345, 13), incorrect(0x345)],
    ["limited CPUID", { 0x1a0: of(0x1a0) | (1n << 22n) }, S.TDX_LIMIT_CPUID_MAXVAL_SET],
    ["no BTS", { 0x1a0: of(0x1a0) | (1n << 11n) }, incorrect(0x1a0)],
    ["VMX_BASIC without true controls", without(0x480, 55), incorrect(0x480)],
    ["procbased controls", { 0x48e: of(0x48e) & 0xffff_ffffn }, incorrect(0x48e)],
    ["VMX_MISC without HLT state", without(0x485, 6), incorrect(0x485)],
    ["VMX_MISC with three CR3 targets", { 0x485: of(0x485) - (1n << 16n) }, incorrect(0x485)],
    ["EPT without write-back", without(0x48c, 14), incorrect(0x48c)],
    ["CR0 fixed to what a TD has not", { 0x486: of(0x486) | 2n }, incorrect(0x486)],
    ["CR4 without MCE", without(0x489, 6), incorrect(0x489)],
    ["TME_ACTIVATE not locked", without(0x982, 0), incorrect(0x982)],
    ["an algorithm that is not active", { 0x982: of(0x982) & 0xffff_ffff_ffffn }, incorrect(0x982)],
    ["2048 KeyIDs", { 0x87: (2017n << 32n) | 31n }, S.TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED | 2048n],
    ["no SMRR", without(0xfe, 11), S.TDX_SMRR_NOT_SUPPORTED],
    ["SMRR without lock", without(0xfe, 14), S.TDX_SMRR_LOCK_NOT_SUPPORTED],
    ["SMRR not locked", without(0x1f3, 10), S.TDX_SMRR_NOT_LOCKED],
    ["SMRR with a hole", { 0x1f3: 0xff7f_fc00n }, S.TDX_INVALID_SMRR_CONFIGURATION],
    ["SMRR over a CMR", { 0x1f2: 0x1000_0006n }, S.TDX_SMRR_OVERLAPS_CMR],
  ])("%s", (_, msrs, status) => {
    const outcome = samplePlatform(processor(msrs), info());
    expect(typeof outcome === "bigint" ? `0x${outcome.toString(16)}` : "ok").toBe(`0x${status.toString(16)}`);
  });

  test.each<[string, Record<string, Words>, bigint]>([
    ["leaf 0x1F missing", { "0.0": { eax: 0x1e } }, S.TDX_CPUID_LEAF_NOT_SUPPORTED | 0x1fn],
    ["performance monitoring version 4", { "a.0": { eax: 4 } }, S.TDX_INCORRECT_CPUID_VALUE],
    ["no TSC ratio", { "15.0": { ebx: 0 } }, S.TDX_CPUID_LEAF_NOT_SUPPORTED | 0x15n],
    ["levels out of order", { "1f.1": { ecx: 0x101 } }, S.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED],
    [
      "L3 of half a package",
      { "4.3": { eax: (at.lp.cpuid(4, 3).eax & ~(0xfff << 14)) | (31 << 14) } },
      S.TDX_INVALID_WBINVD_SCOPE,
    ],
    ["48 bits of linear address with LA57", { "80000008.0": { eax: 0x3034 } }, S.TDX_INCORRECT_CPUID_VALUE],
  ])("CPUID: %s", (_, cpuid, status) => {
    expect(samplePlatform(processor({}, cpuid), info())).toBe(status);
  });

  test("CMRs that overlap or are not in order", () => {
    const one = { base: GIB, size: GIB };
    for (const cmrs of [[one, one], [one, { base: 0, size: 4096 }], [{ base: 0x800, size: GIB }], []])
      expect(samplePlatform(processor(), info(cmrs))).toBe(S.TDX_CMR_LIST_INVALID);
    const capability = of(0x981) & ~0xan;
    expect(samplePlatform(processor({ 0x981: capability }), info(undefined, false))).toBe(incorrect(0x981));
  });
});

describe("TDH.SYS.LP.INIT", () => {
  const platform = good as Platform;
  test("wants all logical processors alike", () => {
    expect(comparePlatform(processor(), platform)).toBe(0n);
    for (const index of [0xcf, 0x3b, 0x1f2, 0x480, 0x982])
      expect(comparePlatform(processor({ [index]: of(index) ^ 0x1000n }), platform)).toBe(
        withOperand(S.TDX_INCONSISTENT_MSR, index),
      );
    const other = { "1.0": { ecx: at.lp.cpuid(1).ecx ^ 1 } };
    expect(comparePlatform(processor({}, other), platform)).toBe(S.TDX_INCONSISTENT_CPUID_FIELD);
    expect(at.lp.regs.gpr(1) & 0xffff_ffffn).toBe(1n);
  });
});

const read = (pa: number, bytes: number): Uint8Array => {
  const out = new Uint8Array(bytes);
  expect(at.lp.memRead(pa as HpaAndKeyId, out).kind).toBe("ok");
  return out;
};

describe("TDH.SYS.INFO", () => {
  const [target, cmrs] = [at.page(), at.page()];
  const call = (rcx: number, rdx: number, r8: number, r9: number) =>
    at.call("TDH.SYS.INFO", { rcx: BigInt(rcx), rdx: BigInt(rdx), r8: BigInt(r8), r9: BigInt(r9) });

  test("gives the structure and the CMRs", () => {
    const { status, rdx, r9 } = call(target, 4096, cmrs, 64);
    expect([status, rdx, r9]).toEqual([0n, 1024n, 32n]);
    const sysInfo = TDSYSINFO_STRUCT.decode(read(target, 1024));
    expect([sysInfo.VENDOR_ID, sysInfo.MAX_TDMRS, sysInfo.PAMT_ENTRY_SIZE]).toEqual([0x8086, 64, 16]);
    const field = (id: bigint) => at.ok("TDH.SYS.RD", { rdx: id }).r8;
    expect(BigInt(sysInfo.NUM_CPUID_CONFIG)).toBe(field(SYS_METADATA.NUM_CPUID_CONFIG.id));
    expect(sysInfo.XFAM_FIXED0).toBe(field(SYS_METADATA.XFAM_FIXED0.id));
    const list = viewOf(read(cmrs, 512));
    expect(list.getBigUint64(0, true)).toBe(field(SYS_METADATA.CMR_BASE.id));
    expect(list.getBigUint64(8, true)).toBe(field(SYS_METADATA.CMR_SIZE.id));
  });
  test("refuses buffers that are too small or out of line", () => {
    const invalid = (operand: "RCX" | "RDX" | "R8" | "R9") => withOperand(S.TDX_OPERAND_INVALID, operand);
    expect(call(target + 512, 4096, cmrs, 64).status).toBe(invalid("RCX"));
    expect(call(target, 1023, cmrs, 64).status).toBe(invalid("RDX"));
    expect(call(target, 1024, cmrs + 64, 64).status).toBe(invalid("R8"));
    expect(call(target, 1024, cmrs, 31).status).toBe(invalid("R9"));
  });
});

describe("TDH.SYS.RDALL", () => {
  test("gives every field that TDH.SYS.RD gives, from any field on", () => {
    const page = at.page();
    const seen = new Map<bigint, bigint>();
    let next = MD_FIELD_ID_NA;
    let pages = 0;
    do {
      const { status, r8 } = at.call("TDH.SYS.RDALL", { rdx: BigInt(page), r8: next });
      expect(status).toBe(r8 === MD_FIELD_ID_NA ? 0n : S.TDX_METADATA_LIST_OVERFLOW);
      const list = viewOf(read(page, PAGE_SIZE));
      const [size, sequences] = [list.getUint16(0, true), list.getUint16(2, true)];
      let offset = 8;
      for (let i = 0; i < sequences; i++) {
        const header = list.getBigUint64(offset, true);
        const { lastElementInField, lastFieldInSequence, fieldCode } = decodeMetadataFieldId(header);
        offset += 8;
        const count = (lastElementInField + 1) * (lastFieldInSequence + 1);
        const base = (header & ~((0x1fffn << 34n) | 0xff_ffffn)) | 0n;
        for (let n = 0; n < count; n++, offset += 8)
          seen.set(base | BigInt(fieldCode + n), list.getBigUint64(offset, true));
      }
      expect(offset).toBe(size);
      next = r8;
      expect(++pages).toBeLessThan(20);
    } while (next !== MD_FIELD_ID_NA);
    expect(seen.size).toBeGreaterThan(200);
    for (const [id, value] of seen) expect(at.ok("TDH.SYS.RD", { rdx: id }).r8).toBe(value);
    const middle = SYS_METADATA.CMR_BASE.id + 3n;
    expect(at.ok("TDH.SYS.RDALL", { rdx: BigInt(page), r8: middle }).r8).toBe(MD_FIELD_ID_NA);
    const header = viewOf(read(page, PAGE_SIZE)).getBigUint64(8, true);
    expect(decodeMetadataFieldId(header)).toMatchObject({ fieldCode: 0x83, lastFieldInSequence: 28 });
  });
  test("refuses a page that is none and a field that is none", () => {
    expect(at.call("TDH.SYS.RDALL", { rdx: 8n }).status).toBe(withOperand(S.TDX_OPERAND_INVALID, "RDX"));
    const page = BigInt(at.page());
    expect(at.call("TDH.SYS.RDALL", { rdx: page, r8: 0x3f00000000777777n }).status).toBe(
      S.TDX_METADATA_FIELD_ID_INCORRECT,
    );
  });
});

describe("metadata identifiers", () => {
  const td = new Td(at).create().init();
  const rd = (id: bigint, version = 0) => at.call("TDH.MNG.RD", { rcx: td.handle, rdx: id }, at.lp, version);
  const CPUID_VALUES = 0x9410000300000000n;
  /** As KVM makes them (tdx_read_cpuid). */
  const cpuidId = (leaf: number, subleaf: number | null, element: number) =>
    CPUID_VALUES |
    (leaf >= 0x8000_0000 ? 1n << 16n : 0n) |
    BigInt((leaf & 0x7f) << 9) |
    (subleaf === null ? 1n << 8n : BigInt(subleaf << 1)) |
    BigInt(element);

  test("name CPUID values by leaf and sub-leaf", () => {
    const low = rd(cpuidId(0x8000_0008, null, 0));
    expect([low.status, low.r8 & 0xffn]).toEqual([0n, 52n]);
    const features = rd(cpuidId(7, 0, 1)).r8;
    expect(rd(cpuidId(1, null, 1)).r8 >> 32n).not.toBe(0n);
    expect(features).not.toBe(0n);
    expect(rd(cpuidId(0x33, null, 0)).status).toBe(S.TDX_METADATA_FIELD_ID_INCORRECT);
    // Version 1 tells the next one.
    expect(rd(cpuidId(7, 0, 0), 1).rdx).toBe(cpuidId(7, 0, 1));
    expect(rd(cpuidId(7, 0, 1), 1).rdx).toBe(cpuidId(7, 1, 0));
  });
  test("are found by class and code, whatever else they say", () => {
    expect(rd(0x9110000000000000n).r8).toBe(1n << 28n);
    expect(rd(0x1110000000000003n).r8).toBe(0n);
  });
  test("lead from one field to the next, each once", () => {
    let id = rd(MD_FIELD_ID_NA, 1).rdx;
    const seen = new Set<bigint>();
    while (id !== MD_FIELD_ID_NA) {
      expect(seen.has(id)).toBe(false);
      seen.add(id);
      const { status, rdx } = rd(id, 1);
      expect([id.toString(16), status]).toEqual([id.toString(16), 0n]);
      id = rdx;
    }
    expect(seen.has(0x8010000000000001n)).toBe(true);
    expect(seen.has(cpuidId(0x15, null, 1)) || seen.has(cpuidId(0x15, 0, 1))).toBe(true);
    expect(seen.size).toBeGreaterThan(700);
  });
});
