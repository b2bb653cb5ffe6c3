/** Machine code in a VM: exits, exceptions, modes, and programs beside it. */
import { readFileSync } from "node:fs";
import { encodeProgramImage, type GuestProgram } from "@swtdx/abi";
import { SeededRandom } from "@swtdx/crypto";
import { Arena, MemoryController } from "@swtdx/mktme";
import { describe, expect, test } from "vitest";
import {
  ExitReason,
  Gpr,
  PROC,
  PROC2,
  ProgramEngine,
  Processor,
  REG,
  VMCS,
  X86Engine,
  type LogicalProcessor,
} from "../src/index.js";
import {
  DRAM,
  enterVmx,
  EptBuilder,
  ok,
  pa,
  read64,
  readField,
  setupVmcs,
  write64,
  type GuestSetup,
} from "./support/platform.js";

const VMCS_AT = 0x2000;
const EPT_AT = 0x100000;
/** GPA 0 is here. */
const GUEST = 0x400000;

interface Vm {
  lp: LogicalProcessor;
  ept: EptBuilder;
  programs: Map<string, GuestProgram>;
  write(gpa: number, bytes: ArrayLike<number>): void;
  read64(gpa: number): bigint;
  /** Enters (or resumes) and gives the exit reason. */
  run(): number;
  field(field: number): bigint;
  skip(): void;
}

/** A VM with `pages` pages of memory from GPA 0. */
function vm(setup: Partial<GuestSetup>, pages = 512): Vm {
  const arena = new Arena({ residentBytes: 48 * 2 ** 20 });
  const random = new SeededRandom(new TextEncoder().encode("x86 engine tests"));
  const memory = new MemoryController(arena, { dramBytes: DRAM, random });
  const programs = new Map<string, GuestProgram>();
  const engines = [new ProgramEngine({ programs }), new X86Engine({ codeBytes: 4 << 20 })];
  const { lps } = new Processor({ arena, memory, random, lps: 1, engines });
  const [lp] = lps;
  enterVmx(lp);
  const ept = new EptBuilder(
    (at, value) => write64(lp, at, value),
    (at) => read64(lp, at),
    EPT_AT,
  );
  for (let page = 0; page < pages; page++) ept.map(page * 4096, BigInt(GUEST + page * 4096));
  setupVmcs(lp, VMCS_AT, { rip: 0x1000n, eptp: ept.pointer, ...setup });
  let launched = false;
  return {
    lp,
    ept,
    programs,
    write: (gpa, bytes) => ok(lp.memWrite(pa(GUEST + gpa), Uint8Array.from(bytes))),
    read64: (gpa) => read64(lp, GUEST + gpa),
    run: () => {
      const outcome = launched ? lp.vmresume() : lp.vmlaunch();
      if (outcome.kind !== "exit") throw new Error(JSON.stringify(outcome));
      launched = true;
      return Number(readField(lp, VMCS.VM_EXIT_REASON) & 0xffffn);
    },
    field: (field) => readField(lp, field),
    skip: () => {
      const next = readField(lp, VMCS.GUEST_RIP) + readField(lp, VMCS.VM_EXIT_INSTRUCTION_LEN);
      ok(lp.vmwrite(VMCS.GUEST_RIP, next));
    },
  };
}

