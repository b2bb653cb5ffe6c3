/**
 * What an instruction of host software or firmware comes back with. Architectural outcomes are values.
 * Intel SDM vol. 3C section 31.2 (VMsucceed, VMfail), vol. 3A chapter 6 (exceptions).
 */

/** The instruction faulted: nothing else of it happened. */
export interface Fault {
  readonly kind: "fault";
  /** Exception vector: 6 #UD, 13 #GP, 14 #PF, 18 #MC. */
  readonly vector: number;
  /** Error code, null for vectors that push none. */
  readonly errorCode: number | null;
  /** The faulting address, for #PF (CR2; host software maps memory one to one) and #MC (the HPA). */
  readonly address?: number;
}

export interface Ok {
  readonly kind: "ok";
}
/** Of an instruction without result. */
export type Outcome = Ok | Fault;
/** Of an instruction with a result. */
export type ValueOutcome<T> = { readonly kind: "ok"; readonly value: T } | Fault;

/** RFLAGS.CF = 1: there is no current VMCS to hold an error number, or the instruction gives none. */
export interface VmFailInvalid {
  readonly kind: "failInvalid";
}
/** RFLAGS.ZF = 1 with an error number, which is also in the VMCS field VM_INSTRUCTION_ERROR. */
export interface VmFailValid {
  readonly kind: "failValid";
  readonly error: number;
}
export type VmFail = VmFailInvalid | VmFailValid;
/** Of a VMX instruction other than VMREAD, VMLAUNCH and VMRESUME. */
export type VmxOutcome = Ok | VmFail | Fault;

/**
 * A VM entry happened and came back as a VM exit. All about it is in the exit-information fields of the current
 * VMCS; guest GPRs, CR2, DR0-3, DR6, XCR0, x87/SSE/AVX state are in the logical processor's `regs`.
 */
export interface VmExit {
  readonly kind: "exit";
  /**
   * The field EXIT_REASON, 32 bits unsigned: basic reason in bits 15:0; bit 31 is set when the entry failed
   * (basic reasons 33, 34, 41).
   */
  readonly reason: number;
}
export type VmEntryOutcome = VmExit | VmFail | Fault;
