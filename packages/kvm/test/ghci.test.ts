/** TDG.VP.VMCALL as a TD makes it, and what KVM and user space make of it. */
import {
  Errno,
  guest,
  type Guest,
  type GuestHandler,
  KvmExit,
  KvmIoctl,
  type KvmCpuid2,
  KvmTdxCmdId,
} from "@swtdx/abi";
import { describe, expect, it } from "vitest";
import { accept, longMode, powerOn, say, SHARED_ALIAS, Td, vmcall, vmcallRegs } from "./support/td.js";

const INVALID_OPERAND = 0x8000_0000_0000_0000n;
const ALIGN_ERROR = 0x8000_0000_0000_0002n;
const UNSUPPORTED = 0x8000_0000_0000_0003n;
const SHARED = 1n << 47n;
const MSR_READ = 31n;
const MSR_WRITE = 32n;
const X2APIC = { ID: 0x802n, ICR: 0x830n, LVTT: 0x832n, TMICT: 0x838n } as const;

function* rdmsr(index: bigint): Guest<bigint | null> {
  const { r10, r11 } = yield* vmcallRegs(MSR_READ, index);
  return r10 === 0n ? r11 : null;
}
const wrmsr = (index: bigint, value: bigint) => vmcall(MSR_WRITE, index, value);

/** Runs `body` in 64-bit mode to its end. */
function run(body: () => Guest<void>) {
  const { kvm, host } = powerOn(function* () {
    yield* longMode();
    yield* body();
    yield* say(0);
  });
  return { kvm, host, td: new Td(kvm).finalize() };
}

