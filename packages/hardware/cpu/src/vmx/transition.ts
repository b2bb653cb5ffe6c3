/**
 * VM entry and VM exit: moving state between the VMCS and the registers.
 * Intel SDM vol. 3C chapters 27 (VM entries) and 28 (VM exits).
 */
import { REG, RegisterFile, SEG, SEGMENT_SIZE, SegmentRegister } from "@swtdx/x86";
import { Step } from "../interface/engine.js";
import type { Guest } from "../guest/guest.js";
import { type MsrFile, msrSlot } from "../msr/msr-file.js";
import type { PhysicalMemory } from "../memory/physical.js";
import { ENTRY, EXIT, PROC, PROC2, PROC3 } from "./controls.js";
import {
  CONTROL_CHECKS,
  firstFailed,
  GUEST_CHECKS,
  guestStateSettled,
  HOST_CHECKS,
  injectionValid,
  SETTLED_GUEST_CHECKS,
  settleGuestState,
  type Check,
  type CheckContext,
} from "./entry-checks.js";
import { FIELD_INDEX, VMCS } from "./fields.js";
import type { Vmcs } from "./vmcs.js";
import type { EptRoot } from "../memory/ept.js";

/** 64-bit registers that have a VMCS field each, by their place in the register file: those that change all the time. */
const CHANGING_REGISTERS: readonly (readonly [number, number])[] = [
  [VMCS.GUEST_RSP, REG.GPR + 4 * 8],
  [VMCS.GUEST_RIP, REG.RIP],
  [VMCS.GUEST_RFLAGS, REG.RFLAGS],
];
const SETTLED_REGISTERS: readonly (readonly [number, number])[] = [
  [VMCS.GUEST_CR0, REG.CR0],
  [VMCS.GUEST_CR3, REG.CR3],
  [VMCS.GUEST_CR4, REG.CR4],
  [VMCS.GUEST_GDTR_BASE, REG.GDTR_BASE],
  [VMCS.GUEST_IDTR_BASE, REG.IDTR_BASE],
  [VMCS.GUEST_SYSENTER_ESP, REG.SYSENTER_ESP],
  [VMCS.GUEST_SYSENTER_EIP, REG.SYSENTER_EIP],
];
export const GUEST_REGISTERS = [...CHANGING_REGISTERS, ...SETTLED_REGISTERS];

/** Guest state that MSRs outside the register file hold: VMCS field, MSR, and the controls that load and save it. */
const GUEST_MSRS = [
  {
    field: VMCS.GUEST_IA32_DEBUGCTL,
    msr: 0x1d9,
    load: ENTRY.LOAD_DEBUG_CONTROLS,
    save: EXIT.SAVE_DEBUG_CONTROLS,
  },
  {
    field: VMCS.GUEST_IA32_PERF_GLOBAL_CTRL,
    msr: 0x38f,
    load: ENTRY.LOAD_PERF_GLOBAL_CTRL,
    save: EXIT.SAVE_PERF_GLOBAL_CTRL,
  },
  { field: VMCS.GUEST_IA32_RTIT_CTL, msr: 0x570, load: ENTRY.LOAD_RTIT_CTL, save: -1 },
  { field: VMCS.GUEST_IA32_LBR_CTL, msr: 0x14ce, load: ENTRY.LOAD_LBR_CTL, save: -1 },
  { field: VMCS.GUEST_IA32_PKRS, msr: 0x6e1, load: ENTRY.LOAD_PKRS, save: -1 },
  { field: VMCS.GUEST_S_CET, msr: 0x6a2, load: ENTRY.LOAD_CET, save: -1 },
  { field: VMCS.GUEST_INTR_SSP_TABLE, msr: 0x6a8, load: ENTRY.LOAD_CET, save: -1 },
].map(({ field, msr, load, save }) => ({ field: low(field), slot: msrSlot(msr), load, save }));

/**
 * The words of guest state that VM entries load and VM exits save as they are: by number in the VMCS's data, and in the
 * register file.
 */
