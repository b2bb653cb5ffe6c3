/**
 * What a TD's memory costs: 64 MiB accepted and given back in pages of 4 KiB and of 2 MiB, with KVM mapping either
 * size. Time, calls of the module, and memory that is resident afterwards.
 */
import {
  encodeProgramHeader,
  encodeProgramStub,
  Errno,
  guest,
  type Guest,
  KVM_MEM_GUEST_MEMFD,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_X86_TDX_VM,
  KvmCap,
  KvmIoctl,
  type KvmTdxCmd,
  KvmTdxCmdId,
  PAGE_SIZE,
  Trace,
} from "@swtdx/abi";
import { Processor, ProgramEngine } from "@swtdx/cpu";
import { SeededRandom } from "@swtdx/crypto";
import { KvmProcess } from "@swtdx/kvm";
import { LinuxHost } from "@swtdx/linux-host";
import { Arena, MemoryController } from "@swtdx/mktme";
import { buildModuleImage, buildSeamldrAcm, registerTdxFirmware } from "@swtdx/tdx-module";

const MIB = 2 ** 20;
const MEMORY = 64 * MIB;
const MIB2 = 2 * MIB;
const ROUNDS = 3;
const ROM = 2 ** 32 - 4 * PAGE_SIZE;
const [PDPT, PML4] = [ROM + PAGE_SIZE, ROM + 2 * PAGE_SIZE];

/** Enters 64-bit mode, accepts memory as Linux does, and writes to a port. */
function* program(): Guest<void> {
  yield* guest.writeCr(3, BigInt(PML4));
  yield* guest.writeCr(4, (yield* guest.readCr(4)) | (1n << 5n));
  yield* guest.writeCr(0, (yield* guest.readCr(0)) | (1n << 31n));
  yield* guest.ljmp64();
  for (let gpa = 0; gpa < MEMORY;) {
    const large = wanted === 1 ? (yield* guest.tdcall({ rax: 6n, rcx: BigInt(gpa) | 1n })).rax : 1n;
    if (large !== 0n)
      for (let at = gpa; at < gpa + MIB2; at += PAGE_SIZE) yield* guest.tdcall({ rax: 6n, rcx: BigInt(at) });
    gpa += MIB2;
  }
  const io = { r10: 0n, r11: 30n, r12: 4n, r13: 1n, r14: 0x80n, r15: 0n };
  for (;;) yield* guest.tdcall({ rax: 0n, rcx: 0xfc00n, ...io });
}
/** Level that the guest asks for. */
let wanted = 1;

function powerOn(tdx_huge_page: boolean) {
  const random = new SeededRandom(new Uint8Array(32));
  const arena = new Arena({ residentBytes: 256 * MIB });
  const memoryBytes = 512 * MIB;
  const trace = new Trace();
  const memory = new MemoryController(arena, { dramBytes: LinuxHost.dramBytes(memoryBytes), random, trace });
  const engines = [new ProgramEngine({ programs: new Map([["bench", program]]) })];
  const processor = new Processor({ arena, memory, random, trace, engines });
  registerTdxFirmware(processor, trace);
  const firmware = { buildSeamldr: buildSeamldrAcm, module: buildModuleImage() };
  const host = LinuxHost.boot({ processor, memoryBytes, trace, firmware });
  return { kvm: new KvmProcess(host, { tdx_huge_page }), arena, trace };
}

function romImage(): Uint8Array {
  const rom = new Uint8Array(4 * PAGE_SIZE);
  const view = new DataView(rom.buffer);
  view.setBigUint64(PML4 - ROM, BigInt(PDPT) | 0x23n, true);
  for (let gib = 0; gib < 4; gib++)
    view.setBigUint64(PDPT - ROM + 8 * gib, BigInt(gib * 2 ** 30) | 0xe3n, true);
  rom.set(encodeProgramStub(-0xff0), rom.length - 16);
  rom.set(encodeProgramHeader("bench"), rom.length - PAGE_SIZE);
  return rom;
}

