/**
 * VM exits of an ordinary VM: what KVM does about each, by exit reason.
 * Source: Linux arch/x86/kvm/vmx/vmx.c (kvm_vmx_exit_handlers and the handlers).
 */
import {
  KVM_INTERNAL_ERROR_EMULATION,
  KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
  KVM_MEM_READONLY,
  KvmExit,
  PAGE_SIZE,
} from "@swtdx/abi";
import { ExitReason, Gpr, REG } from "@swtdx/cpu";
import { sharedPage } from "../memslots.js";
import { findCpuid, kvmCpuid } from "../x86/cpuid.js";
import { kvmHypercall } from "../x86/hypercall.js";
import { decodeMmio, loadResult, type MmioInstruction, storeValue } from "../x86/mmio-instruction.js";
import { RunResult } from "../x86/ops.js";
import { APIC_DEFAULT_BASE } from "../x86/soft-apic.js";
import { handleIo } from "./vmx-io.js";
import { getMsr, setMsr } from "./vmx-msr.js";
import {
  CR0_CD,
  CR0_NW,
  CR0_PE,
  CR0_PG,
  CR4_PAE,
  CR4_SMXE,
  CR4_VMXE,
  EFER_LME,
  readCr0,
  readCr4,
  writeCr0,
  writeCr4,
  writeLongMode,
} from "./vmx-state.js";
import type { VmxVcpu } from "./vmx.js";

const UD = 6;
const GP = 13;
const MAX_INSTRUCTION = 15;
const LOW32 = 0xffff_ffffn;
const CR0_WP = 1n << 16n;
const CR4_LA57 = 1n << 12n;
const CR4_PCIDE = 1n << 17n;
/** Exit qualification of EPT violations. */
const EPT_WRITE = 2n;
const EPT_FETCH = 4n;

type Handler = (vcpu: VmxVcpu) => RunResult;

export function handleExit(vcpu: VmxVcpu, reason: number): RunResult {
  const handler = HANDLERS.get(reason);
  if (handler) return handler(vcpu);
  return vcpu.vcpu.exitInternalError(KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, [
    BigInt(reason),
    BigInt(vcpu.lp.index),
  ]);
}

const again: Handler = () => RunResult.CONTINUE;
const skip: Handler = (vcpu) => {
  vcpu.skip();
  return RunResult.CONTINUE;
};
const undefinedOpcode: Handler = (vcpu) => {
  vcpu.raise(UD);
  return RunResult.CONTINUE;
};
const generalProtection: Handler = (vcpu) => {
  vcpu.raise(GP);
  return RunResult.CONTINUE;
};

function handleExceptionNmi(vcpu: VmxVcpu): RunResult {
  // An NMI or machine check of the host's.
  vcpu.lp.takeNmi();
  return RunResult.CONTINUE;
}

function handleCpuid(vcpu: VmxVcpu): RunResult {
  const { gprs } = vcpu.registers;
  const leaf = Number(gprs[Gpr.RAX] & LOW32);
  const index = Number(gprs[Gpr.RCX] & LOW32);
  const values = { ...kvmCpuid(vcpu.vcpu.cpuid, leaf, index) };
  // What follows the guest's own state.
  const cr4 = readCr4(vcpu.vmcs);
  if (leaf === 1) {
    values.ecx = withBit(values.ecx, 27, (cr4 & (1n << 18n)) !== 0n);
    values.edx = withBit(values.edx, 9, (vcpu.apic.base & 0x800n) !== 0n);
  } else if (leaf === 7 && index === 0) values.ecx = withBit(values.ecx, 4, (cr4 & (1n << 22n)) !== 0n);
  else if (leaf === 0xd && index === 0) values.ebx = xsaveSize(vcpu);
  gprs[Gpr.RAX] = BigInt(values.eax >>> 0);
  gprs[Gpr.RBX] = BigInt(values.ebx >>> 0);
  gprs[Gpr.RCX] = BigInt(values.ecx >>> 0);
  gprs[Gpr.RDX] = BigInt(values.edx >>> 0);
  return skip(vcpu);
}
const withBit = (value: number, bit: number, on: boolean): number =>
  (on ? value | (1 << bit) : value & ~(1 << bit)) >>> 0;

/** Bytes of the XSAVE area (standard format) for the guest's XCR0. */
function xsaveSize(vcpu: VmxVcpu): number {
  let size = 576;
  for (let i = 2; i < 63; i++) {
    if ((vcpu.xcr0 & (1n << BigInt(i))) === 0n) continue;
    const entry = findCpuid(vcpu.vcpu.cpuid, 0xd, i);
    if (entry) size = Math.max(size, entry.eax + entry.ebx);
  }
  return size;
}

