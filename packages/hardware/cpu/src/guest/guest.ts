/**
 * The instructions of a guest that may be intercepted or fault: the rest of what an engine asks the processor.
 * Intel SDM vol. 3C chapter 26 ("VMX non-root operation"); order of steps in each: faults that come before the
 * intercept, the intercept, the instruction.
 */
import { Gpr, REG, type RegisterFile, Vector } from "@swtdx/x86";
import type { RandomSource } from "../interface/processor.js";
import type { Cpuid } from "../interface/seam.js";
import { Step, type GuestContext } from "../interface/engine.js";
import { isCanonical, LINEAR_BITS, type MsrFile } from "../msr/msr-file.js";
import { EXIT, ExitReason, PIN, PROC, PROC2, PROC3 } from "../vmx/controls.js";
import type { CheckContext } from "../vmx/entry-checks.js";
import { VMCS } from "../vmx/fields.js";
import type { Vmcs } from "../vmx/vmcs.js";
import type { PhysicalMemory } from "../memory/physical.js";
import type { GuestHost } from "./events.js";
import { GuestControlRegisters } from "./control-registers.js";
import { deliverThroughIdt } from "./idt.js";

/** XCR0 bits the processor has: x87, SSE, PKRU. */
export const XCR0_SUPPORTED = 0x203n;

const XCR0_BITS = Number(XCR0_SUPPORTED);

/** What a guest needs besides. */
export interface GuestServices extends GuestHost {
  readonly msrs: MsrFile;
  readonly random: RandomSource;
  cpuid(leaf: number, subleaf: number): Cpuid;
  tscNow(): bigint;
}

const LOW32 = 0xffffffffn;
const CR4_PCIDE = 0x20000;
/** Ticks of a PAUSE outside a PAUSE loop's exit: as since Skylake. */
const PAUSE_TICKS = 140;
const IA32_UMWAIT_CONTROL = 0xe1;

export class Guest extends GuestControlRegisters implements GuestContext {
  constructor(
    regs: RegisterFile,
    phys: PhysicalMemory,
    private readonly services: GuestServices,
  ) {
    super(regs, phys, services);
  }

  /** VM entry: reads the controls and starts timers and virtual interrupts. */
  begin(v: Vmcs, c: CheckContext): void {
    this.v = v;
    this.td = c.seam;
    this.pin = c.pin;
    this.proc = c.proc;
    this.proc2 = c.proc2;
    this.proc3 = c.proc3;
    this.exitControls = c.exit;
    this.exceptionBitmap = v.lo(VMCS.EXCEPTION_BITMAP);
    this.exited = false;
    this.delivering = false;
    this.nmiUnblocking = 0;
    this.startTimers();
    this.startVirtualInterrupts(v.lo(VMCS.GUEST_INTR_STATUS));
    this.armShadow();
  }
  /** VM exit: saves what the guest part of the processor keeps. */
  end(v: Vmcs): void {
    if ((this.proc2 & PROC2.VIRTUAL_INTERRUPT_DELIVERY) !== 0)
      v.set(VMCS.GUEST_INTR_STATUS, this.rvi | (this.svi << 8));
    if ((this.exitControls & EXIT.SAVE_PREEMPTION_TIMER) !== 0)
      v.set(VMCS.VMX_PREEMPTION_TIMER_VALUE, this.preemptionLeft());
  }

