/** A TD's private memory in pages of 2 MiB: what KVM maps when, what it splits, and that the guest does not notice. */
import { guest, type Guest, KVM_MEM_GUEST_MEMFD, KvmIoctl, type TraceEvent } from "@swtdx/abi";
import { HostMemoryFault } from "@swtdx/linux-host";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { accept, longMode, powerOn, say, SHARED_ALIAS, Td, vmcall } from "./support/td.js";

const PAGE = 4096;
const MIB2 = 2 ** 21;
const RAM_END = 8 * 2 ** 20;
const SHARED_BIT = 1n << 47n;
const MAP_GPA = 0x10001n;
const ALREADY_ACCEPTED = 0x0000_0b0a_0000_0000n;
const SIZE_MISMATCH = 0xc000_0b0b_0000_0001n;

/** A guest that does what the test gives it, one piece at each `td.output()`. */
function machine(parameters: Parameters<typeof powerOn>[1] = {}) {
  let next: () => Guest<void> = function* () {};
  const host = powerOn(function* () {
    yield* longMode();
    for (;;) {
      yield* next();
      yield* say(0);
    }
  }, parameters);
  const run = <T>(td: Td, work: () => Guest<T>): T => {
    let result: T | undefined;
    next = function* () {
      result = yield* work();
    };
    expect(td.output()).toEqual([]);
    return result!;
  };
  return { ...host, run };
}
const count = (events: readonly TraceEvent[], op: string, level?: number) =>
  events.filter(
    (event) => event.type === "SEPT" && event.op === op && (level === undefined || event.level === level),
  ).length;
function* convert(gpa: number, size: number, toShared: boolean): Guest<void> {
  yield* vmcall(MAP_GPA, BigInt(gpa) | (toShared ? SHARED_BIT : 0n), BigInt(size));
}

/** TDG.MEM.PAGE.ATTR.RD: how a page is mapped. The VMM has to map it first. */
function* mapped(gpa: number): Guest<{ level: number; pending: boolean }> {
  const { rax, rcx } = yield* guest.tdcall({ rax: 23n, rcx: BigInt(gpa) });
  expect(rax).toBe(0n);
  return { level: Number(rcx & 7n), pending: ((rcx >> 62n) & 1n) !== 0n };
}

