/**
 * The checks of VM entry on the VMCS: controls and host state (VMfailValid 7 and 8), guest state (exit 33).
 * Intel SDM vol. 3C sections 27.2 and 27.3. Each check is a row: what it is, and whether it holds.
 */
import type { PhysicalMemory } from "../memory/physical.js";
import {
  ALLOWED,
  ALLOWED_PROC3,
  CR0_FIXED0,
  CR0_FIXED1,
  CR3_TARGETS,
  CR4_FIXED0,
  CR4_FIXED1,
  ENTRY,
  EXIT,
  PIN,
  PROC,
  PROC2,
  PROC3,
  type AllowedControls,
} from "./controls.js";
import { VMCS } from "./fields.js";
import { Vmcs } from "./vmcs.js";

/** What checks look at. */
export interface CheckContext {
  v: Vmcs;
  readonly phys: PhysicalMemory;
  /** Entry from SEAM root mode. */
  seam: boolean;
  pin: number;
  proc: number;
  proc2: number;
  proc3: number;
  exit: number;
  entry: number;
}
export const newCheckContext = (phys: PhysicalMemory): CheckContext => ({
  v: new Vmcs(-1, -1, 0),
  phys,
  seam: false,
  pin: 0,
  proc: 0,
  proc2: 0,
  proc3: 0,
  exit: 0,
  entry: 0,
});
export interface Check {
  readonly what: string;
  holds(c: CheckContext): boolean;
}

const allows = (value: number, { fixed1, allowed1 }: AllowedControls): boolean =>
  (fixed1 & ~value) === 0 && (value & ~allowed1) === 0;
/** A physical address in a control: aligned, within MAXPHYADDR, no private KeyID outside SEAM. */
const address = (c: CheckContext, field: number, align: number): boolean => {
  const value = c.v.addr(field);
  if (value % align !== 0 || value >= 2 ** 52) return false;
  return c.seam || !c.phys.isPrivate(Math.floor(value / c.phys.keyIdUnit));
};
const eptpValid = (c: CheckContext, field: number, shared: boolean): boolean => {
  const lo = c.v.lo(field);
  const type = lo & 7;
  const levels = ((lo >>> 3) & 7) + 1;
  if ((type !== 0 && type !== 6) || (levels !== 4 && levels !== 5)) return false;
  if ((lo & 0xf80) !== 0 || c.v.hi(field) >>> 20 !== 0) return false;
  const base = c.v.addr(field) - (lo & 0xfff);
  const key = Math.floor(base / c.phys.keyIdUnit);
  // A TD's own EPT has no KeyID in its pointer: the TD's HKID is used.
  return shared || !c.seam ? !c.phys.isPrivate(key) : key === 0;
};

const msrArea = (c: CheckContext, count: number, field: number): boolean =>
  c.v.lo(count) === 0 || address(c, field, 16);

