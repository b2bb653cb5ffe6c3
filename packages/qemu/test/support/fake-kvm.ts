/**
 * A scripted kernel for the machine: records every request, answers KVM_RUN with the exits it is given. It checks the
 * order of requests that KVM demands of a TD, and nothing of what the kernel does.
 */
import {
  Errno,
  KVM_RUN_MMAP_SIZE,
  KVM_RUN_PIO_OFFSET,
  KvmExit,
  type KvmIoctlName,
  KvmIoctl,
  type KvmTdxCmd,
  KvmTdxCmdId,
} from "@swtdx/abi";
import type { Mapping, Syscalls } from "../../src/accel/syscalls.js";
import { RUN, writeValue } from "../../src/accel/exits.js";
import { hostCpuid, tdxCpuidConfig } from "./host-cpuid.js";

const names = new Map(Object.entries(KvmIoctl).map(([name, nr]) => [nr, name as KvmIoctlName]));

/** One return of KVM_RUN: fills kvm_run and gives the result. `after` sees kvm_run when the vCPU is run again. */
export interface Step {
  prepare: (view: DataView, run: Uint8Array) => number;
  after?: (view: DataView, run: Uint8Array) => void;
}

const exit = (reason: number, fill: (view: DataView) => void, after?: Step["after"]): Step => ({
  prepare: (view) => {
    view.setUint32(RUN.exitReason, reason, true);
    fill(view);
    return 0;
  },
  after,
});
export const step = {
  out: (port: number, size: number, value: number): Step =>
    exit(KvmExit.KVM_EXIT_IO, (view) => {
      view.setUint8(RUN.ioDirection, 1);
      view.setUint8(RUN.ioSize, size);
      view.setUint16(RUN.ioPort, port, true);
      view.setUint32(RUN.ioCount, 1, true);
      view.setBigUint64(RUN.ioDataOffset, BigInt(KVM_RUN_PIO_OFFSET), true);
      writeValue(view, KVM_RUN_PIO_OFFSET, size, value);
    }),
  in: (port: number, size: number, got: (value: number) => void): Step =>
    exit(
      KvmExit.KVM_EXIT_IO,
      (view) => {
        view.setUint8(RUN.ioDirection, 0);
        view.setUint8(RUN.ioSize, size);
        view.setUint16(RUN.ioPort, port, true);
        view.setUint32(RUN.ioCount, 1, true);
        view.setBigUint64(RUN.ioDataOffset, BigInt(KVM_RUN_PIO_OFFSET), true);
      },
      (view) =>
        got(size === 1 ? view.getUint8(KVM_RUN_PIO_OFFSET) : view.getUint32(KVM_RUN_PIO_OFFSET, true)),
    ),
  mmio: (address: number, bytes: number[], isWrite: boolean, got?: (data: number[]) => void): Step =>
    exit(
      KvmExit.KVM_EXIT_MMIO,
      (view) => {
        view.setBigUint64(RUN.mmioAddress, BigInt(address), true);
        bytes.forEach((byte, i) => view.setUint8(RUN.mmioData + i, byte));
        view.setUint32(RUN.mmioLength, bytes.length, true);
        view.setUint8(RUN.mmioIsWrite, isWrite ? 1 : 0);
      },
      (view) => got?.(bytes.map((_, i) => view.getUint8(RUN.mmioData + i))),
    ),
  mapGpa: (gpa: number, pages: number, encrypted: boolean, got: (ret: bigint) => void): Step =>
    exit(
      KvmExit.KVM_EXIT_HYPERCALL,
      (view) => {
        view.setBigUint64(RUN.hypercallNumber, 12n, true);
        view.setBigUint64(RUN.hypercallArgs, BigInt(gpa), true);
        view.setBigUint64(RUN.hypercallArgs + 8, BigInt(pages), true);
        view.setBigUint64(RUN.hypercallArgs + 16, encrypted ? 16n : 0n, true);
      },
      (view) => got(view.getBigUint64(RUN.hypercallRet, true)),
    ),
  tdx: (nr: number, data: bigint[], got: (ret: bigint, data: bigint[]) => void): Step =>
    exit(
      KvmExit.KVM_EXIT_TDX,
      (view) => {
        view.setBigUint64(RUN.tdxNumber, BigInt(nr), true);
        data.forEach((value, i) => view.setBigUint64(RUN.tdxData + 8 * i, value, true));
      },
      (view) =>
        got(
          view.getBigUint64(RUN.tdxRet, true),
          Array.from({ length: 5 }, (_, i) => view.getBigUint64(RUN.tdxData + 8 * i, true)),
        ),
    ),
  memoryFault: (gpa: number, size: number, isPrivate: boolean): Step => ({
    prepare: (view) => {
      view.setUint32(RUN.exitReason, KvmExit.KVM_EXIT_MEMORY_FAULT, true);
      view.setBigUint64(RUN.faultFlags, isPrivate ? 8n : 0n, true);
      view.setBigUint64(RUN.faultGpa, BigInt(gpa), true);
      view.setBigUint64(RUN.faultSize, BigInt(size), true);
      return -Errno.EFAULT;
    },
  }),
  systemEvent: (type: number, data: bigint[] = []): Step =>
    exit(KvmExit.KVM_EXIT_SYSTEM_EVENT, (view) => {
      view.setUint32(RUN.eventType, type, true);
      view.setUint32(RUN.eventType + 4, data.length, true);
      data.forEach((value, i) => view.setBigUint64(RUN.eventData + 8 * i, value, true));
    }),
  plain: (reason: number): Step => exit(reason, () => {}),
  error: (errno: number): Step => ({ prepare: () => -errno }),
};

interface Fd {
  kind: "kvm" | "vm" | "vcpu" | "gmem";
  run: Uint8Array;
}

