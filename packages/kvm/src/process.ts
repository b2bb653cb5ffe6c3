/**
 * A process that uses KVM, and its kernel entry points: file descriptors, ioctl, mmap. This is /dev/kvm as its users
 * see it; arguments are decoded structures of abi's kvm.ts.
 */
import {
  Errno,
  KVM_API_VERSION,
  KVM_RUN_MMAP_SIZE,
  KVM_X86_DEFAULT_VM,
  KVM_X86_TDX_VM,
  KvmCap,
  type KvmCpuid2,
  KvmIoctl,
  type Trace,
} from "@swtdx/abi";
import {
  type AddressSpace,
  HostMemoryFault,
  type LinuxHost,
  OutOfHostMemory,
  type UserMapping,
} from "@swtdx/linux-host";
import { GuestMemfd } from "./guest-memfd.js";
import { Vcpu } from "./vcpu.js";
import { Vm } from "./vm.js";
import { TdxBug } from "./vmx/seamcall.js";
import { VmxBug } from "./vmx/vmcs.js";
import { fillCpuid, supportedCpuid } from "./x86/cpuid.js";
import { KernelError } from "./x86/errno.js";

/** /dev/kvm itself. */
class System {
  readonly kind = "kvm";
}
type File = System | Vm | Vcpu | GuestMemfd;

const NAMES = new Map<number, string>(Object.entries(KvmIoctl).map(([name, nr]) => [nr, name]));
/** ns that the process sleeps when nothing says for how long. */
const IDLE_NS = 1_000_000;

/** Parameters of the kvm_intel module, as far as there is a choice. */
export interface KvmParameters {
  /**
   * Maps TDs' private memory in pages of 2 MiB where it can, as the series "KVM: TDX huge page support" does; false:
   * in pages of 4 KiB only, as upstream. Default true.
   */
  readonly tdx_huge_page: boolean;
  /**
   * A TD's memory slot without a guest_memfd has its private memory in the user memory it has anyway, which is unmapped
   * from user space (PROT_NONE) page by page as the guest gets it. Default false: such a slot has none, as in Linux.
   */
  readonly tdx_unmap_user: boolean;
}
const DEFAULT_PARAMETERS: KvmParameters = { tdx_huge_page: true, tdx_unmap_user: false };

export class KvmProcess {
  readonly memory: AddressSpace;
  readonly trace: Trace;
  readonly parameters: KvmParameters;
  readonly #files = new Map<number, File>();
  #nextFd = 3;
  readonly #tscHz: number;
  readonly #bootTsc: number;

  constructor(
    readonly host: LinuxHost,
    parameters: Partial<KvmParameters> = {},
  ) {
    this.parameters = { ...DEFAULT_PARAMETERS, ...parameters };
    for (const [name, value] of Object.entries(this.parameters))
      host.sysfs.create(`/sys/module/kvm_intel/parameters/${name}`, () => (value ? "Y" : "N"));
    this.memory = host.createAddressSpace();
    this.trace = host.trace;
    const lp = host.lps[0];
    const { eax, ebx, ecx } = lp.cpuid(0x15);
    this.#tscHz = eax === 0 ? 2e9 : (ecx * ebx) / eax;
    this.#bootTsc = lp.tscNumber;
  }

  // ---- Time: the host's TSC

  /** Hz. */
  get tscHz(): number {
    return this.#tscHz;
  }
  /** CLOCK_MONOTONIC in ns: the furthest that any processor has come. */
  now(): number {
    const { lps } = this.host;
    let most = 0;
    for (let i = 0; i < lps.length; i++) most = Math.max(most, lps[i].tscNumber);
    return ((most - this.#bootTsc) * 1e9) / this.#tscHz;
  }
  /** TSC at a time of `now`. */
  tscAt(ns: number): number {
    return this.#bootTsc + Math.ceil((ns * this.#tscHz) / 1e9);
  }

  /** No vCPU can run: time passes until `deadline` (ns), a guest's timer, or for a while. */
  sleep(deadline: number | null): void {
    let until = deadline ?? Infinity;
    for (const file of this.#files.values())
      if (file instanceof Vcpu) until = Math.min(until, file.lapic.deadline);
    if (until === Infinity) until = this.now() + IDLE_NS;
    const target = this.tscAt(until);
    for (const lp of this.host.lps) if (lp.tscNumber < target) lp.advance(BigInt(target - lp.tscNumber));
  }

  // ---- Memory

  mmap(length: number): UserMapping {
    return this.memory.mmap(length);
  }
  munmap(mapping: { address: number }): void {
    const found = this.memory.find(mapping.address);
    if (found) this.memory.munmap(found);
  }
  /** The kvm_run area of a vCPU. @throws RangeError for another file descriptor */
  mmapVcpu(fd: number): Uint8Array {
    const file = this.#files.get(fd);
    if (!(file instanceof Vcpu)) throw new RangeError(`file descriptor ${fd} is no vCPU`);
    return file.run;
  }
  /** fallocate(PUNCH_HOLE | KEEP_SIZE). @returns 0 or -errno */
  punchHole(fd: number, offset: number, length: number): number {
    const file = this.#files.get(fd);
    return file instanceof GuestMemfd ? file.punchHole(offset, length) : -Errno.EBADF;
  }

  // ---- Files

  /** A new file descriptor. */
  install(file: File): number {
    const fd = this.#nextFd++;
    this.#files.set(fd, file);
    return fd;
  }
  file(fd: number): File | undefined {
    return this.#files.get(fd);
  }
  openKvm(): number {
    return this.install(new System());
  }

  /** Closing the VM destroys it: here a VM does not outlive its descriptor, as when a process exits. */
  close(fd: number): void {
    const file = this.#files.get(fd);
    this.#files.delete(fd);
    if (file instanceof Vm) this.#guard(file, () => (file.destroy(), 0));
    else if (file instanceof GuestMemfd) file.unreferenced();
  }

  // ---- ioctl

  /** @returns 0 or more, or -errno */
  ioctl(fd: number, request: number, arg?: unknown): number {
    const file = this.#files.get(fd);
    if (!file) return -Errno.EBADF;
    if (request === KvmIoctl.KVM_RUN && file instanceof Vcpu) return this.#run(file);
    const result = this.#guard(file, () => this.#dispatch(file, request, arg));
    if (this.trace.on.IOCTL)
      this.trace.emit({
        type: "IOCTL",
        fd: kindOf(file),
        name: NAMES.get(request) ?? `0x${request.toString(16)}`,
        result,
      });
    return result;
  }

  /** KVM_RUN: what a machine asks for at every exit. */
  #run(vcpu: Vcpu): number {
    try {
      return vcpu.vm.dead ? -Errno.EIO : vcpu.ioctlRun();
    } catch (error) {
      // There is no exit to look at.
      vcpu.noExit();
      return this.#failed(vcpu, error);
    }
  }
  #guard(file: File, work: () => number): number {
    try {
      return work();
    } catch (error) {
      return this.#failed(file, error);
    }
  }
  /** @returns -errno for what a system call may come to */
  #failed(file: File, error: unknown): number {
    if (error instanceof KernelError) return -error.errno;
    if (error instanceof OutOfHostMemory) return -Errno.ENOMEM;
    if (error instanceof HostMemoryFault) return -Errno.EFAULT;
    if (error instanceof TdxBug || error instanceof VmxBug) return this.#bug(file, error);
    throw error;
  }

