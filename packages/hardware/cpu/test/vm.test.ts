/** A small ordinary VM: VMX without SEAM, a TypeScript program with EPT. */
import { guest, type GuestHandler } from "@swtdx/abi";
import { describe, expect, it } from "vitest";
import {
  ENTRY,
  ExitReason,
  Gpr,
  PIN,
  PROC,
  PROC2,
  REG,
  VMCS,
  VmxError,
  type GuestContext,
} from "../src/index.js";
import {
  createPlatform,
  enterVmx,
  EptBuilder,
  loadProgram,
  ok,
  pa,
  readField,
  read64,
  setupVmcs,
  write64,
  type GuestSetup,
  type Platform,
} from "./support/platform.js";
import type { GuestProgram } from "@swtdx/abi";

const VMCS_AT = 0x2000;
/** Guest memory begins here in DRAM. */
const RAM = 0x100_0000;
const ENTRY_GPA = 0x1000;

function vm(program: GuestProgram, setup: Partial<GuestSetup> = {}): Platform & { ept: EptBuilder } {
  const p = createPlatform(1, true);
  enterVmx(p.lp);
  const ept = new EptBuilder(
    (at, value) => write64(p.lp, at, value),
    (at) => read64(p.lp, at),
    0x80_0000,
  );
  for (let gpa = 0; gpa < 0x10_0000; gpa += 4096) ept.map(gpa, BigInt(RAM + gpa));
  loadProgram(p, RAM + ENTRY_GPA, "vm", program);
  setupVmcs(p.lp, VMCS_AT, { rip: BigInt(ENTRY_GPA), eptp: ept.pointer, ...setup });
  return { ...p, ept };
}
const launch = (p: Platform): number => {
  const outcome = p.lp.vmlaunch();
  if (outcome.kind !== "exit") throw new Error(`${JSON.stringify(outcome)} ${p.lp.entryFailure}`);
  return outcome.reason;
};
const resume = (p: Platform): number => {
  const outcome = p.lp.vmresume();
  if (outcome.kind !== "exit") throw new Error(`${JSON.stringify(outcome)} ${p.lp.entryFailure}`);
  return outcome.reason;
};
const skip = (p: Platform): void =>
  ok(
    p.lp.vmwrite(
      VMCS.GUEST_RIP,
      readField(p.lp, VMCS.GUEST_RIP) + readField(p.lp, VMCS.VM_EXIT_INSTRUCTION_LEN),
    ),
  );