export const CONTROL_CHECKS: readonly Check[] = [
  { what: "pin-based controls", holds: (c) => allows(c.pin, ALLOWED.pin) },
  { what: "primary processor-based controls", holds: (c) => allows(c.proc, ALLOWED.proc) },
  { what: "secondary processor-based controls", holds: (c) => allows(c.proc2, ALLOWED.proc2) },
  {
    what: "tertiary processor-based controls",
    holds: (c) =>
      (c.proc3 & ~ALLOWED_PROC3) === 0 &&
      ((c.proc & PROC.ACTIVATE_TERTIARY) === 0 || c.v.hi(VMCS.TERTIARY_VM_EXEC_CONTROL) === 0),
  },
  { what: "VM-exit controls", holds: (c) => allows(c.exit, ALLOWED.exit) },
  { what: "VM-entry controls", holds: (c) => allows(c.entry, ALLOWED.entry) },
  { what: "CR3-target count", holds: (c) => c.v.lo(VMCS.CR3_TARGET_COUNT) <= CR3_TARGETS },
  {
    what: "I/O bitmaps",
    holds: (c) =>
      (c.proc & PROC.USE_IO_BITMAPS) === 0 ||
      (address(c, VMCS.IO_BITMAP_A, 4096) && address(c, VMCS.IO_BITMAP_B, 4096)),
  },
  {
    what: "MSR bitmaps",
    holds: (c) => (c.proc & PROC.USE_MSR_BITMAPS) === 0 || address(c, VMCS.MSR_BITMAP, 4096),
  },
  {
    what: "virtual-APIC page",
    holds: (c) => (c.proc & PROC.TPR_SHADOW) === 0 || address(c, VMCS.VIRTUAL_APIC_PAGE_ADDR, 4096),
  },
  {
    what: "TPR threshold",
    holds: (c) =>
      (c.proc & PROC.TPR_SHADOW) === 0 ||
      (c.proc2 & PROC2.VIRTUAL_INTERRUPT_DELIVERY) !== 0 ||
      c.v.lo(VMCS.TPR_THRESHOLD) >>> 4 === 0,
  },
  {
    what: "virtual NMIs need NMI exiting, NMI-window exiting needs virtual NMIs",
    holds: (c) =>
      ((c.pin & PIN.VIRTUAL_NMIS) === 0 || (c.pin & PIN.NMI_EXITING) !== 0) &&
      ((c.proc & PROC.NMI_WINDOW_EXITING) === 0 || (c.pin & PIN.VIRTUAL_NMIS) !== 0),
  },
  {
    what: "APIC virtualization needs a TPR shadow",
    holds: (c) =>
      (c.proc & PROC.TPR_SHADOW) !== 0 ||
      (c.proc2 &
        (PROC2.VIRTUALIZE_X2APIC_MODE |
          PROC2.APIC_REGISTER_VIRTUALIZATION |
          PROC2.VIRTUAL_INTERRUPT_DELIVERY)) ===
        0,
  },
  {
    what: "virtual-interrupt delivery needs external-interrupt exiting",
    holds: (c) =>
      (c.proc2 & PROC2.VIRTUAL_INTERRUPT_DELIVERY) === 0 || (c.pin & PIN.EXTERNAL_INTERRUPT_EXITING) !== 0,
  },
  {
    what: "posted interrupts",
    holds: (c) =>
      (c.pin & PIN.PROCESS_POSTED_INTERRUPTS) === 0 ||
      ((c.proc2 & PROC2.VIRTUAL_INTERRUPT_DELIVERY) !== 0 &&
        (c.exit & EXIT.ACK_INTERRUPT) !== 0 &&
        c.v.lo(VMCS.POSTED_INTR_NV) <= 0xff &&
        address(c, VMCS.POSTED_INTR_DESC_ADDR, 64)),
  },
  {
    what: "VPID",
    holds: (c) => (c.proc2 & PROC2.ENABLE_VPID) === 0 || c.v.lo(VMCS.VIRTUAL_PROCESSOR_ID) !== 0,
  },
  {
    what: "EPT pointer",
    holds: (c) => (c.proc2 & PROC2.ENABLE_EPT) === 0 || eptpValid(c, VMCS.EPT_POINTER, false),
  },
  {
    what: "unrestricted guest and mode-based execute control need EPT",
    holds: (c) =>
      (c.proc2 & PROC2.ENABLE_EPT) !== 0 ||
      (c.proc2 & (PROC2.UNRESTRICTED_GUEST | PROC2.MODE_BASED_EXECUTE)) === 0,
  },
  {
    what: "a TD needs EPT and a private KeyID",
    holds: (c) =>
      !c.seam || ((c.proc2 & PROC2.ENABLE_EPT) !== 0 && c.phys.isPrivate(c.v.lo(VMCS.TD_HKID) & 0xffff)),
  },
  { what: "GPAW is for TDs", holds: (c) => c.seam || (c.proc3 & PROC3.GPAW) === 0 },
  {
    what: "virtualization-exception information area",
    holds: (c) => (c.proc2 & PROC2.EPT_VIOLATION_VE) === 0 || address(c, VMCS.VE_INFORMATION_ADDRESS, 4096),
  },
  {
    what: "preemption timer is active when it is saved",
    holds: (c) => (c.pin & PIN.PREEMPTION_TIMER) !== 0 || (c.exit & EXIT.SAVE_PREEMPTION_TIMER) === 0,
  },
  {
    what: "MSR areas",
    holds: (c) =>
      msrArea(c, VMCS.VM_EXIT_MSR_STORE_COUNT, VMCS.VM_EXIT_MSR_STORE_ADDR) &&
      msrArea(c, VMCS.VM_EXIT_MSR_LOAD_COUNT, VMCS.VM_EXIT_MSR_LOAD_ADDR) &&
      msrArea(c, VMCS.VM_ENTRY_MSR_LOAD_COUNT, VMCS.VM_ENTRY_MSR_LOAD_ADDR),
  },
  {
    what: "SMM controls",
    holds: (c) => (c.entry & (ENTRY.ENTRY_TO_SMM | ENTRY.DEACTIVATE_DUAL_MONITOR)) === 0,
  },
];

