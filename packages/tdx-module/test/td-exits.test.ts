import { describe, expect, test } from "vitest";
import { TD_ATTRIBUTES, TD_CTLS } from "@swtdx/abi";
import { Gpr, REG, VMCS } from "@swtdx/cpu";
import { TDCS } from "../src/structures/tdcs.js";
import { TDVPS } from "../src/structures/tdvps.js";
import { SeptState } from "../src/structures/sept.js";
import { getCpuidLookupEntry } from "../src/tables/cpuid.js";
import { CpuidFlag } from "../src/tables/td-cpuid.js";
import { ExitReason } from "../src/tables/exit-reasons.js";
import { instruction, stop, tdcall, TestTd, type FakeLp } from "./support/fake-seam.js";

const UD = 0x80000306n;
const GP = 0x80000b0dn;
const VE = 0x80000314n;
const DF = 0x80000b08n;
const PF = 0x80000b0en;

const ve = (td: TestTd) => ({
  reason: td.tdvps.get(TDVPS.VE_INFO_EXIT_REASON),
  qualification: td.tdvps.get(TDVPS.VE_INFO_EXIT_QUALIFICATION),
  gpa: td.tdvps.get(TDVPS.VE_INFO_GPA),
  gla: td.tdvps.get(TDVPS.VE_INFO_GLA),
  length: td.tdvps.get(TDVPS.VE_INFO_INSTRUCTION_LENGTH),
  valid: td.tdvps.get(TDVPS.VE_INFO_VALID) !== 0,
});
const cpuidResult = (lp: FakeLp): number[] =>
  [Gpr.RAX, Gpr.RBX, Gpr.RCX, Gpr.RDX].map((register) => Number(lp.regs.gpr(register)));

describe("instructions that a TD cannot execute", () => {
  test.each([
    ["IN/OUT", ExitReason.IO_INSTRUCTION],
    ["HLT", ExitReason.HLT],
    ["INVD", ExitReason.INVD],
    ["VMCALL", ExitReason.VMCALL],
    ["WBINVD", ExitReason.WBINVD],
    ["PCONFIG", ExitReason.PCONFIG],
    ["APIC write", ExitReason.APIC_WRITE],
  ])("%s: #VE with the exit's reason and qualification, RIP stays", (_name, reason) => {
    const td = new TestTd().longMode(0x7000n);
    td.enter(instruction(reason, 3, {}, 0x1f80008n), stop());
    expect(td.lp.injected).toEqual([VE]);
    expect(ve(td)).toEqual({ reason, qualification: 0x1f80008n, gpa: 0n, gla: 0n, length: 3, valid: true });
    expect(td.lp.vmread(VMCS.GUEST_RIP)).toBe(0x7000n);
    expect(td.lp.vmread(VMCS.GUEST_RFLAGS) & 0x10000n).toBe(0x10000n);
  });

  test.each([
    ["GETSEC", ExitReason.GETSEC],
    ["VMLAUNCH", ExitReason.VMLAUNCH],
    ["VMXON", ExitReason.VMXON],
    ["INVEPT", ExitReason.INVEPT],
    ["ENCLS", ExitReason.ENCLS],
    ["SEAMCALL", ExitReason.SEAMCALL],
    ["MWAIT", ExitReason.MWAIT],
    ["MONITOR", ExitReason.MONITOR],
  ])("%s: #UD", (_name, reason) => {
    const td = new TestTd().longMode();
    td.enter(instruction(reason, 3), stop());
    expect(td.lp.injected).toEqual([UD]);
  });

  test("ENCQMD and RDPMC without PERFMON: #GP(0)", () => {
    for (const reason of [ExitReason.ENQCMD_PASID, ExitReason.RDPMC]) {
      const td = new TestTd().longMode();
      td.enter(instruction(reason, 2), stop());
      expect(td.lp.injected).toEqual([GP]);
    }
  });

  test("a #VE before the last one was fetched is a #DF", () => {
    const td = new TestTd().longMode();
    td.enter(instruction(12, 1), instruction(30, 1), stop());
    expect(td.lp.injected).toEqual([VE, DF]);
    expect(ve(td).reason).toBe(12);
  });

  test("task switch, INIT and NMI are the VMM's", () => {
    for (const [reason, intr] of [
      [9, 0n],
      [3, 0n],
      [0, 0x80000202n],
    ] as const) {
      const td = new TestTd();
      expect(td.enter(() => ({ reason, fields: [[VMCS.VM_EXIT_INTR_INFO, intr]] }))).toBe(BigInt(reason));
      expect(td.lp.regs.gpr(Gpr.R9)).toBe(reason === 0 ? intr : 0n);
    }
  });
});

