/** The XSAVE family, by SDM vol. 1 ch. 13. */
import { describe, expect, test } from "vitest";
import { FlatEnvironment, REG, Stop } from "../src/index.js";
import { Vector } from "../src/layout.js";
import { machine, setMode } from "./machine.js";

const CODE = 0x1000;
const DATA = 0x2000;
const [X87, SSE, AVX, PKRU, CET_U] = [1, 2, 4, 0x200, 0x800];
const ALL = X87 | SSE | AVX | PKRU;
const COMPACTED = 1n << 63n;
const HEADER = 512;
const ST0 = 32;
const XMM0 = 160;
const FCW = 0;
const MXCSR = 24;
const AVX_STANDARD = 576;
const PKRU_STANDARD = 0xa80;
/** With the memory operand [rdi] and REX.W. */
const CODES = {
  xsave: [0x48, 0x0f, 0xae, 0x27],
  xsaveopt: [0x48, 0x0f, 0xae, 0x37],
  xsavec: [0x48, 0x0f, 0xc7, 0x27],
  xsaves: [0x48, 0x0f, 0xc7, 0x2f],
  xrstor: [0x48, 0x0f, 0xae, 0x2f],
  xrstors: [0x48, 0x0f, 0xc7, 0x1f],
  xgetbv: [0x0f, 0x01, 0xd0],
} as const;
type Name = keyof typeof CODES;

function start() {
  const { core, base } = machine(0x10000, (options) => new FlatEnvironment(options));
  core.environment.intercept = () => true;
  setMode(core, 64);
  core.set64(REG.XCR0, BigInt(ALL));
  core.set64(56, BigInt(DATA));
  const view = new DataView(core.u8.buffer, base + DATA, 0x2000);
  const run = (name: Name, mask: number): number => {
    core.cache.flush();
    core.u8.set([...CODES[name], 0xf4], base + CODE);
    core.set64(REG.RIP, BigInt(CODE));
    core.set64(0, BigInt(mask));
    core.set64(16, 0n);
    return core.run(1) === Stop.ENVIRONMENT ? core.event.vector : -1;
  };
  return {
    core,
    view,
    run,
    fill: (byte: number) => core.u8.fill(byte, base + DATA, base + DATA + 0x1000),
    q: (at: number) => view.getBigUint64(at, true),
    setQ: (at: number, value: bigint) => view.setBigUint64(at, value, true),
    clear(): void {
      core.set32(REG.FCW, 0x37f);
      core.set32(REG.FSW, 0);
      core.set32(REG.FTW, 0xffff);
      core.set32(REG.MXCSR, 0x1f80);
      core.set32(REG.PKRU, 0);
      core.regs.u8.fill(0, REG.ST, REG.ZMM + 16 * 64);
    },
    use(components: number): void {
      if (components & X87) {
        core.set32(REG.FTW, 0xfffc);
        core.set64(REG.ST, 1n << 63n);
        core.set64(REG.ST + 8, 0x3fffn);
      }
      if (components & SSE) core.set64(REG.ZMM, 0x1111n);
      if (components & AVX) core.set64(REG.ZMM + 16, 0x2222n);
      if (components & PKRU) core.set32(REG.PKRU, 0x55555554);
    },
    state(): unknown {
      return {
        fcw: core.get32(REG.FCW),
        ftw: core.get32(REG.FTW) & 0xffff,
        st0: core.get64(REG.ST),
        mxcsr: core.get32(REG.MXCSR),
        xmm0: core.get64(REG.ZMM),
        ymm0: core.get64(REG.ZMM + 16),
        pkru: core.get32(REG.PKRU),
      };
    },
  };
}
const FORMATS = ["xsave", "xsaveopt", "xsavec", "xsaves"] as const;

