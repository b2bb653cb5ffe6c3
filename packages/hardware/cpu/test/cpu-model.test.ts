/**
 * CPUID and MSRs: what Intel's TDX module insists on at TDH.SYS.INIT (intel/tdx-module tdx_1.5,
 * include/auto_gen/cpuid_configurations.c verify_mask and verify_value; tdh_sys_init.c), and WRMSR rules.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { VMCS } from "../src/index.js";
import { ALLOWED, ALLOWED_PROC3 } from "../src/vmx/controls.js";
import { fieldIndex } from "../src/vmx/vmcs.js";
import { fieldBits, fieldExists, fieldIsReadOnly } from "../src/vmx/instructions.js";
import { createPlatform, ok } from "./support/platform.js";

/** [leaf, subleaf, register, mask, value]. */
const VERIFY: readonly (readonly [number, number, "eax" | "ebx" | "ecx" | "edx", number, number])[] = [
  [0x0, 0, "ebx", 0xffffffff, 0x756e6547],
  [0x0, 0, "ecx", 0xffffffff, 0x6c65746e],
  [0x0, 0, "edx", 0xffffffff, 0x49656e69],
  [0x1, 0, "ebx", 0xff00, 0x800],
  [0x1, 0, "ecx", 0x47faa217, 0x47faa217],
  [0x1, 0, "edx", 0x1fa9fbff, 0x1fa9fbff],
  [0x4, 0, "ebx", 0xfff, 0x3f],
  [0x4, 1, "ebx", 0xfff, 0x3f],
  [0x4, 2, "ebx", 0xfff, 0x3f],
  [0x4, 3, "eax", 0xe0, 0x60],
  [0x4, 3, "ebx", 0xfff, 0x3f],
  [0x4, 3, "edx", 1, 0],
  [0x4, 4, "eax", 0x1f, 0],
  [0x6, 0, "eax", 0x800000, 0],
  [0x7, 0, "eax", 0xffffffff, 2],
  [0x7, 0, "ebx", 0x219424c3, 0x219424c3],
  [0x7, 0, "ecx", 0x99000000, 0x99000000],
  [0x7, 0, "edx", 0xfc082600, 0xfc080400],
  [0x7, 2, "edx", 0x17, 0x17],
  [0xa, 0, "eax", 0xff00, 0x800],
  [0xa, 0, "ecx", 0xffffff80, 0],
  [0xa, 0, "edx", 0x8000, 0x8000],
  [0xd, 0, "eax", 3, 3],
  [0xd, 1, "eax", 0xf, 0xf],
  [0xd, 1, "ecx", 0x1800, 0x1800],
  [0x14, 0, "eax", 0xffffffff, 1],
  [0x1f, 5, "ecx", 0xff00, 0],
  [0x23, 1, "eax", 0xffffff00, 0],
  [0x80000001, 0, "ecx", 0x121, 0x121],
  [0x80000001, 0, "edx", 0x2c100800, 0x2c100800],
  [0x80000006, 0, "ecx", 0xff, 0x40],
  [0x80000007, 0, "edx", 0x100, 0x100],
  [0x80000008, 0, "eax", 0xff, 0x34],
  [0x80000008, 0, "ebx", 0x200, 0x200],
];

describe("CPUID", () => {
  const { lp } = createPlatform(4);
  it.each(VERIFY)("leaf %i.%i %s is what the TDX module verifies", (leaf, subleaf, register, mask, value) => {
    expect((lp.cpuid(leaf, subleaf)[register] & mask) >>> 0).toBe(value >>> 0);
  });
  it("has the leaves, topology and frequency the module derives from", () => {
    expect(lp.cpuid(0).eax).toBeGreaterThanOrEqual(0x1f);
    expect(lp.cpuid(0x80000000).eax).toBe(0x80000008);
    expect(lp.cpuid(0xa).eax & 0xff).toBeGreaterThanOrEqual(5);
    expect(lp.cpuid(0xa).edx & 0x1f).toBeLessThanOrEqual(7);
    const { eax, ebx, ecx } = lp.cpuid(0x15);
    expect((ecx * ebx) / eax).toBe(2_000_000_000);
    // WBINVD's scope is the package: L3's sharers fill the package's APIC ID bits.
    const shift = lp.cpuid(0x1f, 1).eax & 0x1f;
    expect(((lp.cpuid(4, 3).eax >>> 14) & 0xfff) >>> (shift - 1)).toBe(1);
    // Linear-address width fits LA57.
    expect((lp.cpuid(0x80000008).eax >>> 8) & 0xff).toBe(lp.cpuid(7).ecx & 0x10000 ? 57 : 48);
    // Supervisor and user components do not overlap, and subleaves say which is which.
    const user = lp.cpuid(0xd, 0).eax;
    const supervisor = lp.cpuid(0xd, 1).ecx;
    expect(user & supervisor).toBe(0);
    for (let i = 2; i < 19; i++) {
      const one = lp.cpuid(0xd, i);
      if (one.eax === 0) continue;
      expect((one.ecx & 1) === 1 ? supervisor & (1 << i) : user & (1 << i)).not.toBe(0);
    }
    expect(lp.cpuid(0x1c).eax & 0xff).not.toBe(0);
  });
  it("differs between logical processors only in APIC IDs", () => {
    const { processor } = createPlatform(4);
    const [a, b] = processor.lps;
    for (let leaf = 0; leaf <= 0x20; leaf++)
      for (let subleaf = 0; subleaf < 6; subleaf++) {
        if (leaf === 0xb || leaf === 0x1f) {
          expect({ ...a.cpuid(leaf, subleaf), edx: 0 }).toEqual({ ...b.cpuid(leaf, subleaf), edx: 0 });
          expect(b.cpuid(leaf, subleaf).edx).toBe(1);
        } else if (leaf !== 1) expect(a.cpuid(leaf, subleaf)).toEqual(b.cpuid(leaf, subleaf));
      }
    expect(b.cpuid(1).ebx >>> 24).toBe(1);
  });
  it("takes any leaf and subleaf", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 0xffffffff }),
        fc.integer({ min: 0, max: 0xffffffff }),
        (leaf, sub) => {
          const { eax, ebx, ecx, edx } = lp.cpuid(leaf, sub);
          expect([eax, ebx, ecx, edx].every((n) => Number.isInteger(n) && n >= 0 && n <= 0xffffffff)).toBe(
            true,
          );
        },
      ),
    );
  });
});