describe("32-bit code without paging", () => {
  test("a loop, stores and loads, CPUID and HLT exits", () => {
    const m = vm({});
    m.write(0x1000, [
      0xb9,
      100,
      0,
      0,
      0, // mov ecx, 100
      0x31,
      0xc0, // xor eax, eax
      0x01,
      0xc8, // add eax, ecx
      0xe2,
      0xfc, // loop add
      0xa3,
      0x00,
      0x30,
      0,
      0, // mov [3000], eax
      0x8b,
      0x1d,
      0x00,
      0x30,
      0,
      0, // mov ebx, [3000]
      0x0f,
      0xa2, // cpuid
      0xf4, // hlt
    ]);
    const before = m.lp.regs.get(REG.INSTRUCTIONS);
    expect(m.run()).toBe(ExitReason.CPUID);
    expect(m.field(VMCS.GUEST_RIP)).toBe(0x1016n);
    expect(m.field(VMCS.VM_EXIT_INSTRUCTION_LEN)).toBe(2n);
    expect(m.lp.regs.gpr(Gpr.RBX)).toBe(5050n);
    expect(m.read64(0x3000)).toBe(5050n);
    expect(m.lp.regs.get(REG.INSTRUCTIONS) - before).toBe(204n);
    m.skip();
    expect(m.run()).toBe(ExitReason.HLT);
    expect(m.field(VMCS.GUEST_RIP)).toBe(0x1018n);
  });

  test("an EPT violation is retried when the page is there", () => {
    const m = vm({}, 8);
    // mov dword [9000], 1234h; hlt
    m.write(0x1000, [0xc7, 0x05, 0x00, 0x90, 0, 0, 0x34, 0x12, 0, 0, 0xf4]);
    expect(m.run()).toBe(ExitReason.EPT_VIOLATION);
    expect(m.field(VMCS.GUEST_PHYSICAL_ADDRESS)).toBe(0x9000n);
    expect(m.field(VMCS.EXIT_QUALIFICATION) & 7n).toBe(2n);
    expect(m.field(VMCS.GUEST_RIP)).toBe(0x1000n);
    m.ept.map(0x9000, BigInt(GUEST + 0x9000));
    expect(m.run()).toBe(ExitReason.HLT);
    expect(m.read64(0x9000)).toBe(0x1234n);
  });

  test("I/O and MSR exits with their qualifications", () => {
    const m = vm({});
    // mov al, 42h; out 80h, al; mov dx, 3f8h; in al, dx; mov ecx, 10h; rdmsr; rep outsb
    m.write(0x1000, [0xb0, 0x42, 0xe6, 0x80, 0x66, 0xba, 0xf8, 0x03, 0xec, 0xb9, 0x10, 0, 0, 0, 0x0f, 0x32]);
    m.write(0x1010, [0xf3, 0x6e]);
    expect(m.run()).toBe(ExitReason.IO_INSTRUCTION);
    expect(m.field(VMCS.EXIT_QUALIFICATION)).toBe(0x80_0040n);
    m.skip();
    expect(m.run()).toBe(ExitReason.IO_INSTRUCTION);
    expect(m.field(VMCS.EXIT_QUALIFICATION)).toBe(0x3f8_0008n);
    m.skip();
    expect(m.run()).toBe(ExitReason.MSR_READ);
    m.skip();
    expect(m.run()).toBe(ExitReason.IO_INSTRUCTION);
    expect(m.field(VMCS.EXIT_QUALIFICATION)).toBe(0x3f8_0030n);
  });

  test("string I/O says what it accesses", () => {
    const m = vm({});
    // mov edi, 3000h; mov esi, 3010h; mov ecx, 4; mov dx, 511h; rep insb; gs rep outsw (16-bit addresses)
    m.write(0x1000, [0xbf, 0, 0x30, 0, 0, 0xbe, 0x10, 0x30, 0, 0, 0xb9, 4, 0, 0, 0, 0x66, 0xba, 0x11, 0x05]);
    m.write(0x1013, [0xf3, 0x6c, 0x65, 0xf3, 0x67, 0x66, 0x6f]);
    expect(m.run()).toBe(ExitReason.IO_INSTRUCTION);
    expect(m.field(VMCS.EXIT_QUALIFICATION)).toBe(0x511_0038n);
    expect(m.field(VMCS.GUEST_LINEAR_ADDRESS)).toBe(0x3000n);
    expect(m.field(VMCS.VMX_INSTRUCTION_INFO)).toBe(0x80n);
    m.skip();
    expect(m.run()).toBe(ExitReason.IO_INSTRUCTION);
    expect(m.field(VMCS.EXIT_QUALIFICATION)).toBe(0x511_0031n);
    expect(m.field(VMCS.GUEST_LINEAR_ADDRESS)).toBe(0x3010n);
    expect(m.field(VMCS.VMX_INSTRUCTION_INFO)).toBe(0x2_8000n);
  });

  test("TPAUSE lets time pass to its deadline, and is undefined without its control", () => {
    // mov eax, edi; xor edx, edx; tpause ecx; rdtsc; hlt
    const code = [0x89, 0xf8, 0x31, 0xd2, 0x66, 0x0f, 0xae, 0xf1, 0x0f, 0x31, 0xf4];
    const m = vm({});
    m.write(0x1000, code);
    ok(m.lp.vmwrite(VMCS.EXCEPTION_BITMAP, 1n << 6n));
    expect(m.run()).toBe(ExitReason.EXCEPTION_OR_NMI);
    const controls = m.field(VMCS.SECONDARY_VM_EXEC_CONTROL);
    ok(m.lp.vmwrite(VMCS.SECONDARY_VM_EXEC_CONTROL, controls | BigInt(PROC2.ENABLE_USER_WAIT_PAUSE)));
    ok(m.lp.vmwrite(VMCS.GUEST_RIP, 0x1000n));
    const deadline = m.lp.tsc + 1_000_000n;
    m.lp.regs.setGpr(Gpr.RDI, deadline);
    expect(m.run()).toBe(ExitReason.HLT);
    const after = (m.lp.regs.gpr(Gpr.RDX) << 32n) | m.lp.regs.gpr(Gpr.RAX);
    expect(after).toBeGreaterThanOrEqual(deadline);
    expect(after).toBeLessThan(deadline + 1000n);
  });

  test("what waits for interrupts to be let in comes with STI", () => {
    const m = vm({});
    // cli; nop; sti; nop; nop; hlt
    m.write(0x1000, [0xfa, 0x90, 0xfb, 0x90, 0x90, 0xf4]);
    const controls = m.field(VMCS.CPU_BASED_VM_EXEC_CONTROL);
    ok(m.lp.vmwrite(VMCS.CPU_BASED_VM_EXEC_CONTROL, controls | BigInt(PROC.INTERRUPT_WINDOW_EXITING)));
    expect(m.run()).toBe(ExitReason.INTERRUPT_WINDOW);
    expect(m.field(VMCS.GUEST_RIP)).toBe(0x1004n);
  });

  test("the interrupt window opens after STI's shadow and by POPF, however short it is", () => {
    const m = vm({});
    // sti; nop; cli; push 202h; popf; cli; hlt
    m.write(0x1000, [0xfb, 0x90, 0xfa, 0x68, 0x02, 0x02, 0, 0, 0x9d, 0xfa, 0xf4]);
    m.lp.regs.setGpr(Gpr.RSP, 0x8000n);
    ok(m.lp.vmwrite(VMCS.GUEST_RSP, 0x8000n));
    const controls = m.field(VMCS.CPU_BASED_VM_EXEC_CONTROL);
    const window = (on: boolean) =>
      ok(
        m.lp.vmwrite(
          VMCS.CPU_BASED_VM_EXEC_CONTROL,
          on ? controls | BigInt(PROC.INTERRUPT_WINDOW_EXITING) : controls,
        ),
      );
    window(true);
    expect(m.run()).toBe(ExitReason.INTERRUPT_WINDOW);
    expect(m.field(VMCS.GUEST_RIP)).toBe(0x1002n);
    ok(m.lp.vmwrite(VMCS.GUEST_RIP, 0x1003n));
    ok(m.lp.vmwrite(VMCS.GUEST_RFLAGS, 2n));
    expect(m.run()).toBe(ExitReason.INTERRUPT_WINDOW);
    expect(m.field(VMCS.GUEST_RIP)).toBe(0x1009n);
    window(false);
    expect(m.run()).toBe(ExitReason.HLT);
  });

  test("the NMI window opens after MOV SS's shadow", () => {
    const m = vm({});
    // nop; mov ss, eax; nop; nop; hlt
    m.write(0x1000, [0x90, 0x8e, 0xd0, 0x90, 0x90, 0xf4]);
    m.lp.regs.setGpr(Gpr.RAX, m.field(VMCS.GUEST_SS_SELECTOR));
    ok(m.lp.vmwrite(VMCS.PIN_BASED_VM_EXEC_CONTROL, m.field(VMCS.PIN_BASED_VM_EXEC_CONTROL) | 0x28n));
    const controls = m.field(VMCS.CPU_BASED_VM_EXEC_CONTROL);
    ok(m.lp.vmwrite(VMCS.CPU_BASED_VM_EXEC_CONTROL, controls | BigInt(PROC.NMI_WINDOW_EXITING)));
    ok(m.lp.vmwrite(VMCS.GUEST_INTERRUPTIBILITY_INFO, 2n));
    expect(m.run()).toBe(ExitReason.NMI_WINDOW);
    expect(m.field(VMCS.GUEST_RIP)).toBe(0x1001n);
  });

  test("INVPCID of a PCID needs CR4.PCIDE", () => {
    const m = vm({});
    // invpcid eax, [3000h]; hlt
    m.write(0x1000, [0x66, 0x0f, 0x38, 0x82, 0x05, 0x00, 0x30, 0, 0, 0xf4]);
    m.write(0x3000, [1, ...new Uint8Array(15)]);
    ok(m.lp.vmwrite(VMCS.EXCEPTION_BITMAP, (1n << 6n) | (1n << 13n)));
    // Without its control it is undefined, whatever its operands are.
    expect(m.run()).toBe(ExitReason.EXCEPTION_OR_NMI);
    expect(m.field(VMCS.VM_EXIT_INTR_INFO)).toBe(0x80000306n);
    const controls = m.field(VMCS.SECONDARY_VM_EXEC_CONTROL);
    ok(m.lp.vmwrite(VMCS.SECONDARY_VM_EXEC_CONTROL, controls | BigInt(PROC2.ENABLE_INVPCID)));
    expect(m.run()).toBe(ExitReason.EXCEPTION_OR_NMI);
    expect(m.field(VMCS.VM_EXIT_INTR_INFO)).toBe(0x80000b0dn);
    m.lp.regs.setGpr(Gpr.RAX, 2n);
    expect(m.run()).toBe(ExitReason.HLT);
  });

  test("exceptions exit by the bitmap, with what they interrupted", () => {
    const m = vm({});
    ok(m.lp.vmwrite(VMCS.EXCEPTION_BITMAP, (1n << 6n) | (1n << 3n)));
    m.write(0x1000, [0x0f, 0x0b, 0xcc]);
    expect(m.run()).toBe(ExitReason.EXCEPTION_OR_NMI);
    expect(m.field(VMCS.VM_EXIT_INTR_INFO)).toBe(0x80000306n);
    ok(m.lp.vmwrite(VMCS.GUEST_RIP, 0x1002n));
    expect(m.run()).toBe(ExitReason.EXCEPTION_OR_NMI);
    expect(m.field(VMCS.VM_EXIT_INTR_INFO)).toBe(0x80000603n);
    expect(m.field(VMCS.VM_EXIT_INSTRUCTION_LEN)).toBe(1n);
    expect(m.field(VMCS.GUEST_RIP)).toBe(0x1002n);
  });

  test("no handler for a fault is a triple fault", () => {
    const m = vm({});
    m.write(0x1000, [0x0f, 0x0b]);
    expect(m.run()).toBe(ExitReason.TRIPLE_FAULT);
  });

  test("code that the host or the guest itself changes", () => {
    const m = vm({});
    // mov eax, 1; hlt; jmp 1000h
    m.write(0x1000, [0xb8, 1, 0, 0, 0, 0xf4, 0xeb, 0xf8]);
    expect(m.run()).toBe(ExitReason.HLT);
    m.skip();
    m.write(0x1001, [2]);
    expect(m.run()).toBe(ExitReason.HLT);
    expect(m.lp.regs.gpr(Gpr.RAX)).toBe(2n);
  });
});