  /** KVM_BUG_ON: the VM is dead; what it had may be lost to the host. */
  #bug(file: File, error: Error): number {
    this.host.log.printk("err", `kvm_intel: ${error.message}`);
    if (file instanceof Vm) file.dead = true;
    else if (file instanceof Vcpu) file.vm.dead = true;
    return -Errno.EIO;
  }

  #dispatch(file: File, request: number, arg: unknown): number {
    if (file instanceof System) return this.#system(request, arg);
    if (file instanceof Vm) return file.ioctl(request, arg);
    if (file instanceof Vcpu) return file.vm.vcpuIoctl(file, request, arg);
    return -Errno.ENOTTY;
  }

  #system(request: number, arg: unknown): number {
    switch (request) {
      case KvmIoctl.KVM_GET_API_VERSION:
        return KVM_API_VERSION;
      case KvmIoctl.KVM_CHECK_EXTENSION:
        return this.checkExtension(arg as number);
      case KvmIoctl.KVM_GET_VCPU_MMAP_SIZE:
        return KVM_RUN_MMAP_SIZE;
      case KvmIoctl.KVM_GET_SUPPORTED_CPUID:
        return fillCpuid(arg as KvmCpuid2, supportedCpuid(this.host.lps[0]));
      case KvmIoctl.KVM_CREATE_VM:
        if ((this.vmTypes & (1 << (arg as number))) === 0) return -Errno.EINVAL;
        return this.install(new Vm(this, arg as number));
      default:
        return -Errno.EINVAL;
    }
  }

  /** Mask of types that KVM_CREATE_VM takes. */
  get vmTypes(): number {
    return (1 << KVM_X86_DEFAULT_VM) | (this.host.tdx ? 1 << KVM_X86_TDX_VM : 0);
  }

  checkExtension(cap: number): number {
    switch (cap) {
      case KvmCap.KVM_CAP_VM_TYPES:
        return this.vmTypes;
      case KvmCap.KVM_CAP_NR_VCPUS:
        return this.host.lps.length;
      case KvmCap.KVM_CAP_MAX_VCPUS:
      case KvmCap.KVM_CAP_MAX_VCPU_ID:
        return this.host.tdx?.sysInfo?.maxVcpusPerTd ?? this.host.lps.length;
      case KvmCap.KVM_CAP_NR_MEMSLOTS:
        return 32764;
      case KvmCap.KVM_CAP_MEMORY_ATTRIBUTES:
        return 8;
      case KvmCap.KVM_CAP_EXIT_HYPERCALL:
        return 1 << 12;
      case KvmCap.KVM_CAP_USER_MEMORY:
      case KvmCap.KVM_CAP_USER_MEMORY2:
      case KvmCap.KVM_CAP_EXT_CPUID:
      case KvmCap.KVM_CAP_TSC_CONTROL:
      case KvmCap.KVM_CAP_GET_TSC_KHZ:
      case KvmCap.KVM_CAP_TSC_DEADLINE_TIMER:
      case KvmCap.KVM_CAP_SIGNAL_MSI:
      case KvmCap.KVM_CAP_CHECK_EXTENSION_VM:
      case KvmCap.KVM_CAP_SPLIT_IRQCHIP:
      case KvmCap.KVM_CAP_X2APIC_API:
      case KvmCap.KVM_CAP_IMMEDIATE_EXIT:
      case KvmCap.KVM_CAP_SYSTEM_EVENT_DATA:
      case KvmCap.KVM_CAP_MEMORY_FAULT_INFO:
      case KvmCap.KVM_CAP_GUEST_MEMFD:
      case KvmCap.KVM_CAP_X86_APIC_BUS_CYCLES_NS:
        return 1;
      default:
        return 0;
    }
  }
}

const kindOf = (file: File): string =>
  file instanceof System
    ? "kvm"
    : file instanceof Vm
      ? "vm"
      : file instanceof Vcpu
        ? `vcpu${file.id}`
        : "guest_memfd";
