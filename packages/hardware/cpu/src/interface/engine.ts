/**
 * What runs a guest: an execution engine, behind one interface for TypeScript guest programs and machine code.
 *
 * The processor's VM entry loads guest state into `guest.regs` and calls `run`; the engine executes instructions,
 * asking the `GuestContext` for whatever may fault or be intercepted, until the context says stop. Hot paths carry
 * numbers: a 64-bit linear address as two 32-bit halves.
 */
import type { CodeFrames, RegisterFile } from "@swtdx/x86";
import type { CpuArena } from "./memory.js";

/**
 * Step: what a guest operation came to.
 * - DONE: the result is in registers or in the context's result fields; the engine retires the instruction.
 * - EVENT: an exception is pending in `guest.event`; the instruction did not complete. The engine calls
 *   `guest.deliver()` (machine code) or runs the program's handler.
 * - EXIT: a VM exit has been recorded: the engine saves its state into `regs` and returns from `run`.
 */
export const Step = { DONE: 0, EVENT: 1, EXIT: 2 } as const;
export type Step = (typeof Step)[keyof typeof Step];

/** Why memory is accessed: bits as in a page-fault error code. */
export const Access = { READ: 0, WRITE: 2, FETCH: 16 } as const;

/** An exception or interrupt on its way to the guest. One object per logical processor, reused. */
export interface GuestEvent {
  vector: number;
  /** 0 external interrupt, 2 NMI, 3 hardware exception, 4 software interrupt, 5 privileged software exception, 6 software exception. */
  type: number;
  hasErrorCode: boolean;
  errorCode: number;
  /** Instruction length for software events. */
  length: number;
}

/** The logical processor in VMX non-root mode as an engine sees it. */
export interface GuestContext {
  readonly lpIndex: number;
  readonly regs: RegisterFile;
  /** Arena that holds frames: `translate` gives offsets in it. */
  readonly buffer: ArrayBufferLike;
  readonly event: GuestEvent;
  /** Identity of the current VMCS, another for one that was cleared and made anew: what continuations belong to. */
  readonly vmcs: number;
  /** CPL 0..3. */
  readonly cpl: number;
  readonly longMode: boolean;
  /** RIP is in a 64-bit code segment. */
  readonly mode64: boolean;

  /**
   * Arena offset of the byte at a linear address for an access within one page, with rights, EPT and key checked and
   * accessed/dirty bits set; -1: see `step` (EVENT: fault or #VE; EXIT: EPT violation etc.; DONE: the bytes have no
   * usable frame, go through `load`/`store`).
   */
  translate(glaLow: number, glaHigh: number, access: number): number;
  /**
   * For an engine with a TLB of its own: translates the page of an access with the given privilege (`implicit`: a
   * supervisor access of the processor itself). DONE: `pageFrame` is the frame's arena offset, or -1: each access
   * goes through `pageRead` / `pageWrite`. Valid until `onTlbFlush`.
   */
  translatePage(glaLow: number, glaHigh: number, access: number, user: boolean, implicit: boolean): Step;
  readonly pageFrame: number;
  /** Loads, stores with the same privilege need not ask again. */
  readonly pageReadable: boolean;
  readonly pageWritable: boolean;
  pageRead(offset: number, target: Uint8Array): Step;
  pageWrite(offset: number, source: Uint8Array): Step;
  /** Outcome of the last `translate`, `load` or `store`. */
  step: Step;
  /** Reads `size` bytes (may cross a page) into the low/high result. */
  load(glaLow: number, glaHigh: number, size: number, access: number): Step;
  store(glaLow: number, glaHigh: number, size: number, low: number, high: number): Step;
  /** Result halves of `load`, `in`, `rdmsr`. */
  low: number;
  high: number;
  /** Copies bytes up to the next fault; `done` says how many were. */
  loadBytes(gla: bigint, target: Uint8Array): Step;
  storeBytes(gla: bigint, source: Uint8Array): Step;
  done: number;
  /**
   * Called when cached translations stop being valid: MOV CR3, INVLPG, INVEPT, VM entry with another tag, a frame
   * that moved. Engines with their own TLB drop it then.
   */
  onTlbFlush(listener: (pageLow: number, pageHigh: number) => void): void;

  /** Instructions that may be intercepted or fault. Operands and results in `regs`; `length` is the instruction's length. */
  cpuid(length: number): Step;
  rdmsr(length: number): Step;
  wrmsr(length: number): Step;
  /** Result in `low`. */
  in(port: number, size: number, length: number, immediate: boolean): Step;
  out(port: number, size: number, value: number, length: number, immediate: boolean): Step;
  /** `gpr`: number of the general-purpose register. */
  movFromCr(cr: number, gpr: number, length: number): Step;
  movToCr(cr: number, gpr: number, length: number): Step;
  movFromDr(dr: number, gpr: number, length: number): Step;
  movToDr(dr: number, gpr: number, length: number): Step;
  clts(length: number): Step;
  lmsw(value: number, length: number): Step;
  hlt(length: number): Step;
  pause(length: number): Step;
  invlpg(gla: bigint, length: number): Step;
  invpcid(type: number, pcid: number, gla: bigint, length: number): Step;
  rdtsc(length: number): Step;
  rdtscp(length: number): Step;
  rdpmc(length: number): Step;
  rdrand(gpr: number, size: number, length: number): Step;
  rdseed(gpr: number, size: number, length: number): Step;
  wbinvd(length: number): Step;
  invd(length: number): Step;
  xsetbv(length: number): Step;
  /** XSAVES or XRSTORS is about to run, by its exit reason. */
  extendedState(exitReason: number, length: number): Step;
  /** An MSR that XSAVES and XRSTORS move. */
  stateMsr(index: number): bigint;
  /** @returns false if bits are reserved */
  setStateMsr(index: number, value: bigint): boolean;
  tdcall(length: number): Step;
  vmcall(length: number): Step;
  seamcall(length: number): Step;
  /** Any other VMX instruction, GETSEC, ENCLS, …: the intercept's exit or #UD. */
  vmxInstruction(exitReason: number, length: number): Step;
  monitor(gla: bigint, length: number): Step;
  mwait(length: number): Step;
  umonitor(gla: bigint): Step;
  /** UMWAIT and TPAUSE; `gpr`: number of the operand's register. RFLAGS in `regs` are changed. */
  umwait(gpr: number, length: number): Step;
  tpause(gpr: number, length: number): Step;

