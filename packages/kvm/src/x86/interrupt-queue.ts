/**
 * The interrupt registers of a local APIC that KVM emulates itself, for ordinary VMs: IRR, ISR, TMR, TPR, EOI.
 * (A TD's are the processor's: virtual-APIC page and posted interrupts.)
 * Source: Intel SDM vol. 3A, 11.8; Linux arch/x86/kvm/lapic.c.
 */

/** One bit for each vector. */
class VectorBits {
  readonly words = new Uint32Array(8);

  set(vector: number): void {
    this.words[vector >>> 5] |= 1 << (vector & 31);
  }
  clear(vector: number): void {
    this.words[vector >>> 5] &= ~(1 << (vector & 31));
  }
  has(vector: number): boolean {
    return (this.words[vector >>> 5] & (1 << (vector & 31))) !== 0;
  }
  /** The highest vector, or -1. */
  highest(): number {
    for (let i = 7; i >= 0; i--) if (this.words[i] !== 0) return i * 32 + 31 - Math.clz32(this.words[i]);
    return -1;
  }
}

export class InterruptQueue {
  readonly irr = new VectorBits();
  readonly isr = new VectorBits();
  readonly tmr = new VectorBits();
  /** Task priority, 8 bits. */
  tpr = 0;

  /** Processor priority. */
  get ppr(): number {
    const inService = this.isr.highest();
    const service = inService < 0 ? 0 : inService & 0xf0;
    return (this.tpr & 0xf0) >= service ? this.tpr & 0xff : service;
  }

  /** An interrupt arrives. */
  accept(vector: number, level: boolean): void {
    this.irr.set(vector);
    if (level) this.tmr.set(vector);
    else this.tmr.clear(vector);
  }

  /** The vector that may be delivered now, or -1. */
  pending(): number {
    const vector = this.irr.highest();
    return vector >= 0 && (vector & 0xf0) > (this.ppr & 0xf0) ? vector : -1;
  }

  /** Takes the pending vector into service. */
  acknowledge(): number {
    const vector = this.pending();
    if (vector < 0) return -1;
    this.irr.clear(vector);
    this.isr.set(vector);
    return vector;
  }

  /** @returns the vector whose EOI the I/O APIC is to hear of, or -1 */
  eoi(): number {
    const vector = this.isr.highest();
    if (vector < 0) return -1;
    this.isr.clear(vector);
    return this.tmr.has(vector) ? vector : -1;
  }

  reset(): void {
    for (const bits of [this.irr, this.isr, this.tmr]) bits.words.fill(0);
    this.tpr = 0;
  }
}
