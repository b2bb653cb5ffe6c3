/** Parts of KVM by themselves: memory attributes, local APIC, interrupt messages, MMIO instructions, page walks. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PrivateRanges } from "../src/memory-attributes.js";
import { reservedCr4 } from "../src/vmx/vmx-state.js";
import { translate } from "../src/mmu/walk.js";
import { DeliveryMode, icrMessage, msiMessage, recipients } from "../src/x86/apic-bus.js";
import { maskCpuid } from "../src/x86/cpu-caps.js";
import { kvmCpuid } from "../src/x86/cpuid.js";
import { InterruptQueue } from "../src/x86/interrupt-queue.js";
import { IA32_TSC_DEADLINE, Lapic } from "../src/x86/lapic.js";
import { type CodeSize, decodeMmio, loadResult, storeValue } from "../src/x86/mmio-instruction.js";

describe("PrivateRanges", () => {
  it("is a set of frames", () => {
    const step = fc.record({ start: fc.nat(60), length: fc.integer({ min: 1, max: 20 }), on: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const ranges = new PrivateRanges();
        const model = new Set<number>();
        for (const { start, length, on } of steps) {
          ranges.set(start, start + length, on);
          for (let frame = start; frame < start + length; frame++)
            if (on) model.add(frame);
            else model.delete(frame);
        }
        for (let frame = 0; frame < 90; frame++) expect(ranges.has(frame)).toBe(model.has(frame));
        for (let start = 0; start < 80; start++)
          for (const length of [1, 2, 8])
            expect(ranges.hasAll(start, start + length)).toBe(
              Array.from({ length }, (_, i) => start + i).every((frame) => model.has(frame)),
            );
      }),
    );
  });
});

describe("the local APIC's timer", () => {
  function build() {
    const fired: number[] = [];
    const clock = { now: 0 };
    const lapic = new Lapic(3, () => 40, {
      now: () => clock.now,
      guestTsc: () => BigInt(clock.now) * 2n,
      timeOfGuestTsc: (tsc) => Number(tsc) / 2,
      post: (vector) => fired.push(vector),
      send: () => {},
    });
    lapic.write(0x80f, 0x1ffn);
    const at = (now: number) => {
      clock.now = now;
      lapic.tick();
      return fired.splice(0);
    };
    return { lapic, at };
  }

  it("goes on when it becomes periodic, and stops when it becomes a deadline", () => {
    const { lapic, at } = build();
    lapic.write(0x83e, 0xbn);
    lapic.write(0x832, 0x30n);
    lapic.write(0x838, 100n);
    at(2000);
    lapic.write(0x832, 0x2_0030n);
    expect(lapic.read(0x839)).toBe(50n);
    expect(at(4000)).toEqual([0x30]);
    expect(at(8000)).toEqual([0x30]);
    lapic.write(0x832, 0x4_0030n);
    expect([lapic.read(0x838), lapic.read(0x839)]).toEqual([0n, 0n]);
    expect(at(100_000)).toEqual([]);
  });

  it("keeps the bits that its registers have; reserved ones of an x2APIC are refused", () => {
    const { lapic } = build();
    expect(lapic.write(0x835, 0xffff_ffffn)).toBe(true);
    expect(lapic.read(0x835)).toBe(0x1_f7ffn);
    // Disabled by software, all entries are masked.
    lapic.write(0x835, 0x700n);
    lapic.write(0x80f, 0xffn);
    expect(lapic.read(0x835)).toBe(0x1_0700n);
    for (const [msr, value] of [
      [0x835, 1n << 32n],
      [0x828, 1n],
      [0x83f, 0x100n],
      [0x830, 1n << 20n],
      [0x82f, 0n],
    ] as const)
      expect(lapic.write(msr, value)).toBe(false);
    expect(lapic.read(0x82f)).toBe(null);
  });

  it("one shot: divided bus cycles, once", () => {
    const { lapic, at } = build();
    lapic.write(0x83e, 0xbn); // divide by 1
    lapic.write(0x832, 0x30n);
    lapic.write(0x838, 100n);
    expect(at(2000)).toEqual([]);
    expect(lapic.read(0x839)).toBe(50n);
    expect(at(4000)).toEqual([0x30]);
    expect(lapic.read(0x839)).toBe(0n);
    expect(at(100_000)).toEqual([]);
  });

  it("periodic: again and again, and not twice for what was missed", () => {
    const { lapic, at } = build();
    lapic.write(0x83e, 0n); // divide by 2
    lapic.write(0x832, 0x2_0031n);
    lapic.write(0x838, 100n);
    expect(at(8000)).toEqual([0x31]);
    expect(at(16_000)).toEqual([0x31]);
    expect(at(50_000)).toEqual([0x31]);
    expect(at(55_999)).toEqual([]);
    expect(at(56_000)).toEqual([0x31]);
  });

  it("TSC deadline; masked; disabled", () => {
    const { lapic, at } = build();
    expect(lapic.write(IA32_TSC_DEADLINE, 5n)).toBe(true);
    // Ignored in another mode.
    expect(at(1000)).toEqual([]);
    lapic.write(0x832, 0x4_0032n);
    lapic.write(IA32_TSC_DEADLINE, 4000n);
    expect(at(1999)).toEqual([]);
    expect(at(2000)).toEqual([0x32]);
    expect(lapic.read(IA32_TSC_DEADLINE)).toBe(0n);
    lapic.write(0x832, 0x5_0032n);
    lapic.write(IA32_TSC_DEADLINE, 1n);
    expect(at(3000)).toEqual([]);
    lapic.write(0x832, 0x4_0032n);
    lapic.write(0x80f, 0xffn);
    lapic.write(IA32_TSC_DEADLINE, 1n);
    expect(at(4000)).toEqual([]);
  });

  it("has the registers of an x2APIC and no others", () => {
    const { lapic } = build();
    expect([lapic.read(0x802), lapic.read(0x803), lapic.read(0x80d)]).toEqual([3n, 0x5_0014n, 8n]);
    expect(lapic.read(0x804)).toBeNull();
    expect(lapic.write(0x802, 1n)).toBe(false);
    expect(lapic.write(0x839, 1n)).toBe(false);
  });
});

describe("interrupt messages", () => {
  const x2apic = [0, 1, 17].map((id) => ({ id, ldr: ((id >> 4) << 16) | (1 << (id & 15)), x2apic: true }));
  const ids = (low: number, destination: number, sender = 0) =>
    recipients(x2apic, icrMessage(low, destination), sender).map(({ id }) => id);

  it("reach whom they are for", () => {
    expect(ids(0x40, 17)).toEqual([17]);
    expect(ids(0x40, 5)).toEqual([]);
    expect(ids(0x40, 0xffff_ffff)).toEqual([0, 1, 17]);
    expect(ids(0x4_0040, 9)).toEqual([0]);
    expect(ids(0x8_0040, 9)).toEqual([0, 1, 17]);
    expect(ids(0xc_0040, 9)).toEqual([1, 17]);
    // Logical: cluster and members.
    expect(ids(0x840, 0x3)).toEqual([0, 1]);
    expect(ids(0x840, 0x1_0002)).toEqual([17]);
    expect(ids(0x940, 0x3)).toEqual([0]);
    expect(recipients([{ id: 0, ldr: 0x0400_0000, x2apic: false }], icrMessage(0x840, 4), -1)).toHaveLength(
      1,
    );
  });

  it("MSIs", () => {
    expect(msiMessage(0xfee0_1004, 0x1_0000, 0xc1_55)).toEqual({
      mode: DeliveryMode.LOWEST,
      vector: 0x55,
      destination: 0x1_0001,
      logical: true,
      shorthand: 0,
      level: true,
    });
  });

  it("priorities: the highest vector first, not below what is in service, not below TPR", () => {
    const queue = new InterruptQueue();
    queue.accept(0x41, false);
    queue.accept(0x52, true);
    expect(queue.acknowledge()).toBe(0x52);
    expect(queue.ppr).toBe(0x50);
    expect(queue.pending()).toBe(-1);
    queue.accept(0x61, false);
    expect(queue.acknowledge()).toBe(0x61);
    expect([queue.eoi(), queue.eoi(), queue.acknowledge()]).toEqual([-1, 0x52, 0x41]);
    queue.eoi();
    queue.tpr = 0x40;
    queue.accept(0x4f, false);
    expect(queue.pending()).toBe(-1);
    queue.tpr = 0x3f;
    expect(queue.pending()).toBe(0x4f);
    expect(new InterruptQueue().eoi()).toBe(-1);
  });
});

describe("MMIO instructions", () => {
  /** Bytes as an assembler makes them. */
  const cases: [string, CodeSize, number[], object][] = [
    ["mov [rax], ecx", 8, [0x89, 0x08], { kind: "store", size: 4, gpr: 1, length: 2 }],
    [
      "mov r9, [rbx+r8*4+0x10]",
      8,
      [0x4e, 0x8b, 0x4c, 0x83, 0x10],
      { kind: "load", size: 8, gpr: 9, length: 5 },
    ],
    ["mov eax, [rip+4]", 8, [0x8b, 0x05, 4, 0, 0, 0], { kind: "load", size: 4, gpr: 0, length: 6 }],
    [
      "mov dword [rdi+0xf0], 0x1ff",
      8,
      [0xc7, 0x87, 0xf0, 0, 0, 0, 0xff, 1, 0, 0],
      { kind: "store", size: 4, gpr: null, constant: 0x1ffn, length: 10 },
    ],
    [
      "mov [rsp+8], r10w",
      8,
      [0x66, 0x44, 0x89, 0x54, 0x24, 8],
      { kind: "store", size: 2, gpr: 10, length: 6 },
    ],
    ["mov [rcx], ah", 8, [0x88, 0x21], { kind: "store", size: 1, gpr: 0, high: true, length: 2 }],
    ["mov [rcx], spl", 8, [0x40, 0x88, 0x21], { kind: "store", size: 1, gpr: 4, high: false, length: 3 }],
    [
      "movzx edx, byte [rsi]",
      8,
      [0x0f, 0xb6, 0x16],
      { kind: "load", size: 1, gpr: 2, registerSize: 4, length: 3 },
    ],
    [
      "movsx rdx, word [rsi]",
      8,
      [0x48, 0x0f, 0xbf, 0x16],
      { kind: "load", size: 2, gpr: 2, registerSize: 8, signed: true, length: 4 },
    ],
    ["mov eax, [0xfee00020]", 4, [0xa1, 0x20, 0, 0xe0, 0xfe], { kind: "load", size: 4, gpr: 0, length: 5 }],
    ["mov ax, [bx+si]", 2, [0x8b, 0x00], { kind: "load", size: 2, gpr: 0, length: 2 }],
    [
      "mov eax, [ebx] in 16-bit code",
      2,
      [0x67, 0x66, 0x8b, 0x03],
      { kind: "load", size: 4, gpr: 0, length: 4 },
    ],
  ];
  it.each(cases)("%s", (_text, mode, code, expected) => {
    expect(decodeMmio(Uint8Array.from([...code, ...Array(15).fill(0x90)]), mode)).toMatchObject(expected);
  });

  it("others are not known, and nothing crashes", () => {
    const decode = (...code: number[]) => decodeMmio(Uint8Array.from([...code, ...Array(15).fill(0)]), 8);
    expect(decode(0x89, 0xc8)).toBeNull(); // register to register
    expect(decode(0x01, 0x08)).toBeNull(); // add
    expect(decode(0xc7, 0x08)).toBeNull(); // not MOV
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 15, maxLength: 15 }), fc.constantFrom(2, 4, 8), (code, mode) => {
        decodeMmio(code, mode);
      }),
    );
  });

  it("move what the instruction says", () => {
    const base = { kind: "load", gpr: 0, high: false, constant: 0n, length: 2 } as const;
    const load = (size: 1 | 2 | 4 | 8, registerSize: 1 | 2 | 4 | 8, signed: boolean, data: bigint) =>
      loadResult({ ...base, size, registerSize, signed }, 0xffff_ffff_ffff_ffffn, data);
    expect(load(1, 1, false, 0x12n)).toBe(0xffff_ffff_ffff_ff12n);
    expect(load(4, 4, false, 0x12n)).toBe(0x12n);
    expect(load(1, 4, true, 0x80n)).toBe(0xffff_ff80n);
    expect(load(2, 8, true, 0x8000n)).toBe(0xffff_ffff_ffff_8000n);
    const high = { ...base, size: 1, registerSize: 1, signed: false, high: true } as const;
    expect(loadResult(high, 0x1111_1111n, 0x22n)).toBe(0x1111_2211n);
    expect(storeValue({ ...high, kind: "store" }, 0xab_cdn)).toBe(0xabn);
  });
});

