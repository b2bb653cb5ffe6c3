/** The EPT walk against a naive one; the TLB as a cache; delivery through an IDT in memory. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ExitReason, Gpr, REG, VMCS, type ExecutionEngine, type GuestContext } from "../src/index.js";
import { Guest } from "../src/guest/guest.js";
import { Ept, EptWalker, type EptRoot } from "../src/memory/ept.js";
import { PhysicalMemory } from "../src/memory/physical.js";
import { Tlb, TLB } from "../src/memory/tlb.js";
import { SeededRandom } from "@swtdx/crypto";
import { Arena, MemoryController } from "@swtdx/mktme";
import { Processor } from "../src/index.js";
import { enterVmx, EptBuilder, ok, readField, setupVmcs, write64, read64 } from "./support/platform.js";

const ROOT: EptRoot = {
  base: 0x1000,
  levels: 4,
  keyId: 0,
  private: false,
  accessedDirty: false,
  modeBasedExecute: false,
};

function physical(): PhysicalMemory {
  const arena = new Arena({ residentBytes: 4 << 20 });
  const random = new SeededRandom(new Uint8Array(1));
  const memory = new MemoryController(arena, { dramBytes: 1 << 20, random });
  const phys = new PhysicalMemory(arena, memory);
  phys.keyIdBits = 6;
  phys.keyIdUnit = 2 ** 46;
  phys.firstPrivate = 32;
  phys.privateCount = 32;
  return phys;
}

/** SDM section 29.3.2 and 29.3.3 in bigint. */
function naive(
  read: (at: number) => bigint,
  gpa: bigint,
): { status: number; rights: bigint; hpa: bigint; key: bigint; ve: boolean } {
  let table = 0x1000n;
  let rights = 7n;
  for (let level = 4; level >= 1; level--) {
    const shift = BigInt(12 + 9 * (level - 1));
    const entry = read(Number(table + ((gpa >> shift) & 511n) * 8n));
    const ve = entry >> 63n === 1n;
    const result = (status: number) => ({ status, rights: 0n, hpa: 0n, key: 0n, ve });
    const rwx = entry & 7n;
    if (rwx === 0n) return result(Ept.VIOLATION);
    if (rwx === 2n || rwx === 6n) return result(Ept.MISCONFIG);
    const leaf = level === 1 || (level < 4 && (entry & 0x80n) !== 0n);
    if (level === 4 && (entry & 0xf8n) !== 0n) return result(Ept.MISCONFIG);
    if (level < 4 && !leaf && (entry & 0x78n) !== 0n) return result(Ept.MISCONFIG);
    const key = (entry >> 46n) & 63n;
    if (key >= 32n) return result(Ept.MISCONFIG);
    const address = entry & 0x3fff_ffff_f000n;
    rights &= rwx;
    if (leaf) {
      const type = (entry >> 3n) & 7n;
      if (type === 2n || type === 3n || type === 7n) return result(Ept.MISCONFIG);
      const size = 1n << shift;
      if ((address & (size - 1n)) !== 0n) return result(Ept.MISCONFIG);
      return { status: Ept.OK, rights, hpa: address | (gpa & (size - 1n) & ~0xfffn), key, ve };
    }
    table = address;
  }
  throw new Error("not reached");
}

