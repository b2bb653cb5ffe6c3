/**
 * A vCPU's file descriptor: kvm_run, KVM_RUN with its slices, the local APIC, HLT. What kind of VM it is, its back end
 * knows. Source: Linux arch/x86/kvm/x86.c (kvm_arch_vcpu_ioctl_run, vcpu_run).
 */
import {
  Errno,
  KVM_EXIT_NAMES,
  KVM_RUN_HEAD,
  KVM_RUN_MMAP_SIZE,
  KVM_RUN_PIO_OFFSET,
  KvmExit,
  type KvmCpuidEntry2,
  PAGE_SIZE,
} from "@swtdx/abi";
import type { LogicalProcessor } from "@swtdx/linux-host";
import type { Vm } from "./vm.js";
import { type ApicMessage, DeliveryMode, Shorthand } from "./x86/apic-bus.js";
import { Lapic } from "./x86/lapic.js";
import { RunResult, type VcpuBackend } from "./x86/ops.js";

/** TSC ticks that a vCPU runs at a stretch before KVM_RUN returns -EINTR. */
const SLICE_TICKS = 2_000_000;
/** Vector of the host's own timer, and of posted-interrupt notifications. */
const HOST_TIMER_VECTOR = 0xec;
export const POSTED_INTR_VECTOR = 0xf2;

const EXIT_REASON = KVM_RUN_HEAD.fields.exit_reason.offset;
const IMMEDIATE_EXIT = KVM_RUN_HEAD.fields.immediate_exit.offset;

const fixedMessage = (vector: number, id: number): ApicMessage => ({
  mode: DeliveryMode.FIXED,
  vector,
  destination: id,
  logical: false,
  shorthand: Shorthand.SELF,
  level: false,
});

export class Vcpu {
  /** struct kvm_run and what follows it. */
  readonly run = new Uint8Array(KVM_RUN_MMAP_SIZE);
  readonly view = new DataView(this.run.buffer);
  readonly lapic: Lapic;
  readonly backend: VcpuBackend;
  cpuid: readonly KvmCpuidEntry2[] = [];
  /** Waits for an interrupt (HLT). */
  halted = false;
  /** Waits for INIT and start-up: an application processor of an ordinary VM. */
  waitsForStartup = false;
  /** User space has an exit to handle. */
  #exitPending = false;
  /** TSC at which the current slice ends; null: none has begun. */
  #sliceEnd: number | null = null;

  constructor(
    readonly vm: Vm,
    readonly id: number,
    /** The logical processor it always runs on. */
    readonly lp: LogicalProcessor,
  ) {
    this.lapic = new Lapic(id, () => vm.apicBusCycleNs, {
      now: () => vm.process.now(),
      guestTsc: () => vm.guestTsc(lp),
      timeOfGuestTsc: (tsc) => vm.timeOfGuestTsc(lp, tsc),
      post: (vector) => this.backend.deliver(fixedMessage(vector, id)),
      send: (message) => void vm.sendMessage(message, id),
    });
    this.backend = vm.backend.createVcpu(this);
  }

  /** KVM_RUN fails: what kvm_run said last is over. */
  noExit(): void {
    this.view.setUint32(EXIT_REASON, KvmExit.KVM_EXIT_UNKNOWN, true);
  }
  /** An exit to user space. */
  exit(reason: number): RunResult {
    this.view.setUint32(EXIT_REASON, reason, true);
    this.#exitPending = true;
    const { trace } = this.vm.process;
    if (trace.on.KVM_EXIT)
      trace.emit({ type: "KVM_EXIT", vcpu: this.id, reason: KVM_EXIT_NAMES.get(reason) ?? String(reason) });
    return RunResult.EXIT;
  }

