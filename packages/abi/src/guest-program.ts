/**
 * TypeScript guest programs: the operations of a guest-visible vCPU, as values.
 *
 * A program is a generator. It yields the operations that matter to the platform (CPUID, port I/O, loads and
 * stores by linear address, TDCALL, …) and is resumed with their results; between them it is ordinary TypeScript.
 * Each operation is an instruction of the vCPU: it may fault, cause a VM exit or a #VE, be interrupted and be
 * executed again. A fault is delivered to the handler that the program installed with `lidt`; without one the
 * vCPU shuts down, as on hardware.
 *
 * A program has image bytes like any guest software (`program-image.ts`): it is loaded and measured as bytes, and
 * the engine runs the program that is registered under the image's name when RIP arrives at the image's entry.
 */

/** General-purpose registers by name; what is left out is unchanged (as an input) or not reported (as an output). */
export type GuestRegisters = Partial<Record<GprName, bigint>>;
export type GprName =
  | "rax"
  | "rcx"
  | "rdx"
  | "rbx"
  | "rsp"
  | "rbp"
  | "rsi"
  | "rdi"
  | "r8"
  | "r9"
  | "r10"
  | "r11"
  | "r12"
  | "r13"
  | "r14"
  | "r15";
/** In the order of their x86 numbers. */
export const GPR_NAMES = [
  "rax",
  "rcx",
  "rdx",
  "rbx",
  "rsp",
  "rbp",
  "rsi",
  "rdi",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
] as const satisfies readonly GprName[];

export type GuestOp =
  | { op: "cpuid"; leaf: number; subleaf: number }
  | { op: "rdmsr"; index: number }
  | { op: "wrmsr"; index: number; value: bigint }
  | { op: "in"; port: number; size: 1 | 2 | 4 }
  | { op: "out"; port: number; size: 1 | 2 | 4; value: number }
  /** MOV from memory at a linear address. */
  | { op: "load"; gla: bigint; size: 1 | 2 | 4 | 8 }
  /** MOV to memory at a linear address. */
  | { op: "store"; gla: bigint; size: 1 | 2 | 4 | 8; value: bigint }
  /** As REP MOVSB from guest memory: may fault at any page, restarts there. */
  | { op: "loadBytes"; gla: bigint; length: number }
  /** As REP MOVSB to guest memory: may fault at any page, restarts there. */
  | { op: "storeBytes"; gla: bigint; bytes: Uint8Array }
  | { op: "tdcall"; regs: GuestRegisters }
  | { op: "vmcall"; regs: GuestRegisters }
  | { op: "readCr"; cr: 0 | 2 | 3 | 4 | 8 }
  | { op: "writeCr"; cr: 0 | 2 | 3 | 4 | 8; value: bigint }
  /** Far jump to a 64-bit code segment: after writeCr has set PG with EFER.LME, enters 64-bit mode. */
  | { op: "ljmp64" }
  /** Installs exception and interrupt handlers by vector (the program's own IDT). */
  | { op: "lidt"; handlers: ReadonlyMap<number, GuestHandler> }
  | { op: "cli" }
  | { op: "sti" }
  | { op: "hlt" }
  | { op: "pause" }
  | { op: "invlpg"; gla: bigint }
  | { op: "rdtsc" }
  | { op: "rdrand" }
  | { op: "rdseed" }
  | { op: "wbinvd" }
  | { op: "ud2" }
  | { op: "getRegs" }
  /**
   * Near call of a program image's entry, or of machine code where the engine runs it: registers in, RAX.. out.
   * The return address is pushed below the RSP given; afterwards RSP is what it was before the operation.
   */
  | { op: "call"; gla: bigint; regs: GuestRegisters }
  /** Near jump: the running program ends, the one at `gla` begins. */
  | { op: "jump"; gla: bigint; regs: GuestRegisters };

/** What a program is resumed with, by operation. */
export type GuestResult<K extends GuestOp["op"]> = K extends "cpuid"
  ? { eax: number; ebx: number; ecx: number; edx: number }
  : K extends "rdmsr" | "load" | "readCr" | "rdtsc"
    ? bigint
    : K extends "in"
      ? number
      : K extends "loadBytes"
        ? Uint8Array
        : K extends "rdrand" | "rdseed"
          ? bigint | null
          : K extends "tdcall" | "vmcall" | "call" | "getRegs"
            ? Required<Record<GprName, bigint>>
            : void;