const CHANGING_WORDS: readonly (readonly [number, number])[] = [
  ...CHANGING_REGISTERS.flatMap(([field, register]) => both(field, register)),
  [low(VMCS.GUEST_INTERRUPTIBILITY_INFO), REG.INTERRUPTIBILITY / 4],
  [low(VMCS.GUEST_ACTIVITY_STATE), REG.ACTIVITY / 4],
];
const SETTLED_WORDS: readonly (readonly [number, number])[] = [
  ...SETTLED_REGISTERS.flatMap(([field, register]) => both(field, register)),
  [low(VMCS.GUEST_GDTR_LIMIT), REG.GDTR_LIMIT / 4],
  [low(VMCS.GUEST_IDTR_LIMIT), REG.IDTR_LIMIT / 4],
  [low(VMCS.GUEST_SYSENTER_CS), REG.SYSENTER_CS / 4],
];
const GUEST_WORDS = [...CHANGING_WORDS, ...SETTLED_WORDS];
const GUEST_FIELD_WORDS = Uint16Array.from(GUEST_WORDS, ([field]) => field);
const GUEST_REGISTER_WORDS = Uint16Array.from(GUEST_WORDS, ([, register]) => register);
/** Those before this one are among CHANGING_WORDS. */
const FIRST_SETTLED = CHANGING_WORDS.length;
/** ES's fields, of which those of the other segment registers follow each; and its words in the register file. */
const SELECTORS = low(VMCS.GUEST_ES_SELECTOR);
const LIMITS = low(VMCS.GUEST_ES_LIMIT);
const RIGHTS = low(VMCS.GUEST_ES_AR_BYTES);
const BASES = low(VMCS.GUEST_ES_BASE);
const SEGMENTS = RegisterFile.segment(0) / 4;
const SEGMENT_WORDS = SEGMENT_SIZE / 4;
const PDPTE_WORDS = low(VMCS.GUEST_PDPTR0);

/** Number of a field's low word in the VMCS's data. */
function low(field: number): number {
  return FIELD_INDEX[field] * 2;
}
/** Both words of a field and of its register. */
function both(field: number, register: number): [number, number][] {
  return [
    [low(field), register / 4],
    [low(field) + 1, register / 4 + 1],
  ];
}

export interface TransitionContext {
  readonly regs: RegisterFile;
  readonly guest: Guest;
  readonly msrs: MsrFile;
  readonly phys: PhysicalMemory;
}

/** What the checks of an entry from this VMCS look at. */
export function checkContext(c: CheckContext, v: Vmcs, seam: boolean): CheckContext {
  const proc = v.lo(VMCS.CPU_BASED_VM_EXEC_CONTROL);
  c.v = v;
  c.seam = seam;
  c.pin = v.lo(VMCS.PIN_BASED_VM_EXEC_CONTROL);
  c.proc = proc;
  c.proc2 = (proc & PROC.ACTIVATE_SECONDARY) !== 0 ? v.lo(VMCS.SECONDARY_VM_EXEC_CONTROL) : 0;
  c.proc3 = (proc & PROC.ACTIVATE_TERTIARY) !== 0 ? v.lo(VMCS.TERTIARY_VM_EXEC_CONTROL) : 0;
  c.exit = v.lo(VMCS.VM_EXIT_CONTROLS);
  c.entry = v.lo(VMCS.VM_ENTRY_CONTROLS);
  return c;
}

/** VM-instruction error 7 or 8, or 0. */
export function checkControlsAndHost(c: CheckContext, failed: (what: string) => void): 0 | 7 | 8 {
  if (!c.v.checked) {
    let check = firstFailed(CONTROL_CHECKS, c);
    if (check) {
      failed(check.what);
      return 7;
    }
    check = firstFailed(HOST_CHECKS, c);
    if (check) {
      failed(check.what);
      return 8;
    }
    c.v.checked = true;
  }
  if (injectionValid(c)) return 0;
  failed("event injection");
  return 7;
}