function handleHlt(vcpu: VmxVcpu): RunResult {
  vcpu.skip();
  // Without a local APIC in the kernel it is user space that waits.
  if (!vcpu.owner.vm.splitIrqchip) return vcpu.vcpu.exit(KvmExit.KVM_EXIT_HLT);
  vcpu.vcpu.halted = true;
  return RunResult.CONTINUE;
}

function handleVmcall(vcpu: VmxVcpu): RunResult {
  if (vcpu.cpl !== 0) {
    vcpu.setGpr(Gpr.RAX, BigInt.asUintN(64, -1n));
    return skip(vcpu);
  }
  const mask = vcpu.mode64 ? 0xffff_ffff_ffff_ffffn : LOW32;
  const arg = (number: number): bigint => vcpu.gpr(number) & mask;
  const args = [arg(Gpr.RBX), arg(Gpr.RCX), arg(Gpr.RDX), arg(Gpr.RSI)];
  vcpu.skip();
  vcpu.setGpr(Gpr.RAX, kvmHypercall(vcpu.vcpu, arg(Gpr.RAX), args) & mask);
  return RunResult.CONTINUE;
}

function handleRdmsr(vcpu: VmxVcpu): RunResult {
  const value = getMsr(vcpu, Number(vcpu.gpr(Gpr.RCX) & LOW32));
  if (value === null) return generalProtection(vcpu);
  vcpu.setGpr(Gpr.RAX, value & LOW32);
  vcpu.setGpr(Gpr.RDX, value >> 32n);
  return skip(vcpu);
}
function handleWrmsr(vcpu: VmxVcpu): RunResult {
  const value = ((vcpu.gpr(Gpr.RDX) & LOW32) << 32n) | (vcpu.gpr(Gpr.RAX) & LOW32);
  // The instruction is over before an IPI to oneself comes.
  return setMsr(vcpu, Number(vcpu.gpr(Gpr.RCX) & LOW32), value) ? skip(vcpu) : generalProtection(vcpu);
}

function handleXsetbv(vcpu: VmxVcpu): RunResult {
  const value = ((vcpu.gpr(Gpr.RDX) & LOW32) << 32n) | (vcpu.gpr(Gpr.RAX) & LOW32);
  const leaf = findCpuid(vcpu.vcpu.cpuid, 0xd, 0);
  const supported = leaf ? (BigInt(leaf.edx >>> 0) << 32n) | BigInt(leaf.eax >>> 0) : 3n;
  const avxWithoutSse = (value & 6n) === 4n;
  if (
    (vcpu.gpr(Gpr.RCX) & LOW32) !== 0n ||
    (value & 1n) === 0n ||
    (value & ~supported) !== 0n ||
    avxWithoutSse
  )
    return generalProtection(vcpu);
  vcpu.registers.set(REG.XCR0, value);
  return skip(vcpu);
}

// ---- Control registers

function handleCrAccess(vcpu: VmxVcpu): RunResult {
  const qualification = Number(vcpu.vmcs.get("EXIT_QUALIFICATION") & LOW32);
  const cr = qualification & 15;
  const type = (qualification >> 4) & 3;
  const gpr = (qualification >> 8) & 15;
  const value = vcpu.mode64 ? vcpu.gpr(gpr) : vcpu.gpr(gpr) & LOW32;
  let done = true;
  switch (type) {
    case 0:
      if (cr === 0) done = setCr0(vcpu, value);
      else if (cr === 4) done = setCr4(vcpu, value);
      else if (cr === 8) done = setCr8(vcpu, value);
      else return undefinedOpcode(vcpu);
      break;
    case 1:
      if (cr !== 8) return undefinedOpcode(vcpu);
      vcpu.setGpr(gpr, BigInt(vcpu.apic.queue.tpr >>> 4));
      break;
    case 2:
      done = setCr0(vcpu, readCr0(vcpu.vmcs) & ~8n);
      break;
    default:
      // LMSW: the low four bits, and PE is never cleared.
      done = setCr0(vcpu, (readCr0(vcpu.vmcs) & ~0xen) | (BigInt(qualification >>> 16) & 0xfn));
  }
  return done ? skip(vcpu) : generalProtection(vcpu);
}