describe("MSRs", () => {
  const value = (lp: ReturnType<typeof createPlatform>["lp"], index: number): bigint => {
    const outcome = lp.rdmsr(index);
    if (outcome.kind !== "ok") throw new Error(index.toString(16));
    return outcome.value;
  };
  it("have the capabilities the TDX module checks", () => {
    const { lp } = createPlatform();
    const arch = value(lp, 0x10a);
    for (const bit of [0, 1, 3, 5, 6, 8, 10, 11, 12, 13, 14, 15, 21])
      expect((arch >> BigInt(bit)) & 1n).toBe(1n);
    expect((arch >> 2n) & 1n).toBe(0n);
    expect(value(lp, 0xbd)).toBe(1n);
    expect(value(lp, 0xbc) & 1n).toBe(1n);
    expect((value(lp, 0x345) >> 13n) & 1n).toBe(1n);
    expect(value(lp, 0x1a0) & (1n << 22n)).toBe(0n);
    expect(value(lp, 0x3b)).toBe(0n);
    const mtrrcap = value(lp, 0xfe);
    for (const bit of [11n, 14n, 15n]) expect((mtrrcap >> bit) & 1n).toBe(1n);
    const basic = value(lp, 0x480);
    expect(Number((basic >> 32n) & 0x1fffn)).toBeLessThanOrEqual(2048);
    expect((basic >> 54n) & 3n).toBe(3n);
    const misc = value(lp, 0x485);
    for (const bit of [5n, 6n, 7n, 14n, 29n]) expect((misc >> bit) & 1n).toBe(1n);
    expect(Number((misc >> 16n) & 0x1ffn)).toBeGreaterThanOrEqual(4);
    expect(value(lp, 0x48c) & 0x10106334041n).toBe(0x10106334041n);
  });
  // [capability, INIT, VARIABLE, UNKNOWN] of vmcs_defs.h, L1 and L2.
  it.each([
    ["pin", ALLOWED.pin, 0x29, 0x80, 0xffffff16],
    ["proc", ALLOWED.proc, 0x91220088, 0x20400c00, 0x04046173],
    ["proc2", ALLOWED.proc2, 0x133cb3fa, 0xcc000400, 0],
    ["exit", ALLOWED.exit, 0x1f3c8204, 0x40001000, 0x00036dfb],
    ["entry", ALLOWED.entry, 0x003ec004, 0x00402200, 0xff8011fb],
    ["pin L2", ALLOWED.pin, 0x29, 0, 0xffffff16],
    ["proc L2", ALLOWED.proc, 0x91220088, 0x68d81e04, 0x04046173],
    ["proc2 L2", ALLOWED.proc2, 0x1338b3fa, 0x0c513e0c, 0],
    ["proc3", { fixed1: 0, allowed1: ALLOWED_PROC3 }, 0x80, 0x20, 0xffffff40],
    ["proc3 L2", { fixed1: 0, allowed1: ALLOWED_PROC3 }, 0x80, 0x2e, 0xffffff40],
  ])("allow the module's %s controls", (_name, { fixed1, allowed1 }, init, variable, unknown) => {
    expect(fixed1 & ~(init | unknown)).toBe(0);
    expect(~allowed1 & init).toBe(0);
    expect((fixed1 | ~allowed1) & variable).toBe(0);
  });
  it("give #GP for what does not exist, read-only ones and reserved bits", () => {
    const { lp } = createPlatform();
    const gp = { kind: "fault", vector: 13, errorCode: 0 };
    expect(lp.rdmsr(0x12345)).toEqual(gp);
    expect(lp.wrmsr(0x10a, 0n)).toEqual(gp);
    expect(lp.wrmsr(0xc0000080, 1n << 40n)).toEqual(gp);
    expect(lp.wrmsr(0xc0000080, 0xc01n)).toEqual(gp);
    expect(lp.wrmsr(0xc0000082, 1n << 60n)).toEqual(gp);
    expect(lp.wrmsr(0x277, 2n)).toEqual(gp);
    expect(lp.wrmsr(0xda0, 1n)).toEqual(gp);
    expect(lp.wrmsr(0x405, 1n)).toEqual(gp);
    expect(lp.wrmsr(0x48, 1n << 30n)).toEqual(gp);
    expect(lp.wrmsr(0x1b, 0n)).toEqual(gp);
    ok(lp.wrmsr(0x49, 1n));
    expect(lp.wrmsr(0x49, 2n)).toEqual(gp);
    ok(lp.wrmsr(0x3a, 5n));
    expect(lp.wrmsr(0x3a, 5n)).toEqual(gp);
    ok(lp.wrmsr(0x405, 0n));
    ok(lp.wrmsr(0x1f2, 0x7000_0006n));
    ok(lp.wrmsr(0x1f3, 0xff80_0c00n));
    expect(lp.wrmsr(0x1f3, 0n)).toEqual(gp);
  });
  it("activate encryption once, and lock SEAMRR", () => {
    const { lp, memory } = createPlatform();
    const gp = { kind: "fault", vector: 13, errorCode: 0 };
    expect(lp.wrmsr(0x982, (7n << 32n) | 3n)).toEqual(gp);
    expect(lp.wrmsr(0x982, (1n << 36n) | 3n)).toEqual(gp);
    ok(lp.wrmsr(0x982, (3n << 48n) | (2n << 36n) | (6n << 32n) | 3n));
    expect(lp.wrmsr(0x982, 3n)).toEqual(gp);
    expect(value(lp, 0x87)).toBe((48n << 32n) | 15n);
    expect(memory.partition).toEqual({ mktmeKeyIds: 15, tdxKeyIds: 48 });
    ok(lp.wrmsr(0x1400, 0x200_0008n));
    ok(lp.wrmsr(0x1401, 0xf_ffff_fe00_0c00n));
    expect(lp.wrmsr(0x1400, 8n)).toEqual(gp);
    expect(lp.processor.seamRange).toEqual({ base: 0x200_0000, size: 0x200_0000 });
  });
  it("keep time: TSC writes move TSC_ADJUST, the deadline fires", () => {
    const { lp } = createPlatform();
    ok(lp.wrmsr(0x10, 1000n));
    expect(value(lp, 0x3b)).toBe(1000n);
    lp.advance(50n);
    expect(lp.tsc).toBe(1050n);
    ok(lp.wrmsr(0x832, 0x400ecn));
    ok(lp.wrmsr(0x6e0, 1100n));
    expect(lp.takeInterrupt()).toBe(null);
    lp.advance(50n);
    expect(lp.takeInterrupt()).toBe(0xec);
    expect(value(lp, 0x6e0)).toBe(0n);
  });
  it("send inter-processor interrupts by the ICR", () => {
    const { processor } = createPlatform(3);
    const [a, b, c] = processor.lps;
    ok(a.wrmsr(0x830, (1n << 32n) | 0xf2n));
    expect(b.takeInterrupt()).toBe(0xf2);
    expect(c.takeInterrupt()).toBe(null);
    ok(a.wrmsr(0x830, (3n << 18n) | 0x400n));
    expect([a.takeNmi(), b.takeNmi(), c.takeNmi()]).toEqual([false, true, true]);
  });
});

