/** A host, a process with KVM, and a TD built by hand through ioctls: a page of reset vector, page tables, some RAM. */
import {
  encodeProgramHeader,
  encodeProgramStub,
  Errno,
  guest,
  type Guest,
  type GuestProgram,
  KVM_MEM_GUEST_MEMFD,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_TDX_MEASURE_MEMORY_REGION,
  KVM_X86_TDX_VM,
  KvmCap,
  KvmExit,
  KvmIoctl,
  type KvmTdxCapabilities,
  type KvmTdxCmd,
  KvmTdxCmdId,
  Trace,
  type TraceEvent,
} from "@swtdx/abi";
import { Processor, ProgramEngine } from "@swtdx/cpu";
import { SeededRandom } from "@swtdx/crypto";
import { LinuxHost } from "@swtdx/linux-host";
import { Arena, MemoryController } from "@swtdx/mktme";
import { buildModuleImage, buildSeamldrAcm, registerTdxFirmware } from "@swtdx/tdx-module";
import { type KvmParameters, KvmProcess } from "../../src/index.js";

const PAGE = 4096;
export const RAM_SIZE = 8 * 2 ** 20;
const ROM_BASE = 2 ** 32 - 4 * PAGE;
const PML4 = 2 ** 32 - 2 * PAGE;
const PDPT = 2 ** 32 - 3 * PAGE;
/** Linear address of the shared alias of GPA 0. */
export const SHARED_ALIAS = 2n ** 32n;
const SHARED_BIT = 1n << 47n;

export function powerOn(
  program: GuestProgram = idle,
  { lps = 1, ...parameters }: { lps?: number } & Partial<KvmParameters> = {},
) {
  const trace = new Trace();
  const events: TraceEvent[] = [];
  const random = new SeededRandom(new TextEncoder().encode("kvm"));
  const arena = new Arena({ residentBytes: 128 * 2 ** 20 });
  const memoryBytes = 2 ** 29;
  const memory = new MemoryController(arena, { dramBytes: LinuxHost.dramBytes(memoryBytes), random, trace });
  const engines = [new ProgramEngine({ programs: new Map([["test", program]]) })];
  const processor = new Processor({ arena, memory, random, lps, trace, engines });
  registerTdxFirmware(processor, trace);
  const firmware = { buildSeamldr: buildSeamldrAcm, module: buildModuleImage() };
  const host = LinuxHost.boot({ processor, memoryBytes, trace, firmware });
  trace.subscribe((event) => events.push(event));
  return { host, memory, trace, events, kvm: new KvmProcess(host, parameters) };
}

function* idle(): Guest<void> {}

/** The 4 pages below 4 GiB: page tables, and the reset vector's stub. */
export function romImage(): Uint8Array {
  const rom = new Uint8Array(4 * PAGE);
  const view = new DataView(rom.buffer);
  const put = (gpa: number, value: bigint) => view.setBigUint64(gpa - ROM_BASE, value, true);
  put(PML4, BigInt(PDPT) | 0x23n);
  for (let gib = 0; gib < 4; gib++) {
    put(PDPT + 8 * gib, BigInt(gib * 2 ** 30) | 0xe3n);
    put(PDPT + 8 * (4 + gib), BigInt(gib * 2 ** 30) | SHARED_BIT | 0xe3n);
  }
  rom.set(encodeProgramStub(-0xff0), rom.length - 16);
  rom.set(encodeProgramHeader("test"), rom.length - PAGE);
  return rom;
}

/** Enters 64-bit mode with the page tables of `romImage`. */
export function* longMode(): Guest<void> {
  yield* guest.writeCr(3, BigInt(PML4));
  yield* guest.writeCr(4, (yield* guest.readCr(4)) | (1n << 5n));
  yield* guest.writeCr(0, (yield* guest.readCr(0)) | (1n << 31n));
  yield* guest.ljmp64();
}

/** The TD as user space sees it: file descriptors and mappings. */
export class Td {
  readonly vm: number;
  readonly vcpu: number;
  readonly vcpus: number[] = [];
  readonly memfd: number;
  readonly ram;
  readonly run: DataView;
  readonly #rest: number[] = [];
  readonly #hasMemfd: boolean;
  /** User space's side of the reset vector's pages. */
  readonly #rom;

