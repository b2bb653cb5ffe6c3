/**
 * Interrupts of a guest: external-interrupt and NMI exiting, windows, the preemption timer, posted interrupts and
 * virtual-interrupt delivery with the virtual-APIC page. Intel SDM vol. 3C sections 26.2, 27.7, 30 (APIC
 * virtualization and virtual interrupts).
 */
import { REG, Vector } from "@swtdx/x86";
import { Step } from "../interface/engine.js";
import { EXIT, ExitReason, PIN, PREEMPTION_TIMER_SHIFT, PROC, PROC2 } from "../vmx/controls.js";
import { VMCS } from "../vmx/fields.js";
import { EventType, GuestEvents } from "./events.js";

/** Registers in the virtual-APIC page. */
const VTPR = 0x80;
const VPPR = 0xa0;
const VISR = 0x100;
const VIRR = 0x200;

/** Nothing can ever wake this logical processor: it idles with no timer, and nobody else runs. */
export class ProcessorIdle extends Error {
  override readonly name = "ProcessorIdle";
}

export abstract class GuestInterrupts extends GuestEvents {
  /** Guest interrupt status: requesting and servicing virtual interrupt. */
  rvi = 0;
  svi = 0;
  /** A virtual interrupt is recognized as pending. */
  #virtualPending = false;
  readonly #pir = new Uint8Array(64);
  readonly #pirView = new DataView(this.#pir.buffer);

  // ---- Virtual-APIC page

