/**
 * Ordinary VMs by VMX instructions: a VMCS for each vCPU, one EPT, events injected at VM entry.
 * Source: Linux arch/x86/kvm/vmx/vmx.c (vmx_vcpu_run, vmx_inject_irq, vmx_complete_interrupts), x86.c (inject_pending_event).
 */
import { Errno, type HpaAndKeyId, KvmExit, PAGE_SIZE, type Pfn } from "@swtdx/abi";
import { Gpr, PROC, PROC2, REG, VMCS } from "@swtdx/cpu";
import type { LogicalProcessor } from "@swtdx/linux-host";
import { sharedPage } from "../memslots.js";
import { Ept, VMX_EPT } from "../mmu/ept.js";
import { translate } from "../mmu/walk.js";
import type { Vcpu } from "../vcpu.js";
import type { Vm } from "../vm.js";
import { type ApicMessage, DeliveryMode } from "../x86/apic-bus.js";
import { KernelError } from "../x86/errno.js";
import { findCpuid } from "../x86/cpuid.js";
import { type GuestState, RunResult, type VcpuBackend, type VmBackend } from "../x86/ops.js";
import { SoftApic } from "../x86/soft-apic.js";
import { GuestRegisters } from "./guest-registers.js";
import { VmcsAccess } from "./vmcs.js";
import { handleExit } from "./vmx-exits.js";
import { getMsr, msrBitmap, setMsr } from "./vmx-msr.js";
import {
  CR0_PG,
  CR4_PAE,
  EFER_LMA,
  enableSecondary,
  enableUserWait,
  getRegs,
  getSregs,
  interceptCr4,
  readCr4,
  reservedCr4,
  resetGuest,
  setRegs,
  setSregs,
  setUpVmcs,
  writeSegment,
} from "./vmx-state.js";

const EPT_LEVELS = 4;
/** TSC_MULTIPLIER: 48 fraction bits. */
const MULTIPLIER_SHIFT = 48n;
const INVEPT_SINGLE = 1;
const INVVPID_SINGLE = 1;
const CS = 1;

/** VM-entry and IDT-vectoring interruption information. */
const INFO = { VALID: 1 << 31, ERROR_CODE: 1 << 11, TYPE_SHIFT: 8 } as const;
const EventType = {
  INTERRUPT: 0,
  NMI: 2,
  EXCEPTION: 3,
  SOFTWARE_INTERRUPT: 4,
  PRIVILEGED: 5,
  SOFTWARE_EXCEPTION: 6,
} as const;
/** CPUID(7,0).ECX. */
const CPUID_WAITPKG = 1 << 5;
const NMI_VECTOR = 2;
/** Interruptibility state. */
const BLOCKED = { STI: 1, MOV_SS: 2, NMI: 8 } as const;
const RFLAGS_IF = 1 << 9;
/** Exceptions that push an error code. */
const PUSHES_ERROR: readonly number[] = [8, 10, 11, 12, 13, 14, 17];
const ENTRY_FAILED = 0x8000_0000;
/** Access rights of a 64-bit code segment. */
const CS_L = 0x2000;
const LMA = Number(EFER_LMA);

/** VPIDs in use on a host, one for each vCPU of an ordinary VM. */
const vpids = new WeakMap<object, Set<number>>();

export class VmxVm implements VmBackend {
  readonly ept: Ept;
  /** Page that all vCPUs share. */
  readonly #msrBitmap: Pfn;
  readonly #bootTsc: bigint;

  constructor(readonly vm: Vm) {
    const { host } = vm.process;
    const lp = host.lps[0];
    const page = host.pages.allocPage("MSR bitmap");
    if (page === null) throw new KernelError(Errno.ENOMEM);
    this.#msrBitmap = page;
    lp.memWrite((page * PAGE_SIZE) as HpaAndKeyId, msrBitmap());
    this.ept = new Ept(lp, host.pages, EPT_LEVELS, VMX_EPT);
    this.#bootTsc = lp.tsc;
    vm.tscOf = (tsc) => BigInt.asUintN(64, ((tsc * this.tscMultiplier) >> MULTIPLIER_SHIFT) + this.tscOffset);
    vm.hostTscOf = (tsc) =>
      (BigInt.asUintN(64, tsc - this.tscOffset) << MULTIPLIER_SHIFT) / this.tscMultiplier;
  }

