/** A logical processor: its registers, clock, MSRs, VMX, SEAM and local APIC put together behind the host's interface. */
import type { HpaAndKeyId, Trace } from "@swtdx/abi";
import { decodeProgramHeader, decodeProgramStub, PROGRAM_HEADER_MAX, PROGRAM_STUB_SIZE } from "@swtdx/abi";
import { Gpr, REG, RegisterFile, REGISTER_FILE_SIZE, SEG, SegmentRegister, Vector } from "@swtdx/x86";
import { LocalApic } from "./apic/local-apic.js";
import { cpuid } from "./cpuid.js";
import { Guest, type GuestServices } from "./guest/guest.js";
import { Step, type ExecutionEngine, type MemoryInstruction } from "./interface/engine.js";
import type { PostMortem } from "./guest/post-mortem.js";
import type {
  Fault,
  Outcome,
  ValueOutcome,
  VmEntryOutcome,
  VmFail,
  VmxOutcome,
} from "./interface/outcome.js";
import type { LogicalProcessor, RandomSource, SeamcallOutcome } from "./interface/processor.js";
import { PconfigStatus, SeamShutdown, type Cpuid, type KeyProgram } from "./interface/seam.js";
import { MsrFile, type MsrOwner } from "./msr/msr-file.js";
import { GP0, machineCheck, OK, rsvdFault, UD } from "./outcomes.js";
import { Phys, type PhysicalMemory } from "./memory/physical.js";
import type { ProcessorUnit } from "./processor.js";
import { TransferVmcs } from "./seam/transfer.js";
import { SeamRootContext } from "./seam/context.js";
import { Vmx, type VmxOwner } from "./vmx/instructions.js";

/** RFLAGS.CF after SEAMCALL: clear, and set for VMfailInvalid. */
const SEAMCALL_DONE: SeamcallOutcome = { kind: "ok", cf: false };
const SEAMCALL_FAILED: SeamcallOutcome = { kind: "ok", cf: true };

export class LogicalProcessorUnit implements LogicalProcessor, MsrOwner, GuestServices, VmxOwner {
  readonly regs: RegisterFile;
  readonly apicId: number;
  readonly phys: PhysicalMemory;
  readonly msrs: MsrFile;
  readonly guest: Guest;
  readonly vmx: Vmx;
  readonly apic: LocalApic;
  readonly random: RandomSource;
  readonly trace: Trace;
  /** Clock: instructions retired and time let pass, in TSC ticks since reset. */
  ticks = 0;
  #tscOffset = 0n;
  #tscOffsetNumber = 0;
  /** Of the timer, as a TSC value. */
  #tscDeadline: bigint | number = 0n;
  #seam: SeamRootContext | null = null;
  /** Shut down in SEAM root mode or by a VMX abort. */
  #shutdown: string | null = null;
  #inGuest = false;
  readonly #seamContext: SeamRootContext;
  readonly #transfer: TransferVmcs;
  readonly #line = new Uint8Array(8);
  readonly #lineView = new DataView(this.#line.buffer);

  constructor(
    readonly unit: ProcessorUnit,
    readonly index: number,
  ) {
    this.apicId = index;
    this.phys = unit.phys;
    this.trace = unit.trace;
    this.random = unit.random.fork(`lp${index}`);
    const { arena } = unit;
    this.regs = new RegisterFile(arena.memory.buffer, arena.reserve(REGISTER_FILE_SIZE, 4096));
    this.apic = new LocalApic(index, (destination, mode, vector) =>
      unit.sendIpi(this, destination, mode, vector),
    );
    this.msrs = new MsrFile(this, unit.packageMsrs);
    this.guest = new Guest(this.regs, this.phys, this);
    this.vmx = new Vmx(this);
    this.#seamContext = new SeamRootContext(this);
    this.#transfer = new TransferVmcs(this.regs);
    this.reset();
  }
  get processor(): ProcessorUnit {
    return this.unit;
  }
  get postMortem(): PostMortem {
    return this.guest.postMortem;
  }
  /** Why the logical processor is shut down, null when it is not. */
  get shutdownReason(): string | null {
    return this.#shutdown;
  }

