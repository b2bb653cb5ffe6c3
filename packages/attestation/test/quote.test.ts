import { describe, expect, test } from "vitest";
import fc from "fast-check";
import {
  decodeQuote,
  describeQuote,
  encodeQuote,
  QUOTE_FORMS,
  QuoteError,
  verifyQuote,
} from "../src/index.js";
import { makePlatform, NOW } from "./support/platform.js";

const platform = makePlatform();
const quotes = QUOTE_FORMS.map((form) => platform.quote(form));
const v4 = quotes[0];

describe("decoding", () => {
  test.each(QUOTE_FORMS)("%s: encoding what was decoded gives the same bytes", (form) => {
    const quote = platform.quote(form);
    const decoded = decodeQuote(quote);
    expect(encodeQuote(decoded)).toEqual(quote);
    expect(decoded.layout.trailing).toEqual([quote.length, quote.length]);
    expect(decoded.body.fields.MRTD).toEqual(new Uint8Array(48).fill(0xd0));
  });

  test("offsets are those of the specification", () => {
    const { layout } = decodeQuote(v4);
    expect(layout).toMatchObject({
      header: [0, 48],
      body: [48, 632],
      signed: [0, 632],
      signatureSize: [632, 636],
      signature: [636, 700],
      attestationKey: [700, 764],
      qeCertificationHeader: [764, 770],
      qeReport: [770, 1154],
      qeReportSignature: [1154, 1218],
      qeAuthData: [1220, 1252],
    });
    expect(decodeQuote(quotes[2]).layout.signed).toEqual([0, 48 + 6 + 648]);
  });

  test("bytes after the quote are left alone", () => {
    const longer = new Uint8Array(v4.length + 10).fill(7);
    longer.set(v4);
    expect(decodeQuote(longer).layout.trailing).toEqual([v4.length, v4.length + 10]);
  });

  const patched = (at: number, ...bytes: number[]): Uint8Array => {
    const out = v4.slice();
    out.set(bytes, at);
    return out;
  };
  test.each([
    ["nothing", new Uint8Array(), "QUOTE_HEADER at byte 0: has 48 bytes, but 0 are left"],
    ["version 3", patched(0, 3), "QUOTE_HEADER.VERSION at byte 0: is 3, expected 4 or 5"],
    ["P-384", patched(2, 3), "QUOTE_HEADER.ATT_KEY_TYPE at byte 2: is 3, expected 2 (ECDSA P-256)"],
    ["an SGX quote", patched(4, 0), "QUOTE_HEADER.TEE_TYPE at byte 4: is 0x0, expected 0x81 (TDX)"],
    ["half a body", v4.slice(0, 300), "TD_QUOTE_BODY at byte 48: has 584 bytes, but 252 are left"],
    ["a short file", v4.slice(0, 1000), /^signature data length at byte 632: is \d+, but 364 bytes follow$/],
    [
      "signature data too short",
      patched(632, 10, 0, 0, 0),
      "signature at byte 636: has 64 bytes, but 10 are left",
    ],
    ["another certification type", patched(764, 5), "certification data type at byte 764: is 5, expected 6"],
    ["a wrong size", patched(766, 0, 0), /^certification data size at byte 766: is 0, but \d+ bytes/],
    [
      "a long auth data",
      patched(1218, 255, 255),
      /^QE authentication data at byte 1220: has 65535 bytes, but \d+ are left$/,
    ],
    ["an unknown inner type", patched(1252, 9), /type at byte 1252: is 9, expected 1, 2, 3, 4, 5, 7$/],
  ])("%s is refused with field and expectation", (_, bytes, message) => {
    expect(() => decodeQuote(bytes)).toThrow(message);
    expect(() => decodeQuote(bytes)).toThrow(QuoteError);
  });

  test("version 5 body descriptors are checked", () => {
    const v5 = quotes[2];
    const change = (at: number, value: number): Uint8Array => {
      const out = v5.slice();
      out[at] = value;
      return out;
    };
    expect(() => decodeQuote(change(48, 1))).toThrow("QUOTE_BODY_DESCRIPTOR.TYPE at byte 48: is 1, expected");
    expect(() => decodeQuote(change(48, 2))).toThrow("SIZE at byte 50: is 648, expected 584 for type 2");
  });

  test("only QuoteError comes out, and verification never throws", () => {
    const damaged = fc.oneof(
      fc.uint8Array({ maxLength: 800 }),
      fc.tuple(fc.constantFrom(...quotes), fc.nat()).map(([quote, n]) => quote.slice(0, n % quote.length)),
      fc
        .tuple(fc.constantFrom(...quotes), fc.nat(), fc.uint8Array({ minLength: 1, maxLength: 8 }))
        .map(([quote, n, bytes]) => {
          const out = quote.slice();
          out.set(bytes, n % (quote.length - 8));
          return out;
        }),
    );
    const collateral = platform.collateral();
    fc.assert(
      fc.property(damaged, (bytes) => {
        try {
          decodeQuote(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(QuoteError);
        }
        verifyQuote(bytes, { root: platform.root, collateral, now: NOW });
      }),
      { numRuns: 200 },
    );
  });
});

test("describeQuote names every field, its place and meaning", () => {
  const sections = describeQuote(quotes[2]);
  expect(sections.map(({ title }) => title)).toEqual([
    "header",
    "body (TDX 1.5, type 3)",
    "signature data",
    "QE report",
    "certificate 0",
    "certificate 1",
    "certificate 2",
  ]);
  const line = (name: string) =>
    sections.flatMap(({ fields }) => fields).find((field) => field.name === name);
  expect(line("TDATTRIBUTES")).toMatchObject({
    offset: 54 + 120,
    size: 8,
    value: "0x0000000010000000",
    note: "SEPT_VE_DISABLE",
  });
  expect(line("XFAM")!.note).toContain("TILEDATA");
  expect(line("FMSPC")!.value).toBe("F08F065D0000");
});