describe("private memory in pages of 2 MiB", () => {
  it("a guest that accepts 2 MiB gets them with one page and one exit", () => {
    const { kvm, host, events, run } = machine();
    expect(host.sysfs.read("/sys/module/kvm_intel/parameters/tdx_huge_page")).toBe("Y\n");
    const td = new Td(kvm).finalize();
    events.length = 0;
    expect(run(td, () => accept(MIB2, 1))).toBe(0n);
    expect([count(events, "PAGE.AUG", 1), count(events, "PAGE.AUG", 0)]).toEqual([1, 0]);
    expect(run(td, () => accept(MIB2 + PAGE, 0))).toBe(ALREADY_ACCEPTED + 1n);
    td.close();
  });

  it("tdx_huge_page=N: pages of 4 KiB, as upstream", () => {
    const { kvm, host, events, run } = machine({ tdx_huge_page: false });
    expect(host.sysfs.read("/sys/module/kvm_intel/parameters/tdx_huge_page")).toBe("N\n");
    const td = new Td(kvm).finalize();
    events.length = 0;
    expect(run(td, () => accept(MIB2, 1))).toBe(SIZE_MISMATCH);
    expect(run(td, () => accept(MIB2, 0))).toBe(0n);
    expect(run(td, () => accept(MIB2 + PAGE, 0))).toBe(0n);
    expect([count(events, "PAGE.AUG", 1), count(events, "PAGE.AUG", 0)]).toEqual([0, 2]);
    td.close();
  });

  it("a guest that accepts 4 KiB gets 4 KiB, and goes on so in these 2 MiB", () => {
    const { kvm, events, run } = machine();
    const td = new Td(kvm).finalize();
    events.length = 0;
    expect(run(td, () => accept(MIB2 + 5 * PAGE, 0))).toBe(0n);
    expect(run(td, () => accept(MIB2, 1))).toBe(SIZE_MISMATCH);
    expect([count(events, "PAGE.AUG", 1), count(events, "PAGE.AUG", 0)]).toEqual([0, 1]);
    // Even when nothing is left of what it had.
    run(td, () => convert(MIB2, MIB2, true));
    run(td, () => convert(MIB2, MIB2, false));
    expect(run(td, () => accept(MIB2, 1))).toBe(SIZE_MISMATCH);
    expect(run(td, () => accept(2 * MIB2, 1))).toBe(0n);
    td.close();
  });

  it("a pending page of 2 MiB is split for a guest that wants 4 KiB of it", () => {
    const { kvm, events, run } = machine();
    const td = new Td(kvm).finalize();
    // What no acceptance asks for, KVM maps as large as it can.
    expect(run(td, () => mapped(MIB2 + PAGE))).toEqual({ level: 1, pending: true });
    events.length = 0;
    expect(run(td, () => accept(MIB2 + 3 * PAGE, 0))).toBe(0n);
    expect([count(events, "PAGE.DEMOTE"), count(events, "PAGE.AUG")]).toEqual([1, 0]);
    expect(run(td, () => mapped(MIB2 + 3 * PAGE))).toEqual({ level: 0, pending: false });
    expect(run(td, () => mapped(MIB2 + 4 * PAGE))).toEqual({ level: 0, pending: true });
    td.close();
  });

  it("a part that becomes shared is cut out; the rest stays the guest's", () => {
    const { kvm, host, events, run } = machine();
    const td = new Td(kvm).finalize();
    const cell = (page: number) => BigInt(MIB2 + page * PAGE);
    run(td, function* () {
      yield* accept(MIB2, 1);
      for (const page of [0, 6, 7, 511]) yield* guest.store(cell(page), 8, 100n + BigInt(page));
    });
    events.length = 0;
    const contents = run(td, function* () {
      yield* convert(MIB2 + 7 * PAGE, PAGE, true);
      yield* guest.store(SHARED_ALIAS + cell(7), 8, 5n);
      const out: bigint[] = [];
      for (const page of [0, 6, 511]) out.push(yield* guest.load(cell(page), 8));
      return out;
    });
    expect(contents).toEqual([100n, 106n, 611n]);
    expect([count(events, "PAGE.DEMOTE", 1), count(events, "PAGE.REMOVE")]).toEqual([1, 1]);
    expect(td.ram.read(MIB2 + 7 * PAGE, 1)[0]).toBe(5);
    // 511 pages of the folio are left.
    expect(host.pages.usage().get("guest_memfd")).toBe(511 + 4);
    const back = run(td, function* () {
      yield* convert(MIB2 + 7 * PAGE, PAGE, false);
      return [
        yield* accept(MIB2 + 7 * PAGE, 0),
        yield* guest.load(cell(7), 8),
        yield* guest.load(cell(6), 8),
      ];
    });
    expect(back).toEqual([0n, 0n, 106n]);
    td.close();
  });

  it("2 MiB that are partly shared are mapped in 4 KiB", () => {
    const { kvm, run } = machine();
    const td = new Td(kvm).finalize();
    run(td, () => convert(MIB2 + 9 * PAGE, PAGE, true));
    expect(run(td, () => mapped(MIB2))).toEqual({ level: 0, pending: true });
    expect(run(td, () => accept(MIB2, 1))).toBe(SIZE_MISMATCH);
    expect(run(td, () => mapped(2 * MIB2))).toEqual({ level: 1, pending: true });
    td.close();
  });

  it("a hole that user space punches takes what it covers, at either size", () => {
    const { kvm, host, events, run } = machine();
    const td = new Td(kvm).finalize();
    run(td, function* () {
      yield* accept(MIB2, 1);
      yield* accept(2 * MIB2, 1);
      yield* guest.store(BigInt(MIB2), 8, 1n);
    });
    const before = host.pages.usage().get("guest_memfd")!;
    events.length = 0;
    expect(kvm.punchHole(td.memfd, MIB2 + 256 * PAGE, 768 * PAGE)).toBe(0);
    expect([count(events, "PAGE.REMOVE", 1), count(events, "PAGE.REMOVE", 0)]).toEqual([1, 256]);
    expect(host.pages.usage().get("guest_memfd")).toBe(before - 768);
    expect(run(td, () => guest.load(BigInt(MIB2), 8))).toBe(1n);
    expect(run(td, () => mapped(2 * MIB2))).toEqual({ level: 1, pending: true });
    td.close();
  });

  it("memory slot and file must lie alike in 2 MiB, and the slot hold all of them", () => {
    const { kvm, run } = machine();
    const td = new Td(kvm).finalize();
    const ram = kvm.mmap(3 * MIB2);
    const memfd = kvm.ioctl(td.vm, KvmIoctl.KVM_CREATE_GUEST_MEMFD, { size: 3 * MIB2, flags: 0n });
    const slot = (number: number, gpa: number, size: number, offset: number) => {
      const region = {
        slot: number,
        flags: KVM_MEM_GUEST_MEMFD,
        guest_phys_addr: gpa,
        memory_size: size,
        userspace_addr: ram.address + offset,
        guest_memfd: memfd,
        guest_memfd_offset: offset,
      };
      expect(kvm.ioctl(td.vm, KvmIoctl.KVM_SET_USER_MEMORY_REGION2, region)).toBe(0);
      td.setPrivate(gpa, size, true);
    };
    slot(5, 16 * MIB2, MIB2, PAGE);
    slot(6, 32 * MIB2 + PAGE, MIB2 - PAGE, MIB2 + PAGE);
    slot(7, 48 * MIB2, MIB2, 2 * MIB2);
    const levels = [16, 32.5, 48].map((at) => run(td, () => mapped(at * MIB2)).level);
    expect(levels).toEqual([0, 0, 1]);
    kvm.close(memfd);
    td.close();
    kvm.munmap(ram);
  });
});

