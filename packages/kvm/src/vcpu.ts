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
} from "@swtdx/abi";
import type { LogicalProcessor } from "@swtdx/linux-host";
import type { Vm } from "./vm.js";
import { Lapic, ipiTargets } from "./x86/lapic.js";
import { RunResult, type VcpuBackend } from "./x86/ops.js";

/** TSC ticks that a vCPU runs at a stretch before KVM_RUN returns -EINTR. */
const SLICE_TICKS = 2_000_000n;
/** Vector of the host's own timer, and of posted-interrupt notifications. */
const HOST_TIMER_VECTOR = 0xec;
export const POSTED_INTR_VECTOR = 0xf2;

const EXIT_REASON = KVM_RUN_HEAD.fields.exit_reason.offset;
const IMMEDIATE_EXIT = KVM_RUN_HEAD.fields.immediate_exit.offset;
const DELIVERY = { FIXED: 0, LOWEST: 1, NMI: 4 } as const;

export class Vcpu {
  /** struct kvm_run and what follows it. */
  readonly run = new Uint8Array(KVM_RUN_MMAP_SIZE);
  readonly view = new DataView(this.run.buffer);
  readonly lapic: Lapic;
  readonly backend: VcpuBackend;
  cpuid: readonly KvmCpuidEntry2[] = [];
  /** Waits for an interrupt (HLT). */
  halted = false;
  /** User space has an exit to handle. */
  #exitPending = false;
  /** TSC at which the current slice ends; null: none has begun. */
  #sliceEnd: bigint | null = null;

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
      post: (vector) => this.deliver(DELIVERY.FIXED, vector),
      sendIpi: (mode, vector, destination, shorthand) => {
        const ids = vm.vcpus.map((vcpu) => vcpu.id);
        for (const target of ipiTargets(ids, id, destination, shorthand))
          vm.vcpu(target)?.deliver(mode, vector);
      },
    });
    this.backend = vm.backend.createVcpu(this);
  }

  /** An interrupt message: delivery mode and vector. */
  deliver(mode: number, vector: number): void {
    if (mode === DELIVERY.NMI) this.backend.nmi();
    else if (mode === DELIVERY.FIXED || mode === DELIVERY.LOWEST) this.backend.deliverInterrupt(vector);
    else return;
    this.halted = false;
  }

  /** An exit to user space. */
  exit(reason: number): RunResult {
    this.view.setUint32(EXIT_REASON, reason, true);
    this.#exitPending = true;
    const { trace } = this.vm.process;
    if (trace.on)
      trace.emit({ type: "KVM_EXIT", vcpu: this.id, reason: KVM_EXIT_NAMES.get(reason) ?? String(reason) });
    return RunResult.EXIT;
  }

  /** KVM_EXIT_IO with one item of data. */
  exitIo(out: boolean, size: number, port: number, data: number): RunResult {
    const { view } = this;
    view.setUint8(32, out ? 1 : 0);
    view.setUint8(33, size);
    view.setUint16(34, port, true);
    view.setUint32(36, 1, true);
    view.setBigUint64(40, BigInt(KVM_RUN_PIO_OFFSET), true);
    view.setUint32(KVM_RUN_PIO_OFFSET, data, true);
    return this.exit(KvmExit.KVM_EXIT_IO);
  }
  /** The item of data that user space answered. */
  ioData(size: number): number {
    const value = this.view.getUint32(KVM_RUN_PIO_OFFSET, true);
    return size === 4 ? value : value & ((1 << (8 * size)) - 1);
  }

  /** KVM_RUN. @returns 0 with an exit in kvm_run, or -errno: EINTR the slice is over, EAGAIN waiting for an interrupt */
  ioctlRun(): number {
    if (this.#exitPending) {
      this.#exitPending = false;
      this.backend.completeExit();
    }
    if (this.run[IMMEDIATE_EXIT] !== 0) return -Errno.EINTR;
    const { lp } = this;
    this.#sliceEnd ??= lp.tsc + SLICE_TICKS;
    for (;;) {
      this.lapic.tick();
      if (this.halted) {
        if (!this.backend.hasInterrupt()) {
          this.#sliceEnd = null;
          return -Errno.EAGAIN;
        }
        this.halted = false;
      }
      if (lp.tsc >= this.#sliceEnd) {
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