/** Checks guest state. @returns exit qualification of the failure, or -1 when it is valid */
export function checkGuest(c: CheckContext, failed: (what: string) => void): number {
  let check: Check | null = null;
  if (!guestStateSettled(c)) {
    check = firstFailed(SETTLED_GUEST_CHECKS, c);
    if (!check) settleGuestState(c);
  }
  check ??= firstFailed(GUEST_CHECKS, c);
  if (!check) return -1;
  failed(check.what);
  return check.what === "VMCS link pointer" ? 4 : 0;
}

/** An EPT pointer as the walker wants it. */
function eptRoot(
  root: EptRoot,
  phys: PhysicalMemory,
  v: Vmcs,
  field: number,
  tdHkid: number,
  proc2: number,
): EptRoot {
  const pointer = v.addr(field);
  const low = v.lo(field);
  phys.split(pointer - (low & 0xfff));
  root.base = phys.hpa;
  root.levels = ((low >>> 3) & 7) + 1;
  root.keyId = tdHkid >= 0 ? tdHkid : phys.keyId;
  root.private = tdHkid >= 0;
  root.accessedDirty = (low & 0x40) !== 0;
  root.modeBasedExecute = (proc2 & PROC2.MODE_BASED_EXECUTE) !== 0;
  return root;
}

/**
 * Loads guest state and the MSR-load area, and prepares event injection.
 * @returns 0, or the number of the MSR-load entry (from 1) that failed
 */
export function loadGuest(t: TransitionContext, c: CheckContext): number {
  const { regs, guest, msrs, phys } = t;
  const { v } = c;
  const { u32 } = regs;
  const { data } = v;
  for (let i = 0; i < GUEST_FIELD_WORDS.length; i++)
    u32[GUEST_REGISTER_WORDS[i]] = data[GUEST_FIELD_WORDS[i]];
  u32[REG.SYSENTER_CS / 4 + 1] = 0;
  for (let i = 0, at = SEGMENTS; i < 16; i += 2, at += SEGMENT_WORDS) {
    u32[at + SEG.BASE / 4] = data[BASES + i];
    u32[at + SEG.BASE / 4 + 1] = data[BASES + i + 1];
    u32[at + SEG.LIMIT / 4] = data[LIMITS + i];
    u32[at + SEG.AR / 4] = data[RIGHTS + i];
    u32[at + SEG.SELECTOR / 4] = data[SELECTORS + i] & 0xffff;
  }
  // CR0: ET, NW, CD and the reserved bits keep their values; ET reads as 1.
  u32[REG.CR0 / 4] |= 0x10;
  if ((c.entry & ENTRY.LOAD_DEBUG_CONTROLS) !== 0) {
    u32[REG.DR7 / 4] = (v.lo(VMCS.GUEST_DR7) & 0xffff2fff) | 0x400;
    u32[REG.DR7 / 4 + 1] = 0;
  }
  if ((c.entry & ENTRY.LOAD_PAT) !== 0) {
    u32[REG.PAT / 4] = v.lo(VMCS.GUEST_IA32_PAT);
    u32[REG.PAT / 4 + 1] = v.hi(VMCS.GUEST_IA32_PAT);
  }
  const ia32e = (c.entry & ENTRY.IA32E_MODE_GUEST) !== 0;
  if ((c.entry & ENTRY.LOAD_EFER) !== 0) {
    u32[REG.EFER / 4] = v.lo(VMCS.GUEST_IA32_EFER);
    u32[REG.EFER / 4 + 1] = v.hi(VMCS.GUEST_IA32_EFER);
  } else {
    const efer = u32[REG.EFER / 4];
    const paging = (v.lo(VMCS.GUEST_CR0) & 0x80000000) !== 0;
    u32[REG.EFER / 4] = ia32e ? efer | 0x500 : paging ? efer & ~0x500 : efer & ~0x400;
  }
  for (let i = 0; i < GUEST_MSRS.length; i++) {
    const one = GUEST_MSRS[i];
    if ((c.entry & one.load) === 0) continue;
    msrs.low[one.slot] = data[one.field];
    msrs.high[one.slot] = data[one.field + 1];
  }

  // Paging: tags, EPT, PDPTEs.
  const useEpt = (c.proc2 & PROC2.ENABLE_EPT) !== 0;
  guest.vpid = (c.proc2 & PROC2.ENABLE_VPID) !== 0 ? v.lo(VMCS.VIRTUAL_PROCESSOR_ID) : 0;
  const hkid = c.seam ? v.lo(VMCS.TD_HKID) & 0xffff : -1;
  guest.eptRoot = useEpt ? eptRoot(guest.ownRoot, phys, v, VMCS.EPT_POINTER, hkid, c.proc2) : null;
  guest.sharedRoot = null;
  guest.sharedBit = 0;
  if (c.seam) {
    guest.sharedBit = (c.proc3 & PROC3.GPAW) !== 0 ? 2 ** 51 : 2 ** 47;
    // The shared EPT has as many levels as the private one, whatever stands in its pointer's low bits.
    const shared = eptRoot(guest.ownSharedRoot, phys, v, VMCS.SHARED_EPT_POINTER, -1, c.proc2);
    shared.levels = guest.eptRoot!.levels;
    shared.accessedDirty = false;
    guest.sharedRoot = shared;
  }
  for (let i = 0; i < 8; i++) guest.mode.pdptes[i] = data[PDPTE_WORDS + i];
  guest.begin(v, c);
  // Without VPIDs entries and exits flush.
  if (guest.vpid === 0) guest.tlb.flushVpid(0, false);
  guest.updateMode();
  return loadMsrs(t, v, VMCS.VM_ENTRY_MSR_LOAD_COUNT, VMCS.VM_ENTRY_MSR_LOAD_ADDR, c.seam);
}