describe("TDG.VP.VMCALL", () => {
  it("checks operands before anybody else sees them", () => {
    const seen: bigint[] = [];
    const { td } = run(function* () {
      seen.push(yield* vmcall(30n, 3n, 0n, 0x80n)); // IO of 3 bytes
      seen.push(yield* vmcall(30n, 1n, 2n, 0x80n)); // direction
      seen.push(yield* vmcall(48n, 16n, 0n, SHARED)); // MMIO of 16 bytes
      seen.push(yield* vmcall(48n, 4n, 0n, 0xd000_0000n)); // MMIO at a private GPA
      seen.push(yield* vmcall(0x10001n, 0x1001n | SHARED, 4096n)); // MapGPA alignment
      seen.push(yield* vmcall(0x10001n, 0x1000n, 0n)); // no size
      seen.push(yield* vmcall(0x10002n, 0x1000n, 4096n)); // GetQuote of private memory
      seen.push(yield* vmcall(0x10004n, 31n)); // vector of an exception
      seen.push(yield* vmcall(0x10000n, 7n));
      seen.push(yield* vmcall(0x7777n));
      seen.push(yield* vmcall(0x1_0000_0000n));
    });
    td.output();
    expect(seen.slice(0, 4)).toEqual(Array(4).fill(INVALID_OPERAND));
    expect(seen.slice(4)).toEqual([
      ALIGN_ERROR,
      INVALID_OPERAND,
      INVALID_OPERAND,
      INVALID_OPERAND,
      INVALID_OPERAND,
      UNSUPPORTED,
      UNSUPPORTED,
    ]);
    td.close();
  });

  it("port and memory-mapped I/O get user space's answer", () => {
    const seen: bigint[] = [];
    const { td } = run(function* () {
      const io = yield* vmcallRegs(30n, 2n, 0n, 0x1234n);
      seen.push(io.r10, io.r11);
      const mmio = yield* vmcallRegs(48n, 4n, 0n, 0xd000_0010n | SHARED);
      seen.push(mmio.r10, mmio.r11);
      yield* vmcall(48n, 8n, 1n, 0xd000_0018n | SHARED, 0x1122_3344_5566_7788n);
    });
    expect(td.exit()).toBe(KvmExit.KVM_EXIT_IO);
    expect([td.last.getUint8(32), td.last.getUint8(33), td.last.getUint16(34, true)]).toEqual([0, 2, 0x1234]);
    td.last.setUint32(4096, 0xaabb_ccdd, true);
    expect(td.exit()).toBe(KvmExit.KVM_EXIT_MMIO);
    expect(td.last.getBigUint64(32, true)).toBe(0xd000_0010n);
    td.last.setBigUint64(40, 0x1111_2222_3333_4444n, true);
    expect(td.exit()).toBe(KvmExit.KVM_EXIT_MMIO);
    expect(td.last.getBigUint64(40, true)).toBe(0x1122_3344_5566_7788n);
    expect([td.last.getUint32(48, true), td.last.getUint8(52)]).toEqual([8, 1]);
    expect(td.output()).toEqual([]);
    expect(seen).toEqual([0n, 0xccddn, 0n, 0x3333_4444n]);
    td.close();
  });

  it("an access to MMIO is a #VE in the guest, at once the second time", () => {
    const reasons: bigint[] = [];
    const ve: GuestHandler = function* (frame) {
      const info = yield* guest.tdcall({ rax: 3n });
      reasons.push(info.rcx, info.r9);
      frame.result = 5n;
    };
    const seen: bigint[] = [];
    const { td } = run(function* () {
      yield* guest.lidt(new Map([[20, ve]]));
      seen.push(yield* guest.load(SHARED_ALIAS + 0xd000_0000n, 4));
      seen.push(yield* guest.load(SHARED_ALIAS + 0xd000_0004n, 4));
    });
    td.output();
    expect(seen).toEqual([5n, 5n]);
    expect(reasons).toEqual([48n, 0xd000_0000n | SHARED, 48n, 0xd000_0004n | SHARED]);
    td.close();
  });

  it("MSRs: those that KVM emulates, and no others", () => {
    const seen: (bigint | null)[] = [];
    const { td } = run(function* () {
      seen.push(yield* rdmsr(0x1bn), yield* rdmsr(X2APIC.ID), yield* rdmsr(0xfen));
      seen.push(yield* wrmsr(0x1bn, 0n), yield* wrmsr(0x3an, 0n), yield* wrmsr(0x4b56_4d05n, 0n));
      seen.push(yield* rdmsr(0x4b56_4d05n), yield* rdmsr(0x1234_5678n), yield* rdmsr(0x808n));
      seen.push(yield* rdmsr(1n << 40n));
    });
    td.output();
    expect(seen).toEqual([
      0xfee0_0d00n,
      0n,
      0x508n,
      INVALID_OPERAND,
      INVALID_OPERAND,
      0n,
      0n,
      null,
      null,
      null,
    ]);
    td.close();
  });

  it("HLT ends with an interrupt, which the guest takes", () => {
    const vectors: number[] = [];
    const handler: GuestHandler = function* (frame) {
      vectors.push(frame.vector);
      yield* guest.wrmsr(0x80b, 0n);
    };
    const { td } = run(function* () {
      yield* guest.lidt(new Map([[0x40, handler]]));
      yield* wrmsr(0x80fn, 0x1ffn);
      yield* wrmsr(X2APIC.LVTT, 0x40n);
      yield* guest.sti();
      yield* wrmsr(X2APIC.TMICT, 1_000_000n);
      yield* vmcall(12n, 0n);
      yield* guest.pause();
      yield* say(vectors.length);
    });
    expect(td.output()).toEqual([1]);
    expect(vectors).toEqual([0x40]);
    td.close();
  });

  it("MapGPA of much memory is handed over in pieces of 2 MiB", () => {
    const status: bigint[] = [];
    const { td } = run(function* () {
      status.push(yield* vmcall(0x10001n, 0x10_0000n | SHARED, 5n * 2n ** 20n));
      status.push(yield* vmcall(0x10001n, 0x10_0000n | SHARED, 4096n));
    });
    const pieces: [number, number, number][] = [];
    for (let i = 0; i < 3; i++) {
      expect(td.exit()).toBe(KvmExit.KVM_EXIT_HYPERCALL);
      const word = (n: number) => Number(td.last.getBigUint64(32 + 8 * n, true));
      pieces.push([word(1), word(2), word(3)]);
    }
    expect(pieces).toEqual([
      [0x10_0000, 512, 0],
      [0x30_0000, 512, 0],
      [0x50_0000, 256, 0],
    ]);
    // User space says no to the next one.
    expect(td.exit()).toBe(KvmExit.KVM_EXIT_HYPERCALL);
    td.last.setBigUint64(88, BigInt(Errno.EINVAL), true);
    expect(td.output()).toEqual([]);
    expect(status).toEqual([0n, INVALID_OPERAND]);
    td.close();
  });

  it("GetQuote, GetTdVmCallInfo and SetupEventNotifyInterrupt are user space's", () => {
    const seen: bigint[] = [];
    const { td } = run(function* () {
      seen.push(yield* vmcall(0x10002n, 0x20_0000n | SHARED, 8192n));
      seen.push(yield* vmcall(0x10002n, 0x20_0000n | SHARED, 8192n));
      seen.push(yield* vmcall(0x10004n, 0x50n));
      const info = yield* vmcallRegs(0x10000n, 1n);
      seen.push(info.r10, info.r11);
      seen.push((yield* vmcallRegs(0x10000n, 0n)).r11);
    });
    const word = (n: number) => td.last.getBigUint64(32 + 8 * n, true);
    expect(td.exit()).toBe(KvmExit.KVM_EXIT_TDX);
    expect([word(1), word(3), word(4)]).toEqual([0x10002n, 0x20_0000n, 8192n]);
    td.last.setBigUint64(48, 0n, true);
    // Left alone: not supported.
    expect(td.exit()).toBe(KvmExit.KVM_EXIT_TDX);
    expect(td.exit()).toBe(KvmExit.KVM_EXIT_TDX);
    expect([word(1), word(3)]).toEqual([0x10004n, 0x50n]);
    td.last.setBigUint64(48, 0n, true);
    expect(td.exit()).toBe(KvmExit.KVM_EXIT_TDX);
    td.last.setBigUint64(48, 0n, true);
    td.last.setBigUint64(64, 2n, true);
    expect(td.output()).toEqual([]);
    expect(seen).toEqual([0n, UNSUPPORTED, 0n, 0n, 2n, 0n]);
    td.close();
  });

  it("ReportFatalError is a system event with the guest's registers", () => {
    const { td } = run(function* () {
      yield* vmcall(0x10003n, 0x1234n, 0n, 0x6f6f_6f6fn);
    });
    expect(td.exit()).toBe(KvmExit.KVM_EXIT_SYSTEM_EVENT);
    expect([td.last.getUint32(32, true), td.last.getUint32(36, true)]).toEqual([7, 16]);
    const data = (n: number) => td.last.getBigUint64(40 + 8 * n, true);
    expect([data(11), data(12), data(14)]).toEqual([0x10003n, 0x1234n, 0x6f6f_6f6fn]);
    td.close();
  });

  it("KVM's own hypercalls", () => {
    const seen: bigint[] = [];
    const { td } = run(function* () {
      for (const nr of [1n, 5n, 999n])
        seen.push((yield* guest.tdcall({ rax: 0n, rcx: 0xfc00n, r10: nr })).r10);
    });
    td.output();
    expect(seen).toEqual([0n, 0n, BigInt.asUintN(64, -1000n)]);
    td.close();
  });
});

