import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { EventLogReceiver } from "../src/assembly/event-log.js";
import { frame } from "../src/assembly/guest.js";

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

/** What busybox's `gzip | base64` prints, as a console has it. */
const printed = (log: Uint8Array): string => {
  const lines = gzipSync(log)
    .toString("base64")
    .match(/.{1,76}/g)!;
  const block = ["-----BEGIN CC EVENT LOG-----", ...lines, "-----END CC EVENT LOG-----"];
  return `init: event log\r\n${block.join("\r\n")}\r\ninit: power off\r\n`;
};

/** Feeds bytes in pieces. */
function feed(put: (bytes: Uint8Array) => void, bytes: Uint8Array, size: number): void {
  for (let at = 0; at < bytes.length; at += size) put(bytes.subarray(at, at + size));
}

describe("the event log comes", () => {
  test("by the debug port, amid a firmware's messages", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 300 }),
        fc.string(),
        fc.integer({ min: 1, max: 50 }),
        (log, text, size) => {
          const receiver = new EventLogReceiver();
          feed((bytes) => receiver.receive(bytes), utf8(text), size);
          expect(receiver.eventLog).toBeNull();
          const bytes = frame(log);
          feed((piece) => receiver.receive(piece), bytes.subarray(0, -1), size);
          expect(receiver.eventLog).toBeNull();
          receiver.receive(bytes.subarray(-1));
          receiver.receive(utf8(text));
          expect(receiver.eventLog).toEqual(log);
        },
      ),
    );
  });

  test("by the console", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 3000 }), fc.integer({ min: 1, max: 200 }), (log, size) => {
        const receiver = new EventLogReceiver();
        feed((bytes) => receiver.receiveSerial(bytes), utf8(printed(log)), size);
        expect(receiver.eventLog).toEqual(log);
      }),
    );
  });

  test("by the console, with a kernel's message between the lines", () => {
    const log = Uint8Array.from({ length: 1000 }, (_, i) => (i * i) >> 3);
    const lines = printed(log).split("\r\n");
    lines.splice(4, 0, "[    1.234567] random: crng init done");
    const receiver = new EventLogReceiver();
    receiver.receiveSerial(utf8(lines.join("\r\n")));
    expect(receiver.eventLog).toEqual(log);
  });

  test("not when a line of it is lost", () => {
    const log = Uint8Array.from({ length: 1000 }, (_, i) => (i * i) >> 3);
    const lines = printed(log).split("\r\n");
    lines.splice(4, 1);
    const receiver = new EventLogReceiver();
    receiver.receiveSerial(utf8(lines.join("\r\n")));
    expect(receiver.eventLog).toBeNull();
  });
});