describe("CPUID", () => {
  const run = (td: TestTd, leaf: bigint, subleaf = 0n): number[] => {
    let result: number[] = [];
    td.enter(
      instruction(10, 2, { RAX: leaf, RCX: subleaf, RBX: 0xffff_ffff_0000_0000n }),
      stop((lp) => {
        result = cpuidResult(lp);
      }),
    );
    return result;
  };

  test("a value from TDCS, zero-extended, and RIP after the instruction", () => {
    const td = new TestTd().longMode(0x9000n);
    td.setCpuid(getCpuidLookupEntry(0x21, 0), [0, 0x65746e49, 0x20202020, 0x5844546c]);
    expect(run(td, 0xffff_ffff_0000_0021n)).toEqual([0, 0x65746e49, 0x20202020, 0x5844546c]);
    expect(td.lp.vmread(VMCS.GUEST_RIP)).toBe(0x9002n);
    expect(td.lp.regs.gpr(Gpr.RBX)).toBe(0n);
    expect(td.lp.injected).toEqual([]);
  });

  test.each([6n, 9n, 0x10n, 0x16n, 0x40000000n, 0x4fffffffn, 0x80000002n, 0x80000006n, 0xbn, 0x1fn, 2n])(
    "leaf 0x%x: #VE",
    (leaf) => {
      const td = new TestTd().longMode();
      run(td, leaf);
      expect(td.lp.injected).toEqual([VE]);
      expect(ve(td)).toMatchObject({ reason: 10, qualification: 0n });
    },
  );

  test("leaf 1 follows CR4.OSXSAVE and the vCPU's index", () => {
    const td = new TestTd().longMode();
    td.tdvps.set(TDVPS.VCPU_INDEX, 3);
    td.setCpuid(getCpuidLookupEntry(1, 0), [0x806f8, 0x00010800, 0x80000000, 0]);
    expect(run(td, 1n)).toEqual([0x806f8, 0x03010800, 0x80000000, 0]);
    td.lp.vmwrite(VMCS.GUEST_CR4, 0x42040n);
    expect(run(td, 1n)[2]).toBe(0x88000000);
  });

  test("ENUM_TOPOLOGY: leaves 0xB, 0x1F and 1 tell the x2APIC id", () => {
    const td = new TestTd({ tdCtls: TD_CTLS.ENUM_TOPOLOGY }).longMode();
    td.tdvps.set(TDVPS.X2APIC_ID, 0x123);
    td.setCpuid(getCpuidLookupEntry(0x1f, 1), [6, 4, 0x201, 0]);
    expect(run(td, 0x1fn, 1n)).toEqual([6, 4, 0x201, 0x123]);
    expect(run(td, 0xbn)[3]).toBe(0x123);
    expect(run(td, 1n)[1] >>> 24).toBe(0x23);
  });

  test("VIRT_CPUID2 serves leaf 2", () => {
    const td = new TestTd({ tdCtls: TD_CTLS.VIRT_CPUID2 }).longMode();
    td.setCpuid(72, [0x00feff01, 0, 0, 0]);
    expect(run(td, 2n)).toEqual([0x00feff01, 0, 0, 0]);
  });

  test("SYSCALL shows in 64-bit mode only; leaf 0xD asks the processor for the size", () => {
    const td = new TestTd().longMode();
    td.setCpuid(getCpuidLookupEntry(0x80000001, 0), [0, 0, 0x121, 0x2c100000]);
    expect(run(td, 0x80000001n)[3]).toBe(0x2c100800);
    td.lp.vmwrite(VMCS.GUEST_CS_AR_BYTES, 0xc09bn);
    expect(run(td, 0x80000001n)[3]).toBe(0x2c100000);
    expect(run(td, 0xdn)[1]).toBe(0x440);
  });

  test("TDG.VP.CPUIDVE.SET and CPUID_CONTROL turn CPUID into #VE by CPL", () => {
    const td = new TestTd().longMode();
    td.enter(tdcall({ RAX: 5n, RCX: 2n }), stop());
    run(td, 0n);
    expect(td.lp.injected).toEqual([]);
    td.lp.vmwrite(VMCS.GUEST_SS_AR_BYTES, 0xc0f3n);
    run(td, 0n);
    expect(td.lp.injected).toEqual([VE]);
    const other = new TestTd().longMode();
    other.tdvps.setAt(TDVPS.CPUID_CONTROL, getCpuidLookupEntry(0x15, 0), 1);
    run(other, 0x15n);
    expect(other.lp.injected).toEqual([VE]);
  });
});

