import { describe, expect, test } from "vitest";
import fc from "fast-check";
import { TD_ATTRIBUTES } from "@swtdx/abi";
import {
  CPUID_CONFIGURABLE,
  CPUID_LOOKUP,
  cpuidLeafSubleaf,
  getCpuidLookupEntry,
  type CpuidQuad,
} from "../src/tables/cpuid.js";
import { computeTdCpuid, CpuidFlag, type TdCpuid, type TdCpuidInput } from "../src/tables/td-cpuid.js";
import { buildMsrBitmaps, findMsrEntry, MSR_LOOKUP } from "../src/tables/msr.js";
import { tdFeatures } from "../src/tables/td-features.js";
import { checkGuestXcr0Value, checkXfam, verifyTdAttributes } from "../src/tables/attributes.js";
import {
  cr0GuestHostMask,
  cr0ReadShadow,
  cr4GuestHostMask,
  cr4ReadShadow,
  writeGuestCr0,
  writeGuestCr4,
} from "../src/tables/control-registers.js";
import {
  checkAllowedVmxCtls,
  TD_VMCS_CONTROLS,
  TD_VMCS_GUEST_STATE,
  tdVmcsValues,
} from "../src/tables/td-vmcs.js";
import { opStateIsSeamcallAllowed } from "../src/tables/op-state.js";
import { virtualArchCapabilities, virtualVmxMsrs } from "../src/tables/virtual-msrs.js";
import { VMCS } from "@swtdx/cpu";
import { normalizeCpuidLeaf } from "../src/exits/td-cpuid.js";

const ALL: CpuidQuad = [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff];
const FMS = 0x806f8;
/** A processor with every feature bit, but plausible topology and TSC leaves. */
const richNative = (): CpuidQuad[] =>
  CPUID_LOOKUP.map((entry) => {
    if (entry === undefined) return [0, 0, 0, 0];
    if (entry.leaf === 0x1f)
      return entry.subleaf === 0
        ? [1, 2, 0x100, 0]
        : entry.subleaf === 1
          ? [6, 64, 0x201, 0]
          : [0, 0, entry.subleaf, 0];
    if (entry.leaf === 1) return [FMS, 0xffffffff, 0xffffffff, 0xffffffff];
    return ALL;
  });
const allowAll = (): CpuidQuad[] =>
  CPUID_CONFIGURABLE.map(({ leaf, configDirect, allowDirect }) =>
    leaf === 0x1f || leaf === 1
      ? [0, 0, allowDirect[2], allowDirect[3]]
      : ([0, 1, 2, 3].map((i) => (configDirect[i] | allowDirect[i]) >>> 0) as unknown as CpuidQuad),
  );
const input = (over: Partial<TdCpuidInput> = {}): TdCpuidInput => ({
  attributes: 1n << 28n,
  xfam: 3n,
  tscFrequency: 40,
  config: CPUID_CONFIGURABLE.map(() => [0, 0, 0, 0]),
  native: richNative(),
  platformFms: FMS,
  tsxCtrl: true,
  xfdFaultingMask: 0n,
  xsaveAreaMaxSize: (xcr0) => (xcr0 & 4n ? 0x340 : 0x240),
  ...over,
});
const ok = (over: Partial<TdCpuidInput> = {}): TdCpuid => {
  const result = computeTdCpuid(input(over));
  if (result.kind !== "ok") throw new Error(`TD configuration refused: ${JSON.stringify(result.kind)}`);
  return result;
};
const quad = (cpuid: TdCpuid, leaf: number, subleaf = 0): CpuidQuad =>
  cpuid.values[getCpuidLookupEntry(leaf, subleaf)];

