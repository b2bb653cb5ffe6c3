/**
 * TDX VMs: SEAMCALLs in place of VMX operations. Creation, memory, exits and destruction of a TD.
 * Source: Linux arch/x86/kvm/vmx/tdx.c.
 */
import {
  Errno,
  GET_TD_VMCALL_INFO_R11,
  type Hpa,
  type HpaAndKeyId,
  KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
  KVM_MEM_READONLY,
  KVM_MEMORY_EXIT_FLAG_PRIVATE,
  KVM_TDX_MEASURE_MEMORY_REGION,
  type KvmCpuid2,
  KvmExit,
  type KvmTdxCapabilities,
  type KvmTdxCmd,
  KvmTdxCmdId,
  type KvmTdxInitMemRegion,
  type KvmTdxInitVm,
  metadataFieldId,
  PAGE_SIZE,
  PAGE_SIZE_LEVEL,
  type Pfn,
  SEAMCALL_LEAF,
  statusIs,
  TD_METADATA,
  TD_PARAMS_ALIGN,
  TDX_STATUS,
  VMX_EEQ_TYPE,
  VP_METADATA,
  vmcsFieldId,
} from "@swtdx/abi";
import { ExitReason, PIN, VMCS } from "@swtdx/cpu";
import {
  Gpr,
  type LogicalProcessor,
  seamcallInRegisters,
  type TdxHost,
  type TdxSysInfo,
} from "@swtdx/linux-host";
import { fillCpuid } from "../x86/cpuid.js";
import { type Memslot, privateIndex, sharedPage } from "../memslots.js";
import { reclaimPage, SecureEpt } from "../mmu/secure-ept.js";
import { Ept, SHARED_EPT } from "../mmu/ept.js";
import type { PrivateMemory } from "../private-memory.js";
import { POSTED_INTR_VECTOR, type Vcpu } from "../vcpu.js";
import type { Vm } from "../vm.js";
import { type ApicMessage, type ApicTarget, DeliveryMode } from "../x86/apic-bus.js";
import { KernelError } from "../x86/errno.js";
import { RunResult, type VcpuBackend, type VmBackend } from "../x86/ops.js";
import { releaseProcessor } from "./guest-registers.js";
import { isBusy, mustSucceed, outputs, statusErrno, tdh, tdhRetry } from "./seamcall.js";
import { configurableCpuid, setupTdParams, supportedAttributes, supportedXfam } from "./td-params.js";
import { readTdCpuid } from "./td-cpuid.js";
import { handleTdvmcall, type TdvmcallVcpu } from "./tdvmcall.js";

const PIN_BASED_POSTED_INTR = BigInt(PIN.PROCESS_POSTED_INTERRUPTS);
/** Posted-interrupt descriptor: PIR 0-31, ON bit 256. */
const PID_SIZE = 64;
const PID_CONTROL = 32;
/** Bits 62 and 63 of a status. */
const NON_RECOVERABLE = 1 << 30;
const ERROR = 1 << 31;
const KEY_ID_SHIFT = 46;
/** Pages of 4 KiB in 2 MiB. */
const HUGE_PAGES = 512;
/** The level that TDG.MEM.PAGE.ACCEPT asked for, in the extended exit qualification. */
const acceptLevel = (extended: bigint): number => Number((extended >> 32n) & 7n);
type PrivateSlot = Memslot & { privateMemory: PrivateMemory };
/** TDH.VP.ENTER's operands from register `first` on: all but RSP, and RBP with NO_RBP_MOD. */
function copyGprs(from: Uint32Array, to: Uint32Array, first: number): void {
  for (let i = first * 2; i < Gpr.RSP * 2; i++) to[i] = from[i];
  for (let i = Gpr.RSI * 2; i < 32; i++) to[i] = from[i];
}

export class TdxVm implements VmBackend {
  readonly #host: TdxHost;
  #keyId = -1;
  #tdr: Pfn | null = null;
  #tdcx: Pfn[] = [];
  #initialized = false;
  finalized = false;
  sept: SecureEpt | null = null;
  sharedEpt: Ept | null = null;
  gpaw = false;

  constructor(readonly vm: Vm) {
    const { tdx } = vm.process.host;
    if (!tdx) throw new KernelError(Errno.EOPNOTSUPP);
    this.#host = tdx;
  }

