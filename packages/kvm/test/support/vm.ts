/** An ordinary VM built by hand through ioctls: RAM from 0, a ROM below 4 GiB with page tables and the reset vector's stub. */
import {
  encodeProgramHeader,
  encodeProgramStub,
  Errno,
  guest,
  type Guest,
  KVM_MEM_READONLY,
  KVM_X86_DEFAULT_VM,
  KvmCap,
  KvmExit,
  KvmIoctl,
} from "@swtdx/abi";
import type { KvmProcess } from "../../src/index.js";
import { romImage } from "./td.js";

const PAGE = 4096;
export const RAM = 2 * 2 ** 20;
const ROM_BASE = 2 ** 32 - 4 * PAGE;
const PML4 = 2 ** 32 - 2 * PAGE;
export const EFER = 0xc000_0080;

/** From real mode into 64-bit mode, with the ROM's page tables: memory one to one up to 4 GiB. */
export function* realToLong(): Guest<void> {
  yield* guest.writeCr(3, BigInt(PML4));
  yield* guest.writeCr(4, 1n << 5n);
  yield* guest.wrmsr(EFER, 0x100n);
  yield* guest.writeCr(0, 0x8000_0011n);
  yield* guest.ljmp64();
}

export interface Exit {
  readonly reason: number;
  readonly port?: number;
  readonly value?: number;
  readonly gpa?: number;
}

export class PlainVm {
  readonly vm: number;
  readonly vcpus: number[] = [];
  readonly runs: DataView[] = [];
  readonly ram;
  readonly #system: number;
  readonly #rom;

  constructor(
    readonly kvm: KvmProcess,
    { vcpus = 1, irqchip = true } = {},
  ) {
    this.#system = kvm.openKvm();
    this.vm = this.ok(this.#system, "KVM_CREATE_VM", KVM_X86_DEFAULT_VM);
    if (irqchip) this.ok(this.vm, "KVM_ENABLE_CAP", { cap: KvmCap.KVM_CAP_SPLIT_IRQCHIP, args: [24n] });
    this.ram = kvm.mmap(RAM);
    this.#rom = kvm.mmap(4 * PAGE);
    this.#rom.write(0, romImage());
    this.#slot(0, 0, 0, this.ram);
    this.#slot(1, KVM_MEM_READONLY, ROM_BASE, this.#rom);
    const cpuid = { nent: 256, entries: [] };
    this.ok(this.#system, "KVM_GET_SUPPORTED_CPUID", cpuid);
    for (let i = 0; i < vcpus; i++) {
      const fd = this.ok(this.vm, "KVM_CREATE_VCPU", i);
      this.ok(fd, "KVM_SET_CPUID2", cpuid);
      this.vcpus.push(fd);
      const run = kvm.mmapVcpu(fd);
      this.runs.push(new DataView(run.buffer, run.byteOffset, run.byteLength));
    }
  }

  #slot(
    slot: number,
    flags: number,
    guest_phys_addr: number,
    mapping: { address: number; length: number },
  ): void {
    const { address: userspace_addr, length: memory_size } = mapping;
    this.ok(this.vm, "KVM_SET_USER_MEMORY_REGION", {
      slot,
      flags,
      guest_phys_addr,
      memory_size,
      userspace_addr,
    });
  }

  /** A program's stub at a real-mode page, for an application processor. */
  putStub(page: number): void {
    this.ram.write(page * PAGE, encodeProgramStub(1024));
    this.ram.write(page * PAGE + 1024, encodeProgramHeader("test"));
  }

  ok(fd: number, name: keyof typeof KvmIoctl, arg?: unknown): number {
    const result = this.kvm.ioctl(fd, KvmIoctl[name], arg);
    if (result < 0) throw new Error(`${name}: ${result}`);
    return result;
  }

  /** Runs the vCPUs in turn to the next exit of one of them. */
  exit(): Exit {
    for (let round = 0; round < 2000; round++) {
      let waiting = 0;
      for (const [i, fd] of this.vcpus.entries()) {
        const result = this.kvm.ioctl(fd, KvmIoctl.KVM_RUN);
        if (result === -Errno.EAGAIN) waiting++;
        else if (result === 0) return this.#decode(this.runs[i]);
        else if (result !== -Errno.EINTR) throw new Error(`KVM_RUN: ${result}`);
      }
      if (waiting === this.vcpus.length) this.kvm.sleep(null);
    }
    throw new Error("the guest does not exit");
  }
  /** Runs the first vCPU until it waits for an interrupt. */
  runUntilHalted(): void {
    for (let i = 0; i < 1000; i++)
      if (this.kvm.ioctl(this.vcpus[0], KvmIoctl.KVM_RUN) === -Errno.EAGAIN) return;
    throw new Error("the guest does not halt");
  }
  #decode(run: DataView): Exit {
    const reason = run.getUint32(8, true);
    if (reason === KvmExit.KVM_EXIT_IO)
      return { reason, port: run.getUint16(34, true), value: run.getUint32(4096, true) };
    if (reason === KvmExit.KVM_EXIT_MMIO)
      return { reason, gpa: Number(run.getBigUint64(32, true)), value: run.getUint32(40, true) };
    return { reason };
  }

  /** Values written to port 0x80 until a 0. */
  output(): number[] {
    const out: number[] = [];
    for (;;) {
      const { reason, port, value } = this.exit();
      if (reason !== KvmExit.KVM_EXIT_IO || port !== 0x80) throw new Error(`exit ${reason}`);
      if (value === 0) return out;
      out.push(value!);
    }
  }

  close(): void {
    for (const fd of this.vcpus) this.kvm.close(fd);
    this.kvm.close(this.vm);
    this.kvm.munmap(this.ram);
    this.kvm.munmap(this.#rom);
    this.kvm.close(this.#system);
  }
}
