/** The engine around the instructions: budgets, interrupts and shadows, code that changes, faults that keep state. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { FlatEnvironment, REG, Stop, Vector } from "../src/index.js";
import { machine, setMode } from "./machine.js";

/** A machine in 64-bit mode with code at 0x1000. */
function load(...code: number[]) {
  const m = machine();
  m.core.u8.set(code, m.base + 0x1000);
  setMode(m.core, 64);
  m.core.set64(REG.RIP, 0x1000n);
  m.core.set64(32, 0x8000n);
  return m;
}

test("the budget: small ones are exact, larger ones end with a block", () => {
  const { core } = load(0xff, 0xc0, 0xff, 0xc0, 0xff, 0xc0, 0xeb, 0xf8); // three INC EAX and a JMP back
  expect(core.run(1)).toBe(Stop.BUDGET);
  expect([core.get64(0), core.get64(REG.RIP), core.get64(REG.INSTRUCTIONS)]).toEqual([1n, 0x1002n, 1n]);
  expect(core.run(10)).toBe(Stop.BUDGET);
  expect(core.get64(REG.INSTRUCTIONS)).toBeLessThan(16n);
  expect(core.get64(0)).toBe((core.get64(REG.INSTRUCTIONS) * 3n + 2n) / 4n);
});

test("an interrupt waits for the instruction behind STI", () => {
  const { core, environment } = load(0xfb, 0xff, 0xc0, 0xff, 0xc0, 0xf4); // STI, INC EAX twice, HLT
  environment.interrupts.push(0x20);
  core.environment.intercept = () => true;
  // There is no IDT: the delivery ends in an exception that is intercepted, at the interrupted RIP.
  expect(core.run(100)).toBe(Stop.ENVIRONMENT);
  expect([core.get64(0), core.get64(REG.RIP)]).toEqual([1n, 0x1003n]);
});

test("an event that cannot be delivered ends in shutdown", () => {
  const { core, environment } = load(0x0f, 0x0b); // UD2 without an IDT
  expect(core.run(100)).toBe(Stop.SHUTDOWN);
  expect(environment.down).toBe(true);
});

test("a guest that only faults uses its budget up", () => {
  const { core, base } = load(0x0f, 0x0b);
  setMode(core, 16);
  core.set32(REG.IDTR_LIMIT, 0x3ff);
  core.set64(REG.RIP, 0x1000n);
  core.dv.setUint16(base + 6 * 4, 0x1000, true);
  expect(core.run(1000)).toBe(Stop.BUDGET);
});

test("code that changes is decoded again, in whichever way it changes", () => {
  const { core, base, environment } = load(0xb8, 1, 0, 0, 0, 0xf4); // MOV EAX, 1; HLT
  core.run(100);
  expect(core.get64(0)).toBe(1n);
  // From outside: the owner of the memory says so.
  core.u8[base + 0x1001] = 2;
  core.dropCode((base + 0x1000) >> 12, 1, 1);
  environment.halted = false;
  core.set64(REG.RIP, 0x1000n);
  core.run(100);
  expect(core.get64(0)).toBe(2n);
});

test("an instruction across two pages follows changes of either", () => {
  const { core, base, environment } = load(0xe9, 0xf9, 0x0f, 0, 0); // JMP 0x1ffe
  core.u8.set([0xb8, 1, 2, 3, 4, 0xf4], base + 0x1ffe); // MOV EAX, 0x04030201; HLT
  const run = () => {
    environment.halted = false;
    core.set64(REG.RIP, 0x1000n);
    core.run(100);
    return core.get64(0);
  };
  expect([run(), run()]).toEqual([0x4030201n, 0x4030201n]);
  core.u8[base + 0x2002] = 5;
  expect(run()).toBe(0x5030201n);
  core.u8[base + 0x1fff] = 9;
  expect(run()).toBe(0x5030209n);
  core.u8[base + 0x1ffe] = 0xbb; // MOV EBX
  run();
  expect(core.get64(24)).toBe(0x5030209n);
});

