/**
 * I/O APIC in user space, as a split irqchip needs it: redirection entries become messages (MSI) for the local APICs
 * in the kernel. Intel 82093AA data sheet; version 0x20 with EOI register as QEMU's hw/intc/ioapic.c.
 */
import type { IoRegion } from "../../memory/address-space.js";

export const IOAPIC_ADDRESS = 0xfec00000;
export const IOAPIC_SIZE = 0x1000;
export const IOAPIC_PINS = 24;

const VERSION = 0x20;
const REGSEL = 0x00;
const WINDOW = 0x10;
const EOI = 0x40;
/** Redirection entry, low word. */
const ENTRY = {
  VECTOR: 0xff,
  DELIVERY_MODE: 0x700,
  LOGICAL: 1 << 11,
  PENDING: 1 << 12,
  ACTIVE_LOW: 1 << 13,
  REMOTE_IRR: 1 << 14,
  LEVEL: 1 << 15,
  MASKED: 1 << 16,
} as const;
const READ_ONLY = ENTRY.PENDING | ENTRY.REMOTE_IRR;

/** A message-signalled interrupt: address and data as a device would write them. */
export interface MsiMessage {
  readonly address: number;
  readonly data: number;
}

export class IoApic implements IoRegion {
  readonly name = "ioapic";
  readonly maxAccess = 4;
  #select = 0;
  #id = 0;
  readonly #low = new Uint32Array(IOAPIC_PINS).fill(ENTRY.MASKED);
  readonly #high = new Uint32Array(IOAPIC_PINS);
  /** Level of each input, active high as devices drive it. */
  #levels = 0;
  /** Requests: edges that came and levels that stand. */
  #irr = 0;

  /** `routed` is called when an entry changed, for KVM to know which vectors it must report the end of. */
  constructor(
    private readonly send: (message: MsiMessage) => void,
    private readonly routed: () => void = () => {},
  ) {}

  /** Drives input `pin`. */
  setIrq(pin: number, level: boolean): void {
    const bit = 1 << pin;
    const was = (this.#levels & bit) !== 0;
    if (level === was) return;
    this.#levels = level ? this.#levels | bit : this.#levels & ~bit;
    if (this.#low[pin] & ENTRY.LEVEL) this.#irr = level ? this.#irr | bit : this.#irr & ~bit;
    else if (level && !(this.#low[pin] & ENTRY.MASKED)) this.#irr |= bit;
    this.#service(pin);
  }

  /** A local APIC finished `vector`, which a level-triggered entry sent (KVM_EXIT_IOAPIC_EOI). */
  eoi(vector: number): void {
    for (let pin = 0; pin < IOAPIC_PINS; pin++) {
      const entry = this.#low[pin];
      if ((entry & ENTRY.VECTOR) !== vector || !(entry & ENTRY.LEVEL) || !(entry & ENTRY.REMOTE_IRR))
        continue;
      this.#low[pin] = entry & ~ENTRY.REMOTE_IRR;
      this.#service(pin);
    }
  }

  /** The message that `pin` sends now, and whether the pin is masked: for KVM's routing table. */
  message(pin: number): MsiMessage & { readonly masked: boolean; readonly level: boolean } {
    const low = this.#low[pin];
    const destination = this.#high[pin] >>> 24;
    // Bits 55:49 of an entry extend the destination to 15 bits, as MSI_EXT_DEST_ID lets KVM take it.
    const extended = (this.#high[pin] >>> 17) & 0x7f;
    return {
      address: 0xfee00000 + destination * 0x1000 + extended * 0x20 + (low & ENTRY.LOGICAL ? 4 : 0),
      data: (low & (ENTRY.VECTOR | ENTRY.DELIVERY_MODE)) | (low & ENTRY.LEVEL),
      masked: (low & ENTRY.MASKED) !== 0,
      level: (low & ENTRY.LEVEL) !== 0,
    };
  }

  read(offset: number, size: number): number {
    if (size !== 4) return 0;
    if (offset === REGSEL) return this.#select;
    if (offset !== WINDOW) return 0;
    const register = this.#select;
    if (register === 0 || register === 2) return this.#id << 24;
    if (register === 1) return VERSION | ((IOAPIC_PINS - 1) << 16);
    const pin = (register - 0x10) >> 1;
    if (pin < 0 || pin >= IOAPIC_PINS) return 0;
    return register & 1 ? this.#high[pin] : this.#low[pin];
  }

  write(offset: number, size: number, value: number): void {
    if (size !== 4) return;
    if (offset === REGSEL) this.#select = value & 0xff;
    else if (offset === EOI) this.eoi(value & 0xff);
    else if (offset === WINDOW) this.#writeRegister(value);
  }

  #writeRegister(value: number): void {
    const register = this.#select;
    if (register === 0) {
      this.#id = (value >>> 24) & 0x0f;
      return;
    }
    const pin = (register - 0x10) >> 1;
    if (pin < 0 || pin >= IOAPIC_PINS) return;
    if (register & 1) {
      this.#high[pin] = value;
      this.routed();
      return;
    }
    let low = (value & 0x1ffff & ~READ_ONLY) | (this.#low[pin] & READ_ONLY);
    if (!(low & ENTRY.LEVEL)) low &= ~ENTRY.REMOTE_IRR;
    this.#low[pin] = low;
    this.routed();
    const bit = 1 << pin;
    if (low & ENTRY.LEVEL) this.#irr = this.#levels & bit ? this.#irr | bit : this.#irr & ~bit;
    this.#service(pin);
  }

  #service(pin: number): void {
    const bit = 1 << pin;
    const entry = this.#low[pin];
    if (!(this.#irr & bit) || entry & ENTRY.MASKED) return;
    if (entry & ENTRY.LEVEL) {
      if (entry & ENTRY.REMOTE_IRR) return;
      this.#low[pin] = entry | ENTRY.REMOTE_IRR;
    } else this.#irr &= ~bit;
    this.send(this.message(pin));
  }
}