/** A part of a program that yields operations and in the end returns a T. Compose with `yield*`. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- what a yield gives depends on the operation it yields
export type Guest<T> = Generator<GuestOp, T, any>;

/** What a handler sees of what it interrupted; it may change it, as a handler changes its stack frame. */
export interface GuestFrame {
  readonly vector: number;
  readonly errorCode: number | null;
  /** CR2 for #PF. */
  readonly cr2: bigint;
  /** The operation that faulted; null for an interrupt between operations. */
  readonly op: GuestOp | null;
  /** Registers of the interrupted program. */
  readonly regs: Record<GprName, bigint>;
  /** Length in bytes of the faulting operation's instruction. */
  readonly instructionLength: number;
  /**
   * Set by the handler to complete the faulting operation with this result (a handler that emulates the
   * instruction and advances RIP). Left undefined, the operation is executed again.
   */
  result?: unknown;
}
/** An exception or interrupt handler: returning is IRET. */
export type GuestHandler = (frame: GuestFrame) => Guest<void>;

/** A program; `regs` holds the registers at its entry. What it returns is RAX for its caller, if it was called. */
export type GuestProgram = (regs: Readonly<Record<GprName, bigint>>) => Guest<bigint | void>;

/** Operations as typed generator calls: `const { eax } = yield* guest.cpuid(0x21);` */
const run = function* <K extends GuestOp["op"]>(op: Extract<GuestOp, { op: K }>): Guest<GuestResult<K>> {
  return (yield op) as GuestResult<K>;
};
export const guest = {
  cpuid: (leaf: number, subleaf = 0) => run<"cpuid">({ op: "cpuid", leaf, subleaf }),
  rdmsr: (index: number) => run<"rdmsr">({ op: "rdmsr", index }),
  wrmsr: (index: number, value: bigint) => run<"wrmsr">({ op: "wrmsr", index, value }),
  in: (port: number, size: 1 | 2 | 4) => run<"in">({ op: "in", port, size }),
  out: (port: number, size: 1 | 2 | 4, value: number) => run<"out">({ op: "out", port, size, value }),
  load: (gla: bigint, size: 1 | 2 | 4 | 8) => run<"load">({ op: "load", gla, size }),
  store: (gla: bigint, size: 1 | 2 | 4 | 8, value: bigint) => run<"store">({ op: "store", gla, size, value }),
  loadBytes: (gla: bigint, length: number) => run<"loadBytes">({ op: "loadBytes", gla, length }),
  storeBytes: (gla: bigint, bytes: Uint8Array) => run<"storeBytes">({ op: "storeBytes", gla, bytes }),
  tdcall: (regs: GuestRegisters) => run<"tdcall">({ op: "tdcall", regs }),
  vmcall: (regs: GuestRegisters) => run<"vmcall">({ op: "vmcall", regs }),
  readCr: (cr: 0 | 2 | 3 | 4 | 8) => run<"readCr">({ op: "readCr", cr }),
  writeCr: (cr: 0 | 2 | 3 | 4 | 8, value: bigint) => run<"writeCr">({ op: "writeCr", cr, value }),
  ljmp64: () => run<"ljmp64">({ op: "ljmp64" }),
  lidt: (handlers: ReadonlyMap<number, GuestHandler>) => run<"lidt">({ op: "lidt", handlers }),
  cli: () => run<"cli">({ op: "cli" }),
  sti: () => run<"sti">({ op: "sti" }),
  hlt: () => run<"hlt">({ op: "hlt" }),
  pause: () => run<"pause">({ op: "pause" }),
  invlpg: (gla: bigint) => run<"invlpg">({ op: "invlpg", gla }),
  rdtsc: () => run<"rdtsc">({ op: "rdtsc" }),
  rdrand: () => run<"rdrand">({ op: "rdrand" }),
  rdseed: () => run<"rdseed">({ op: "rdseed" }),
  wbinvd: () => run<"wbinvd">({ op: "wbinvd" }),
  ud2: () => run<"ud2">({ op: "ud2" }),
  getRegs: () => run<"getRegs">({ op: "getRegs" }),
  call: (gla: bigint, regs: GuestRegisters) => run<"call">({ op: "call", gla, regs }),
  jump: (gla: bigint, regs: GuestRegisters) => run<"jump">({ op: "jump", gla, regs }),
};
