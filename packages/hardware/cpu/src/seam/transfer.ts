/**
 * The SEAM transfer VMCS: what SEAMCALL saves of its caller and SEAMRET restores. It is kept inside the processor;
 * firmware sees it as the current VMCS when its call begins (caller's RFLAGS, RIP, CRs in the guest-state fields).
 *
 * Firmware hardly ever looks at it: the state is kept as it is in the register file, and becomes fields at the first
 * VMREAD or VMWRITE.
 */
import { REG, type RegisterFile, REGISTER_FILE_SIZE, SEG, SEGMENT_SIZE } from "@swtdx/x86";
import { VMCS } from "../vmx/fields.js";
import { GUEST_REGISTERS } from "../vmx/transition.js";
import { Vmcs } from "../vmx/vmcs.js";
import type { Vmx } from "../vmx/instructions.js";

/** The fields that SEAMRET loads back, and their registers. */
const FIELDS: readonly (readonly [number, number])[] = [
  ...GUEST_REGISTERS,
  [VMCS.GUEST_DR7, REG.DR7],
  [VMCS.GUEST_IA32_PAT, REG.PAT],
  [VMCS.GUEST_IA32_EFER, REG.EFER],
];
/** Registers that SEAMCALL itself changes, as words of the register file: control registers, stack, flags. */
const CHANGED_WORDS = Uint16Array.from(
  [REG.CR0, REG.CR3, REG.CR4, REG.EFER, REG.RFLAGS, REG.RIP, REG.GPR + 4 * 8, REG.DR7, REG.PAT].flatMap(
    (at) => [at / 4, at / 4 + 1],
  ),
);
/** The rest: segment registers, tables, SYSENTER. Only a VM entry from SEAM root mode changes them. */
const TABLES = REG.SEGMENT / 4;
const TABLES_END = (REG.IDTR_LIMIT + 8) / 4;
const SYSENTER = REG.SYSENTER_CS / 4;
const SYSENTER_END = (REG.SYSENTER_EIP + 8) / 4;
function copyRest(from: Uint32Array, to: Uint32Array): void {
  for (let i = TABLES; i < TABLES_END; i++) to[i] = from[i];
  for (let i = SYSENTER; i < SYSENTER_END; i++) to[i] = from[i];
}

/** SEAM root mode's own state: 64-bit, interrupts blocked. */
function loadSeamState(u32: Uint32Array): void {
  u32[REG.CR0 / 4] = 0x80010033;
  u32[REG.CR0 / 4 + 1] = 0;
  u32[REG.CR3 / 4] = 0;
  u32[REG.CR3 / 4 + 1] = 0;
  u32[REG.CR4 / 4] = 0x3726e0;
  u32[REG.CR4 / 4 + 1] = 0;
  u32[REG.EFER / 4] = 0xd01;
  u32[REG.EFER / 4 + 1] = 0;
  u32[REG.RFLAGS / 4] = 2;
  u32[REG.RFLAGS / 4 + 1] = 0;
  u32[REG.DR7 / 4] = 0x400;
  u32[REG.DR7 / 4 + 1] = 0;
  u32[REG.PAT / 4] = 0x06060606;
  u32[REG.PAT / 4 + 1] = 0x06060606;
}

export class TransferVmcs extends Vmcs {
  /** The caller's registers, by word of the register file. */
  readonly #words = new Uint32Array(REGISTER_FILE_SIZE / 4);
  /** The caller's current VMCS. */
  #caller: Vmcs | null = null;
  /** All of the caller's state is in `#words`. */
  #complete = false;
  /** The fields hold the caller's state. */
  #filled = false;

  constructor(private readonly regs: RegisterFile) {
    super(-1, -1, 0);
  }

  /** SEAMCALL: keeps the caller's state and loads SEAM root mode's. */
  enter(vmx: Vmx): void {
    const { u32 } = this.regs;
    const words = this.#words;
    for (let i = 0; i < CHANGED_WORDS.length; i++) words[CHANGED_WORDS[i]] = u32[CHANGED_WORDS[i]];
    this.#complete = false;
    this.#filled = false;
    this.#caller = vmx.current;
    vmx.current = this;
    loadSeamState(u32);
  }

  /** Keeps what a VM entry will change. */
  complete(): void {
    if (this.#complete) return;
    this.#complete = true;
    copyRest(this.regs.u32, this.#words);
  }

  /** SEAMRET: the caller's state, as the fields have it if firmware looked at them. */
  leave(vmx: Vmx): void {
    const { regs } = this;
    const { u32 } = regs;
    const words = this.#words;
    for (let i = 0; i < CHANGED_WORDS.length; i++) u32[CHANGED_WORDS[i]] = words[CHANGED_WORDS[i]];
    if (this.#complete) copyRest(words, u32);
    if (this.#filled)
      for (const [field, register] of FIELDS) {
        regs.set32(register, this.lo(field));
        regs.set32(register + 4, this.hi(field));
      }
    vmx.current = this.#caller;
    this.#caller = null;
  }

  override read(encoding: number): bigint | null {
    this.#fill();
    return super.read(encoding);
  }
  override readLow(encoding: number): number {
    this.#fill();
    return super.readLow(encoding);
  }
  override readHigh(encoding: number): number {
    this.#fill();
    return super.readHigh(encoding);
  }
  override writeHalves(encoding: number, low: number, high: number): boolean {
    this.#fill();
    return super.writeHalves(encoding, low, high);
  }

  #fill(): void {
    if (this.#filled) return;
    this.#filled = true;
    this.complete();
    const words = this.#words;
    for (const [field, register] of FIELDS) this.set(field, words[register / 4], words[register / 4 + 1]);
    for (let i = 0; i < 8; i++) {
      const at = (REG.SEGMENT + i * SEGMENT_SIZE) / 4;
      const word = (offset: number): number => words[at + offset / 4];
      this.set(VMCS.GUEST_ES_SELECTOR + 2 * i, word(SEG.SELECTOR) & 0xffff);
      this.set(VMCS.GUEST_ES_LIMIT + 2 * i, word(SEG.LIMIT));
      this.set(VMCS.GUEST_ES_AR_BYTES + 2 * i, word(SEG.AR));
      this.set(VMCS.GUEST_ES_BASE + 2 * i, word(SEG.BASE), word(SEG.BASE + 4));
    }
  }
}