describe("CPUID table", () => {
  test("rows are consistent with each other", () => {
    CPUID_CONFIGURABLE.forEach((config, index) => {
      const entry = CPUID_LOOKUP[config.lookupIndex]!;
      expect([entry.leaf, entry.subleaf, entry.configIndex]).toEqual([config.leaf, config.subleaf, index]);
    });
    for (const entry of CPUID_LOOKUP) {
      if (entry === undefined) continue;
      for (let i = 0; i < 4; i++) {
        expect((entry.verifyValue[i] & ~entry.verifyMask[i]) >>> 0, `${entry.leaf}`).toBe(0);
        // Leaf 0x1F takes its fixed bits from the rows' masks only.
        expect((entry.fixed1[i] & ~entry.fixed0OrDynamic[i] & 0x7ffffdff) >>> 0).toBe(
          entry.fixed1[i] & ~entry.fixed0OrDynamic[i] & 0x7ffffdff,
        );
      }
    }
  });

  test("leaf numbers: the first rows are the configurable ones", () => {
    expect(CPUID_CONFIGURABLE).toHaveLength(18);
    expect(cpuidLeafSubleaf(7, 1)).toBe(0x1_0000_0007n);
    expect(cpuidLeafSubleaf(1, 0xffffffff)).toBe(0xffffffff_00000001n);
    expect(getCpuidLookupEntry(0x1f, 6)).toBe(-1);
    expect(getCpuidLookupEntry(0x40000000, 0)).toBe(-1);
  });

  test("normalisation: above the end of a range is the end of the basic range", () => {
    expect(normalizeCpuidLeaf(0x24)).toBe(0x23);
    expect(normalizeCpuidLeaf(0x80000009)).toBe(0x23);
    expect(normalizeCpuidLeaf(0xffffffff)).toBe(0x23);
    expect(normalizeCpuidLeaf(0x80000008)).toBe(0x80000008);
    expect(normalizeCpuidLeaf(0x40000010)).toBe(0x40000010);
  });

  test("the TDX leaf spells IntelTDX", () => {
    const [, ebx, ecx, edx] = quad(ok(), 0x21);
    const text = new TextDecoder().decode(new Uint8Array(new Uint32Array([ebx, edx, ecx]).buffer));
    expect(text).toBe("IntelTDX    ");
  });

  test("values that do not depend on the processor", () => {
    const cpuid = ok();
    expect(quad(cpuid, 0)[0]).toBe(0x23);
    expect(quad(cpuid, 0x15)).toEqual([1, 40, 25_000_000, 0]);
    expect(quad(cpuid, 0x80000000)[0]).toBe(0x80000008);
    expect(quad(cpuid, 0x80000007)).toEqual([0, 0, 0, 0x100]);
    expect(quad(cpuid, 0x19)).toEqual([0, 0, 0, 0]);
    expect(quad(cpuid, 2)).toEqual([0x00feff01, 0, 0, 0]);
  });

  // What Intel's table fixes to 1 (guest-visible even with nothing configured) on a processor that has it.
  test("leaf 1: fixed, configurable and hidden bits", () => {
    const none = quad(ok(), 1);
    const bits = (word: number): number[] => [...Array(32).keys()].filter((n) => (word >>> n) & 1);
    expect(bits(none[2])).toEqual([0, 1, 2, 4, 9, 13, 15, 17, 19, 20, 21, 22, 23, 25, 26, 30, 31]);
    expect(bits(none[3])).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 19, 21, 23, 24, 25, 26,
    ]);
    const all = quad(ok({ config: allowAll(), xfam: 7n }), 1);
    // TSC_DEADLINE, MONITOR, EST, TM2, SS, HTT come with configuration; AVX, F16C, FMA with XFAM.
    for (const n of [24, 3, 7, 8, 12, 28, 29]) expect((all[2] >>> n) & 1, `ECX[${n}]`).toBe(1);
    expect((all[2] >>> 5) & 1, "VMX").toBe(0);
    expect((all[3] >>> 28) & 1, "HTT").toBe(1);
    expect(none[0]).toBe(FMS);
  });

  test("XFAM gates features", () => {
    const sse = ok({ config: allowAll() });
    const avx512 = ok({ config: allowAll(), xfam: 0xe7n });
    expect((quad(sse, 7)[1] >>> 5) & 1, "AVX2").toBe(0);
    expect((quad(avx512, 7)[1] >>> 5) & 1).toBe(1);
    expect((quad(avx512, 7)[1] >>> 16) & 1, "AVX512F").toBe(1);
    expect(quad(sse, 0xd, 2)).toEqual([0, 0, 0, 0]);
    expect(quad(avx512, 0xd, 2)[0]).toBe(0xffffffff);
    expect(quad(sse, 0xd)[0]).toBe(3);
    expect(quad(avx512, 0xd)[0]).toBe(0xe7);
    expect(quad(avx512, 0xd)[2]).toBe(0x340);
    expect(quad(sse, 0x14)).toEqual([0, 0, 0, 0]);
    expect(quad(sse, 0x1d)).toEqual([0, 0, 0, 0]);
  });

  test("ATTRIBUTES gate PKS and PERFMON", () => {
    expect((quad(ok({ config: allowAll() }), 7)[2] >>> 31) & 1).toBe(0);
    expect((quad(ok({ attributes: TD_ATTRIBUTES.PKS }), 7)[2] >>> 31) & 1).toBe(1);
    expect(quad(ok(), 0xa)).toEqual([0, 0, 0, 0]);
    expect(quad(ok({ attributes: TD_ATTRIBUTES.PERFMON }), 0xa)[0]).not.toBe(0);
  });

  test("LA57 decides the linear-address width", () => {
    expect((quad(ok(), 0x80000008)[0] >>> 8) & 0xff).toBe(48);
    const la57 = ok({ config: allowAll() });
    expect((quad(la57, 0x80000008)[0] >>> 8) & 0xff).toBe(57);
    expect(la57.flags[CpuidFlag.la57_supported]).toBe(1);
  });

  test("refusals", () => {
    const bad = input();
    const config = [...bad.config];
    config[0] = [0, 0, 1 << 5, 0];
    expect(computeTdCpuid({ ...bad, config })).toEqual({ kind: "config", rcx: 0xffffffff_00000001n });
    // HLE without RTM.
    const hle = [...bad.config];
    hle[5] = [0, 1 << 4, 0, 0];
    expect(computeTdCpuid({ ...bad, config: hle })).toEqual({ kind: "config", rcx: 7n });
    expect(computeTdCpuid(input({ config: allowAll(), tsxCtrl: false }))).toEqual({
      kind: "msr",
      index: 0x10a,
    });
    // Another model than the platform's.
    const fms = [...bad.config];
    fms[0] = [0x50654, 0, 0, 0];
    expect(computeTdCpuid({ ...bad, config: fms }).kind).toBe("config");
  });

  test("topology: configured, or the processor's; leaf 0xB follows", () => {
    expect(quad(ok(), 0x1f, 1)).toEqual([6, 64, 0x201, 0]);
    const config = [...input().config];
    config[12] = [1, 2, 0x100, 0];
    config[13] = [3, 8, 0x201, 0];
    config[14] = [5, 32, 0x502, 0];
    const cpuid = ok({ config });
    expect(quad(cpuid, 0xb, 0)).toEqual([1, 2, 0x100, 0]);
    expect(quad(cpuid, 0xb, 1)).toEqual([5, 32, 0x201, 0]);
    config[13] = [3, 8, 0x301, 0];
    expect(computeTdCpuid(input({ config })).kind).toBe("leaf1f");
    config[13] = [3, 8, 0x101, 0];
    expect(computeTdCpuid(input({ config })).kind).toBe("leaf1f");
  });

  test("a guest never sees a bit that is neither native, fixed nor configured", () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(0xffffffff), { minLength: 4, maxLength: 4 }),
        fc.nat(71),
        (words, index) => {
          const entry = CPUID_LOOKUP[index];
          if (entry === undefined || [0xd, 0x15, 0x1f, 1, 0xb, 0x80000008, 7].includes(entry.leaf)) return;
          const native = richNative();
          native[index] = words.map((w) => w >>> 0) as unknown as CpuidQuad;
          const value = ok({ native }).values[index];
          for (let i = 0; i < 4; i++) expect((value[i] & ~(words[i] | entry.fixed1[i])) >>> 0).toBe(0);
        },
      ),
    );
  });
});