/** VM-entry interruption information, SDM section 27.2.1.3. Checked at every entry: it changes with each. */
export function injectionValid(c: CheckContext): boolean {
  const info = c.v.lo(VMCS.VM_ENTRY_INTR_INFO_FIELD);
  if (info >>> 31 === 0) return true;
  const type = (info >>> 8) & 7;
  const vector = info & 0xff;
  const hasError = (info & 0x800) !== 0;
  if ((info & 0x7ffff000) !== 0 || type === 1) return false;
  if (type === 2 && vector !== 2) return false;
  if (type === 3 && vector > 31) return false;
  if (type === 7 && vector !== 0) return false;
  const protectedMode = (c.v.lo(VMCS.GUEST_CR0) & 1) !== 0 || (c.proc2 & PROC2.UNRESTRICTED_GUEST) === 0;
  const pushes = type === 3 && [8, 10, 11, 12, 13, 14, 17].includes(vector);
  // Vectors without an architectural error code may have one or not: IA32_VMX_BASIC[56].
  if (hasError && (!protectedMode || type !== 3)) return false;
  if (!hasError && pushes && protectedMode) return false;
  if (hasError && c.v.lo(VMCS.VM_ENTRY_EXCEPTION_ERROR_CODE) >>> 16 !== 0) return false;
  if (type >= 4 && type <= 6 && c.v.lo(VMCS.VM_ENTRY_INSTRUCTION_LEN) > 15) return false;
  return true;
}

/** Canonical for 57-bit linear addresses: bits 63:56 equal. */
const canonical = (c: CheckContext, field: number): boolean => {
  const top = c.v.hi(field) >> 24;
  return top === 0 || top === -1;
};
const cr0Valid = (c: CheckContext, field: number, unrestricted: boolean): boolean => {
  const fixed0 = unrestricted ? CR0_FIXED0 & 0x7ffffffe : CR0_FIXED0;
  const low = c.v.lo(field);
  return (fixed0 & ~low) === 0 && (low & ~CR0_FIXED1) === 0 && c.v.hi(field) === 0;
};
const cr4Valid = (c: CheckContext, field: number): boolean => {
  const low = c.v.lo(field);
  return (CR4_FIXED0 & ~low) === 0 && (low & ~CR4_FIXED1) === 0 && c.v.hi(field) === 0;
};
/** CR3 has no bits beyond MAXPHYADDR. */
const cr3Valid = (c: CheckContext, field: number): boolean => c.v.hi(field) >>> 20 === 0;
const patHalfValid = (half: number): boolean => {
  for (let i = 0; i < 32; i += 8) {
    const type = (half >>> i) & 0xff;
    if (type > 7 || type === 2 || type === 3) return false;
  }
  return true;
};
const patValid = (c: CheckContext, field: number): boolean =>
  patHalfValid(c.v.lo(field)) && patHalfValid(c.v.hi(field));
const EFER_RESERVED = ~0xd01n;