  /** State after reset and firmware: 64-bit mode at CPL 0 with memory mapped one to one, CR4.VMXE set. */
  reset(): void {
    const { regs } = this;
    regs.u8.fill(0);
    regs.set(REG.CR0, 0x80050033n);
    regs.set(REG.CR4, 0x3726e0n);
    regs.set(REG.EFER, 0xd01n);
    regs.set(REG.RFLAGS, 2n);
    regs.set(REG.XCR0, 7n);
    regs.set(REG.DR6, 0xffff0ff0n);
    regs.set(REG.DR7, 0x400n);
    regs.set(REG.PAT, 0x0007040600070406n);
    regs.set32(REG.MXCSR, 0x1f80);
    regs.set32(REG.FCW, 0x37f);
    regs.set32(REG.FTW, 0xffff);
    for (let i = 0; i < 8; i++) {
      const at = RegisterFile.segment(i);
      regs.set32(at + SEG.LIMIT, 0xffffffff);
      regs.set32(at + SEG.AR, i === SegmentRegister.CS ? 0xa09b : i === SegmentRegister.TR ? 0x8b : 0xc093);
      regs.set32(at + SEG.SELECTOR, i === SegmentRegister.CS ? 8 : i === SegmentRegister.TR ? 0x18 : 0x10);
    }
    regs.set32(RegisterFile.segment(SegmentRegister.LDTR) + SEG.AR, 0x10000);
    this.msrs.reset();
    if (this.index === 0) this.msrs.setRaw(0x1b, this.msrs.raw(0x1b) | 0x100n);
    this.ticks = 0;
    this.setTscOffset(0n);
    this.#shutdown = null;
    this.#seam = null;
    this.vmx.reset();
    this.apic.reset();
    this.guest.tlb.flushAll();
    this.guest.vpid = 0;
    this.guest.eptRoot = null;
    this.guest.sharedRoot = null;
    this.guest.updateMode();
  }

  // ---- Clock