export class FakeKvm implements Syscalls {
  readonly calls: { name: string; arg: unknown }[] = [];
  readonly tdx: KvmTdxCmd[] = [];
  readonly sections: { gpa: number; pages: number; flags: number; contents: Uint8Array }[] = [];
  readonly attributes: { address: number; size: number; attributes: bigint }[] = [];
  readonly punched: { offset: number; length: number }[] = [];
  readonly msis: { address_lo: number; address_hi: number; data: number }[] = [];
  readonly slots: { guest_phys_addr: number; memory_size: number; userspace_addr: number; flags: number }[] =
    [];
  readonly scripts = new Map<number, Step[]>();
  readonly mappings = new Map<number, Mapping & { bytes: Uint8Array; discarded: [number, number][] }>();
  onFinalize: () => void = () => {};
  virtual = 0;
  readonly #fds = new Map<number, Fd>();
  readonly #done = new Map<number, Step>();
  #nextFd = 3;
  #nextAddress = 0x7f0000000000;

  /** Steps of the vCPU with this index. */
  script(index: number, ...steps: Step[]): void {
    this.scripts.set(index, [...(this.scripts.get(index) ?? []), ...steps]);
  }

  get open(): number {
    return this.#fds.size + this.mappings.size;
  }
  #new(kind: Fd["kind"]): number {
    const fd = this.#nextFd++;
    this.#fds.set(fd, { kind, run: new Uint8Array(kind === "vcpu" ? KVM_RUN_MMAP_SIZE : 0) });
    return fd;
  }
  openKvm(): number {
    return this.#new("kvm");
  }
  mmap(length: number): Mapping {
    const address = (this.#nextAddress += 2 ** 32);
    // Lazily, and only the first 32 MiB: what is above reads as zeros and keeps nothing.
    let backing: Uint8Array | undefined;
    const discarded: [number, number][] = [];
    const mapping = {
      address,
      length,
      get bytes(): Uint8Array {
        return (backing ??= new Uint8Array(Math.min(length, 32 * 2 ** 20)));
      },
      discarded,
      read: (offset: number, size: number) => mapping.bytes.slice(offset, offset + size),
      write: (offset: number, data: Uint8Array) =>
        mapping.bytes.set(data.subarray(0, Math.max(0, mapping.bytes.length - offset)), offset),
      discard: (offset: number, size: number) => void discarded.push([offset, size]),
    };
    this.mappings.set(address, mapping);
    return mapping;
  }
  munmap(mapping: Mapping): void {
    this.mappings.delete(mapping.address);
  }
  mmapVcpu(fd: number): Uint8Array {
    return this.#fds.get(fd)!.run;
  }
  punchHole(_fd: number, offset: number, length: number): number {
    this.punched.push({ offset, length });
    return 0;
  }
  close(fd: number): void {
    this.#fds.delete(fd);
  }
  now(): number {
    return this.virtual;
  }
  sleep(deadline: number | null): void {
    this.virtual = Math.max(this.virtual, deadline ?? this.virtual + 1e6);
  }

  #vcpuIndex = new Map<number, number>();
  ioctl(fd: number, request: number, arg?: unknown): number {
    const name = names.get(request) ?? `0x${request.toString(16)}`;
    const file = this.#fds.get(fd);
    if (!file) return -Errno.EBADF;
    if (name !== "KVM_RUN") this.calls.push({ name, arg });
    // eslint-disable-next-line @typescript-eslint/no-explicit-any -- each request has a structure of its own
    const any = arg as any;
    switch (name) {
      case "KVM_GET_API_VERSION":
        return 12;
      case "KVM_CHECK_EXTENSION":
        return arg === 235 ? 0b100001 : 1;
      case "KVM_CREATE_VM":
        return this.#new("vm");
      case "KVM_GET_SUPPORTED_CPUID":
        if (any.nent < hostCpuid.length) return -Errno.E2BIG;
        any.entries = hostCpuid;
        return 0;
      case "KVM_CREATE_VCPU": {
        const vcpu = this.#new("vcpu");
        this.#vcpuIndex.set(vcpu, arg as number);
        return vcpu;
      }
      case "KVM_CREATE_GUEST_MEMFD":
        return this.#new("gmem");
      case "KVM_SET_USER_MEMORY_REGION2":
        this.slots.push(any);
        return 0;
      case "KVM_SET_MEMORY_ATTRIBUTES":
        this.attributes.push(any);
        return 0;
      case "KVM_SIGNAL_MSI":
        this.msis.push(any);
        return 1;
      case "KVM_MEMORY_ENCRYPT_OP":
        return this.#tdx(any);
      case "KVM_RUN":
        return this.#run(this.#vcpuIndex.get(fd)!, file.run);
      default:
        return 0;
    }
  }

  #tdx(cmd: KvmTdxCmd): number {
    this.tdx.push(cmd);
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
      case KvmTdxCmdId.KVM_TDX_INIT_MEM_REGION: {
        const { source_addr, gpa, nr_pages } = cmd.data;
        const contents = this.mappings.get(source_addr)!.bytes.slice(0, nr_pages * 4096);
        this.sections.push({ gpa, pages: nr_pages, flags: cmd.flags ?? 0, contents });
        return 0;
      }
      case KvmTdxCmdId.KVM_TDX_FINALIZE_VM:
        this.onFinalize();
        return 0;
      default:
        return 0;
    }
  }

  #run(index: number, run: Uint8Array): number {
    const view = new DataView(run.buffer);
    this.#done.get(index)?.after?.(view, run);
    this.#done.delete(index);
    this.virtual += 1000;
    const next = this.scripts.get(index)?.shift();
    if (!next) return -Errno.EAGAIN;
    this.#done.set(index, next);
    return next.prepare(view, run);
  }
}
