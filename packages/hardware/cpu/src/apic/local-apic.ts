/**
 * The local APIC of a logical processor in x2APIC mode, as far as host software needs it: interrupt requests, NMI,
 * INIT, inter-processor interrupts and the timer in TSC-deadline mode. Intel SDM vol. 3A chapter 11.
 *
 * Host handlers are TypeScript that runs to completion, so acknowledging an interrupt also ends it (EOI).
 */
export class LocalApic {
  /** Interrupt request register, 256 bits. */
  readonly irr = new Uint32Array(8);
  tpr = 0;
  nmi = false;
  init = false;
  /** Clock tick (see LogicalProcessor.ticks) at which the timer expires; Infinity when it is off. */
  deadline = Infinity;
  timerVector = 0;
  /** Local vector table and other registers that only hold what is written, by MSR number. */
  readonly #registers = new Map<number, bigint>();

  constructor(
    readonly id: number,
    /** Sends an interrupt command: destination x2APIC ID, or -1 all but self, -2 all. */
    private readonly send: (destination: number, mode: number, vector: number) => void,
  ) {
    this.reset();
  }
  reset(): void {
    this.irr.fill(0);
    this.tpr = 0;
    this.nmi = false;
    this.init = false;
    this.deadline = Infinity;
    this.#registers.clear();
    this.#registers.set(0x80f, 0xffn);
    for (let index = 0x832; index <= 0x837; index++) this.#registers.set(index, 0x10000n);
  }

  request(vector: number): void {
    this.irr[vector >>> 5] |= 1 << (vector & 31);
  }
  clear(vector: number): void {
    this.irr[vector >>> 5] &= ~(1 << (vector & 31));
  }
  /** Highest requested vector above the task priority, or -1. */
  highest(): number {
    for (let word = 7; word >= 0; word--) {
      const bits = this.irr[word];
      if (bits === 0) continue;
      const vector = word * 32 + 31 - Math.clz32(bits);
      return vector >>> 4 > this.tpr >>> 4 ? vector : -1;
    }
    return -1;
  }
  /** Makes the timer's interrupt pending when the clock has reached the deadline. */
  tick(ticks: number): void {
    if (ticks < this.deadline) return;
    this.deadline = Infinity;
    this.request(this.timerVector);
  }

  /** RDMSR of 0x800-0x8FF: null is #GP(0). */
  read(index: number): bigint | null {
    if (index === 0x802) return BigInt(this.id);
    if (index === 0x803) return 0x1060015n;
    if (index === 0x808) return BigInt(this.tpr);
    if (index === 0x80a) return BigInt(this.tpr);
    if (index === 0x80d) return BigInt(((this.id >>> 4) << 16) | (1 << (this.id & 15)));
    if ((index >= 0x810 && index <= 0x81f) || index === 0x828) return 0n;
    if (index >= 0x820 && index <= 0x827) return BigInt(this.irr[index - 0x820]);
    if (index === 0x80f || index === 0x82f || (index >= 0x830 && index <= 0x83e && index !== 0x83a))
      return this.#registers.get(index) ?? 0n;
    return null;
  }
  /** WRMSR of 0x800-0x8FF: false is #GP(0). */
  write(index: number, value: bigint): boolean {
    switch (index) {
      case 0x808:
        if (value > 0xffn) return false;
        this.tpr = Number(value);
        return true;
      case 0x80b:
      case 0x828:
        return value === 0n;
      case 0x830: {
        if ((value & 0xfff3_2000n & 0xffffffffn) !== 0n) return false;
        this.#registers.set(index, value);
        const shorthand = Number((value >> 18n) & 3n);
        const destination =
          shorthand === 0 ? Number(value >> 32n) : shorthand === 1 ? this.id : shorthand === 2 ? -2 : -1;
        this.send(
          destination === 0xffffffff ? -2 : destination,
          Number((value >> 8n) & 7n),
          Number(value & 0xffn),
        );
        return true;
      }
      case 0x83f:
        if (value > 0xffn) return false;
        this.send(this.id, 0, Number(value));
        return true;
    }
    if (index === 0x80f || index === 0x82f || (index >= 0x832 && index <= 0x838) || index === 0x83e) {
      if (value > 0xffffffffn) return false;
      this.#registers.set(index, value);
      if (index === 0x832) this.timerVector = Number(value & 0xffn);
      return true;
    }
    return false;
  }
}
