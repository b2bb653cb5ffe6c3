/**
 * Running a vCPU: KVM_RUN and what user space does about each exit. QEMU, accel/kvm/kvm-all.c (kvm_cpu_exec) and
 * target/i386/kvm/kvm.c (kvm_arch_handle_exit).
 */
import {
  Errno,
  errnoName,
  KVM_EXIT_IO_OUT,
  KVM_EXIT_NAMES,
  KVM_HC_MAP_GPA_RANGE,
  KVM_MAP_GPA_RANGE_ENCRYPTED,
  KVM_MEMORY_EXIT_FLAG_PRIVATE,
  KVM_RUN_EXITS,
  KVM_SYSTEM_EVENT_CRASH,
  KVM_SYSTEM_EVENT_RESET,
  KVM_SYSTEM_EVENT_SHUTDOWN,
  KVM_SYSTEM_EVENT_TDX_FATAL,
  KvmExit,
  KvmIoctl,
  PAGE_SIZE,
} from "@swtdx/abi";
import type { AddressSpace } from "../memory/address-space.js";
import { fatalReason, readValue, RUN, writeValue } from "./exits.js";
import type { Kvm, KvmVcpu } from "./kvm.js";

/** How a machine's run ended. */
export interface Outcome {
  readonly exit: "poweroff" | "reset" | "fatal" | "timeout";
  readonly reason: string;
}

/** What exits need of the machine. */
export interface ExitHandlers {
  readonly ports: AddressSpace;
  readonly mmio: AddressSpace;
  /** TDG.VP.VMCALL sub-functions that KVM leaves to user space: they set `ret` (and data) in kvm_run. */
  tdxCall(vcpu: KvmVcpu, number: number): void;
  ioapicEoi(vector: number): void;
  /** Set by a device that ends the run. */
  outcome: Outcome | null;
}

/** Most exits of one vCPU before the next one's turn. */
const EXITS_PER_TURN = 4096;
const SUBFUNC_UNSUPPORTED = 0x8000000000000003n;

export class VcpuRunner {
  readonly #counts = new Uint32Array(64);

  constructor(
    private readonly kvm: Kvm,
    private readonly handlers: ExitHandlers,
  ) {}

