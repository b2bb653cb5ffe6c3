/**
 * Exceptions, interrupts and VM exits of a guest: what becomes an exit, what a #VE, what the guest sees itself.
 * Intel SDM vol. 3C sections 26.2 (exception bitmap), 26.5.7 (virtualization exceptions), 28.2 (exit information),
 * vol. 3A chapter 6 (delivery).
 */
import type { Trace } from "@swtdx/abi";
import { REG, type RegisterFile, Vector } from "@swtdx/x86";
import { Step } from "../interface/engine.js";
import type { LocalApic } from "../apic/local-apic.js";
import { EPT_R, EPT_W, EPT_X, EPT_XU } from "../memory/ept.js";
import type { PhysicalMemory } from "../memory/physical.js";
import { EXIT_REASON_NAMES, ExitReason, PROC2 } from "../vmx/controls.js";
import { VMCS } from "../vmx/fields.js";
import type { Vmcs } from "../vmx/vmcs.js";
import { GuestMemory, MemFail } from "./memory.js";
import { PostMortem } from "./post-mortem.js";

/** Event types of VM-entry and VM-exit interruption information. */
export const EventType = {
  EXTERNAL: 0,
  NMI: 2,
  EXCEPTION: 3,
  SOFTWARE: 4,
  PRIVILEGED: 5,
  SOFTWARE_EXCEPTION: 6,
} as const;

/** Ticks of a VM exit and the entry after it, about as many as server parts take. */
const VM_EXIT_TICKS = 1200;

/** What the guest needs of its logical processor. */
export interface GuestHost {
  readonly index: number;
  readonly trace: Trace;
  readonly apic: LocalApic;
  /** Clock ticks: instructions retired and time let pass. */
  ticks: number;
  /** Records a machine check at an HPA in the banks. */
  machineCheck(hpa: number, fetch: boolean): void;
}

export abstract class GuestEvents extends GuestMemory {
  attention = false;
  /** The VMCS the guest runs under. */
  protected v!: Vmcs;
  /** Controls, read at VM entry. */
  pin = 0;
  proc = 0;
  proc2 = 0;
  proc3 = 0;
  exitControls = 0;
  exceptionBitmap = 0;
  /** The guest was entered from SEAM root mode: a TD. */
  td = false;
  /** A VM exit has been recorded. */
  exited = false;
  /** An event is being delivered: reported in IDT-vectoring information by an exit meanwhile. */
  protected delivering = false;
  readonly postMortem = new PostMortem();
  /** Clock tick at which `poll` has something to do. */
  protected nextTick = Infinity;
  /** Clock tick of the preemption timer, Infinity when it is off. */
  protected preemptAt = Infinity;

  constructor(
    regs: RegisterFile,
    phys: PhysicalMemory,
    protected readonly host: GuestHost,
  ) {
    super(regs, phys);
  }
  get lpIndex(): number {
    return this.host.index;
  }
  get vmcs(): number {
    return this.v.identity;
  }

  retire(count: number): void {
    const { regs, host } = this;
    const low = regs.get32(REG.INSTRUCTIONS) + count;
    regs.set32(REG.INSTRUCTIONS, low);
    if (low > 0xffffffff) regs.set32(REG.INSTRUCTIONS + 4, regs.get32(REG.INSTRUCTIONS + 4) + 1);
    host.ticks += count;
    if (host.ticks >= this.nextTick) this.attention = true;
    // The shadow of STI and MOV SS covers one instruction.
    if (this.#shadow) {
      this.#shadow = false;
      regs.set32(REG.INTERRUPTIBILITY, regs.get32(REG.INTERRUPTIBILITY) & ~3);
      this.attention = true;
    }
  }
  #shadow = false;
  /** Time that an instruction or a transition takes beyond its one tick. */
  protected spend(ticks: number): void {
    this.host.ticks += ticks;
    if (this.host.ticks >= this.nextTick) this.attention = true;
  }
  /** STI (1) or MOV SS (2) blocks interrupts for the next instruction. To be called after `retire` of it. */
  blockBy(bit: 1 | 2): void {
    this.regs.set32(REG.INTERRUPTIBILITY, this.regs.get32(REG.INTERRUPTIBILITY) | bit);
    this.#shadow = true;
  }
  protected armShadow(): void {
    this.#shadow = (this.regs.get32(REG.INTERRUPTIBILITY) & 3) !== 0;
  }
  budget(): number {
    const left = this.nextTick - this.host.ticks;
    return left > 0x7fffffff ? 0x7fffffff : Math.max(left, 1);
  }
  protected schedule(): void {
    this.nextTick = Math.min(this.host.apic.deadline, this.preemptAt);
  }

