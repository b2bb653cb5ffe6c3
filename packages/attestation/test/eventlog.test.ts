import { createHash } from "node:crypto";
import { describe, expect, test } from "vitest";
import fc from "fast-check";
import { type CcEvent, encodeCcEvent, encodeSpecIdEvent, EV } from "@swtdx/abi";
import { describeEventLog, EventLogError, parseEventLog, replayEventLog } from "../src/index.js";

const sha384 = (...parts: Uint8Array[]): Uint8Array => {
  const hash = createHash("sha384");
  for (const part of parts) hash.update(part);
  return new Uint8Array(hash.digest());
};
const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const event = (mrIndex: number, type: number, data: Uint8Array): CcEvent => ({
  mrIndex,
  type,
  digest: sha384(data),
  event: data,
});
const log = (events: readonly CcEvent[], padding = new Uint8Array()): Uint8Array =>
  new Uint8Array(Buffer.concat([encodeSpecIdEvent(), ...events.map(encodeCcEvent), padding]));

const events = [
  event(1, EV.SEPARATOR, new Uint8Array(4)),
  event(2, EV.EFI_ACTION, text("Calling EFI Application from Boot Option")),
  event(3, EV.IPL, text("grub_cmd: linux /vmlinuz")),
  event(1, EV.NO_ACTION, text("not measured")),
  event(1, EV.SEPARATOR, new Uint8Array(4)),
];

describe("reading", () => {
  test("what firmware wrote, up to the padding", () => {
    for (const padding of [new Uint8Array(), new Uint8Array(100), new Uint8Array(100).fill(0xff)]) {
      const bytes = log(events, padding);
      const parsed = parseEventLog(bytes);
      expect(parsed.used).toBe(bytes.length - padding.length);
      expect(
        parsed.events.map(({ mrIndex, type, digest, event }) => ({ mrIndex, type, digest, event })),
      ).toEqual(events);
    }
  });

  test("any events round trip", () => {
    const any = fc.record({
      mrIndex: fc.integer({ min: 1, max: 4 }),
      type: fc.constantFrom(...Object.values(EV)),
      digest: fc.uint8Array({ minLength: 48, maxLength: 48 }),
      event: fc.uint8Array({ maxLength: 80 }),
    });
    fc.assert(
      fc.property(fc.array(any, { maxLength: 10 }), (all) => {
        expect(parseEventLog(log(all)).events).toMatchObject(all);
      }),
    );
  });

  const good = log(events);
  const first = encodeSpecIdEvent().length;
  const change = (at: number, ...bytes: number[]): Uint8Array => {
    const out = good.slice();
    out.set(bytes, at);
    return out;
  };
  test.each([
    ["nothing", new Uint8Array(), "TCG_PCR_EVENT at byte 0: has 32 bytes, but the log has 0"],
    ["another first type", change(4, 4), "EventType at byte 4: is 0x4, expected 0x3 (EV_NO_ACTION)"],
    ["another signature", change(33, 0), 'signature at byte 32: is not "Spec ID Event03"'],
    ["no SHA-384", change(60, 0x0b), "digestSizes at byte 60: has no SHA-384 with 48 bytes"],
    ["many algorithms", change(56, 200), "numberOfAlgorithms at byte 56: is 200"],
    ["a register there is not", change(first, 9), "event 1: CC_EVENT.MrIndex at byte 65: is 9, expected 0"],
    ["two digests", change(first + 8, 2), "event 1: CC_EVENT.DigestCount at byte 73: is 2, expected 1..1"],
    ["another algorithm", change(first + 12, 4), "event 1: CC_EVENT.AlgorithmId at byte 77: is 0x4, which"],
    [
      "a huge event",
      change(first + 62, 0, 0, 0, 1),
      "event 1: CC_EVENT.Event at byte 131: needs 16777216 bytes",
    ],
    ["a cut", good.slice(0, -1), "event 5: CC_EVENT.Event at byte"],
  ])("%s is refused with field and expectation", (_, bytes, message) => {
    expect(() => parseEventLog(bytes)).toThrow(EventLogError);
    expect(() => parseEventLog(bytes)).toThrow(message);
  });

  test("only EventLogError comes out", () => {
    fc.assert(
      fc.property(
        fc.nat(good.length - 1),
        fc.uint8Array({ minLength: 1, maxLength: 6 }),
        fc.boolean(),
        (at, bytes, cut) => {
          const damaged = new Uint8Array(good.length + 6);
          damaged.set(good);
          damaged.set(bytes, at);
          try {
            parseEventLog(cut ? damaged.subarray(0, at) : damaged);
          } catch (error) {
            expect(error).toBeInstanceOf(EventLogError);
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});

test("replay extends the registers as the TDX module does", () => {
  const zero = new Uint8Array(48);
  const separator = sha384(new Uint8Array(4));
  expect(replayEventLog(parseEventLog(log(events)))).toEqual([
    sha384(sha384(zero, separator), separator),
    sha384(zero, events[1].digest),
    sha384(zero, events[2].digest),
    zero,
  ]);
});

test("events are described", () => {
  const name = "SecureBoot";
  const variable = new Uint8Array(32 + 2 * name.length + 1);
  new DataView(variable.buffer).setUint32(16, name.length, true);
  new DataView(variable.buffer).setUint32(24, 1, true);
  variable.set(new Uint8Array(Buffer.from(name, "utf16le")), 32);
  const lines = describeEventLog(
    parseEventLog(
      log([
        event(1, EV.EFI_VARIABLE_DRIVER_CONFIG, variable),
        event(2, EV.EFI_ACTION, text("Exit Boot Services")),
        { ...event(3, EV.IPL, text("kernel")), digest: sha384(text("another")) },
      ]),
    ),
  );
  expect(
    lines.map(({ register, type, detail, hashesEvent }) => [register, type, detail, hashesEvent]),
  ).toEqual([
    ["RTMR[0]", "EV_EFI_VARIABLE_DRIVER_CONFIG", "variable SecureBoot, 1 bytes", true],
    ["RTMR[1]", "EV_EFI_ACTION", '"Exit Boot Services"', true],
    ["RTMR[2]", "EV_IPL", '"kernel"', false],
  ]);
});
