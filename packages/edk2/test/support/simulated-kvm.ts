/**
 * KVM, TDX module and processors in one small piece, for the tests of what runs inside a TD: the machine
 * (`@swtdx/qemu`) with all its devices works on it as on the kernel, guest programs run on simulated vCPUs.
 */
import {
  Errno,
  type GuestProgram,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_RUN_MMAP_SIZE,
  KvmIoctl,
  type KvmTdxCmd,
  KvmTdxCmdId,
  PAGE_SIZE,
} from "@swtdx/abi";
import type { Mapping, Syscalls } from "@swtdx/qemu";
import { mrtdOfSections } from "../../../../tools/mrtd-oracle.mjs";
import { hostCpuid, tdxCpuidConfig } from "../../../qemu/test/support/host-cpuid.js";
import { SimulatedTd } from "./simulated-td.js";
import { SimulatedVcpu } from "./simulated-vcpu.js";

interface Slot {
  guest_phys_addr: number;
  memory_size: number;
  userspace_addr: number;
}
/** Anonymous memory, page by page. */
class SparseMapping implements Mapping {
  readonly #pages = new Map<number, Uint8Array>();
  constructor(
    readonly address: number,
    readonly length: number,
  ) {}
  page(index: number): Uint8Array {
    let page = this.#pages.get(index);
    if (!page) this.#pages.set(index, (page = new Uint8Array(PAGE_SIZE)));
    return page;
  }
  *#parts(offset: number, length: number): Generator<[Uint8Array, number]> {
    for (let done = 0; done < length;) {
      const at = offset + done;
      const part = this.page(Math.floor(at / PAGE_SIZE)).subarray(at % PAGE_SIZE);
      yield [part.subarray(0, length - done), done];
      done += part.length;
    }
  }
  read(offset: number, length: number): Uint8Array {
    const out = new Uint8Array(length);
    for (const [part, at] of this.#parts(offset, length)) out.set(part, at);
    return out;
  }
  write(offset: number, data: Uint8Array): void {
    for (const [part, at] of this.#parts(offset, data.length)) part.set(data.subarray(at, at + part.length));
  }
  discard(offset: number, length: number): void {
    for (let at = offset; at < offset + length; at += PAGE_SIZE) this.#pages.delete(at / PAGE_SIZE);
  }
}

export interface SimulationOptions {
  programs: ReadonlyMap<string, GuestProgram>;
  smp?: number;
  gpaw?: 48 | 52;
  attributes?: bigint;
}

export class SimulatedKvm implements Syscalls {
  readonly td: SimulatedTd;
  readonly vcpus: SimulatedVcpu[] = [];
  readonly #slots: Slot[] = [];
  readonly #mappings = new Map<number, SparseMapping>();
  readonly #areas = new Map<number, Uint8Array>();
  readonly #indices = new Map<number, number>();
  readonly #sections: { gpa: number; memorySize: number; data: Uint8Array; extend: boolean }[] = [];
  #hob = 0n;
  #nextFd = 3;
  #nextAddress = 0x7f00_0000_0000;
  #virtual = 0;

  constructor(private readonly options: SimulationOptions) {
    this.td = new SimulatedTd(options.smp ?? 1, (pfn) => this.#hostPage(pfn), options);
  }

  #hostPage(pfn: number): Uint8Array | null {
    const gpa = pfn * PAGE_SIZE;
    const slot = this.#slots.find(
      ({ guest_phys_addr: base, memory_size: size }) => gpa >= base && gpa < base + size,
    );
    if (!slot) return null;
    const mapping = this.#mappings.get(slot.userspace_addr)!;
    return mapping.page((gpa - slot.guest_phys_addr) / PAGE_SIZE);
  }

  openKvm(): number {
    return this.#nextFd++;
  }
  mmap(length: number): Mapping {
    const mapping = new SparseMapping((this.#nextAddress += 2 ** 36), length);
    this.#mappings.set(mapping.address, mapping);
    return mapping;
  }
  munmap(mapping: Mapping): void {
    this.#mappings.delete(mapping.address);
  }
  mmapVcpu(fd: number): Uint8Array {
    return this.#areas.get(fd)!;
  }
  punchHole(): number {
    return 0;
  }
  close(): void {}
  now(): number {
    return this.#virtual;
  }
  sleep(deadline: number | null): void {
    this.#virtual = Math.max(this.#virtual, deadline ?? this.#virtual + 1e6);
  }

  ioctl(fd: number, request: number, arg?: unknown): number {
    // eslint-disable-next-line @typescript-eslint/no-explicit-any -- each request has a structure of its own
    const any = arg as any;
    switch (request) {
      case KvmIoctl.KVM_GET_API_VERSION:
        return 12;
      case KvmIoctl.KVM_CHECK_EXTENSION:
        return arg === 235 ? 0b100001 : 1;
      case KvmIoctl.KVM_CREATE_VM:
      case KvmIoctl.KVM_CREATE_GUEST_MEMFD:
        return this.#nextFd++;
      case KvmIoctl.KVM_GET_SUPPORTED_CPUID:
        if (any.nent < hostCpuid.length) return -Errno.E2BIG;
        any.entries = hostCpuid;
        return 0;
      case KvmIoctl.KVM_CREATE_VCPU: {
        const vcpu = this.#nextFd++;
        this.#indices.set(vcpu, arg as number);
        this.#areas.set(vcpu, new Uint8Array(KVM_RUN_MMAP_SIZE));
        return vcpu;
      }
      case KvmIoctl.KVM_SET_USER_MEMORY_REGION2:
        this.#slots.push({ ...any });
        return 0;
      case KvmIoctl.KVM_SET_MEMORY_ATTRIBUTES:
        this.td.convert(any.address, any.size, (any.attributes & KVM_MEMORY_ATTRIBUTE_PRIVATE) !== 0n);
        return 0;
      case KvmIoctl.KVM_MEMORY_ENCRYPT_OP:
        return this.#tdx(any);
      case KvmIoctl.KVM_RUN: {
        this.#virtual += 10_000;
        const area = this.#areas.get(fd)!;
        return this.vcpus[this.#indices.get(fd)!].run(new DataView(area.buffer), area);
      }
      default:
        return 0;
    }
  }

  #tdx(cmd: KvmTdxCmd): number {
    switch (cmd.id) {
      case KvmTdxCmdId.KVM_TDX_CAPABILITIES:
        if (cmd.data.cpuid.nent < tdxCpuidConfig.length) return -Errno.E2BIG;
        Object.assign(cmd.data, {
          supported_attrs: 1n << 28n,
          supported_xfam: 0x6dbe7n,
          user_tdvmcallinfo_1_r11: 2n,
        });
        cmd.data.cpuid.entries = tdxCpuidConfig;
        return 0;
      case KvmTdxCmdId.KVM_TDX_INIT_VCPU:
        this.#hob = cmd.data;
        return 0;
      case KvmTdxCmdId.KVM_TDX_INIT_MEM_REGION: {
        const { source_addr, gpa, nr_pages } = cmd.data;
        const mapping = [...this.#mappings.values()].find(
          ({ address, length }) => source_addr >= address && source_addr < address + length,
        )!;
        const data = mapping.read(source_addr - mapping.address, nr_pages * PAGE_SIZE);
        this.#sections.push({
          gpa,
          memorySize: data.length,
          data,
          extend: ((cmd.flags ?? 0) & 1) !== 0,
        });
        for (let i = 0; i < nr_pages; i++)
          this.td.privatePages.set(gpa / PAGE_SIZE + i, data.slice(i * PAGE_SIZE, (i + 1) * PAGE_SIZE));
        return 0;
      }
      case KvmTdxCmdId.KVM_TDX_FINALIZE_VM: {
        const hex = mrtdOfSections(this.#sections);
        this.td.mrtd = Uint8Array.from({ length: 48 }, (_, i) => parseInt(hex.slice(2 * i, 2 * i + 2), 16));
        for (let i = 0; i < this.td.numVcpus; i++)
          this.vcpus.push(new SimulatedVcpu(this.td, i, this.options.programs, this.#hob));
        return 0;
      }
      default:
        return 0;
    }
  }
}
