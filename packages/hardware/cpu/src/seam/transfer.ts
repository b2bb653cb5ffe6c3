/**
 * The SEAM transfer VMCS: what SEAMCALL saves of its caller and SEAMRET restores. It is kept inside the processor;
 * firmware sees it as the current VMCS when its call begins (caller's RFLAGS, RIP, CRs in the guest-state fields).
 *
 * Firmware hardly ever looks at it: the state is kept as it is in the register file, and becomes fields at the first
 * VMREAD or VMWRITE.
 */
import { REG, type RegisterFile, SEG, SEGMENT_SIZE } from "@swtdx/x86";
import { VMCS } from "../vmx/fields.js";
import { Vmcs } from "../vmx/vmcs.js";
import type { Vmx } from "../vmx/instructions.js";

/** The fields that SEAMRET loads back, and their registers. */
const FIELDS: readonly (readonly [number, number])[] = [
  [VMCS.GUEST_CR0, REG.CR0],
  [VMCS.GUEST_CR3, REG.CR3],
  [VMCS.GUEST_CR4, REG.CR4],
  [VMCS.GUEST_RSP, REG.GPR + 4 * 8],
  [VMCS.GUEST_RIP, REG.RIP],
  [VMCS.GUEST_RFLAGS, REG.RFLAGS],
  [VMCS.GUEST_DR7, REG.DR7],
  [VMCS.GUEST_GDTR_BASE, REG.GDTR_BASE],
  [VMCS.GUEST_IDTR_BASE, REG.IDTR_BASE],
  [VMCS.GUEST_SYSENTER_ESP, REG.SYSENTER_ESP],
  [VMCS.GUEST_SYSENTER_EIP, REG.SYSENTER_EIP],
  [VMCS.GUEST_IA32_PAT, REG.PAT],
  [VMCS.GUEST_IA32_EFER, REG.EFER],
];
/** Words of the register file that are kept: the fields' registers in their order, and the table limits. */
const WORDS = Int32Array.from(
  [...FIELDS.flatMap(([, at]) => [at, at + 4]), REG.GDTR_LIMIT, REG.IDTR_LIMIT],
  (at) => at / 4,
);
const SEGMENTS_AT = REG.SEGMENT / 4;
const SEGMENT_WORDS = (8 * SEGMENT_SIZE) / 4;

/** SEAM root mode's own state: 64-bit, interrupts blocked. Register, low half, high half. */
const SEAM_STATE: readonly (readonly [number, number, number])[] = [
  [REG.CR0, 0x80010033, 0],
  [REG.CR3, 0, 0],
  [REG.CR4, 0x3726e0, 0],
  [REG.EFER, 0xd01, 0],
  [REG.RFLAGS, 2, 0],
  [REG.DR7, 0x400, 0],
  [REG.PAT, 0x06060606, 0x06060606],
];

export class TransferVmcs extends Vmcs {
  readonly #saved = new Uint32Array(WORDS.length);
  readonly #segments = new Uint32Array(SEGMENT_WORDS);
  /** The caller's current VMCS. */
  #caller: Vmcs | null = null;
  /** The fields hold the caller's state. */
  #filled = false;

  constructor() {
    super(-1, -1, 0);
  }

  /** SEAMCALL: keeps the caller's state and loads SEAM root mode's. */
  enter(regs: RegisterFile, vmx: Vmx): void {
    const { u32 } = regs;
    for (let i = 0; i < WORDS.length; i++) this.#saved[i] = u32[WORDS[i]];
    for (let i = 0; i < SEGMENT_WORDS; i++) this.#segments[i] = u32[SEGMENTS_AT + i];
    this.#filled = false;
    this.#caller = vmx.current;
    vmx.current = this;
    for (const [register, lo, hi] of SEAM_STATE) {
      regs.set32(register, lo);
      regs.set32(register + 4, hi);
    }
  }

  /** SEAMRET: the caller's state, as the fields have it if firmware looked at them. */
  leave(regs: RegisterFile, vmx: Vmx): void {
    const { u32 } = regs;
    for (let i = 0; i < WORDS.length; i++) u32[WORDS[i]] = this.#saved[i];
    if (this.#filled)
      for (const [field, register] of FIELDS) {
        regs.set32(register, this.lo(field));
        regs.set32(register + 4, this.hi(field));
      }
    for (let i = 0; i < SEGMENT_WORDS; i++) u32[SEGMENTS_AT + i] = this.#segments[i];
    vmx.current = this.#caller;
    this.#caller = null;
  }

  override read(encoding: number): bigint | null {
    this.#fill();
    return super.read(encoding);
  }
  override write(encoding: number, value: bigint): boolean {
    this.#fill();
    return super.write(encoding, value);
  }

  #fill(): void {
    if (this.#filled) return;
    this.#filled = true;
    FIELDS.forEach(([field], i) => this.set(field, this.#saved[2 * i], this.#saved[2 * i + 1]));
    for (let i = 0; i < 8; i++) {
      const at = (i * SEGMENT_SIZE) / 4;
      const word = (offset: number): number => this.#segments[at + offset / 4];
      this.set(VMCS.GUEST_ES_SELECTOR + 2 * i, word(SEG.SELECTOR) & 0xffff);
      this.set(VMCS.GUEST_ES_LIMIT + 2 * i, word(SEG.LIMIT));
      this.set(VMCS.GUEST_ES_AR_BYTES + 2 * i, word(SEG.AR));
      this.set(VMCS.GUEST_ES_BASE + 2 * i, word(SEG.BASE), word(SEG.BASE + 4));
    }
  }
}