export const HOST_CHECKS: readonly Check[] = [
  { what: "host CR0", holds: (c) => cr0Valid(c, VMCS.HOST_CR0, false) },
  { what: "host CR4", holds: (c) => cr4Valid(c, VMCS.HOST_CR4) },
  { what: "host CR3", holds: (c) => cr3Valid(c, VMCS.HOST_CR3) },
  {
    what: "host canonical bases",
    holds: (c) =>
      [
        VMCS.HOST_FS_BASE,
        VMCS.HOST_GS_BASE,
        VMCS.HOST_GDTR_BASE,
        VMCS.HOST_IDTR_BASE,
        VMCS.HOST_TR_BASE,
        VMCS.HOST_IA32_SYSENTER_ESP,
        VMCS.HOST_IA32_SYSENTER_EIP,
        VMCS.HOST_RIP,
      ].every((field) => canonical(c, field)),
  },
  { what: "host PAT", holds: (c) => (c.exit & EXIT.LOAD_PAT) === 0 || patValid(c, VMCS.HOST_IA32_PAT) },
  {
    what: "host EFER",
    holds: (c) => {
      if ((c.exit & EXIT.LOAD_EFER) === 0) return true;
      const efer = c.v.get(VMCS.HOST_IA32_EFER);
      const long = (c.exit & EXIT.HOST_ADDRESS_SPACE_SIZE) !== 0 ? 0x500n : 0n;
      return (efer & EFER_RESERVED) === 0n && (efer & 0x500n) === long;
    },
  },
  {
    what: "host selectors",
    holds: (c) =>
      [
        VMCS.HOST_ES_SELECTOR,
        VMCS.HOST_CS_SELECTOR,
        VMCS.HOST_SS_SELECTOR,
        VMCS.HOST_DS_SELECTOR,
        VMCS.HOST_FS_SELECTOR,
        VMCS.HOST_GS_SELECTOR,
        VMCS.HOST_TR_SELECTOR,
      ].every((field) => (c.v.lo(field) & 7) === 0) &&
      c.v.lo(VMCS.HOST_CS_SELECTOR) !== 0 &&
      c.v.lo(VMCS.HOST_TR_SELECTOR) !== 0,
  },
  // The host of this processor is always 64-bit.
  {
    what: "host address-space size",
    holds: (c) => (c.exit & EXIT.HOST_ADDRESS_SPACE_SIZE) !== 0 && (c.v.lo(VMCS.HOST_CR4) & 0x20) !== 0,
  },
];

const AR_UNUSABLE = 0x10000;
const usable = (ar: number): boolean => (ar & AR_UNUSABLE) === 0;
const ar = (c: CheckContext, segment: number): number => c.v.lo(VMCS.GUEST_ES_AR_BYTES + segment * 2);
const limit = (c: CheckContext, segment: number): number => c.v.lo(VMCS.GUEST_ES_LIMIT + segment * 2);
const v86 = (c: CheckContext): boolean => (c.v.lo(VMCS.GUEST_RFLAGS) & 0x20000) !== 0;
const granularityMatches = (rights: number, size: number): boolean =>
  ((rights & 0x8000) === 0 || (size & 0xfff) === 0xfff) && ((rights & 0x8000) !== 0 || size >>> 20 === 0);