  get tsc(): bigint {
    return this.tscNow();
  }
  get tscNumber(): number {
    return this.#tscOffsetNumber < 0 ? Number(this.tscNow()) : this.ticks + this.#tscOffsetNumber;
  }
  tscNow(): bigint {
    if (this.#tscOffsetNumber >= 0) return BigInt(this.ticks + this.#tscOffsetNumber);
    return BigInt.asUintN(64, BigInt(this.ticks) + this.#tscOffset);
  }
  tscOffset(): bigint {
    return this.#tscOffset;
  }
  setTscOffset(offset: bigint): void {
    this.#tscOffset = offset;
    // A negative one wraps.
    this.#tscOffsetNumber = offset < 2n ** 52n ? Number(offset) : -1;
  }
  advance(ticks: bigint): void {
    this.ticks += Number(ticks);
    this.apic.tick(this.ticks);
  }
  setTimer(tscDeadline: number | null, vector: number): void {
    this.apic.timerVector = vector;
    if (tscDeadline === null || this.#tscOffsetNumber < 0)
      this.writeTscDeadline(tscDeadline === null ? 0n : BigInt(tscDeadline));
    else {
      this.#tscDeadline = tscDeadline;
      this.#arm(tscDeadline - this.#tscOffsetNumber);
    }
  }
  /** @param deadline in ticks since reset */
  #arm(deadline: number): void {
    this.apic.deadline = Math.max(deadline, 0);
    this.apic.tick(this.ticks);
    this.guest.attention = true;
  }
  readTscDeadline(): bigint {
    return this.apic.deadline === Infinity ? 0n : BigInt(this.#tscDeadline);
  }
  writeTscDeadline(value: bigint): void {
    this.#tscDeadline = value;
    this.#arm(value === 0n ? Infinity : Number(BigInt.asIntN(64, value - this.#tscOffset)));
  }

  // ---- CPUID and MSRs

  cpuid(leaf: number, subleaf = 0): Cpuid {
    return cpuid(leaf, subleaf, {
      apicId: this.apicId,
      lps: this.unit.lps.length,
      tscHz: this.unit.tscHz,
      cr4: this.regs.get32(REG.CR4),
      xcr0: this.regs.get32(REG.XCR0),
      xss: this.regs.get32(REG.XSS),
    });
  }
  rdmsr(index: number): ValueOutcome<bigint> {
    const value = this.msrs.read(index);
    return value === null ? GP0 : { kind: "ok", value };
  }
  wrmsr(index: number, value: bigint): Outcome {
    return this.msrs.write(index, value) ? OK : GP0;
  }
  inSeam(): boolean {
    return this.#seam !== null;
  }
  interruptsPending(): bigint {
    return (this.apic.highest() >= 0 ? 1n : 0n) | (this.apic.nmi ? 2n : 0n);
  }
  apicRead(index: number): bigint | null {
    if (index === 0x839) return 0n;
    return this.apic.read(index);
  }
  apicWrite(index: number, value: bigint): boolean {
    return this.apic.write(index, value);
  }
  tmeActivated(value: bigint): void {
    this.unit.tmeActivated(value);
  }
  seamrrChanged(): void {
    this.unit.seamrrChanged(this.msrs);
  }
  modeChanged(): void {
    this.guest.updateMode();
  }

  // ---- Physical memory as host software sees it

  #split(pa: number, write: boolean): Fault | null {
    this.phys.split(pa);
    return this.phys.isPrivate(this.phys.keyId) ? rsvdFault(pa, write) : null;
  }
  /** One access per page. */
  #memory(pa: number, bytes: Uint8Array, write: boolean): Outcome {
    const fault = this.#split(pa, write);
    if (fault) return fault;
    const { hpa, keyId } = this.phys;
    for (let done = 0; done < bytes.length;) {
      const at = hpa + done;
      const count = Math.min(4096 - (at % 4096), bytes.length - done);
      const part = bytes.subarray(done, done + count);
      const status = write ? this.phys.write(at, keyId, part, false) : this.phys.read(at, keyId, part, false);
      if (status !== Phys.OK) {
        this.machineCheck(this.phys.faultHpa, false);
        return machineCheck(this.phys.faultHpa);
      }
      done += count;
    }
    return OK;
  }
  memRead(pa: HpaAndKeyId, target: Uint8Array): Outcome {
    return this.#memory(pa, target, false);
  }
  memWrite(pa: HpaAndKeyId, source: Uint8Array): Outcome {
    return this.#memory(pa, source, true);
  }
  memReadU64(pa: HpaAndKeyId): ValueOutcome<bigint> {
    const outcome = this.#memory(pa, this.#line, false);
    return outcome.kind === "ok" ? { kind: "ok", value: this.#lineView.getBigUint64(0, true) } : outcome;
  }
  memWriteU64(pa: HpaAndKeyId, value: bigint): Outcome {
    this.#lineView.setBigUint64(0, value, true);
    return this.#memory(pa, this.#line, true);
  }
  movdir64b(pa: HpaAndKeyId, line: Uint8Array): Outcome {
    if (pa % 64 !== 0 || line.length !== 64) return GP0;
    return this.#memory(pa, line, true);
  }
  memZero(pa: HpaAndKeyId, length: number): Outcome {
    if (pa % 64 !== 0 || length % 64 !== 0) return GP0;
    const fault = this.#split(pa, true);
    if (fault) return fault;
    this.phys.zero(this.phys.hpa, this.phys.keyId, length, false);
    return OK;
  }
  clflush(pa: HpaAndKeyId): Outcome {
    return this.#split(pa, false) ?? OK;
  }
  /** Fills the machine-check bank: an uncorrected, software-recoverable data (bank 1) or fetch (bank 0) error. */
  machineCheck(hpa: number, fetch: boolean): void {
    const bank = 0x400 + (fetch ? 0 : 4);
    // VAL, UC, EN, MISCV, ADDRV, S, AR; MCACOD data load 0x134, instruction fetch 0x150.
    this.msrs.setRaw(bank + 1, 0xbd80_0000_0000_0000n | (fetch ? 0x150n : 0x134n));
    this.msrs.setRaw(bank + 2, BigInt(hpa));
    // Address is physical, least significant valid bit 6.
    this.msrs.setRaw(bank + 3, 0x86n);
    // RIPV, EIPV, MCIP.
    this.msrs.setRaw(0x17a, 7n);
    if (this.trace.on.MC) this.trace.emit({ type: "MC", lp: this.index, hpa });
  }

  newVmcsIdentity(): number {
    return ++this.unit.lastVmcs;
  }

  pconfig(key: KeyProgram): ValueOutcome<number> {
    if (this.phys.keyIdBits === 0) return GP0;
    // Private KeyIDs are programmed from SEAM only.
    if (this.phys.isPrivate(key.keyId)) return { kind: "ok", value: PconfigStatus.INVALID_KEYID };
    return { kind: "ok", value: this.unit.programKey(key) };
  }
  wbinvd(): Outcome {
    return OK;
  }
  rdrand(): bigint | null {
    return this.random.u64();
  }

  // ---- VMX

  #root(): Fault | null {
    return this.#shutdown === null ? null : UD;
  }
  vmxon(region: HpaAndKeyId): VmxOutcome {
    return this.#root() ?? this.vmx.vmxon(region);
  }
  vmxoff(): VmxOutcome {
    return this.#root() ?? this.vmx.vmxoff();
  }
  vmclear(vmcs: HpaAndKeyId): VmxOutcome {
    return this.#root() ?? this.vmx.vmclear(vmcs, false);
  }
  vmptrld(vmcs: HpaAndKeyId): VmxOutcome {
    return this.#root() ?? this.vmx.vmptrld(vmcs, false);
  }
  vmptrst(): ValueOutcome<number> {
    if (!this.vmx.on) return UD;
    return { kind: "ok", value: this.vmx.current?.pa ?? -1 };
  }
  vmread(field: number): { kind: "ok"; value: bigint } | VmFail | Fault {
    return this.#root() ?? this.vmx.vmread(field);
  }
  vmwrite(field: number, value: bigint): VmxOutcome {
    return this.#root() ?? this.vmx.vmwrite(field, value);
  }
  vmreadLow(field: number): number {
    return this.#shutdown === null ? this.vmx.readHalf(field, false) : -1;
  }
  vmreadHigh(field: number): number {
    return this.#shutdown === null ? this.vmx.readHalf(field, true) : -1;
  }
  vmwriteHalves(field: number, low: number, high: number): boolean {
    return this.#shutdown === null && this.vmx.writeHalves(field, low, high);
  }
  vmlaunch(): VmEntryOutcome {
    return this.#root() ?? this.vmx.enter(true, false);
  }
  vmresume(): VmEntryOutcome {
    return this.#root() ?? this.vmx.enter(false, false);
  }
  invept(type: number, eptp: bigint): VmxOutcome {
    return this.#root() ?? this.vmx.invept(type, eptp);
  }
  invvpid(type: number, vpid: number, gla: bigint): VmxOutcome {
    return this.#root() ?? this.vmx.invvpid(type, vpid, gla);
  }
  /** Name of the check that the last failed VM entry stumbled on: a help for whoever writes a hypervisor. */
  get entryFailure(): string {
    return this.vmx.entryFailure;
  }
  guestMemoryInstruction(): MemoryInstruction | null {
    return this.vmx.current ? this.unit.memoryInstruction(this.vmx.current.identity) : null;
  }
  vmEntered(): void {
    if (this.trace.on.VMENTRY)
      this.trace.emit({ type: "VMENTRY", lp: this.index, rip: this.regs.get(REG.RIP) });
  }
  enteringFromSeam(): void {
    this.#transfer.complete();
  }
  vmxAbort(): never {
    this.#shutdown = "VMX abort";
    throw new SeamShutdown(`logical processor ${this.index}: VMX abort`);
  }
  /** The engine that the guest of a VMCS left by its last VM exit; null: the engines have to be asked. */
  #engine: ExecutionEngine | null = null;
  #engineVmcs = -1;
  #nextEngine(): ExecutionEngine | null {
    const { guest, unit } = this;
    const engine = this.#engine;
    if (engine !== null && this.#engineVmcs === guest.vmcs && !unit.awaited(guest)) return engine;
    return unit.engineFor(guest);
  }
  /** Runs the guest from the state just loaded until a VM exit is recorded. `first` EVENT: one is to be injected. */
  runGuest(first: Step): void {
    const { guest } = this;
    this.#inGuest = true;
    try {
      let injected = first === Step.EVENT;
      for (;;) {
        const engine = this.#nextEngine();
        if (!engine) {
          // Nothing runs what stands there: an invalid opcode.
          if (injected && guest.deliver() === Step.EXIT) return;
          injected = false;
          if (guest.exited) return;
          if (this.unit.engineFor(guest)) continue;
          if (guest.raise(Vector.UD) === Step.EXIT) return;
          if (guest.deliver() === Step.EXIT) return;
          if (!this.unit.engineFor(guest) && guest.tripleFault() === Step.EXIT) return;
          continue;
        }
        const outcome = engine.run(guest, injected);
        injected = false;
        this.#engine = engine.handsOver === true && outcome === "exit" ? engine : null;
        this.#engineVmcs = guest.vmcs;
        if (outcome === "exit") return;
      }
    } finally {
      this.#inGuest = false;
      if (guest.exited) guest.exitDone();
    }
  }

  // ---- SEAM

  seamcall(): SeamcallOutcome {
    // Order of the checks: TDX Module Architecture Specification, SEAMCALL.
    if (this.#shutdown !== null) return SEAMCALL_FAILED;
    if (!this.vmx.on || this.#seam !== null || (this.regs.get32(REG.EFER) & 0x400) === 0) return UD;
    const { unit } = this;
    if (unit.phys.seamFirst === unit.phys.seamEnd) return GP0;
    const pSeamldr = this.regs.get32(REG.GPR + Gpr.RAX * 8 + 4) >>> 31 === 1;
    const extend = unit.reports.extend;
    if (pSeamldr ? !extend.pSeamldrReady : !extend.seamReady) return SEAMCALL_FAILED;
    const firmware = unit.seamFirmware(pSeamldr);
    if (!firmware) return SEAMCALL_FAILED;
    // One logical processor at a time is in P-SEAMLDR; host calls run to completion, so it is never busy.
    this.#transfer.enter(this.vmx);
    const context = this.#seamContext;
    this.#seam = context;
    context.pSeamldr = pSeamldr;
    context.failed = false;
    try {
      firmware.seamcall(context);
    } catch (error) {
      if (!(error instanceof SeamShutdown)) throw error;
      // Unbreakable shutdown: nothing of SEAM's registers is left to see.
      this.#shutdown = error.message;
      this.regs.u8.fill(0, REG.GPR, REG.GPR + 128);
      context.failed = true;
    } finally {
      if (this.vmx.current !== this.#transfer) this.vmx.release(true);
      this.#transfer.leave(this.vmx);
      this.#seam = null;
    }
    return context.failed ? SEAMCALL_FAILED : SEAMCALL_DONE;
  }
  enteraccs(acm: Uint8Array): { kind: "ok" } | { kind: "error"; reason: string } | Fault {
    return this.unit.loadPSeamldr(acm);
  }
  everifyreport2(reportMacStruct: Uint8Array): number {
    return this.unit.reports.verify(reportMacStruct);
  }

  // ---- Interrupts

  pendExternalInterrupt(vector: number): void {
    if (!(vector >= 0 && vector <= 255)) throw new RangeError(`interrupt vector ${vector}`);
    this.apic.request(vector);
    this.guest.attention = true;
  }
  pendNmi(): void {
    this.apic.nmi = true;
    this.guest.attention = true;
  }
  pendInit(): void {
    // Blocked in VMX root operation; it stays pending for the next guest.
    this.apic.init = true;
    this.guest.attention = true;
  }
  takeInterrupt(): number | null {
    this.apic.tick(this.ticks);
    const vector = this.apic.highest();
    if (vector < 0) return null;
    this.apic.clear(vector);
    return vector;
  }
  takeNmi(): boolean {
    const pending = this.apic.nmi;
    this.apic.nmi = false;
    return pending;
  }
  get interruptPending(): boolean {
    this.apic.tick(this.ticks);
    return this.apic.nmi || this.apic.highest() >= 0;
  }
  /** In VMX non-root operation now. */
  get inGuest(): boolean {
    return this.#inGuest;
  }
}

/** The program's name at an entry point, by what `read` sees there; null if there is no program image. */
export function programNameAt(entry: number, read: (pa: number, target: Uint8Array) => void): string | null {
  const stub = new Uint8Array(PROGRAM_STUB_SIZE);
  read(entry, stub);
  const distance = decodeProgramStub(stub);
  if (distance === null || !Number.isSafeInteger(distance)) return null;
  const header = new Uint8Array(PROGRAM_HEADER_MAX);
  read(entry + distance, header);
  return decodeProgramHeader(header)?.name ?? null;
}
