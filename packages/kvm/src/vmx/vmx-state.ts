/**
 * The VMCS of an ordinary VM's vCPU: controls, host state, the guest's state after RESET, and that state as user space
 * sees and sets it. Source: Linux arch/x86/kvm/vmx/vmx.c (init_vmcs, vmx_vcpu_reset, setup_vmcs_config), x86.c (sregs).
 */
import { Errno, type KvmCpuidEntry2, type KvmRegs, type KvmSegment, type KvmSregs } from "@swtdx/abi";
import { ENTRY, EXIT, Gpr, PIN, PROC, PROC2, REG, VMCS } from "@swtdx/cpu";
import type { LogicalProcessor } from "@swtdx/linux-host";
import { findCpuid } from "../x86/cpuid.js";
import type { VmcsAccess } from "./vmcs.js";
import type { VmxVcpu } from "./vmx.js";

/** Capability MSRs (the TRUE ones). */
const CAPABILITY = { pin: 0x48d, proc: 0x48e, proc2: 0x48b, exit: 0x48f, entry: 0x490 } as const;
export const CR0_PE = 1n;
const CR0_ET = 1n << 4n;
export const CR0_NE = 1n << 5n;
export const CR0_NW = 1n << 29n;
export const CR0_CD = 1n << 30n;
export const CR0_PG = 1n << 31n;
export const CR4_PAE = 1n << 5n;
export const CR4_VMXE = 1n << 13n;
export const CR4_SMXE = 1n << 14n;
export const EFER_LME = 0x100n;
export const EFER_LMA = 0x400n;
const PAT_RESET = 0x0007_0406_0007_0406n;
const ALL_ONES = 0xffff_ffff_ffff_ffffn;
const MC_VECTOR = 18;
/** Segment registers in the VMCS's order. */
const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr"] as const;
const SEGMENT_FIELD = {
  selector: VMCS.GUEST_ES_SELECTOR,
  limit: VMCS.GUEST_ES_LIMIT,
  ar: VMCS.GUEST_ES_AR_BYTES,
  base: VMCS.GUEST_ES_BASE,
} as const;
const CS = 1;

/** What is wanted, as far as the processor can, and what must be. */
function controls(lp: LogicalProcessor, msr: number, wanted: number): bigint {
  const capability = lp.rdmsr(msr);
  const value = capability.kind === "ok" ? capability.value : 0n;
  return (BigInt(wanted >>> 0) | (value & 0xffff_ffffn)) & (value >> 32n);
}

/** UMONITOR, UMWAIT and TPAUSE, for a guest whose CPUID has WAITPKG. */
export function enableUserWait(vmcs: VmcsAccess, on: boolean): void {
  enableSecondary(vmcs, PROC2.ENABLE_USER_WAIT_PAUSE, on);
}
/** A secondary control that lets a guest have an instruction: without it, #UD. */
export function enableSecondary(vmcs: VmcsAccess, control: number, on: boolean): void {
  const bit = BigInt(control);
  const value = vmcs.get("SECONDARY_VM_EXEC_CONTROL") & ~bit;
  vmcs.set("SECONDARY_VM_EXEC_CONTROL", on ? value | bit : value);
}

/** Bits of CR4 that come with a CPUID feature: leaf, register, bit (__cr4_reserved_bits). */
const CR4_FEATURES: readonly (readonly [
  cr4: bigint,
  leaf: number,
  register: "ecx" | "edx" | "ebx",
  bit: number,
])[] = [
  [1n << 11n, 7, "ecx", 2], // UMIP
  [1n << 12n, 7, "ecx", 16], // LA57
  [1n << 16n, 7, "ebx", 0], // FSGSBASE
  [1n << 17n, 1, "ecx", 17], // PCIDE
  [1n << 18n, 1, "ecx", 26], // OSXSAVE
  [1n << 20n, 7, "ebx", 7], // SMEP
  [1n << 21n, 7, "ebx", 20], // SMAP
  [1n << 22n, 7, "ecx", 3], // PKE
  [1n << 23n, 7, "ecx", 7], // CET
  [1n << 24n, 7, "ecx", 31], // PKS
];
const CR4_ALWAYS = 0x7ffn;

/** The bits of CR4 that a guest with this CPUID cannot set: it has neither VMX nor SMX. */
export function reservedCr4(cpuid: readonly KvmCpuidEntry2[]): bigint {
  let allowed = CR4_ALWAYS;
  for (const [mask, leaf, register, bit] of CR4_FEATURES) {
    const entry = findCpuid(cpuid, leaf, 0);
    if (entry && ((entry[register] >>> bit) & 1) !== 0) allowed |= mask;
  }
  return ~allowed & ALL_ONES;
}
/** Writes that would set one of these exit. */
export function interceptCr4(vmcs: VmcsAccess, reserved: bigint): void {
  const seen = readCr4(vmcs);
  vmcs.set("CR4_GUEST_HOST_MASK", CR4_VMXE | CR4_SMXE | reserved);
  vmcs.set("CR4_READ_SHADOW", seen);
}