  #set64(gpr: number, value: bigint): void {
    this.regs.setGpr(gpr, value);
  }
  /** EDX:EAX and CPUID results zero the high halves. */
  #split(value: bigint): void {
    this.#set64(Gpr.RAX, value & LOW32);
    this.#set64(Gpr.RDX, (value >> 32n) & LOW32);
  }
  #joined(): bigint {
    return ((this.regs.gpr(Gpr.RDX) & LOW32) << 32n) | (this.regs.gpr(Gpr.RAX) & LOW32);
  }

  /** Always exits. */
  cpuid(length: number): Step {
    return this.exit(ExitReason.CPUID, 0, length);
  }

  #msrExits(index: number, write: boolean): boolean {
    if ((this.proc & PROC.USE_MSR_BITMAPS) === 0) return true;
    const high = index >= 0xc0000000 && index <= 0xc0001fff;
    if (!high && index > 0x1fff) return true;
    const bit = (high ? index - 0xc0000000 : index) + (write ? 16384 : 0) + (high ? 8192 : 0);
    const { phys } = this;
    phys.split(this.v.addr(VMCS.MSR_BITMAP) + Math.floor(bit / 64) * 8);
    phys.readQ(phys.hpa, phys.keyId, this.td);
    return (((bit & 32) !== 0 ? phys.hi : phys.lo) & (1 << (bit & 31))) !== 0;
  }
  rdmsr(length: number): Step {
    if (!this.privileged()) return this.raise(Vector.GP, 0);
    const index = Number(this.regs.gpr(Gpr.RCX) & LOW32);
    if (this.#msrExits(index, false)) return this.exit(ExitReason.MSR_READ, 0, length);
    let value: bigint | null;
    if (index === 0x10) value = this.guestTsc();
    else if (index >= 0x800 && index <= 0x8ff && (this.proc2 & PROC2.VIRTUALIZE_X2APIC_MODE) !== 0)
      value = this.#readX2apic(index);
    else if (index === 0x48 && (this.proc3 & PROC3.VIRTUALIZE_SPEC_CTRL) !== 0)
      value = this.v.get(VMCS.IA32_SPEC_CTRL_SHADOW);
    else value = this.services.msrs.read(index);
    if (value === null) return this.raise(Vector.GP, 0);
    this.#split(value);
    return Step.DONE;
  }
  #readX2apic(index: number): bigint | null {
    if ((this.proc2 & PROC2.APIC_REGISTER_VIRTUALIZATION) === 0 && index !== 0x808)
      return this.services.msrs.read(index);
    const at = (index - 0x800) * 16;
    const low = BigInt(this.vapicRead(at) >>> 0);
    return index === 0x830 ? low | (BigInt(this.vapicRead(at + 4) >>> 0) << 32n) : low;
  }
  wrmsr(length: number): Step {
    if (!this.privileged()) return this.raise(Vector.GP, 0);
    const index = Number(this.regs.gpr(Gpr.RCX) & LOW32);
    if (this.#msrExits(index, true)) return this.exit(ExitReason.MSR_WRITE, 0, length);
    const value = this.#joined();
    if ((this.proc2 & PROC2.VIRTUALIZE_X2APIC_MODE) !== 0) {
      const virtual = (this.proc2 & PROC2.VIRTUAL_INTERRUPT_DELIVERY) !== 0;
      if (index === 0x808) {
        if (value > 0xffn) return this.raise(Vector.GP, 0);
        return this.tprWritten(Number(value));
      }
      if (index === 0x80b && virtual) {
        if (value !== 0n) return this.raise(Vector.GP, 0);
        this.eoiWritten();
        return Step.DONE;
      }
      if (index === 0x83f && virtual) {
        if (value > 0xffn) return this.raise(Vector.GP, 0);
        this.selfIpi(Number(value));
        return Step.DONE;
      }
    }
    if (index === 0x48 && (this.proc3 & PROC3.VIRTUALIZE_SPEC_CTRL) !== 0) {
      const mask = this.v.get(VMCS.IA32_SPEC_CTRL_MASK);
      const real = (value & ~mask) | (this.services.msrs.raw(0x48) & mask);
      if (!this.services.msrs.write(index, real)) return this.raise(Vector.GP, 0);
      this.v.put(VMCS.IA32_SPEC_CTRL_SHADOW, value);
      return Step.DONE;
    }
    if (!this.services.msrs.write(index, value)) return this.raise(Vector.GP, 0);
    return Step.DONE;
  }

  #ioExits(port: number, size: number): boolean {
    if ((this.proc & PROC.USE_IO_BITMAPS) === 0) return (this.proc & PROC.UNCONDITIONAL_IO_EXITING) !== 0;
    if (port + size > 0x10000) return true;
    for (let i = 0; i < size; i++) {
      const at = port + i;
      const { phys } = this;
      const bitmap = this.v.addr(at < 0x8000 ? VMCS.IO_BITMAP_A : VMCS.IO_BITMAP_B);
      phys.split(bitmap + Math.floor((at & 0x7fff) / 64) * 8);
      phys.readQ(phys.hpa, phys.keyId, this.td);
      if ((((at & 32) !== 0 ? phys.hi : phys.lo) & (1 << (at & 31))) !== 0) return true;
    }
    return false;
  }
  /** IOPL allows I/O; the I/O permission bitmap of the TSS is not consulted: an engine that runs CPL 3 does. */
  #ioAllowed(): boolean {
    return this.cpl <= ((this.regs.get32(REG.RFLAGS) >>> 12) & 3) || (this.regs.get32(REG.CR0) & 1) === 0;
  }
  in(port: number, size: number, length: number, immediate: boolean): Step {
    if (!this.#ioAllowed()) return this.raise(Vector.GP, 0);
    if (this.#ioExits(port, size))
      return this.exit(
        ExitReason.IO_INSTRUCTION,
        (size - 1) | 8 | (immediate ? 0x40 : 0) | (port * 0x10000),
        length,
      );
    // Nothing answers on the ports of this package.
    this.low = size === 4 ? 0xffffffff : (1 << (size * 8)) - 1;
    this.high = 0;
    return Step.DONE;
  }
  out(port: number, size: number, value: number, length: number, immediate: boolean): Step {
    void value;
    if (!this.#ioAllowed()) return this.raise(Vector.GP, 0);
    if (this.#ioExits(port, size))
      return this.exit(
        ExitReason.IO_INSTRUCTION,
        (size - 1) | (immediate ? 0x40 : 0) | (port * 0x10000),
        length,
      );
    return Step.DONE;
  }

  hlt(length: number): Step {
    if (!this.privileged()) return this.raise(Vector.GP, 0);
    if ((this.proc & PROC.HLT_EXITING) !== 0) return this.exit(ExitReason.HLT, 0, length);
    this.regs.set32(REG.ACTIVITY, 1);
    this.attention = true;
    return Step.DONE;
  }
  pause(length: number): Step {
    if ((this.proc & PROC.PAUSE_EXITING) !== 0) return this.exit(ExitReason.PAUSE, 0, length);
    this.spend(PAUSE_TICKS);
    return Step.DONE;
  }
  invlpg(gla: bigint, length: number): Step {
    if (!this.privileged()) return this.raise(Vector.GP, 0);
    const low = Number(gla & LOW32);
    const high = Number((gla >> 32n) & LOW32);
    if ((this.proc & PROC.INVLPG_EXITING) !== 0) {
      this.exit(ExitReason.INVLPG, 0, length);
      this.v.set(VMCS.EXIT_QUALIFICATION, low, high);
      return Step.EXIT;
    }
    this.flushLinear(low, high);
    return Step.DONE;
  }
  invpcid(type: number, pcid: number, gla: bigint, length: number): Step {
    if ((this.proc2 & PROC2.ENABLE_INVPCID) === 0) return this.raise(Vector.UD);
    if (!this.privileged()) return this.raise(Vector.GP, 0);
    if ((this.proc & PROC.INVLPG_EXITING) !== 0) return this.exit(ExitReason.INVPCID, 0, length);
    const pcide = (this.regs.get32(REG.CR4) & CR4_PCIDE) !== 0;
    if (
      type > 3 ||
      pcid > 0xfff ||
      (type < 2 && pcid !== 0 && !pcide) ||
      (type === 0 && !isCanonical(gla, LINEAR_BITS))
    )
      return this.raise(Vector.GP, 0);
    const low = Number(gla & LOW32);
    const high = Number((gla >> 32n) & LOW32);
    const pageLow = ((low >>> 12) | (high << 20)) >>> 0;
    if (type === 0) this.tlb.flushPage(this.vpid, pcid, pageLow, high >>> 12);
    else if (type === 1) this.tlb.flushVpid(this.vpid, true, pcid);
    else this.tlb.flushVpid(this.vpid, type === 3);
    this.flushed(-1, -1);
    return Step.DONE;
  }
  /** The guest's TSC: scaled and offset. SDM section 26.5.3. */
  guestTsc(): bigint {
    let tsc = this.services.tscNow();
    if ((this.proc & PROC.USE_TSC_OFFSETTING) === 0) return tsc;
    if ((this.proc2 & PROC2.TSC_SCALING) !== 0) tsc = (tsc * this.v.get(VMCS.TSC_MULTIPLIER)) >> 48n;
    return BigInt.asUintN(64, tsc + this.v.get(VMCS.TSC_OFFSET));
  }
  rdtsc(length: number): Step {
    if (this.cpl !== 0 && (this.regs.get32(REG.CR4) & 4) !== 0) return this.raise(Vector.GP, 0);
    if ((this.proc & PROC.RDTSC_EXITING) !== 0) return this.exit(ExitReason.RDTSC, 0, length);
    this.#split(this.guestTsc());
    return Step.DONE;
  }
  rdtscp(length: number): Step {
    if ((this.proc2 & PROC2.ENABLE_RDTSCP) === 0) return this.raise(Vector.UD);
    if (this.cpl !== 0 && (this.regs.get32(REG.CR4) & 4) !== 0) return this.raise(Vector.GP, 0);
    if ((this.proc & PROC.RDTSC_EXITING) !== 0) return this.exit(ExitReason.RDTSCP, 0, length);
    this.#split(this.guestTsc());
    this.#set64(Gpr.RCX, this.regs.get(REG.TSC_AUX) & LOW32);
    return Step.DONE;
  }
  rdpmc(length: number): Step {
    if (this.cpl !== 0 && (this.regs.get32(REG.CR4) & 0x100) === 0) return this.raise(Vector.GP, 0);
    if ((this.proc & PROC.RDPMC_EXITING) !== 0) return this.exit(ExitReason.RDPMC, 0, length);
    const index = Number(this.regs.gpr(Gpr.RCX) & LOW32);
    const msr =
      index < 8 ? 0xc1 + index : index >= 0x40000000 && index < 0x40000004 ? 0x309 + index - 0x40000000 : -1;
    const value = msr < 0 ? null : this.services.msrs.read(msr);
    if (value === null) return this.raise(Vector.GP, 0);
    this.#split(value);
    return Step.DONE;
  }
  rdrand(gpr: number, size: number, length: number): Step {
    return this.#random(ExitReason.RDRAND, PROC2.RDRAND_EXITING, gpr, size, length);
  }
  rdseed(gpr: number, size: number, length: number): Step {
    return this.#random(ExitReason.RDSEED, PROC2.RDSEED_EXITING, gpr, size, length);
  }
  #random(reason: number, control: number, gpr: number, size: number, length: number): Step {
    if ((this.proc2 & control) !== 0) return this.exit(reason, 0, length);
    const value = BigInt.asUintN(size * 8, this.services.random.u64());
    this.#set64(gpr, size === 2 ? (this.regs.gpr(gpr) & ~0xffffn) | value : value);
    // CF = 1, OF SF ZF AF PF = 0.
    this.regs.set32(REG.RFLAGS, (this.regs.get32(REG.RFLAGS) & ~0x8d5) | 1);
    return Step.DONE;
  }
  wbinvd(length: number): Step {
    if (!this.privileged()) return this.raise(Vector.GP, 0);
    if ((this.proc2 & PROC2.WBINVD_EXITING) !== 0) return this.exit(ExitReason.WBINVD, 0, length);
    return Step.DONE;
  }
  invd(length: number): Step {
    if (!this.privileged()) return this.raise(Vector.GP, 0);
    return this.exit(ExitReason.INVD, 0, length);
  }
  /** Always exits (at CPL 0 with OSXSAVE). */
  xsetbv(length: number): Step {
    if ((this.regs.get32(REG.CR4) & 0x40000) === 0) return this.raise(Vector.UD);
    if (!this.privileged()) return this.raise(Vector.GP, 0);
    return this.exit(ExitReason.XSETBV, 0, length);
  }
  tdcall(length: number): Step {
    return this.exit(ExitReason.TDCALL, 0, length);
  }
  seamcall(length: number): Step {
    return this.exit(ExitReason.SEAMCALL, 0, length);
  }
  vmcall(length: number): Step {
    return this.exit(ExitReason.VMCALL, 0, length);
  }
  /** VMX instructions, GETSEC, ENCLS, …: exit by themselves, except those whose enabling control is off. */
  vmxInstruction(exitReason: number, length: number): Step {
    if (exitReason === ExitReason.VMFUNC) return this.raise(Vector.UD);
    if (exitReason === ExitReason.PCONFIG && (this.proc2 & PROC2.ENABLE_PCONFIG) === 0)
      return this.raise(Vector.UD);
    if (
      (exitReason === ExitReason.UMWAIT || exitReason === ExitReason.TPAUSE) &&
      (this.proc2 & PROC2.ENABLE_USER_WAIT_PAUSE) === 0
    )
      return this.raise(Vector.UD);
    return this.exit(exitReason, 0, length);
  }
  /** XSAVES and XRSTORS exit if they concern a component in the XSS-exiting bitmap. */
  extendedState(exitReason: number, length: number): Step {
    if ((this.proc2 & PROC2.ENABLE_XSAVES) === 0) return this.raise(Vector.UD);
    const concerned = this.#joined() & this.regs.get(REG.XSS);
    return (concerned & this.v.get(VMCS.XSS_EXIT_BITMAP)) === 0n
      ? Step.DONE
      : this.exit(exitReason, 0, length);
  }
  /** MSRs that XSAVES and XRSTORS move, whatever the MSR bitmaps say. */
  stateMsr(index: number): bigint {
    return this.services.msrs.raw(index);
  }
  setStateMsr(index: number, value: bigint): boolean {
    return this.services.msrs.write(index, value);
  }
  monitor(gla: bigint, length: number): Step {
    void gla;
    if (!this.privileged()) return this.raise(Vector.UD);
    if ((this.proc & PROC.MONITOR_EXITING) !== 0) return this.exit(ExitReason.MONITOR, 0, length);
    return Step.DONE;
  }
  mwait(length: number): Step {
    if (!this.privileged()) return this.raise(Vector.UD);
    if ((this.proc & PROC.MWAIT_EXITING) !== 0) return this.exit(ExitReason.MWAIT, 0, length);
    return Step.DONE;
  }
  /** UMONITOR: arms nothing, since UMWAIT may end at any time. */
  umonitor(gla: bigint): Step {
    if ((this.proc2 & PROC2.ENABLE_USER_WAIT_PAUSE) === 0) return this.raise(Vector.UD);
    if (!this.mode64 && gla > LOW32) return this.raise(Vector.GP, 0);
    return Step.DONE;
  }
  /** UMWAIT ends at once: what a store to the monitored range would end may also end by itself. */
  umwait(gpr: number, length: number): Step {
    const step = this.#userWait(gpr, ExitReason.UMWAIT, length);
    if (step === Step.DONE) this.#setCarryAlone(false);
    return step;
  }
  /** TPAUSE: time passes to the deadline in EDX:EAX, the limit of IA32_UMWAIT_CONTROL, or the next event. */
  tpause(gpr: number, length: number): Step {
    const step = this.#userWait(gpr, ExitReason.TPAUSE, length);
    if (step !== Step.DONE) return step;
    const { regs, host } = this;
    const deadline = ((regs.gpr(Gpr.RDX) & LOW32) << 32n) | (regs.gpr(Gpr.RAX) & LOW32);
    const limit = Number(this.services.msrs.raw(IA32_UMWAIT_CONTROL) & 0xffff_fffcn);
    const wanted = this.#hostTicks(deadline - this.guestTsc());
    const limited = limit !== 0 && wanted > limit;
    const ticks = Math.min(limited ? limit : wanted, Math.max(0, this.nextTick - host.ticks));
    if (ticks > 0) this.spend(ticks);
    this.#setCarryAlone(limited && ticks === limit);
    return Step.DONE;
  }
  #userWait(gpr: number, reason: number, length: number): Step {
    if ((this.proc2 & PROC2.ENABLE_USER_WAIT_PAUSE) === 0) return this.raise(Vector.UD);
    if ((this.regs.gpr(gpr) & 0xffff_fffen) !== 0n) return this.raise(Vector.GP, 0);
    if (this.cpl !== 0 && (this.regs.get32(REG.CR4) & 4) !== 0) return this.raise(Vector.GP, 0);
    if ((this.proc & PROC.RDTSC_EXITING) !== 0) return this.exit(reason, 0, length);
    return Step.DONE;
  }
  /** Ticks of the processor's own TSC for a number of the guest's. */
  #hostTicks(guestTicks: bigint): number {
    if (guestTicks <= 0n) return 0;
    const scaled =
      (this.proc & PROC.USE_TSC_OFFSETTING) !== 0 && (this.proc2 & PROC2.TSC_SCALING) !== 0
        ? (guestTicks << 48n) / this.v.get(VMCS.TSC_MULTIPLIER)
        : guestTicks;
    return Number(scaled);
  }
  /** CF as given; OF SF ZF AF PF = 0. */
  #setCarryAlone(carry: boolean): void {
    const { regs } = this;
    regs.set32(REG.RFLAGS, (regs.get32(REG.RFLAGS) & ~0x8d5) | (carry ? 1 : 0));
  }
  deliver(): Step {
    return deliverThroughIdt(this);
  }

  /** Whether XCR0 may have this value. */
  static validXcr0(value: bigint): boolean {
    if (value > LOW32) return false;
    const bits = Number(value);
    return (bits & 1) === 1 && (bits & ~XCR0_BITS) === 0 && ((bits & 4) === 0 || (bits & 2) !== 0);
  }
  /** Whether NMIs are virtual. */
  get virtualNmis(): boolean {
    return (this.pin & PIN.VIRTUAL_NMIS) !== 0;
  }
}
