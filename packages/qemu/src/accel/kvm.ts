/**
 * The KVM accelerator: one VM with its file descriptors and memory slots. QEMU, accel/kvm/kvm-all.c. Requests that
 * only an unfit host can refuse throw IoctlError.
 */
import {
  errnoName,
  Errno,
  KVM_API_VERSION,
  KVM_IRQ_ROUTING_MSI,
  KVM_MEM_GUEST_MEMFD,
  KVM_MEM_READONLY,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KvmCap,
  type KvmCpuid2,
  type KvmCpuidEntry2,
  type KvmIoctlName,
  KvmIoctl,
  type KvmRegs,
  type KvmSregs,
  type KvmTdxCmd,
  KvmTdxCmdId,
  PAGE_SIZE,
} from "@swtdx/abi";
import { IoctlError, MachineError } from "../errors.js";
import type { MsiMessage } from "../hw/intc/ioapic.js";
import type { RamBlock } from "../memory/guest-memory.js";
import type { GpaRange } from "../memory/memory-map.js";
import type { Mapping, Syscalls } from "./syscalls.js";

/** Where a TD's private pages are: in a guest_memfd, or in `memory`, where KVM unmaps them (tdx_unmap_user). */
export type PrivateMemoryKind = "guest_memfd" | "unmapped";

/** RAM of the guest: shared pages in `memory`. */
export interface KvmRam extends RamBlock {
  readonly memory: Mapping;
  /** Null for an ordinary VM. */
  readonly privateMemory: PrivateMemoryKind | null;
  /** File descriptor, or null. */
  readonly guestMemfd: number | null;
}

export interface KvmVcpu {
  readonly index: number;
  readonly fd: number;
  /** struct kvm_run. */
  readonly run: Uint8Array;
  readonly view: DataView;
}

/** Registers of an ordinary VM's vCPU. */
export interface VcpuState {
  readonly regs: KvmRegs;
  readonly sregs: KvmSregs;
}

/** KVM_EXIT_HYPERCALL is enabled by number of hypercall. */
const EXIT_HYPERCALL_MAP_GPA_RANGE = 1n << 12n;
/** 25 MHz: the core crystal clock of every TD. */
const TDX_APIC_BUS_CYCLES_NS = 40n;
const IOAPIC_ROUTES = 24n;
/** KVM_CAP_X2APIC_API: 32-bit IDs, no broadcast quirk. */
const X2APIC_API_FLAGS = 3n;
const RETRIES = 10_000;

export class Kvm {
  readonly #kvm: number;
  readonly vm: number;
  readonly ram: KvmRam[] = [];
  readonly vcpus: KvmVcpu[] = [];
  readonly #fds: number[] = [];

  /** Opens /dev/kvm and creates a VM of `type` (KVM_X86_*). @throws MachineError | IoctlError */
  constructor(
    readonly sys: Syscalls,
    type: number,
  ) {
    this.#kvm = sys.openKvm();
    if (this.#kvm < 0) throw new MachineError(`/dev/kvm: ${errnoName(this.#kvm)}`);
    const version = this.#system("KVM_GET_API_VERSION");
    if (version !== KVM_API_VERSION)
      throw new MachineError(`KVM API version ${version}, not ${KVM_API_VERSION}`);
    const types = this.#system("KVM_CHECK_EXTENSION", KvmCap.KVM_CAP_VM_TYPES);
    if (!(types & (1 << type)))
      throw new MachineError(
        `KVM does not support VMs of type ${type} (it supports mask 0x${types.toString(16)})`,
      );
    this.vm = this.#system("KVM_CREATE_VM", type);
  }

  #system(name: KvmIoctlName, arg?: unknown): number {
    return this.#check(name, this.sys.ioctl(this.#kvm, KvmIoctl[name], arg));
  }

  /** A request to the VM. @throws IoctlError */
  vmIoctl(name: KvmIoctlName, arg?: unknown): number {
    return this.#check(name, this.sys.ioctl(this.vm, KvmIoctl[name], arg));
  }