/** Controls and host state. Addresses in bytes. */
export function setUpVmcs(
  vmcs: VmcsAccess,
  setup: { eptp: bigint; vpid: number; msrBitmap: number; tscOffset: bigint; tscMultiplier: bigint },
): void {
  const { lp } = vmcs;
  const pin = PIN.EXTERNAL_INTERRUPT_EXITING | PIN.NMI_EXITING | PIN.VIRTUAL_NMIS;
  vmcs.set("PIN_BASED_VM_EXEC_CONTROL", controls(lp, CAPABILITY.pin, pin));
  const proc =
    PROC.USE_TSC_OFFSETTING |
    PROC.HLT_EXITING |
    PROC.MWAIT_EXITING |
    PROC.MONITOR_EXITING |
    PROC.CR8_LOAD_EXITING |
    PROC.CR8_STORE_EXITING |
    PROC.UNCONDITIONAL_IO_EXITING |
    PROC.USE_MSR_BITMAPS |
    PROC.ACTIVATE_SECONDARY;
  vmcs.set("CPU_BASED_VM_EXEC_CONTROL", controls(lp, CAPABILITY.proc, proc));
  const proc2 =
    PROC2.ENABLE_EPT |
    PROC2.ENABLE_VPID |
    PROC2.UNRESTRICTED_GUEST |
    PROC2.ENABLE_RDTSCP |
    PROC2.ENABLE_INVPCID |
    PROC2.ENABLE_XSAVES |
    PROC2.WBINVD_EXITING |
    PROC2.TSC_SCALING;
  vmcs.set("SECONDARY_VM_EXEC_CONTROL", controls(lp, CAPABILITY.proc2, proc2));
  const exit =
    EXIT.SAVE_DEBUG_CONTROLS |
    EXIT.HOST_ADDRESS_SPACE_SIZE |
    EXIT.ACK_INTERRUPT |
    EXIT.SAVE_PAT |
    EXIT.LOAD_PAT |
    EXIT.SAVE_EFER |
    EXIT.LOAD_EFER;
  vmcs.set("VM_EXIT_CONTROLS", controls(lp, CAPABILITY.exit, exit));
  const entry = ENTRY.LOAD_DEBUG_CONTROLS | ENTRY.LOAD_PAT | ENTRY.LOAD_EFER;
  vmcs.set("VM_ENTRY_CONTROLS", controls(lp, CAPABILITY.entry, entry));
  vmcs.set("EXCEPTION_BITMAP", 1 << MC_VECTOR);
  vmcs.set("VIRTUAL_PROCESSOR_ID", setup.vpid);
  vmcs.set("EPT_POINTER", setup.eptp);
  vmcs.set("MSR_BITMAP", setup.msrBitmap);
  vmcs.set("TSC_OFFSET", setup.tscOffset);
  vmcs.set("TSC_MULTIPLIER", setup.tscMultiplier);
  vmcs.set("VMCS_LINK_POINTER", ALL_ONES);
  vmcs.set("CR0_GUEST_HOST_MASK", CR0_NE | CR0_NW | CR0_CD);
  vmcs.set("CR4_GUEST_HOST_MASK", CR4_VMXE | CR4_SMXE);
  // The kernel's: flat 64-bit segments.
  vmcs.set("HOST_CR0", 0x8005_0033n);
  vmcs.set("HOST_CR4", 0x3726e0n);
  vmcs.set("HOST_IA32_EFER", 0xd01n);
  vmcs.set("HOST_IA32_PAT", PAT_RESET);
  vmcs.set("HOST_CS_SELECTOR", 0x10);
  vmcs.set("HOST_SS_SELECTOR", 0x18);
  vmcs.set("HOST_DS_SELECTOR", 0);
  vmcs.set("HOST_TR_SELECTOR", 0x40);
}