test("instructions that CPUID does not offer, and those that are none, raise #UD", () => {
  const absent = machine(1 << 20, (o) => new FlatEnvironment(o), new Set(["popcnt"]));
  for (const [m, code, vector] of [
    [absent, [0xf3, 0x0f, 0xb8, 0xc0], Vector.UD], // POPCNT EAX, EAX
    [machine(), [0xf3, 0x0f, 0xb8, 0xc0], 0],
    [machine(), [0x0f, 0xff, 0xc0], Vector.UD],
  ] as const) {
    m.core.u8.set([...code, 0xf4], m.base + 0x1000);
    setMode(m.core, 64);
    m.core.set64(REG.RIP, 0x1000n);
    m.core.environment.intercept = () => true;
    m.core.run(10);
    expect([m.environment.halted, m.core.event.vector]).toEqual([vector === 0, vector]);
  }
});

test("x87 control words", () => {
  // FNINIT; FNSTCW [0x2000]; FNSTSW AX; HLT
  const { core, base } = load(0xdb, 0xe3, 0xd9, 0x3c, 0x25, 0, 0x20, 0, 0, 0xdf, 0xe0, 0xf4);
  core.set64(0, 0xffffn);
  core.run(100);
  expect([core.dv.getUint16(base + 0x2000, true), core.get64(0)]).toEqual([0x37f, 0n]);
});

test("arbitrary bytes end in an outcome, never in an exception of ours", () => {
  const { core, base, environment } = load();
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 40 }),
      fc.constantFrom(16, 32, 64),
      (bytes, bits) => {
        environment.halted = environment.down = false;
        core.cache.flush();
        core.u8.fill(0xf4, base + 0x1000, base + 0x1100);
        core.u8.set(bytes, base + 0x1000);
        setMode(core, bits);
        core.flushTlb();
        core.set32(REG.IDTR_LIMIT, 0);
        core.set64(REG.RIP, 0x1000n);
        core.set64(32, 0x8000n);
        expect([Stop.BUDGET, Stop.ENVIRONMENT, Stop.SHUTDOWN]).toContain(core.run(200));
      },
    ),
    { numRuns: 400 },
  );
});

test("CLAC and STAC need no CR4.SMAP, but CPL 0", () => {
  const { core } = load(0x0f, 0x01, 0xcb, 0xf4); // STAC; HLT
  core.run(10);
  expect(core.get32(REG.RFLAGS) & 0x40000).toBe(0x40000);
});

test("bases of descriptor tables are 57 bits wide whatever CR4.LA57 is", () => {
  const { core, base, environment } = load(0x0f, 0x01, 0x14, 0x25, 0x00, 0x20, 0, 0, 0xf4); // LGDT [2000h]; HLT
  const wide = 0xffaa_aaaa_aaaa_aaaan;
  core.dv.setBigUint64(base + 0x2002, wide, true);
  core.run(10);
  expect(core.get64(REG.GDTR_BASE)).toBe(wide);
  core.dv.setBigUint64(base + 0x2002, 0xaaaa_aaaa_aaaa_aaaan, true);
  core.environment.intercept = () => true;
  environment.halted = false;
  core.set64(REG.RIP, 0x1000n);
  core.run(10);
  expect([core.event.vector, core.get64(REG.GDTR_BASE)]).toEqual([Vector.GP, wide]);
});

test("on a 16-bit stack the upper half of ESP is kept and does not count", () => {
  const { core, base } = load(0x50, 0x5b, 0x66, 0x50, 0xf4); // PUSH AX; POP BX; PUSH EAX; HLT
  setMode(core, 16);
  core.set64(0, 0x8765_4321n);
  core.set64(32, 0x1234_8000n);
  core.run(10);
  expect(core.get64(32)).toBe(0x1234_7ffcn);
  expect(core.get64(24) & 0xffffn).toBe(0x4321n);
  expect(core.dv.getUint32(base + 0x7ffc, true)).toBe(0x8765_4321);
});

test("the single-step trap of SYSCALL and SYSRET is by TF as they leave it", () => {
  // SYSCALL at 1000h; at 1100h NOP and SYSRET; NOPs where it goes.
  const { core, base } = load(0x0f, 0x05, 0x90, 0x90);
  core.u8.set([0x90, 0x48, 0x0f, 0x07], base + 0x1100);
  core.set32(REG.EFER, 0x501);
  core.set64(REG.LSTAR, 0x1100n);
  core.set64(REG.STAR, (0x13n << 48n) | (8n << 32n));
  core.set64(REG.FMASK, 0x100n);
  core.set32(REG.RFLAGS, 0x102);
  core.environment.intercept = () => true;
  expect(core.run(100)).toBe(Stop.ENVIRONMENT);
  expect([core.event.vector, core.get64(REG.RIP), core.cpl]).toEqual([Vector.DB, 0x1002n, 3]);
});