  /** Exits so far by name, those that happened. */
  statistics(): Record<string, number> {
    const out: Record<string, number> = {};
    this.#counts.forEach((count, reason) => {
      if (count > 0) out[KVM_EXIT_NAMES.get(reason) ?? String(reason)] = count;
    });
    return out;
  }

  /**
   * Runs `vcpu` until its slice ends, it waits for an interrupt, or the run ends (`handlers.outcome`).
   * @returns "waiting" when it has nothing to do.
   */
  turn(vcpu: KvmVcpu): "ran" | "waiting" {
    const { sys } = this.kvm;
    for (let exits = 0; exits < EXITS_PER_TURN; exits++) {
      const result = sys.ioctl(vcpu.fd, KvmIoctl.KVM_RUN);
      if (result < 0 && result !== -Errno.EFAULT) {
        if (result === -Errno.EINTR) return "ran";
        if (result === -Errno.EAGAIN) return "waiting";
        this.#fatal(vcpu, `KVM_RUN: ${errnoName(result)}`);
        return "ran";
      }
      const reason = vcpu.view.getUint32(RUN.exitReason, true);
      this.#counts[reason & 63]++;
      if (result < 0 && reason !== KvmExit.KVM_EXIT_MEMORY_FAULT) this.#fatal(vcpu, "KVM_RUN: EFAULT");
      else this.#handle(vcpu, reason);
      if (this.handlers.outcome !== null) return "ran";
      // A quote may be on its way: the machine looks for it before the guest does.
      if (reason === KvmExit.KVM_EXIT_TDX) return "ran";
    }
    return "ran";
  }

  #fatal(vcpu: KvmVcpu, reason: string): void {
    this.handlers.outcome ??= { exit: "fatal", reason: `vCPU ${vcpu.index}: ${reason}` };
  }

  #handle(vcpu: KvmVcpu, reason: number): void {
    switch (reason) {
      case KvmExit.KVM_EXIT_IO:
        return this.#io(vcpu);
      case KvmExit.KVM_EXIT_MMIO:
        return this.#mmio(vcpu);
      case KvmExit.KVM_EXIT_HYPERCALL:
        return this.#hypercall(vcpu);
      case KvmExit.KVM_EXIT_TDX: {
        const number = Number(vcpu.view.getBigUint64(RUN.tdxNumber, true));
        vcpu.view.setBigUint64(RUN.tdxRet, SUBFUNC_UNSUPPORTED, true);
        return this.handlers.tdxCall(vcpu, number);
      }
      case KvmExit.KVM_EXIT_MEMORY_FAULT:
        return this.#memoryFault(vcpu);
      case KvmExit.KVM_EXIT_SYSTEM_EVENT:
        return this.#systemEvent(vcpu);
      case KvmExit.KVM_EXIT_SHUTDOWN:
        return this.#fatal(vcpu, "triple fault");
      case KvmExit.KVM_EXIT_FAIL_ENTRY: {
        const why = KVM_RUN_EXITS.fail_entry.decode(vcpu.run).hardware_entry_failure_reason;
        return this.#fatal(vcpu, `entry failed, hardware reason 0x${why.toString(16)}`);
      }
      case KvmExit.KVM_EXIT_INTERNAL_ERROR: {
        const { suberror, ndata, data } = KVM_RUN_EXITS.internal.decode(vcpu.run);
        const more = data.slice(0, Math.min(ndata, 16)).map((word) => `0x${word.toString(16)}`);
        return this.#fatal(vcpu, `KVM internal error ${suberror}${more.length ? `: ${more.join(" ")}` : ""}`);
      }
      case KvmExit.KVM_EXIT_IOAPIC_EOI:
        return this.handlers.ioapicEoi(vcpu.view.getUint8(RUN.eoiVector));
      case KvmExit.KVM_EXIT_INTR:
      case KvmExit.KVM_EXIT_IRQ_WINDOW_OPEN:
        return;
      default:
        return this.#fatal(vcpu, `unexpected exit ${KVM_EXIT_NAMES.get(reason) ?? reason}`);
    }
  }

  #io({ view }: KvmVcpu): void {
    const size = view.getUint8(RUN.ioSize);
    const port = view.getUint16(RUN.ioPort, true);
    const count = view.getUint32(RUN.ioCount, true);
    const out = view.getUint8(RUN.ioDirection) === KVM_EXIT_IO_OUT;
    let at = view.getUint32(RUN.ioDataOffset, true);
    const { ports } = this.handlers;
    for (let i = 0; i < count; i++, at += size)
      if (out) ports.write(port, size, readValue(view, at, size));
      else writeValue(view, at, size, ports.read(port, size));
  }

  #mmio({ view }: KvmVcpu): void {
    const address =
      view.getUint32(RUN.mmioAddress, true) + view.getUint32(RUN.mmioAddress + 4, true) * 2 ** 32;
    const length = view.getUint32(RUN.mmioLength, true);
    const isWrite = view.getUint8(RUN.mmioIsWrite) !== 0;
    const { mmio } = this.handlers;
    // Parts of at most four bytes, none of three.
    for (let done = 0; done < length;) {
      const left = length - done;
      const size = left >= 4 ? 4 : left >= 2 ? 2 : 1;
      const at = RUN.mmioData + done;
      if (isWrite) mmio.write(address + done, size, readValue(view, at, size));
      else writeValue(view, at, size, mmio.read(address + done, size));
      done += size;
    }
  }

  #hypercall(vcpu: KvmVcpu): void {
    const { view } = vcpu;
    const number = view.getBigUint64(RUN.hypercallNumber, true);
    let error: number = Errno.EINVAL;
    if (number === BigInt(KVM_HC_MAP_GPA_RANGE)) {
      const gpa = view.getBigUint64(RUN.hypercallArgs, true);
      const pages = view.getBigUint64(RUN.hypercallArgs + 8, true);
      const attributes = view.getBigUint64(RUN.hypercallArgs + 16, true);
      if (gpa < 2n ** 52n && pages < 2n ** 40n)
        error = this.kvm.convertMemory(
          Number(gpa),
          Number(pages) * PAGE_SIZE,
          (attributes & KVM_MAP_GPA_RANGE_ENCRYPTED) !== 0n,
        );
    }
    view.setBigUint64(RUN.hypercallRet, BigInt(error), true);
  }

  #memoryFault(vcpu: KvmVcpu): void {
    const flags = vcpu.view.getBigUint64(RUN.faultFlags, true);
    const gpa = vcpu.view.getBigUint64(RUN.faultGpa, true);
    const size = vcpu.view.getBigUint64(RUN.faultSize, true);
    const isPrivate = (flags & KVM_MEMORY_EXIT_FLAG_PRIVATE) !== 0n;
    const error =
      gpa < 2n ** 52n && size < 2n ** 52n
        ? this.kvm.convertMemory(Number(gpa), Number(size), isPrivate)
        : Errno.EINVAL;
    if (error !== 0)
      this.#fatal(
        vcpu,
        `${isPrivate ? "private" : "shared"} access to GPA 0x${gpa.toString(16)}, where the machine has no memory`,
      );
  }

  #systemEvent(vcpu: KvmVcpu): void {
    const { type, data } = KVM_RUN_EXITS.system_event.decode(vcpu.run);
    switch (type) {
      case KVM_SYSTEM_EVENT_SHUTDOWN:
        this.handlers.outcome ??= { exit: "poweroff", reason: "system event shutdown" };
        return;
      case KVM_SYSTEM_EVENT_RESET:
        this.handlers.outcome ??= { exit: "reset", reason: "system event reset" };
        return;
      case KVM_SYSTEM_EVENT_CRASH:
        return this.#fatal(vcpu, "guest crashed");
      case KVM_SYSTEM_EVENT_TDX_FATAL:
        return this.#fatal(vcpu, fatalReason(data));
      default:
        return this.#fatal(vcpu, `system event ${type}`);
    }
  }
}
