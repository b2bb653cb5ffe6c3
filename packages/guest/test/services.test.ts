/** The kernel's services from inside, in a TD that the firmware booted. */
import { type Guest, guest } from "@swtdx/abi";
import { describe, expect, it } from "vitest";
import { boot } from "../../edk2/test/support/boot.js";
import type { SimulatedTd } from "../../edk2/test/support/simulated-td.js";
import { AttestationError, type Kernel } from "../src/index.js";

/** Boots a TD whose init is `look`; what it returns. */
async function inside<T>(look: (kernel: Kernel) => Guest<T>, options: Parameters<typeof boot>[0] = {}) {
  let seen: T | undefined;
  const init = function* (kernel: Kernel): Guest<void> {
    seen = yield* look(kernel);
    yield* kernel.powerOff();
  };
  const result = await boot({ ...options, guest: { init, name: "services" } });
  return { ...result, seen: seen as T };
}

describe("shared memory", () => {
  it("is the VMM's too; taken back, it is empty and private", async () => {
    let td!: SimulatedTd;
    const { seen, outcome } = await inside(
      function* ({ parts: { memory, tables } }) {
        const page = yield* memory.allocPages(3);
        const pfn = page / 4096 + 1;
        const at = BigInt(page + 4096);
        yield* guest.store(at, 8, 1n);
        yield* tables.setMemoryDecrypted(page + 4096, 1);
        yield* guest.store(at, 8, 0x1234n);
        const shared = [...td.hostPage(pfn)!.subarray(0, 2)];
        const before = td.sharedPages.has(pfn);
        yield* tables.setMemoryEncrypted(page + 4096, 1);
        return { shared, before, after: td.sharedPages.has(pfn), value: yield* guest.load(at, 8) };
      },
      { onStart: (kvm) => (td = kvm.td) },
    );
    expect(outcome.exit).toBe("poweroff");
    expect(seen).toEqual({ shared: [0x34, 0x12], before: true, after: false, value: 0n });
  });
  it("never loses its neighbours' contents", async () => {
    const { seen } = await inside(function* ({ parts: { memory, tables } }) {
      const page = yield* memory.allocPages(4);
      for (let i = 0; i < 4; i++) yield* guest.store(BigInt(page + i * 4096), 8, BigInt(i + 1));
      yield* tables.setMemoryDecrypted(page + 4096, 2);
      yield* tables.setMemoryEncrypted(page + 4096, 2);
      const out: bigint[] = [];
      for (let i = 0; i < 4; i++) out.push(yield* guest.load(BigInt(page + i * 4096), 8));
      return out;
    });
    expect(seen).toEqual([1n, 0n, 0n, 4n]);
  });
});

describe("attestation", () => {
  it("says why there is no quote, and frees its buffer", async () => {
    const { seen } = await inside(function* ({ parts: { tdxGuest } }) {
      const errors: string[] = [];
      for (let i = 0; i < 40; i++)
        try {
          yield* tdxGuest.getQuote(new Uint8Array(64));
        } catch (error) {
          if (!(error instanceof AttestationError)) throw error;
          errors.push(error.message);
        }
      return errors;
    });
    expect(new Set(seen)).toEqual(new Set(["quote status 0x8000000000000001"]));
  });
  it("extends an RTMR and logs what it measured", async () => {
    const { kvm } = await inside(function* (kernel) {
      yield* kernel.measure(3, new TextEncoder().encode("event"));
    });
    expect(kvm.td.rtmr[3].some((byte) => byte !== 0)).toBe(true);
  });
});

describe("#VE", () => {
  it("is handled without the program's noticing", async () => {
    const { seen, kvm } = await inside(function* (kernel) {
      const { eax } = yield* guest.cpuid(0x4000_0000);
      yield* guest.hlt();
      const cmos = yield* guest.in(0x71, 1);
      return { eax, cmos: cmos <= 0xff, cpus: kernel.parts.cpus, quiet: kernel.parameter("console") };
    });
    expect(seen).toEqual({ eax: 0x4000_0001, cmos: true, cpus: 1, quiet: "ttyS0" });
    expect([...kvm.vcpus[0].ves.keys()].sort((a, b) => a - b)).toEqual([10, 12, 30]);
  });
});

describe("other TDs", () => {
  it.each([{ gpaw: 52 }, { attributes: (1n << 28n) | (1n << 30n) }] as const)("%o", async (simulation) => {
    const { outcome } = await inside(function* () {}, { simulation });
    expect(outcome.exit).toBe("poweroff");
  });
  it("refuses one whose host may inject #VE at private memory", async () => {
    const { outcome } = await inside(function* () {}, { simulation: { attributes: 0n } });
    expect(outcome.reason).toContain("SEPT_VE_DISABLE attribute must be set");
  });
  it("have memory above 4 GiB", async () => {
    const { outcome, seen } = await inside(
      function* ({ parts: { memory } }) {
        yield* memory.allocPages(2 ** 10);
        return memory.totalBytes;
      },
      { machine: { memoryBytes: 6 * 2 ** 30 } },
    );
    expect(outcome.exit).toBe("poweroff");
    expect(seen).toBeGreaterThan(5.9 * 2 ** 30);
  });
});