  protected vapicRead(at: number): number {
    const { phys } = this;
    phys.split(this.v.addr(VMCS.VIRTUAL_APIC_PAGE_ADDR) + at - (at % 8));
    phys.readQ(phys.hpa, phys.keyId, this.td);
    return at % 8 === 4 ? phys.hi : phys.lo;
  }
  protected vapicWrite(at: number, value: number): void {
    const { phys } = this;
    phys.split(this.v.addr(VMCS.VIRTUAL_APIC_PAGE_ADDR) + at - (at % 8));
    const { hpa, keyId } = phys;
    phys.readQ(hpa, keyId, this.td);
    if (at % 8 === 4) phys.writeQ(hpa, keyId, phys.lo, value >>> 0, this.td);
    else phys.writeQ(hpa, keyId, value >>> 0, phys.hi, this.td);
  }
  #setBit(register: number, vector: number, on: boolean): void {
    const at = register + (vector >>> 5) * 16;
    const bit = 1 << (vector & 31);
    const value = this.vapicRead(at);
    this.vapicWrite(at, on ? value | bit : value & ~bit);
  }
  #highest(register: number): number {
    for (let word = 7; word >= 0; word--) {
      const bits = this.vapicRead(register + word * 16);
      if (bits !== 0) return word * 32 + 31 - Math.clz32(bits);
    }
    return 0;
  }
  /** PPR virtualization. */
  #updatePpr(): void {
    const vtpr = this.vapicRead(VTPR) & 0xff;
    this.vapicWrite(VPPR, vtpr >>> 4 >= this.svi >>> 4 ? vtpr : this.svi & 0xf0);
  }
  /** Evaluation of pending virtual interrupts. */
  protected evaluate(): void {
    this.#virtualPending =
      (this.proc & PROC.INTERRUPT_WINDOW_EXITING) === 0 &&
      this.rvi >>> 4 > (this.vapicRead(VPPR) & 0xff) >>> 4;
    if (this.#virtualPending) this.attention = true;
  }
  /** At VM entry with virtual-interrupt delivery. */
  protected startVirtualInterrupts(status: number): void {
    this.#virtualPending = false;
    if ((this.proc2 & PROC2.VIRTUAL_INTERRUPT_DELIVERY) === 0) return;
    this.rvi = status & 0xff;
    this.svi = status >>> 8;
    this.#updatePpr();
    this.evaluate();
  }
  /** TPR virtualization: MOV to CR8, WRMSR of 0x808. */
  protected tprWritten(value: number): Step {
    this.vapicWrite(VTPR, value);
    if ((this.proc2 & PROC2.VIRTUAL_INTERRUPT_DELIVERY) !== 0) {
      this.#updatePpr();
      this.evaluate();
      return Step.DONE;
    }
    const threshold = this.v.lo(VMCS.TPR_THRESHOLD) & 0xf;
    if (value >>> 4 < threshold) this.#tprBelow = true;
    if (this.#tprBelow) this.attention = true;
    return Step.DONE;
  }
  #tprBelow = false;
  /** EOI virtualization. The exit is trap-like: after the instruction. */
  protected eoiWritten(): void {
    const vector = this.svi;
    this.#setBit(VISR, vector, false);
    this.svi = this.#highest(VISR);
    this.#updatePpr();
    const word = VMCS.EOI_EXIT_BITMAP0 + (vector >>> 6) * 2;
    const bits = (vector & 32) !== 0 ? this.v.hi(word) : this.v.lo(word);
    if ((bits & (1 << (vector & 31))) !== 0) {
      this.#eoiExit = vector;
      this.attention = true;
    } else this.evaluate();
  }
  #eoiExit = -1;
  /** Self-IPI virtualization. */
  protected selfIpi(vector: number): void {
    this.#setBit(VIRR, vector, true);
    if (vector > this.rvi) this.rvi = vector;
    this.evaluate();
  }

  /** Posted-interrupt processing. @returns false when the descriptor cannot be read */
  #processPosted(): boolean {
    const { phys } = this;
    phys.split(this.v.addr(VMCS.POSTED_INTR_DESC_ADDR));
    const { hpa, keyId } = phys;
    if (phys.read(hpa, keyId, this.#pir, false) !== 0) return false;
    // Outstanding notification, bit 256, and the requests are taken.
    this.#pir[32] &= ~1;
    let highest = -1;
    for (let word = 0; word < 8; word++) {
      const bits = this.#pirView.getUint32(word * 4, true);
      if (bits === 0) continue;
      this.vapicWrite(VIRR + word * 16, this.vapicRead(VIRR + word * 16) | bits);
      highest = word * 32 + 31 - Math.clz32(bits);
      this.#pirView.setUint32(word * 4, 0, true);
    }
    phys.write(hpa, keyId, this.#pir, false);
    if (highest > this.rvi) this.rvi = highest;
    this.evaluate();
    return true;
  }

  // ---- Between instructions

  protected startTimers(): void {
    this.preemptAt = Infinity;
    if ((this.pin & PIN.PREEMPTION_TIMER) !== 0) {
      const unit = 2 ** PREEMPTION_TIMER_SHIFT;
      this.preemptAt =
        (Math.floor(this.host.ticks / unit) + this.v.lo(VMCS.VMX_PREEMPTION_TIMER_VALUE)) * unit;
    }
    this.#tprBelow = false;
    this.#eoiExit = -1;
    this.attention = true;
    this.schedule();
  }
  /** What is left of the preemption timer, for an exit that saves it. */
  protected preemptionLeft(): number {
    if (this.preemptAt === Infinity) return 0;
    return Math.max(0, Math.floor((this.preemptAt - this.host.ticks) / 2 ** PREEMPTION_TIMER_SHIFT));
  }

  windowAwaited = false;
  nmiAwaited = false;

  poll(): Step {
    for (;;) {
      const step = this.#pollOnce();
      if (step !== Step.DONE) {
        if (step === Step.EVENT) this.regs.set32(REG.ACTIVITY, 0);
        // Something may still be pending behind what was taken.
        this.attention = true;
        return step;
      }
      if (this.regs.get32(REG.ACTIVITY) === 0) {
        this.attention = false;
        this.windowAwaited =
          this.#virtualPending ||
          (this.proc & PROC.INTERRUPT_WINDOW_EXITING) !== 0 ||
          this.host.apic.highest() >= 0;
        this.nmiAwaited =
          (this.regs.get32(REG.INTERRUPTIBILITY) & 2) !== 0 &&
          (this.host.apic.nmi || (this.proc & PROC.NMI_WINDOW_EXITING) !== 0);
        return Step.DONE;
      }
      // Halted: time passes to the next timer.
      if (this.nextTick === Infinity)
        throw new ProcessorIdle(`logical processor ${this.host.index} halted with nothing to wake it`);
      if (this.host.ticks < this.nextTick) this.host.ticks = this.nextTick;
    }
  }

  #pollOnce(): Step {
    const { host, regs } = this;
    const { apic } = host;
    apic.tick(host.ticks);
    this.schedule();
    const activity = regs.get32(REG.ACTIVITY);
    if (apic.init) {
      apic.init = false;
      return this.exit(ExitReason.INIT);
    }
    if (this.#eoiExit >= 0) {
      const vector = this.#eoiExit;
      this.#eoiExit = -1;
      return this.exit(ExitReason.VIRTUALIZED_EOI, vector);
    }
    if (this.#tprBelow) {
      this.#tprBelow = false;
      return this.exit(ExitReason.TPR_BELOW_THRESHOLD);
    }
    const blocking = regs.get32(REG.INTERRUPTIBILITY);
    if (apic.nmi && activity !== 3) {
      const virtual = (this.pin & PIN.VIRTUAL_NMIS) !== 0;
      if ((this.pin & PIN.NMI_EXITING) !== 0) {
        if (virtual || (blocking & 8) === 0) {
          apic.nmi = false;
          return this.exitByEvent(ExitReason.EXCEPTION_OR_NMI, Vector.NMI, EventType.NMI, -1, 0, 0);
        }
      } else if ((blocking & 0xa) === 0) {
        apic.nmi = false;
        regs.set32(REG.INTERRUPTIBILITY, blocking | 8);
        this.setEvent(Vector.NMI, EventType.NMI, -1);
        return Step.EVENT;
      }
    }
    if (host.ticks >= this.preemptAt) return this.exit(ExitReason.PREEMPTION_TIMER);
    if ((this.proc & PROC.NMI_WINDOW_EXITING) !== 0 && (blocking & 0xa) === 0 && activity !== 3)
      return this.exit(ExitReason.NMI_WINDOW);
    const vector = apic.highest();
    if (vector >= 0 && activity !== 3) {
      if (
        (this.pin & PIN.PROCESS_POSTED_INTERRUPTS) !== 0 &&
        vector === (this.v.lo(VMCS.POSTED_INTR_NV) & 0xff)
      ) {
        apic.clear(vector);
        if (!this.#processPosted()) return this.structureFailed();
        return this.#pollOnce();
      }
      if ((this.pin & PIN.EXTERNAL_INTERRUPT_EXITING) !== 0) {
        if ((this.exitControls & EXIT.ACK_INTERRUPT) === 0) return this.exit(ExitReason.EXTERNAL_INTERRUPT);
        apic.clear(vector);
        return this.exitByEvent(ExitReason.EXTERNAL_INTERRUPT, vector, EventType.EXTERNAL, -1, 0, 0);
      }
      if (this.interruptible()) {
        apic.clear(vector);
        this.setEvent(vector, EventType.EXTERNAL, -1);
        return Step.EVENT;
      }
    }
    if ((this.proc & PROC.INTERRUPT_WINDOW_EXITING) !== 0 && this.interruptible() && activity <= 1)
      return this.exit(ExitReason.INTERRUPT_WINDOW);
    if (this.#virtualPending && this.interruptible() && activity <= 1) {
      const taken = this.rvi;
      this.#setBit(VISR, taken, true);
      this.svi = taken;
      this.vapicWrite(VPPR, taken & 0xf0);
      this.#setBit(VIRR, taken, false);
      this.rvi = this.#highest(VIRR);
      this.#virtualPending = false;
      this.setEvent(taken, EventType.EXTERNAL, -1);
      return Step.EVENT;
    }
    return Step.DONE;
  }
}
