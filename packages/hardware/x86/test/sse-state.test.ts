/** When SSE and MMX instructions may run, what they raise, and the approximations, whose values Intel only bounds. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { REG, Vector } from "../src/index.js";
import { machine, setMode } from "./machine.js";

const CODE = 0x1000;
const DATA = 0x2000;
const NONE = -1;
const CR0 = { EM: 4, TS: 8, NE: 32 };
const CR4 = { OSFXSR: 0x200, OSXMMEXCPT: 0x400 };
/** Some exception is pending: ES, IE. */
const PENDING = 0x81;

const m = machine();
const { core, base } = m;
core.environment.intercept = () => true;
/** Executes one instruction and returns its exception's vector. @param state what differs; of CR0 bits to turn over */
function execute(
  code: readonly number[],
  state: { cr0?: number; cr4?: number; fsw?: number; mxcsr?: number; rdi?: number } = {},
): number {
  setMode(core, 64);
  core.set32(REG.CR0, core.get32(REG.CR0) ^ (state.cr0 ?? 0));
  core.set32(REG.CR4, state.cr4 ?? CR4.OSFXSR | CR4.OSXMMEXCPT);
  core.set32(REG.FSW, state.fsw ?? 0);
  core.set32(REG.MXCSR, state.mxcsr ?? 0x1f80);
  core.set64(56, BigInt(state.rdi ?? DATA));
  core.set64(REG.RIP, BigInt(CODE));
  core.cache.flush();
  core.u8.set([...code, 0xf4], base + CODE);
  core.event.vector = NONE;
  core.run(1);
  core.flushTlb();
  return core.event.vector;
}
const ADDPS = [0x0f, 0x58, 0xca]; // addps xmm1, xmm2
const ADDPS_MEMORY = [0x0f, 0x58, 0x0f]; // addps xmm1, [rdi]
const ADDSS_MEMORY = [0xf3, 0x0f, 0x58, 0x0f]; // addss xmm1, [rdi]
const PADDB = [0x0f, 0xfc, 0xca]; // paddb mm1, mm2
const EMMS = [0x0f, 0x77];
const CVTPI2PS = [0x0f, 0x2a, 0xca]; // cvtpi2ps xmm1, mm2
const CVTPI2PS_MEMORY = [0x0f, 0x2a, 0x0f]; // cvtpi2ps xmm1, [rdi]
const DIVPS = [0x0f, 0x5e, 0xca]; // divps xmm1, xmm2
const LDMXCSR = [0x0f, 0xae, 0x17];

test.each([
  ["SSE", ADDPS, {}, NONE],
  ["SSE with CR0.EM", ADDPS, { cr0: CR0.EM }, Vector.UD],
  ["SSE with CR0.TS", ADDPS, { cr0: CR0.TS }, Vector.NM],
  ["SSE without CR4.OSFXSR", ADDPS, { cr4: 0, cr0: CR0.TS }, Vector.UD],
  ["SSE with an x87 exception pending", ADDPS, { fsw: PENDING }, NONE],
  ["MMX", PADDB, {}, NONE],
  ["MMX with CR0.EM", PADDB, { cr0: CR0.EM | CR0.TS }, Vector.UD],
  ["MMX with CR0.TS", PADDB, { cr0: CR0.TS, fsw: PENDING }, Vector.NM],
  ["MMX without CR4.OSFXSR", PADDB, { cr4: 0 }, NONE],
  ["MMX with an x87 exception pending", PADDB, { fsw: PENDING }, Vector.MF],
  ["the same without CR0.NE", PADDB, { fsw: PENDING, cr0: CR0.NE }, NONE],
  ["EMMS with CR0.EM", EMMS, { cr0: CR0.EM }, Vector.UD],
  ["EMMS with CR0.TS", EMMS, { cr0: CR0.TS }, Vector.NM],
  ["EMMS with an x87 exception pending", EMMS, { fsw: PENDING }, Vector.MF],
  ["a conversion from mm with an x87 exception pending", CVTPI2PS, { fsw: PENDING }, Vector.MF],
  ["the same from memory", CVTPI2PS_MEMORY, { fsw: PENDING }, NONE],
  ["a packed operand that is not aligned", ADDPS_MEMORY, { rdi: DATA + 8 }, Vector.GP],
  ["a scalar operand that is not aligned", ADDSS_MEMORY, { rdi: DATA + 1 }, NONE],
] as const)("%s", (_name, code, state, vector) => {
  expect(execute(code, state)).toBe(vector);
});

test("an exception that is not masked: #XM, or #UD without CR4.OSXMMEXCPT; the destination stays", () => {
  for (const [cr4, vector] of [
    [CR4.OSFXSR | CR4.OSXMMEXCPT, Vector.XM],
    [CR4.OSFXSR, Vector.UD],
  ] as const) {
    core.regs.u64.fill(0x3f8000003f800000n, (REG.ZMM + 64) / 8, (REG.ZMM + 64) / 8 + 2); // 1.0
    core.regs.u64.fill(0n, (REG.ZMM + 128) / 8, (REG.ZMM + 128) / 8 + 2);
    expect(execute(DIVPS, { cr4, mxcsr: 0x1f80 & ~0x200 })).toBe(vector);
    expect(core.get32(REG.MXCSR)).toBe(0x1d84);
    expect(core.get64(REG.ZMM + 64)).toBe(0x3f8000003f800000n);
  }
});

