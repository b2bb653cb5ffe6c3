/** Private memory that is user memory, unmapped from user space while it is the guest's (tdx_unmap_user). */
import { Errno, guest, type Guest, KvmExit, KvmIoctl, KvmTdxCmdId, PAGE_SIZE } from "@swtdx/abi";
import { HostMemoryFault } from "@swtdx/linux-host";
import { describe, expect, it } from "vitest";
import { accept, longMode, powerOn, say, SHARED_ALIAS, Td, vmcall } from "./support/td.js";

const BUFFER = 0x20_0000;
const OTHER = 0x40_0000;
/** Where a guest has a page of another's user memory. */
const LENT = 2 ** 30;
const SHARED_BIT = 1n << 47n;
const MAP_GPA = 0x10001n;

function* program(): Guest<void> {
  yield* longMode();
  yield* accept(BUFFER);
  yield* guest.store(BigInt(BUFFER), 8, 0x5ec7e7n);
  yield* say(Number(yield* guest.load(BigInt(BUFFER), 8)));
  yield* say(0);
  yield* vmcall(MAP_GPA, BigInt(BUFFER) | SHARED_BIT, 4096n);
  yield* say(1 + Number(yield* guest.load(SHARED_ALIAS + BigInt(BUFFER), 8)));
  yield* guest.store(SHARED_ALIAS + BigInt(BUFFER), 8, 0x1234n);
  yield* say(0);
  yield* vmcall(MAP_GPA, BigInt(BUFFER), 4096n);
  yield* accept(BUFFER);
  yield* say(1 + Number(yield* guest.load(BigInt(BUFFER), 8)));
  yield* say(0);
  yield* guest.load(BigInt(BUFFER), 8);
  for (;;) yield* guest.pause();
}

/** Gives `to` a slot with the user memory of the buffer. */
function lend(from: Td, to: Td): void {
  const slot = {
    slot: 9,
    flags: 0,
    guest_phys_addr: LENT,
    memory_size: PAGE_SIZE,
    userspace_addr: from.ram.address + BUFFER,
    guest_memfd: 0,
    guest_memfd_offset: 0,
  };
  expect(to.kvm.ioctl(to.vm, KvmIoctl.KVM_SET_USER_MEMORY_REGION2, slot)).toBe(0);
}