describe("VMCS field encodings", () => {
  it("follow the SDM's structure: width, type, index", () => {
    for (const [name, encoding] of Object.entries(VMCS)) {
      // Bit 0 (access type) and the reserved bits 12 and above 14 are clear.
      expect(encoding & ~0x6ffe, name).toBe(0);
      expect(fieldIndex(encoding), name).toBeGreaterThanOrEqual(0);
      if (
        name.startsWith("GUEST_") &&
        encoding >= 0x800 &&
        !["GUEST_PHYSICAL_ADDRESS", "GUEST_LINEAR_ADDRESS"].includes(name)
      )
        expect((encoding >>> 10) & 3, name).toBe(2);
      if (name.startsWith("HOST_")) expect((encoding >>> 10) & 3, name).toBe(3);
      if (name.endsWith("_SELECTOR")) expect(fieldBits(encoding), name).toBe(16);
      if (name.endsWith("_BASE")) expect(fieldBits(encoding), name).toBe(64);
      // Only 64-bit fields have a high half.
      expect(fieldExists(encoding | 1), name).toBe(((encoding >>> 13) & 3) === 1);
    }
    expect(fieldIsReadOnly(VMCS.VM_EXIT_REASON)).toBe(true);
    expect(new Set(Object.values(VMCS)).size).toBe(Object.keys(VMCS).length);
    expect(fieldExists(0x7ffe)).toBe(false);
  });
});
