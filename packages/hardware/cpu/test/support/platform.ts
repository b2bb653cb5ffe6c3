/** A platform for tests: DRAM, one package, and small helpers that a BIOS and a hypervisor would have. */
import { encodeProgramImage, Trace, type GuestProgram, type HpaAndKeyId, type TraceEvent } from "@swtdx/abi";
import { SeededRandom } from "@swtdx/crypto";
import { Arena, MemoryController } from "@swtdx/mktme";
import {
  ENTRY,
  EXIT,
  PIN,
  PROC,
  PROC2,
  ProgramEngine,
  Processor,
  VMCS,
  VMCS_REVISION,
  type LogicalProcessor,
} from "../../src/index.js";

export const DRAM = 64 * 2 ** 20;
export const pa = (value: number): HpaAndKeyId => value as HpaAndKeyId;

export interface Platform {
  arena: Arena;
  memory: MemoryController;
  processor: Processor;
  lp: LogicalProcessor;
  programs: Map<string, GuestProgram>;
  engine: ProgramEngine;
  trace: Trace;
  events: TraceEvent[];
}

export function createPlatform(lps = 1, withTrace = false): Platform {
  const arena = new Arena({ residentBytes: 32 * 2 ** 20 });
  const random = new SeededRandom(new TextEncoder().encode("cpu tests"));
  const memory = new MemoryController(arena, { dramBytes: DRAM, random });
  const programs = new Map<string, GuestProgram>();
  const engine = new ProgramEngine({ programs });
  const trace = new Trace();
  const events: TraceEvent[] = [];
  if (withTrace) trace.subscribe((event) => events.push(event));
  const processor = new Processor({ arena, memory, random, lps, engines: [engine], trace });
  return { arena, memory, processor, lp: processor.lps[0], programs, engine, trace, events };
}

export function write64(lp: LogicalProcessor, at: number, value: bigint): void {
  const outcome = lp.memWriteU64(pa(at), value);
  if (outcome.kind !== "ok") throw new Error(`write at ${at}`);
}
export function read64(lp: LogicalProcessor, at: number): bigint {
  const outcome = lp.memReadU64(pa(at));
  if (outcome.kind !== "ok") throw new Error(`read at ${at}`);
  return outcome.value;
}
export function ok(outcome: { kind: string }): void {
  if (outcome.kind !== "ok") throw new Error(JSON.stringify(outcome));
}

/** Puts a program image at a physical address and registers the program. */
export function loadProgram(p: Platform, at: number, name: string, program: GuestProgram): void {
  p.programs.set(name, program);
  ok(p.lp.memWrite(pa(at), encodeProgramImage(name)));
}

/** FEATURE_CONTROL and VMXON with a region at `at`. */
export function enterVmx(lp: LogicalProcessor, at = 0x1000): void {
  ok(lp.wrmsr(0x3a, 5n));
  write64(lp, at, BigInt(VMCS_REVISION));
  ok(lp.vmxon(pa(at)));
}