describe("MSRs", () => {
  const rdmsr = (td: TestTd, index: number): bigint => {
    td.enter(instruction(31, 2, { RCX: BigInt(index), RAX: ~0n & 0xffff_ffff_ffff_ffffn, RDX: 5n }), stop());
    const at = (register: number): bigint => td.tdvps.getAt(TDVPS.GPR, register);
    return (at(Gpr.RDX) << 32n) | at(Gpr.RAX);
  };
  const wrmsr = (td: TestTd, index: number, value: bigint): void => {
    td.enter(
      instruction(32, 2, { RCX: BigInt(index), RAX: value & 0xffff_ffffn, RDX: value >> 32n }),
      stop(),
    );
  };

  test.each([
    ["IA32_APIC_BASE", 0x1b, VE],
    ["IA32_BIOS_SIGN_ID", 0x8b, VE],
    ["IA32_MTRRCAP", 0xfe, VE],
    ["x2APIC ID", 0x802, VE],
    ["x2APIC LVT timer", 0x832, VE],
    ["IA32_FEATURE_CONTROL", 0x3a, VE],
    ["a KVM MSR", 0x4b564d00, VE],
    ["IA32_VMX_PINBASED_CTLS", 0x481, VE],
    ["xAPIC hole", 0x804, GP],
    ["SGX hash", 0x8c, GP],
    ["IA32_PMC0", 0xc1, GP],
    ["IA32_TSC_DEADLINE", 0x6e0, GP],
    ["IA32_TME_ACTIVATE", 0x982, GP],
    ["IA32_U_CET", 0x6a0, GP],
    ["IA32_PKRS", 0x6e1, GP],
    ["IA32_UMWAIT_CONTROL", 0xe1, GP],
  ])("RDMSR of %s (0x%x)", (_name, index, event) => {
    const td = new TestTd().longMode();
    rdmsr(td, index);
    expect(td.lp.injected).toEqual([event]);
    if (event === VE) expect(ve(td)).toMatchObject({ reason: 31, qualification: 0n });
  });

  test.each([
    ["IA32_TIME_STAMP_COUNTER", 0x10, VE],
    ["IA32_MISC_ENABLE", 0x1a0, VE],
    ["x2APIC ICR", 0x830, VE],
    ["IA32_VMX_BASIC", 0x480, GP],
    ["IA32_PERF_CAPABILITIES", 0x345, GP],
    ["x2APIC ID", 0x802, GP],
  ])("WRMSR of %s (0x%x)", (_name, index, event) => {
    const td = new TestTd().longMode();
    wrmsr(td, index, 0n);
    expect(td.lp.injected).toEqual([event]);
  });

  test("virtual CPUID decides between #GP and #VE", () => {
    const td = new TestTd().longMode();
    td.tdcs.setAt(TDCS.CPUID_FLAGS, CpuidFlag.tsc_deadline_supported, 1);
    rdmsr(td, 0x6e0);
    expect(td.lp.injected).toEqual([VE]);
  });

  test("emulated reads", () => {
    const td = new TestTd().longMode();
    td.lp.msrs.set(0x1a0, 0x850089n);
    expect(rdmsr(td, 0x1a0)).toBe(0x851009n);
    expect(rdmsr(td, 0x345)).toBe(0n);
    expect(rdmsr(td, 0xbd)).toBe(1n);
    td.tdcs.set({ offset: 0x778, size: 8 }, 0x12_3456_789an);
    expect(rdmsr(td, 0x10a)).toBe(0x12_3456_789an);
    td.tdcs.set({ offset: 0x700, size: 8 }, 0x1c0_0000_0000_0000n);
    expect(rdmsr(td, 0x480)).toBe(0x1c0_0000_0000_0000n);
    expect(td.lp.injected).toEqual([]);
  });

  test("EFER: only SCE may change, LMA is ignored", () => {
    const td = new TestTd().longMode();
    wrmsr(td, 0xc0000080, 0x900n);
    expect(td.lp.injected).toEqual([]);
    expect(td.lp.vmread(VMCS.GUEST_IA32_EFER)).toBe(0xd00n);
    wrmsr(td, 0xc0000080, 0x500n);
    expect(td.lp.injected).toEqual([VE]);
  });

  test("XSS within XFAM, DEBUGCTL without reserved bits", () => {
    const td = new TestTd({ xfam: 0x1807n }).longMode();
    wrmsr(td, 0xda0, 0x1800n);
    expect(td.tdvps.get(TDVPS.IA32_XSS)).toBe(0x1800n);
    wrmsr(td, 0xda0, 0x100n);
    wrmsr(td, 0x1d9, 8n);
    expect(td.lp.injected).toEqual([GP, GP]);
    wrmsr(td, 0x1d9, 0x2003n);
    expect(td.lp.vmread(VMCS.GUEST_IA32_DEBUGCTL)).toBe(3n);
    expect(rdmsr(td, 0x1d9)).toBe(3n);
  });
});