describe("page walks", () => {
  const memory = new Map<number, bigint>();
  const read = (gpa: number) => memory.get(gpa) ?? 0n;
  const LONG = { cr0: 1n << 31n, cr3: 0x1000n, cr4: 1n << 5n, efer: 1n << 10n };

  it("4 levels, 2 MiB and 1 GiB pages, 32-bit, PAE, none", () => {
    memory.clear();
    memory.set(0x1000, 0x2003n);
    memory.set(0x2000, 0x3003n);
    memory.set(0x2008, 0x4000_0083n);
    memory.set(0x3000, 0x5003n);
    memory.set(0x3008, 0x60_0083n);
    memory.set(0x5000 + 8 * 7, 0x9003n);
    expect(translate(LONG, 0x7123n, read)).toBe(0x9123);
    expect(translate(LONG, 0x20_0456n, read)).toBe(0x60_0456);
    expect(translate(LONG, 0x4000_0789n, read)).toBe(0x4000_0789);
    expect(translate(LONG, 0x8000n, read)).toBeNull();
    expect(translate(LONG, 0x1_0000_0000n << 10n, read)).toBeNull();
    // PAE: CR3 points to four PDPTEs.
    expect(translate({ ...LONG, efer: 0n, cr3: 0x2000n }, 0x7123n, read)).toBe(0x9123);
    expect(translate({ ...LONG, cr0: 0n }, 0x1_2345_6789n, read)).toBe(0x2345_6789);
    memory.clear();
    memory.set(0x1000, 0x2003n);
    memory.set(0x1004, 0x40_0083n);
    memory.set(0x2004, 0x7003n);
    const flat = { cr0: 1n << 31n, cr3: 0x1000n, cr4: 1n << 4n, efer: 0n };
    expect(translate(flat, 0x1abcn, read)).toBe(0x7abc);
    expect(translate(flat, 0x40_1234n, read)).toBe(0x40_1234);
  });
});

