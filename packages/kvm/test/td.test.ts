/** The life of a TD through the ioctls, on the real host, module and processor. */
import {
  Errno,
  guest,
  type Guest,
  type Hpa,
  type HpaAndKeyId,
  KVM_X86_DEFAULT_VM,
  KVM_X86_TDX_VM,
  KvmIoctl,
  KvmTdxCmdId,
  PAGE_SIZE,
} from "@swtdx/abi";
import { describe, expect, it } from "vitest";
import { accept, longMode, powerOn, RAM_SIZE, say, SHARED_ALIAS, Td, vmcall } from "./support/td.js";

const BUFFER = 0x10_0000;
const SECRET = "the secret of this trust domain!";

function* program(): Guest<void> {
  yield* longMode();
  yield* say(1);
  if ((yield* accept(BUFFER)) !== 0n) yield* say(99);
  yield* guest.storeBytes(BigInt(BUFFER), new TextEncoder().encode(SECRET));
  yield* say(2);
  yield* say(0);
  // To shared and back: what was there is gone.
  yield* vmcall(0x10001n, BigInt(BUFFER) | (1n << 47n), 4096n);
  yield* guest.store(SHARED_ALIAS + BigInt(BUFFER), 4, 0x1234n);
  yield* say(3);
  yield* say(0);
  yield* vmcall(0x10001n, BigInt(BUFFER), 4096n);
  yield* say((yield* accept(BUFFER)) === 0n ? 4 : 98);
  yield* say((yield* guest.load(BigInt(BUFFER), 8)) === 0n ? 5 : 97);
  yield* say(0);
  for (;;) yield* guest.pause();
}

/** All of DRAM as the DIMMs hold it, searched for `text`. */
function onDimm(memory: ReturnType<typeof powerOn>["memory"], text: string): boolean {
  const needle = Buffer.from(text);
  return memory
    .residentFrames()
    .some((frame) => Buffer.from(memory.probe((frame * PAGE_SIZE) as Hpa, PAGE_SIZE)).includes(needle));
}

describe("a TD", () => {
  it("runs: private memory, shared memory, and what user space sees of either", () => {
    const { kvm, memory } = powerOn(program);
    const td = new Td(kvm).finalize();
    expect(td.output()).toEqual([1, 2]);
    // Private memory: nothing on the DIMM, nothing in user space's mapping.
    expect(onDimm(memory, SECRET)).toBe(false);
    expect(Buffer.from(td.ram.read(BUFFER, 64)).every((byte) => byte === 0)).toBe(true);
    expect(td.output()).toEqual([3]);
    expect(Buffer.from(td.ram.read(BUFFER, 4)).readUInt32LE()).toBe(0x1234);
    expect(td.output()).toEqual([4, 5]);
    td.close();
  });

  it("shows its secret to nobody: the host reads what is not its own, and the DIMMs hold ciphertext", () => {
    const { kvm, host, memory } = powerOn(program);
    const td = new Td(kvm).finalize();
    td.output();
    const lp = host.lps[0];
    const page = new Uint8Array(PAGE_SIZE);
    const seen = (text: string) =>
      memory.residentFrames().filter((frame) => {
        lp.memRead((frame * PAGE_SIZE) as HpaAndKeyId, page);
        return Buffer.from(page).includes(text);
      });
    expect(seen(SECRET)).toEqual([]);
    expect(onDimm(memory, SECRET)).toBe(false);
    // What the host may read, this search does find.
    td.ram.write(PAGE_SIZE, new TextEncoder().encode(SECRET));
    expect(seen(SECRET)).toHaveLength(1);
    td.close();
  });

  it("leaves nothing behind, a hundred times", () => {
    const { kvm, host } = powerOn(program);
    const usage = () => [host.pages.freePageCount, host.tdx!.guestKeyIds.inUse, host.pages.usage()];
    const life = (finalize: boolean) => {
      const td = new Td(kvm);
      if (finalize) expect(td.finalize().output()).toEqual([1, 2]);
      td.close();
    };
    const before = usage();
    for (let i = 0; i < 100; i++) life(i % 10 !== 9);
    expect(usage()).toEqual(before);
  });

  it("can be closed at any step", () => {
    const { kvm, host } = powerOn(program);
    const free = host.pages.freePageCount;
    const system = kvm.openKvm();
    kvm.close(kvm.ioctl(system, KvmIoctl.KVM_CREATE_VM, KVM_X86_TDX_VM));
    const td = new Td(kvm);
    td.addRom();
    td.close();
    expect(host.pages.freePageCount).toBe(free);
  });
});