  get info(): TdxSysInfo {
    return this.#host.sysInfo!;
  }
  get lp(): LogicalProcessor {
    return this.vm.process.host.lps[0];
  }
  get tdr(): Hpa {
    return (this.#tdr! * PAGE_SIZE) as Hpa;
  }
  get initialized(): boolean {
    return this.#initialized;
  }
  get sharedBit(): bigint {
    return this.gpaw ? 1n << 51n : 1n << 47n;
  }
  get levels(): number {
    return this.gpaw ? 5 : 4;
  }

  memEncOp(cmd: KvmTdxCmd): number {
    if (cmd.hw_error) return -Errno.EINVAL;
    switch (cmd.id) {
      case KvmTdxCmdId.KVM_TDX_CAPABILITIES:
        return this.#capabilities(cmd.flags ?? 0, cmd.data);
      case KvmTdxCmdId.KVM_TDX_INIT_VM:
        return this.#initVm(cmd, cmd.data);
      case KvmTdxCmdId.KVM_TDX_FINALIZE_VM:
        return this.#finalize(cmd);
      default:
        return -Errno.EINVAL;
    }
  }

  #capabilities(flags: number, target: KvmTdxCapabilities): number {
    if (flags !== 0) return -Errno.EINVAL;
    const attributes = supportedAttributes(this.info);
    const xfam = supportedXfam(this.info);
    if (attributes === null || xfam === null) return -Errno.EIO;
    const filled = fillCpuid(target.cpuid, configurableCpuid(this.info));
    if (filled < 0) return filled;
    target.supported_attrs = attributes;
    target.supported_xfam = xfam;
    target.kernel_tdvmcallinfo_1_r11 = 0n;
    // SetupEventNotifyInterrupt; GetQuote belongs to the base GHCI.
    target.user_tdvmcallinfo_1_r11 = GET_TD_VMCALL_INFO_R11.SetupEventNotifyInterrupt;
    target.kernel_tdvmcallinfo_1_r12 = 0n;
    target.user_tdvmcallinfo_1_r12 = 0n;
    return 0;
  }

  // ---- Creation