describe("CPUID", () => {
  const none = { index: 0, flags: 0, eax: 0, ebx: 0, ecx: 0, edx: 0 };
  const entries = [
    { ...none, function: 0, eax: 4 },
    { ...none, function: 4, index: 1, flags: 1, eax: 7 },
    { ...none, function: 0x4000_0000, eax: 0x4000_0001 },
    { ...none, function: 0x8000_0000, eax: 0x8000_0008 },
  ];
  it("beyond the last leaf is the last basic leaf, as Intel's", () => {
    expect(kvmCpuid(entries, 4, 1).eax).toBe(7);
    expect(kvmCpuid(entries, 0x99, 1).eax).toBe(7);
    expect(kvmCpuid(entries, 0x8000_0099, 1).eax).toBe(7);
    expect(kvmCpuid(entries, 3, 0).eax).toBe(0);
    expect(kvmCpuid(entries, 0x4000_0099, 1).eax).toBe(0);
    expect(kvmCpuid([], 1, 0).eax).toBe(0);
  });
});

describe("CR4 of a guest", () => {
  const entry = (leaf: number, ecx: number, ebx: number) => ({
    ...{ function: leaf, index: 0, flags: 0, eax: 0, edx: 0 },
    ...{ ebx, ecx },
  });
  it("has no bits of features that its CPUID does not offer", () => {
    expect(reservedCr4([]) & 0x7ffn).toBe(0n);
    const reserved = reservedCr4([entry(1, 1 << 17, 0), entry(7, 1 << 2, 1 << 20)]);
    for (const bit of [11n, 17n, 21n]) expect((reserved >> bit) & 1n).toBe(0n);
    for (const bit of [12n, 13n, 14n, 16n, 18n, 20n, 22n, 40n]) expect((reserved >> bit) & 1n).toBe(1n);
  });
});