function setCr8(vcpu: VmxVcpu, value: bigint): boolean {
  if (value > 15n) return false;
  vcpu.apic.queue.tpr = Number(value) << 4;
  return true;
}

function setCr0(vcpu: VmxVcpu, value: bigint): boolean {
  const { vmcs } = vcpu;
  if (value >> 32n !== 0n) return false;
  if ((value & CR0_PG) !== 0n && (value & CR0_PE) === 0n) return false;
  if ((value & CR0_NW) !== 0n && (value & CR0_CD) === 0n) return false;
  const paged = (readCr0(vmcs) & CR0_PG) !== 0n;
  const pages = (value & CR0_PG) !== 0n;
  const lme = (vmcs.get("GUEST_IA32_EFER") & EFER_LME) !== 0n;
  if (!pages && paged && (vcpu.mode64 || (readCr4(vmcs) & CR4_PCIDE) !== 0n)) return false;
  if (pages && !paged && lme) {
    // Long mode needs PAE, and a code segment that is not already a 64-bit one.
    if ((readCr4(vmcs) & CR4_PAE) === 0n || (vmcs.get("GUEST_CS_AR_BYTES") & 0x2000n) !== 0n) return false;
    writeLongMode(vmcs, true);
  } else if (!pages && paged && lme) writeLongMode(vmcs, false);
  const old = readCr0(vmcs);
  writeCr0(vmcs, value);
  if (pages !== paged) vcpu.loadPdptrs();
  if (((value ^ old) & (CR0_PG | CR0_WP)) !== 0n) vcpu.flushGuest();
  return true;
}

function setCr4(vcpu: VmxVcpu, value: bigint): boolean {
  // No VMX and no SMX for guests.
  if ((value & (CR4_VMXE | CR4_SMXE | vcpu.reservedCr4)) !== 0n) return false;
  const changed = readCr4(vcpu.vmcs) ^ value;
  if (vcpu.longMode && ((value & CR4_PAE) === 0n || (changed & CR4_LA57) !== 0n)) return false;
  if ((value & changed & CR4_PCIDE) !== 0n) {
    if (!vcpu.longMode || (vcpu.vmcs.get("GUEST_CR3") & 0xfffn) !== 0n) return false;
  }
  writeCr4(vcpu.vmcs, value);
  vcpu.loadPdptrs();
  vcpu.flushGuest();
  return true;
}

// ---- Memory

function handleEptViolation(vcpu: VmxVcpu): RunResult {
  const { owner, vmcs } = vcpu;
  const gpa = Number(vmcs.get("GUEST_PHYSICAL_ADDRESS"));
  const qualification = vmcs.get("EXIT_QUALIFICATION");
  const gfn = Math.floor(gpa / PAGE_SIZE);
  const slot = owner.vm.slots.find(gfn);
  if (!slot) {
    owner.ept.mapMmio(gfn);
    owner.flush();
    return emulate(vcpu, gpa, qualification);
  }
  const readonly = (slot.flags & KVM_MEM_READONLY) !== 0;
  // A write to ROM is MMIO.
  if (readonly && (qualification & EPT_WRITE) !== 0n) return emulate(vcpu, gpa, qualification);
  owner.ept.map(gfn, sharedPage(slot, gfn), !readonly);
  return RunResult.CONTINUE;
}
function handleEptMisconfig(vcpu: VmxVcpu): RunResult {
  return emulate(vcpu, Number(vcpu.vmcs.get("GUEST_PHYSICAL_ADDRESS")), 0n);
}

/** Emulates the instruction that touched a device. */
function emulate(vcpu: VmxVcpu, gpa: number, qualification: bigint): RunResult {
  const code = new Uint8Array(MAX_INSTRUCTION);
  const instruction = (qualification & EPT_FETCH) === 0n ? findInstruction(vcpu, code) : null;
  if (!instruction) return failEmulation(vcpu, code);
  const { kind, size, gpr } = instruction;
  if (vcpu.apic.covers(gpa)) return emulateApic(vcpu, instruction, gpa - APIC_DEFAULT_BASE);
  if (kind === "store") {
    const value = storeValue(instruction, gpr === null ? 0n : vcpu.gpr(gpr));
    vcpu.skip(instruction.length);
    return vcpu.vcpu.exitMmio(gpa, size, true, value);
  }
  vcpu.complete = () => {
    vcpu.setGpr(gpr!, loadResult(instruction, vcpu.gpr(gpr!), vcpu.vcpu.mmioData(size)));
    vcpu.skip(instruction.length);
  };
  return vcpu.vcpu.exitMmio(gpa, size, false, 0n);
}