  constructor(
    readonly kvm: KvmProcess,
    { vcpus = 1, memfd = true } = {},
  ) {
    const system = kvm.openKvm();
    this.#rest.push(system);
    this.vm = this.#ok(system, "KVM_CREATE_VM", KVM_X86_TDX_VM);
    this.enable(KvmCap.KVM_CAP_SPLIT_IRQCHIP, 24n);
    this.enable(KvmCap.KVM_CAP_MAX_VCPUS, BigInt(vcpus));
    this.enable(KvmCap.KVM_CAP_EXIT_HYPERCALL, 1n << 12n);
    this.tdx({ id: KvmTdxCmdId.KVM_TDX_INIT_VM, data: this.parameters() });
    this.#hasMemfd = memfd;
    this.ram = kvm.mmap(RAM_SIZE);
    this.memfd = this.#slot(0, 0, this.ram);
    this.#rom = kvm.mmap(4 * PAGE);
    this.#rest.push(this.#slot(1, ROM_BASE, this.#rom));
    for (let i = 0; i < vcpus; i++) {
      const fd = this.#ok(this.vm, "KVM_CREATE_VCPU", i);
      this.tdx({ id: KvmTdxCmdId.KVM_TDX_INIT_VCPU, data: 0n }, fd);
      this.vcpus.push(fd);
    }
    this.vcpu = this.vcpus[0];
    this.run = this.#runOf(this.vcpu);
  }
  #runOf(vcpu: number): DataView {
    const run = this.kvm.mmapVcpu(vcpu);
    return new DataView(run.buffer, run.byteOffset, run.byteLength);
  }

  capabilities(): KvmTdxCapabilities {
    const data: KvmTdxCapabilities = {
      supported_attrs: 0n,
      supported_xfam: 0n,
      kernel_tdvmcallinfo_1_r11: 0n,
      user_tdvmcallinfo_1_r11: 0n,
      kernel_tdvmcallinfo_1_r12: 0n,
      user_tdvmcallinfo_1_r12: 0n,
      cpuid: { nent: 256, entries: [] },
    };
    this.tdx({ id: KvmTdxCmdId.KVM_TDX_CAPABILITIES, data });
    return data;
  }
  parameters() {
    const { supported_xfam } = this.capabilities();
    // Nothing that can be configured is, but the width of guest physical addresses.
    const none = { index: 0, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 };
    const cpuid = { nent: 1, entries: [{ ...none, function: 0x8000_0008, eax: 48 << 16 }] };
    const zero = () => new Uint8Array(48);
    return {
      attributes: 1n << 28n,
      xfam: supported_xfam,
      mrconfigid: zero(),
      mrowner: zero(),
      mrownerconfig: zero(),
      cpuid,
    };
  }

  #slot(slot: number, gpa: number, mapping: { address: number; length: number }): number {
    const size = mapping.length;
    const guest_memfd = this.#hasMemfd
      ? this.#ok(this.vm, "KVM_CREATE_GUEST_MEMFD", { size, flags: 0n })
      : -1;
    this.#ok(this.vm, "KVM_SET_USER_MEMORY_REGION2", {
      slot,
      flags: this.#hasMemfd ? KVM_MEM_GUEST_MEMFD : 0,
      guest_phys_addr: gpa,
      memory_size: size,
      userspace_addr: mapping.address,
      guest_memfd,
      guest_memfd_offset: 0,
    });
    this.setPrivate(gpa, size, true);
    return guest_memfd;
  }
  setPrivate(address: number, size: number, isPrivate: boolean): void {
    const attributes = isPrivate ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0n;
    this.#ok(this.vm, "KVM_SET_MEMORY_ATTRIBUTES", { address, size, attributes, flags: 0n });
  }

  /** KVM_TDX_INIT_MEM_REGION for the reset vector's pages. @returns what the ioctl returns */
  addRom(cmd: Partial<KvmTdxCmd> = {}): number {
    const source = this.kvm.mmap(4 * PAGE);
    source.write(0, romImage());
    const data = { source_addr: source.address, gpa: ROM_BASE, nr_pages: 4 };
    const flags = KVM_TDX_MEASURE_MEMORY_REGION;
    const all = Object.assign(cmd, { id: KvmTdxCmdId.KVM_TDX_INIT_MEM_REGION, flags, data }) as KvmTdxCmd;
    const result = this.kvm.ioctl(this.vcpu, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, all);
    this.kvm.munmap(source);
    return result;
  }
  finalize(): this {
    if (this.addRom() !== 0) throw new Error("KVM_TDX_INIT_MEM_REGION failed");
    this.tdx({ id: KvmTdxCmdId.KVM_TDX_FINALIZE_VM });
    return this;
  }

  enable(cap: number, arg: bigint): void {
    this.#ok(this.vm, "KVM_ENABLE_CAP", { cap, flags: 0, args: [arg, 0n, 0n, 0n] });
  }
  tdx(cmd: KvmTdxCmd, fd = this.vm): void {
    this.#ok(fd, "KVM_MEMORY_ENCRYPT_OP", cmd);
  }
  #ok(fd: number, name: keyof typeof KvmIoctl, arg: unknown): number {
    const result = this.kvm.ioctl(fd, KvmIoctl[name], arg);
    if (result < 0) throw new Error(`${name}: ${result}`);
    return result;
  }

  /** kvm_run of the vCPU that exited last. */
  last!: DataView;
  /** KVM_RUN of all vCPUs in turn, to the next exit. @returns its reason, or -errno */
  exit(): number {
    for (let i = 0; i < 2000; i++) {
      let waiting = 0;
      for (const vcpu of this.vcpus) {
        const result = this.kvm.ioctl(vcpu, KvmIoctl.KVM_RUN);
        if (result === -Errno.EINTR) continue;
        this.last = this.#runOf(vcpu);
        if (result === -Errno.EAGAIN) waiting++;
        else return result < 0 ? result : this.last.getUint32(8, true);
      }
      if (waiting === this.vcpus.length) this.kvm.sleep(null);
    }
    throw new Error("the guest does not exit");
  }
  /** Runs to a port write of 0 at port 0x80, and returns the values written there before. Converts memory as asked. */
  output(): number[] {
    const out: number[] = [];
    for (;;) {
      const reason = this.exit();
      if (reason === KvmExit.KVM_EXIT_HYPERCALL) this.#mapGpaRange();
      else if (reason === KvmExit.KVM_EXIT_IO) {
        const value = this.last.getUint32(4096, true);
        if (value === 0) return out;
        out.push(value);
      } else throw new Error(`exit ${reason}`);
    }
  }
  #mapGpaRange(): void {
    const [gpa, pages, attributes] = [0, 1, 2].map((i) => Number(this.last.getBigUint64(40 + 8 * i, true)));
    const isPrivate = (attributes & 16) !== 0;
    this.setPrivate(gpa, pages * PAGE, isPrivate);
    if (!isPrivate && this.#hasMemfd) this.kvm.punchHole(this.memfd, gpa, pages * PAGE);
    this.last.setBigUint64(88, 0n, true);
  }

  close(): void {
    for (const fd of [...this.vcpus, this.memfd, ...this.#rest, this.vm]) this.kvm.close(fd);
    this.kvm.munmap(this.ram);
    this.kvm.munmap(this.#rom);
  }
}

/** TDG.MEM.PAGE.ACCEPT of a page of 4 KiB, or 2 MiB (level 1). @returns its status */
export function* accept(gpa: number, level = 0): Guest<bigint> {
  return (yield* guest.tdcall({ rax: 6n, rcx: BigInt(gpa + level) })).rax;
}
/** TDG.VP.VMCALL. @returns R10 */
export function* vmcall(r11: bigint, r12 = 0n, r13 = 0n, r14 = 0n, r15 = 0n): Guest<bigint> {
  const out = yield* guest.tdcall({ rax: 0n, rcx: 0xfc00n, r10: 0n, r11, r12, r13, r14, r15 });
  return out.r10;
}
/** TDG.VP.VMCALL with what comes back in R10 to R15. */
export function* vmcallRegs(r11: bigint, r12 = 0n, r13 = 0n, r14 = 0n, r15 = 0n) {
  return yield* guest.tdcall({ rax: 0n, rcx: 0xfc00n, r10: 0n, r11, r12, r13, r14, r15 });
}
/** Instruction.IO: writes to port 0x80. */
export function* say(value: number): Guest<void> {
  yield* vmcall(30n, 4n, 1n, 0x80n, BigInt(value));
}