describe("ioctls out of order or with bad arguments", () => {
  const create = (kvm: ReturnType<typeof powerOn>["kvm"]) =>
    kvm.ioctl(kvm.openKvm(), KvmIoctl.KVM_CREATE_VM, KVM_X86_TDX_VM);

  it("fail with the kernel's errno", () => {
    const { kvm } = powerOn();
    const vm = create(kvm);
    const { ioctl } = { ioctl: kvm.ioctl.bind(kvm) };
    expect(ioctl(999, KvmIoctl.KVM_RUN)).toBe(-Errno.EBADF);
    expect(ioctl(kvm.openKvm(), KvmIoctl.KVM_CREATE_VM, KVM_X86_DEFAULT_VM + 99)).toBe(-Errno.EINVAL);
    // No vCPU before KVM_TDX_INIT_VM.
    expect(ioctl(vm, KvmIoctl.KVM_CREATE_VCPU, 0)).toBe(-Errno.EIO);
    const finalize = { id: KvmTdxCmdId.KVM_TDX_FINALIZE_VM } as const;
    expect(ioctl(vm, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, finalize)).toBe(-Errno.EINVAL);
    expect(ioctl(vm, KvmIoctl.KVM_CREATE_GUEST_MEMFD, { size: 4095, flags: 0n })).toBe(-Errno.EINVAL);
    const td = new Td(kvm);
    const again = { id: KvmTdxCmdId.KVM_TDX_INIT_VM, data: td.parameters() } as const;
    expect(ioctl(td.vm, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, again)).toBe(-Errno.EINVAL);
    expect(ioctl(td.vm, KvmIoctl.KVM_CREATE_VCPU, 0)).toBe(-Errno.EEXIST);
    expect(ioctl(td.vcpu, KvmIoctl.KVM_GET_REGS, {})).toBe(-Errno.EINVAL);
    td.finalize();
    expect(td.addRom()).toBe(-Errno.EINVAL);
    expect(ioctl(td.vm, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, finalize)).toBe(-Errno.EINVAL);
    td.close();
    kvm.close(vm);
  });

  it("refuse a TD_PARAMS that the module refuses", () => {
    const { kvm } = powerOn();
    const good = new Td(kvm);
    const parameters = good.parameters();
    const vm = create(kvm);
    for (const bad of [
      { ...parameters, attributes: 1n << 63n },
      { ...parameters, xfam: 0n },
      { ...parameters, cpuid: { nent: 0, entries: [] } },
    ]) {
      const cmd = { id: KvmTdxCmdId.KVM_TDX_INIT_VM, data: bad } as const;
      expect(kvm.ioctl(vm, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, cmd)).toBe(-Errno.EINVAL);
    }
    good.close();
    kvm.close(vm);
  });

  it("a vCPU that is not finalized does not run", () => {
    const { kvm } = powerOn(program);
    const td = new Td(kvm);
    expect(td.exit()).toBeLessThan(0);
    td.close();
  });

  it("the same page twice: EEXIST", () => {
    const { kvm } = powerOn(program);
    const td = new Td(kvm);
    expect(td.addRom()).toBe(0);
    expect(td.addRom()).toBe(-Errno.EEXIST);
    td.close();
  });

  it("guest memory stays within its bounds", () => {
    const { kvm } = powerOn();
    const td = new Td(kvm);
    const slot = { slot: 7, flags: 0, guest_memfd: 0, guest_memfd_offset: 0, userspace_addr: td.ram.address };
    const set = (guest_phys_addr: number, memory_size: number) =>
      kvm.ioctl(td.vm, KvmIoctl.KVM_SET_USER_MEMORY_REGION2, { ...slot, guest_phys_addr, memory_size });
    expect(set(0, PAGE_SIZE)).toBe(-Errno.EEXIST);
    expect(set(1, PAGE_SIZE)).toBe(-Errno.EINVAL);
    expect(set(2 ** 52, PAGE_SIZE)).toBe(-Errno.EINVAL);
    expect(set(2 ** 33, RAM_SIZE + PAGE_SIZE)).toBe(-Errno.EFAULT);
    td.close();
  });
});