/** MSRs that a load or store area may not name: FS/GS base, x2APIC registers, SMM's. */
const forbiddenInArea = (index: number): boolean =>
  index === 0xc0000100 ||
  index === 0xc0000101 ||
  (index >= 0x800 && index <= 0x8ff) ||
  index === 0x9e ||
  index === 0x79;

function loadMsrs(t: TransitionContext, v: Vmcs, count: number, field: number, seam: boolean): number {
  const { phys, msrs } = t;
  const total = v.lo(count);
  for (let i = 0; i < total; i++) {
    phys.split(v.addr(field) + i * 16);
    const { hpa, keyId } = phys;
    phys.readQ(hpa, keyId, seam);
    const index = phys.lo;
    if (phys.hi !== 0 || forbiddenInArea(index)) return i + 1;
    phys.readQ(hpa + 8, keyId, seam);
    if (!msrs.write(index, (BigInt(phys.hi) << 32n) | BigInt(phys.lo))) return i + 1;
  }
  return 0;
}
/** @returns whether all could be stored; otherwise the exit becomes a VMX abort */
function storeMsrs(t: TransitionContext, v: Vmcs, seam: boolean): boolean {
  const { phys, msrs } = t;
  const total = v.lo(VMCS.VM_EXIT_MSR_STORE_COUNT);
  for (let i = 0; i < total; i++) {
    phys.split(v.addr(VMCS.VM_EXIT_MSR_STORE_ADDR) + i * 16);
    const { hpa, keyId } = phys;
    phys.readQ(hpa, keyId, seam);
    const index = phys.lo;
    const value = phys.hi !== 0 || forbiddenInArea(index) ? null : msrs.read(index);
    if (value === null) return false;
    phys.writeQ(hpa + 8, keyId, Number(value & 0xffffffffn), Number(value >> 32n), seam);
  }
  return true;
}

/** Injects the event of the VM-entry interruption-information field. Step.EVENT: it is in `guest.event`. */
export function injectEvent(t: TransitionContext, v: Vmcs): Step {
  const info = v.lo(VMCS.VM_ENTRY_INTR_INFO_FIELD);
  if (info >>> 31 === 0) return Step.DONE;
  // The valid bit is cleared by every VM exit, not here.
  const { guest, regs } = t;
  const type = (info >>> 8) & 7;
  const { event } = guest;
  event.vector = info & 0xff;
  event.type = type;
  event.hasErrorCode = (info & 0x800) !== 0;
  event.errorCode = event.hasErrorCode ? v.lo(VMCS.VM_ENTRY_EXCEPTION_ERROR_CODE) : 0;
  event.length = type >= 4 ? v.lo(VMCS.VM_ENTRY_INSTRUCTION_LEN) : 0;
  if (type === 7) return Step.DONE;
  if (type === 2 && guest.virtualNmis) regs.set32(REG.INTERRUPTIBILITY, regs.get32(REG.INTERRUPTIBILITY) | 8);
  regs.set32(REG.ACTIVITY, 0);
  return Step.EVENT;
}