describe("MSR table", () => {
  const none = tdFeatures(0n, 3n, { waitpkg: false, xfd: false, tsx: false }, false);
  const rich = tdFeatures(~0n & ((1n << 64n) - 1n), 0x6dbe7n, { waitpkg: true, xfd: true, tsx: true }, true);
  const native = (page: Uint8Array, index: number, write: boolean): boolean => {
    const at = (index >= 0xc0000000 ? 1024 : 0) + ((index & 0x1fff) >> 3) + (write ? 2048 : 0);
    return (page[at] & (1 << (index & 7))) === 0;
  };

  test("ascending, without overlap, 135 rows", () => {
    expect(MSR_LOOKUP).toHaveLength(135);
    for (let i = 1; i < MSR_LOOKUP.length; i++)
      expect(MSR_LOOKUP[i][0]).toBeGreaterThan(MSR_LOOKUP[i - 1][1]);
    expect(findMsrEntry(0x1b)).toBeNull();
    expect(findMsrEntry(0x816)?.[2]).toBe("IA32_X2APIC_ISRx");
  });

  test.each([
    [0x48, true, true],
    [0x10, true, false],
    [0x174, true, true],
    [0x277, true, true],
    [0x808, true, true],
    [0x80b, true, true],
    [0x802, false, false],
    [0x830, false, false],
    [0x1b, false, false],
    [0x6e0, false, false],
    [0xda0, true, false],
    [0xc0000080, true, false],
    [0xc0000082, true, true],
    [0xc0000083, false, false],
    [0xc0000102, true, true],
    [0x1a0, false, false],
    [0x345, false, false],
    [0xe1, false, false],
    [0x6e1, false, false],
    [0x560, false, false],
  ])("MSR 0x%x without features: native read %s, write %s", (index, read, write) => {
    const page = buildMsrBitmaps(none);
    expect([native(page, index, false), native(page, index, true)]).toEqual([read, write]);
  });

  test("features open MSRs", () => {
    const page = buildMsrBitmaps(rich);
    for (const index of [0xc1, 0x186, 0x38f, 0xe1, 0x122, 0x1c4, 0x6a2, 0x6e1, 0x570, 0x1500, 0x985, 0x329])
      expect(native(page, index, true), index.toString(16)).toBe(true);
    expect(native(page, 0x345, false)).toBe(true);
    expect(native(page, 0x1a0, true)).toBe(false);
  });
});