  #allocPage(): Pfn {
    const page = this.vm.process.host.pages.allocPage("TD control");
    if (page === null) throw new KernelError(Errno.ENOMEM);
    return page;
  }

  #initVm(cmd: KvmTdxCmd, init: KvmTdxInitVm): number {
    if (this.#initialized || this.vm.vcpus.length > 0 || cmd.flags) return -Errno.EINVAL;
    const { maxVcpus, tscKhz } = this.vm;
    const { params, gpaw } = setupTdParams(this.info, init, { maxVcpus, tscKhz });
    const keyId = this.#host.guestKeyIds.alloc();
    if (keyId < 0) return keyId;
    this.#keyId = keyId;
    const status = this.#createTd(params);
    if (status !== 0n) {
      cmd.hw_error = status;
      this.#destroyTd();
      // The module says which parameter it does not like.
      return statusIs(status, TDX_STATUS.TDX_OPERAND_INVALID) ? -Errno.EINVAL : statusErrno(status);
    }
    this.gpaw = gpaw;
    const { pages } = this.vm.process.host;
    this.sept = new SecureEpt(this.lp, this.tdr, this.levels - 1, pages, keyId, 2 ** KEY_ID_SHIFT);
    this.sharedEpt = new Ept(this.lp, pages, this.levels, SHARED_EPT);
    this.#initialized = true;
    this.#readTsc();
    return 0;
  }

  /** TDH.MNG.CREATE to TDH.MNG.INIT. */
  #createTd(params: Uint8Array): bigint {
    const { lp } = this;
    this.#tdr = this.#allocPage();
    let status = tdhRetry(lp, "TDH.MNG.CREATE", BigInt(this.tdr), BigInt(this.#keyId));
    if (status !== 0n) {
      this.vm.process.host.pages.freePage(this.#tdr);
      this.#tdr = null;
      return status;
    }
    const tdr = BigInt(this.tdr);
    status = tdhRetry(lp, "TDH.MNG.KEY.CONFIG", tdr);
    if (status !== 0n) return status;
    for (let i = 0; i < this.info.tdcsPages; i++) {
      const page = this.#allocPage();
      status = tdhRetry(lp, "TDH.MNG.ADDCX", BigInt(page * PAGE_SIZE), tdr);
      if (status !== 0n) {
        this.vm.process.host.pages.freePage(page);
        return status;
      }
      this.#tdcx.push(page);
    }
    const { pages } = this.vm.process.host;
    const page = this.#allocPage();
    lp.memZero((page * PAGE_SIZE) as HpaAndKeyId, TD_PARAMS_ALIGN);
    lp.memWrite((page * PAGE_SIZE) as HpaAndKeyId, params);
    status = tdhRetry(lp, "TDH.MNG.INIT", tdr, BigInt(page * PAGE_SIZE));
    pages.freePage(page);
    return status;
  }

  /** How the guest's TSC follows the host's: for its deadline timer. */
  #readTsc(): void {
    const read = (name: "TSC_OFFSET" | "TSC_MULTIPLIER"): bigint => {
      const status = tdh(this.lp, "TDH.MNG.RD", BigInt(this.tdr), metadataFieldId(TD_METADATA[name]));
      return status === 0n ? outputs().r8 : 0n;
    };
    const offset = read("TSC_OFFSET");
    const multiplier = read("TSC_MULTIPLIER");
    if (multiplier === 0n) return;
    this.vm.tscOf = (tsc) => BigInt.asUintN(64, ((tsc * multiplier) >> 48n) + offset);
    this.vm.hostTscOf = (tsc) => (BigInt.asUintN(64, tsc - offset) << 48n) / multiplier;
  }

  #finalize(cmd: KvmTdxCmd): number {
    if (!this.#initialized || this.finalized) return -Errno.EINVAL;
    const status = tdh(this.lp, "TDH.MR.FINALIZE", BigInt(this.tdr));
    if (status !== 0n) {
      cmd.hw_error = status;
      return statusErrno(status);
    }
    this.finalized = true;
    return 0;
  }

  createVcpu(vcpu: Vcpu): VcpuBackend {
    if (!this.#initialized) throw new KernelError(Errno.EIO);
    // The module's virtual APIC needs the kernel's local APIC, and level-triggered interrupts user space's I/O APIC.
    if (!this.vm.splitIrqchip) throw new KernelError(Errno.EINVAL);
    return new TdxVcpu(this, vcpu);
  }

  // ---- Memory

  zap(start: number, end: number, side: "private" | "shared"): void {
    if (side === "private") {
      this.sept?.zap(start, end);
      return;
    }
    const bit = Number(this.sharedBit) / PAGE_SIZE;
    if (this.sharedEpt?.zap(start + bit, end + bit))
      for (const lp of this.vm.process.host.lps) lp.invept(2, 0n);
  }

  // ---- Destruction

  destroy(): void {
    this.#destroyTd();
    this.sharedEpt?.free();
  }

  /** All vCPUs are flushed: key, then pages, TDR last. */
  #destroyTd(): void {
    const { lp } = this;
    const { pages } = this.vm.process.host;
    if (this.#tdr !== null) {
      const tdr = BigInt(this.tdr);
      mustSucceed("TDH.MNG.VPFLUSHDONE", tdhRetry(lp, "TDH.MNG.VPFLUSHDONE", tdr));
      // Resumed while the host's interrupts are taken.
      let status = tdh(lp, "TDH.PHYMEM.CACHE.WB", 0n);
      while (statusIs(status, TDX_STATUS.TDX_INTERRUPTED_RESUMABLE)) {
        while (lp.takeInterrupt() !== null);
        status = tdh(lp, "TDH.PHYMEM.CACHE.WB", 1n);
      }
      mustSucceed("TDH.PHYMEM.CACHE.WB", status);
      mustSucceed("TDH.MNG.KEY.FREEID", tdhRetry(lp, "TDH.MNG.KEY.FREEID", tdr));
      this.sept?.reclaim();
      for (const vcpu of this.vm.vcpus) (vcpu.backend as TdxVcpu).reclaim();
      for (const page of this.#tdcx) reclaimPage(lp, page, pages);
      this.#tdcx = [];
      reclaimPage(lp, this.#tdr, pages);
      this.#tdr = null;
    }
    if (this.#keyId >= 0) this.#host.guestKeyIds.free(this.#keyId);
    this.#keyId = -1;
    this.sept = null;
  }
}

class TdxVcpu implements VcpuBackend, TdvmcallVcpu {
  /** A TD's registers are nobody's but the guest's. */
  readonly state = null;
  readonly gprs = new BigUint64Array(16);
  readonly words = new Uint32Array(this.gprs.buffer);
  complete: ((td: TdvmcallVcpu) => RunResult | void) | null = null;
  ioSize = 0;
  haltBlocked = false;
  #tdvpr: Pfn | null = null;
  #tdcx: Pfn[] = [];
  /** Page with the posted-interrupt descriptor. */
  #pid: Pfn | null = null;
  #pending = false;
  #nmiPending = false;
  readonly #pir = new Uint8Array(PID_SIZE);
  #initialized = false;

  constructor(
    readonly td: TdxVm,
    readonly vcpu: Vcpu,
  ) {}

  get apic(): ApicTarget {
    return { id: this.vcpu.id, ldr: this.vcpu.lapic.ldr, x2apic: true };
  }
  get sharedBit(): bigint {
    return this.td.sharedBit;
  }
  get gpaLimit(): bigint {
    return this.td.sharedBit << 1n;
  }
  get #lp(): LogicalProcessor {
    return this.vcpu.lp;
  }
  /** TDVPR: what the module's functions know the vCPU by. */
  #handle = 0n;

  memEncOp(cmd: KvmTdxCmd): number {
    if (cmd.hw_error) return -Errno.EINVAL;
    switch (cmd.id) {
      case KvmTdxCmdId.KVM_TDX_INIT_VCPU:
        return this.#init(cmd, cmd.data);
      case KvmTdxCmdId.KVM_TDX_INIT_MEM_REGION:
        return this.#initMemRegion(cmd, cmd.data);
      case KvmTdxCmdId.KVM_TDX_GET_CPUID:
        return this.#getCpuid(cmd.flags ?? 0, cmd.data);
      default:
        return -Errno.EINVAL;
    }
  }

  // ---- Creation

  #allocPage(): Pfn {
    const page = this.td.vm.process.host.pages.allocPage("TD vCPU");
    if (page === null) throw new KernelError(Errno.ENOMEM);
    return page;
  }

  #init(cmd: KvmTdxCmd, rcx: bigint): number {
    if (this.#initialized || cmd.flags || this.td.finalized) return -Errno.EINVAL;
    const status = this.#create(rcx);
    if (status !== 0n) {
      cmd.hw_error = status;
      return statusErrno(status);
    }
    this.#initialized = true;
    return 0;
  }

  #create(rcx: bigint): bigint {
    const lp = this.#lp;
    const { pages } = this.td.vm.process.host;
    const tdvpr = this.#allocPage();
    let status = tdhRetry(lp, "TDH.VP.CREATE", BigInt(tdvpr * PAGE_SIZE), BigInt(this.td.tdr));
    if (status !== 0n) {
      pages.freePage(tdvpr);
      return status;
    }
    this.#tdvpr = tdvpr;
    this.#handle = BigInt(tdvpr * PAGE_SIZE);
    for (let i = 1; i < this.td.info.tdvpsPages; i++) {
      const page = this.#allocPage();
      status = tdhRetry(lp, "TDH.VP.ADDCX", BigInt(page * PAGE_SIZE), this.#handle);
      if (status !== 0n) {
        pages.freePage(page);
        return status;
      }
      this.#tdcx.push(page);
    }
    status = tdhRetry(lp, "TDH.VP.INIT", this.#handle, rcx, BigInt(this.vcpu.id), 0n, 1);
    if (status !== 0n) return status;
    this.#pid = this.#allocPage();
    const pid = this.#pid * PAGE_SIZE;
    lp.memZero(pid as HpaAndKeyId, PAGE_SIZE);
    status = this.#vpWrite(vmcsFieldId(VMCS.POSTED_INTR_NV), BigInt(POSTED_INTR_VECTOR), 0xffffn);
    if (status === 0n) status = this.#vpWrite(vmcsFieldId(VMCS.POSTED_INTR_DESC_ADDR), BigInt(pid));
    if (status === 0n) {
      const field = vmcsFieldId(VMCS.PIN_BASED_VM_EXEC_CONTROL);
      status = this.#vpWrite(field, PIN_BASED_POSTED_INTR, PIN_BASED_POSTED_INTR);
    }
    if (status === 0n)
      status = this.#vpWrite(
        vmcsFieldId(VMCS.SHARED_EPT_POINTER),
        BigInt(this.td.sharedEpt!.root * PAGE_SIZE),
      );
    return status;
  }

  #vpWrite(field: bigint, value: bigint, mask = 0xffff_ffff_ffff_ffffn): bigint {
    return tdhRetry(this.#lp, "TDH.VP.WR", this.#handle, field, value, mask);
  }

  #initMemRegion(cmd: KvmTdxCmd, region: KvmTdxInitMemRegion): number {
    const { td } = this;
    const flags = cmd.flags ?? 0;
    if (!this.#initialized || td.finalized || (flags & ~KVM_TDX_MEASURE_MEMORY_REGION) !== 0)
      return -Errno.EINVAL;
    const { source_addr, gpa, nr_pages } = region;
    if (source_addr % PAGE_SIZE !== 0 || gpa % PAGE_SIZE !== 0 || nr_pages <= 0) return -Errno.EINVAL;
    if (gpa + nr_pages * PAGE_SIZE > Number(td.sharedBit)) return -Errno.EINVAL;
    const { vm } = td;
    const source = vm.process.memory.find(source_addr);
    if (!source || source_addr - source.address + nr_pages * PAGE_SIZE > source.length) return -Errno.EFAULT;
    const measure = (flags & KVM_TDX_MEASURE_MEMORY_REGION) !== 0;
    for (let i = 0; i < nr_pages; i++) {
      const gfn = gpa / PAGE_SIZE + i;
      const slot = this.#privateSlot(gfn);
      if (slot === null) return -Errno.EINVAL;
      if (td.sept!.isMapped(gfn)) return -Errno.EEXIST;
      // The source first: it may be the page's own place in user memory.
      const from = source.page(source_addr - source.address + i * PAGE_SIZE);
      const index = privateIndex(slot, gfn);
      const status = td.sept!.add(gfn, slot.privateMemory.page(index), from, measure);
      if (status !== 0n) {
        if (!td.sept!.isMapped(gfn)) slot.privateMemory.converted(index, 1);
        cmd.hw_error = status;
        return statusErrno(status);
      }
      // What is done is not to be done again.
      region.source_addr += PAGE_SIZE;
      region.gpa += PAGE_SIZE;
      region.nr_pages--;
    }
    return 0;
  }

  /** The slot of a private guest frame, if it has private memory. */
  #privateSlot(gfn: number): PrivateSlot | null {
    const { vm } = this.td;
    const slot = vm.slots.find(gfn);
    return slot?.privateMemory && vm.privateRanges.has(gfn) ? (slot as PrivateSlot) : null;
  }

  /** Whether the 2 MiB around a guest frame may be mapped as one page. */
  #isHugeAllowed(slot: PrivateSlot, gfn: number): boolean {
    const { vm, sept } = this.td;
    if (!vm.process.parameters.tdx_huge_page) return false;
    const unit = Math.floor(gfn / HUGE_PAGES);
    const first = unit * HUGE_PAGES;
    return (
      first >= slot.base &&
      first + HUGE_PAGES <= slot.base + slot.pages &&
      privateIndex(slot, first) % HUGE_PAGES === 0 &&
      !slot.inhibited.has(unit) &&
      // No mixed attributes; and what is mapped small stays so.
      vm.privateRanges.hasAll(first, first + HUGE_PAGES) &&
      !sept!.hasPageTable(gfn) &&
      slot.privateMemory.isHuge(privateIndex(slot, gfn))
    );
  }

  /** KVM_TDX_GET_CPUID. */
  #getCpuid(flags: number, target: KvmCpuid2): number {
    if (flags !== 0 || !this.td.initialized || this.td.finalized) return -Errno.EINVAL;
    const read = (field: bigint): bigint | null =>
      tdh(this.#lp, "TDH.MNG.RD", BigInt(this.td.tdr), field) === 0n ? outputs().r8 : null;
    const entries = readTdCpuid(read, this.td.gpaw ? 52 : 48);
    if (!entries) return -Errno.EIO;
    const result = fillCpuid(target, entries);
    // So that user space knows what to ask for.
    target.nent = entries.length;
    return result;
  }

  // ---- Interrupts

  deliver({ mode, vector }: ApicMessage): void {
    // INIT and start-up do not exist for a TD.
    if (mode === DeliveryMode.NMI) this.nmi();
    else if (mode === DeliveryMode.FIXED || mode === DeliveryMode.LOWEST) this.#post(vector);
  }

  /** A posted interrupt: the only way into a TD. */
  #post(vector: number): void {
    if (this.#pid === null || vector < 16) return;
    const lp = this.#lp;
    const pid = (this.#pid * PAGE_SIZE) as HpaAndKeyId;
    lp.memRead(pid, this.#pir);
    this.#pir[vector >> 3] |= 1 << (vector & 7);
    this.#pir[PID_CONTROL] |= 1;
    lp.memWrite(pid, this.#pir);
    this.#pending = true;
  }

  hasInterrupt(): boolean {
    // An NMI ends every HLT.
    if (this.#nmiPending) return true;
    if (this.vcpu.halted && this.haltBlocked) return false;
    if (this.#pending) return true;
    // A virtual interrupt that the guest has not taken yet (VCPU_STATE_DETAILS.VMXIP).
    const status = tdh(this.#lp, "TDH.VP.RD", this.#handle, metadataFieldId(VP_METADATA.VCPU_STATE_DETAILS));
    return status === 0n && (outputs().r8 & 1n) !== 0n;
  }

  nmi(): void {
    if (this.#tdvpr === null) return;
    this.#vpWrite(metadataFieldId(VP_METADATA.PEND_NMI), 1n, 0xffn);
    this.#nmiPending = true;
  }

  // ---- Running

  completeExit(): RunResult {
    const complete = this.complete;
    this.complete = null;
    return complete?.(this) ?? RunResult.CONTINUE;
  }

  run(): RunResult {
    if (!this.#initialized || !this.td.finalized) return -Errno.EINVAL;
    const lp = this.#lp;
    const { regs } = lp;
    this.#nmiPending = false;
    // The notification is recognized as soon as the guest runs, and the processor takes in what was posted.
    if (this.#pending) {
      this.#pending = false;
      lp.pendExternalInterrupt(POSTED_INTR_VECTOR);
    }
    releaseProcessor(lp);
    const { u32 } = regs;
    const { words } = this;
    copyGprs(words, u32, Gpr.RDX);
    u32[Gpr.RAX * 2] = VP_ENTER;
    u32[Gpr.RAX * 2 + 1] = 0;
    regs.setGpr(Gpr.RCX, this.#handle);
    seamcallInRegisters(lp);
    // RAX: the status.
    copyGprs(u32, words, Gpr.RAX);
    return this.#handleExit(words[Gpr.RAX * 2] & 0xffff, words[Gpr.RAX * 2 + 1]);
  }
  get vpEnterRet(): bigint {
    return this.gprs[Gpr.RAX];
  }

  /** @param high bits 63:32 of the status */
  #handleExit(reason: number, high: number): RunResult {
    if ((high & (NON_RECOVERABLE | ERROR)) !== 0) return this.#handleError(reason, high, this.vpEnterRet);
    switch (reason) {
      case ExitReason.TDCALL:
        return handleTdvmcall(this);
      case ExitReason.EPT_VIOLATION:
        return this.#eptViolation();
      case ExitReason.EXTERNAL_INTERRUPT:
        return RunResult.CONTINUE;
      case ExitReason.EXCEPTION_OR_NMI:
        this.#lp.takeNmi();
        return RunResult.CONTINUE;
      default:
        return this.vcpu.exitInternalError(KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON, [
          this.vpEnterRet,
          BigInt(this.#lp.index),
        ]);
    }
  }
  #handleError(reason: number, high: number, status: bigint): RunResult {
    if ((high & NON_RECOVERABLE) !== 0) {
      this.td.vm.dead = true;
      if (reason === ExitReason.TRIPLE_FAULT && statusIs(status, TDX_STATUS.TDX_NON_RECOVERABLE_VCPU)) {
        this.td.vm.dead = false;
        return this.vcpu.exit(KvmExit.KVM_EXIT_SHUTDOWN);
      }
      return this.#failEntry(status);
    }
    return isBusy(status) ? RunResult.CONTINUE : this.#failEntry(status);
  }

  #failEntry(status: bigint): RunResult {
    const { view } = this.vcpu;
    view.setBigUint64(32, status, true);
    view.setUint32(40, this.#lp.index, true);
    return this.vcpu.exit(KvmExit.KVM_EXIT_FAIL_ENTRY);
  }

  /** RCX: qualification. RDX: extended qualification. R8: GPA. */
  #eptViolation(): RunResult {
    const gpa = this.gprs[Gpr.R8];
    const { td } = this;
    const gfn = Number((gpa & ~td.sharedBit) / BigInt(PAGE_SIZE));
    if ((gpa & td.sharedBit) !== 0n) return this.#sharedFault(gfn);
    const type = Number(this.gprs[Gpr.RDX] & 0xfn);
    const slot = this.#privateSlot(gfn);
    if (!slot) return this.vcpu.exitMemoryFault(gfn, KVM_MEMORY_EXIT_FLAG_PRIVATE);
    if (type === VMX_EEQ_TYPE.ACCEPT && acceptLevel(this.gprs[Gpr.RDX]) === PAGE_SIZE_LEVEL.PT_4KB) {
      slot.inhibited.add(Math.floor(gfn / HUGE_PAGES));
      td.sept!.split(gfn);
    }
    if (td.sept!.isMapped(gfn)) {
      if (type === VMX_EEQ_TYPE.PENDING_EPT_VIOLATION) {
        // The guest touched what it has not accepted: it will never get past this.
        td.vm.dead = true;
        return -Errno.EIO;
      }
      return RunResult.CONTINUE;
    }
    const page = slot.privateMemory.page(privateIndex(slot, gfn));
    const huge = this.#isHugeAllowed(slot, gfn);
    const inUnit = huge ? gfn % HUGE_PAGES : 0;
    const level = huge ? PAGE_SIZE_LEVEL.PT_2MB : PAGE_SIZE_LEVEL.PT_4KB;
    const status = td.sept!.aug(gfn - inUnit, (page - inUnit) as Pfn, level);
    if (status === 0n || isBusy(status)) return RunResult.CONTINUE;
    td.vm.dead = true;
    return -Errno.EIO;
  }

  #sharedFault(gfn: number): RunResult {
    const { td } = this;
    const { vm } = td;
    const shared = gfn + Number(td.sharedBit) / PAGE_SIZE;
    const slot = vm.slots.find(gfn);
    if (!slot) {
      td.sharedEpt!.mapMmio(shared);
      for (const lp of vm.process.host.lps) lp.invept(2, 0n);
      return RunResult.CONTINUE;
    }
    if (vm.privateRanges.has(gfn)) return this.vcpu.exitMemoryFault(gfn, 0n);
    td.sharedEpt!.map(shared, sharedPage(slot, gfn), (slot.flags & KVM_MEM_READONLY) === 0);
    return RunResult.CONTINUE;
  }

  // ---- Destruction

  free(): void {
    if (this.#tdvpr === null) return;
    if (this.#initialized) {
      const status = tdhRetry(this.#lp, "TDH.VP.FLUSH", this.#handle);
      if (!statusIs(status, TDX_STATUS.TDX_VCPU_NOT_ASSOCIATED)) mustSucceed("TDH.VP.FLUSH", status);
    }
    if (this.#pid !== null) this.td.vm.process.host.pages.freePage(this.#pid);
    this.#pid = null;
  }

  /** The TD's HKID is free. */
  reclaim(): void {
    const { pages } = this.td.vm.process.host;
    for (const page of this.#tdcx) reclaimPage(this.#lp, page, pages);
    this.#tdcx = [];
    if (this.#tdvpr !== null) reclaimPage(this.#lp, this.#tdvpr, pages);
    this.#tdvpr = null;
  }
}

const VP_ENTER = SEAMCALL_LEAF["TDH.VP.ENTER"];
