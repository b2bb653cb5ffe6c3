/**
 * vCPU ioctls that read and set the guest's state. A TD's is protected: they fail there as Linux's do.
 * Source: Linux arch/x86/kvm/x86.c (kvm_arch_vcpu_ioctl).
 */
import {
  Errno,
  KVM_MP_STATE_HALTED,
  KVM_MP_STATE_RUNNABLE,
  KVM_MP_STATE_UNINITIALIZED,
  KvmIoctl,
  type KvmMsrEntry,
  type KvmRegs,
  type KvmSregs,
} from "@swtdx/abi";
import type { Vcpu } from "../vcpu.js";

const LAPIC_SIZE = 1024;

/** @returns 0 (KVM_GET_MSRS, KVM_SET_MSRS: how many) or -errno */
export function vcpuStateIoctl(vcpu: Vcpu, request: number, arg: unknown): number {
  switch (request) {
    case KvmIoctl.KVM_GET_MP_STATE:
      (arg as { mp_state: number }).mp_state = vcpu.waitsForStartup
        ? KVM_MP_STATE_UNINITIALIZED
        : vcpu.halted
          ? KVM_MP_STATE_HALTED
          : KVM_MP_STATE_RUNNABLE;
      return 0;
    case KvmIoctl.KVM_SET_MP_STATE:
      return setMpState(vcpu, (arg as { mp_state: number }).mp_state);
    default:
  }
  const { state } = vcpu.backend;
  if (!state) return -Errno.EINVAL;
  switch (request) {
    case KvmIoctl.KVM_GET_REGS:
      Object.assign(arg as KvmRegs, state.getRegs());
      return 0;
    case KvmIoctl.KVM_SET_REGS:
      state.setRegs(arg as KvmRegs);
      return 0;
    case KvmIoctl.KVM_GET_SREGS:
      Object.assign(arg as KvmSregs, state.getSregs());
      return 0;
    case KvmIoctl.KVM_SET_SREGS:
      return state.setSregs(arg as KvmSregs);
    case KvmIoctl.KVM_GET_MSRS:
      return countWhile(arg as { entries: KvmMsrEntry[] }, (entry) => {
        const value = state.getMsr(entry.index);
        if (value !== null) entry.data = value;
        return value !== null;
      });
    case KvmIoctl.KVM_SET_MSRS:
      return countWhile(arg as { entries: KvmMsrEntry[] }, ({ index, data }) => state.setMsr(index, data));
    case KvmIoctl.KVM_GET_LAPIC:
      if (!vcpu.vm.splitIrqchip) return -Errno.EINVAL;
      (arg as { regs: Uint8Array }).regs = state.getLapic();
      return 0;
    case KvmIoctl.KVM_SET_LAPIC: {
      const { regs } = arg as { regs: Uint8Array };
      if (!vcpu.vm.splitIrqchip || regs.length !== LAPIC_SIZE) return -Errno.EINVAL;
      state.setLapic(regs);
      return 0;
    }
    default:
      return -Errno.EINVAL;
  }
}

function setMpState(vcpu: Vcpu, mpState: number): number {
  if (![KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_HALTED, KVM_MP_STATE_UNINITIALIZED].includes(mpState))
    return -Errno.EINVAL;
  // Start-up IPIs are the local APIC's business.
  if (mpState === KVM_MP_STATE_UNINITIALIZED && (!vcpu.vm.splitIrqchip || vcpu.vm.isTdx))
    return -Errno.EINVAL;
  vcpu.halted = mpState === KVM_MP_STATE_HALTED;
  vcpu.waitsForStartup = mpState === KVM_MP_STATE_UNINITIALIZED;
  return 0;
}

/** MSRs one after the other up to the first that fails. */
function countWhile({ entries }: { entries: KvmMsrEntry[] }, step: (entry: KvmMsrEntry) => boolean): number {
  const failed = entries.findIndex((entry) => !step(entry));
  return failed < 0 ? entries.length : failed;
}
