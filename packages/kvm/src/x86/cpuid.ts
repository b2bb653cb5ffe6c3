/** KVM_GET_SUPPORTED_CPUID: what KVM can give a guest of the processor's CPUID. Source: Linux arch/x86/kvm/cpuid.c. */
import {
  Errno,
  KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
  KVM_MAX_CPUID_ENTRIES,
  type KvmCpuid2,
  type KvmCpuidEntry2,
} from "@swtdx/abi";
import type { LogicalProcessor } from "@swtdx/linux-host";
import { maskCpuid } from "./cpu-caps.js";

/** Leaves with sub-leaves, and how many there are at most. */
const SUBLEAVES: Readonly<Record<number, number>> = {
  4: 8,
  7: 3,
  0xb: 2,
  0xd: 64,
  0x12: 2,
  0x14: 2,
  0x1d: 2,
  0x1f: 3,
};
const MAX_BASIC = 0x1f;
const KVM_SIGNATURE = 0x4000_0000;
const KVM_FEATURES = 0x4000_0001;
/** NOP_IO_DELAY, PV_UNHALT, PV_TLB_FLUSH, PV_SEND_IPI, POLL_CONTROL, PV_SCHED_YIELD, MSI_EXT_DEST_ID. */
const KVM_FEATURE_BITS = (1 << 1) | (1 << 7) | (1 << 9) | (1 << 11) | (1 << 12) | (1 << 13) | (1 << 15);

export function supportedCpuid(lp: LogicalProcessor): KvmCpuidEntry2[] {
  const out: KvmCpuidEntry2[] = [];
  const add = (leaf: number, index: number, indexed: boolean): boolean => {
    const { eax, ebx, ecx, edx } = lp.cpuid(leaf, index);
    if (indexed && index > 0 && (eax | ebx | ecx | edx) === 0) return false;
    const flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
    const values = maskCpuid(leaf, index, { eax: eax >>> 0, ebx: ebx >>> 0, ecx: ecx >>> 0, edx: edx >>> 0 });
    out.push({ function: leaf, index, flags, ...values });
    return true;
  };
  const range = (first: number, last: number): void => {
    for (let leaf = first; leaf <= last; leaf++) {
      const count = SUBLEAVES[leaf] ?? 1;
      for (let index = 0; index < count; index++) {
        const found = add(leaf, index, count > 1);
        // Components of leaf 0xD are sparse.
        if (!found && leaf !== 0xd) break;
      }
    }
  };
  range(0, Math.min(lp.cpuid(0).eax, MAX_BASIC));
  range(0x8000_0000, lp.cpuid(0x8000_0000).eax >>> 0);
  const none = { index: 0, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 };
  out.push({
    ...none,
    function: KVM_SIGNATURE,
    eax: KVM_FEATURES,
    ebx: 0x4b4d564b,
    ecx: 0x564b4d56,
    edx: 0x4d,
  });
  out.push({ ...none, function: KVM_FEATURES, eax: KVM_FEATURE_BITS });
  return out;
}

/** The entry for a leaf and sub-leaf as a guest's CPUID would find it, or null. */
export const findCpuid = (
  entries: readonly KvmCpuidEntry2[],
  leaf: number,
  index: number,
): KvmCpuidEntry2 | null =>
  entries.find(
    (entry) =>
      entry.function === leaf >>> 0 &&
      ((entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) === 0 || entry.index === index >>> 0),
  ) ?? null;

const NONE = { eax: 0, ebx: 0, ecx: 0, edx: 0 } as const;
const HYPERVISOR_CLASS = 0x4000_0000;

/**
 * CPUID as KVM answers it: a leaf beyond the guest's last basic or extended one is Intel's "the last basic leaf".
 * Source: Linux arch/x86/kvm/cpuid.c (kvm_cpuid, get_out_of_range_cpuid_entry).
 */
export function kvmCpuid(
  entries: readonly KvmCpuidEntry2[],
  leaf: number,
  index: number,
): { eax: number; ebx: number; ecx: number; edx: number } {
  const found = findCpuid(entries, leaf, index);
  if (found) return found;
  const number = leaf >>> 0;
  const group = number >= 0x8000_0000 ? 0x8000_0000 : number >= HYPERVISOR_CLASS ? HYPERVISOR_CLASS : 0;
  const first = findCpuid(entries, group, 0);
  const last = findCpuid(entries, 0, 0)?.eax;
  // A leaf within the range that is not listed is empty; so are hypervisor leaves beyond it.
  if (last === undefined || group === HYPERVISOR_CLASS || (first && number <= first.eax >>> 0)) return NONE;
  return findCpuid(entries, last, index) ?? NONE;
}

/** A kvm_cpuid2 for the caller: -E2BIG when it has too little room. */
export function fillCpuid(target: KvmCpuid2, entries: readonly KvmCpuid2["entries"][number][]): number {
  if (target.nent < entries.length) return -Errno.E2BIG;
  if (target.nent > KVM_MAX_CPUID_ENTRIES) target.nent = KVM_MAX_CPUID_ENTRIES;
  target.nent = entries.length;
  target.entries = entries.map((entry) => ({ ...entry }));
  return 0;
}