describe("control registers", () => {
  const movToCr = (td: TestTd, cr: number, value: bigint): void => {
    td.enter(instruction(28, 3, { RSI: value }, BigInt(cr | (6 << 8))), stop());
  };
  test("CR0 and CR4", () => {
    const td = new TestTd().longMode();
    td.lp.vmwrite(VMCS.GUEST_CR0, 0x80010021n);
    movToCr(td, 0, 0x80010061n);
    expect(td.lp.vmread(VMCS.GUEST_CR0)).toBe(0x80010021n);
    movToCr(td, 0, 0x80010001n);
    movToCr(td, 4, 1n << 22n);
    movToCr(td, 4, 0n);
    expect(td.lp.injected).toEqual([GP, GP, VE]);
    expect(ve(td)).toMatchObject({ reason: 28, qualification: 0x604n });
  });
  test("LMSW writes MP, EM and TS", () => {
    const td = new TestTd().longMode();
    td.enter(instruction(28, 3, {}, 0x30n | (0xfn << 16n)), stop());
    expect(td.lp.vmread(VMCS.GUEST_CR0)).toBe(0x2fn);
  });
  test("XSETBV within XFAM", () => {
    const td = new TestTd({ xfam: 7n }).longMode();
    td.enter(
      instruction(55, 3, { RCX: 0n, RAX: 7n, RDX: 0n }),
      stop((lp) => expect(lp.regs.get(REG.XCR0)).toBe(7n)),
    );
    for (const [rcx, rax] of [
      [1n, 7n],
      [0n, 0xe7n],
      [0n, 5n],
      [0n, 0n],
    ])
      td.enter(instruction(55, 3, { RCX: rcx, RAX: rax, RDX: 0n }), stop());
    expect(td.lp.injected).toEqual([GP, GP, GP, GP]);
    expect(td.tdvps.get(TDVPS.XCR0)).toBe(7n);
  });
});