describe("saving", () => {
  test.each(FORMATS)("%s and restoring give the state back, for each set of components in use", (name) => {
    const m = start();
    const restore = name === "xsaves" ? "xrstors" : "xrstor";
    for (const used of [0, X87, SSE, AVX, PKRU, X87 | PKRU, SSE | AVX, ALL]) {
      m.clear();
      m.use(used);
      const before = m.state();
      m.fill(0);
      expect(m.run(name, ALL)).toBe(-1);
      expect(m.q(HEADER)).toBe(BigInt(used));
      m.clear();
      m.use(ALL & ~used);
      expect(m.run(restore, ALL)).toBe(-1);
      expect(m.state()).toEqual(before);
    }
  });
  test.each(FORMATS)("%s writes what is asked for and leaves the rest", (name) => {
    const m = start();
    const compacted = name === "xsavec" || name === "xsaves";
    m.clear();
    m.use(ALL);
    m.fill(0xaa);
    const untouched = 0xaaaaaaaaaaaaaaaan;
    m.setQ(HEADER, 0x7n);
    expect(m.run(name, SSE | PKRU)).toBe(-1);
    expect(m.q(ST0)).toBe(untouched);
    expect(m.q(XMM0)).toBe(0x1111n);
    expect(m.view.getUint32(MXCSR, true)).toBe(0x1f80);
    expect(m.q(HEADER)).toBe(compacted ? BigInt(SSE | PKRU) : BigInt(X87 | SSE | AVX | PKRU));
    expect(m.q(HEADER + 8)).toBe(compacted ? COMPACTED | BigInt(SSE | PKRU) : untouched);
    expect(m.q(HEADER + 16)).toBe(untouched);
    expect(m.q(compacted ? AVX_STANDARD : PKRU_STANDARD)).toBe(0x55555554n);
    expect(m.q(compacted ? PKRU_STANDARD : AVX_STANDARD)).toBe(untouched);
  });
  test("the init optimisation leaves out what is initial; XSAVE does not", () => {
    const m = start();
    m.clear();
    m.use(SSE);
    for (const name of FORMATS) {
      m.fill(0xaa);
      m.setQ(HEADER, 0n);
      expect(m.run(name, ALL)).toBe(-1);
      expect(m.q(HEADER)).toBe(BigInt(SSE));
      expect(m.view.getUint16(FCW, true)).toBe(name === "xsave" ? 0x37f : 0xaaaa);
    }
  });
  test("MXCSR alone makes SSE state in the compacted format, and is not in use otherwise", () => {
    const m = start();
    m.clear();
    m.core.set32(REG.MXCSR, 0x1fa0);
    for (const name of FORMATS) {
      m.fill(0);
      expect(m.run(name, ALL)).toBe(-1);
      const compacted = name === "xsavec" || name === "xsaves";
      expect(m.q(HEADER)).toBe(compacted ? BigInt(SSE) : 0n);
      expect(m.view.getUint32(MXCSR, true)).toBe(0x1fa0);
    }
    m.fill(0);
    expect(m.run("xsave", AVX)).toBe(-1);
    expect(m.view.getUint32(MXCSR, true)).toBe(0x1fa0);
    m.fill(0);
    expect(m.run("xsavec", AVX)).toBe(-1);
    expect(m.view.getUint32(MXCSR, true)).toBe(0);
  });
  test("registers behind an empty x87 stack are in use too", () => {
    const m = start();
    m.clear();
    m.core.set64(REG.ST + 16, 5n);
    expect(m.run("xsavec", ALL)).toBe(-1);
    expect(m.q(HEADER)).toBe(BigInt(X87));
    m.clear();
    m.core.set64(REG.FIP, 5n);
    m.core.set64(8, 1n);
    expect(m.run("xgetbv", 0)).toBe(-1);
    expect(m.core.get64(0)).toBe(BigInt(X87));
    m.core.set64(8, 0n);
    expect(m.run("xgetbv", 0)).toBe(-1);
    expect(m.core.get64(0)).toBe(BigInt(ALL));
  });
  test("XSAVES also saves what IA32_XSS has, which XSAVEC does not", () => {
    const m = start();
    const msrs = new Map([
      [0x6a0, 3n],
      [0x6a7, 0x7000n],
    ]);
    m.core.environment.stateMsr = (_core, index) => msrs.get(index) ?? 0n;
    m.core.environment.setStateMsr = (_core, index, value) => {
      msrs.set(index, value);
      return value !== 0x20n;
    };
    m.core.set64(REG.XSS, BigInt(CET_U));
    m.clear();
    m.use(PKRU);
    expect(m.run("xsavec", PKRU | CET_U)).toBe(-1);
    expect(m.q(HEADER + 8)).toBe(COMPACTED | BigInt(PKRU));
    m.fill(0);
    expect(m.run("xsaves", PKRU | CET_U)).toBe(-1);
    expect([m.q(HEADER), m.q(HEADER + 8)]).toEqual([BigInt(PKRU | CET_U), COMPACTED | BigInt(PKRU | CET_U)]);
    expect([576, 584, 592].map(m.q)).toEqual([0x55555554n, 3n, 0x7000n]);
    expect(m.run("xrstor", ALL)).toBe(Vector.GP);
    msrs.clear();
    expect(m.run("xrstors", CET_U)).toBe(-1);
    expect([...msrs.values()]).toEqual([3n, 0x7000n]);
    m.setQ(HEADER, BigInt(PKRU));
    expect(m.run("xrstors", CET_U)).toBe(-1);
    expect([...msrs.values()]).toEqual([0n, 0n]);
    m.setQ(HEADER, BigInt(CET_U));
    m.setQ(584, 0x20n);
    expect(m.run("xrstors", CET_U)).toBe(Vector.GP);
  });
});