  // ---- VM exits

  /** Records a VM exit. The engine returns from `run`; the processor saves guest state. */
  exit(reason: number, qualification = 0, length = 0): Step {
    const { v } = this;
    v.set(VMCS.VM_EXIT_REASON, reason >>> 0);
    v.setAddr(VMCS.EXIT_QUALIFICATION, qualification);
    v.set(VMCS.VM_EXIT_INSTRUCTION_LEN, length);
    v.set(VMCS.VM_EXIT_INTR_INFO, 0);
    if (this.delivering) {
      const { event } = this;
      v.set(
        VMCS.IDT_VECTORING_INFO_FIELD,
        (0x80000000 | event.vector | (event.type << 8) | (event.hasErrorCode ? 0x800 : 0)) >>> 0,
      );
      if (event.hasErrorCode) v.set(VMCS.IDT_VECTORING_ERROR_CODE, event.errorCode);
      if (event.type >= 4) v.set(VMCS.VM_EXIT_INSTRUCTION_LEN, event.length);
    } else v.set(VMCS.IDT_VECTORING_INFO_FIELD, 0);
    this.delivering = false;
    this.exited = true;
    this.spend(VM_EXIT_TICKS);
    if (this.host.trace.on.VMEXIT)
      this.host.trace.emit({
        type: "VMEXIT",
        lp: this.host.index,
        reason,
        name: EXIT_REASON_NAMES[reason & 0xffff] ?? `${reason}`,
        qualification: v.get(VMCS.EXIT_QUALIFICATION),
        rip: this.regs.get(REG.RIP),
      });
    return Step.EXIT;
  }
  /** To be called when the engine is back, and the exit's fields are complete. */
  exitDone(): void {
    this.postMortem.recordExit(this.v, this.regs);
  }
  /** The exit has a 64-bit quantity in the guest-linear-address field. */
  protected setGla(low: number, high: number): void {
    this.v.set(VMCS.GUEST_LINEAR_ADDRESS, low, high);
  }
  /** Exit because of an exception or NMI (reason 0) or an acknowledged interrupt (1). */
  protected exitByEvent(
    reason: number,
    vector: number,
    type: number,
    errorCode: number,
    qualificationLow: number,
    qualificationHigh: number,
    length = 0,
  ): Step {
    this.exit(reason, 0, length);
    const hasError = errorCode >= 0;
    this.v.set(VMCS.EXIT_QUALIFICATION, qualificationLow, qualificationHigh);
    this.v.set(VMCS.VM_EXIT_INTR_INFO, (0x80000000 | vector | (type << 8) | (hasError ? 0x800 : 0)) >>> 0);
    if (hasError) this.v.set(VMCS.VM_EXIT_INTR_ERROR_CODE, errorCode);
    return Step.EXIT;
  }

  // ---- Exceptions

