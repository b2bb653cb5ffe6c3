/** x87 data transfer against JavaScript's own conversions. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { REG } from "../src/index.js";
import { narrow, widen } from "../src/system/x87-move.js";
import { machine, setMode } from "./machine.js";

const SINGLE = { exponent: 8, fraction: 23, bytes: 4 };
const DOUBLE = { exponent: 11, fraction: 52, bytes: 8 };
const view = new DataView(new ArrayBuffer(8));
const doubleBits = (x: number) => (view.setFloat64(0, x), view.getBigUint64(0));
const singleBits = (x: number) => (view.setFloat32(0, x), BigInt(view.getUint32(0)));

test("doubles keep their value; singles round as Math.fround does", () => {
  fc.assert(
    fc.property(fc.oneof(fc.double({ noNaN: true }), fc.float({ noNaN: true })), (x) => {
      const wide = widen(doubleBits(x), DOUBLE);
      expect(narrow(wide, DOUBLE, 0).bits).toBe(doubleBits(x));
      expect(narrow(wide, SINGLE, 0).bits).toBe(singleBits(x));
      const inexact = !Object.is(Math.fround(x), x);
      expect((narrow(wide, SINGLE, 0).flags & 32) !== 0).toBe(inexact);
    }),
    { numRuns: 2000 },
  );
});

test("FILD, FSTP as OpenSSL's RAND_add does it", () => {
  const { core, base } = machine();
  setMode(core, 64);
  // fninit; fild dword [2000h]; fstp qword [2008h]; hlt
  core.u8.set(
    [0xdb, 0xe3, 0xdb, 0x04, 0x25, 0, 0x20, 0, 0, 0xdd, 0x1c, 0x25, 8, 0x20, 0, 0, 0xf4],
    base + 0x1000,
  );
  core.dv.setInt32(base + 0x2000, -128, true);
  core.set64(REG.RIP, 0x1000n);
  core.run(10);
  expect(core.dv.getFloat64(base + 0x2008, true)).toBe(-128);
  expect(core.get32(REG.FSW)).toBe(0);
  expect(core.get32(REG.FTW)).toBe(0xffff);
});
