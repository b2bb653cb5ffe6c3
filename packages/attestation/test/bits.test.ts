/**
 * Every bit of what a quote signs or certifies counts: whichever is flipped, dcap-qvl and verifyQuote refuse.
 *
 * What is outside of it was measured once on a version 4 quote of 5310 bytes:
 *  - verifyQuote accepts none of the flips tried, samples of every part;
 *  - dcap-qvl, every bit tried, accepts those in bytes
 *      764-765    type of the outer certification data,
 *      1254-1255  size of the PCK chain, where the chain is cut inside its last certificate,
 *      3123, 3125-3126  the end of the PCK certificate's base64: spare bits, padding, line break,
 *      3152       the line break between two certificates,
 *      from 4234  the third certificate's PEM block, when it is then no PEM block any more (the root is the
 *                 verifier's own), and the NUL at its end.
 * Not single bits, and accepted by both: (r, n - s) in place of a signature (r, s), which ECDSA allows.
 */
import { describe, expect, test } from "vitest";
import fc from "fast-check";
import {
  type Collateral,
  decodeQuote,
  parseCertificate,
  parsePem,
  QUOTE_FORMS,
  type Range,
  toPem,
  verifyQuote,
} from "../src/index.js";
import { judge } from "./support/judge.js";
import { makePlatform, NOW } from "./support/platform.js";

const platform = makePlatform();
const { root } = platform;
const collateral = platform.collateral();

const accepts = (quote: Uint8Array, with_: Collateral = collateral) => ({
  own: verifyQuote(quote, { root, collateral: with_, now: NOW }).ok,
  other: judge(quote, root, with_, NOW).ok,
});
const NOBODY = { own: false, other: false };

const flipped = (bytes: Uint8Array, bit: number): Uint8Array => {
  const out = bytes.slice();
  out[bit >> 3] ^= 1 << (bit & 7);
  return out;
};

/** The parts of a quote by name, all of it that somebody signed. */
function parts(quote: Uint8Array): [string, Range][] {
  const { layout } = decodeQuote(quote);
  return [
    ["header", layout.header],
    ["body", layout.body],
    ["header, descriptor and body", layout.signed],
    ["signature", layout.signature],
    ["attestation key", layout.attestationKey],
    ["QE report", layout.qeReport],
    ["QE report signature", layout.qeReportSignature],
    ["QE authentication data", layout.qeAuthData],
  ];
}

describe.each(QUOTE_FORMS)("a quote of form %s with any single bit flipped", (form) => {
  const quote = platform.quote(form);
  test("is accepted without", () => expect(accepts(quote)).toEqual({ own: true, other: true }));
  test.each(parts(quote))("in %s is refused", (_, [start, end]) => {
    fc.assert(
      fc.property(fc.integer({ min: start * 8, max: end * 8 - 1 }), (bit) => {
        expect(accepts(flipped(quote, bit))).toEqual(NOBODY);
      }),
      { numRuns: 20 },
    );
  });
});

describe("a PCK chain with any single bit of a certificate flipped", () => {
  const quote = platform.quote();
  const { layout } = decodeQuote(quote);
  const text = new TextDecoder().decode(quote.subarray(...layout.certification));
  const ders = parsePem(text);
  /** The quote with another chain of the same length. */
  const withChain = (chain: string): Uint8Array => {
    const out = quote.slice();
    out.set(new TextEncoder().encode(chain), layout.certification[0]);
    return out;
  };
  test.each([
    ["PCK", 0],
    ["Platform CA", 1],
    ["root CA", 2],
  ])("in the signed part or the signature of %s is refused", (_, index) => {
    const der = ders[index];
    const { tbs } = parseCertificate(der);
    const start = tbs.byteOffset - der.byteOffset;
    fc.assert(
      fc.property(fc.integer({ min: start * 8, max: der.length * 8 - 1 }), (bit) => {
        const chain = ders.map((each, i) => toPem("CERTIFICATE", i === index ? flipped(each, bit) : each));
        expect(accepts(withChain(chain.join("")))).toEqual(NOBODY);
      }),
      { numRuns: 40 },
    );
  });
  test("in the text of the chain is refused by verifyQuote", () => {
    const [start, end] = layout.certification;
    fc.assert(
      fc.property(fc.integer({ min: start * 8, max: end * 8 - 1 }), (bit) => {
        expect(accepts(flipped(quote, bit)).own).toBe(false);
      }),
      { numRuns: 40 },
    );
  });
});

describe("collateral with any single bit flipped", () => {
  const quote = platform.quote();
  const flippedText = (text: string, bit: number): string =>
    new TextDecoder("latin1").decode(flipped(new TextEncoder().encode(text), bit));
  const flippedHex = (text: string, bit: number): string =>
    Buffer.from(flipped(Buffer.from(text, "hex"), bit)).toString("hex");

  test.each(["tcb_info", "qe_identity"] as const)("in %s is refused", (field) => {
    fc.assert(
      fc.property(fc.nat(collateral[field].length * 8 - 1), (bit) => {
        const changed = { ...collateral, [field]: flippedText(collateral[field], bit) };
        expect(accepts(quote, changed)).toEqual(NOBODY);
      }),
      { numRuns: 40 },
    );
  });
  test.each(["tcb_info_signature", "qe_identity_signature"] as const)("in %s is refused", (field) => {
    fc.assert(
      fc.property(fc.nat(64 * 8 - 1), (bit) => {
        const changed = { ...collateral, [field]: flippedHex(collateral[field], bit) };
        expect(accepts(quote, changed)).toEqual(NOBODY);
      }),
      { numRuns: 40 },
    );
  });
  test.each(["root_ca_crl", "pck_crl"] as const)(
    "in %s is refused by verifyQuote (dcap-qvl does not check the lists' signatures)",
    (field) => {
      fc.assert(
        fc.property(fc.nat(collateral[field].length * 4 - 1), (bit) => {
          const changed = { ...collateral, [field]: flippedHex(collateral[field], bit) };
          expect(accepts(quote, changed).own).toBe(false);
        }),
        { numRuns: 40 },
      );
    },
  );
});

describe("what nobody signed", () => {
  const quote = platform.quote();
  const { layout } = decodeQuote(quote);
  const text = new TextDecoder("latin1").decode(quote);
  test.each([
    ["the type of the outer certification data", layout.qeCertificationHeader[0]],
    ["a line break between two certificates", text.indexOf("-----BEGIN", layout.certification[0] + 1) - 1],
    ["the label of the root's PEM block", text.lastIndexOf("-----BEGIN") + 7],
    ["the NUL after the chain", quote.length - 1],
  ])("%s: dcap-qvl does not mind, verifyQuote does", (_, at) => {
    expect(accepts(flipped(quote, at * 8))).toEqual({ own: false, other: true });
  });
  test("bytes after the quote are ignored by both", () => {
    expect(accepts(new Uint8Array([...quote, 1, 2, 3]))).toEqual({ own: true, other: true });
  });
});