/** An EPT at `base` that maps [0, size) one to one to `target` with 4 KiB pages. Returns the EPT pointer. */
export class EptBuilder {
  #next: number;
  constructor(
    private readonly write: (at: number, value: bigint) => void,
    private readonly read: (at: number) => bigint,
    readonly base: number,
    readonly levels = 4,
  ) {
    this.#next = base + 4096;
  }
  get pointer(): bigint {
    return BigInt(this.base) | 6n | BigInt((this.levels - 1) << 3);
  }
  /** Address of the entry for a GPA at `level`, with the tables on the way. */
  entry(gpa: number, level = 0): number {
    let table = this.base;
    for (let l = this.levels - 1; l > level; l--) {
      const at = table + (Math.floor(gpa / 2 ** (12 + 9 * l)) % 512) * 8;
      let entry = this.read(at);
      if ((entry & 7n) === 0n) {
        entry = BigInt(this.#next) | 7n;
        this.#next += 4096;
        this.write(at, entry);
      }
      table = Number(entry & 0xf_ffff_ffff_f000n);
    }
    return table + (Math.floor(gpa / 2 ** (12 + 9 * level)) % 512) * 8;
  }
  map(gpa: number, target: bigint, rights = 7n, flags = 0x30n): void {
    this.write(this.entry(gpa), target | rights | flags);
  }
}

/** Adjusts wanted controls by a capability MSR, as a hypervisor does. */
export function adjust(lp: LogicalProcessor, msr: number, wanted: number): bigint {
  const outcome = lp.rdmsr(msr);
  if (outcome.kind !== "ok") throw new Error(`MSR ${msr}`);
  return (BigInt(wanted >>> 0) | (outcome.value & 0xffffffffn)) & (outcome.value >> 32n);
}

export interface GuestSetup {
  rip: bigint;
  eptp: bigint;
  proc?: number;
  proc2?: number;
  pin?: number;
  exit?: number;
  entry?: number;
  /** 64-bit paging with this CR3; without it the guest starts in 32-bit protected mode, paging off. */
  cr3?: bigint;
  vpid?: number;
}

/** A VMCS for an ordinary guest: made current at `at`, all fields that VM entry checks. */
export function setupVmcs(lp: LogicalProcessor, at: number, setup: GuestSetup): void {
  write64(lp, at, BigInt(VMCS_REVISION));
  ok(lp.vmclear(pa(at)));
  ok(lp.vmptrld(pa(at)));
  const w = (field: number, value: bigint): void => ok(lp.vmwrite(field, value));
  writeGuestAndHost(lp, w, setup);
}
export function writeGuestAndHost(
  lp: LogicalProcessor,
  w: (field: number, value: bigint) => void,
  setup: GuestSetup,
): void {
  const long = setup.cr3 !== undefined;
  w(
    VMCS.PIN_BASED_VM_EXEC_CONTROL,
    adjust(lp, 0x48d, PIN.EXTERNAL_INTERRUPT_EXITING | PIN.NMI_EXITING | (setup.pin ?? 0)),
  );
  w(
    VMCS.CPU_BASED_VM_EXEC_CONTROL,
    adjust(
      lp,
      0x48e,
      PROC.HLT_EXITING | PROC.UNCONDITIONAL_IO_EXITING | PROC.ACTIVATE_SECONDARY | (setup.proc ?? 0),
    ),
  );
  w(
    VMCS.SECONDARY_VM_EXEC_CONTROL,
    adjust(lp, 0x48b, PROC2.ENABLE_EPT | PROC2.ENABLE_VPID | PROC2.UNRESTRICTED_GUEST | (setup.proc2 ?? 0)),
  );
  w(
    VMCS.VM_EXIT_CONTROLS,
    adjust(lp, 0x48f, EXIT.HOST_ADDRESS_SPACE_SIZE | EXIT.SAVE_EFER | EXIT.LOAD_EFER | (setup.exit ?? 0)),
  );
  w(
    VMCS.VM_ENTRY_CONTROLS,
    adjust(lp, 0x490, ENTRY.LOAD_EFER | (long ? ENTRY.IA32E_MODE_GUEST : 0) | (setup.entry ?? 0)),
  );
  w(VMCS.VIRTUAL_PROCESSOR_ID, BigInt(setup.vpid ?? 1));
  w(VMCS.EPT_POINTER, setup.eptp);
  w(VMCS.VMCS_LINK_POINTER, 0xffff_ffff_ffff_ffffn);
  w(VMCS.GUEST_CR0, long ? 0x80010033n : 0x31n);
  w(VMCS.GUEST_CR3, setup.cr3 ?? 0n);
  w(VMCS.GUEST_CR4, long ? 0x2020n : 0x2000n);
  w(VMCS.GUEST_IA32_EFER, long ? 0xd00n : 0n);
  for (let i = 0; i < 6; i++) {
    w(VMCS.GUEST_ES_LIMIT + 2 * i, 0xffffffffn);
    w(VMCS.GUEST_ES_AR_BYTES + 2 * i, i === 1 ? (long ? 0xa09bn : 0xc09bn) : 0xc093n);
    w(VMCS.GUEST_ES_SELECTOR + 2 * i, i === 1 ? 8n : 0x10n);
  }
  w(VMCS.GUEST_LDTR_AR_BYTES, 0x10000n);
  w(VMCS.GUEST_TR_AR_BYTES, 0x8bn);
  w(VMCS.GUEST_TR_LIMIT, 0x67n);
  w(VMCS.GUEST_RFLAGS, 2n);
  w(VMCS.GUEST_DR7, 0x400n);
  w(VMCS.GUEST_RIP, setup.rip);
  w(VMCS.HOST_CR0, 0x80050033n);
  w(VMCS.HOST_CR4, 0x3726e0n);
  w(VMCS.HOST_IA32_EFER, 0xd01n);
  w(VMCS.HOST_CS_SELECTOR, 8n);
  w(VMCS.HOST_SS_SELECTOR, 0x10n);
  w(VMCS.HOST_TR_SELECTOR, 0x18n);
}
export function readField(lp: LogicalProcessor, field: number): bigint {
  const outcome = lp.vmread(field);
  if (outcome.kind !== "ok" || !("value" in outcome)) throw new Error(`VMREAD ${field.toString(16)}`);
  return outcome.value;
}