describe("a guest", () => {
  const FIRST = MIB2 / PAGE;
  const PAGES = (RAM_END - MIB2) / PAGE;
  const range = fc
    .record({
      start: fc.oneof(fc.nat(PAGES - 1), fc.constantFrom(0, 512, 1024)),
      length: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constantFrom(512, 700)),
    })
    .map(({ start, length }) => ({ start, end: Math.min(start + length, PAGES) }));
  const step = fc.oneof(
    fc.record({ op: fc.constant("accept" as const), range }),
    fc.record({ op: fc.constant("touch" as const), range }),
    fc.record({ op: fc.constant("write" as const), range, value: fc.integer({ min: 1, max: 255 }) }),
    fc.record({ op: fc.constantFrom("share" as const, "unshare" as const, "punch" as const), range }),
  );
  type Page = { shared: boolean; value: number | null };
  const at = (page: number) => (FIRST + page) * PAGE;

  /** As Linux does: 2 MiB where that fits, else 4 KiB. What was accepted before stays as it is. */
  function* acceptRange(start: number, end: number): Guest<void> {
    const fine = (status: bigint) => status === 0n || status >> 8n === ALREADY_ACCEPTED >> 8n;
    for (let page = start; page < end;) {
      if (page % 512 === 0 && page + 512 <= end && fine(yield* accept(at(page), 1))) {
        page += 512;
        continue;
      }
      const status = yield* accept(at(page), 0);
      if (!fine(status)) throw new Error(`accept of page ${page}: ${status.toString(16)}`);
      page++;
    }
  }

  it.each([
    { pages: "2 MiB", parameters: { tdx_huge_page: true }, memfd: true },
    { pages: "4 KiB", parameters: { tdx_huge_page: false }, memfd: true },
    { pages: "unmapped", parameters: { tdx_unmap_user: true }, memfd: false },
  ])("finds its memory as a model has it, whatever is split ($pages)", ({ parameters, memfd }) => {
    const { kvm, host, run } = machine(parameters);
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        const usage = host.pages.usage();
        const td = new Td(kvm, { memfd }).finalize();
        const pages = Array.from({ length: PAGES }, (): Page => ({ shared: false, value: null }));
        const shared = new Uint8Array(PAGES);
        // Pages of user memory that the guest has.
        const taken = new Set<number>();
        const take = (page: number) => !memfd && taken.add(page);
        const giveBack = (page: number) => {
          if (taken.delete(page)) shared[page] = 0;
        };
        for (const one of steps) {
          const { start, end } = one.range;
          const indexes = Array.from({ length: end - start }, (_, i) => start + i);
          const wholly = indexes.every((page) => !pages[page].shared);
          if (one.op === "accept" && wholly) {
            run(td, () => acceptRange(start, end));
            for (const page of indexes) {
              pages[page].value ??= 0;
              take(page);
            }
          } else if (one.op === "touch" && wholly) {
            run(td, function* () {
              for (const page of indexes) yield* mapped(at(page));
            });
            indexes.forEach(take);
          } else if (one.op === "write")
            run(td, function* () {
              for (const page of indexes) {
                if (pages[page].shared) {
                  yield* guest.store(SHARED_ALIAS + BigInt(at(page)), 1, BigInt(one.value));
                  shared[page] = one.value;
                } else if (pages[page].value !== null) {
                  yield* guest.store(BigInt(at(page)), 1, BigInt(one.value));
                  pages[page].value = one.value;
                }
              }
            });
          else if (one.op === "share" || one.op === "unshare") {
            const toShared = one.op === "share";
            run(td, () => convert(at(start), (end - start) * PAGE, toShared));
            for (const page of indexes)
              if (toShared || pages[page].shared) {
                pages[page] = { shared: toShared, value: null };
                if (toShared) giveBack(page);
              }
          } else if (one.op === "punch") {
            if (memfd) expect(kvm.punchHole(td.memfd, at(start), (end - start) * PAGE)).toBe(0);
            else td.ram.discard(at(start), (end - start) * PAGE);
            for (const page of indexes) {
              pages[page].value = null;
              if (!memfd) shared[page] = 0;
              taken.delete(page);
            }
          }
        }
        const seen = run(td, function* () {
          const out: (number | null)[] = [];
          for (let page = 0; page < PAGES; page++) {
            const there = pages[page].shared || pages[page].value !== null;
            const gla = BigInt(at(page)) + (pages[page].shared ? SHARED_ALIAS : 0n);
            out.push(there ? Number(yield* guest.load(gla, 1)) : null);
          }
          return out;
        });
        expect(seen).toEqual(pages.map((page, i) => (page.shared ? shared[i] : page.value)));
        for (let page = 0; page < PAGES; page++) {
          const read = () => td.ram.read(at(page), 1)[0];
          if (taken.has(page)) expect(read).toThrow(HostMemoryFault);
          else expect(read()).toBe(shared[page]);
        }
        td.close();
        expect(host.pages.usage()).toEqual(usage);
      }),
      { numRuns: 8 },
    );
  });
});