  /** KVM_EXIT_IO; the (first) item of data is given, `count` items may follow it. */
  exitIo(out: boolean, size: number, port: number, data: number, count = 1): RunResult {
    const { view } = this;
    view.setUint8(32, out ? 1 : 0);
    view.setUint8(33, size);
    view.setUint16(34, port, true);
    view.setUint32(36, count, true);
    view.setUint32(40, KVM_RUN_PIO_OFFSET, true);
    view.setUint32(44, 0, true);
    view.setUint32(KVM_RUN_PIO_OFFSET, data, true);
    return this.exit(KvmExit.KVM_EXIT_IO);
  }
  /** The item of data that user space answered. */
  ioData(size: number): number {
    const value = this.view.getUint32(KVM_RUN_PIO_OFFSET, true);
    return size === 4 ? value : value & ((1 << (8 * size)) - 1);
  }

  /** KVM_EXIT_MMIO; a write's data are given, a read's will stand in the same place. */
  exitMmio(gpa: number, size: number, isWrite: boolean, data: bigint): RunResult {
    const { view } = this;
    view.setBigUint64(32, BigInt(gpa), true);
    view.setBigUint64(40, data, true);
    view.setUint32(48, size, true);
    view.setUint8(52, isWrite ? 1 : 0);
    return this.exit(KvmExit.KVM_EXIT_MMIO);
  }
  /** What user space answered an MMIO read with. */
  mmioData(size: number): bigint {
    return BigInt.asUintN(8 * size, this.view.getBigUint64(40, true));
  }
  /** KVM_EXIT_MEMORY_FAULT. @returns -EFAULT, as KVM_RUN does then */
  exitMemoryFault(gfn: number, flags: bigint): RunResult {
    const { view } = this;
    view.setBigUint64(32, flags, true);
    view.setBigUint64(40, BigInt(gfn) * BigInt(PAGE_SIZE), true);
    view.setBigUint64(48, BigInt(PAGE_SIZE), true);
    this.exit(KvmExit.KVM_EXIT_MEMORY_FAULT);
    return -Errno.EFAULT;
  }
  /** KVM_EXIT_INTERNAL_ERROR. */
  exitInternalError(suberror: number, data: readonly bigint[]): RunResult {
    const { view } = this;
    view.setUint32(32, suberror, true);
    view.setUint32(36, data.length, true);
    data.forEach((word, i) => view.setBigUint64(40 + 8 * i, word, true));
    return this.exit(KvmExit.KVM_EXIT_INTERNAL_ERROR);
  }

  /** KVM_RUN. @returns 0 with an exit in kvm_run, or -errno: EINTR the slice is over, EAGAIN waiting for an interrupt */
  ioctlRun(): number {
    if (this.#exitPending) {
      this.#exitPending = false;
      if (this.backend.completeExit() === RunResult.EXIT) return 0;
    }
    if (this.run[IMMEDIATE_EXIT] !== 0) return -Errno.EINTR;
    const { lp } = this;
    this.#sliceEnd ??= lp.tscNumber + SLICE_TICKS;
    for (;;) {
      this.lapic.tick();
      if (this.waitsForStartup) {
        this.#sliceEnd = null;
        return -Errno.EAGAIN;
      }
      if (this.halted) {
        if (!this.backend.hasInterrupt()) {
          this.#sliceEnd = null;
          return -Errno.EAGAIN;
        }
        this.halted = false;
      }
      if (lp.tscNumber >= this.#sliceEnd) {
        this.#sliceEnd = null;
        return -Errno.EINTR;
      }
      this.#armTimer();
      const result = this.backend.run();
      this.#takeInterrupts();
      if (result === RunResult.EXIT) return 0;
      if (result !== RunResult.CONTINUE) return result;
    }
  }

  /** The host's timer ends the guest's turn at the slice's end, or when the guest's own timer is due. */
  #armTimer(): void {
    let end = this.#sliceEnd!;
    const { deadline } = this.lapic;
    if (deadline !== Infinity) {
      const due = this.vm.process.tscAt(deadline);
      if (due < end) end = due;
    }
    this.lp.setTimer(end, HOST_TIMER_VECTOR);
  }

  /** The host's interrupt handlers: the timer and notifications that came too late need nothing more. */
  #takeInterrupts(): void {
    while (this.lp.takeInterrupt() !== null);
  }
}
