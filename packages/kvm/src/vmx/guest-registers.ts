/**
 * State of a guest that no VMCS field holds and VM entry and exit leave in the processor: general-purpose registers at
 * each entry; x87, SSE, AVX, debug and system-call registers only when another guest ran in between.
 * Source: Linux arch/x86/kvm/vmx/vmenter.S, x86.c (kvm_load_guest_fpu, user-return MSRs).
 */
import { REG } from "@swtdx/cpu";
import type { LogicalProcessor } from "@swtdx/linux-host";

/** Ranges of the register file: offset and bytes. */
const EXTENDED: readonly (readonly [number, number])[] = [
  [REG.CR2, 8],
  // XCR0, XSS, DR0-DR3, DR6.
  [REG.XCR0, REG.DR7 - REG.XCR0],
  // STAR, LSTAR, CSTAR, FMASK, KERNEL_GS_BASE.
  [REG.STAR, REG.SYSENTER_CS - REG.STAR],
  [REG.TSC_AUX, 8],
  // PKRU, MXCSR, x87 environment; x87 and vector registers.
  [REG.PKRU, REG.INTERRUPTIBILITY - REG.PKRU],
  [REG.ST, REG.ZMM + 16 * 64 - REG.ST],
];
const EXTENDED_SIZE = EXTENDED.reduce((sum, [, size]) => sum + size, 0);

/** Whose state is in a processor. */
interface Slot {
  owner: GuestRegisters | null;
}
const slots = new WeakMap<LogicalProcessor, Slot>();
function slotOf(lp: LogicalProcessor): Slot {
  let slot = slots.get(lp);
  if (!slot) slots.set(lp, (slot = { owner: null }));
  return slot;
}

export class GuestRegisters {
  /** By x86 number; RSP is in the VMCS. */
  readonly gprs = new BigUint64Array(16);
  /** The same as 32-bit halves. */
  readonly words = new Uint32Array(this.gprs.buffer);
  readonly #extended = new Uint8Array(EXTENDED_SIZE);
  readonly #view = new DataView(this.#extended.buffer);

  readonly #slot: Slot;

  constructor(private readonly lp: LogicalProcessor) {
    this.#slot = slotOf(lp);
  }

  /** Puts the state into the processor for an entry. */
  load(): void {
    this.own();
    const { u32 } = this.lp.regs;
    for (let i = 0; i < 32; i++) u32[i] = this.words[i];
  }
  /** Takes the general-purpose registers after an exit. */
  save(): void {
    const { u32 } = this.lp.regs;
    for (let i = 0; i < 32; i++) this.words[i] = u32[i];
  }

  /** Makes the processor's other registers this guest's. */
  own(): void {
    const { owner } = this.#slot;
    if (owner === this) return;
    owner?.evict();
    let at = 0;
    for (const [offset, size] of EXTENDED) {
      this.lp.regs.u8.set(this.#extended.subarray(at, at + size), offset);
      at += size;
    }
    this.#slot.owner = this;
  }
  /** Takes everything out of the processor. */
  evict(): void {
    this.#slot.owner = null;
    let at = 0;
    for (const [offset, size] of EXTENDED) {
      this.#extended.set(this.lp.regs.u8.subarray(offset, offset + size), at);
      at += size;
    }
  }

  /** A 64-bit register of the extended state, by its offset in REG. */
  get(offset: number): bigint {
    if (this.#slot.owner === this) return this.lp.regs.get(offset);
    return this.#view.getBigUint64(this.#at(offset), true);
  }
  set(offset: number, value: bigint): void {
    if (this.#slot.owner === this) this.lp.regs.set(offset, value);
    else this.#view.setBigUint64(this.#at(offset), value, true);
  }
  #at(offset: number): number {
    let at = 0;
    for (const [start, size] of EXTENDED) {
      if (offset >= start && offset < start + size) return at + offset - start;
      at += size;
    }
    throw new RangeError(`register at ${offset} is in the VMCS`);
  }

  /** After RESET: x87 and MXCSR as the architecture has them. */
  reset(): void {
    this.forget();
    this.gprs.fill(0n);
    this.#extended.fill(0);
    this.set(REG.XCR0, 1n);
    this.set(REG.DR6, 0xffff_0ff0n);
    const at = this.#at(REG.PKRU) - REG.PKRU;
    this.#view.setUint32(at + REG.MXCSR, 0x1f80, true);
    this.#view.setUint32(at + REG.FCW, 0x40, true);
    this.#view.setUint32(at + REG.FTW, 0x5555, true);
  }

  forget(): void {
    if (this.#slot.owner === this) this.#slot.owner = null;
  }
}

/** A TD is about to run here: what a guest of VMX left in the processor is saved. */
export function releaseProcessor(lp: LogicalProcessor): void {
  slots.get(lp)?.owner?.evict();
}