describe("unmapped user memory", () => {
  it("is out of user space's reach while it is private, and its again when it is shared", () => {
    const { kvm } = powerOn(program, { tdx_unmap_user: true });
    const td = new Td(kvm, { memfd: false });
    // Before the guest has it, it is memory like any other.
    td.ram.write(BUFFER, new Uint8Array([1, 2, 3]));
    td.finalize();
    expect(td.output()).toEqual([0x5ec7e7]);
    expect(() => td.ram.read(BUFFER, 1)).toThrow(HostMemoryFault);
    expect(() => td.ram.write(BUFFER + 100, new Uint8Array(1))).toThrow(HostMemoryFault);
    expect(() => td.ram.read(BUFFER - 8, 16)).toThrow(HostMemoryFault);
    td.ram.write(OTHER, new Uint8Array([7]));
    // No whole page is dropped by this.
    td.ram.discard(BUFFER - 100, PAGE_SIZE);
    expect(() => td.ram.read(BUFFER, 1)).toThrow(HostMemoryFault);
    // Shared: the same page, with nothing of the guest's in it.
    expect(td.output()).toEqual([1]);
    expect(td.ram.read(BUFFER, 2)).toEqual(new Uint8Array([0x34, 0x12]));
    // Private again, with nothing of user space's in it.
    expect(td.output()).toEqual([1]);
    expect(() => td.ram.read(BUFFER, 1)).toThrow(HostMemoryFault);
    td.close();
  });

  it("cannot be measured from or lent to another guest while it is one's", () => {
    const { kvm } = powerOn(program, { tdx_unmap_user: true });
    const td = new Td(kvm, { memfd: false }).finalize();
    td.output();
    const other = new Td(kvm, { memfd: false });
    const region = { source_addr: td.ram.address + BUFFER, gpa: 0, nr_pages: 1 };
    const add = { id: KvmTdxCmdId.KVM_TDX_INIT_MEM_REGION, flags: 0, data: region };
    expect(kvm.ioctl(other.vcpu, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, add)).toBe(-Errno.EFAULT);
    // Nor be another's slot: that one gets nothing, and takes nothing away when it goes.
    lend(td, other);
    other.setPrivate(LENT, PAGE_SIZE, true);
    const own = { source_addr: other.ram.address, gpa: LENT, nr_pages: 1 };
    expect(kvm.ioctl(other.vcpu, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, { ...add, data: own })).toBe(-Errno.EFAULT);
    other.close();
    expect(() => td.ram.read(BUFFER, 1)).toThrow(HostMemoryFault);
    td.output();
    td.close();
  });

  it("can be added where it lies", () => {
    const { kvm, host } = powerOn(
      function* () {
        yield* longMode();
        yield* say(Number(yield* guest.load(BigInt(OTHER), 8)));
        yield* say(0);
      },
      { tdx_unmap_user: true },
    );
    const before = host.pages.usage();
    const td = new Td(kvm, { memfd: false });
    td.ram.write(OTHER, new Uint8Array([0x34, 0x12]));
    td.setPrivate(OTHER, PAGE_SIZE, true);
    const region = { source_addr: td.ram.address + OTHER, gpa: OTHER, nr_pages: 1 };
    const add = { id: KvmTdxCmdId.KVM_TDX_INIT_MEM_REGION, flags: 0, data: region };
    expect(kvm.ioctl(td.vcpu, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, add)).toBe(0);
    expect(td.finalize().output()).toEqual([0x1234]);
    expect(() => td.ram.read(OTHER, 1)).toThrow(HostMemoryFault);
    td.close();
    expect(host.pages.usage()).toEqual(before);
  });

  it("is a failure of KVM_RUN where it is shared memory of another guest", () => {
    const { kvm } = powerOn(
      function* () {
        yield* longMode();
        yield* accept(BUFFER);
        yield* say(0);
        yield* guest.load(SHARED_ALIAS + BigInt(LENT), 8);
      },
      { tdx_unmap_user: true },
    );
    const td = new Td(kvm, { memfd: false }).finalize();
    const other = new Td(kvm, { memfd: false });
    lend(td, other);
    other.finalize().output();
    td.output();
    expect(other.exit()).toBe(-Errno.EFAULT);
    expect(other.last.getUint32(8, true)).toBe(KvmExit.KVM_EXIT_UNKNOWN);
    other.close();
    td.close();
  });

  it("goes from other guests that have it mapped", () => {
    const { kvm } = powerOn(
      function* () {
        yield* longMode();
        for (;;) {
          yield* say(1 + Number(yield* guest.load(SHARED_ALIAS + BigInt(LENT), 1)));
          yield* say(0);
        }
      },
      { tdx_unmap_user: true },
    );
    const other = new Td(kvm, { memfd: false });
    const td = new Td(kvm, { memfd: false });
    lend(td, other);
    td.ram.write(BUFFER, new Uint8Array([5]));
    expect(other.finalize().output()).toEqual([6]);
    // The page becomes the first one's by being measured.
    const region = { source_addr: td.ram.address + BUFFER, gpa: BUFFER, nr_pages: 1 };
    const add = { id: KvmTdxCmdId.KVM_TDX_INIT_MEM_REGION, flags: 0, data: region };
    expect(kvm.ioctl(td.vcpu, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, add)).toBe(0);
    expect(other.exit()).toBe(-Errno.EFAULT);
    other.close();
    td.close();
  });

  it("is lost to the guest when user space drops it, and all comes back in the end", () => {
    const { kvm, host } = powerOn(program, { tdx_unmap_user: true });
    const before = host.pages.usage();
    const td = new Td(kvm, { memfd: false }).finalize();
    for (let i = 0; i < 3; i++) td.output();
    td.ram.discard(BUFFER, PAGE_SIZE);
    expect(td.ram.read(BUFFER, 1)).toEqual(new Uint8Array(1));
    // The guest gets a page that it has not accepted, and KVM gives it up.
    expect(td.exit()).toBe(-Errno.EIO);
    td.close();
    expect(host.pages.usage()).toEqual(before);
    expect(host.tdx!.guestKeyIds.inUse).toBe(0);
  });

  it("is not there without the parameter", () => {
    const { kvm } = powerOn(program);
    const td = new Td(kvm, { memfd: false });
    expect(td.addRom()).toBe(-Errno.EINVAL);
    td.close();
  });
});
