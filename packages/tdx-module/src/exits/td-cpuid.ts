/**
 * VM exit of CPUID: #VE, or the TD's value with what depends on the moment filled in.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/td_cpuid.c; TD_CTLS.VIRT_CPUID2 as in later modules.
 */
import { TD_CTLS, type Hpa } from "@swtdx/abi";
import { Gpr, VMCS } from "@swtdx/cpu";
import type { VpContext } from "../entry/vp-context.js";
import { readMsr } from "../entry/guest-state.js";
import { TDCS } from "../structures/tdcs.js";
import { TDVPS } from "../structures/tdvps.js";
import {
  CPUID_LAST_BASE_LEAF,
  CPUID_LAST_EXTENDED_LEAF,
  CPUID_LOOKUP,
  CPUID_RESERVED_END,
  CPUID_RESERVED_START,
  getCpuidLookupEntry,
} from "../tables/cpuid.js";
import { CpuidFlag } from "../tables/td-cpuid.js";
import { ExitReason } from "../tables/exit-reasons.js";
import { guestCpl, injectVe, isGuestIn64bMode } from "./inject.js";

const CR4_OSXSAVE = 1n << 18n;
const CR4_PKE = 1n << 22n;
const IA32_TSX_CTRL = 0x122;
const values = new Uint8Array(16);
const values32 = new Uint32Array(values.buffer);

/** A leaf above its range's end is answered as the end of the basic range. */
export function normalizeCpuidLeaf(leaf: number): number {
  if (leaf >= CPUID_RESERVED_START && leaf <= CPUID_RESERVED_END) return leaf;
  if (leaf > CPUID_LAST_EXTENDED_LEAF || (leaf > CPUID_LAST_BASE_LEAF && leaf < 0x80000000))
    return CPUID_LAST_BASE_LEAF;
  return leaf;
}

export function tdCpuidExit(vp: VpContext): void {
  const { lp, regs, tdcs, tdvps } = vp;
  const leaf = normalizeCpuidLeaf(regs.get32(Gpr.RAX * 8));
  const subleaf = regs.get32(Gpr.RCX * 8);
  const index = getCpuidLookupEntry(leaf, subleaf);
  if (index < 0 || CPUID_LOOKUP[index]!.faulting || guestWantsVe(vp, index))
    return injectVe(vp, ExitReason.CPUID, 0n);

  lp.read((tdcs.pa(TDCS.CPUID_VALUES.offset) + index * 16) as Hpa, tdcs.keyId, values);
  const tdCtls = tdcs.get(TDCS.TD_CTLS);
  switch (leaf) {
    case 0x1: {
      const id =
        (tdCtls & TD_CTLS.ENUM_TOPOLOGY) !== 0n ? tdvps.get(TDVPS.X2APIC_ID) : tdvps.get(TDVPS.VCPU_INDEX);
      values32[1] = (values32[1] & 0x00ffffff) | ((id & 0xff) << 24);
      values32[2] &= ~(1 << 27);
      if ((lp.vmread(VMCS.GUEST_CR4) & CR4_OSXSAVE) !== 0n) values32[2] |= 1 << 27;
      break;
    }
    case 0x2:
      if ((tdCtls & TD_CTLS.VIRT_CPUID2) === 0n) return injectVe(vp, ExitReason.CPUID, 0n);
      break;
    case 0x7:
      if (subleaf !== 0) break;
      if (tdcs.getAt(TDCS.CPUID_FLAGS, CpuidFlag.tsx_supported) && (readMsr(lp, IA32_TSX_CTRL) & 2n) !== 0n)
        values32[1] &= ~((1 << 4) | (1 << 11));
      values32[2] &= ~(1 << 4);
      if ((lp.vmread(VMCS.GUEST_CR4) & CR4_PKE) !== 0n) values32[2] |= 1 << 4;
      break;
    case 0xb:
    case 0x1f:
      if ((tdCtls & TD_CTLS.ENUM_TOPOLOGY) === 0n) return injectVe(vp, ExitReason.CPUID, 0n);
      values32[3] = tdvps.get(TDVPS.X2APIC_ID);
      break;
    case 0xd:
      // Size for what XCR0 (and IA32_XSS) enable now: they still are the guest's.
      if (subleaf <= 1) values32[1] = lp.cpuid(leaf, subleaf).ebx;
      break;
    case 0x80000001:
      values32[3] &= ~(1 << 11);
      if (isGuestIn64bMode(vp)) values32[3] |= 1 << 11;
      break;
  }
  regs.setGpr(Gpr.RAX, BigInt(values32[0]));
  regs.setGpr(Gpr.RBX, BigInt(values32[1]));
  regs.setGpr(Gpr.RCX, BigInt(values32[2]));
  regs.setGpr(Gpr.RDX, BigInt(values32[3]));
}

/** The TD chose #VE for its CPUIDs at this CPL, all of them or this one. */
function guestWantsVe(vp: VpContext, index: number): boolean {
  const { tdvps } = vp;
  const control = tdvps.getAt(TDVPS.CPUID_CONTROL, index);
  return guestCpl(vp) === 0
    ? tdvps.get(TDVPS.CPUID_SUPERVISOR_VE) !== 0 || (control & 1) !== 0
    : tdvps.get(TDVPS.CPUID_USER_VE) !== 0 || (control & 2) !== 0;
}