describe("a VM", () => {
  it("exits at CPUID and takes the VMM's answer", () => {
    const seen: unknown[] = [];
    const p = vm(function* () {
      seen.push(yield* guest.cpuid(0x40000000, 3));
      yield* guest.store(0x5000n, 8, 0x1122334455667788n);
      seen.push(yield* guest.load(0x5004n, 4));
      yield* guest.hlt();
    });
    expect(launch(p)).toBe(ExitReason.CPUID);
    expect(readField(p.lp, VMCS.VM_EXIT_INSTRUCTION_LEN)).toBe(2n);
    expect(p.lp.regs.gpr(Gpr.RAX)).toBe(0x40000000n);
    expect(p.lp.regs.gpr(Gpr.RCX)).toBe(3n);
    for (const [gpr, value] of [
      [Gpr.RAX, 1n],
      [Gpr.RBX, 2n],
      [Gpr.RCX, 3n],
      [Gpr.RDX, 4n],
    ] as const)
      p.lp.regs.setGpr(gpr, value);
    skip(p);
    expect(resume(p)).toBe(ExitReason.HLT);
    expect(seen).toEqual([{ eax: 1, ebx: 2, ecx: 3, edx: 4 }, 0x11223344n]);
    expect(read64(p.lp, RAM + 0x5000)).toBe(0x1122334455667788n);
    expect(p.events.map((event) => event.type)).toContain("VMEXIT");
  });

  it("executes an operation again when RIP did not move", () => {
    const p = vm(function* () {
      yield* guest.out(0x3f8, 1, 0x41);
      yield* guest.hlt();
    });
    expect(launch(p)).toBe(ExitReason.IO_INSTRUCTION);
    expect(readField(p.lp, VMCS.EXIT_QUALIFICATION)).toBe(0x3f80000n);
    expect(resume(p)).toBe(ExitReason.IO_INSTRUCTION);
    skip(p);
    expect(resume(p)).toBe(ExitReason.HLT);
  });

  it("reports an EPT violation with GPA, linear address and qualification", () => {
    const p = vm(function* () {
      yield* guest.store(0x20_1234n, 4, 7n);
      yield* guest.hlt();
    });
    expect(launch(p)).toBe(ExitReason.EPT_VIOLATION);
    expect(readField(p.lp, VMCS.GUEST_PHYSICAL_ADDRESS)).toBe(0x20_1234n);
    expect(readField(p.lp, VMCS.GUEST_LINEAR_ADDRESS)).toBe(0x20_1234n);
    // Data write, nothing allowed, linear address valid, translation of it, paging off: user, writable.
    expect(readField(p.lp, VMCS.EXIT_QUALIFICATION)).toBe(0x782n);
    expect(p.lp.guestMemoryInstruction()).toEqual({ kind: "store", size: 4, gpr: Gpr.RAX, length: 2 });
    p.ept.map(0x20_1000, BigInt(RAM + 0x20_1000));
    expect(resume(p)).toBe(ExitReason.HLT);
    expect(read64(p.lp, RAM + 0x20_1230) >> 32n).toBe(7n);
  });

  it("reports misconfigured EPT entries", () => {
    const p = vm(function* () {
      yield* guest.load(0x20_1000n, 1);
    });
    p.ept.map(0x20_1000, BigInt(RAM), 2n);
    expect(launch(p)).toBe(ExitReason.EPT_MISCONFIG);
    expect(readField(p.lp, VMCS.GUEST_PHYSICAL_ADDRESS)).toBe(0x20_1000n);
  });

  it("shows a forgotten INVEPT: the TLB keeps the old translation", () => {
    const seen: bigint[] = [];
    const p = vm(function* () {
      for (;;) {
        seen.push(yield* guest.load(0x6000n, 8));
        yield* guest.hlt();
      }
    });
    write64(p.lp, RAM + 0x6000, 1n);
    write64(p.lp, RAM + 0x7000, 2n);
    launch(p);
    p.ept.map(0x6000, BigInt(RAM + 0x7000));
    skip(p);
    resume(p);
    expect(seen).toEqual([1n, 1n]);
    ok(p.lp.invept(1, p.ept.pointer));
    skip(p);
    resume(p);
    expect(seen).toEqual([1n, 1n, 2n]);
  });

  it("shows writes of another key to a frame that the TLB has cached", () => {
    const seen: bigint[] = [];
    const p = vm(function* () {
      for (;;) {
        seen.push(yield* guest.load(0x6000n, 8));
        yield* guest.hlt();
      }
    });
    launch(p);
    write64(p.lp, RAM + 0x6000, 77n);
    skip(p);
    resume(p);
    expect(seen).toEqual([0n, 77n]);
  });

  it("delivers an injected exception to the program's handler, with the faulting operation", () => {
    const log: string[] = [];
    const handler: GuestHandler = function* (frame) {
      log.push(`${frame.vector}/${frame.errorCode}/${frame.op?.op}`);
      frame.result = 5n;
      yield* guest.pause();
    };
    const p = vm(function* () {
      yield* guest.lidt(new Map([[13, handler]]));
      log.push(`${yield* guest.rdmsr(0xdead)}`);
      yield* guest.hlt();
    });
    expect(launch(p)).toBe(ExitReason.MSR_READ);
    expect(p.lp.regs.gpr(Gpr.RCX)).toBe(0xdeadn);
    ok(p.lp.vmwrite(VMCS.VM_ENTRY_INTR_INFO_FIELD, 0x80000b0dn));
    expect(resume(p)).toBe(ExitReason.HLT);
    expect(log).toEqual(["13/0/rdmsr", "5"]);
    expect(readField(p.lp, VMCS.VM_ENTRY_INTR_INFO_FIELD) >> 31n).toBe(0n);
  });

  it("ends in a triple fault when nobody handles an exception", () => {
    const p = vm(function* () {
      yield* guest.ud2();
    });
    expect(launch(p)).toBe(ExitReason.TRIPLE_FAULT);
  });

  it("exits on exceptions in the exception bitmap", () => {
    const p = vm(function* () {
      yield* guest.ud2();
    });
    ok(p.lp.vmwrite(VMCS.EXCEPTION_BITMAP, 1n << 6n));
    expect(launch(p)).toBe(ExitReason.EXCEPTION_OR_NMI);
    expect(readField(p.lp, VMCS.VM_EXIT_INTR_INFO)).toBe(0x80000306n);
  });

  it("is #UD where no program stands", () => {
    const p = vm(function* () {}, { rip: 0x3000n });
    ok(p.lp.vmwrite(VMCS.EXCEPTION_BITMAP, 1n << 6n));
    expect(launch(p)).toBe(ExitReason.EXCEPTION_OR_NMI);
    expect(readField(p.lp, VMCS.VM_EXIT_INTR_INFO)).toBe(0x80000306n);
  });

  it("leaves for external interrupts and the host's timer, and for NMIs", () => {
    const p = vm(function* () {
      for (;;) yield* guest.pause();
    });
    p.lp.setTimer(p.lp.tscNumber + 1000, 0xec);
    expect(launch(p)).toBe(ExitReason.EXTERNAL_INTERRUPT);
    expect(p.lp.tsc).toBeGreaterThanOrEqual(1000n);
    expect(p.lp.takeInterrupt()).toBe(0xec);
    p.lp.pendNmi();
    expect(resume(p)).toBe(ExitReason.EXCEPTION_OR_NMI);
    expect(readField(p.lp, VMCS.VM_EXIT_INTR_INFO)).toBe(0x80000202n);
    p.lp.pendExternalInterrupt(0x40);
    expect(resume(p)).toBe(ExitReason.EXTERNAL_INTERRUPT);
    expect(p.lp.takeInterrupt()).toBe(0x40);
    expect(p.lp.takeInterrupt()).toBe(null);
  });

  it("counts the preemption timer down", () => {
    const p = vm(
      function* () {
        for (;;) yield* guest.pause();
      },
      { pin: PIN.PREEMPTION_TIMER },
    );
    ok(p.lp.vmwrite(VMCS.VMX_PREEMPTION_TIMER_VALUE, 10n));
    const before = p.lp.tsc;
    expect(launch(p)).toBe(ExitReason.PREEMPTION_TIMER);
    // One PAUSE more than the timer's ticks, and the exit's own time.
    expect(p.lp.tsc - before).toBeLessThanOrEqual(330n + 140n + 1200n);
  });

  it("enters 64-bit mode by itself: tables, CR4, EFER, CR0, far jump", () => {
    const seen: bigint[] = [];
    const p = vm(
      function* () {
        yield* guest.store(0x8000n, 8, 0x9003n);
        yield* guest.store(0x9000n, 8, 0xa003n);
        // 2M page at 0, and the second 2M page's linear range mapped to GPA 0 too.
        yield* guest.store(0xa000n, 8, 0x83n);
        yield* guest.store(0xa008n, 8, 0x83n);
        yield* guest.writeCr(3, 0x8000n);
        yield* guest.writeCr(4, 0x2020n);
        yield* guest.wrmsr(0xc0000080, 0x100n);
        yield* guest.writeCr(0, 0x80000031n);
        yield* guest.ljmp64();
        seen.push(yield* guest.rdmsr(0xc0000080));
        yield* guest.store(0x200000n + 0x6000n, 8, 0xabcdefn);
        seen.push(yield* guest.load(0x6000n, 8));
        yield* guest.hlt();
      },
      { proc: PROC.USE_MSR_BITMAPS },
    );
    ok(p.lp.vmwrite(VMCS.MSR_BITMAP, 0x3000n));
    expect(launch(p)).toBe(ExitReason.HLT);
    expect(seen).toEqual([0x500n, 0xabcdefn]);
    expect(readField(p.lp, VMCS.VM_ENTRY_CONTROLS) & BigInt(ENTRY.IA32E_MODE_GUEST)).not.toBe(0n);
    expect(readField(p.lp, VMCS.GUEST_CS_AR_BYTES)).toBe(0xa09bn);
  });

  it("delivers page faults with error code and CR2", () => {
    const seen: string[] = [];
    const p = vm(
      function* () {
        yield* guest.lidt(
          new Map([
            [
              14,
              function* (frame) {
                seen.push(`${frame.cr2.toString(16)}/${frame.errorCode}`);
                frame.result = 0n;
                yield* guest.pause();
              } as GuestHandler,
            ],
          ]),
        );
        yield* guest.load(0x40_0000n, 8);
        yield* guest.store(0x1000n, 8, 0n);
        yield* guest.hlt();
      },
      { cr3: 0x8000n },
    );
    write64(p.lp, RAM + 0x8000, 0x9003n);
    write64(p.lp, RAM + 0x9000, 0xa003n);
    // Read-only 2M page; CR0.WP is set.
    write64(p.lp, RAM + 0xa000, 0x81n);
    expect(launch(p)).toBe(ExitReason.HLT);
    expect(seen).toEqual(["400000/0", "1000/3"]);
  });

  it("turns EPT violations into #VE where suppress-VE is clear, once", () => {
    const seen: string[] = [];
    const p = vm(
      function* () {
        yield* guest.lidt(
          new Map([
            [
              20,
              function* (frame) {
                seen.push(`#VE ${frame.op?.op}`);
                frame.result = 0n;
                yield* guest.pause();
              } as GuestHandler,
            ],
          ]),
        );
        yield* guest.load(0x20_0008n, 8);
        yield* guest.load(0x20_0010n, 8);
        yield* guest.hlt();
      },
      { proc2: PROC2.EPT_VIOLATION_VE },
    );
    ok(p.lp.vmwrite(VMCS.VE_INFORMATION_ADDRESS, 0x4000n));
    p.ept.entry(0x20_0000);
    // The area stays in use (nobody clears it), so the second violation exits.
    expect(launch(p)).toBe(ExitReason.EPT_VIOLATION);
    expect(seen).toEqual(["#VE load"]);
    expect(read64(p.lp, 0x4000)).toBe(0xffffffff_00000030n);
    expect(read64(p.lp, 0x4010)).toBe(0x20_0008n);
    expect(read64(p.lp, 0x4018)).toBe(0x20_0008n);
    expect(readField(p.lp, VMCS.GUEST_PHYSICAL_ADDRESS)).toBe(0x20_0010n);
  });

  it("gives interrupts to a guest by posted interrupts and virtual-interrupt delivery", () => {
    const seen: number[] = [];
    const p = vm(
      function* () {
        const handler: GuestHandler = function* (frame) {
          seen.push(frame.vector);
          yield* guest.wrmsr(0x80b, 0n);
        };
        yield* guest.lidt(
          new Map([
            [0x51, handler],
            [0x62, handler],
          ]),
        );
        yield* guest.cli();
        yield* guest.vmcall({});
        yield* guest.sti();
        yield* guest.pause();
        yield* guest.pause();
        yield* guest.hlt();
      },
      {
        pin: PIN.PROCESS_POSTED_INTERRUPTS,
        proc: PROC.TPR_SHADOW | PROC.USE_MSR_BITMAPS,
        proc2:
          PROC2.VIRTUALIZE_X2APIC_MODE |
          PROC2.APIC_REGISTER_VIRTUALIZATION |
          PROC2.VIRTUAL_INTERRUPT_DELIVERY,
        exit: 0x8000,
      },
    );
    ok(p.lp.vmwrite(VMCS.MSR_BITMAP, 0x3000n));
    ok(p.lp.vmwrite(VMCS.VIRTUAL_APIC_PAGE_ADDR, 0x5000n));
    ok(p.lp.vmwrite(VMCS.POSTED_INTR_DESC_ADDR, 0x6000n));
    ok(p.lp.vmwrite(VMCS.POSTED_INTR_NV, 0xf2n));
    expect(launch(p)).toBe(ExitReason.VMCALL);
    // Two requests in the descriptor, outstanding notification, and the notification vector.
    write64(p.lp, 0x6008, 1n << (0x51n - 64n));
    write64(p.lp, 0x6008, (1n << (0x51n - 64n)) | (1n << (0x62n - 64n)));
    write64(p.lp, 0x6020, 1n);
    p.lp.pendExternalInterrupt(0xf2);
    skip(p);
    expect(resume(p)).toBe(ExitReason.HLT);
    expect(seen).toEqual([0x62, 0x51]);
    expect(read64(p.lp, 0x6008)).toBe(0n);
    expect(read64(p.lp, 0x6020)).toBe(0n);
    expect(readField(p.lp, VMCS.GUEST_INTR_STATUS)).toBe(0n);
  });

  it("calls and jumps between programs, and keeps their registers", () => {
    const seen: unknown[] = [];
    const p = vm(function* () {
      const regs = yield* guest.call(0x3000n, { rcx: 20n, rdx: 22n, rsp: 0x8_0000n });
      seen.push(regs.rax);
      yield* guest.jump(0x4000n, { rdi: 9n });
    });
    loadProgram(p, RAM + 0x3000, "adder", function* (regs) {
      yield* guest.pause();
      return regs.rcx + regs.rdx;
    });
    loadProgram(p, RAM + 0x4000, "next", function* (regs) {
      seen.push(regs.rdi);
      yield* guest.hlt();
    });
    expect(launch(p)).toBe(ExitReason.HLT);
    expect(seen).toEqual([42n, 9n]);
    expect(Number(readField(p.lp, VMCS.GUEST_RIP))).toBeGreaterThan(0x4000);
  });

  it("pushes a call's return address, once its page is there, and gives the caller its RSP back", () => {
    const seen: unknown[] = [];
    const p = vm(function* () {
      const before = yield* guest.getRegs();
      const regs = yield* guest.call(0x3000n, { rsp: 0x10_0010n });
      seen.push(regs.rax, regs.rsp === before.rsp);
      yield* guest.hlt();
    });
    loadProgram(p, RAM + 0x3000, "callee", function* (regs) {
      seen.push(regs.rsp);
      yield* guest.call(0x4000n, { rsp: 0x9_0000n });
      return yield* guest.load(regs.rsp, 4);
    });
    loadProgram(p, RAM + 0x4000, "inner", function* () {
      yield* guest.pause();
    });
    expect(launch(p)).toBe(ExitReason.EPT_VIOLATION);
    const caller = BigInt(readField(p.lp, VMCS.GUEST_RIP));
    p.ept.map(0x10_0000, BigInt(RAM + 0x10_0000));
    expect(resume(p)).toBe(ExitReason.HLT);
    expect(seen).toEqual([0x10_000cn, caller + 2n, true]);
  });

  it("restarts byte copies at the page that faulted", () => {
    const bytes = Uint8Array.from({ length: 9000 }, (_, i) => i & 0xff);
    const p = vm(function* () {
      yield* guest.storeBytes(0x10_0000n - 4096n, bytes);
      const back = yield* guest.loadBytes(0x10_0000n - 4096n, 9000);
      yield* guest.store(0n, 8, BigInt(back.every((byte, i) => byte === bytes[i])));
      yield* guest.hlt();
    });
    expect(launch(p)).toBe(ExitReason.EPT_VIOLATION);
    expect(p.lp.regs.gpr(Gpr.RCX)).toBe(9000n - 4096n);
    p.ept.map(0x10_0000, BigInt(RAM + 0x10_0000));
    expect(resume(p)).toBe(ExitReason.EPT_VIOLATION);
    expect(p.lp.regs.gpr(Gpr.RDI)).toBe(0x10_1000n);
    p.ept.map(0x10_1000, BigInt(RAM + 0x10_1000));
    expect(resume(p)).toBe(ExitReason.HLT);
    expect(read64(p.lp, RAM)).toBe(1n);
  });

  it("fails entries as the SDM numbers them", () => {
    const p = vm(function* () {
      yield* guest.hlt();
    });
    expect(p.lp.vmresume()).toEqual({ kind: "failValid", error: VmxError.VMRESUME_NOT_LAUNCHED });
    ok(p.lp.vmwrite(VMCS.PIN_BASED_VM_EXEC_CONTROL, 0n));
    expect(p.lp.vmlaunch()).toEqual({ kind: "failValid", error: VmxError.ENTRY_INVALID_CONTROL });
    expect(readField(p.lp, VMCS.VM_INSTRUCTION_ERROR)).toBe(7n);
    ok(p.lp.vmwrite(VMCS.PIN_BASED_VM_EXEC_CONTROL, 0x1fn));
    ok(p.lp.vmwrite(VMCS.HOST_CR0, 0n));
    expect(p.lp.vmlaunch()).toEqual({ kind: "failValid", error: VmxError.ENTRY_INVALID_HOST_STATE });
    ok(p.lp.vmwrite(VMCS.HOST_CR0, 0x80050033n));
    ok(p.lp.vmwrite(VMCS.GUEST_RFLAGS, 0n));
    expect(p.lp.vmlaunch()).toEqual({ kind: "exit", reason: 0x80000021 });
    ok(p.lp.vmwrite(VMCS.GUEST_RFLAGS, 2n));
    ok(p.lp.vmwrite(VMCS.VMCS_LINK_POINTER, 0n));
    expect(p.lp.vmlaunch()).toEqual({ kind: "exit", reason: 0x80000021 });
    expect(readField(p.lp, VMCS.EXIT_QUALIFICATION)).toBe(4n);
    ok(p.lp.vmwrite(VMCS.VMCS_LINK_POINTER, 0xffff_ffff_ffff_ffffn));
    write64(p.lp, 0x7000, 0xc0000100n);
    ok(p.lp.vmwrite(VMCS.VM_ENTRY_MSR_LOAD_COUNT, 1n));
    ok(p.lp.vmwrite(VMCS.VM_ENTRY_MSR_LOAD_ADDR, 0x7000n));
    expect(p.lp.vmlaunch()).toEqual({ kind: "exit", reason: 0x80000022 });
    expect(readField(p.lp, VMCS.EXIT_QUALIFICATION)).toBe(1n);
    ok(p.lp.vmwrite(VMCS.VM_ENTRY_MSR_LOAD_COUNT, 0n));
    expect(launch(p)).toBe(ExitReason.HLT);
    expect(p.lp.vmlaunch()).toEqual({ kind: "failValid", error: VmxError.VMLAUNCH_NOT_CLEAR });
  });

  it("keeps the VMCS in DRAM when it is not current", () => {
    const p = vm(function* () {
      yield* guest.hlt();
    });
    launch(p);
    ok(p.lp.vmclear(pa(VMCS_AT)));
    expect(p.lp.vmread(VMCS.GUEST_RIP).kind).toBe("failInvalid");
    expect(p.lp.vmptrst()).toEqual({ kind: "ok", value: -1 });
    ok(p.lp.vmptrld(pa(VMCS_AT)));
    expect(readField(p.lp, VMCS.VM_EXIT_REASON)).toBe(12n);
    expect(p.lp.vmresume()).toEqual({ kind: "failValid", error: VmxError.VMRESUME_NOT_LAUNCHED });
    write64(p.lp, 0x9000, 0n);
    expect(p.lp.vmptrld(pa(0x9000))).toEqual({ kind: "failValid", error: VmxError.VMPTRLD_WRONG_REVISION });
    expect(p.lp.vmptrld(pa(0x1000))).toEqual({ kind: "failValid", error: VmxError.VMPTRLD_VMXON_POINTER });
    expect(p.lp.regs.get32(REG.CR4) & 0x2000).not.toBe(0);
  });
});

