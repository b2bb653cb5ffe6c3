import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  decodeGuid,
  decodeProgramHeader,
  decodeProgramStub,
  decodeUcs2,
  efiArguments,
  efiCall,
  encodeGuid,
  encodeProgramPe,
  encodeUcs2,
  mrIndexOfPcr,
  parsePe,
  viewOf,
} from "../src/index.js";
import { flatMemory, runGuest } from "../../edk2/test/support/run.js";

const data = Uint8Array.from({ length: 5000 }, (_, i) => i & 0xff);
const image = encodeProgramPe("@swtdx/test:program", [
  { name: ".cfg", data: new TextEncoder().encode("boot") },
  { name: ".data", data },
]);

describe("a program's PE image", () => {
  it("parses, with its entry point at the program's stub", () => {
    const pe = parsePe(image);
    if ("error" in pe) throw new Error(pe.error);
    expect(pe.sizeOfImage).toBe(image.length);
    expect(pe.sections.map(({ name, virtualSize }) => [name, virtualSize])).toEqual([
      [".text", expect.any(Number)],
      [".cfg", 4],
      [".data", data.length],
    ]);
    const { virtualAddress } = pe.sections[2];
    expect(image.slice(virtualAddress, virtualAddress + data.length)).toEqual(data);
    const distance = decodeProgramStub(image.subarray(pe.entryPoint))!;
    expect(decodeProgramHeader(image.subarray(pe.entryPoint + distance))).toEqual({
      name: "@swtdx/test:program",
    });
  });
  it("is refused when something lies outside of it", () => {
    const nt = 64;
    const cases: [number, number, string][] = [
      [0, 0, "no MZ signature"],
      [60, 0x7fff_0000, "NT headers outside the file"],
      [nt, 0, "no PE signature"],
      [nt + 4, 0x14c | (3 << 16), "not an x86-64 image"],
      [nt + 24, 0x10b, "not PE32+"],
      [nt + 6, 0xffff, "section table outside the file"],
      [nt + 40, 0x7fff_ffff, "entry point outside the image"],
      [nt + 84, image.length + 1, "headers outside the file"],
      [nt + 80, 0x800, "headers outside the image"],
      [nt + 80, 0x1800, "section .cfg outside the image"],
      [nt + 132, 17, "more than 16 data directories"],
      [nt + 136 + 8 * 4 + 4, 0xffff_ffff, "certificate table outside the file"],
      [nt + 264 + 20, image.length, "section .text outside the file"],
    ];
    for (const [at, value, error] of cases) {
      const bad = image.slice();
      if (at === nt + 6) viewOf(bad).setUint16(at, value, true);
      else viewOf(bad).setUint32(at, value, true);
      expect(parsePe(bad)).toEqual({ error });
    }
    expect(() => encodeProgramPe("p", [{ name: "too long.", data }])).toThrow(RangeError);
  });
  it("never makes the parser throw, however cut or changed", () => {
    fc.assert(
      fc.property(fc.nat(image.length), (length) => {
        const out = parsePe(image.subarray(0, length));
        expect("error" in out || length === image.length).toBe(true);
      }),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(600), fc.nat(255)), { minLength: 1, maxLength: 6 }), (changes) => {
        const bad = image.slice();
        for (const [at, value] of changes) bad[at] = value;
        const pe = parsePe(bad);
        if ("error" in pe) return;
        expect(pe.sizeOfHeaders).toBeLessThanOrEqual(Math.min(bad.length, pe.sizeOfImage));
        for (const one of pe.sections) {
          expect(one.rawOffset + one.rawSize).toBeLessThanOrEqual(bad.length);
          expect(one.virtualAddress + one.virtualSize).toBeLessThanOrEqual(pe.sizeOfImage);
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("GUIDs and strings", () => {
  it("have their mixed byte order", () => {
    expect(Buffer.from(encodeGuid("00112233-4455-6677-8899-aabbccddeeff")).toString("hex")).toBe(
      "33221100554477668899aabbccddeeff",
    );
  });
  it("survive both ways", () => {
    fc.assert(fc.property(fc.uuid(), (guid) => decodeGuid(encodeGuid(guid)) === guid));
    fc.assert(
      fc.property(fc.string({ unit: "grapheme-ascii" }), (text) => decodeUcs2(encodeUcs2(text)) === text),
    );
    expect(() => encodeGuid("no GUID")).toThrow();
  });
  it("maps PCRs to measurement registers as UEFI 2.10, table 38.1 says", () => {
    expect(Array.from({ length: 17 }, (_, pcr) => mrIndexOfPcr(pcr))).toEqual([
      ...[0, 1, 2, 2, 2, 2, 2, 1],
      ...Array<number>(8).fill(3),
      null,
    ]);
  });
});

describe("EFI's calling convention", () => {
  it("hands over any number of arguments", () => {
    fc.assert(
      fc.property(fc.array(fc.bigInt(0n, 2n ** 64n - 1n), { maxLength: 9 }), (values) => {
        let regs: Record<string, bigint> = { rsp: 0x1ff8n };
        let got: bigint[] = [];
        const { answer } = flatMemory(0x2000, (op) => {
          if (op.op === "getRegs") return regs;
          if (op.op !== "call") throw new Error(op.op);
          expect(op.regs.rsp! % 16n).toBe(0n);
          // CALL pushes the return address.
          regs = { ...regs, ...op.regs, rsp: op.regs.rsp! - 8n };
          got = runGuest(efiArguments(regs as never, values.length), answer);
          return { ...regs, rax: 7n };
        });
        expect(runGuest(efiCall(0x1000, ...values), answer)).toBe(7n);
        expect(got).toEqual(values);
      }),
    );
  });
});
