/**
 * What is known of guests after their end: the last VM exits, and the state at the last shutdown. No instruction tells
 * it: it is for whoever owns the processor, as a logic analyser on it would be. SDM vol. 3C section 28.2 (information
 * for VM exits), vol. 3A section 6.15 (double fault, shutdown).
 */
import { Gpr, REG, RegisterFile, SEG, SegmentRegister } from "@swtdx/x86";
import { EXIT_REASON_NAMES } from "../vmx/controls.js";
import { VMCS } from "../vmx/fields.js";
import type { Vmcs } from "../vmx/vmcs.js";

/** A VM exit, from its VMCS. */
export interface GuestExit {
  /** Basic exit reason. */
  readonly reason: number;
  readonly name: string;
  readonly qualification: bigint;
  readonly rip: bigint;
  /** GPA of an EPT violation or misconfiguration, else null. */
  readonly gpa: bigint | null;
  /** Vector of an exception, NMI or interrupt, else null. */
  readonly vector: number | null;
}

/** A guest at its shutdown. */
export interface GuestShutdown {
  readonly mode: "real" | "protected" | "compatibility" | "64-bit";
  readonly cpl: number;
  /** Selector and base of CS. */
  readonly cs: number;
  readonly csBase: bigint;
  readonly rip: bigint;
  readonly rsp: bigint;
  readonly rflags: bigint;
  readonly cr0: bigint;
  readonly cr2: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  /** RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15. */
  readonly gprs: readonly bigint[];
  /** The bytes at RIP and those at RSP: up to 16 and 64, none where nothing is mapped. */
  readonly code: Uint8Array;
  readonly stack: Uint8Array;
}

const EXITS = 16;
const WORDS = 8;
const CODE_BYTES = 16;
const STACK_BYTES = 64;
const REASON = { EXCEPTION_OR_NMI: 0, EXTERNAL_INTERRUPT: 1, EPT_VIOLATION: 48, EPT_MISCONFIG: 49 } as const;

/** Reads guest memory without a trace. @returns how many bytes there are */
export type Peek = (gla: bigint, target: Uint8Array) => number;

export class PostMortem {
  /** A ring of exits: reason, interruption information, then qualification, RIP and GPA as halves. */
  readonly #ring = new Uint32Array(EXITS * WORDS);
  #count = 0;
  #shutdown: GuestShutdown | null = null;

  recordExit(v: Vmcs, regs: RegisterFile): void {
    const ring = this.#ring;
    const at = (this.#count++ % EXITS) * WORDS;
    ring[at] = v.lo(VMCS.VM_EXIT_REASON);
    ring[at + 1] = v.lo(VMCS.VM_EXIT_INTR_INFO);
    ring[at + 2] = v.lo(VMCS.EXIT_QUALIFICATION);
    ring[at + 3] = v.hi(VMCS.EXIT_QUALIFICATION);
    ring[at + 4] = regs.get32(REG.RIP);
    ring[at + 5] = regs.get32(REG.RIP + 4);
    ring[at + 6] = v.lo(VMCS.GUEST_PHYSICAL_ADDRESS);
    ring[at + 7] = v.hi(VMCS.GUEST_PHYSICAL_ADDRESS);
  }

  /** The guest shuts down, with the state in `regs`. */
  recordShutdown(regs: RegisterFile, peek: Peek): void {
    const real = (regs.get32(REG.CR0) & 1) === 0;
    const long = (regs.get32(REG.EFER) & 0x400) !== 0;
    const cs = RegisterFile.segment(SegmentRegister.CS);
    const ss = RegisterFile.segment(SegmentRegister.SS);
    const code64 = long && (regs.get32(cs + SEG.AR) & 0x2000) !== 0;
    const base = (segment: number): bigint => (code64 ? 0n : regs.get(segment + SEG.BASE));
    const read = (gla: bigint, length: number): Uint8Array => {
      const bytes = new Uint8Array(length);
      return bytes.subarray(0, peek(code64 ? gla : gla & 0xffffffffn, bytes));
    };
    const rip = regs.get(REG.RIP);
    const rsp = regs.gpr(Gpr.RSP);
    this.#shutdown = {
      mode: real ? "real" : code64 ? "64-bit" : long ? "compatibility" : "protected",
      cpl: real ? 0 : (regs.get32(ss + SEG.AR) >>> 5) & 3,
      cs: regs.get32(cs + SEG.SELECTOR) & 0xffff,
      csBase: base(cs),
      rip,
      rsp,
      rflags: regs.get(REG.RFLAGS),
      cr0: regs.get(REG.CR0),
      cr2: regs.get(REG.CR2),
      cr3: regs.get(REG.CR3),
      cr4: regs.get(REG.CR4),
      gprs: Array.from({ length: 16 }, (_, i) => regs.gpr(i)),
      code: read(base(cs) + rip, CODE_BYTES),
      stack: read(base(ss) + rsp, STACK_BYTES),
    };
  }

  /** The last exits of this logical processor's guests, the latest at the end. */
  get exits(): readonly GuestExit[] {
    const first = Math.max(0, this.#count - EXITS);
    return Array.from({ length: this.#count - first }, (_, i) => this.#exit(((first + i) % EXITS) * WORDS));
  }
  /** State at the last shutdown, null when there was none. */
  get shutdown(): GuestShutdown | null {
    return this.#shutdown;
  }

  #exit(at: number): GuestExit {
    const ring = this.#ring;
    const wide = (i: number): bigint => (BigInt(ring[at + i + 1]) << 32n) | BigInt(ring[at + i]);
    const reason = ring[at] & 0xffff;
    const interruption = ring[at + 1];
    const event = reason === REASON.EXCEPTION_OR_NMI || reason === REASON.EXTERNAL_INTERRUPT;
    const ept = reason === REASON.EPT_VIOLATION || reason === REASON.EPT_MISCONFIG;
    return {
      reason,
      name: EXIT_REASON_NAMES[reason] ?? `${reason}`,
      qualification: wide(2),
      rip: wide(4),
      gpa: ept ? wide(6) : null,
      vector: event && interruption >>> 31 === 1 ? interruption & 0xff : null,
    };
  }
}