describe("restoring", () => {
  test("what is not present becomes initial, what is not asked for stays", () => {
    const m = start();
    m.clear();
    m.use(ALL);
    m.fill(0);
    m.view.setUint32(MXCSR, 0x1fa0, true);
    expect(m.run("xrstor", X87 | AVX)).toBe(-1);
    // In the standard format, MXCSR comes with AVX whether or not SSE state is present.
    expect(m.state()).toEqual({
      fcw: 0x37f,
      ftw: 0xffff,
      st0: 0n,
      mxcsr: 0x1fa0,
      xmm0: 0x1111n,
      ymm0: 0n,
      pkru: 0x55555554,
    });
    m.setQ(HEADER + 8, COMPACTED);
    expect(m.run("xrstor", SSE | PKRU)).toBe(-1);
    expect(m.state()).toMatchObject({ mxcsr: 0x1f80, xmm0: 0n, pkru: 0 });
  });
  test("#GP by the header, MXCSR, alignment, privilege; #UD, #NM", () => {
    const m = start();
    const bad = (name: "xrstor" | "xrstors", set: () => void, mask = ALL) => {
      m.fill(0);
      if (name === "xrstors") m.setQ(HEADER + 8, COMPACTED);
      expect(m.run(name, mask)).toBe(-1);
      set();
      expect(m.run(name, mask)).toBe(Vector.GP);
    };
    const compacted = (bits: number) => m.setQ(HEADER + 8, COMPACTED | BigInt(bits));
    bad("xrstor", () => m.setQ(HEADER, 0x100n));
    bad("xrstor", () => m.setQ(HEADER + 8, 1n));
    bad("xrstor", () => m.setQ(HEADER + 16, 1n));
    bad("xrstor", () => compacted(0x100));
    bad("xrstor", () => m.view.setUint32(MXCSR, 0x10000, true));
    bad("xrstors", () => m.setQ(HEADER + 8, 0n));
    bad("xrstors", () => m.setQ(HEADER, 1n));
    bad("xrstors", () => compacted(CET_U));
    for (let at = 16; at < 64; at += 8) bad("xrstors", () => m.setQ(HEADER + at, 1n));
    // Bytes 63:24 do not matter in the standard format.
    m.fill(0);
    m.setQ(HEADER + 24, 1n);
    expect(m.run("xrstor", ALL)).toBe(-1);
    for (const name of [...FORMATS, "xrstor", "xrstors"] as const) {
      m.core.set64(56, BigInt(DATA + 32));
      expect(m.run(name, ALL)).toBe(Vector.GP);
      m.core.set64(56, BigInt(DATA));
      const cr4 = m.core.get32(REG.CR4);
      m.core.set32(REG.CR4, cr4 & ~0x40000);
      expect(m.run(name, ALL)).toBe(Vector.UD);
      m.core.set32(REG.CR4, cr4);
      m.core.set32(REG.CR0, m.core.get32(REG.CR0) | 8);
      expect(m.run(name, ALL)).toBe(Vector.NM);
      m.core.set32(REG.CR0, m.core.get32(REG.CR0) & ~8);
    }
  });
});
