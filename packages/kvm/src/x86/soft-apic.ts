/**
 * The local APIC of an ordinary VM: interrupt registers that KVM emulates, in xAPIC (memory-mapped) and x2APIC mode,
 * around what it has in common with a TD's (timer, ICR, LVT).
 * Source: Intel SDM vol. 3A ch. 11; Linux arch/x86/kvm/lapic.c.
 */
import type { ApicTarget } from "./apic-bus.js";
import { InterruptQueue } from "./interrupt-queue.js";
import { IA32_TSC_DEADLINE, type Lapic } from "./lapic.js";

export const APIC_DEFAULT_BASE = 0xfee0_0000;
const IA32_APIC_BASE_RESET = 0xfee0_0800n;
const APIC_BASE_BSP = 0x100n;
const APIC_BASE_EXTD = 0x400n;
const APIC_BASE_EN = 0x800n;

const REG = {
  ID: 0x02,
  TPR: 0x08,
  PPR: 0x0a,
  EOI: 0x0b,
  LDR: 0x0d,
  DFR: 0x0e,
  ICR: 0x30,
  ICR2: 0x31,
  SELF_IPI: 0x3f,
} as const;
const BITS = { ISR: 0x10, TMR: 0x18, IRR: 0x20 } as const;
/** Of KVM_GET_LAPIC. */
const STATE_SIZE = 1024;
const X2APIC_MSR = 0x800;

export class SoftApic implements ApicTarget {
  readonly queue = new InterruptQueue();
  #base: bigint;
  #ldr = 0;
  #dfr = 0xffff_ffff;
  #icr2 = 0;

  constructor(
    readonly lapic: Lapic,
    bsp: boolean,
    /** A level-triggered vector's EOI. */
    private readonly onEoi: (vector: number) => void,
  ) {
    this.#base = IA32_APIC_BASE_RESET | (bsp ? APIC_BASE_BSP : 0n);
  }