describe("EPT violations", () => {
  const violation = (gpa: bigint, qualification = 0x181n, gla = 0xffff_8000_0000_1234n) =>
    (() => ({
      reason: 48,
      qualification,
      fields: [
        [VMCS.GUEST_PHYSICAL_ADDRESS, gpa],
        [VMCS.GUEST_LINEAR_ADDRESS, gla],
      ] as [number, bigint][],
    })) as () => { reason: number; qualification: bigint; fields: [number, bigint][] };

  test("a private page that is not there: to the VMM, without page offset and linear-address bits", () => {
    const td = new TestTd().longMode();
    expect(td.enter(violation(0x12345678n, 0x1f82n))).toBe(48n);
    const { regs } = td.lp;
    expect([Gpr.RCX, Gpr.RDX, Gpr.R8, Gpr.R9].map((r) => regs.gpr(r))).toEqual([2n, 0n, 0x12345000n, 0n]);
  });

  test("a pending page: #VE, or a TD exit of its own kind with PENDING_VE_DISABLE", () => {
    const td = new TestTd({ tdCtls: 0n }).longMode();
    td.map(0x8000, SeptState.PENDING);
    td.enter(violation(0x8008n, 0x182n), stop());
    expect(td.lp.injected).toEqual([VE]);
    expect(ve(td)).toMatchObject({
      reason: 48,
      qualification: 0x182n,
      gpa: 0x8008n,
      gla: 0xffff_8000_0000_1234n,
    });
    const quiet = new TestTd({ tdCtls: 1n }).longMode();
    quiet.map(0x8000, SeptState.PENDING);
    expect(quiet.enter(violation(0x8008n))).toBe(48n);
    expect(quiet.lp.regs.gpr(Gpr.RDX)).toBe(6n);
  });

  test("shared GPAs are the VMM's, misconfigurations too", () => {
    const td = new TestTd().longMode();
    expect(td.enter(violation((1n << 47n) | 0xfec00000n))).toBe(48n);
    expect(td.lp.regs.gpr(Gpr.R8)).toBe((1n << 47n) | 0xfec00000n);
    expect(
      td.enter(() => ({ reason: 49, fields: [[VMCS.GUEST_PHYSICAL_ADDRESS, (1n << 47n) | 0x1010n]] })),
    ).toBe(49n);
    expect(td.lp.regs.gpr(Gpr.R8)).toBe((1n << 47n) | 0x1000n);
  });

  test("bits above a 48-bit GPA: #PF with RSVD", () => {
    const td = new TestTd().longMode();
    td.enter(
      violation((1n << 50n) | 0x1000n, 0x182n),
      stop((lp) => expect(lp.regs.get(REG.CR2)).toBe(0xffff_8000_0000_1234n)),
    );
    expect(td.lp.injected).toEqual([PF]);
    expect(td.lp.vmread(VMCS.VM_ENTRY_EXCEPTION_ERROR_CODE)).toBe(0xbn);
  });

  test("the #PF becomes #DF, then a triple fault, when an exception was being delivered", () => {
    const during = (vector: bigint) => () => {
      const exit = violation((1n << 50n) | 0x1000n, 0x182n)();
      exit.fields.push([VMCS.IDT_VECTORING_INFO_FIELD, 0x80000b00n | vector]);
      return exit;
    };
    const td = new TestTd().longMode();
    td.enter(during(14n), stop());
    expect(td.lp.injected).toEqual([DF]);
    expect(td.enter(during(8n))).toBe(0x40000001_00000002n);
  });
});

test("a TD under debug: the VMM's exception bitmap sees injected exceptions", () => {
  const td = new TestTd({ attributes: TD_ATTRIBUTES.DEBUG }).longMode();
  td.lp.vmwrite(VMCS.EXCEPTION_BITMAP, 1n << 20n);
  expect(td.enter(instruction(12, 1))).toBe(0n);
  expect(td.lp.regs.gpr(Gpr.R9)).toBe(VE);
});
