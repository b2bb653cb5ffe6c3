/**
 * The in-kernel local APIC of a vCPU, in x2APIC mode: what is not virtualised by the processor (timer, ICR, LVT, ID).
 * Interrupts for the guest go to `post`, since only posted interrupts reach a TD.
 * Source: Intel SDM vol. 3A ch. 11 (APIC), Linux arch/x86/kvm/lapic.c.
 */

import { type ApicMessage, icrMessage } from "./apic-bus.js";

/** Registers by offset from MSR 0x800. */
const REG = {
  ID: 0x02,
  VERSION: 0x03,
  LDR: 0x0d,
  SVR: 0x0f,
  ESR: 0x28,
  ICR: 0x30,
  LVT_TIMER: 0x32,
  LVT_THERMAL: 0x33,
  LVT_PERF: 0x34,
  LVT_LINT0: 0x35,
  LVT_LINT1: 0x36,
  LVT_ERROR: 0x37,
  TMICT: 0x38,
  TMCCT: 0x39,
  TDCR: 0x3e,
  SELF_IPI: 0x3f,
} as const;
/** Integrated APIC, version 0x14, six LVT entries. */
const VERSION = 0x5_0014;
const LVT_MASKED = 1 << 16;
const TIMER_MODE_SHIFT = 17;
const TimerMode = { ONE_SHOT: 0, PERIODIC: 1, TSC_DEADLINE: 2 } as const;
const SVR_ENABLED = 1 << 8;
const SVR_MASK = 0x3ff;
/** Reserved bits of the low half of an x2APIC's ICR, which must be zero. */
const ICR_RESERVED = 0xfff3_2000;
/** Bits that the entries of the local vector table have (apic_lvt_mask); there is none for CMCI. */
const LVT_MASK: ReadonlyMap<number, number> = new Map([
  [REG.LVT_TIMER, 0x7_10ff],
  [REG.LVT_THERMAL, 0x1_17ff],
  [REG.LVT_PERF, 0x1_17ff],
  [REG.LVT_LINT0, 0x1_f7ff],
  [REG.LVT_LINT1, 0x1_f7ff],
  [REG.LVT_ERROR, 0x1_10ff],
]);
export const IA32_TSC_DEADLINE = 0x6e0;

export interface LapicHost {
  /** Nanoseconds of host time. */
  now(): number;
  /** The guest's TSC now. */
  guestTsc(): bigint;
  /** Host time in ns at which the guest's TSC reaches a value. */
  timeOfGuestTsc(tsc: bigint): number;
  /** Makes an interrupt pending for this vCPU's guest. */
  post(vector: number): void;
  /** Sends an IPI. */
  send(message: ApicMessage): void;
}

export class Lapic {
  readonly #regs = new Uint32Array(0x40);
  #icrHigh = 0;
  /** Host time in ns at which the timer fires; Infinity: not armed. */
  deadline = Infinity;
  #tscDeadline = 0n;
  #started = 0;

  constructor(
    readonly id: number,
    /** Length of a bus cycle in ns. */
    private readonly busCycle: () => number,
    private readonly host: LapicHost,
  ) {
    this.#regs[REG.ID] = id;
    this.#regs[REG.VERSION] = VERSION;
    this.#regs[REG.LDR] = ((id >>> 4) << 16) | (1 << (id & 15));
    this.#regs[REG.SVR] = 0xff;
    for (const lvt of [
      REG.LVT_TIMER,
      REG.LVT_THERMAL,
      REG.LVT_PERF,
      REG.LVT_LINT0,
      REG.LVT_LINT1,
      REG.LVT_ERROR,
    ])
      this.#regs[lvt] = LVT_MASKED;
  }