const RFLAGS_VM = 0x20000;
/** Checks on guest state that hardly changes from exit to entry: see `guestStateSettled`. */
export const SETTLED_GUEST_CHECKS: readonly Check[] = [
  {
    what: "guest CR0",
    holds: (c) => cr0Valid(c, VMCS.GUEST_CR0, (c.proc2 & PROC2.UNRESTRICTED_GUEST) !== 0),
  },
  { what: "guest CR0.PG needs PE", holds: (c) => (c.v.lo(VMCS.GUEST_CR0) & 0x80000001) >>> 0 !== 0x80000000 },
  { what: "guest CR4", holds: (c) => cr4Valid(c, VMCS.GUEST_CR4) },
  {
    what: "guest CET needs write protection",
    holds: (c) => (c.v.lo(VMCS.GUEST_CR4) & 0x800000) === 0 || (c.v.lo(VMCS.GUEST_CR0) & 0x10000) !== 0,
  },
  {
    what: "guest debug controls",
    holds: (c) =>
      (c.entry & ENTRY.LOAD_DEBUG_CONTROLS) === 0 ||
      ((c.v.lo(VMCS.GUEST_IA32_DEBUGCTL) & ~0xffc7) === 0 &&
        c.v.hi(VMCS.GUEST_IA32_DEBUGCTL) === 0 &&
        c.v.hi(VMCS.GUEST_DR7) === 0),
  },
  {
    what: "IA-32e mode guest needs paging with PAE",
    holds: (c) =>
      (c.entry & ENTRY.IA32E_MODE_GUEST) === 0 ||
      ((c.v.lo(VMCS.GUEST_CR0) & 0x80000000) !== 0 && (c.v.lo(VMCS.GUEST_CR4) & 0x20) !== 0),
  },
  {
    what: "PCID needs IA-32e mode",
    holds: (c) => (c.entry & ENTRY.IA32E_MODE_GUEST) !== 0 || (c.v.lo(VMCS.GUEST_CR4) & 0x20000) === 0,
  },
  { what: "guest CR3", holds: (c) => cr3Valid(c, VMCS.GUEST_CR3) },
  {
    what: "guest SYSENTER addresses",
    holds: (c) => canonical(c, VMCS.GUEST_SYSENTER_ESP) && canonical(c, VMCS.GUEST_SYSENTER_EIP),
  },
  {
    what: "guest PAT",
    holds: (c) => (c.entry & ENTRY.LOAD_PAT) === 0 || patValid(c, VMCS.GUEST_IA32_PAT),
  },
  {
    what: "guest EFER",
    holds: (c) => {
      if ((c.entry & ENTRY.LOAD_EFER) === 0) return true;
      const efer = c.v.lo(VMCS.GUEST_IA32_EFER);
      const ia32e = (c.entry & ENTRY.IA32E_MODE_GUEST) !== 0;
      if ((efer & ~0xd01) !== 0 || c.v.hi(VMCS.GUEST_IA32_EFER) !== 0) return false;
      if (((efer & 0x400) !== 0) !== ia32e) return false;
      return (c.v.lo(VMCS.GUEST_CR0) & 0x80000000) === 0 || ((efer & 0x100) !== 0) === ia32e;
    },
  },
  {
    what: "guest TR",
    holds: (c) => {
      const rights = ar(c, 7);
      const type = rights & 0xf;
      const ia32e = (c.entry & ENTRY.IA32E_MODE_GUEST) !== 0;
      return (
        (c.v.lo(VMCS.GUEST_TR_SELECTOR) & 4) === 0 &&
        usable(rights) &&
        (type === 11 || (type === 3 && !ia32e)) &&
        (rights & 0x90) === 0x80 &&
        granularityMatches(rights, limit(c, 7)) &&
        canonical(c, VMCS.GUEST_TR_BASE)
      );
    },
  },
  {
    what: "guest LDTR",
    holds: (c) => {
      const rights = ar(c, 6);
      if (!usable(rights)) return true;
      return (
        (c.v.lo(VMCS.GUEST_LDTR_SELECTOR) & 4) === 0 &&
        (rights & 0x9f) === 0x82 &&
        granularityMatches(rights, limit(c, 6)) &&
        canonical(c, VMCS.GUEST_LDTR_BASE)
      );
    },
  },
  {
    what: "guest CS",
    holds: (c) => {
      const rights = ar(c, 1);
      const type = rights & 0xf;
      if (v86(c)) return rights === 0xf3 && limit(c, 1) === 0xffff;
      const unrestricted = (c.proc2 & PROC2.UNRESTRICTED_GUEST) !== 0;
      return (
        (type === 9 || type === 11 || type === 13 || type === 15 || (type === 3 && unrestricted)) &&
        (rights & 0x90) === 0x90 &&
        !((c.entry & ENTRY.IA32E_MODE_GUEST) !== 0 && (rights & 0x6000) === 0x6000) &&
        granularityMatches(rights, limit(c, 1)) &&
        c.v.hi(VMCS.GUEST_CS_BASE) === 0
      );
    },
  },
  {
    what: "guest SS",
    holds: (c) => {
      const rights = ar(c, 2);
      if (v86(c)) return rights === 0xf3 && limit(c, 2) === 0xffff;
      if (!usable(rights)) return true;
      const type = rights & 0xf;
      return (
        (type === 3 || type === 7) && (rights & 0x90) === 0x90 && granularityMatches(rights, limit(c, 2))
      );
    },
  },
  {
    what: "guest data segments",
    holds: (c) =>
      [0, 3, 4, 5].every((segment) => {
        const rights = ar(c, segment);
        if (v86(c)) return rights === 0xf3 && limit(c, segment) === 0xffff;
        if (!usable(rights)) return true;
        return (
          (rights & 0x91) === 0x91 &&
          ((rights & 8) === 0 || (rights & 2) !== 0) &&
          granularityMatches(rights, limit(c, segment))
        );
      }),
  },
  {
    what: "guest segment bases",
    holds: (c) => canonical(c, VMCS.GUEST_FS_BASE) && canonical(c, VMCS.GUEST_GS_BASE),
  },
  {
    what: "guest descriptor tables",
    holds: (c) =>
      canonical(c, VMCS.GUEST_GDTR_BASE) &&
      canonical(c, VMCS.GUEST_IDTR_BASE) &&
      c.v.lo(VMCS.GUEST_GDTR_LIMIT) <= 0xffff &&
      c.v.lo(VMCS.GUEST_IDTR_LIMIT) <= 0xffff,
  },
];

