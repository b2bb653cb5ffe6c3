import { describe, expect, test } from "vitest";
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import { Gpr, REG, VMCS } from "@swtdx/cpu";
import { LastTdExit, TDVPS, VcpuState } from "../src/structures/tdvps.js";
import { TDCS } from "../src/structures/tdcs.js";
import { TDR } from "../src/structures/tdr.js";
import { SeptState } from "../src/structures/sept.js";
import { decodeVcpuAndFlags } from "../src/entry/td-entry.js";
import { instruction, stop, tdcall, TestTd } from "./support/fake-seam.js";

describe("TD entry and exit", () => {
  test("a new vCPU's registers", () => {
    const td = new TestTd();
    td.enter(
      stop((lp) => {
        expect(lp.regs.gpr(Gpr.RBX)).toBe(48n);
        expect(lp.regs.gpr(Gpr.RCX)).toBe(0x809000n);
        expect(lp.regs.gpr(Gpr.R8)).toBe(0x809000n);
        expect(lp.regs.gpr(Gpr.RDX)).toBe(0x806f8n);
        expect(lp.regs.gpr(Gpr.RSI)).toBe(0n);
        expect(lp.regs.get(REG.FMASK)).toBe(0x20200n);
        expect(lp.regs.get(REG.DR6)).toBe(0xffff0ff0n);
        expect(lp.regs.get(REG.XCR0)).toBe(1n);
        expect(lp.vmread(VMCS.GUEST_RIP)).toBe(0xfffffff0n);
        expect(lp.vmread(VMCS.VIRTUAL_PROCESSOR_ID)).toBe(33n << 2n);
        expect(lp.vmread(VMCS.TD_HKID)).toBe(33n);
      }),
    );
  });

  test("an external interrupt goes to the VMM with its vector; the guest's registers do not", () => {
    const td = new TestTd();
    const rax = td.enter((lp) => {
      for (let i = 0; i < 16; i++) if (i !== 4) lp.regs.setGpr(i, 0x1111n * BigInt(i));
      lp.regs.set(REG.LSTAR, 0xffff_8000_0000_0000n);
      lp.regs.u8.fill(0xaa, REG.ZMM, REG.ZMM + 64);
      return stop()(lp);
    });
    const { regs } = td.lp;
    expect(rax).toBe(1n);
    expect(regs.gpr(Gpr.R9)).toBe(0x800000f3n);
    for (const register of [Gpr.RBX, Gpr.RSI, Gpr.RDI, Gpr.R10, Gpr.R15]) expect(regs.gpr(register)).toBe(0n);
    expect(regs.get(REG.LSTAR)).toBe(0n);
    expect(regs.get(REG.FMASK)).toBe(0x20200n);
    expect([...regs.u8.subarray(REG.ZMM, REG.ZMM + 64)].every((byte) => byte === 0)).toBe(true);
    expect(regs.get32(REG.MXCSR)).toBe(0x1f80);
    expect(td.tdvps.get(TDVPS.VCPU_STATE)).toBe(VcpuState.VCPU_READY);
    expect(td.tdcs.getAt(TDCS.REFCOUNT, 1)).toBe(0);
    td.enter(
      stop((lp) => {
        for (let i = 0; i < 16; i++) if (i !== 4) expect(lp.regs.gpr(i)).toBe(0x1111n * BigInt(i));
        expect(lp.regs.get(REG.LSTAR)).toBe(0xffff_8000_0000_0000n);
        expect(lp.regs.u8[REG.ZMM + 15]).toBe(0xaa);
      }),
    );
  });

  test("RBP of the VMM: kept with NO_RBP_MOD, cleared without", () => {
    for (const [configFlags, expected] of [
      [4n, 0x7777n],
      [0n, 0n],
    ] as const) {
      const td = new TestTd({ configFlags });
      td.lp.regs.setGpr(Gpr.RBP, 0x7777n);
      td.enter(stop());
      expect(td.lp.regs.gpr(Gpr.RBP)).toBe(expected);
    }
  });

  test("TDG.VP.VMCALL: the selected registers there and back", () => {
    const td = new TestTd().longMode(0x5000n);
    const rax = td.enter((lp) => {
      lp.regs.u8.fill(0x55, REG.ZMM + 64, REG.ZMM + 80);
      lp.regs.u8.fill(0x66, REG.ZMM + 128, REG.ZMM + 144);
      return tdcall({
        RAX: 0n,
        RCX: (1n << 17n) | 0xfc00n,
        R10: 0n,
        R11: 30n,
        R12: 1n,
        R13: 1n,
        R14: 0x3f8n,
        R15: 0x41n,
        RBX: 0xbbbn,
        RDX: 0xdddn,
      })(lp);
    });
    const { regs } = td.lp;
    expect(rax).toBe(77n);
    expect(regs.gpr(Gpr.RCX)).toBe(0x2fc00n);
    expect([Gpr.R11, Gpr.R14, Gpr.R15].map((r) => regs.gpr(r))).toEqual([30n, 0x3f8n, 0x41n]);
    expect([Gpr.RBX, Gpr.RDX].map((r) => regs.gpr(r))).toEqual([0n, 0n]);
    expect(regs.u8[REG.ZMM + 64]).toBe(0x55);
    expect(regs.u8[REG.ZMM + 128]).toBe(0);
    expect(td.tdvps.get(TDVPS.LAST_TD_EXIT)).toBe(LastTdExit.TDVMCALL);
    regs.setGpr(Gpr.R10, 0n);
    regs.setGpr(Gpr.R11, 0x1234n);
    regs.setGpr(Gpr.RBX, 0xbadn);
    regs.u8.fill(0x99, REG.ZMM + 64, REG.ZMM + 80);
    td.enter(
      stop((lp) => {
        expect(lp.regs.gpr(Gpr.RAX)).toBe(0n);
        expect(lp.regs.gpr(Gpr.RCX)).toBe(0x2fc00n);
        expect(lp.regs.gpr(Gpr.R11)).toBe(0x1234n);
        expect(lp.regs.gpr(Gpr.RBX)).toBe(0xbbbn);
        expect(lp.regs.gpr(Gpr.RDX)).toBe(0xdddn);
        expect(lp.regs.u8[REG.ZMM + 64]).toBe(0x99);
        expect(lp.regs.u8[REG.ZMM + 128]).toBe(0x66);
        expect(lp.vmread(VMCS.GUEST_RIP)).toBe(0x5004n);
      }),
    );
  });

  test.each([
    ["RAX", 1n, 4n],
    ["RCX", 2n, 4n],
    ["RSP", 0x10n, 4n],
    ["bits above 31", 1n << 32n, 4n],
    ["RBP with NO_RBP_MOD", 0xffecn, 4n],
  ])("TDG.VP.VMCALL refuses a mask with %s", (_what, mask, configFlags) => {
    const td = new TestTd({ configFlags }).longMode();
    td.enter(
      tdcall({ RAX: 0n, RCX: mask }),
      stop((lp) => expect(lp.regs.gpr(Gpr.RAX)).toBe(withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX"))),
    );
  });

  test("RBP may be passed without NO_RBP_MOD", () => {
    const td = new TestTd({ configFlags: 0n }).longMode();
    expect(td.enter(tdcall({ RAX: 0n, RCX: 0xffecn, RBP: 0x1234n }))).toBe(77n);
    expect(td.lp.regs.gpr(Gpr.RBP)).toBe(0x1234n);
  });

  test("triple fault: the vCPU is disabled", () => {
    const td = new TestTd();
    expect(td.enter(() => ({ reason: 2 }))).toBe(0x40000001_00000002n);
    expect(td.tdvps.get(TDVPS.VCPU_STATE)).toBe(VcpuState.VCPU_DISABLED);
  });

  test("machine check: the TD is dead and its memory is left alone", () => {
    const td = new TestTd();
    const rax = td.enter(() => ({ reason: 0, fields: [[VMCS.VM_EXIT_INTR_INFO, 0x80000312n]] }));
    expect(rax).toBe(0x60000005_00000000n);
    expect(td.tdr.get(TDR.FATAL)).toBe(1);
    expect(td.tdvps.get(TDVPS.VCPU_STATE)).toBe(VcpuState.VCPU_ACTIVE);
  });

  test("an exit that the TD's controls cannot give ends the TD", () => {
    const td = new TestTd();
    expect(td.enter(() => ({ reason: 16 }))).toBe(0x60000002_00000010n);
    const debug = new TestTd({ attributes: 1n });
    expect(debug.enter(() => ({ reason: 16 }))).toBe(16n);
  });

  test("TSC going back, IA32_TSC_ADJUST, RESUME_L1 and the hint without reason are refused", () => {
    const td = new TestTd();
    td.enter(stop());
    td.lp.tsc -= 500n;
    expect(td.enter()).toBe(TDX_STATUS.TDX_TSC_ROLLBACK);
    td.lp.msrs.set(0x3b, 1n);
    expect(td.enter()).toBe(withOperand(TDX_STATUS.TDX_INCONSISTENT_MSR, 0x3b));
    expect(decodeVcpuAndFlags(0x2000, 3 << 20)).toEqual({
      tdvpr: 0x2000,
      hostRecoverabilityHint: true,
      resumeL1: true,
    });
    expect(decodeVcpuAndFlags(0x2001, 0)).toBeNull();
    expect(decodeVcpuAndFlags(0, 1 << 22)).toBeNull();
  });

  test("a vCPU that was here in an older TD epoch flushes its translations", () => {
    const td = new TestTd();
    td.enter(stop());
    const before = td.lp.invepts;
    td.enter(stop());
    expect(td.lp.invepts).toBe(before);
    td.tdcs.set(TDCS.TD_EPOCH, 2n);
    td.enter(stop());
    expect(td.lp.invepts).toBe(before + 1);
    td.tdcs.set(TDCS.EPOCH_LOCK, 1);
    expect(td.enter()).toBe(withOperand(TDX_STATUS.TDX_OPERAND_BUSY, "TD_EPOCH"));
  });

  test("a corrupted XSAVE header stops the entry", () => {
    const td = new TestTd();
    td.lp.writeU64(td.tdvps.pa(TDVPS.XBUFF.offset) + 528, 33, 1n);
    expect(td.enter()).toBe(0x60000005_00000021n);
    expect(td.lp.regs.gpr(Gpr.RDX)).toBe(4n);
  });

  test("PEND_NMI waits for the NMI window and for the last #VE to be fetched", () => {
    const td = new TestTd().longMode();
    td.tdvps.set(TDVPS.PEND_NMI, 1);
    td.enter((lp) => {
      expect((lp.vmread(VMCS.CPU_BASED_VM_EXEC_CONTROL) >> 22n) & 1n).toBe(1n);
      return { reason: 8 };
    }, stop());
    expect(td.lp.injected).toEqual([0x80000202n]);
    expect(td.tdvps.get(TDVPS.PEND_NMI)).toBe(0);
    td.tdvps.set(TDVPS.PEND_NMI, 1);
    td.tdvps.set(TDVPS.VE_INFO_VALID, 0xffffffff);
    td.enter(stop((lp) => expect((lp.vmread(VMCS.CPU_BASED_VM_EXEC_CONTROL) >> 22n) & 1n).toBe(0n)));
    td.enter(
      tdcall({ RAX: 3n }),
      stop((lp) => expect((lp.vmread(VMCS.CPU_BASED_VM_EXEC_CONTROL) >> 22n) & 1n).toBe(1n)),
    );
  });

  test("zero-stepping: after seven EPT violations at one RIP the TD is not entered without the page", () => {
    const td = new TestTd().longMode();
    td.map(0x8000, SeptState.FREE);
    const violation = () => ({
      reason: 48,
      fields: [[VMCS.GUEST_PHYSICAL_ADDRESS, 0x8123n]] as [number, bigint][],
    });
    for (let i = 0; i < 7; i++) expect(td.enter(violation)).toBe(48n);
    expect(td.tdvps.get(TDVPS.LAST_EPF_GPA_LIST_IDX)).toBe(1);
    expect(td.enter()).toBe(48n);
    expect(td.lp.regs.gpr(Gpr.R8)).toBe(0x8000n);
    td.map(0x8000, SeptState.MAPPED);
    expect(td.enter(stop())).toBe(1n);
    expect(td.enter(instruction(10, 2, { RAX: 0x40000000n }), stop())).toBe(1n);
  });

  test("an event whose delivery was interrupted is injected again", () => {
    const td = new TestTd().longMode();
    td.map(0x8000, SeptState.FREE);
    td.enter(() => ({
      reason: 48,
      fields: [
        [VMCS.GUEST_PHYSICAL_ADDRESS, 0x8000n],
        [VMCS.IDT_VECTORING_INFO_FIELD, 0x80000b0en],
        [VMCS.IDT_VECTORING_ERROR_CODE, 2n],
      ],
    }));
    td.enter(stop());
    expect(td.lp.injected).toEqual([0x80000b0en]);
    expect(td.lp.vmread(VMCS.VM_ENTRY_EXCEPTION_ERROR_CODE)).toBe(2n);
  });
});
