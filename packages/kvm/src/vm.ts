/** A VM's file descriptor: memory slots, memory attributes, capabilities, vCPUs. Source: Linux virt/kvm/kvm_main.c, arch/x86/kvm/x86.c. */
import {
  Errno,
  type HpaAndKeyId,
  KVM_IRQ_ROUTING_MSI,
  KVM_MEM_GUEST_MEMFD,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_X86_TDX_VM,
  KvmCap,
  type KvmCpuid2,
  type KvmCreateGuestMemfd,
  type KvmEnableCap,
  KvmIoctl,
  type KvmIrqRoutingEntry,
  type KvmMemoryAttributes,
  type KvmMsi,
  type KvmTdxCmd,
  type KvmUserspaceMemoryRegion2,
  PAGE_SIZE,
  type Pfn,
} from "@swtdx/abi";
import type { LogicalProcessor, UserMapping } from "@swtdx/linux-host";
import { GuestMemfd } from "./guest-memfd.js";
import { PrivateRanges } from "./memory-attributes.js";
import { Memslots, privateIndex } from "./memslots.js";
import { type PrivateMemory, UnmappedMemory } from "./private-memory.js";
import type { KvmProcess } from "./process.js";
import { fillCpuid } from "./x86/cpuid.js";
import { Vcpu } from "./vcpu.js";
import { TdxVm } from "./vmx/tdx.js";
import { VmxVm } from "./vmx/vmx.js";
import { type ApicMessage, msiMessage, recipients } from "./x86/apic-bus.js";
import { vcpuStateIoctl } from "./x86/state-ioctls.js";
import type { VmBackend } from "./x86/ops.js";

const MAX_MEMSLOTS = 32764;
const GPA_LIMIT = 2 ** 51;
/** Bus cycle of the local APIC timer unless KVM_CAP_X86_APIC_BUS_CYCLES_NS says otherwise. */
const APIC_BUS_CYCLE_NS = 1;

export class Vm {
  readonly slots = new Memslots();
  readonly privateRanges = new PrivateRanges();
  readonly vcpus: Vcpu[] = [];
  readonly backend: VmBackend;
  maxVcpus: number;
  tscKhz: number;
  apicBusCycleNs = APIC_BUS_CYCLE_NS;
  splitIrqchip = false;
  /** Vectors of the I/O APIC's level-triggered inputs. */
  readonly eoiVectors = new Set<number>();
  /** Hypercalls that exit to user space, by number. */
  hypercallExits = 0n;
  /** A back end met an error after which the VM can do nothing more. */
  dead = false;
  readonly #stopNotifier: () => void;