test("an exception goes through the IDT of the guest and comes back", () => {
  const m = vm({});
  // lgdt [2000]; lidt [2010]; jmp 8:1100
  m.write(
    0x1000,
    [0x0f, 0x01, 0x15, 0x00, 0x20, 0, 0, 0x0f, 0x01, 0x1d, 0x10, 0x20, 0, 0, 0xea, 0, 0x11, 0, 0, 8, 0],
  );
  // mov esp, 8000h; xor edx, edx; xor ecx, ecx; div ecx; hlt
  m.write(0x1100, [0xbc, 0, 0x80, 0, 0, 0x31, 0xd2, 0x31, 0xc9, 0xf7, 0xf1, 0xf4]);
  // add dword [esp], 2; mov ebx, 77h; iret
  m.write(0x1200, [0x83, 0x04, 0x24, 2, 0xbb, 0x77, 0, 0, 0, 0xcf]);
  m.write(0x2000, [0x17, 0, 0, 0x21, 0, 0]);
  m.write(0x2010, [0x07, 1, 0, 0x22, 0, 0]);
  m.write(0x2108, [0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0, 0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0]);
  m.write(0x2200, [0x00, 0x12, 8, 0, 0, 0x8e, 0, 0]);
  expect(m.run()).toBe(ExitReason.HLT);
  expect(m.lp.regs.gpr(Gpr.RBX)).toBe(0x77n);
  expect(m.field(VMCS.GUEST_RIP)).toBe(0x110bn);
  expect(m.field(VMCS.GUEST_RSP)).toBe(0x8000n);
});

