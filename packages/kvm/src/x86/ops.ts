/** kvm_x86_ops: what differs between kinds of VMs. Source: Linux arch/x86/include/asm/kvm_host.h. */
import type { KvmRegs, KvmSregs, KvmTdxCmd } from "@swtdx/abi";
import type { Vcpu } from "../vcpu.js";
import type { ApicMessage, ApicTarget } from "./apic-bus.js";

/** Of one VM. */
export interface VmBackend {
  /** KVM_MEMORY_ENCRYPT_OP on the VM. @returns 0 or -errno */
  memEncOp(cmd: KvmTdxCmd): number;
  createVcpu(vcpu: Vcpu): VcpuBackend;
  /** Guest frames [start, end) are about to change sides or to lose their pages: unmap them. */
  zap(start: number, end: number, side: "private" | "shared"): void;
  /** The VM is going away: nothing of it may stay on the host. Its vCPUs have been freed. */
  destroy(): void;
}

/** How a turn in the guest ended; a negative number is -errno. */
export const RunResult = {
  /** To user space, with an exit in kvm_run. */
  EXIT: 0,
  /** Again. */
  CONTINUE: 1,
} as const;
export type RunResult = number;

/** Registers that user space may see and set: those of an ordinary VM. */
export interface GuestState {
  getRegs(): KvmRegs;
  setRegs(regs: KvmRegs): void;
  getSregs(): KvmSregs;
  /** @returns 0 or -errno */
  setSregs(sregs: KvmSregs): number;
  /** null: there is no such MSR. */
  getMsr(index: number): bigint | null;
  /** @returns false: there is no such MSR, or not for this value */
  setMsr(index: number, value: bigint): boolean;
  /** struct kvm_lapic_state: 1024 bytes, registers 16 bytes apart. */
  getLapic(): Uint8Array;
  setLapic(regs: Uint8Array): void;
}

/** Of one vCPU. */
export interface VcpuBackend {
  /** null: the state is the guest's alone (a TD). */
  readonly state: GuestState | null;
  readonly apic: ApicTarget;
  /** The vCPU's CPUID was set: controls that go with it (vcpu_after_set_cpuid). */
  afterSetCpuid?(): void;
  /** KVM_MEMORY_ENCRYPT_OP on the vCPU. @returns 0 or -errno */
  memEncOp(cmd: KvmTdxCmd): number;
  /** Finishes the exit that user space has handled. @returns EXIT when that takes user space again */
  completeExit(): RunResult;
  /** Enters the guest once. @returns a RunResult, or -errno */
  run(): RunResult;
  /** An interrupt is pending that lets HLT end. */
  hasInterrupt(): boolean;
  /** A message for this local APIC: interrupt, NMI, INIT, start-up. */
  deliver(message: ApicMessage): void;
  nmi(): void;
  free(): void;
}