function emulateApic(vcpu: VmxVcpu, instruction: MmioInstruction, offset: number): RunResult {
  const { gpr, kind } = instruction;
  vcpu.skip(instruction.length);
  if (kind === "store") {
    const value = storeValue(instruction, gpr === null ? 0n : vcpu.gpr(gpr));
    vcpu.apic.writePage(offset, Number(value & LOW32));
  } else {
    // Parts of a register, as the bus gives them.
    const value = BigInt(vcpu.apic.readPage(offset & ~15) >>> 0) >> BigInt(8 * (offset & 3));
    vcpu.setGpr(gpr!, loadResult(instruction, vcpu.gpr(gpr!), value));
  }
  return RunResult.CONTINUE;
}

/** The load or store at RIP. */
function findInstruction(vcpu: VmxVcpu, code: Uint8Array): MmioInstruction | null {
  vcpu.vmcs.load();
  const known = vcpu.lp.guestMemoryInstruction();
  if (known) {
    const size = known.size as 1 | 2 | 4 | 8;
    return { ...known, size, registerSize: size, high: false, constant: 0n, signed: false };
  }
  const { vmcs } = vcpu;
  const rip = vmcs.get("GUEST_RIP");
  const gla = vcpu.mode64 ? rip : (vmcs.get("GUEST_CS_BASE") + rip) & LOW32;
  if (vcpu.accessLinear(gla, code, false) === 0) return null;
  const wide = (vmcs.get("GUEST_CS_AR_BYTES") & 0x4000n) !== 0n;
  return decodeMmio(code, vcpu.mode64 ? 8 : wide ? 4 : 2);
}

function failEmulation(vcpu: VmxVcpu, code: Uint8Array): RunResult {
  // KVM_INTERNAL_ERROR_EMULATION: flags 1 (instruction bytes), their number, the bytes.
  const words = new DataView(new ArrayBuffer(16));
  words.setUint8(0, MAX_INSTRUCTION);
  code.forEach((byte, i) => words.setUint8(1 + i, byte));
  return vcpu.vcpu.exitInternalError(KVM_INTERNAL_ERROR_EMULATION, [
    1n,
    words.getBigUint64(0, true),
    words.getBigUint64(8, true),
  ]);
}

const HANDLERS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [ExitReason.EXCEPTION_OR_NMI, handleExceptionNmi],
  [ExitReason.EXTERNAL_INTERRUPT, again],
  [ExitReason.TRIPLE_FAULT, (vcpu) => vcpu.vcpu.exit(KvmExit.KVM_EXIT_SHUTDOWN)],
  [ExitReason.INTERRUPT_WINDOW, again],
  [ExitReason.NMI_WINDOW, again],
  [ExitReason.CPUID, handleCpuid],
  [ExitReason.HLT, handleHlt],
  [ExitReason.INVD, skip],
  [ExitReason.INVLPG, skip],
  [ExitReason.RDPMC, generalProtection],
  [ExitReason.VMCALL, handleVmcall],
  [ExitReason.CR_ACCESS, handleCrAccess],
  [ExitReason.IO_INSTRUCTION, handleIo],
  [ExitReason.MSR_READ, handleRdmsr],
  [ExitReason.MSR_WRITE, handleWrmsr],
  [ExitReason.MWAIT, skip],
  [ExitReason.MONITOR, skip],
  [ExitReason.PAUSE, skip],
  [ExitReason.EPT_VIOLATION, handleEptViolation],
  [ExitReason.EPT_MISCONFIG, handleEptMisconfig],
  [ExitReason.WBINVD, skip],
  [ExitReason.XSETBV, handleXsetbv],
  [ExitReason.GETSEC, undefinedOpcode],
  // No VMX in a guest.
  ...[
    ExitReason.VMCLEAR,
    ExitReason.VMLAUNCH,
    ExitReason.VMPTRLD,
    ExitReason.VMPTRST,
    ExitReason.VMREAD,
    ExitReason.VMRESUME,
    ExitReason.VMWRITE,
    ExitReason.VMXOFF,
    ExitReason.VMXON,
    ExitReason.INVEPT,
    ExitReason.INVVPID,
    ExitReason.VMFUNC,
    ExitReason.ENCLS,
    ExitReason.ENCLV,
    ExitReason.PCONFIG,
    ExitReason.SEAMCALL,
    ExitReason.TDCALL,
  ].map((reason): [number, Handler] => [reason, undefinedOpcode]),
]);