describe("memory of a TD", () => {
  it("an access on the wrong side is a memory fault, which user space resolves", () => {
    const { kvm, td } = run(function* () {
      yield* guest.store(SHARED_ALIAS + 0x30_0000n, 4, 0x77n);
    });
    expect(td.exit()).toBe(-Errno.EFAULT);
    expect(td.last.getUint32(8, true)).toBe(KvmExit.KVM_EXIT_MEMORY_FAULT);
    // Shared access to private memory: no flags.
    expect([0, 1, 2].map((n) => td.last.getBigUint64(32 + 8 * n, true))).toEqual([0n, 0x30_0000n, 4096n]);
    td.setPrivate(0x30_0000, 4096, false);
    expect(td.output()).toEqual([]);
    expect(td.ram.read(0x30_0000, 1)[0]).toBe(0x77);
    expect(kvm.punchHole(td.memfd, 1, 4096)).toBe(-Errno.EINVAL);
    td.close();
  });

  it("a private access outside of private memory is a fault with the flag", () => {
    const { td } = run(function* () {
      yield* accept(0x4000_0000);
    });
    expect(td.exit()).toBe(-Errno.EFAULT);
    expect([0, 1].map((n) => td.last.getBigUint64(32 + 8 * n, true))).toEqual([8n, 0x4000_0000n]);
    td.close();
  });

  it("a page that the host takes away has to be accepted again, and is empty", () => {
    const seen: bigint[] = [];
    const { kvm, td } = run(function* () {
      yield* accept(0x30_0000);
      yield* guest.store(0x30_0000n, 8, 0x1234n);
      yield* say(0);
      seen.push(yield* accept(0x30_0000));
      seen.push(yield* guest.load(0x30_0000n, 8));
    });
    td.output();
    expect(kvm.punchHole(td.memfd, 0x30_0000, 4096)).toBe(0);
    td.output();
    expect(seen).toEqual([0n, 0n]);
    td.close();
  });
});