describe("ATTRIBUTES and XFAM", () => {
  test.each([
    [0x10000000n, true],
    [0x10000001n, true],
    [0x20000000n, true],
    [0x20000001n, false],
    [1n << 63n, true],
    [(1n << 63n) | (1n << 29n), false],
    [1n << 31n, false],
    [1n << 1n, false],
  ])("ATTRIBUTES 0x%x", (attributes, legal) => expect(verifyTdAttributes(attributes)).toBe(legal));

  test.each([
    [3n, true],
    [7n, true],
    [0xe7n, true],
    [0x67n, false],
    [0xe3n, false],
    [1n, false],
    [0x1803n, true],
    [0x803n, false],
    [0x60003n, true],
    [0x20003n, false],
    [0x2000003n, false],
  ])("XFAM 0x%x", (xfam, legal) => expect(checkXfam(xfam, ~0n)).toBe(legal));

  test("XFAM is bounded by the processor", () => expect(checkXfam(7n, 3n)).toBe(false));

  test.each([
    [1n, true],
    [0n, false],
    [7n, true],
    [5n, false],
    [0x207n, false],
    [3n, true],
  ])("XCR0 0x%x under XFAM 7", (xcr0, legal) => expect(checkGuestXcr0Value(xcr0, 7n, ~0n)).toBe(legal));
});

describe("control registers", () => {
  const fixed = {
    cr0Fixed0: 0x80000021n,
    cr0Fixed1: 0xffffffffn,
    cr4Fixed0: 0x2000n,
    cr4Fixed1: 0x3f767ffn,
  };
  test("masks and shadows", () => {
    expect(cr0GuestHostMask(fixed)).toBe(0xffffffff_7ffaffe1n);
    expect(cr0ReadShadow(fixed)).toBe(0x80000021n);
    // The guest reads MCE and not VMXE.
    expect(cr4ReadShadow(fixed)).toBe(0x40n);
    const mask = cr4GuestHostMask(fixed, 0n, 3n);
    for (const n of [6n, 13n, 14n, 19n, 22n, 23n, 24n, 25n]) expect((mask >> n) & 1n, `CR4[${n}]`).toBe(1n);
    for (const n of [5n, 7n, 9n, 18n, 20n, 21n]) expect((mask >> n) & 1n, `CR4[${n}]`).toBe(0n);
    expect((cr4GuestHostMask(fixed, 0n, 0x1a03n) >> 22n) & 3n).toBe(0n);
  });
  const cr0 = 0x80010021n;
  test.each([
    [0x80010001n, "GP"], // NE
    [0x1_80010021n, "GP"],
    [0x80000020n, "GP"], // PG without PE
    [0x20n, "VE"],
    [0xc0010021n, "VE"], // CD
    [0xa0010021n, "VE"], // NW
    [0x80050021n, "load"],
  ])("MOV to CR0 of 0x%x", (value, kind) =>
    expect(writeGuestCr0(value, cr0, 0x2040n, fixed).kind).toBe(kind),
  );
  test("reserved bits of CR0 are ignored, WP is kept with CET", () => {
    expect(writeGuestCr0(0x800100e1n, cr0, 0x2040n, fixed)).toEqual({ kind: "load", value: 0x80010021n });
    expect(writeGuestCr0(0x80000021n, cr0, 0x802040n, fixed).kind).toBe("GP");
  });
  test.each([
    [0x40n | (1n << 13n), "VE"],
    [0n, "VE"],
    [0x4040n, "VE"],
    [0x40n | (1n << 22n), "GP"],
    [0x40n | (1n << 24n), "GP"],
    [1n << 40n, "GP"],
  ])("MOV to CR4 of 0x%x", (value, kind) => expect(writeGuestCr4(value, cr0, fixed, 0n, 3n).kind).toBe(kind));
});