/** Checks on guest state that instructions, exits and injection change: made at every entry. */
export const GUEST_CHECKS: readonly Check[] = [
  {
    what: "guest RIP",
    holds: (c) => {
      const long = (c.entry & ENTRY.IA32E_MODE_GUEST) !== 0 && (ar(c, 1) & 0x2000) !== 0;
      return long ? canonical(c, VMCS.GUEST_RIP) : c.v.hi(VMCS.GUEST_RIP) === 0;
    },
  },
  {
    what: "guest RFLAGS",
    holds: (c) => {
      const flags = c.v.lo(VMCS.GUEST_RFLAGS);
      if (c.v.hi(VMCS.GUEST_RFLAGS) !== 0 || (flags & 0xffc0802a) !== 2) return false;
      if (v86(c) && ((c.entry & ENTRY.IA32E_MODE_GUEST) !== 0 || (c.v.lo(VMCS.GUEST_CR0) & 1) === 0))
        return false;
      const info = c.v.lo(VMCS.VM_ENTRY_INTR_INFO_FIELD);
      return info >>> 31 === 0 || ((info >>> 8) & 7) !== 0 || (flags & 0x200) !== 0;
    },
  },
  {
    what: "guest activity state",
    holds: (c) => {
      const activity = c.v.lo(VMCS.GUEST_ACTIVITY_STATE);
      if (activity > 3) return false;
      if (activity === 1 && ((ar(c, 2) >>> 5) & 3) !== 0) return false;
      return activity === 0 || (c.v.lo(VMCS.GUEST_INTERRUPTIBILITY_INFO) & 3) === 0;
    },
  },
  {
    what: "guest interruptibility",
    holds: (c) => {
      const state = c.v.lo(VMCS.GUEST_INTERRUPTIBILITY_INFO);
      if ((state & ~0x1f) !== 0 || (state & 3) === 3 || (state & 4) !== 0) return false;
      if ((state & 1) !== 0 && (c.v.lo(VMCS.GUEST_RFLAGS) & 0x200) === 0) return false;
      const info = c.v.lo(VMCS.VM_ENTRY_INTR_INFO_FIELD);
      if (info >>> 31 === 1) {
        const type = (info >>> 8) & 7;
        if ((type === 0 && (state & 3) !== 0) || (type === 2 && (state & 2) !== 0)) return false;
        if (type === 2 && (c.pin & PIN.VIRTUAL_NMIS) !== 0 && (state & 8) !== 0) return false;
      }
      return true;
    },
  },
  {
    what: "guest pending debug exceptions",
    holds: (c) =>
      (c.v.lo(VMCS.GUEST_PENDING_DBG_EXCEPTIONS) & ~0x1500f) === 0 &&
      c.v.hi(VMCS.GUEST_PENDING_DBG_EXCEPTIONS) === 0,
  },
  {
    what: "VMCS link pointer",
    holds: (c) =>
      c.v.lo(VMCS.VMCS_LINK_POINTER) === 0xffffffff && c.v.hi(VMCS.VMCS_LINK_POINTER) === 0xffffffff,
  },
];

/**
 * Whether SETTLED_GUEST_CHECKS hold as at the last entry from this VMCS: nothing that they depend on has changed since.
 * (In virtual-8086 mode, which is in RFLAGS, they are made every time.)
 */
export const guestStateSettled = ({ v }: CheckContext): boolean =>
  v.guestChecked && (v.lo(VMCS.GUEST_RFLAGS) & RFLAGS_VM) === 0;
/** They passed. */
export function settleGuestState({ v }: CheckContext): void {
  v.guestChecked = (v.lo(VMCS.GUEST_RFLAGS) & RFLAGS_VM) === 0;
}

/** The first check that does not hold, or null. */
export function firstFailed(checks: readonly Check[], c: CheckContext): Check | null {
  for (const check of checks) if (!check.holds(c)) return check;
  return null;
}