describe("the EPT walk", () => {
  it("agrees with a naive walker", () => {
    const entry = fc
      .record({
        frame: fc.integer({ min: 1, max: 6 }),
        rights: fc.constantFrom(7n, 7n, 7n, 5n, 4n, 1n, 3n, 2n, 0n),
        type: fc.constantFrom(0n, 6n, 6n, 2n, 7n),
        leaf: fc.boolean(),
        key: fc.constantFrom(0n, 0n, 0n, 5n, 33n),
        ve: fc.boolean(),
        big: fc.integer({ min: 0, max: 3 }),
      })
      .map((e) => {
        const big = e.big === 0;
        const base = big && e.leaf ? 0n : BigInt(e.frame) << 12n;
        const type = e.leaf ? e.type << 3n : 0n;
        return (
          base | e.rights | type | (big ? 0x80n : 0n) | (e.leaf ? e.key << 46n : 0n) | (e.ve ? 1n << 63n : 0n)
        );
      });
    const phys = physical();
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 1, max: 6 }), fc.constantFrom(0, 1, 511), entry), {
          minLength: 3,
          maxLength: 30,
        }),
        fc.array(fc.constantFrom(0n, 1n, 511n), { minLength: 4, maxLength: 4 }),
        (list, indices) => {
          for (let frame = 1; frame <= 6; frame++)
            for (const index of [0, 1, 511]) phys.writeQ(frame * 4096 + index * 8, 0, 0, 0, false);
          const entries = new Map<number, bigint>();
          for (const [frame, index, value] of list) {
            entries.set(frame * 4096 + index * 8, value);
            phys.writeQ(
              frame * 4096 + index * 8,
              0,
              Number(value & 0xffffffffn),
              Number(value >> 32n),
              false,
            );
          }
          let gpa = 0n;
          for (const index of indices) gpa = (gpa << 9n) | index;
          gpa <<= 12n;
          // Entries of tables under another key read as ciphertext: only tables under KeyID 0 are compared.
          const expected = naive((at) => entries.get(at) ?? 0n, gpa);
          const walker = new EptWalker(phys);
          const status = walker.walk(ROOT, Number(gpa));
          expect(status).toBe(expected.status);
          if (status === Ept.OK) {
            expect(BigInt(walker.rights)).toBe(expected.rights);
            expect(BigInt(walker.hpa)).toBe(expected.hpa);
            expect(BigInt(walker.keyId)).toBe(expected.key);
          }
          if (status !== Ept.MISCONFIG) expect(walker.suppressVe).toBe(expected.ve);
        },
      ),
      { numRuns: 1000 },
    );
  });

  it("uses the TD's KeyID for a private EPT, whose entries may hold none", () => {
    const phys = physical();
    phys.memory.activate({ mktmeKeyIds: 31, tdxKeyIds: 32 });
    phys.memory.programRandomKey(40 as never);
    const root: EptRoot = { ...ROOT, keyId: 40, private: true };
    const zero = new Uint8Array(4096);
    for (const at of [0x1000, 0x2000, 0x3000, 0x4000]) phys.write(at, 40, zero, false);
    phys.writeQ(0x1000, 40, 0x2007, 0, false);
    phys.writeQ(0x2000, 40, 0x3007, 0, false);
    phys.writeQ(0x3000, 40, 0x4007, 0, false);
    phys.writeQ(0x4000, 40, 0x5037, 0, false);
    phys.writeQ(0x4008, 40, 0x5037, 5 << 14, false);
    const walker = new EptWalker(phys);
    expect(walker.walk(root, 0x123)).toBe(Ept.OK);
    expect([walker.hpa, walker.keyId]).toEqual([0x5000, 40]);
    expect(walker.walk(root, 0x1000)).toBe(Ept.MISCONFIG);
    // The host overwrites a table: poison.
    phys.writeQ(0x4000, 0, 0, 0, false);
    expect(walker.walk(root, 0x123)).toBe(Ept.MC);
    expect(phys.faultHpa).toBe(0x4000);
  });
});