describe("TD VMCS", () => {
  test("controls: what a processor must allow", () => {
    const control = TD_VMCS_CONTROLS.pinbased;
    expect(checkAllowedVmxCtls((0xffn << 32n) | 0x16n, control.init, control)).toBe(0x3fn);
    expect(checkAllowedVmxCtls(0x16n, control.init, control)).toBeNull();
    // A fixed bit that should be variable.
    expect(checkAllowedVmxCtls((0xffn << 32n) | 0x96n, control.init, control)).toBeNull();
    const permissive = (index: number): bigint =>
      index === 0x492 ? ~0n & ((1n << 64n) - 1n) : 0xffffffffn << 32n;
    const values = tdVmcsValues(permissive, true);
    expect("msr" in values ? values.msr : values.procbased2).toBe(0x173cb3fan);
    expect(tdVmcsValues((index) => (index === 0x48e ? 0n : permissive(index)), true)).toEqual({ msr: 0x48e });
  });
  test("reset state", () => {
    const state = new Map(TD_VMCS_GUEST_STATE);
    expect(state.get(VMCS.GUEST_RIP)).toBe(0xfffffff0n);
    expect(state.get(VMCS.GUEST_IA32_EFER)).toBe(0x901n);
    expect(state.get(VMCS.GUEST_CS_AR_BYTES)).toBe(0xc09bn);
  });
});

describe("virtual MSRs", () => {
  test("IA32_ARCH_CAPABILITIES", () => {
    const native = 0x1ffffffn;
    expect(virtualArchCapabilities(native, false, 0n, true)).toBe(0x28f1efn & ~0x10n);
    expect(virtualArchCapabilities(native, true, 1n << 4n, false)! & 0x90n).toBe(0x10n);
    expect(virtualArchCapabilities(native, false, 1n << 4n, false)).toBeNull();
    expect(virtualArchCapabilities(native, true, 1n, false)).toBeNull();
  });
  test("VMX capabilities of an L2", () => {
    const msrs = virtualVmxMsrs({
      attributes: 0n,
      xfam: 3n,
      waitpkg: false,
      pconfig: false,
      monitorMwait: false,
      crFixed: { cr0Fixed0: 0x80000021n, cr0Fixed1: 0xffffffffn, cr4Fixed0: 0x2000n, cr4Fixed1: 0x3f767ffn },
      fixed1: { pinbased: 0x16n, procbased: 0x4006172n, exit: 0x36dffn & ~0x4n, entry: 0x11ffn & ~0x204n },
      eptVpidCap: 0n,
    });
    expect(msrs.get(0x480)).toBe(0x1c0_0000_0000_0000n);
    expect(msrs.get(0x486)).toBe(0x20n);
    for (const [index, value] of msrs)
      if (index >= 0x48b && index !== 0x48c && index < 0x491)
        expect(value & 0xffffffffn & ~(value >> 32n), index.toString(16)).toBe(0n);
  });
});

test("OP_STATE: what may be done when", () => {
  const RUNNABLE = 2;
  const INITIALIZED = 1;
  expect(opStateIsSeamcallAllowed(0, RUNNABLE)).toBe(true);
  expect(opStateIsSeamcallAllowed(0, INITIALIZED)).toBe(false);
  expect(opStateIsSeamcallAllowed(2, INITIALIZED)).toBe(true);
  expect(opStateIsSeamcallAllowed(2, RUNNABLE)).toBe(false);
  expect(opStateIsSeamcallAllowed(6, RUNNABLE)).toBe(true);
  expect(opStateIsSeamcallAllowed(18, 0)).toBe(true);
});