/** The guest as after RESET (or INIT, which keeps less than is told apart here). */
export function resetGuest(vcpu: VmxVcpu): void {
  const { vmcs, registers } = vcpu;
  registers.reset();
  // Family, model, stepping.
  registers.gprs[Gpr.RDX] = BigInt(vcpu.vcpu.lp.cpuid(1).eax >>> 0);
  for (let i = 0; i < 8; i++) {
    const system = i >= 6;
    writeSegment(vmcs, i, {
      selector: i === CS ? 0xf000 : 0,
      base: i === CS ? 0xffff_0000n : 0n,
      limit: 0xffff,
      ar: i === CS ? 0x9b : system ? (i === 6 ? 0x82 : 0x8b) : 0x93,
    });
  }
  for (const table of ["GUEST_GDTR", "GUEST_IDTR"] as const) {
    vmcs.set(`${table}_BASE`, 0n);
    vmcs.set(`${table}_LIMIT`, 0xffff);
  }
  for (const field of [
    "GUEST_SYSENTER_CS",
    "GUEST_SYSENTER_ESP",
    "GUEST_SYSENTER_EIP",
    "GUEST_IA32_DEBUGCTL",
  ] as const)
    vmcs.set(field, 0n);
  vmcs.set("GUEST_DR7", 0x400n);
  vmcs.set("GUEST_RFLAGS", 2n);
  vmcs.set("GUEST_RIP", 0xfff0n);
  vmcs.set("GUEST_RSP", 0n);
  vmcs.set("GUEST_CR3", 0n);
  vmcs.set("GUEST_IA32_PAT", PAT_RESET);
  vmcs.set("GUEST_INTERRUPTIBILITY_INFO", 0);
  vmcs.set("GUEST_ACTIVITY_STATE", 0);
  vmcs.set("GUEST_PENDING_DBG_EXCEPTIONS", 0n);
  vmcs.set("VM_ENTRY_INTR_INFO_FIELD", 0);
  vmcs.set("GUEST_IA32_EFER", 0n);
  vmcs.change("VM_ENTRY_CONTROLS", ENTRY.IA32E_MODE_GUEST, false);
  writeCr0(vmcs, CR0_CD | CR0_NW | CR0_ET);
  writeCr4(vmcs, 0n);
}

/** CR0 as the guest sees it. */
export const readCr0 = (vmcs: VmcsAccess): bigint => shadowed(vmcs, "CR0");
export const readCr4 = (vmcs: VmcsAccess): bigint => shadowed(vmcs, "CR4");
function shadowed(vmcs: VmcsAccess, cr: "CR0" | "CR4"): bigint {
  const mask = vmcs.get(`${cr}_GUEST_HOST_MASK`);
  return (vmcs.get(`GUEST_${cr}`) & ~mask) | (vmcs.get(`${cr}_READ_SHADOW`) & mask);
}
/** Sets CR0 with what VMX needs: NE, and caches on. */
export function writeCr0(vmcs: VmcsAccess, value: bigint): void {
  vmcs.set("GUEST_CR0", (value & ~(CR0_NW | CR0_CD)) | CR0_NE | CR0_ET);
  vmcs.set("CR0_READ_SHADOW", value | CR0_ET);
}
export function writeCr4(vmcs: VmcsAccess, value: bigint): void {
  vmcs.set("GUEST_CR4", value | CR4_VMXE);
  vmcs.set("CR4_READ_SHADOW", value);
}
/** EFER.LMA and the entry control that goes with it. */
export function writeLongMode(vmcs: VmcsAccess, on: boolean): void {
  const efer = vmcs.get("GUEST_IA32_EFER");
  vmcs.set("GUEST_IA32_EFER", on ? efer | EFER_LMA : efer & ~EFER_LMA);
  vmcs.change("VM_ENTRY_CONTROLS", ENTRY.IA32E_MODE_GUEST, on);
}

export function writeSegment(
  vmcs: VmcsAccess,
  number: number,
  { selector, base, limit, ar }: { selector: number; base: bigint; limit: number; ar: number },
): void {
  vmcs.write(SEGMENT_FIELD.selector + 2 * number, BigInt(selector));
  vmcs.write(SEGMENT_FIELD.base + 2 * number, base);
  vmcs.write(SEGMENT_FIELD.limit + 2 * number, BigInt(limit >>> 0));
  vmcs.write(SEGMENT_FIELD.ar + 2 * number, BigInt(ar));
}

// ---- KVM_GET/SET_REGS, SREGS

const GPRS = [
  ["rax", Gpr.RAX],
  ["rbx", Gpr.RBX],
  ["rcx", Gpr.RCX],
  ["rdx", Gpr.RDX],
  ["rsi", Gpr.RSI],
  ["rdi", Gpr.RDI],
  ["rbp", Gpr.RBP],
  ["r8", Gpr.R8],
  ["r9", Gpr.R9],
  ["r10", Gpr.R10],
  ["r11", Gpr.R11],
  ["r12", Gpr.R12],
  ["r13", Gpr.R13],
  ["r14", Gpr.R14],
  ["r15", Gpr.R15],
] as const;