  /** Makes an exception pending; the exception bitmap may turn it into an exit. */
  raise(vector: number, errorCode?: number): Step;
  /**
   * Delivers `event` through the guest's IDT, as machine code expects it. DONE: RIP is at the handler.
   * EVENT cannot come back (double and triple faults are handled inside).
   */
  deliver(): Step;
  /**
   * To be called between instructions when `attention` is set: takes interrupts, NMIs, timers, window exits.
   * DONE: nothing (more) to do; EVENT: an interrupt is in `event`; EXIT.
   */
  poll(): Step;
  /** A VM exit has been recorded. */
  readonly exited: boolean;
  /** For engines that keep INSTRUCTIONS themselves: lets time pass for instructions retired. */
  elapse(count: number): void;
  /** For engines that keep segments themselves: what `cpl` and `mode64` are for the next request. */
  setPrivilege(cpl: number, mode64: boolean): void;
  /** Failures from now until `setDelivering(false)` happen while the engine delivers this event. */
  vectored(vector: number, type: number, errorCode: number, length: number): void;
  /** The engine is about to deliver an exception of its own: true if the exception bitmap made it a VM exit. */
  intercepts(vector: number, type: number, errorCode: number, length: number): boolean;
  /**
   * The I/O exit just recorded is that of INS or OUTS, which access the linear address.
   * @param addressSize 0 16, 1 32, 2 64 bits
   */
  stringPort(repeated: boolean, segment: number, addressSize: number, gla: bigint): void;
  /** MOV DR: EXIT if it is intercepted. */
  debugAccess(dr: number, write: boolean, gpr: number, length: number): Step;
  /** The engine begins (true) or ends delivering `event` by its own means: failures meanwhile are double faults. */
  setDelivering(on: boolean): void;
  /** No handler can be reached: shutdown. */
  tripleFault(): Step;
  /** STI (1) or MOV SS (2) blocks interrupts for the next instruction: to be called after it was retired. */
  blockBy(bit: 1 | 2): void;
  /** To be called when the engine itself changed CR0, CR3, CR4, EFER, CS or SS (far transfers). */
  updateMode(): void;
  /** The last `poll` found something that waits for interrupts to be let in: call it again when they are. */
  readonly windowAwaited: boolean;
  /** The same of an NMI, or the NMI window, that waits for the end of a MOV SS shadow. */
  readonly nmiAwaited: boolean;
  /** Set when something waits: see `poll`. Engines test it at least every few hundred instructions. */
  attention: boolean;
  /** Counts retired instructions: advances INSTRUCTIONS and the TSC. */
  retire(count: number): void;
  /** How many instructions may be retired before `poll` must be called (timers); at most 2^31 - 1. */
  budget(): number;
}

/** A MOV between memory and a general-purpose register. */
export interface MemoryInstruction {
  readonly kind: "load" | "store";
  /** Bytes moved. */
  readonly size: number;
  /** Number of the general-purpose register. */
  readonly gpr: number;
  /** Length of the instruction in bytes. */
  readonly length: number;
}

/** What an engine may use of the package that it is part of. */
export interface EngineHost {
  readonly arena: CpuArena;
  /** Which arena frames hold decoded code; writes by anyone but the engines themselves are told to it. */
  readonly code: CodeFrames;
  /** Whether another engine than the one that runs goes on at the guest's RIP. */
  awaited(guest: GuestContext): boolean;
}

/** What runs guests of one kind. One object serves all logical processors of a package. */
export interface ExecutionEngine {
  readonly name: string;
  /** True when this engine runs what stands at RIP now (asked at VM entry and when an engine hands over). */
  claims(guest: GuestContext): boolean;
  /** True when something of this engine was left and goes on at RIP, whatever stands there. */
  awaits?(guest: GuestContext): boolean;
  /**
   * It notices when RIP arrives at another engine's code, and hands over: a guest that it left by a VM exit it may go on
   * with, unless another engine awaits it.
   */
  readonly handsOver?: boolean;
  /** Called once for each logical processor, before any guest runs. */
  attach?(guest: GuestContext, host: EngineHost): void;
  /**
   * Runs the guest until a VM exit is recorded ("exit"), or until RIP arrives at code it does not claim ("handover").
   * @param injected VM entry injects `guest.event`: it is delivered before the first instruction
   */
  run(guest: GuestContext, injected: boolean): "exit" | "handover";
  /** The load or store at which the guest of a VMCS stopped, as an instruction decoder would find it at RIP. */
  memoryInstruction?(vmcs: number): MemoryInstruction | null;
}