  constructor(
    readonly process: KvmProcess,
    readonly type: number,
  ) {
    this.maxVcpus = process.checkExtension(KvmCap.KVM_CAP_MAX_VCPUS);
    this.tscKhz = Math.round(process.tscHz / 1000);
    this.backend = this.isTdx ? new TdxVm(this) : new VmxVm(this);
    this.#stopNotifier = process.memory.onUnmap((mapping, offset, length) =>
      this.#unmapUser(mapping, offset, length),
    );
  }

  get isTdx(): boolean {
    return this.type === KVM_X86_TDX_VM;
  }
  vcpu(id: number): Vcpu | undefined {
    return this.vcpus.find((one) => one.id === id);
  }

  // ---- Interrupt messages

  /** @param sender local APIC ID, -1 for a device. @returns how many local APICs took it */
  sendMessage(message: ApicMessage, sender: number): number {
    const targets = recipients(
      this.vcpus.map(({ backend }) => backend.apic),
      message,
      sender,
    );
    for (const { id } of targets) this.vcpu(id)?.backend.deliver(message);
    return targets.length;
  }

  // ---- Time

  /** TSC of the guest: the back end says how it relates to the host's. */
  tscOf: ((hostTsc: bigint) => bigint) | null = null;
  hostTscOf: ((guestTsc: bigint) => bigint) | null = null;
  guestTsc(lp: LogicalProcessor): bigint {
    return this.tscOf?.(lp.tsc) ?? lp.tsc;
  }
  /** Host time in ns when the guest's TSC reaches a value. */
  timeOfGuestTsc(lp: LogicalProcessor, tsc: bigint): number {
    const target = this.hostTscOf?.(tsc) ?? tsc;
    return this.process.now() + (Number(target - lp.tsc) * 1e9) / this.process.tscHz;
  }

  // ---- ioctl

  ioctl(request: number, arg: unknown): number {
    if (this.dead) return -Errno.EIO;
    switch (request) {
      case KvmIoctl.KVM_CHECK_EXTENSION:
        return this.process.checkExtension(arg as number);
      case KvmIoctl.KVM_ENABLE_CAP:
        return this.#enableCap(arg as KvmEnableCap);
      case KvmIoctl.KVM_CREATE_VCPU:
        return this.#createVcpu(arg as number);
      case KvmIoctl.KVM_CREATE_GUEST_MEMFD:
        return this.#createGuestMemfd(arg as KvmCreateGuestMemfd);
      case KvmIoctl.KVM_SET_USER_MEMORY_REGION: {
        const region = arg as KvmUserspaceMemoryRegion2;
        // Guest memory other than user memory needs the second form.
        if ((region.flags & KVM_MEM_GUEST_MEMFD) !== 0) return -Errno.EINVAL;
        return this.#setMemoryRegion({ ...region, guest_memfd: 0, guest_memfd_offset: 0 });
      }
      case KvmIoctl.KVM_SET_USER_MEMORY_REGION2:
        return this.#setMemoryRegion(arg as KvmUserspaceMemoryRegion2);
      case KvmIoctl.KVM_SET_MEMORY_ATTRIBUTES:
        return this.#setMemoryAttributes(arg as KvmMemoryAttributes);
      case KvmIoctl.KVM_SET_TSC_KHZ:
        return this.#setTscKhz(arg as number);
      case KvmIoctl.KVM_GET_TSC_KHZ:
        return this.tscKhz;
      case KvmIoctl.KVM_SIGNAL_MSI:
        return this.#signalMsi(arg as KvmMsi);
      case KvmIoctl.KVM_SET_GSI_ROUTING:
        return this.#setGsiRouting(arg ?? {});
      case KvmIoctl.KVM_MEMORY_ENCRYPT_OP:
        return this.backend.memEncOp(arg as KvmTdxCmd);
      default:
        return -Errno.ENOTTY;
    }
  }

  vcpuIoctl(vcpu: Vcpu, request: number, arg: unknown): number {
    if (this.dead) return -Errno.EIO;
    switch (request) {
      case KvmIoctl.KVM_SET_CPUID2:
        vcpu.cpuid = (arg as KvmCpuid2).entries.map((entry) => ({ ...entry }));
        vcpu.backend.afterSetCpuid?.();
        return 0;
      case KvmIoctl.KVM_MEMORY_ENCRYPT_OP:
        return vcpu.backend.memEncOp(arg as KvmTdxCmd);
      case KvmIoctl.KVM_NMI:
        vcpu.backend.nmi();
        return 0;
      case KvmIoctl.KVM_GET_CPUID2:
        return fillCpuid(arg as KvmCpuid2, vcpu.cpuid);
      default:
        return vcpuStateIoctl(vcpu, request, arg);
    }
  }

  #enableCap({ cap, flags = 0, args = [] }: KvmEnableCap): number {
    if (flags !== 0) return -Errno.EINVAL;
    const [arg = 0n] = args;
    switch (cap) {
      case KvmCap.KVM_CAP_SPLIT_IRQCHIP:
        if (this.vcpus.length > 0) return -Errno.EEXIST;
        this.splitIrqchip = true;
        return 0;
      case KvmCap.KVM_CAP_X2APIC_API:
        return (arg & ~3n) === 0n ? 0 : -Errno.EINVAL;
      case KvmCap.KVM_CAP_MAX_VCPUS: {
        const limit = this.process.checkExtension(KvmCap.KVM_CAP_MAX_VCPUS);
        if (this.vcpus.length > 0 || arg === 0n || arg > BigInt(limit)) return -Errno.EINVAL;
        this.maxVcpus = Number(arg);
        return 0;
      }
      case KvmCap.KVM_CAP_EXIT_HYPERCALL:
        if ((arg & ~(1n << 12n)) !== 0n) return -Errno.EINVAL;
        this.hypercallExits = arg;
        return 0;
      case KvmCap.KVM_CAP_X86_APIC_BUS_CYCLES_NS:
        if (arg === 0n || this.vcpus.length > 0) return -Errno.EINVAL;
        this.apicBusCycleNs = Number(arg);
        return 0;
      default:
        return -Errno.EINVAL;
    }
  }

  #setTscKhz(khz: number): number {
    if (this.vcpus.length > 0) return -Errno.EINVAL;
    this.tscKhz = khz === 0 ? Math.round(this.process.tscHz / 1000) : khz;
    return 0;
  }

  #createVcpu(id: number): number {
    if (!Number.isInteger(id) || id < 0 || id >= this.maxVcpus) return -Errno.EINVAL;
    if (this.vcpu(id)) return -Errno.EEXIST;
    const { lps } = this.process.host;
    const vcpu = new Vcpu(this, id, lps[id % lps.length]);
    this.vcpus.push(vcpu);
    return this.process.install(vcpu);
  }

  #createGuestMemfd({ size, flags }: KvmCreateGuestMemfd): number {
    if (!this.isTdx) return -Errno.EINVAL;
    if (flags !== 0n || size <= 0 || size % PAGE_SIZE !== 0) return -Errno.EINVAL;
    const { host } = this.process;
    const lp = host.lps[0];
    const scrub = (page: Pfn, count: number): void => {
      lp.memZero((page * PAGE_SIZE) as HpaAndKeyId, count * PAGE_SIZE);
    };
    const memfd = new GuestMemfd(size, host.pages, scrub, this.process.parameters.tdx_huge_page);
    memfd.onInvalidate = (first, count) => {
      for (const slot of this.slots.all) {
        if (slot.privateMemory !== memfd) continue;
        const offset = slot.privateOffset / PAGE_SIZE;
        const start = Math.max(first, offset) - offset + slot.base;
        const end = Math.min(first + count, offset + slot.pages) - offset + slot.base;
        if (start < end) this.backend.zap(start, end, "private");
      }
    };
    return this.process.install(memfd);
  }

  #setMemoryRegion(region: KvmUserspaceMemoryRegion2): number {
    const { slot, flags, guest_phys_addr, memory_size, userspace_addr, guest_memfd, guest_memfd_offset } =
      region;
    if (slot >= MAX_MEMSLOTS || guest_phys_addr % PAGE_SIZE !== 0 || memory_size % PAGE_SIZE !== 0)
      return -Errno.EINVAL;
    if (guest_phys_addr + memory_size > GPA_LIMIT) return -Errno.EINVAL;
    const old = this.slots.byNumber(slot);
    if (memory_size === 0) {
      if (!old) return -Errno.EINVAL;
      this.#dropSlot(slot);
      return 0;
    }
    // A slot with a guest_memfd can neither move nor change.
    if (old) return -Errno.EEXIST;
    const base = guest_phys_addr / PAGE_SIZE;
    const pages = memory_size / PAGE_SIZE;
    if (this.slots.overlaps(base, pages, slot)) return -Errno.EEXIST;
    const mapping = this.process.memory.find(userspace_addr);
    const mappingOffset = mapping ? userspace_addr - mapping.address : 0;
    if (!mapping || mappingOffset % PAGE_SIZE !== 0 || mappingOffset + memory_size > mapping.length)
      return -Errno.EFAULT;
    let privateMemory: PrivateMemory | null = null;
    let privateOffset = guest_memfd_offset;
    if ((flags & KVM_MEM_GUEST_MEMFD) !== 0) {
      const file = this.process.file(guest_memfd);
      if (!(file instanceof GuestMemfd)) return -Errno.EBADF;
      if (guest_memfd_offset % PAGE_SIZE !== 0 || guest_memfd_offset + memory_size > file.size)
        return -Errno.EINVAL;
      privateMemory = file;
      file.reference();
    } else if (this.isTdx && this.process.parameters.tdx_unmap_user) {
      privateMemory = new UnmappedMemory(mapping);
      privateOffset = mappingOffset;
    }
    this.slots.put({
      slot,
      flags,
      base,
      pages,
      mapping,
      mappingOffset,
      privateMemory,
      privateOffset,
      inhibited: new Set(),
    });
    return 0;
  }

  #dropSlot(number: number): void {
    const slot = this.slots.byNumber(number);
    if (!slot) return;
    this.backend.zap(slot.base, slot.base + slot.pages, "private");
    this.backend.zap(slot.base, slot.base + slot.pages, "shared");
    this.slots.remove(number);
    slot.privateMemory?.unreferenced();
  }

  #setMemoryAttributes({ address, size, attributes, flags }: KvmMemoryAttributes): number {
    const supported = this.isTdx ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0n;
    if (flags !== 0n || (attributes & ~supported) !== 0n) return -Errno.EINVAL;
    if (size <= 0 || address % PAGE_SIZE !== 0 || size % PAGE_SIZE !== 0) return -Errno.EINVAL;
    const isPrivate = attributes === KVM_MEMORY_ATTRIBUTE_PRIVATE;
    const start = address / PAGE_SIZE;
    const end = start + size / PAGE_SIZE;
    // What was mapped on the other side goes.
    this.backend.zap(start, end, isPrivate ? "shared" : "private");
    this.privateRanges.set(start, end, isPrivate);
    if (!isPrivate)
      for (const slot of this.slots.all) {
        const first = Math.max(start, slot.base);
        const last = Math.min(end, slot.base + slot.pages);
        if (first < last) slot.privateMemory?.converted(privateIndex(slot, first), last - first);
      }
    return 0;
  }

  /** KVM_SIGNAL_MSI. @returns how many local APICs took it */
  #signalMsi({ address_lo, address_hi, data, flags }: KvmMsi): number {
    if (flags !== 0) return -Errno.EINVAL;
    return this.sendMessage(msiMessage(address_lo, address_hi, data), -1);
  }

  /** KVM_SET_GSI_ROUTING: which level-triggered vectors user space's I/O APIC wants to hear the EOI of. */
  #setGsiRouting({ entries = [] }: { entries?: readonly KvmIrqRoutingEntry[] }): number {
    if (!this.splitIrqchip) return -Errno.ENXIO;
    this.eoiVectors.clear();
    for (const { type, data } of entries) {
      if (type !== KVM_IRQ_ROUTING_MSI) return -Errno.EINVAL;
      if ((data & 0x8000) !== 0) this.eoiVectors.add(data & 0xff);
    }
    return 0;
  }

  #unmapUser(mapping: UserMapping, offset: number, length: number): void {
    for (const slot of this.slots.all) {
      if (slot.mapping !== mapping) continue;
      const first = Math.floor((offset - slot.mappingOffset) / PAGE_SIZE);
      const last = Math.ceil((offset + length - slot.mappingOffset) / PAGE_SIZE);
      const start = slot.base + Math.max(first, 0);
      const end = slot.base + Math.min(last, slot.pages);
      if (start >= end) continue;
      this.backend.zap(start, end, "shared");
      if (!(slot.privateMemory instanceof UnmappedMemory)) continue;
      this.backend.zap(start, end, "private");
      slot.privateMemory.converted(privateIndex(slot, start), end - start);
    }
  }

  /** The VM goes away. */
  destroy(): void {
    this.#stopNotifier();
    for (const vcpu of this.vcpus) vcpu.backend.free();
    this.backend.destroy();
    for (const slot of [...this.slots.all]) {
      this.slots.remove(slot.slot);
      slot.privateMemory?.unreferenced();
    }
  }
}