test("LDMXCSR refuses the reserved bits, among them AMD's misalignment mask", () => {
  for (const [value, vector] of [
    [0xffff, NONE],
    [0x10000, Vector.GP],
    [0x20000, Vector.GP],
    [0x80000000, Vector.GP],
  ] as const) {
    core.dv.setUint32(base + DATA, value, true);
    expect(execute(LDMXCSR)).toBe(vector);
    expect(core.get32(REG.MXCSR)).toBe(vector === NONE ? value : 0x1f80);
  }
});

test("what CPUID does not offer is undefined: AVX, FMA, F16C, GFNI, SSE4a, 3DNow!", () => {
  for (const code of [
    [0xc5, 0xf0, 0x58, 0xca], // vaddps
    [0xc4, 0xe2, 0x71, 0x98, 0xc2], // vfmadd132ps
    [0xc4, 0xe2, 0x79, 0x13, 0xca], // vcvtph2ps
    [0x66, 0x0f, 0x38, 0xcf, 0xca], // gf2p8mulb
    [0x66, 0x0f, 0x79, 0xca], // extrq
    [0xf3, 0x0f, 0x2b, 0x0f], // movntss
    [0x0f, 0x0f, 0xca, 0x9e], // pfadd
  ])
    expect(execute(code)).toBe(Vector.UD);
});

test("MMX instructions take the x87 stack over: top 0, all registers valid, ones above the one that is written", () => {
  for (let top = 0; top < 8; top++) {
    for (let n = 0; n < 8; n++) core.set64(REG.ST + n * 16, BigInt(n));
    core.set32(REG.FTW, 0xffff);
    expect(execute([0x0f, 0x6f, 0xca], { fsw: top << 11 })).toBe(NONE); // movq mm1, mm2
    expect(core.get32(REG.FSW)).toBe(0);
    expect(core.get32(REG.FTW)).toBe(0);
    for (let n = 0; n < 8; n++) expect(core.get64(REG.ST + n * 16)).toBe(BigInt(n === 1 ? 2 : n));
    expect(core.get64(REG.ST + 24) & 0xffffn).toBe(0xffffn);
  }
});

test.each([
  ["paddb mm1, [rdi]", [0x0f, 0xfc, 0x0f]],
  ["movq [rdi], mm1", [0x0f, 0x7f, 0x0f]],
  ["pinsrw mm1, [rdi], 1", [0x0f, 0xc4, 0x0f, 1]],
  ["maskmovq mm1, mm2", [0x0f, 0xf7, 0xca]],
  ["cvtps2pi mm1, [rdi]", [0x0f, 0x2d, 0x0f]],
  ["divss xmm1, [rdi]", [0xf3, 0x0f, 0x5e, 0x0f]],
] as const)("%s: a fault of the access leaves x87 state and MXCSR alone", (_name, code) => {
  for (const n of [1, 2]) core.set64(REG.ST + n * 16, -1n & 0xffffffffffffffffn);
  expect(execute(code, { fsw: 3 << 11, rdi: 2 ** 47 })).toBe(Vector.GP);
  expect([core.get32(REG.FSW), core.get32(REG.FTW), core.get32(REG.MXCSR)]).toEqual([
    3 << 11,
    0xffff,
    0x1f80,
  ]);
});

const number = new DataView(new ArrayBuffer(4));
const bitsOf = (x: number) => (number.setFloat32(0, x), number.getUint32(0));
const single = (bits: number) => (number.setUint32(0, bits), number.getFloat32(0));
/** The result of RCPSS or RSQRTSS xmm1, xmm2, as bits. */
function approximation(opcode: number, bits: number): number {
  core.set64(REG.ZMM + 128, BigInt(bits >>> 0));
  expect(execute([0xf3, 0x0f, opcode, 0xca])).toBe(NONE);
  expect(core.get32(REG.MXCSR)).toBe(0x1f80);
  return core.get32(REG.ZMM + 64) >>> 0;
}
const BOUND = 1.5 * 2 ** -12;

test("RCPSS and RSQRTSS: specials without exceptions, the rest within 1.5 · 2^-12", () => {
  const [rcp, rsqrt] = [0x53, 0x52];
  // operand, 1/x, 1/√x
  for (const [x, reciprocal, root] of [
    [0, 0x7f800000, 0x7f800000],
    [0x80000000, 0xff800000, 0xff800000],
    [0x00000001, 0x7f800000, 0x7f800000],
    [0x807fffff, 0xff800000, 0xff800000],
    [0x7f800000, 0, 0],
    [0xff800000, 0x80000000, 0xffc00000],
    [0xbf800000, 0xbf7ff000, 0xffc00000],
    [0x7f800001, 0x7fc00001, 0x7fc00001],
    [0xffc12345, 0xffc12345, 0xffc12345],
    [0x7f7fffff, 0, 0x1f800800],
    [0x3f800000, 0x3f7ff000, 0x3f7ff000],
  ] as const) {
    expect([x, approximation(rcp, x), approximation(rsqrt, x)]).toEqual([x, reciprocal, root]);
  }
  fc.assert(
    fc.property(fc.integer({ min: bitsOf(2 ** -126), max: bitsOf(2 ** 125) }), (bits) => {
      const x = single(bits);
      expect(Math.abs(single(approximation(rcp, bits)) * x - 1)).toBeLessThan(BOUND);
      expect(Math.abs(single(approximation(rsqrt, bits)) * Math.sqrt(x) - 1)).toBeLessThan(BOUND);
    }),
    { numRuns: 300 },
  );
});