  /** Logical x2APIC ID. */
  get ldr(): number {
    return this.#regs[REG.LDR];
  }
  /** SVR bit 8: the local APIC takes interrupts. */
  get enabled(): boolean {
    return (this.#regs[REG.SVR] & SVR_ENABLED) !== 0;
  }
  /** A register as it stands, for KVM_GET_LAPIC. */
  raw(reg: number): number {
    return this.#regs[reg] ?? 0;
  }

  get #mode(): number {
    return (this.#regs[REG.LVT_TIMER] >>> TIMER_MODE_SHIFT) & 3;
  }
  /** Divisor of the timer. */
  get #divisor(): number {
    const value = this.#regs[REG.TDCR];
    return 1 << ((((value & 3) | ((value >> 1) & 4)) + 1) & 7);
  }
  #period(): number {
    return this.#regs[REG.TMICT] * this.#divisor * this.busCycle();
  }

  /** RDMSR; null: there is no such register. */
  read(msr: number): bigint | null {
    if (msr === IA32_TSC_DEADLINE) return this.#tscDeadline;
    const reg = msr - 0x800;
    switch (reg) {
      case REG.ICR:
        return BigInt(this.#regs[REG.ICR]) | (BigInt(this.#icrHigh) << 32n);
      case REG.TMCCT:
        return BigInt(this.#currentCount());
      case REG.ID:
      case REG.VERSION:
      case REG.LDR:
      case REG.SVR:
      case REG.ESR:
      case REG.LVT_TIMER:
      case REG.LVT_THERMAL:
      case REG.LVT_PERF:
      case REG.LVT_LINT0:
      case REG.LVT_LINT1:
      case REG.LVT_ERROR:
      case REG.TMICT:
      case REG.TDCR:
        return BigInt(this.#regs[reg]);
      default:
        return null;
    }
  }

  /** What an entry of the local vector table becomes: all are masked while the APIC is disabled by software. */
  #lvt(reg: number, value: number): number {
    return (value & LVT_MASK.get(reg)!) | (this.enabled ? 0 : LVT_MASKED);
  }

  #currentCount(): number {
    if (this.deadline === Infinity || this.#mode === TimerMode.TSC_DEADLINE) return 0;
    return Math.max(0, Math.floor((this.deadline - this.host.now()) / (this.#divisor * this.busCycle())));
  }

  /** WRMSR. @returns false: there is no such register, not for writing, or not with this value */
  write(msr: number, value: bigint): boolean {
    if (msr === IA32_TSC_DEADLINE) {
      if (this.#mode === TimerMode.TSC_DEADLINE) this.#armTscDeadline(value);
      return true;
    }
    const reg = msr - 0x800;
    const low = Number(value & 0xffff_ffffn);
    if (reg === REG.ICR ? (low & ICR_RESERVED) !== 0 : value > 0xffff_ffffn) return false;
    if (reg === REG.ESR && low !== 0) return false;
    if (reg === REG.SELF_IPI && low > 0xff) return false;
    return this.writeRegister(reg, low, Number(value >> 32n));
  }

  /** A write to a register (by its offset from MSR 0x800), by whatever way. @param high of the ICR */
  writeRegister(reg: number, low: number, high = 0): boolean {
    switch (reg) {
      case REG.ICR:
        this.#regs[REG.ICR] = low;
        this.#icrHigh = high;
        this.host.send(icrMessage(low, this.#icrHigh));
        return true;
      case REG.SELF_IPI:
        this.host.post(low & 0xff);
        return true;
      case REG.LVT_TIMER: {
        const mode = this.#mode;
        this.#regs[reg] = this.#lvt(reg, low);
        // A count goes on in the other mode, except into and out of deadlines.
        if (
          this.#mode !== mode &&
          (mode === TimerMode.TSC_DEADLINE || this.#mode === TimerMode.TSC_DEADLINE)
        ) {
          this.#regs[REG.TMICT] = 0;
          this.deadline = Infinity;
        }
        return true;
      }
      case REG.TMICT:
        this.#regs[reg] = low;
        if (this.#mode === TimerMode.TSC_DEADLINE) return true;
        this.#started = this.host.now();
        this.deadline = low === 0 ? Infinity : this.#started + this.#period();
        return true;
      case REG.ESR:
        this.#regs[reg] = 0;
        return true;
      case REG.TDCR:
        this.#changeDivisor(low);
        return true;
      case REG.SVR:
        this.#regs[reg] = low & SVR_MASK;
        if (!this.enabled) for (const lvt of LVT_MASK.keys()) this.#regs[lvt] |= LVT_MASKED;
        return true;
      case REG.LVT_THERMAL:
      case REG.LVT_PERF:
      case REG.LVT_LINT0:
      case REG.LVT_LINT1:
      case REG.LVT_ERROR:
        this.#regs[reg] = this.#lvt(reg, low);
        return true;
      default:
        return false;
    }
  }

  /** A running timer goes on with the new divisor. */
  #changeDivisor(value: number): void {
    const count = this.#currentCount();
    this.#regs[REG.TDCR] = value & 0xb;
    if (this.deadline !== Infinity && this.#mode !== TimerMode.TSC_DEADLINE)
      this.deadline = this.host.now() + count * this.#divisor * this.busCycle();
  }

  #armTscDeadline(value: bigint): void {
    this.#tscDeadline = value;
    this.deadline = value === 0n ? Infinity : this.host.timeOfGuestTsc(value);
  }

  /** Fires the timer if it is due. */
  tick(): void {
    const now = this.host.now();
    if (now < this.deadline) return;
    const mode = this.#mode;
    if (mode === TimerMode.PERIODIC) {
      const period = Math.max(this.#period(), 1);
      this.deadline += period * Math.max(1, Math.ceil((now - this.deadline + 1) / period));
    } else {
      this.deadline = Infinity;
      this.#tscDeadline = 0n;
    }
    const lvt = this.#regs[REG.LVT_TIMER];
    if ((lvt & LVT_MASKED) === 0 && this.enabled) this.host.post(lvt & 0xff);
  }
}
