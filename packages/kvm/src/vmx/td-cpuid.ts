/**
 * KVM_TDX_GET_CPUID: the CPUID that the module virtualizes for a TD, read field by field from TDCS.CPUID_VALUES.
 * Source: Linux arch/x86/kvm/vmx/tdx.c (tdx_read_cpuid, tdx_vcpu_get_cpuid).
 */
import {
  KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
  type KvmCpuidEntry2,
  metadataFieldId,
  TD_METADATA,
} from "@swtdx/abi";

/** TDH.MNG.RD of a field; null: the module refuses. */
export type ReadTdField = (field: bigint) => bigint | null;

/** Leaf bits 30:7 have no place in a field identifier. */
const UNREADABLE_LEAF = 0x7fff_ff80;
const MAX_SUB_LEAF = 0x7f;
const NO_SUB_LEAF = 0x1fe;
const EXTENDED = 0x8000_0000;
const MAX_PHYS_LEAF = 0x8000_0008;
const GUEST_PHYS_SHIFT = 16;

function readEntry(read: ReadTdField, leaf: number, subLeaf: number | null): KvmCpuidEntry2 | null {
  if ((leaf & UNREADABLE_LEAF) !== 0) return null;
  // Bit 16 leaf bit 31, bits 15:9 leaf, bit 8 no sub-leaf, bits 7:1 sub-leaf, bit 0 which half.
  const place =
    (leaf >= EXTENDED ? 1 << 16 : 0) |
    ((leaf & 0x7f) << 9) |
    (subLeaf === null ? NO_SUB_LEAF : (subLeaf & MAX_SUB_LEAF) << 1);
  const field = metadataFieldId(TD_METADATA.CPUID_VALUES) | BigInt(place);
  const first = read(field);
  if (first === null) return null;
  const second = read(field + 1n) ?? 0n;
  const low = (value: bigint): number => Number(value & 0xffff_ffffn);
  return {
    function: leaf,
    index: subLeaf ?? 0,
    flags: subLeaf === null ? 0 : KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
    eax: low(first),
    ebx: low(first >> 32n),
    ecx: low(second),
    edx: low(second >> 32n),
  };
}

/** A leaf without sub-leaves, or all its sub-leaves. */
function readLeaf(read: ReadTdField, leaf: number): KvmCpuidEntry2[] {
  const single = readEntry(read, leaf, null);
  if (single) return [single];
  const out: KvmCpuidEntry2[] = [];
  for (let subLeaf = 0; subLeaf <= MAX_SUB_LEAF; subLeaf++) {
    const entry = readEntry(read, leaf, subLeaf);
    if (!entry) break;
    out.push(entry);
  }
  return out;
}

/** @returns null when the module does not tell even how many leaves there are */
export function readTdCpuid(read: ReadTdField, guestPhysBits: number): KvmCpuidEntry2[] | null {
  const out: KvmCpuidEntry2[] = [];
  for (const base of [0, EXTENDED]) {
    const [head] = readLeaf(read, base);
    if (!head) return null;
    out.push(head);
    for (let leaf = base + 1; leaf <= head.eax; leaf++) out.push(...readLeaf(read, leaf));
  }
  // GPAW is what KVM shows there.
  return out.map((entry) =>
    entry.function === MAX_PHYS_LEAF
      ? {
          ...entry,
          eax: ((entry.eax & ~(0xff << GUEST_PHYS_SHIFT)) | (guestPhysBits << GUEST_PHYS_SHIFT)) >>> 0,
        }
      : entry,
  );
}