  get id(): number {
    return this.lapic.id;
  }
  get ldr(): number {
    return this.x2apic ? this.lapic.ldr : this.#ldr;
  }
  get x2apic(): boolean {
    return (this.#base & APIC_BASE_EXTD) !== 0n;
  }

  /** IA32_APIC_BASE. */
  get base(): bigint {
    return this.#base;
  }
  /** @returns false: the value or the transition is not allowed */
  setBase(value: bigint): boolean {
    const mode = value & (APIC_BASE_EN | APIC_BASE_EXTD);
    const old = this.#base & (APIC_BASE_EN | APIC_BASE_EXTD);
    // x2APIC needs EN; from x2APIC only to off; from off only to xAPIC.
    if (mode === APIC_BASE_EXTD) return false;
    if (old === (APIC_BASE_EN | APIC_BASE_EXTD) && mode === APIC_BASE_EN) return false;
    if (old === 0n && mode === (APIC_BASE_EN | APIC_BASE_EXTD)) return false;
    // It cannot be moved: nobody does.
    if ((value & ~0xfffn) !== BigInt(APIC_DEFAULT_BASE)) return false;
    if ((value & 0x2ffn) !== 0n) return false;
    this.#base = value;
    return true;
  }
  reset(bsp: boolean): void {
    this.#base = IA32_APIC_BASE_RESET | (bsp ? APIC_BASE_BSP : 0n);
    this.queue.reset();
  }

  /** Whether a GPA is in the APIC's page: xAPIC mode. */
  covers(gpa: number): boolean {
    return (
      (this.#base & APIC_BASE_EN) !== 0n &&
      !this.x2apic &&
      gpa >= APIC_DEFAULT_BASE &&
      gpa < APIC_DEFAULT_BASE + 4096
    );
  }

  /** RDMSR of an x2APIC register or the TSC deadline; null: #GP. */
  readMsr(msr: number): bigint | null {
    if (msr === IA32_TSC_DEADLINE) return this.lapic.read(msr);
    if (!this.x2apic) return null;
    const reg = msr - X2APIC_MSR;
    return this.#readCommon(reg) ?? this.lapic.read(msr);
  }
  /** @returns false: #GP */
  writeMsr(msr: number, value: bigint): boolean {
    if (msr === IA32_TSC_DEADLINE) return this.lapic.write(msr, value);
    if (!this.x2apic) return false;
    const reg = msr - X2APIC_MSR;
    if ((reg === REG.TPR || reg === REG.EOI) && value > 0xffff_ffffn) return false;
    return this.#writeCommon(reg, Number(value & 0xffff_ffffn)) || this.lapic.write(msr, value);
  }

  /** A load of 4 bytes from the APIC's page. */
  readPage(offset: number): number {
    const reg = offset >>> 4;
    if (reg === REG.ID) return (this.id << 24) >>> 0;
    if (reg === REG.LDR) return this.#ldr >>> 0;
    if (reg === REG.DFR) return this.#dfr >>> 0;
    if (reg === REG.ICR2) return this.#icr2 >>> 0;
    const value = this.#readCommon(reg) ?? this.lapic.read(X2APIC_MSR + reg) ?? 0n;
    return Number(value & 0xffff_ffffn);
  }
  writePage(offset: number, value: number): void {
    const reg = offset >>> 4;
    if (reg === REG.LDR) this.#ldr = (value & 0xff00_0000) >>> 0;
    else if (reg === REG.DFR) this.#dfr = (value | 0x0fff_ffff) >>> 0;
    else if (reg === REG.ICR2) this.#icr2 = (value & 0xff00_0000) >>> 0;
    else if (reg === REG.ICR) this.lapic.writeRegister(reg, value >>> 0, this.#icr2 >>> 24);
    else if (reg !== REG.SELF_IPI && !this.#writeCommon(reg, value))
      this.lapic.writeRegister(reg, value >>> 0);
  }

  #readCommon(reg: number): bigint | null {
    const { queue } = this;
    if (reg === REG.TPR) return BigInt(queue.tpr);
    if (reg === REG.PPR) return BigInt(queue.ppr);
    for (const [first, bits] of [
      [BITS.ISR, queue.isr],
      [BITS.TMR, queue.tmr],
      [BITS.IRR, queue.irr],
    ] as const)
      if (reg >= first && reg < first + 8) return BigInt(bits.words[reg - first]);
    return null;
  }
  #writeCommon(reg: number, value: number): boolean {
    if (reg === REG.TPR) this.queue.tpr = value & 0xff;
    else if (reg === REG.EOI) {
      const vector = this.queue.eoi();
      if (vector >= 0) this.onEoi(vector);
    } else return false;
    return true;
  }

  /** KVM_GET_LAPIC: registers 16 bytes apart. */
  getState(): Uint8Array {
    const out = new Uint8Array(STATE_SIZE);
    const view = new DataView(out.buffer);
    for (let reg = 2; reg < STATE_SIZE / 16; reg++) view.setUint32(reg * 16, this.readPage(reg * 16), true);
    // An x2APIC has its ID as it is.
    if (this.x2apic) view.setUint32(REG.ID * 16, this.id, true);
    return out;
  }
  /** KVM_SET_LAPIC. */
  setState(state: Uint8Array): void {
    const view = new DataView(state.buffer, state.byteOffset, state.length);
    const get = (reg: number): number => view.getUint32(reg * 16, true);
    const { queue } = this;
    queue.tpr = get(REG.TPR) & 0xff;
    for (const [first, bits] of [
      [BITS.ISR, queue.isr],
      [BITS.TMR, queue.tmr],
      [BITS.IRR, queue.irr],
    ] as const)
      for (let i = 0; i < 8; i++) bits.words[i] = get(first + i);
    this.#ldr = get(REG.LDR);
    this.#dfr = get(REG.DFR);
    // SVR, LVTs and timer; not the ICR, whose write sends.
    for (const reg of [0x0f, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x3e, 0x38])
      this.lapic.writeRegister(reg, get(reg));
  }
}