export function getRegs({ vmcs, registers }: VmxVcpu): KvmRegs {
  const out = {
    rsp: vmcs.get("GUEST_RSP"),
    rip: vmcs.get("GUEST_RIP"),
    rflags: vmcs.get("GUEST_RFLAGS"),
  } as KvmRegs;
  for (const [name, number] of GPRS) out[name] = registers.gprs[number]!;
  return out;
}
export function setRegs({ vmcs, registers }: VmxVcpu, regs: KvmRegs): void {
  for (const [name, number] of GPRS) registers.gprs[number] = regs[name];
  vmcs.set("GUEST_RSP", regs.rsp);
  vmcs.set("GUEST_RIP", regs.rip);
  vmcs.set("GUEST_RFLAGS", regs.rflags | 2n);
}

function getSegment(vmcs: VmcsAccess, number: number): KvmSegment {
  const ar = Number(vmcs.read(SEGMENT_FIELD.ar + 2 * number));
  const unusable = (ar >> 16) & 1;
  return {
    base: vmcs.read(SEGMENT_FIELD.base + 2 * number),
    limit: Number(vmcs.read(SEGMENT_FIELD.limit + 2 * number)),
    selector: Number(vmcs.read(SEGMENT_FIELD.selector + 2 * number)),
    type: ar & 15,
    s: (ar >> 4) & 1,
    dpl: (ar >> 5) & 3,
    present: unusable ? 0 : 1,
    avl: (ar >> 12) & 1,
    l: (ar >> 13) & 1,
    db: (ar >> 14) & 1,
    g: (ar >> 15) & 1,
    unusable,
  };
}
function setSegment(vmcs: VmcsAccess, number: number, segment: KvmSegment): void {
  const { type, s, dpl, present, avl, l, db, g } = segment;
  const ar =
    segment.unusable || !present
      ? 0x10000
      : (type & 15) |
        (s << 4) |
        (dpl << 5) |
        (present << 7) |
        (avl << 12) |
        (l << 13) |
        (db << 14) |
        (g << 15);
  writeSegment(vmcs, number, { ...segment, ar });
}

export function getSregs(vcpu: VmxVcpu): KvmSregs {
  const { vmcs, registers } = vcpu;
  const out = {
    gdt_base: vmcs.get("GUEST_GDTR_BASE"),
    gdt_limit: Number(vmcs.get("GUEST_GDTR_LIMIT")),
    idt_base: vmcs.get("GUEST_IDTR_BASE"),
    idt_limit: Number(vmcs.get("GUEST_IDTR_LIMIT")),
    cr0: readCr0(vmcs),
    cr2: registers.get(REG.CR2),
    cr3: vmcs.get("GUEST_CR3"),
    cr4: readCr4(vmcs),
    cr8: BigInt(vcpu.apic.queue.tpr >>> 4),
    efer: vmcs.get("GUEST_IA32_EFER"),
    apic_base: vcpu.apic.base,
  } as KvmSregs;
  SEGMENTS.forEach((name, i) => (out[name] = getSegment(vmcs, i)));
  return out;
}

/** @returns 0 or -EINVAL, as kvm_is_valid_sregs() has it */
export function setSregs(vcpu: VmxVcpu, sregs: KvmSregs): number {
  const { vmcs, registers } = vcpu;
  const paging = (sregs.cr0 & CR0_PG) !== 0n;
  const long = (sregs.efer & EFER_LMA) !== 0n;
  if (paging && (sregs.cr0 & CR0_PE) === 0n) return -Errno.EINVAL;
  if (((sregs.efer & EFER_LME) !== 0n && paging) !== long) return -Errno.EINVAL;
  if (long && (sregs.cr4 & CR4_PAE) === 0n) return -Errno.EINVAL;
  if ((sregs.cr4 & (CR4_VMXE | CR4_SMXE | vcpu.reservedCr4)) !== 0n || (sregs.efer & ~0xd01n) !== 0n)
    return -Errno.EINVAL;
  if (sregs.apic_base !== vcpu.apic.base && !vcpu.apic.setBase(sregs.apic_base)) return -Errno.EINVAL;
  SEGMENTS.forEach((name, i) => setSegment(vmcs, i, sregs[name]));
  vmcs.set("GUEST_GDTR_BASE", sregs.gdt_base);
  vmcs.set("GUEST_GDTR_LIMIT", sregs.gdt_limit);
  vmcs.set("GUEST_IDTR_BASE", sregs.idt_base);
  vmcs.set("GUEST_IDTR_LIMIT", sregs.idt_limit);
  registers.set(REG.CR2, sregs.cr2);
  vcpu.apic.queue.tpr = Number(sregs.cr8 & 15n) << 4;
  vmcs.set("GUEST_CR3", sregs.cr3);
  vmcs.set("GUEST_IA32_EFER", sregs.efer);
  writeCr4(vmcs, sregs.cr4);
  writeCr0(vmcs, sregs.cr0);
  writeLongMode(vmcs, long);
  vcpu.loadPdptrs();
  return 0;
}
