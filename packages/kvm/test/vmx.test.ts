/** Ordinary VMs through the ioctls, by VMX instructions of the real processor. */
import {
  Errno,
  guest,
  type Guest,
  type GuestHandler,
  KvmExit,
  type KvmRegs,
  type KvmSregs,
} from "@swtdx/abi";
import { describe, expect, it } from "vitest";
import { powerOn, Td } from "./support/td.js";
import { EFER, PlainVm, realToLong } from "./support/vm.js";

const out = (value: number) => guest.out(0x80, 4, value);
const irq = (note: (vector: number) => void): ReadonlyMap<number, GuestHandler> =>
  new Map(
    [0x40, 0x41].map((vector) => [
      vector,
      function* () {
        note(vector);
        yield* guest.wrmsr(0x80b, 0n);
      },
    ]),
  );
/** To x2APIC mode, APIC software-enabled. */
function* enableX2apic(): Guest<void> {
  yield* guest.wrmsr(0x1b, (yield* guest.rdmsr(0x1b)) | 0x400n);
  yield* guest.wrmsr(0x80f, 0x1ffn);
}

describe("an ordinary VM", () => {
  it("starts at the reset vector, and its port I/O comes to user space", () => {
    const seen: number[] = [];
    const { kvm } = powerOn(function* () {
      yield* guest.out(0x3f8, 1, 0x41);
      seen.push(yield* guest.in(0x3f9, 1));
      seen.push(yield* guest.in(0x3fa, 2));
      yield* guest.hlt();
    });
    const vm = new PlainVm(kvm, { irqchip: false });
    expect(vm.exit()).toMatchObject({ reason: KvmExit.KVM_EXIT_IO, port: 0x3f8, value: 0x41 });
    expect(vm.exit()).toMatchObject({ port: 0x3f9 });
    vm.runs[0].setUint32(4096, 0x12345678, true);
    expect(vm.exit()).toMatchObject({ port: 0x3fa });
    vm.runs[0].setUint32(4096, 0x12345678, true);
    // Without a local APIC in the kernel user space waits.
    expect(vm.exit()).toEqual({ reason: KvmExit.KVM_EXIT_HLT });
    expect(seen).toEqual([0x78, 0x5678]);
    vm.close();
  });

  it("enters long mode; CPUID, MSRs and control registers are KVM's", () => {
    const seen: Record<string, unknown> = {};
    const { kvm } = powerOn(function* () {
      seen["cr0 at reset"] = yield* guest.readCr(0);
      yield* realToLong();
      seen["cr0"] = yield* guest.readCr(0);
      seen["cr4"] = yield* guest.readCr(4);
      seen["efer"] = yield* guest.rdmsr(EFER);
      const { ebx, ecx, edx } = yield* guest.cpuid(0x4000_0000);
      seen["hypervisor"] = String.fromCharCode(
        ...[ebx, ecx, edx].flatMap((word) => [0, 8, 16, 24].map((bit) => (word >> bit) & 255)),
      );
      seen["vmx"] = ((yield* guest.cpuid(1)).ecx >> 5) & 1;
      seen["osxsave"] = ((yield* guest.cpuid(1)).ecx >> 27) & 1;
      yield* guest.writeCr(4, (1n << 5n) | (1n << 18n));
      seen["osxsave on"] = ((yield* guest.cpuid(1)).ecx >> 27) & 1;
      yield* guest.wrmsr(0xc000_0082, 0xffff_8000_0000_1234n);
      yield* guest.wrmsr(0x277, 0x0606_0606_0606_0606n);
      seen["lstar"] = yield* guest.rdmsr(0xc000_0082);
      seen["pat"] = yield* guest.rdmsr(0x277);
      yield* guest.writeCr(8, 5n);
      seen["cr8"] = yield* guest.readCr(8);
      const faults: number[] = [];
      yield* guest.lidt(
        new Map([
          [
            13,
            function* (frame) {
              faults.push(frame.vector);
              frame.result = 0n;
              yield* guest.pause();
            },
          ],
        ]),
      );
      yield* guest.rdmsr(0x1234_5678);
      // No VMX for guests: CR4.VMXE.
      yield* guest.writeCr(4, (1n << 5n) | (1n << 13n));
      seen["faults"] = faults;
      yield* out(0);
    });
    const vm = new PlainVm(kvm);
    expect(vm.output()).toEqual([]);
    expect(seen).toEqual({
      "cr0 at reset": 0x6000_0010n,
      cr0: 0x8000_0011n,
      cr4: 0x20n,
      efer: 0x500n,
      hypervisor: "KVMKVMKVM\0\0\0",
      vmx: 0,
      osxsave: 0,
      "osxsave on": 1,
      lstar: 0xffff_8000_0000_1234n,
      pat: 0x0606_0606_0606_0606n,
      cr8: 5n,
      faults: [13, 13],
    });
    vm.close();
  });

  it("has RAM, ROM that writes do not reach, and MMIO", () => {
    const seen: bigint[] = [];
    const { kvm } = powerOn(function* () {
      yield* realToLong();
      yield* guest.store(0x5000n, 8, 0x1122_3344_5566_7788n);
      seen.push(yield* guest.load(0x5004n, 4));
      yield* guest.store(0xd000_0010n, 4, 0xcafen);
      seen.push(yield* guest.load(0xd000_0014n, 4));
      yield* guest.store(0xffff_f000n, 4, 1n);
      seen.push(yield* guest.load(0xffff_fff0n, 1));
      yield* out(0);
    });
    const vm = new PlainVm(kvm);
    expect(vm.exit()).toEqual({ reason: KvmExit.KVM_EXIT_MMIO, gpa: 0xd000_0010, value: 0xcafe });
    expect(vm.exit()).toMatchObject({ reason: KvmExit.KVM_EXIT_MMIO, gpa: 0xd000_0014 });
    vm.runs[0].setBigUint64(40, 0xdead_beefn, true);
    expect(vm.exit()).toEqual({ reason: KvmExit.KVM_EXIT_MMIO, gpa: 0xffff_f000, value: 1 });
    expect(vm.output()).toEqual([]);
    expect(seen).toEqual([0x1122_3344n, 0xdead_beefn, 0x0fn]);
    expect(new DataView(vm.ram.read(0x5000, 8).buffer).getBigUint64(0, true)).toBe(0x1122_3344_5566_7788n);
    // What user space discards the guest finds empty.
    vm.ram.discard(0x5000, 4096);
    vm.close();
  });

  it("sees memory that user space gave back as zeros: the EPT entry and its translation are gone", () => {
    const seen: bigint[] = [];
    const { kvm } = powerOn(function* () {
      yield* realToLong();
      yield* guest.store(0x6000n, 8, 7n);
      yield* out(0);
      seen.push(yield* guest.load(0x6000n, 8));
      yield* out(0);
    });
    const vm = new PlainVm(kvm);
    vm.output();
    vm.ram.discard(0x6000, 4096);
    vm.output();
    expect(seen).toEqual([0n]);
    vm.close();
  });

  it("wakes from HLT by its timer, takes IPIs to itself and MSIs", () => {
    const vectors: number[] = [];
    const { kvm } = powerOn(function* () {
      yield* realToLong();
      yield* enableX2apic();
      yield* guest.lidt(irq((vector) => vectors.push(vector)));
      yield* guest.wrmsr(0x832, 0x40n); // one shot
      yield* guest.wrmsr(0x838, 100_000n);
      yield* guest.sti();
      yield* guest.hlt();
      yield* out(1);
      // TSC deadline.
      yield* guest.wrmsr(0x832, 0x4_0041n);
      yield* guest.wrmsr(0x6e0, (yield* guest.rdtsc()) + 1_000_000n);
      yield* guest.hlt();
      yield* out(2);
      yield* guest.wrmsr(0x830, 0x4_0040n); // to self
      yield* out(0);
      yield* guest.hlt();
      yield* out(0);
    });
    const vm = new PlainVm(kvm);
    expect(vm.output()).toEqual([1, 2]);
    expect(vectors).toEqual([0x40, 0x41, 0x40]);
    vm.runUntilHalted();
    const msi = { address_lo: 0xfee0_0000, address_hi: 0, data: 0x41, flags: 0, devid: 0 };
    expect(vm.ok(vm.vm, "KVM_SIGNAL_MSI", msi)).toBe(1);
    expect(vm.output()).toEqual([]);
    expect(vectors).toEqual([0x40, 0x41, 0x40, 0x41]);
    vm.close();
  });

  it("has an xAPIC page until it switches to x2APIC", () => {
    const seen: unknown[] = [];
    const { kvm } = powerOn(function* () {
      yield* realToLong();
      yield* guest.lidt(
        new Map([
          [
            0x41,
            function* () {
              // In service (ISR), then no more.
              seen.push(yield* guest.load(0xfee0_0120n, 4));
              yield* guest.store(0xfee0_00b0n, 4, 0n);
              seen.push(yield* guest.load(0xfee0_0120n, 4));
            },
          ],
        ]),
      );
      seen.push(yield* guest.load(0xfee0_0030n, 4));
      yield* guest.store(0xfee0_00f0n, 4, 0x1ffn);
      yield* guest.store(0xfee0_0300n, 4, 0x4_0041n);
      yield* guest.sti();
      yield* guest.pause();
      yield* out(0);
    });
    const vm = new PlainVm(kvm);
    vm.output();
    expect(seen).toEqual([0x5_0014n, 2n, 0n]);
    vm.close();
  });

  it("starts its other processors by INIT and start-up", () => {
    const ids: number[] = [];
    const { kvm } = powerOn(
      function* () {
        // The same program on both: told apart by where it runs.
        const bsp = ((yield* guest.rdmsr(0x1b)) & 0x100n) !== 0n;
        if (!bsp) {
          ids.push(2);
          yield* out(2);
          for (;;) yield* guest.hlt();
        }
        yield* realToLong();
        yield* enableX2apic();
        yield* guest.wrmsr(0x830, (1n << 32n) | 0x4500n);
        yield* guest.wrmsr(0x830, (1n << 32n) | 0x4608n);
        for (let i = 0; i < 20_000; i++) yield* guest.pause();
        yield* out(0);
      },
      { lps: 2 },
    );
    const vm = new PlainVm(kvm, { vcpus: 2 });
    vm.putStub(8);
    expect(vm.output()).toEqual([2]);
    expect(ids).toEqual([2]);
    vm.close();
  });

  it("gives and takes registers", () => {
    const { kvm } = powerOn(function* () {
      yield* out(0);
      yield* guest.hlt();
    });
    const vm = new PlainVm(kvm, { irqchip: false });
    const regs = {} as KvmRegs;
    const sregs = {} as KvmSregs;
    vm.ok(vm.vcpus[0], "KVM_GET_REGS", regs);
    vm.ok(vm.vcpus[0], "KVM_GET_SREGS", sregs);
    expect(regs.rip).toBe(0xfff0n);
    expect(sregs.cs).toMatchObject({ base: 0xffff_0000n, selector: 0xf000, limit: 0xffff });
    vm.ok(vm.vcpus[0], "KVM_SET_REGS", { ...regs, rbx: 0x1234n });
    vm.ok(vm.vcpus[0], "KVM_SET_SREGS", sregs);
    vm.output();
    vm.ok(vm.vcpus[0], "KVM_GET_REGS", regs);
    expect(regs.rbx).toBe(0x1234n);
    const bad = kvm.ioctl(vm.vcpus[0], 0x4138ae84, { ...sregs, cr0: 0x8000_0000n });
    expect(bad).toBe(-Errno.EINVAL);
    const msrs = {
      entries: [
        { index: 0xc000_0081, data: 5n },
        { index: 0x277, data: 1n },
        { index: 0x277, data: 2n },
      ],
    };
    // PAT type 2 is reserved.
    expect(vm.ok(vm.vcpus[0], "KVM_SET_MSRS", msrs)).toBe(2);
    vm.close();
  });

  it("shuts down on a triple fault", () => {
    const { kvm } = powerOn(function* () {
      yield* realToLong();
      yield* guest.ud2();
    });
    const vm = new PlainVm(kvm);
    expect(vm.exit()).toEqual({ reason: KvmExit.KVM_EXIT_SHUTDOWN });
    vm.close();
  });

  it("leaves nothing behind, beside a TD", () => {
    const { kvm, host } = powerOn(function* () {
      yield* out(0);
    });
    const usage = () => [host.pages.freePageCount, host.pages.usage()];
    const before = usage();
    for (let i = 0; i < 10; i++) {
      const td = new Td(kvm);
      const vm = new PlainVm(kvm, { vcpus: 2 });
      vm.output();
      td.close();
      vm.close();
    }
    expect(usage()).toEqual(before);
  });
});
