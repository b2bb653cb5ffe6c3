import { ACPI_TABLE_HEADER, EFI_MEMORY_TYPE, type GuestOp, PAGE_SIZE, TDCALL_LEAF, viewOf } from "@swtdx/abi";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { flatMemory, runGuest } from "../../edk2/test/support/run.js";
import { readProcessors } from "../src/arch/smp.js";
import type { AcpiTable } from "../src/drivers/acpi.js";
import { scanPci } from "../src/drivers/pci.js";
import { e820Lines } from "../src/init/e820.js";
import { acceptMemory, MemoryManager } from "../src/mm/memory.js";

const { Conventional, Unaccepted, LoaderData, ACPIMemoryNVS, BootServicesData } = EFI_MEMORY_TYPE;
const MIB = 2 ** 20;
const LEAF = BigInt(TDCALL_LEAF["TDG.MEM.PAGE.ACCEPT"]);

class Panic extends Error {}
/** TDG.MEM.PAGE.ACCEPT as a host with pages of `levels` answers it; a page is accepted once. Other TDCALLs panic. */
function acceptor(levels: readonly number[] = [0]) {
  const pages = new Set<number>();
  const answer = (op: GuestOp) => {
    if (op.op !== "tdcall" || op.regs.rax !== LEAF) throw new Panic();
    const level = Number(op.regs.rcx! & 7n);
    const gpa = Number(op.regs.rcx! & ~0xfffn);
    const count = 512 ** level;
    if (gpa % (count * PAGE_SIZE) !== 0) throw new Error("unaligned");
    if (level > 1) return { rax: 0xc000_0100_0000_0001n };
    if (!levels.includes(level)) return { rax: 0xc000_0b0b_0000_0000n + BigInt(level) };
    for (let i = 0; i < count; i++) {
      if (pages.has(gpa / PAGE_SIZE + i)) return { rax: 0x0000_0b0a_0000_0000n };
      pages.add(gpa / PAGE_SIZE + i);
    }
    return { rax: 0n };
  };
  return { pages, answer };
}

describe("accepting memory", () => {
  it.each([[[0]], [[0, 1]]])("covers a range once, with the host's pages %j", (levels) => {
    fc.assert(
      fc.property(fc.nat(1500), fc.integer({ min: 1, max: 1500 }), (first, count) => {
        const { pages, answer } = acceptor(levels);
        runGuest(acceptMemory(first * PAGE_SIZE, count * PAGE_SIZE), answer);
        expect(pages.size).toBe(count);
        expect(Math.min(...pages)).toBe(first);
      }),
      { numRuns: 20 },
    );
  });
  it("panics when a page is accepted already", () => {
    const { answer } = acceptor();
    runGuest(acceptMemory(0, PAGE_SIZE), answer);
    expect(() => runGuest(acceptMemory(0, PAGE_SIZE), answer)).toThrow(Panic);
  });
});

describe("the page allocator", () => {
  const map = [
    { type: Unaccepted, base: 0, size: 8 * MIB },
    { type: Conventional, base: 16 * MIB, size: MIB },
    { type: LoaderData, base: 17 * MIB, size: MIB },
    { type: Unaccepted, base: 18 * MIB, size: 14 * MIB },
  ];
  it("hands out each page once, accepted, and gets all of them back", () => {
    const request = fc.record({ count: fc.integer({ min: 1, max: 700 }), free: fc.boolean() });
    fc.assert(
      fc.property(fc.array(request, { maxLength: 20 }), (requests) => {
        const { pages, answer } = acceptor();
        const memory = new MemoryManager(map);
        const total = memory.freeBytes;
        const held: { base: number; count: number }[] = [];
        const owner = new Set<number>();
        for (const { count, free } of requests) {
          if (free && held.length > 0) {
            const one = held.shift()!;
            for (let i = 0; i < one.count; i++) owner.delete(one.base / PAGE_SIZE + i);
            memory.freePages(one.base, one.count);
            continue;
          }
          let base: number;
          try {
            base = runGuest(memory.allocPages(count), answer);
          } catch (error) {
            expect(error).toBeInstanceOf(Panic);
            return;
          }
          expect(base >= 16 * MIB && base % PAGE_SIZE === 0).toBe(true);
          for (let i = 0; i < count; i++) {
            const pfn = base / PAGE_SIZE + i;
            const accepted = pages.has(pfn) || (pfn >= 4096 && pfn < 4096 + 256);
            if (owner.has(pfn) || !accepted) throw new Error(`page ${pfn}`);
            owner.add(pfn);
          }
          held.push({ base, count });
        }
        for (const one of held) memory.freePages(one.base, one.count);
        expect(memory.freeBytes).toBe(total);
        expect(memory.acceptedBytes).toBe(pages.size * PAGE_SIZE);
      }),
      { numRuns: 20 },
    );
  });
  it("accepts no more than it needs", () => {
    const { pages, answer } = acceptor();
    const memory = new MemoryManager(map);
    runGuest(memory.allocPages(256), answer);
    expect(pages.size).toBe(0);
    runGuest(memory.allocPages(1), answer);
    expect(pages.size).toBe(512);
    expect(memory.unacceptedBytes).toBe(12 * MIB);
  });
  it("panics without memory", () => {
    const { answer } = acceptor();
    expect(() => runGuest(new MemoryManager([]).allocPages(1), answer)).toThrow(Panic);
    expect(() => runGuest(new MemoryManager(map).allocPages(2 ** 20), answer)).toThrow(Panic);
  });
});

