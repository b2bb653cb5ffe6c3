/**
 * The processor package and its logical processors as host software (BIOS, Linux, KVM) sees them.
 *
 * Host software is TypeScript that runs natively on a logical processor at CPL 0 with memory mapped one to one; what
 * it asks of the processor are these methods, each an instruction (or what the interrupt controller does).
 */
import type { HpaAndKeyId, Trace } from "@swtdx/abi";
import type { RegisterFile } from "@swtdx/x86";
import type { PostMortem } from "../guest/post-mortem.js";
import type { ExecutionEngine, MemoryInstruction } from "./engine.js";
import type { CpuArena, CpuMemory } from "./memory.js";
import type { Fault, Outcome, ValueOutcome, VmEntryOutcome, VmxOutcome } from "./outcome.js";
import type { Cpuid, KeyProgram, SeamFirmwareFactory, SeamRange } from "./seam.js";

/** The one source of chance: RDRAND, fuses, generated keys. `SeededRandom` of @swtdx/crypto. */
export interface RandomSource {
  bytes(length: number): Uint8Array;
  u64(): bigint;
  /** An independent stream. */
  fork(label: string): RandomSource;
}

export interface ProcessorOptions {
  readonly arena: CpuArena;
  readonly memory: CpuMemory;
  /** Number of logical processors (default 1, at most 64). */
  readonly lps?: number;
  readonly random: RandomSource;
  readonly trace?: Trace;
  /** Engines that run guests, asked in this order whose code stands at RIP. */
  readonly engines?: readonly ExecutionEngine[];
  /** Frequency of the TSC in Hz (default 2 GHz), as CPUID 0x15 tells. */
  readonly tscHz?: number;
}

/** Of SEAMCALL. */
export type SeamcallOutcome =
  { readonly kind: "ok"; /** RFLAGS.CF: VMfailInvalid. */ readonly cf: boolean } | Fault;

/** One package (socket). */
export interface Processor {
  readonly lps: readonly LogicalProcessor[];
  readonly packageIndex: number;
  readonly trace: Trace;
  readonly seamRange: SeamRange;
  /** Makes SEAM firmware known by the name that its image bytes carry. */
  registerSeamFirmware(name: string, factory: SeamFirmwareFactory): void;
  /** Cold reset: registers, MSRs, TLBs, VMX and SEAM state, the keys; DRAM stays. */
  reset(): void;
}

export interface LogicalProcessor {
  /** Number in the platform, from 0. */
  readonly index: number;
  readonly processor: Processor;
  /** x2APIC ID. */
  readonly apicId: number;
  readonly regs: RegisterFile;
  /** IA32_TIME_STAMP_COUNTER now: advances with retired instructions (and `advance`). */
  readonly tsc: bigint;
  /** The same as a number: exact below 2^53. */
  readonly tscNumber: number;
  /** Lets `ticks` TSC ticks of host work or idling pass; timers that expire become pending. */
  advance(ticks: bigint): void;

  cpuid(leaf: number, subleaf?: number): Cpuid;
  rdmsr(index: number): ValueOutcome<bigint>;
  wrmsr(index: number, value: bigint): Outcome;

  /**
   * Reads bytes at a physical address with KeyID bits. A private KeyID gives #PF with RSVD (outside SEAM); the SEAM
   * range reads as ones; poison gives #MC.
   */
  memRead(pa: HpaAndKeyId, target: Uint8Array): Outcome;
  /** Writes to the SEAM range are dropped. */
  memWrite(pa: HpaAndKeyId, source: Uint8Array): Outcome;
  memReadU64(pa: HpaAndKeyId): ValueOutcome<bigint>;
  memWriteU64(pa: HpaAndKeyId, value: bigint): Outcome;
  /** Writes one 64-byte line without reading it: clears poison. `pa` multiple of 64. */
  movdir64b(pa: HpaAndKeyId, line: Uint8Array): Outcome;
  /** Zeroes with MOVDIR64B; `pa` and `length` multiples of 64. */
  memZero(pa: HpaAndKeyId, length: number): Outcome;
  clflush(pa: HpaAndKeyId): Outcome;

  /** PCONFIG MKTME_KEY_PROGRAM for a shared KeyID; `status` is RAX (ZF set unless 0). #UD / #GP as a fault. */
  pconfig(key: KeyProgram): ValueOutcome<number>;
  wbinvd(): Outcome;
  rdrand(): bigint | null;

  vmxon(region: HpaAndKeyId): VmxOutcome;
  vmxoff(): VmxOutcome;
  vmclear(vmcs: HpaAndKeyId): VmxOutcome;
  vmptrld(vmcs: HpaAndKeyId): VmxOutcome;
  /** The current VMCS's address, -1 when there is none (the instruction stores all ones). */
  vmptrst(): ValueOutcome<number>;
  vmread(field: number): ValueOutcome<bigint> | VmxOutcome;
  vmwrite(field: number, value: bigint): VmxOutcome;
  /** VMREAD and VMWRITE with the value as two halves: what is done at every exit. -1, false: as `vmread` would fail. */
  vmreadLow(field: number): number;
  vmreadHigh(field: number): number;
  vmwriteHalves(field: number, low: number, high: number): boolean;
  /** Enters the guest and runs it until its next VM exit. Guest GPRs are taken from and left in `regs`. */
  vmlaunch(): VmEntryOutcome;
  vmresume(): VmEntryOutcome;
  /**
   * After an EPT-violation or misconfiguration exit: the load or store that the guest stopped at, as a decoder would
   * find it at RIP. null: decode the instruction's bytes in guest memory.
   */
  guestMemoryInstruction(): MemoryInstruction | null;
  /** The last exits of guests here, and what the last one that shut down was like. */
  readonly postMortem: PostMortem;
  /** Name of the check that the last failed VM entry stumbled on, for whoever writes a hypervisor. */
  readonly entryFailure: string;
  invept(type: number, eptp: bigint): VmxOutcome;
  invvpid(type: number, vpid: number, gla: bigint): VmxOutcome;

  /** Operands in `regs` (leaf and bit 63 for P-SEAMLDR in RAX); returns when the firmware executes SEAMRET. */
  seamcall(): SeamcallOutcome;
  /**
   * GETSEC[ENTERACCS] of the NP-SEAMLDR, by BIOS or OS. `acm` is the P-SEAMLDR's program image (stub first, see abi's
   * program-image.ts), which the NP-SEAMLDR carries: it is put at the end of the SEAM range and becomes callable.
   */
  enteraccs(acm: Uint8Array): { kind: "ok" } | { kind: "error"; reason: string } | Fault;
  /** ENCLU[EVERIFYREPORT2] of a 256-byte REPORTMACSTRUCT, as a quoting enclave executes it: RAX (0: made on this platform). */
  everifyreport2(reportMacStruct: Uint8Array): number;

  /** Sends a fixed interrupt to this logical processor: exits non-root mode, is a posted-interrupt notification, or waits. */
  pendExternalInterrupt(vector: number): void;
  pendNmi(): void;
  /** Sends INIT: blocked in VMX root, an exit in non-root. */
  pendInit(): void;
  /** Acknowledges the highest pending interrupt as the host's IDT handler would get it; null when there is none. */
  takeInterrupt(): number | null;
  takeNmi(): boolean;
  readonly interruptPending: boolean;
  /** The local APIC timer in TSC-deadline mode: `vector` becomes pending when the TSC reaches the deadline. */
  setTimer(tscDeadline: number | null, vector: number): void;
}