  #check(name: string, result: number, hwError?: bigint): number {
    if (result < 0) throw new IoctlError(name, -result, hwError);
    return result;
  }

  checkExtension(cap: number): number {
    return this.sys.ioctl(this.vm, KvmIoctl.KVM_CHECK_EXTENSION, cap);
  }

  enableCap(cap: number, ...args: bigint[]): void {
    this.vmIoctl("KVM_ENABLE_CAP", { cap, flags: 0, args: [...args, 0n, 0n, 0n, 0n].slice(0, 4) });
  }

  /** The capabilities that every machine needs: split irqchip, x2APIC IDs, MapGPA exits, number of vCPUs. */
  setUp(vcpus: number, tdx: boolean): void {
    this.enableCap(KvmCap.KVM_CAP_SPLIT_IRQCHIP, IOAPIC_ROUTES);
    this.enableCap(KvmCap.KVM_CAP_X2APIC_API, X2APIC_API_FLAGS);
    if (!tdx) return;
    this.enableCap(KvmCap.KVM_CAP_MAX_VCPUS, BigInt(vcpus));
    this.enableCap(KvmCap.KVM_CAP_EXIT_HYPERCALL, EXIT_HYPERCALL_MAP_GPA_RANGE);
    this.enableCap(KvmCap.KVM_CAP_X86_APIC_BUS_CYCLES_NS, TDX_APIC_BUS_CYCLES_NS);
  }

  /** KVM_GET_SUPPORTED_CPUID. */
  supportedCpuid(): KvmCpuidEntry2[] {
    return this.#growing("KVM_GET_SUPPORTED_CPUID", (cpuid) =>
      this.sys.ioctl(this.#kvm, KvmIoctl.KVM_GET_SUPPORTED_CPUID, cpuid),
    ).entries;
  }

  /** Runs a request that returns E2BIG until its list has room. */
  #growing(name: string, request: (cpuid: KvmCpuid2) => number): KvmCpuid2 {
    for (let nent = 64; ; nent *= 2) {
      const cpuid: KvmCpuid2 = { nent, entries: [] };
      const result = request(cpuid);
      if (result >= 0) return cpuid;
      if (result !== -Errno.E2BIG || nent > 4096) throw new IoctlError(name, -result);
    }
  }

  /** KVM_MEMORY_ENCRYPT_OP on the VM, or on a vCPU. Retries what the kernel asks to be retried. @throws IoctlError */
  tdx(cmd: KvmTdxCmd, vcpu?: KvmVcpu): void {
    const name = Object.entries(KvmTdxCmdId).find(([, id]) => id === cmd.id)?.[0] ?? `command ${cmd.id}`;
    for (let retry = 0; ; retry++) {
      const result = this.sys.ioctl(vcpu?.fd ?? this.vm, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, cmd);
      const again = result === -Errno.EAGAIN || result === -Errno.EINTR;
      if (again && retry < RETRIES) continue;
      this.#check(name, result, cmd.hw_error);
      return;
    }
  }

  tdxCapabilities() {
    const empty = {
      supported_attrs: 0n,
      supported_xfam: 0n,
      kernel_tdvmcallinfo_1_r11: 0n,
      user_tdvmcallinfo_1_r11: 0n,
      kernel_tdvmcallinfo_1_r12: 0n,
      user_tdvmcallinfo_1_r12: 0n,
    };
    let capabilities = { ...empty, cpuid: { nent: 0, entries: [] } as KvmCpuid2 };
    this.#growing("KVM_TDX_CAPABILITIES", (cpuid) => {
      capabilities = { ...empty, cpuid };
      return this.sys.ioctl(this.vm, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, {
        id: KvmTdxCmdId.KVM_TDX_CAPABILITIES,
        flags: 0,
        data: capabilities,
      });
    });
    return capabilities;
  }

  /** The CPUID that the TDX module gives a vCPU. */
  tdxCpuid(vcpu: KvmVcpu): KvmCpuidEntry2[] {
    return this.#growing("KVM_TDX_GET_CPUID", (cpuid) =>
      this.sys.ioctl(vcpu.fd, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, {
        id: KvmTdxCmdId.KVM_TDX_GET_CPUID,
        flags: 0,
        data: cpuid,
      }),
    ).entries;
  }

  createVcpu(index: number): KvmVcpu {
    const fd = this.vmIoctl("KVM_CREATE_VCPU", index);
    const run = this.sys.mmapVcpu(fd);
    const vcpu = { index, fd, run, view: new DataView(run.buffer, run.byteOffset, run.byteLength) };
    this.vcpus.push(vcpu);
    return vcpu;
  }

  setCpuid(vcpu: KvmVcpu, entries: KvmCpuidEntry2[]): void {
    this.#check(
      "KVM_SET_CPUID2",
      this.sys.ioctl(vcpu.fd, KvmIoctl.KVM_SET_CPUID2, { nent: entries.length, entries }),
    );
  }

  /** KVM_GET_REGS and KVM_GET_SREGS. */
  getState(vcpu: KvmVcpu): VcpuState {
    const state = { regs: {} as KvmRegs, sregs: {} as KvmSregs };
    this.#check("KVM_GET_REGS", this.sys.ioctl(vcpu.fd, KvmIoctl.KVM_GET_REGS, state.regs));
    this.#check("KVM_GET_SREGS", this.sys.ioctl(vcpu.fd, KvmIoctl.KVM_GET_SREGS, state.sregs));
    return state;
  }
  /** KVM_SET_SREGS and KVM_SET_REGS. */
  setState(vcpu: KvmVcpu, { regs, sregs }: VcpuState): void {
    this.#check("KVM_SET_SREGS", this.sys.ioctl(vcpu.fd, KvmIoctl.KVM_SET_SREGS, sregs));
    this.#check("KVM_SET_REGS", this.sys.ioctl(vcpu.fd, KvmIoctl.KVM_SET_REGS, regs));
  }

  /** Gives the guest RAM: a user mapping, and a guest_memfd where private pages are to be in one. */
  addRam(
    name: string,
    range: GpaRange,
    kind: { privateMemory: PrivateMemoryKind | null; readonly?: boolean },
  ): KvmRam {
    const { privateMemory } = kind;
    const memory = this.sys.mmap(range.length);
    const guestMemfd =
      privateMemory === "guest_memfd"
        ? this.vmIoctl("KVM_CREATE_GUEST_MEMFD", { size: range.length, flags: 0n })
        : null;
    if (guestMemfd !== null) this.#fds.push(guestMemfd);
    const ram = { name, ...range, memory, privateMemory, guestMemfd };
    this.ram.push(ram);
    this.vmIoctl("KVM_SET_USER_MEMORY_REGION2", {
      slot: this.ram.length - 1,
      flags: (guestMemfd === null ? 0 : KVM_MEM_GUEST_MEMFD) | (kind.readonly ? KVM_MEM_READONLY : 0),
      guest_phys_addr: range.address,
      memory_size: range.length,
      userspace_addr: memory.address,
      guest_memfd_offset: 0,
      guest_memfd: guestMemfd ?? 0,
    });
    // As QEMU does: a TD's RAM is private until the guest converts it.
    if (privateMemory !== null) this.setPrivate(range, true);
    return ram;
  }

  /** KVM_SET_MEMORY_ATTRIBUTES. */
  setPrivate({ address, length }: GpaRange, isPrivate: boolean): void {
    const attributes = isPrivate ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0n;
    this.vmIoctl("KVM_SET_MEMORY_ATTRIBUTES", { address, size: length, attributes, flags: 0n });
  }

  /**
   * Converts a range of guest memory and discards its other side (QEMU, kvm_convert_memory).
   * @returns 0, or a positive errno.
   */
  convertMemory(gpa: number, length: number, toPrivate: boolean): number {
    if (gpa % PAGE_SIZE !== 0 || length % PAGE_SIZE !== 0 || length === 0) return Errno.EINVAL;
    const block = this.ram.find((one) => gpa < one.address + one.length && gpa + length > one.address);
    // Firmware maps MMIO ranges shared to be sure that they are: nothing to do.
    if (!block) return toPrivate ? Errno.EINVAL : 0;
    if (block.privateMemory === null || gpa < block.address || gpa + length > block.address + block.length)
      return Errno.EINVAL;
    this.setPrivate({ address: gpa, length }, toPrivate);
    const fd = block.guestMemfd;
    // Unmapped memory has one side.
    if (fd === null) return 0;
    if (toPrivate) block.memory.discard(gpa - block.address, length);
    else this.#check("fallocate", this.sys.punchHole(fd, gpa - block.address, length));
    return 0;
  }

  /** KVM_SIGNAL_MSI. @returns false when no local APIC took it. */
  signalMsi({ address, data }: MsiMessage): boolean {
    const result = this.sys.ioctl(this.vm, KvmIoctl.KVM_SIGNAL_MSI, {
      address_lo: address % 2 ** 32,
      address_hi: Math.floor(address / 2 ** 32),
      data,
      flags: 0,
      devid: 0,
    });
    return result > 0;
  }

  readonly #routes = new Map<number, MsiMessage>();
  /**
   * KVM_SET_GSI_ROUTING: the I/O APIC's inputs as the messages they send. A masked one keeps its route: the end of an
   * interrupt that came before it was masked is still to be told (QEMU, ioapic_update_kvm_routes).
   */
  setGsiRouting(messages: readonly (MsiMessage & { readonly masked: boolean })[]): void {
    messages.forEach((message, gsi) => {
      if (!message.masked) this.#routes.set(gsi, message);
    });
    const entries = [...this.#routes].map(([gsi, { address, data }]) => ({
      gsi,
      type: KVM_IRQ_ROUTING_MSI,
      flags: 0,
      address_lo: address % 2 ** 32,
      address_hi: Math.floor(address / 2 ** 32),
      data,
      devid: 0,
    }));
    this.vmIoctl("KVM_SET_GSI_ROUTING", { nr: entries.length, flags: 0, entries });
  }

  /** Closes everything: the VM is destroyed, its memory goes back to the host. */
  close(): void {
    for (const { fd } of this.vcpus) this.sys.close(fd);
    for (const fd of this.#fds) this.sys.close(fd);
    this.sys.close(this.vm);
    for (const { memory } of this.ram) this.sys.munmap(memory);
    this.sys.close(this.#kvm);
  }
}