/** Configuration space by slot and function: vendor and device, class, header type. */
const bus = (devices: Record<string, [id: number, classCode: number, header?: number]>) => {
  let address = 0;
  return (op: GuestOp) => {
    if (op.op === "out" && op.port === 0xcf8) address = op.value;
    if (op.op !== "in") return undefined;
    const device = devices[`${(address >> 11) & 31}.${(address >> 8) & 7}`];
    if (!device) return 0xffffffff;
    const register = address & 0xfc;
    return register === 0 ? device[0] : register === 8 ? device[1] * 256 : (device[2] ?? 0) << 16;
  };
};

describe("the device filter", () => {
  it("authorizes bridges and hardened drivers' devices only", () => {
    const devices = runGuest(
      scanPci(),
      bus({
        "0.0": [0x29c08086, 0x060000],
        "1.0": [0x10421af4, 0x010000],
        "2.0": [0x10501af4, 0x030000],
        "3.0": [0x100e8086, 0x020000],
        "3.1": [0x10411af4, 0x020000],
        "31.0": [0x29188086, 0x060100, 0x80],
        "31.2": [0x29228086, 0x010601],
      }),
    );
    expect(devices.map(({ slot, fn, authorized }) => [`${slot}.${fn}`, authorized])).toEqual([
      ["0.0", true],
      ["1.0", true],
      ["2.0", false],
      ["3.0", false],
      ["31.0", true],
      ["31.2", false],
    ]);
  });
  it("ends, whatever the VMM answers", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(0xffffffff), { minLength: 1 }), (answers) => {
        let i = 0;
        const devices = runGuest(scanPci(), (op) =>
          op.op === "in" ? answers[i++ % answers.length] : undefined,
        );
        expect(devices.length).toBeLessThanOrEqual(256);
      }),
    );
  });
});

describe("the MADT", () => {
  const madt = (...entries: number[][]): AcpiTable[] => {
    const bytes = new Uint8Array([...new Uint8Array(44), ...entries.flat()]);
    ACPI_TABLE_HEADER.write(viewOf(bytes), { Length: bytes.length });
    return [{ signature: "APIC", address: 0, bytes }];
  };
  const wakeup = [16, 16, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0x80, 0, 0, 0, 0, 0];
  it("gives processors and mailbox", () => {
    const tables = madt(
      [0, 8, 0, 0, 1, 0, 0, 0],
      [0, 8, 1, 5, 1, 0, 0, 0],
      [0, 8, 2, 6, 0, 0, 0, 0],
      [9, 16, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
      wakeup,
    );
    expect(readProcessors(tables)).toEqual({ apicIds: [0, 5, 256], mailbox: 0x80c000 });
    expect(readProcessors([])).toEqual({ apicIds: [0], mailbox: 0 });
  });
  it("is read as far as it makes sense", () => {
    expect(readProcessors(madt([0, 0, 0, 0], wakeup))).toEqual({ apicIds: [0], mailbox: 0 });
    expect(readProcessors(madt(wakeup.slice(0, 12)))).toEqual({ apicIds: [0], mailbox: 0 });
    fc.assert(
      fc.property(fc.array(fc.nat(255), { maxLength: 100 }), (bytes) => {
        expect(readProcessors(madt(bytes)).apicIds.length).toBeGreaterThan(0);
      }),
    );
  });
});

it("the memory map reads as Linux prints it", () => {
  expect(
    e820Lines([
      { type: BootServicesData, base: 0x80_0000, size: 0x1000 },
      { type: Unaccepted, base: 0, size: 0x80_0000 },
      { type: ACPIMemoryNVS, base: 0x80_1000, size: 0x1000 },
    ]),
  ).toEqual([
    "BIOS-e820: [mem 0x0000000000000000-0x0000000000800fff] usable",
    "BIOS-e820: [mem 0x0000000000801000-0x0000000000801fff] ACPI NVS",
  ]);
});

it("flat memory answers as memory", () => {
  const { answer } = flatMemory(64);
  answer({ op: "store", gla: 8n, size: 4, value: 0x1_2345_6789n });
  expect(answer({ op: "load", gla: 8n, size: 8 })).toBe(0x2345_6789n);
});
