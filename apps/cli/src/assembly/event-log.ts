/**
 * How a guest's event log reaches the host, which cannot read a TD's memory: TypeScript guests send it by the debug
 * port in a frame of bytes; /init of the initial RAM disks prints it on the console, where Linux has no other way.
 */
import { gunzipSync } from "node:zlib";
import { FRAME } from "./guest.js";

/** Around the log on a console: gzip'd, in base64. A kernel's message may stand between its lines. */
const BLOCK = /^-----BEGIN CC EVENT LOG-----$(.*?)^-----END CC EVENT LOG-----$/gms;

/** Takes the event log out of what comes through the debug port and the serial port. */
export class EventLogReceiver {
  #debug: number[] = [];
  readonly #serial: Uint8Array[] = [];

  /** Bytes of the debug port. */
  receive(bytes: Uint8Array): void {
    for (const byte of bytes) this.#debug.push(byte);
  }

  /** Bytes of the console. */
  receiveSerial(bytes: Uint8Array): void {
    this.#serial.push(bytes);
  }

  /** The log, once it has come whole; null before. */
  get eventLog(): Uint8Array | null {
    return this.#framed() ?? this.#printed();
  }

  #framed(): Uint8Array | null {
    const all = Uint8Array.from(this.#debug);
    for (let at = 0; at + FRAME.length + 4 <= all.length; at++) {
      if (!FRAME.every((byte, i) => all[at + i] === byte)) continue;
      const start = at + FRAME.length + 4;
      const length = new DataView(all.buffer).getUint32(start - 4, true);
      return start + length <= all.length ? all.slice(start, start + length) : null;
    }
    return null;
  }

  #printed(): Uint8Array | null {
    const text = Buffer.concat(this.#serial).toString("latin1").replaceAll("\r", "");
    const block = [...text.matchAll(BLOCK)].at(-1)?.[1];
    if (block === undefined) return null;
    const lines = block.split("\n").filter((line) => /^[A-Za-z0-9+/]+=*$/.test(line));
    try {
      return new Uint8Array(gunzipSync(Buffer.from(lines.join(""), "base64")));
    } catch {
      return null; // a line was lost, or a message in the midst of one
    }
  }
}