describe("a TD with two vCPUs", () => {
  it("on two processors: IPIs arrive, and memory taken from it is gone for both", () => {
    const vectors: number[] = [];
    const handler: GuestHandler = function* (frame) {
      vectors.push(frame.vector);
      yield* guest.wrmsr(0x80b, 0n);
    };
    const { kvm, host } = powerOn(
      function* (regs) {
        yield* longMode();
        if (regs.rsi !== 0n) {
          yield* guest.lidt(new Map([[0x41, handler]]));
          yield* wrmsr(0x80fn, 0x1ffn);
          yield* guest.sti();
          yield* say(1);
          yield* vmcall(12n, 0n);
          yield* guest.pause();
          yield* say(3);
          for (;;) yield* vmcall(12n, 0n);
        }
        yield* say(2);
        for (let i = 0; i < 50_000; i++) yield* guest.pause();
        // Logical destination: cluster 0, processor 1.
        yield* wrmsr(X2APIC.ICR, (2n << 32n) | 0x841n);
        for (let i = 0; i < 50_000 && vectors.length === 0; i++) yield* guest.pause();
        yield* say(0);
      },
      { lps: 2 },
    );
    const before = [host.pages.freePageCount, host.pages.usage()];
    const td = new Td(kvm, { vcpus: 2 }).finalize();
    expect([...td.output()].sort()).toEqual([1, 2, 3]);
    expect(vectors).toEqual([0x41]);
    td.close();
    expect([host.pages.freePageCount, host.pages.usage()]).toEqual(before);
  });
});

describe("KVM_TDX_GET_CPUID", () => {
  it("is what the module virtualizes", () => {
    const { kvm } = powerOn();
    const td = new Td(kvm);
    const data: KvmCpuid2 = { nent: 256, entries: [] };
    td.tdx({ id: KvmTdxCmdId.KVM_TDX_GET_CPUID, data }, td.vcpu);
    const find = (leaf: number) => data.entries.find((entry) => entry.function === leaf)!;
    expect(find(0x21)).toMatchObject({ ebx: 0x65746e49, edx: 0x5844546c, ecx: 0x20202020 });
    expect((find(0x8000_0008).eax >> 16) & 0xff).toBe(48);
    expect(data.nent).toBe(data.entries.length);
    const small: KvmCpuid2 = { nent: 1, entries: [] };
    const cmd = { id: KvmTdxCmdId.KVM_TDX_GET_CPUID, data: small } as const;
    expect(kvm.ioctl(td.vcpu, KvmIoctl.KVM_MEMORY_ENCRYPT_OP, cmd)).toBe(-Errno.E2BIG);
    expect(small.nent).toBe(data.nent);
    td.close();
  });
});