/** Saves guest state after a VM exit that is not an entry failure. */
export function saveGuest(t: TransitionContext, v: Vmcs): void {
  const { regs, guest, msrs } = t;
  const exit = v.lo(VMCS.VM_EXIT_CONTROLS);
  const { u32 } = regs;
  const { data } = v;
  for (let i = 0; i < FIRST_SETTLED; i++) data[GUEST_FIELD_WORDS[i]] = u32[GUEST_REGISTER_WORDS[i]];
  let changed = 0;
  for (let i = FIRST_SETTLED; i < GUEST_FIELD_WORDS.length; i++) {
    const word = u32[GUEST_REGISTER_WORDS[i]];
    const at = GUEST_FIELD_WORDS[i];
    changed |= data[at] ^ word;
    data[at] = word;
  }
  for (let i = 0, at = SEGMENTS; i < 16; i += 2, at += SEGMENT_WORDS) {
    const base = u32[at + SEG.BASE / 4];
    const baseHigh = u32[at + SEG.BASE / 4 + 1];
    const limit = u32[at + SEG.LIMIT / 4];
    const rights = u32[at + SEG.AR / 4];
    const selector = u32[at + SEG.SELECTOR / 4] & 0xffff;
    changed |= (data[BASES + i] ^ base) | (data[BASES + i + 1] ^ baseHigh) | (data[LIMITS + i] ^ limit);
    changed |= (data[RIGHTS + i] ^ rights) | (data[SELECTORS + i] ^ selector);
    data[BASES + i] = base;
    data[BASES + i + 1] = baseHigh;
    data[LIMITS + i] = limit;
    data[RIGHTS + i] = rights;
    data[SELECTORS + i] = selector;
  }
  let settled = changed === 0;
  if ((exit & EXIT.SAVE_DEBUG_CONTROLS) !== 0) v.save(VMCS.GUEST_DR7, u32, REG.DR7 / 4);
  if ((exit & EXIT.SAVE_PAT) !== 0) v.save(VMCS.GUEST_IA32_PAT, u32, REG.PAT / 4);
  if ((exit & EXIT.SAVE_EFER) !== 0) v.save(VMCS.GUEST_IA32_EFER, u32, REG.EFER / 4);
  for (let i = 0; i < GUEST_MSRS.length; i++) {
    const { field, slot, save } = GUEST_MSRS[i];
    if (save >= 0 && (exit & save) === 0) continue;
    if (data[field] === msrs.low[slot] && data[field + 1] === msrs.high[slot]) continue;
    data[field] = msrs.low[slot];
    data[field + 1] = msrs.high[slot];
    settled = false;
  }
  v.set(VMCS.GUEST_PENDING_DBG_EXCEPTIONS, 0, 0);
  // "IA-32e mode guest" follows EFER.LMA (IA32_VMX_MISC[5]).
  const entry = v.lo(VMCS.VM_ENTRY_CONTROLS);
  const lma = (regs.get32(REG.EFER) & 0x400) !== 0;
  const next = (lma ? entry | ENTRY.IA32E_MODE_GUEST : entry & ~ENTRY.IA32E_MODE_GUEST) >>> 0;
  if (next !== entry) {
    v.set(VMCS.VM_ENTRY_CONTROLS, next);
    settled = false;
  }
  if (!settled) v.guestChecked = false;
  for (let i = 0; i < 8; i++) data[PDPTE_WORDS + i] = guest.mode.pdptes[i];
  guest.end(v);
  if (guest.vpid === 0) guest.tlb.flushVpid(0, false);
  // Delivery is over: the valid bit of the injected event is cleared.
  v.set(VMCS.VM_ENTRY_INTR_INFO_FIELD, v.lo(VMCS.VM_ENTRY_INTR_INFO_FIELD) & 0x7fffffff);
}