describe("CPUID that KVM supports", () => {
  const all = { eax: 0xffff_ffff, ebx: 0xffff_ffff, ecx: 0xffff_ffff, edx: 0xffff_ffff };
  const none = { eax: 0, ebx: 0, ecx: 0, edx: 0 };
  const has = (value: number, bit: number) => ((value >>> bit) & 1) !== 0;
  it("is without what the host keeps to itself: VMX, SMX, PDCM, MONITOR; PT, SGX, the PMU", () => {
    const one = maskCpuid(1, 0, all);
    expect([3, 5, 6, 15].map((bit) => has(one.ecx, bit))).toEqual([false, false, false, false]);
    expect(has(maskCpuid(7, 0, all).ebx, 2)).toBe(false);
    expect(has(maskCpuid(7, 0, all).ebx, 25)).toBe(false);
    for (const leaf of [0xa, 0x12, 0x14, 0x1c]) expect(maskCpuid(leaf, 0, all)).toEqual(none);
  });
  it("has what KVM emulates, and nothing else that the processor has not", () => {
    const one = maskCpuid(1, 0, none);
    expect([21, 24, 31].map((bit) => has(one.ecx, bit))).toEqual([true, true, true]);
    expect(one.edx).toBe(0);
    expect(maskCpuid(7, 0, none)).toEqual({ ...none, ebx: 2, edx: 1 << 29 });
    expect(maskCpuid(7, 1, none)).toEqual(none);
  });
});