/** A TD from KVM_CREATE_VM to close. @returns ms of acceptance and of the end, and resident bytes in between */
function life({ kvm, arena }: ReturnType<typeof powerOn>) {
  const call = (fd: number, name: keyof typeof KvmIoctl, arg?: unknown): number => {
    const result = kvm.ioctl(fd, KvmIoctl[name], arg);
    if (result < 0) throw new Error(`${name}: ${result}`);
    return result;
  };
  const tdx = (fd: number, cmd: KvmTdxCmd) => call(fd, "KVM_MEMORY_ENCRYPT_OP", cmd);
  const system = kvm.openKvm();
  const vm = call(system, "KVM_CREATE_VM", KVM_X86_TDX_VM);
  call(vm, "KVM_ENABLE_CAP", { cap: KvmCap.KVM_CAP_SPLIT_IRQCHIP, flags: 0, args: [24n, 0n, 0n, 0n] });
  const none = { index: 0, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 };
  tdx(vm, {
    id: KvmTdxCmdId.KVM_TDX_INIT_VM,
    data: {
      attributes: 1n << 28n,
      xfam: 3n,
      mrconfigid: new Uint8Array(48),
      mrowner: new Uint8Array(48),
      mrownerconfig: new Uint8Array(48),
      cpuid: { nent: 1, entries: [{ ...none, function: 0x8000_0008, eax: 48 << 16 }] },
    },
  });
  const slots = [
    [0, MEMORY],
    [ROM, 4 * PAGE_SIZE],
  ].map(([gpa, size], slot) => {
    const mapping = kvm.mmap(size);
    const memfd = call(vm, "KVM_CREATE_GUEST_MEMFD", { size, flags: 0n });
    call(vm, "KVM_SET_USER_MEMORY_REGION2", {
      slot,
      flags: KVM_MEM_GUEST_MEMFD,
      guest_phys_addr: gpa,
      memory_size: size,
      userspace_addr: mapping.address,
      guest_memfd: memfd,
      guest_memfd_offset: 0,
    });
    const attributes = KVM_MEMORY_ATTRIBUTE_PRIVATE;
    call(vm, "KVM_SET_MEMORY_ATTRIBUTES", { address: gpa, size, attributes, flags: 0n });
    return { mapping, memfd };
  });
  const vcpu = call(vm, "KVM_CREATE_VCPU", 0);
  tdx(vcpu, { id: KvmTdxCmdId.KVM_TDX_INIT_VCPU, data: 0n });
  const source = kvm.mmap(4 * PAGE_SIZE);
  source.write(0, romImage());
  const data = { source_addr: source.address, gpa: ROM, nr_pages: 4 };
  tdx(vcpu, { id: KvmTdxCmdId.KVM_TDX_INIT_MEM_REGION, flags: 0, data });
  tdx(vm, { id: KvmTdxCmdId.KVM_TDX_FINALIZE_VM });
  const { frames } = arena;
  const start = performance.now();
  // KVM hands the processor back now and then.
  while (kvm.ioctl(vcpu, KvmIoctl.KVM_RUN) === -Errno.EINTR);
  const accepted = performance.now();
  const resident = (arena.frames - frames) * PAGE_SIZE;
  const end = performance.now();
  for (const fd of [vcpu, ...slots.map(({ memfd }) => memfd), vm, system]) kvm.close(fd);
  const closed = performance.now() - end;
  for (const { mapping } of slots) kvm.munmap(mapping);
  kvm.munmap(source);
  return { accept: accepted - start, close: closed, resident };
}

/** The least of several lives; SEAMCALLs are counted in one more. */
function measure(huge: boolean, level: number) {
  wanted = level;
  const host = powerOn(huge);
  const lives = Array.from({ length: ROUNDS }, () => life(host));
  let calls = 0;
  const unsubscribe = host.trace.subscribe((event) => {
    if (event.type === "SEAMCALL") calls++;
  });
  life(host);
  unsubscribe();
  const least = (of: (one: (typeof lives)[0]) => number) => Math.min(...lives.map(of));
  return {
    accept: least((one) => one.accept),
    close: least((one) => one.close),
    calls,
    resident: lives[0].resident,
  };
}

const rows = [
  ["the guest asks for 4 KiB", measure(true, 0)],
  ["it asks for 2 MiB, KVM maps 4 KiB (tdx_huge_page=N)", measure(false, 1)],
  ["it asks for 2 MiB and gets them", measure(true, 1)],
] as const;
const [[, base]] = rows;
console.log(`${MEMORY / MIB} MiB of a TD's memory: accepted, and given back`);
for (const [name, { accept, close, calls, resident }] of rows)
  console.log(
    `${name.padEnd(54)}${accept.toFixed(1).padStart(8)} ms (1/${(base.accept / accept).toFixed(1)})` +
      `${close.toFixed(1).padStart(9)} ms (1/${(base.close / close).toFixed(1)})` +
      `${String(calls).padStart(8)} SEAMCALLs, ${resident / 1024} KiB resident`,
  );