/** The 64-bit registers that every VM exit loads. */
const HOST_WORDS: readonly (readonly [number, number])[] = [
  ...both(VMCS.HOST_CR0, REG.CR0),
  ...both(VMCS.HOST_CR3, REG.CR3),
  ...both(VMCS.HOST_CR4, REG.CR4),
  ...both(VMCS.HOST_RSP, REG.GPR + 4 * 8),
  ...both(VMCS.HOST_RIP, REG.RIP),
  ...both(VMCS.HOST_IA32_SYSENTER_ESP, REG.SYSENTER_ESP),
  ...both(VMCS.HOST_IA32_SYSENTER_EIP, REG.SYSENTER_EIP),
  ...both(VMCS.HOST_GDTR_BASE, REG.GDTR_BASE),
  ...both(VMCS.HOST_IDTR_BASE, REG.IDTR_BASE),
];
const HOST_FIELD_WORDS = Uint16Array.from(HOST_WORDS, ([field]) => field);
const HOST_REGISTER_WORDS = Uint16Array.from(HOST_WORDS, ([, register]) => register);
const ALWAYS = 0;
/** MSRs that a VM exit loads: the control that makes it, and the field; without a field the MSR is cleared. */
const HOST_MSRS = [
  { control: ALWAYS, msr: 0x1d9, field: -1 },
  { control: EXIT.LOAD_PERF_GLOBAL_CTRL, msr: 0x38f, field: VMCS.HOST_IA32_PERF_GLOBAL_CTRL },
  { control: EXIT.CLEAR_RTIT_CTL, msr: 0x570, field: -1 },
  { control: EXIT.CLEAR_LBR_CTL, msr: 0x14ce, field: -1 },
  { control: EXIT.LOAD_PKRS, msr: 0x6e1, field: VMCS.HOST_IA32_PKRS },
  { control: EXIT.LOAD_CET, msr: 0x6a2, field: VMCS.HOST_S_CET },
  { control: EXIT.LOAD_CET, msr: 0x6a8, field: VMCS.HOST_INTR_SSP_TABLE },
].map(({ control, msr, field }) => ({ control, slot: msrSlot(msr), field: field < 0 ? -1 : low(field) }));
const LDTR = RegisterFile.segment(SegmentRegister.LDTR);
/** Segment registers after a VM exit: fields of selector and base (-1: 0), access rights and limit. */
const HOST_SEGMENTS = [
  { segment: SegmentRegister.ES, field: VMCS.HOST_ES_SELECTOR, base: -1, rights: 0xc093, limit: 0xffffffff },
  { segment: SegmentRegister.CS, field: VMCS.HOST_CS_SELECTOR, base: -1, rights: 0xa09b, limit: 0xffffffff },
  { segment: SegmentRegister.SS, field: VMCS.HOST_SS_SELECTOR, base: -1, rights: 0xc093, limit: 0xffffffff },
  { segment: SegmentRegister.DS, field: VMCS.HOST_DS_SELECTOR, base: -1, rights: 0xc093, limit: 0xffffffff },
  {
    segment: SegmentRegister.FS,
    field: VMCS.HOST_FS_SELECTOR,
    base: VMCS.HOST_FS_BASE,
    rights: 0xc093,
    limit: 0xffffffff,
  },
  {
    segment: SegmentRegister.GS,
    field: VMCS.HOST_GS_SELECTOR,
    base: VMCS.HOST_GS_BASE,
    rights: 0xc093,
    limit: 0xffffffff,
  },
  {
    segment: SegmentRegister.TR,
    field: VMCS.HOST_TR_SELECTOR,
    base: VMCS.HOST_TR_BASE,
    rights: 0x8b,
    limit: 0x67,
  },
];
/** The same as numbers: word in the register file, words of selector and base in the VMCS (-1: 0), rights, limit. */
const HOST_SEGMENT_COLUMNS = 5;
const HOST_SEGMENT_TABLE = Float64Array.from(
  HOST_SEGMENTS.flatMap(({ segment, field, base, rights, limit }) => [
    RegisterFile.segment(segment) / 4,
    low(field),
    base < 0 ? -1 : low(base),
    rights,
    limit,
  ]),
);