describe("the TLB", () => {
  it("keeps what was inserted until it is flushed by a tag that matches", () => {
    const operation = fc.oneof(
      fc.record({
        kind: fc.constant("insert" as const),
        context: fc.integer({ min: 0, max: 5 }),
        page: fc.integer({ min: 0, max: 7 }),
        frame: fc.integer({ min: 1, max: 99 }),
      }),
      fc.record({
        kind: fc.constant("vpid" as const),
        vpid: fc.integer({ min: 0, max: 2 }),
        keep: fc.boolean(),
      }),
      fc.record({ kind: fc.constant("ept" as const), ept: fc.constantFrom(0x1000, 0x2000) }),
      fc.record({
        kind: fc.constant("page" as const),
        vpid: fc.integer({ min: 0, max: 2 }),
        page: fc.integer({ min: 0, max: 7 }),
      }),
    );
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 60 }), (list) => {
        const tlb = new Tlb();
        const contexts = [
          tlb.context(1, 0, 0x1000, -1),
          tlb.context(1, -1, 0x1000, -1),
          tlb.context(2, 0, 0x2000, -1),
          tlb.context(2, 3, 0x2000, 0x1000),
          tlb.context(0, 0, -1, -1),
          tlb.context(2, -1, 0x2000, 0x1000),
        ];
        const model = new Map<string, number>();
        const drop = (which: (context: (typeof contexts)[number], page: number) => boolean): void => {
          for (const key of [...model.keys()]) {
            const [context, page] = key.split("/").map(Number);
            if (which(contexts[context], page)) model.delete(key);
          }
        };
        for (const one of list) {
          if (one.kind === "insert") {
            const index = tlb.insert(contexts[one.context].id, one.page, 0, one.frame, 0, 0);
            expect(tlb.flags[index] & TLB.VALID).toBe(1);
            model.set(`${one.context}/${one.page}`, one.frame);
          } else if (one.kind === "vpid") {
            tlb.flushVpid(one.vpid, one.keep);
            drop((c) => c.vpid === one.vpid && (c.pcid >= 0 || !one.keep));
          } else if (one.kind === "ept") {
            tlb.flushEpt(one.ept, (own, given) => own === given);
            drop((c) => c.ep4ta === one.ept || c.sharedEp4ta === one.ept);
          } else {
            tlb.flushPage(one.vpid, -1, one.page, 0);
            drop((c, page) => c.vpid === one.vpid && page === one.page);
          }
          // Nothing that was flushed is found; what is found is what was put there.
          contexts.forEach((context, i) => {
            for (let page = 0; page < 8; page++) {
              const at = tlb.find(context.id, page, 0);
              const expected = model.get(`${i}/${page}`);
              if (at >= 0) expect(tlb.frame[at]).toBe(expected);
            }
          });
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe("delivery through the IDT in memory", () => {
  /** An engine that does one thing with the guest and halts. */
  const scripted = (script: (g: GuestContext) => void): ExecutionEngine => ({
    name: "scripted",
    claims: () => true,
    run(g) {
      script(g);
      if (!g.exited) g.vmcall(3);
      return "exit";
    },
  });
  function vm(script: (g: GuestContext) => void) {
    const arena = new Arena({ residentBytes: 16 << 20 });
    const random = new SeededRandom(new Uint8Array(1));
    const memory = new MemoryController(arena, { dramBytes: 64 << 20, random });
    const { lps } = new Processor({ arena, memory, random, engines: [scripted(script)] });
    const lp = lps[0];
    enterVmx(lp);
    const ept = new EptBuilder(
      (at, value) => write64(lp, at, value),
      (at) => read64(lp, at),
      0x80_0000,
    );
    for (let gpa = 0; gpa < 0x20_0000; gpa += 4096) ept.map(gpa, BigInt(0x100_0000 + gpa));
    const put = (gpa: number, value: bigint): void => write64(lp, 0x100_0000 + gpa, value);
    // Page tables: one 2M page, supervisor; GDT with a 64-bit code segment at 8; IDT with gates 13 and 8.
    put(0x8000, 0x9003n);
    put(0x9000, 0xa003n);
    put(0xa000, 0x83n);
    put(0x7008, 0x00209a0000000000n);
    put(0x6000 + 13 * 16, 0x0000_8e00_0008_4560n);
    put(0x6000 + 13 * 16 + 8, 0n);
    put(0x6000 + 8 * 16, 0x0000_8e01_0008_7770n);
    put(0x6000 + 8 * 16 + 8, 0n);
    put(0x5000 + 0x24, 0x4000n);
    setupVmcs(lp, 0x2000, { rip: 0x1234n, eptp: ept.pointer, cr3: 0x8000n });
    for (const [field, value] of [
      [VMCS.GUEST_GDTR_BASE, 0x7000n],
      [VMCS.GUEST_GDTR_LIMIT, 0xfn],
      [VMCS.GUEST_IDTR_BASE, 0x6000n],
      [VMCS.GUEST_IDTR_LIMIT, 14n * 16n - 1n],
      [VMCS.GUEST_TR_BASE, 0x5000n],
      [VMCS.GUEST_RSP, 0x3008n],
      [VMCS.GUEST_RFLAGS, 0x202n],
    ] as const)
      ok(lp.vmwrite(field, value));
    return { lp, put };
  }

  it("pushes the frame and the error code, and enters the gate", () => {
    const { lp } = vm((g) => {
      g.raise(13, 0x10);
      g.deliver();
    });
    expect(lp.vmlaunch()).toEqual({ kind: "exit", reason: ExitReason.VMCALL });
    expect(readField(lp, VMCS.GUEST_RIP)).toBe(0x4560n);
    expect(readField(lp, VMCS.GUEST_RFLAGS)).toBe(2n);
    // SS, RSP, RFLAGS, CS, RIP, error code below the aligned stack.
    const at = (offset: number): bigint => read64(lp, 0x100_0000 + 0x3000 - offset);
    expect([8, 16, 24, 32, 40, 48].map(at)).toEqual([0x10n, 0x3008n, 0x202n, 8n, 0x1234n, 0x10n]);
    expect(readField(lp, VMCS.GUEST_RSP)).toBe(0x3000n - 48n);
  });

  it("makes a double fault of a gate that is missing, on its IST stack", () => {
    const { lp } = vm((g) => {
      g.raise(0);
      g.deliver();
    });
    expect(lp.vmlaunch().kind).toBe("exit");
    expect(readField(lp, VMCS.GUEST_RIP)).toBe(0x7770n);
    expect(readField(lp, VMCS.GUEST_RSP)).toBe(0x4000n - 48n);
    expect(read64(lp, 0x100_0000 + 0x4000 - 48)).toBe(0n);
  });

  it("shuts down when the double fault cannot be delivered either", () => {
    const { lp, put } = vm((g) => {
      g.raise(0);
      g.deliver();
    });
    put(0x6000 + 8 * 16, 0n);
    expect(lp.vmlaunch()).toEqual({ kind: "exit", reason: ExitReason.TRIPLE_FAULT });
  });

  it("tells the VMM what was being delivered when the stack's page is missing", () => {
    const { lp } = vm((g) => {
      g.regs.setGpr(Gpr.RSP, 0x40_0000n);
      g.raise(13, 0);
      g.deliver();
    });
    ok(lp.vmwrite(VMCS.EXCEPTION_BITMAP, 1n << 14n));
    expect(lp.vmlaunch()).toEqual({ kind: "exit", reason: ExitReason.EXCEPTION_OR_NMI });
    expect(readField(lp, VMCS.VM_EXIT_INTR_INFO)).toBe(0x80000b0en);
    expect(readField(lp, VMCS.IDT_VECTORING_INFO_FIELD)).toBe(0x80000b0dn);
    expect(readField(lp, VMCS.EXIT_QUALIFICATION)).toBe(0x3f_fff8n);
  });

  it("keeps control-register rules", () => {
    const steps: string[] = [];
    const { lp } = vm((g) => {
      const to = (cr: number, value: bigint): void => {
        g.regs.setGpr(Gpr.RAX, value);
        const step = g.movToCr(cr, Gpr.RAX, 3);
        steps.push(`CR${cr} ${value.toString(16)} ${step === 1 ? `#${g.event.vector}` : step}`);
      };
      to(0, 0x1_0000_0000n);
      to(0, 0x80000030n);
      to(0, 0xa0000033n);
      to(4, 0x2000n);
      to(4, 0x3020n);
      to(4, 0x8000_2020n);
      to(4, 0x22020n);
      to(3, 1n << 52n);
      to(8, 16n);
      to(8, 15n);
    });
    ok(lp.vmwrite(VMCS.CR4_GUEST_HOST_MASK, 0n));
    expect(lp.vmlaunch().kind).toBe("exit");
    expect(steps).toEqual([
      "CR0 100000000 #13",
      "CR0 80000030 #13",
      "CR0 a0000033 #13",
      "CR4 2000 #13",
      "CR4 3020 #13",
      "CR4 80002020 #13",
      "CR4 22020 0",
      "CR3 10000000000000 #13",
      "CR8 10 #13",
      "CR8 f 0",
    ]);
    expect(lp.regs.get(REG.CR8)).toBe(15n);
  });

  it("knows which XCR0 values exist", () => {
    expect([1n, 3n, 0x203n].every((value) => Guest.validXcr0(value))).toBe(true);
    expect([0n, 2n, 5n, 7n, 0xe7n].some((value) => Guest.validXcr0(value))).toBe(false);
  });
});
