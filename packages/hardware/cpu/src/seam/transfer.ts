/**
 * The SEAM transfer VMCS: what SEAMCALL saves of its caller and SEAMRET restores. It is kept inside the processor;
 * firmware sees it as the current VMCS when its call begins (caller's RFLAGS, RIP, CRs in the guest-state fields).
 */
import { REG, RegisterFile, SEG, SEGMENT_SIZE } from "@swtdx/x86";
import { VMCS } from "../vmx/fields.js";
import { Vmcs } from "../vmx/vmcs.js";
import type { Vmx } from "../vmx/instructions.js";

export const transferVmcs = (): Vmcs => new Vmcs(-1, -1, 0);

const SAVED: readonly (readonly [number, number])[] = [
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

/** What does not stand in the VMCS's fields: the caller's current VMCS, segment registers, table limits. */
export interface Caller {
  readonly current: Vmcs | null;
  readonly segments: Uint8Array;
  readonly limits: readonly [number, number];
}

export function saveCaller(transfer: Vmcs, regs: RegisterFile, vmx: Vmx): Caller {
  for (const [field, register] of SAVED) transfer.set(field, regs.get32(register), regs.get32(register + 4));
  for (let i = 0; i < 8; i++) {
    const at = RegisterFile.segment(i);
    transfer.set(VMCS.GUEST_ES_SELECTOR + 2 * i, regs.get32(at + SEG.SELECTOR) & 0xffff);
    transfer.set(VMCS.GUEST_ES_LIMIT + 2 * i, regs.get32(at + SEG.LIMIT));
    transfer.set(VMCS.GUEST_ES_AR_BYTES + 2 * i, regs.get32(at + SEG.AR));
    transfer.put(VMCS.GUEST_ES_BASE + 2 * i, regs.get(at + SEG.BASE));
  }
  return {
    current: vmx.current,
    segments: regs.u8.slice(REG.SEGMENT, REG.SEGMENT + 8 * SEGMENT_SIZE),
    limits: [regs.get32(REG.GDTR_LIMIT), regs.get32(REG.IDTR_LIMIT)],
  };
}

/** SEAM root mode's own state: 64-bit, interrupts blocked. */
export function seamHostState(regs: RegisterFile): void {
  regs.set(REG.CR0, 0x80010033n);
  regs.set(REG.CR3, 0n);
  regs.set(REG.CR4, 0x3726e0n);
  regs.set(REG.EFER, 0xd01n);
  regs.set(REG.RFLAGS, 2n);
  regs.set(REG.DR7, 0x400n);
  regs.set(REG.PAT, 0x0606060606060606n);
}

export function restoreCaller(transfer: Vmcs, regs: RegisterFile, vmx: Vmx, caller: Caller): void {
  for (const [field, register] of SAVED) {
    regs.set32(register, transfer.lo(field));
    regs.set32(register + 4, transfer.hi(field));
  }
  regs.u8.set(caller.segments, REG.SEGMENT);
  regs.set32(REG.GDTR_LIMIT, caller.limits[0]);
  regs.set32(REG.IDTR_LIMIT, caller.limits[1]);
  vmx.current = caller.current;
}