/** Loads host state. @returns false for a VMX abort (an MSR area that cannot be processed) */
export function loadHost(t: TransitionContext, v: Vmcs, storeGuestMsrs: boolean, seam: boolean): boolean {
  const { regs, msrs } = t;
  const exit = v.lo(VMCS.VM_EXIT_CONTROLS);
  if (storeGuestMsrs && !storeMsrs(t, v, seam)) return false;
  const { u32 } = regs;
  const { data } = v;
  for (let i = 0; i < HOST_FIELD_WORDS.length; i++) u32[HOST_REGISTER_WORDS[i]] = data[HOST_FIELD_WORDS[i]];
  u32[REG.RFLAGS / 4] = 2;
  u32[REG.RFLAGS / 4 + 1] = 0;
  u32[REG.DR7 / 4] = 0x400;
  u32[REG.DR7 / 4 + 1] = 0;
  u32[REG.SYSENTER_CS / 4] = v.lo(VMCS.HOST_IA32_SYSENTER_CS);
  u32[REG.SYSENTER_CS / 4 + 1] = 0;
  u32[REG.GDTR_LIMIT / 4] = 0xffff;
  u32[REG.IDTR_LIMIT / 4] = 0xffff;
  if ((exit & EXIT.LOAD_PAT) !== 0) {
    u32[REG.PAT / 4] = v.lo(VMCS.HOST_IA32_PAT);
    u32[REG.PAT / 4 + 1] = v.hi(VMCS.HOST_IA32_PAT);
  }
  if ((exit & EXIT.LOAD_EFER) !== 0) {
    u32[REG.EFER / 4] = v.lo(VMCS.HOST_IA32_EFER);
    u32[REG.EFER / 4 + 1] = v.hi(VMCS.HOST_IA32_EFER);
  } else u32[REG.EFER / 4] |= 0x500;
  for (let i = 0; i < HOST_MSRS.length; i++) {
    const { control, slot, field } = HOST_MSRS[i];
    if (control !== ALWAYS && (exit & control) === 0) continue;
    msrs.low[slot] = field < 0 ? 0 : data[field];
    msrs.high[slot] = field < 0 ? 0 : data[field + 1];
  }
  for (let i = 0; i < HOST_SEGMENT_TABLE.length; i += HOST_SEGMENT_COLUMNS) {
    const at = HOST_SEGMENT_TABLE[i];
    const value = data[HOST_SEGMENT_TABLE[i + 1]];
    const base = HOST_SEGMENT_TABLE[i + 2];
    u32[at + SEG.SELECTOR / 4] = value;
    u32[at + SEG.AR / 4] = value === 0 ? 0x10000 : HOST_SEGMENT_TABLE[i + 3];
    u32[at + SEG.LIMIT / 4] = HOST_SEGMENT_TABLE[i + 4];
    u32[at + SEG.BASE / 4] = base < 0 ? 0 : data[base];
    u32[at + SEG.BASE / 4 + 1] = base < 0 ? 0 : data[base + 1];
  }
  u32[(LDTR + SEG.SELECTOR) / 4] = 0;
  u32[(LDTR + SEG.AR) / 4] = 0x10000;
  u32[REG.INTERRUPTIBILITY / 4] = 0;
  u32[REG.ACTIVITY / 4] = 0;
  return loadMsrs(t, v, VMCS.VM_EXIT_MSR_LOAD_COUNT, VMCS.VM_EXIT_MSR_LOAD_ADDR, seam) === 0;
}

/** Exit fields of an entry that failed after the checks on controls and host state. */
export function recordEntryFailure(v: Vmcs, reason: number, qualification: number): number {
  const full = (reason | 0x80000000) >>> 0;
  v.set(VMCS.VM_EXIT_REASON, full);
  v.setAddr(VMCS.EXIT_QUALIFICATION, qualification);
  return full;
}