test("a guest passes through all modes (x86's boot.bin) under EPT", () => {
  const m = vm({}, 1024);
  m.write(0x1000, readFileSync(new URL("../../x86/test/vectors/boot.bin", import.meta.url)));
  const w = (field: number, value: bigint) => ok(m.lp.vmwrite(field, value));
  w(VMCS.GUEST_CR0, 0x30n);
  // VMX operation needs CR4.VMXE, of which the guest knows nothing.
  w(VMCS.CR4_GUEST_HOST_MASK, 0x2000n);
  for (let i = 0; i < 6; i++) {
    w(VMCS.GUEST_ES_LIMIT + 2 * i, 0xffffn);
    w(VMCS.GUEST_ES_AR_BYTES + 2 * i, i === 1 ? 0x9bn : 0x93n);
    w(VMCS.GUEST_ES_SELECTOR + 2 * i, 0n);
  }
  w(VMCS.GUEST_IDTR_LIMIT, 0x3ffn);
  let reason = m.run();
  const msrs: number[] = [];
  while (reason === ExitReason.MSR_READ || reason === ExitReason.MSR_WRITE) {
    const index = Number(m.lp.regs.gpr(Gpr.RCX) & 0xffffffffn);
    msrs.push(index);
    if (msrs.length > 20) break;
    // As a hypervisor that keeps the guest's MSRs in the processor's would.
    const fields = { 0xc0000080: VMCS.GUEST_IA32_EFER } as Record<number, number>;
    const { regs } = m.lp;
    const value = (regs.gpr(Gpr.RDX) << 32n) | (regs.gpr(Gpr.RAX) & 0xffffffffn);
    if (reason === ExitReason.MSR_WRITE) {
      if (index in fields) {
        w(fields[index], value);
      } else ok(m.lp.wrmsr(index, value));
    } else {
      const outcome = index in fields ? { kind: "ok", value: m.field(fields[index]) } : m.lp.rdmsr(index);
      if (!("value" in outcome)) throw new Error(`MSR ${index.toString(16)}`);
      regs.setGpr(Gpr.RAX, outcome.value & 0xffffffffn);
      regs.setGpr(Gpr.RDX, outcome.value >> 32n);
    }
    m.skip();
    reason = m.run();
  }
  expect({ reason, rip: m.field(VMCS.GUEST_RIP).toString(16), msrs }).toMatchObject({
    reason: ExitReason.HLT,
  });
  expect(m.read64(0x8000)).toBe(0x567843211234n);
  expect(m.read64(0x8000 + 17 * 8)).toBe(0xbadc0den);
});

test("machine code calls a program, which calls machine code", () => {
  const m = vm({});
  const seen: bigint[] = [];
  m.programs.set("callee", function* (regs) {
    seen.push(regs.rcx);
    const after = yield { op: "call", gla: 0x1100n, regs: { rdx: 5n } };
    seen.push((after as { rax: bigint }).rax);
    return 9n;
  });
  m.write(0x4000, encodeProgramImage("callee"));
  // mov esp, 8000h; mov ecx, 3; mov eax, 4000h; call eax; hlt
  m.write(0x1000, [0xbc, 0, 0x80, 0, 0, 0xb9, 3, 0, 0, 0, 0xb8, 0, 0x40, 0, 0, 0xff, 0xd0, 0xf4]);
  // lea eax, [edx + 2]; ret
  m.write(0x1100, [0x8d, 0x42, 0x02, 0xc3]);
  expect(m.run()).toBe(ExitReason.HLT);
  expect(seen).toEqual([3n, 7n]);
  expect(m.lp.regs.gpr(Gpr.RAX)).toBe(9n);
  expect(m.field(VMCS.GUEST_RIP)).toBe(0x1011n);
  expect(m.field(VMCS.GUEST_RSP)).toBe(0x8000n);
});