describe("an engine with a TLB of its own", () => {
  it("gets frames with what may be done in them, and is told when they change", () => {
    const p = vm(function* () {});
    const log: unknown[] = [];
    const changes: number[] = [];
    const { guest: g } = p.lp as unknown as { guest: GuestContext };
    g.onTlbFlush((page) => changes.push(page));
    launchWith(p, (context) => {
      log.push(context.translatePage(0x5123, 0, 0, false, false), context.pageReadable, context.pageWritable);
      log.push(
        context.translatePage(0x5123, 0, 2, false, false),
        context.pageWritable,
        context.pageFrame >= 0,
      );
      const line = Uint8Array.of(1, 2, 3);
      new Uint8Array(context.buffer).set(line, context.pageFrame + 0x123);
      context.invlpg(0x5000n, 3);
    });
    expect(log).toEqual([0, true, true, 0, true, true]);
    expect(read64(p.lp, RAM + 0x5120) >> 24n).toBe(0x030201n);
    expect(changes).toContain(5);
  });
});

/** Launches with an engine that runs `script` once. */
function launchWith(p: Platform, script: (g: GuestContext) => void): void {
  write64(p.lp, RAM + 0x5000, 0n);
  const run = p.engine.run.bind(p.engine);
  p.engine.run = (g) => {
    script(g);
    p.engine.run = run;
    g.vmcall(3);
    return "exit";
  };
  expect(p.lp.vmlaunch().kind).toBe("exit");
}
