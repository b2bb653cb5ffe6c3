/** kvm_x86_ops: what differs between kinds of VMs. Source: Linux arch/x86/include/asm/kvm_host.h. */
import type { KvmTdxCmd } from "@swtdx/abi";
import type { Vcpu } from "../vcpu.js";

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

/** Of one vCPU. */
export interface VcpuBackend {
  /** KVM_MEMORY_ENCRYPT_OP on the vCPU. @returns 0 or -errno */
  memEncOp(cmd: KvmTdxCmd): number;
  /** Finishes the exit that user space has handled. */
  completeExit(): void;
  /** Enters the guest once. @returns a RunResult, or -errno */
  run(): RunResult;
  /** An interrupt is pending that lets HLT end. */
  hasInterrupt(): boolean;
  /** Makes an interrupt pending (posted interrupt). */
  deliverInterrupt(vector: number): void;
  nmi(): void;
  free(): void;
}
