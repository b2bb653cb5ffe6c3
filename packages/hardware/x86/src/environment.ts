/**
 * What the engine needs from the processor around it: address translation, and the outcome of every instruction whose
 * behaviour is policy (CPUID, MSRs, ports, control registers, VMX…). `cpu` implements it; FlatEnvironment is a plain one.
 *
 * 64-bit values cross through the register file or through `core` fields, not as arguments, wherever they are frequent.
 */
import type { X86Core } from "./core.js";

/** Outcome of a translation. */
export const Translation = {
  /** `core.fill` describes the frame. */
  OK: 0,
  /** An exception has been prepared with `core.raise` (page fault with CR2 set, #VE, #MC…). */
  FAULT: 1,
  /** The environment wants control (VM exit): RIP stays at the instruction. */
  STOP: 2,
  /** No frame: every access goes to deviceRead and deviceWrite; `core.fill.physical` is the page's address. */
  DEVICE: 3,
} as const;

/** What a hook made of an instruction. */
export const Hook = {
  /** Done; results are in the registers. The engine goes on behind the instruction. */
  DONE: 0,
  /** An exception has been prepared with `core.raise`. */
  FAULT: 1,
  /** Not done: the environment wants control, RIP stays at the instruction (fault-like VM exit). */
  STOP: 2,
  /** Done, and the environment wants control behind the instruction (HLT, trap-like exits). */
  DONE_STOP: 3,
  /** The environment has changed RIP or the mode itself; the engine re-reads all state. */
  RESYNC: 4,
} as const;

/** What `poll` found. A number from 0 to 255 is an external interrupt to deliver (already acknowledged). */
export const Poll = { NONE: -1, STOP: -2, NMI: -3 } as const;

/** `core.operandRegister` of writes to CR0 that are not MOV. */
export const ControlSource = { CLTS: 16, LMSW: 17 } as const;

/** Instructions that are left to the environment entirely, by `instruction`. */
export type PolicyInstruction =
  | "cpuid"
  | "rdmsr"
  | "wrmsr"
  | "rdpmc"
  | "rdtsc"
  | "rdtscp"
  | "rdpid"
  | "rdrand"
  | "rdseed"
  | "hlt"
  | "pause"
  | "monitor"
  | "mwait"
  | "umonitor"
  | "umwait"
  | "tpause"
  | "invd"
  | "wbinvd"
  | "wbnoinvd"
  | "invlpg"
  | "invpcid"
  | "invept"
  | "invvpid"
  | "xsetbv"
  | "vmcall"
  | "vmlaunch"
  | "vmresume"
  | "vmxoff"
  | "tdcall"
  | "seamcall"
  | "getsec"
  | "rsm"
  | "rdpkru"
  | "wrpkru"
  | "clflush";

export interface X86Environment {
  /**
   * Translates a linear page for an access and describes the frame in `core.fill`.
   * @param low @param high halves of the linear address of the access
   * @param access Access.READ, WRITE or EXECUTE
   * @param user the access is made with user privilege
   * @param implicit a supervisor access of the processor itself (descriptor tables, TSS), at any CPL
   */
  translate(
    core: X86Core,
    low: number,
    high: number,
    access: number,
    user: boolean,
    implicit: boolean,
  ): number;
  /** Reads `size` bytes at a physical address of a DEVICE page into core.scratch at `at`. */
  deviceRead(core: X86Core, physical: number, size: number, at: number): void;
  /** Writes `size` bytes from core.scratch at `at`. */
  deviceWrite(core: X86Core, physical: number, size: number, at: number): void;
  /** Executes a policy instruction; operands are in the registers, or in `core.operand` (linear address, value). */
  instruction(core: X86Core, name: PolicyInstruction): number;
  /** MOV from CR0, CR2, CR3, CR4, CR8: DONE with the value in core.value. Absent: the register file's value. */
  readControl(core: X86Core, register: number): number;
  /**
   * MOV to a control register, LMSW, CLTS: value in core.value. The environment stores it and flushes what must be.
   * `core.operandRegister` is the number of the general-purpose register, or ControlSource.
   */
  writeControl(core: X86Core, register: number): number;
  /** MOV DR is about to run (for MOV-DR exiting). */
  accessDebug(core: X86Core, register: number, write: boolean): number;
  /** IN: value to core.value; OUT: value in core.value. String forms call it for each element after the memory access check. */
  portIn(core: X86Core, port: number, size: number, string: boolean): number;
  portOut(core: X86Core, port: number, size: number, string: boolean): number;
  /** LGDT, LIDT, SGDT, SIDT, LLDT, LTR, SLDT, STR are about to run (descriptor-table exiting). */
  descriptorTable(core: X86Core, name: string): number;
  /** An exception is about to be delivered: true if the environment takes it (VM exit); it is described in core.event. */
  intercept(core: X86Core): boolean;
  /** Events at an instruction boundary. @param open an external interrupt may be delivered (IF, no shadow) */
  poll(core: X86Core, open: boolean): number;
  /** IRET has executed: NMIs are unblocked. */
  interruptReturn(core: X86Core): void;
  /**
   * RIP has come from elsewhere, where it has not been before (or not lately): true if the environment wants control
   * before the instruction there.
   */
  arrive?(core: X86Core): boolean;
  /** XSAVES or XRSTORS at CPL 0 is about to run (whether it is enabled, XSS exiting): Hook.DONE goes on. */
  extendedState?(core: X86Core, name: "xsaves" | "xrstors"): number;
  /** An MSR that is extended state: IA32_U_CET, IA32_PLn_SSP. Absent: zero. */
  stateMsr?(core: X86Core, index: number): bigint;
  /** @returns false if bits are reserved */
  setStateMsr?(core: X86Core, index: number, value: bigint): boolean;
  /** FERR# is asserted: an x87 exception was pending at a waiting instruction with CR0.NE = 0. */
  floatError?(core: X86Core): void;
  /** Triple fault. */
  shutdown(core: X86Core): void;
}
