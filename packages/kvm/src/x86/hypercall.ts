/**
 * KVM's own hypercalls (VMCALL of an ordinary VM, TDG.VP.VMCALL with R10 != 0 of a TD).
 * Source: Linux arch/x86/kvm/x86.c (____kvm_emulate_hypercall), Documentation/virt/kvm/x86/hypercalls.rst.
 */
import { KVM_ENOSYS, KVM_HC_KICK_CPU, KVM_HC_SCHED_YIELD, KVM_HC_SEND_IPI } from "@swtdx/abi";
import type { Vcpu } from "../vcpu.js";
import { icrMessage } from "./apic-bus.js";

const KVM_HC_VAPIC_POLL_IRQ = 1n;

/** @param args up to four arguments. @returns what the guest gets: a negated errno or a result, 64 bits */
export function kvmHypercall(vcpu: Vcpu, number: bigint, args: readonly bigint[]): bigint {
  const [a0 = 0n, a1 = 0n, a2 = 0n, a3 = 0n] = args;
  switch (number) {
    case KVM_HC_VAPIC_POLL_IRQ:
      return 0n;
    case BigInt(KVM_HC_KICK_CPU): {
      // A vCPU that waits in HLT for a lock goes on: here by being looked at again.
      const target = vcpu.vm.vcpu(Number(a1 & 0xffff_ffffn));
      if (target) target.halted = false;
      return 0n;
    }
    case BigInt(KVM_HC_SEND_IPI):
      return BigInt(sendIpi(vcpu, a0 | (a1 << 64n), Number(a2 & 0xffff_ffffn), Number(a3 & 0xffff_ffffn)));
    case BigInt(KVM_HC_SCHED_YIELD):
      return 0n;
    default:
      return BigInt.asUintN(64, BigInt(-KVM_ENOSYS));
  }
}

/** A bitmap of 128 APIC IDs from `first` on. @returns how many took it */
function sendIpi(vcpu: Vcpu, bitmap: bigint, first: number, icr: number): number {
  let count = 0;
  for (let i = 0; i < 128; i++) {
    if (((bitmap >> BigInt(i)) & 1n) === 0n) continue;
    // Beyond the highest ID there is nobody, and no broadcast.
    if (!vcpu.vm.vcpu(first + i)) continue;
    const message = { ...icrMessage(icr, first + i), logical: false, shorthand: 0 };
    count += vcpu.vm.sendMessage(message, -1);
  }
  return count;
}
