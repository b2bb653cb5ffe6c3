/**
 * Interrupt messages between local APICs: IPIs and MSIs, and whom they reach.
 * Source: Intel SDM vol. 3A, 11.6.2 and 11.12.10 (destinations), 11.11 (MSI); Linux arch/x86/kvm/irq.c, lapic.c.
 */

/** Delivery modes of ICR, MSI data and LVT entries. */
export const DeliveryMode = { FIXED: 0, LOWEST: 1, SMI: 2, NMI: 4, INIT: 5, STARTUP: 6, EXTINT: 7 } as const;
/** Destination shorthands of the ICR. */
export const Shorthand = { NONE: 0, SELF: 1, ALL: 2, OTHERS: 3 } as const;

export interface ApicMessage {
  readonly mode: number;
  readonly vector: number;
  /** x2APIC ID, logical x2APIC ID, or an xAPIC's 8 bits of either. */
  readonly destination: number;
  readonly logical: boolean;
  readonly shorthand: number;
  /** Level-triggered: its EOI is of interest to the I/O APIC. */
  readonly level: boolean;
}

/** What decides whether a message is for a local APIC. */
export interface ApicTarget {
  readonly id: number;
  /** Logical x2APIC ID, or an xAPIC's logical ID in bits 31:24 of LDR. */
  readonly ldr: number;
  readonly x2apic: boolean;
}

const BROADCAST = 0xffff_ffff;
const XAPIC_BROADCAST = 0xff;

function matches(target: ApicTarget, { destination, logical }: ApicMessage): boolean {
  if (destination === BROADCAST || (!target.x2apic && destination === XAPIC_BROADCAST)) return true;
  if (!logical) return destination === target.id;
  if (target.x2apic)
    return destination >>> 16 === target.ldr >>> 16 && (destination & target.ldr & 0xffff) !== 0;
  // Flat model.
  return ((target.ldr >>> 24) & destination & 0xff) !== 0;
}

/** The local APICs of `targets` that take a message from `sender` (-1: from a device). */
export function recipients<T extends ApicTarget>(
  targets: readonly T[],
  message: ApicMessage,
  sender: number,
): T[] {
  switch (message.shorthand) {
    case Shorthand.SELF:
      return targets.filter((one) => one.id === sender);
    case Shorthand.ALL:
      return [...targets];
    case Shorthand.OTHERS:
      return targets.filter((one) => one.id !== sender);
    default: {
      const found = targets.filter((one) => matches(one, message));
      return message.mode === DeliveryMode.LOWEST ? found.slice(0, 1) : found;
    }
  }
}

/** An MSI's address and data as a message (x2APIC destinations in the high address bits: KVM_CAP_X2APIC_API). */
export const msiMessage = (addressLow: number, addressHigh: number, data: number): ApicMessage => ({
  mode: (data >>> 8) & 7,
  vector: data & 0xff,
  destination: (((addressLow >>> 12) & 0xff) | (addressHigh & 0xffff_ff00)) >>> 0,
  logical: (addressLow & 4) !== 0,
  shorthand: Shorthand.NONE,
  level: (data & 0x8000) !== 0,
});

/** The low word of an ICR and its destination as a message. */
export const icrMessage = (low: number, destination: number): ApicMessage => ({
  mode: (low >>> 8) & 7,
  vector: low & 0xff,
  destination: destination >>> 0,
  logical: (low & 0x800) !== 0,
  shorthand: (low >>> 18) & 3,
  level: false,
});