  raise(vector: number, errorCode = -1): Step {
    return this.exception(vector, errorCode, 0, 0);
  }
  /** @param addressLow of a #PF: CR2 */
  protected exception(vector: number, errorCode: number, addressLow: number, addressHigh: number): Step {
    // #AC, #DF, #GP, … push an error code only in protected mode.
    if ((this.regs.get32(REG.CR0) & 1) === 0) errorCode = -1;
    let exits = (this.exceptionBitmap & (1 << vector)) !== 0;
    if (vector === Vector.PF) {
      const match = (errorCode & this.v.lo(VMCS.PAGE_FAULT_ERROR_CODE_MASK)) >>> 0;
      if (match !== this.v.lo(VMCS.PAGE_FAULT_ERROR_CODE_MATCH)) exits = !exits;
    }
    if (exits)
      return this.exitByEvent(
        ExitReason.EXCEPTION_OR_NMI,
        vector,
        EventType.EXCEPTION,
        errorCode,
        addressLow,
        addressHigh,
      );
    if (this.delivering) return this.#nested(vector, errorCode, addressLow, addressHigh);
    if (vector === Vector.PF) {
      this.regs.set32(REG.CR2, addressLow);
      this.regs.set32(REG.CR2 + 4, addressHigh);
    }
    this.setEvent(vector, EventType.EXCEPTION, errorCode);
    if (this.host.trace.on.EXCEPTION)
      this.host.trace.emit({
        type: "EXCEPTION",
        lp: this.host.index,
        vector,
        errorCode: errorCode < 0 ? null : errorCode,
        rip: this.regs.get(REG.RIP),
      });
    return Step.EVENT;
  }
  /** An exception while another is delivered: both in turn, #DF, or shutdown. SDM vol. 3A table 6-5. */
  #nested(vector: number, errorCode: number, addressLow: number, addressHigh: number): Step {
    const first = this.event.vector;
    const firstException = this.event.type === EventType.EXCEPTION;
    const contributory = (v: number): boolean => v === 0 || (v >= 10 && v <= 13) || v === Vector.CP;
    if (firstException && first === Vector.DF) return this.tripleFault();
    const double =
      firstException &&
      ((contributory(first) && contributory(vector)) ||
        ((first === Vector.PF || first === Vector.VE) &&
          (contributory(vector) || vector === Vector.PF || vector === Vector.VE)));
    this.delivering = false;
    if (double) return this.exception(Vector.DF, 0, 0, 0);
    return this.exception(vector, errorCode, addressLow, addressHigh);
  }
  protected setEvent(vector: number, type: number, errorCode: number, length = 0): void {
    const { event } = this;
    event.vector = vector;
    event.type = type;
    event.hasErrorCode = errorCode >= 0;
    event.errorCode = errorCode >= 0 ? errorCode : 0;
    event.length = length;
  }
  /** The engine begins (true) or has finished delivering `event` by its own means. */
  setDelivering(on: boolean): void {
    this.delivering = on;
  }
  /** No handler can be reached: shutdown, which exits. */
  tripleFault(): Step {
    this.postMortem.recordShutdown(this.regs, (gla, target) => this.peek(gla, target));
    return this.exit(ExitReason.TRIPLE_FAULT);
  }

  // ---- Memory

  protected memoryFailed(): Step {
    switch (this.fail) {
      case MemFail.NOT_CANONICAL:
        return this.exception(Vector.GP, 0, 0, 0);
      case MemFail.PAGE_FAULT:
        return this.exception(Vector.PF, this.paging.errorCode, this.failGlaLow, this.failGlaHigh);
      case MemFail.EPT_VIOLATION:
        return this.#eptViolation();
      case MemFail.EPT_MISCONFIG:
        this.v.setAddr(VMCS.GUEST_PHYSICAL_ADDRESS, this.failGpa);
        return this.exit(ExitReason.EPT_MISCONFIG);
      default: {
        this.host.machineCheck(this.phys.faultHpa, this.failAccess === 16);
        return this.exception(Vector.MC, -1, 0, 0);
      }
    }
  }

  /** Exit qualification of the failed access, SDM table 28-7. */
  #violationQualification(): number {
    const { ept, failAccess, failInWalk, paging } = this;
    const rights = ept.rights;
    let q = failAccess === 2 ? 2 : failAccess === 16 ? 4 : 1;
    if (failInWalk && this.eptRoot?.accessedDirty) q |= 3;
    if (rights & EPT_R) q |= 0x08;
    if (rights & EPT_W) q |= 0x10;
    if (rights & EPT_X) q |= 0x20;
    if (rights & EPT_XU) q |= 0x40;
    q |= 0x80;
    if (failInWalk) return q;
    q |= 0x100;
    if (this.mode.levels !== 0) {
      if (paging.user) q |= 0x200;
      if (paging.writable) q |= 0x400;
      if (!paging.executable) q |= 0x800;
    } else q |= 0x600;
    return q;
  }
  #eptViolation(): Step {
    const qualification = this.#violationQualification();
    if (
      (this.proc2 & PROC2.EPT_VIOLATION_VE) !== 0 &&
      !this.ept.suppressVe &&
      (this.regs.get32(REG.CR0) & 1) !== 0 &&
      !this.delivering
    ) {
      const step = this.#virtualizationException(qualification);
      if (step !== Step.DONE) return step;
    }
    const { v } = this;
    const nmi = this.delivering ? 0 : this.nmiUnblocking;
    v.setAddr(VMCS.GUEST_PHYSICAL_ADDRESS, this.failGpa);
    this.setGla(this.failGlaLow, this.failGlaHigh);
    return this.exit(ExitReason.EPT_VIOLATION, qualification | nmi);
  }
  /** Set by an engine while IRET with NMI unblocking executes. */
  nmiUnblocking = 0;

  /** Writes the virtualization-exception information area. DONE: it is in use, the violation exits. */
  #virtualizationException(qualification: number): Step {
    const { phys, v } = this;
    phys.split(v.addr(VMCS.VE_INFORMATION_ADDRESS));
    const { hpa, keyId } = phys;
    if (phys.readQ(hpa, keyId, this.td) !== 0) return this.#structureFailed();
    if (phys.hi !== 0) return Step.DONE;
    phys.writeQ(hpa, keyId, ExitReason.EPT_VIOLATION, 0xffffffff, this.td);
    phys.writeQ(hpa + 8, keyId, qualification, 0, this.td);
    phys.writeQ(hpa + 16, keyId, this.failGlaLow, this.failGlaHigh, this.td);
    phys.writeQ(
      hpa + 24,
      keyId,
      this.failGpa % 0x1_0000_0000,
      Math.floor(this.failGpa / 0x1_0000_0000),
      this.td,
    );
    // EPTP index: 16 bits, what is behind it keeps its bytes.
    phys.readQ(hpa + 32, keyId, this.td);
    const low = ((phys.lo & 0xffff0000) | (v.lo(VMCS.EPTP_INDEX) & 0xffff)) >>> 0;
    phys.writeQ(hpa + 32, keyId, low, phys.hi, this.td);
    if (this.host.trace.on.VE)
      this.host.trace.emit({
        type: "VE",
        lp: this.host.index,
        reason: ExitReason.EPT_VIOLATION,
        name: "EPT_VIOLATION",
        gpa: this.failGpa,
        gla: (BigInt(this.failGlaHigh) << 32n) | BigInt(this.failGlaLow),
      });
    return this.exception(Vector.VE, -1, 0, 0);
  }
  /** A control structure of the VMCS could not be read: machine check. */
  #structureFailed(): Step {
    this.host.machineCheck(this.phys.faultHpa, false);
    return this.exception(Vector.MC, -1, 0, 0);
  }
  protected structureFailed(): Step {
    return this.#structureFailed();
  }

  /** Whether interrupts can be taken: RFLAGS.IF and no shadow. */
  protected interruptible(): boolean {
    return (this.regs.get32(REG.RFLAGS) & 0x200) !== 0 && (this.regs.get32(REG.INTERRUPTIBILITY) & 3) === 0;
  }
}
