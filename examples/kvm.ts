/** A TD by the ioctls of /dev/kvm, without QEMU: one measured page below 4 GiB, whose program says hello to a port. */
import {
  encodeProgramHeader,
  encodeProgramStub,
  guest,
  type Guest,
  KVM_MEM_GUEST_MEMFD,
  KVM_MEMORY_ATTRIBUTE_PRIVATE,
  KVM_TDX_MEASURE_MEMORY_REGION,
  KVM_X86_TDX_VM,
  KvmCap,
  KvmIoctl,
  KvmTdxCmdId,
  Trace,
} from "@swtdx/abi";
import { Processor, ProgramEngine } from "@swtdx/cpu";
import { SeededRandom } from "@swtdx/crypto";
import { openKvm } from "@swtdx/kvm";
import { LinuxHost } from "@swtdx/linux-host";
import { Arena, MemoryController } from "@swtdx/mktme";
import { buildModuleImage, buildSeamldrAcm, registerTdxFirmware } from "@swtdx/tdx-module";

/** TDCALL needs 64-bit mode; page tables stand in the first two pages. Then TDG.VP.VMCALL <Instruction.IO>. */
function* hello(): Guest<void> {
  yield* guest.writeCr(3, BigInt(ROM));
  yield* guest.writeCr(4, (yield* guest.readCr(4)) | (1n << 5n));
  yield* guest.writeCr(0, (yield* guest.readCr(0)) | (1n << 31n));
  yield* guest.ljmp64();
  for (const letter of new TextEncoder().encode("Hello from a TD\n"))
    yield* guest.tdcall({
      rax: 0n,
      rcx: 0xfc00n,
      r10: 0n,
      r11: 30n,
      r12: 1n,
      r13: 1n,
      r14: 0x3f8n,
      r15: BigInt(letter),
    });
}
const PAGES = 3;
const ROM = 2 ** 32 - PAGES * 4096;
const rom = new Uint8Array(PAGES * 4096);
const view = new DataView(rom.buffer);
view.setBigUint64(0, BigInt(ROM + 4096) | 0x23n, true);
for (let gib = 0; gib < 4; gib++) view.setBigUint64(4096 + 8 * gib, BigInt(gib * 2 ** 30) | 0xe3n, true);
rom.set(encodeProgramHeader("hello"), 2 * 4096);
rom.set(encodeProgramStub(-0xff0), rom.length - 16);

// The host.
const trace = new Trace();
const random = new SeededRandom(new Uint8Array(32));
const arena = new Arena({ residentBytes: 64 * 2 ** 20 });
const memoryBytes = 2 ** 29;
const memory = new MemoryController(arena, { dramBytes: LinuxHost.dramBytes(memoryBytes), random, trace });
const engines = [new ProgramEngine({ programs: new Map([["hello", hello]]) })];
const processor = new Processor({ arena, memory, random, trace, engines });
registerTdxFirmware(processor, trace);
const firmware = { buildSeamldr: buildSeamldrAcm, module: buildModuleImage() };
const host = LinuxHost.boot({ processor, memoryBytes, trace, firmware });

// The VMM.
const kvm = openKvm(host);
const ioctl = (fd: number, name: keyof typeof KvmIoctl, arg?: unknown): number => {
  const result = kvm.ioctl(fd, KvmIoctl[name], arg);
  if (result < 0) throw new Error(`${name}: errno ${-result}`);
  return result;
};
const free = host.pages.freePageCount;
const system = kvm.openKvm();
const vm = ioctl(system, "KVM_CREATE_VM", KVM_X86_TDX_VM);
ioctl(vm, "KVM_ENABLE_CAP", { cap: KvmCap.KVM_CAP_SPLIT_IRQCHIP, args: [24n] });
const cpuid = {
  nent: 1,
  entries: [{ function: 0x8000_0008, index: 0, flags: 0, eax: 48 << 16, ebx: 0, ecx: 0, edx: 0 }],
};
const none = new Uint8Array(48);
ioctl(vm, "KVM_MEMORY_ENCRYPT_OP", {
  id: KvmTdxCmdId.KVM_TDX_INIT_VM,
  data: { attributes: 0n, xfam: 3n, mrconfigid: none, mrowner: none, mrownerconfig: none, cpuid },
});
const source = kvm.mmap(rom.length);
source.write(0, rom);
const guest_memfd = ioctl(vm, "KVM_CREATE_GUEST_MEMFD", { size: rom.length, flags: 0n });
ioctl(vm, "KVM_SET_USER_MEMORY_REGION2", {
  slot: 0,
  flags: KVM_MEM_GUEST_MEMFD,
  guest_phys_addr: ROM,
  memory_size: rom.length,
  userspace_addr: source.address,
  guest_memfd,
  guest_memfd_offset: 0,
});
ioctl(vm, "KVM_SET_MEMORY_ATTRIBUTES", {
  address: ROM,
  size: rom.length,
  attributes: KVM_MEMORY_ATTRIBUTE_PRIVATE,
  flags: 0n,
});
const vcpu = ioctl(vm, "KVM_CREATE_VCPU", 0);
const run = kvm.mmapVcpu(vcpu);
ioctl(vcpu, "KVM_MEMORY_ENCRYPT_OP", { id: KvmTdxCmdId.KVM_TDX_INIT_VCPU, data: 0n });
ioctl(vcpu, "KVM_MEMORY_ENCRYPT_OP", {
  id: KvmTdxCmdId.KVM_TDX_INIT_MEM_REGION,
  flags: KVM_TDX_MEASURE_MEMORY_REGION,
  data: { source_addr: source.address, gpa: ROM, nr_pages: PAGES },
});
ioctl(vm, "KVM_MEMORY_ENCRYPT_OP", { id: KvmTdxCmdId.KVM_TDX_FINALIZE_VM });

let text = "";
while (!text.endsWith("\n")) {
  ioctl(vcpu, "KVM_RUN");
  // KVM_EXIT_IO: its byte stands in the page behind kvm_run.
  text += String.fromCharCode(run[4096]);
}
console.log(text.trim());
for (const fd of [vcpu, guest_memfd, vm, system]) kvm.close(fd);
kvm.munmap(source);
console.log(`pages that the TD left behind: ${free - host.pages.freePageCount}`);