  /** Guest ticks for a host tick, as KVM_SET_TSC_KHZ wants it. */
  get tscMultiplier(): bigint {
    const { tscKhz, process } = this.vm;
    return ((BigInt(tscKhz) * 1000n) << MULTIPLIER_SHIFT) / BigInt(Math.round(process.tscHz));
  }
  /** The guest's TSC was 0 when the VM was created. */
  get tscOffset(): bigint {
    return BigInt.asUintN(64, -((this.#bootTsc * this.tscMultiplier) >> MULTIPLIER_SHIFT));
  }
  get msrBitmap(): number {
    return this.#msrBitmap * PAGE_SIZE;
  }

  memEncOp(): number {
    return -Errno.ENOTTY;
  }
  createVcpu(vcpu: Vcpu): VcpuBackend {
    return new VmxVcpu(this, vcpu);
  }

  zap(start: number, end: number, side: "private" | "shared"): void {
    if (side === "shared" && this.ept.zap(start, end)) this.flush();
  }
  /** Drops what processors remember of the EPT. */
  flush(): void {
    for (const lp of this.vm.process.host.lps) lp.invept(INVEPT_SINGLE, this.ept.pointer);
  }

  destroy(): void {
    this.flush();
    this.ept.free();
    this.vm.process.host.pages.freePage(this.#msrBitmap);
  }
}

interface PendingEvent {
  vector: number;
  type: number;
  errorCode: number | null;
  /** Instruction length of software events. */
  length: number;
}

export class VmxVcpu implements VcpuBackend, GuestState {
  readonly state = this;
  readonly apic: SoftApic;
  readonly vmcs: VmcsAccess;
  readonly registers: GuestRegisters;
  /** What finishes the exit to user space. */
  complete: (() => RunResult | void) | null = null;
  tscAdjust = 0n;
  specCtrl = 0n;
  umwaitControl = 0n;
  /** A level-triggered vector whose EOI user space's I/O APIC waits for, or -1. */
  pendingEoi = -1;
  #nmiPending = false;
  /** An exception to inject, or an event whose delivery an exit interrupted. */
  #event: PendingEvent | null = null;
  #page: Pfn | null;
  readonly #vpid: number;
  readonly #buffer = new Uint8Array(8);
  readonly #view = new DataView(this.#buffer.buffer);

  constructor(
    readonly owner: VmxVm,
    readonly vcpu: Vcpu,
  ) {
    const { vm } = owner;
    const { lp } = vcpu;
    const page = vm.process.host.pages.allocPage("VMCS");
    if (page === null) throw new KernelError(Errno.ENOMEM);
    this.#page = page;
    this.#vpid = this.#allocateVpid();
    this.registers = new GuestRegisters(lp);
    this.vmcs = new VmcsAccess(lp, page);
    this.apic = new SoftApic(vcpu.lapic, vcpu.id === 0, (vector) => {
      if (vm.eoiVectors.has(vector)) this.pendingEoi = vector;
    });
    setUpVmcs(this.vmcs, {
      eptp: owner.ept.pointer,
      vpid: this.#vpid,
      msrBitmap: owner.msrBitmap,
      tscOffset: owner.tscOffset,
      tscMultiplier: owner.tscMultiplier,
    });
    resetGuest(this);
    // Application processors wait for INIT and start-up, if there is a local APIC to get them.
    vcpu.waitsForStartup = vcpu.id !== 0 && vm.splitIrqchip;
  }

  #allocateVpid(): number {
    const { host } = this.owner.vm.process;
    let used = vpids.get(host);
    if (!used) vpids.set(host, (used = new Set()));
    let vpid = 1;
    while (used.has(vpid)) vpid++;
    used.add(vpid);
    return vpid;
  }

  get lp(): LogicalProcessor {
    return this.vcpu.lp;
  }

  // ---- GuestState

  memEncOp(): number {
    return -Errno.ENOTTY;
  }
  getRegs = () => getRegs(this);
  setRegs = (regs: Parameters<typeof setRegs>[1]) => {
    setRegs(this, regs);
    this.#event = null;
  };
  getSregs = () => getSregs(this);
  setSregs = (sregs: Parameters<typeof setSregs>[1]) => setSregs(this, sregs);
  getMsr = (index: number) => getMsr(this, index);
  setMsr = (index: number, value: bigint) => setMsr(this, index, value);
  getLapic = () => this.apic.getState();
  setLapic = (regs: Uint8Array) => this.apic.setState(regs);

  guestTsc(): bigint {
    const { tscMultiplier } = this.owner;
    return BigInt.asUintN(
      64,
      ((this.lp.tsc * tscMultiplier) >> MULTIPLIER_SHIFT) + this.vmcs.get("TSC_OFFSET"),
    );
  }
  setGuestTsc(value: bigint): void {
    const offset = this.vmcs.get("TSC_OFFSET") + value - this.guestTsc();
    this.vmcs.set("TSC_OFFSET", BigInt.asUintN(64, offset));
  }

  // ---- Interrupts

  deliver({ mode, vector, level }: ApicMessage): void {
    switch (mode) {
      case DeliveryMode.FIXED:
      case DeliveryMode.LOWEST:
        if (vector >= 16) this.apic.queue.accept(vector, level);
        return;
      case DeliveryMode.NMI:
        this.nmi();
        return;
      case DeliveryMode.INIT:
        this.#init();
        return;
      case DeliveryMode.STARTUP:
        this.#startUp(vector);
        return;
      default:
    }
  }
  nmi(): void {
    this.#nmiPending = true;
  }

  #init(): void {
    resetGuest(this);
    this.#event = null;
    this.apic.queue.reset();
    this.vcpu.halted = false;
    this.vcpu.waitsForStartup = this.vcpu.id !== 0;
  }
  /** Starts in real mode at page `vector`. */
  #startUp(vector: number): void {
    if (!this.vcpu.waitsForStartup) return;
    this.vcpu.waitsForStartup = false;
    writeSegment(this.vmcs, CS, {
      selector: vector << 8,
      base: BigInt(vector << 12),
      limit: 0xffff,
      ar: 0x9b,
    });
    this.vmcs.set("GUEST_RIP", 0n);
  }

  /** Bits of CR4 that the guest's CPUID does not offer. */
  reservedCr4 = 0n;
  /** The guest's CPUID has WAITPKG. */
  hasUserWait = false;
  afterSetCpuid(): void {
    const entry = findCpuid(this.vcpu.cpuid, 7, 0);
    this.hasUserWait = entry !== null && (entry.ecx & CPUID_WAITPKG) !== 0;
    enableUserWait(this.vmcs, this.hasUserWait);
    const has = (leaf: number, register: "ebx" | "ecx" | "edx", bit: number): boolean =>
      (((findCpuid(this.vcpu.cpuid, leaf, 0)?.[register] ?? 0) >>> bit) & 1) !== 0;
    enableSecondary(this.vmcs, PROC2.ENABLE_INVPCID, has(7, "ebx", 10));
    enableSecondary(this.vmcs, PROC2.ENABLE_RDTSCP, has(0x8000_0001, "edx", 27) || has(7, "ecx", 22));
    this.reservedCr4 = reservedCr4(this.vcpu.cpuid);
    interceptCr4(this.vmcs, this.reservedCr4);
  }
  hasInterrupt(): boolean {
    if (this.#nmiPending) return true;
    return this.apic.queue.pending() >= 0 && (this.vmcs.low(VMCS.GUEST_RFLAGS) & RFLAGS_IF) !== 0;
  }

  /** Makes an exception pending for the next entry. */
  raise(vector: number, errorCode = 0): void {
    const error = PUSHES_ERROR.includes(vector) ? errorCode : null;
    this.#event = { vector, type: EventType.EXCEPTION, errorCode: error, length: 0 };
  }

  /** One event at most goes in with the entry; windows are opened for those that have to wait. */
  #injectEvents(): void {
    const { vmcs } = this;
    const queue = this.apic.queue;
    let nmiWindow = false;
    let interruptWindow = false;
    const blocking = vmcs.low(VMCS.GUEST_INTERRUPTIBILITY_INFO);
    if (this.#event) {
      this.#inject(this.#event);
      this.#event = null;
      nmiWindow = this.#nmiPending;
      interruptWindow = queue.pending() >= 0;
    } else {
      let injected = false;
      if (this.#nmiPending) {
        if ((blocking & (BLOCKED.NMI | BLOCKED.STI | BLOCKED.MOV_SS)) === 0) {
          this.#nmiPending = false;
          injected = true;
          this.#inject({ vector: NMI_VECTOR, type: EventType.NMI, errorCode: null, length: 0 });
        } else nmiWindow = true;
      }
      if (queue.pending() >= 0) {
        const open =
          (vmcs.low(VMCS.GUEST_RFLAGS) & RFLAGS_IF) !== 0 &&
          (blocking & (BLOCKED.STI | BLOCKED.MOV_SS)) === 0;
        if (!injected && open)
          this.#inject({
            vector: queue.acknowledge(),
            type: EventType.INTERRUPT,
            errorCode: null,
            length: 0,
          });
        interruptWindow = queue.pending() >= 0;
      }
    }
    vmcs.change("CPU_BASED_VM_EXEC_CONTROL", PROC.NMI_WINDOW_EXITING, nmiWindow);
    vmcs.change("CPU_BASED_VM_EXEC_CONTROL", PROC.INTERRUPT_WINDOW_EXITING, interruptWindow);
  }

  #inject({ vector, type, errorCode, length }: PendingEvent): void {
    const { vmcs } = this;
    const error = errorCode !== null && (vmcs.get("GUEST_CR0") & 1n) !== 0n;
    if (error) vmcs.set("VM_ENTRY_EXCEPTION_ERROR_CODE", errorCode);
    if (type >= EventType.SOFTWARE_INTERRUPT) vmcs.set("VM_ENTRY_INSTRUCTION_LEN", length);
    const info = vector | (type << INFO.TYPE_SHIFT) | (error ? INFO.ERROR_CODE : 0) | INFO.VALID;
    vmcs.set("VM_ENTRY_INTR_INFO_FIELD", info >>> 0);
  }

  /** An exit during the delivery of an event: it is delivered again. */
  #requeue(): void {
    const { vmcs } = this;
    const info = vmcs.low(VMCS.IDT_VECTORING_INFO_FIELD);
    if ((info & INFO.VALID) === 0) return;
    const type = (info >> INFO.TYPE_SHIFT) & 7;
    this.#event = {
      vector: info & 0xff,
      type,
      errorCode: (info & INFO.ERROR_CODE) !== 0 ? Number(vmcs.get("IDT_VECTORING_ERROR_CODE")) : null,
      length: type >= EventType.SOFTWARE_INTERRUPT ? Number(vmcs.get("VM_EXIT_INSTRUCTION_LEN")) : 0,
    };
    // The NMI is not in service after all.
    if (type === EventType.NMI)
      vmcs.set("GUEST_INTERRUPTIBILITY_INFO", vmcs.get("GUEST_INTERRUPTIBILITY_INFO") & ~BigInt(BLOCKED.NMI));
  }

  // ---- Running

  completeExit(): RunResult {
    const { complete } = this;
    this.complete = null;
    return complete?.() ?? RunResult.CONTINUE;
  }

  run(): RunResult {
    if (this.pendingEoi >= 0) return this.#exitEoi();
    const { vmcs, lp } = this;
    vmcs.load();
    this.#injectEvents();
    this.registers.load();
    const outcome = vmcs.launched ? lp.vmresume() : lp.vmlaunch();
    this.registers.save();
    if (outcome.kind !== "exit") {
      const error = outcome.kind === "failValid" ? outcome.error : 0;
      return this.#failEntry(BigInt(error));
    }
    if (outcome.reason >= ENTRY_FAILED) return this.#failEntry(BigInt(outcome.reason));
    vmcs.launched = true;
    this.#requeue();
    return handleExit(this, outcome.reason & 0xffff);
  }

  #failEntry(reason: bigint): RunResult {
    const { view } = this.vcpu;
    view.setBigUint64(32, reason, true);
    view.setUint32(40, this.lp.index, true);
    return this.vcpu.exit(KvmExit.KVM_EXIT_FAIL_ENTRY);
  }
  #exitEoi(): RunResult {
    this.vcpu.view.setUint8(32, this.pendingEoi);
    this.pendingEoi = -1;
    return this.vcpu.exit(KvmExit.KVM_EXIT_IOAPIC_EOI);
  }

  /** The guest goes on behind the instruction that exited. */
  skip(length = this.vmcs.low(VMCS.VM_EXIT_INSTRUCTION_LEN)): void {
    const { vmcs } = this;
    const rip = vmcs.low(VMCS.GUEST_RIP) + length;
    const high = this.mode64 ? vmcs.high(VMCS.GUEST_RIP) + (rip > 0xffff_ffff ? 1 : 0) : 0;
    vmcs.setHalves(VMCS.GUEST_RIP, rip >>> 0, high >>> 0);
    const blocking = vmcs.low(VMCS.GUEST_INTERRUPTIBILITY_INFO);
    const cleared = blocking & ~(BLOCKED.STI | BLOCKED.MOV_SS);
    if (cleared !== blocking) vmcs.setHalves(VMCS.GUEST_INTERRUPTIBILITY_INFO, cleared);
  }

  /** The code segment is a 64-bit one. */
  get mode64(): boolean {
    return this.longMode && (this.vmcs.low(VMCS.GUEST_CS_AR_BYTES) & CS_L) !== 0;
  }
  get longMode(): boolean {
    return (this.vmcs.low(VMCS.GUEST_IA32_EFER) & LMA) !== 0;
  }
  /** Current privilege level. */
  get cpl(): number {
    return (this.vmcs.low(VMCS.GUEST_SS_AR_BYTES) >>> 5) & 3;
  }

  // ---- Guest memory

  /** Reads guest-physical memory; false: there is none at `gpa`. Does not cross a page. */
  readPhysical(gpa: number, target: Uint8Array): boolean {
    const slot = this.owner.vm.slots.find(Math.floor(gpa / PAGE_SIZE));
    if (!slot) return false;
    const page = sharedPage(slot, Math.floor(gpa / PAGE_SIZE));
    return this.lp.memRead((page * PAGE_SIZE + (gpa % PAGE_SIZE)) as HpaAndKeyId, target).kind === "ok";
  }
  writePhysical(gpa: number, source: Uint8Array): boolean {
    const slot = this.owner.vm.slots.find(Math.floor(gpa / PAGE_SIZE));
    if (!slot) return false;
    const page = sharedPage(slot, Math.floor(gpa / PAGE_SIZE));
    return this.lp.memWrite((page * PAGE_SIZE + (gpa % PAGE_SIZE)) as HpaAndKeyId, source).kind === "ok";
  }
  /** A linear address as a GPA; null: not mapped. */
  translate(gla: bigint): number | null {
    const { vmcs } = this;
    const state = {
      cr0: vmcs.get("GUEST_CR0"),
      cr3: vmcs.get("GUEST_CR3"),
      cr4: vmcs.get("GUEST_CR4"),
      efer: vmcs.get("GUEST_IA32_EFER"),
    };
    return translate(state, gla, (gpa, size) => {
      if (!this.readPhysical(gpa, this.#buffer.subarray(0, size))) return null;
      return size === 8 ? this.#view.getBigUint64(0, true) : BigInt(this.#view.getUint32(0, true));
    });
  }
  /** Reads or writes linear memory page by page. @returns bytes done before something was not mapped */
  accessLinear(gla: bigint, data: Uint8Array, write: boolean): number {
    let done = 0;
    while (done < data.length) {
      const gpa = this.translate(BigInt.asUintN(64, gla + BigInt(done)));
      if (gpa === null) return done;
      const part = data.subarray(done, Math.min(data.length, done + PAGE_SIZE - (gpa % PAGE_SIZE)));
      if (!(write ? this.writePhysical(gpa, part) : this.readPhysical(gpa, part))) return done;
      done += part.length;
    }
    return done;
  }

  /** Drops the guest's linear mappings, as a change of paging by the guest itself would. */
  flushGuest(): void {
    this.lp.invvpid(INVVPID_SINGLE, this.#vpid, 0n);
  }

  /** PAE paging without long mode: the four PDPTEs are in the VMCS. */
  loadPdptrs(): void {
    const { vmcs } = this;
    const cr0 = vmcs.get("GUEST_CR0");
    if ((cr0 & CR0_PG) === 0n || (readCr4(vmcs) & CR4_PAE) === 0n || this.longMode) return;
    const table = Number(vmcs.get("GUEST_CR3") & 0xffff_ffe0n);
    const entries = new Uint8Array(32);
    if (!this.readPhysical(table, entries)) return;
    const view = new DataView(entries.buffer);
    (["GUEST_PDPTR0", "GUEST_PDPTR1", "GUEST_PDPTR2", "GUEST_PDPTR3"] as const).forEach((field, i) =>
      vmcs.set(field, view.getBigUint64(8 * i, true)),
    );
  }

  /** The low bits of a register as an instruction's operand. */
  gpr(number: number): bigint {
    return number === Gpr.RSP ? this.vmcs.get("GUEST_RSP") : this.registers.gprs[number];
  }
  setGpr(number: number, value: bigint): void {
    if (number === Gpr.RSP) this.vmcs.set("GUEST_RSP", value);
    else this.registers.gprs[number] = value;
  }
  setCr2(gla: bigint): void {
    this.registers.set(REG.CR2, gla);
  }
  /** XCR0 of the guest. */
  get xcr0(): bigint {
    return this.registers.get(REG.XCR0);
  }

  free(): void {
    if (this.#page === null) return;
    this.vmcs.clear();
    this.registers.forget();
    const { host } = this.owner.vm.process;
    host.pages.freePage(this.#page);
    vpids.get(host)?.delete(this.#vpid);
    this.#page = null;
  }
}
