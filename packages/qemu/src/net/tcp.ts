/**
 * One end of a TCP connection over a link that loses little: sequence numbers, windows, retransmission from the last
 * acknowledged byte, orderly and abortive ends; neither options but the segment size nor congestion control. RFC 9293.
 */
import { viewOf } from "@swtdx/abi";
import type { Timer } from "../clock.js";
import type { ByteStream } from "./byte-stream.js";

export const TCP_FLAG = { FIN: 0x01, SYN: 0x02, RST: 0x04, PSH: 0x08, ACK: 0x10 } as const;
const HEADER = {
  SOURCE: 0,
  DESTINATION: 2,
  SEQUENCE: 4,
  ACK: 8,
  OFFSET: 12,
  FLAGS: 13,
  WINDOW: 14,
  SIZE: 20,
} as const;
export const TCP_CHECKSUM_OFFSET = 16;
const OPTION = { END: 0, NOP: 1, MSS: 2 } as const;
/** What Ethernet carries, and what everybody must take. */
const MSS = { OURS: 1460, DEFAULT: 536, MIN: 64 } as const;
const WINDOW = 0xffff;
const RETRANSMIT_NS = 1e9;
const RETRANSMISSIONS = 8;

export interface TcpSegment {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly sequence: number;
  readonly ack: number;
  readonly flags: number;
  readonly window: number;
  /** The sender's largest segment, in a segment with SYN. */
  readonly mss?: number;
  readonly payload: Uint8Array;
}

/** @returns null for what is no segment. The checksum is the caller's to check. */
export function parseTcp(bytes: Uint8Array): TcpSegment | null {
  if (bytes.length < HEADER.SIZE) return null;
  const view = viewOf(bytes);
  const data = (bytes[HEADER.OFFSET] >> 4) * 4;
  if (data < HEADER.SIZE || data > bytes.length) return null;
  return {
    sourcePort: view.getUint16(HEADER.SOURCE),
    destinationPort: view.getUint16(HEADER.DESTINATION),
    sequence: view.getUint32(HEADER.SEQUENCE),
    ack: view.getUint32(HEADER.ACK),
    flags: bytes[HEADER.FLAGS],
    window: view.getUint16(HEADER.WINDOW),
    mss: parseMss(bytes.subarray(HEADER.SIZE, data)),
    payload: bytes.subarray(data),
  };
}

function parseMss(options: Uint8Array): number | undefined {
  for (let at = 0; at < options.length && options[at] !== OPTION.END;) {
    if (options[at] === OPTION.NOP) at++;
    else {
      const length = options[at + 1];
      if (length === undefined || length < 2) return undefined;
      if (options[at] === OPTION.MSS && at + 4 <= options.length) return viewOf(options).getUint16(at + 2);
      at += length;
    }
  }
  return undefined;
}

/** The checksum is left zero. */
export function buildTcp(segment: TcpSegment): Uint8Array {
  const options = segment.mss === undefined ? 0 : 4;
  const out = new Uint8Array(HEADER.SIZE + options + segment.payload.length);
  const view = viewOf(out);
  view.setUint16(HEADER.SOURCE, segment.sourcePort);
  view.setUint16(HEADER.DESTINATION, segment.destinationPort);
  view.setUint32(HEADER.SEQUENCE, segment.sequence);
  view.setUint32(HEADER.ACK, segment.ack);
  out[HEADER.OFFSET] = ((HEADER.SIZE + options) / 4) << 4;
  out[HEADER.FLAGS] = segment.flags;
  view.setUint16(HEADER.WINDOW, segment.window);
  if (segment.mss !== undefined) {
    out.set([OPTION.MSS, 4], HEADER.SIZE);
    view.setUint16(HEADER.SIZE + 2, segment.mss);
  }
  out.set(segment.payload, HEADER.SIZE + options);
  return out;
}

/** The answer to a segment that belongs to no connection, or null. */
export function refuse(segment: TcpSegment): TcpSegment | null {
  if (segment.flags & TCP_FLAG.RST) return null;
  const answered = (segment.flags & TCP_FLAG.ACK) !== 0;
  const length =
    segment.payload.length + (segment.flags & TCP_FLAG.SYN ? 1 : 0) + (segment.flags & TCP_FLAG.FIN ? 1 : 0);
  return {
    sourcePort: segment.destinationPort,
    destinationPort: segment.sourcePort,
    sequence: answered ? segment.ack : 0,
    ack: answered ? 0 : (segment.sequence + length) >>> 0,
    flags: answered ? TCP_FLAG.RST : TCP_FLAG.RST | TCP_FLAG.ACK,
    window: 0,
    payload: new Uint8Array(),
  };
}

export interface TcpOptions {
  readonly localPort: number;
  readonly remotePort: number;
  readonly peer: string;
  /** Initial send sequence number. */
  readonly initialSequence: number;
  readonly now: () => number;
  createTimer(callback: () => void): Timer;
  send(segment: TcpSegment): void;
}

/** a - b of sequence numbers, signed. */
const after = (a: number, b: number): number => (a - b) | 0;

export class TcpConnection implements ByteStream {
  onData: (data: Uint8Array) => void = () => {};
  onEnd: () => void = () => {};
  onClose: () => void = () => {};
  /** For whoever keeps connections: this one is there, it is gone. */
  onOpen: () => void = () => {};
  onGone: () => void = () => {};
  readonly #timer: Timer;
  #open = false;
  #closed = false;
  /** First byte that is not acknowledged, next one to send, and one past the last ever sent. */
  #unacknowledged: number;
  #next: number;
  #highest: number;
  #window = 0;
  #mss: number = MSS.DEFAULT;
  /** Next byte expected; null until the other end's SYN came. */
  #expected: number | null = null;
  /** Bytes from #unacknowledged on (after our SYN). */
  #buffer: Uint8Array = new Uint8Array();
  #ended = false;
  #otherEnded = false;
  #tries = 0;

  constructor(private readonly options: TcpOptions) {
    this.#unacknowledged = this.#next = this.#highest = options.initialSequence >>> 0;
    this.#timer = options.createTimer(() => this.#timeout());
  }

  get peer(): string {
    return this.options.peer;
  }

  /** Asks the other end for the connection. */
  connect(): void {
    this.#output();
  }

  write(data: Uint8Array): void {
    if (this.#ended || this.#closed || data.length === 0) return;
    const joined = new Uint8Array(this.#buffer.length + data.length);
    joined.set(this.#buffer);
    joined.set(data, this.#buffer.length);
    this.#buffer = joined;
    if (this.#open) this.#output();
  }

  end(): void {
    if (this.#ended || this.#closed) return;
    this.#ended = true;
    if (this.#open) this.#output();
  }

  abort(): void {
    if (this.#closed) return;
    this.#transmit(TCP_FLAG.RST | TCP_FLAG.ACK, this.#next);
    this.#close();
  }

  receive(segment: TcpSegment): void {
    if (this.#closed) return;
    if (segment.flags & TCP_FLAG.RST) {
      // Only one that is in the window: others are old or forged.
      const expected = this.#expected;
      const inWindow =
        expected === null ? segment.ack === this.#highest : after(segment.sequence, expected) >= 0;
      if (inWindow) this.#close();
      return;
    }
    if (segment.flags & TCP_FLAG.SYN && !this.#synchronize(segment)) return;
    if (this.#expected === null || !(segment.flags & TCP_FLAG.ACK) || !this.#acknowledge(segment)) return;
    this.#take(segment);
    if (!this.#closed && this.#open) this.#output();
  }

  /** The other end's SYN. @returns false when there is nothing more to do with the segment. */
  #synchronize(segment: TcpSegment): boolean {
    if (this.#expected !== null) {
      // Ours was lost, or its answer was.
      this.#next = this.#unacknowledged;
      if (this.#open) this.#transmit(TCP_FLAG.ACK, this.#highest);
      else this.#output();
      return false;
    }
    this.#expected = (segment.sequence + 1) >>> 0;
    this.#mss = Math.max(MSS.MIN, Math.min(segment.mss ?? MSS.DEFAULT, MSS.OURS));
    this.#window = segment.window;
    if (!(segment.flags & TCP_FLAG.ACK)) this.#output();
    return true;
  }

  #acknowledge(segment: TcpSegment): boolean {
    const advance = after(segment.ack, this.#unacknowledged);
    if (after(segment.ack, this.#highest) > 0) {
      this.#transmit(TCP_FLAG.ACK, this.#highest);
      return false;
    }
    if (advance < 0) return true;
    this.#window = segment.window;
    if (advance === 0) return true;
    let bytes = advance;
    if (!this.#open) {
      bytes--;
      this.#open = true;
      this.#unacknowledged = segment.ack;
      if (segment.flags & TCP_FLAG.SYN) this.#transmit(TCP_FLAG.ACK, segment.ack);
      this.onOpen();
    }
    const finAcknowledged = bytes > this.#buffer.length;
    this.#buffer = this.#buffer.subarray(Math.min(bytes, this.#buffer.length));
    this.#unacknowledged = segment.ack;
    if (after(this.#next, this.#unacknowledged) < 0) this.#next = this.#unacknowledged;
    this.#tries = 0;
    this.#arm();
    if (finAcknowledged) {
      this.#finAcknowledged = true;
      if (this.#otherEnded) this.#close();
    }
    return true;
  }
  #finAcknowledged = false;

  /** Data and the end of it, if they are next in order; anything else is answered with what is expected. */
  #take(segment: TcpSegment): void {
    const { payload, flags } = segment;
    const expected = this.#expected!;
    const sequence = flags & TCP_FLAG.SYN ? segment.sequence + 1 : segment.sequence;
    const fin = (flags & TCP_FLAG.FIN) !== 0;
    if (payload.length === 0 && !fin) {
      // A probe of a connection that is alive lies before what is expected.
      if (this.#open && after(sequence, expected) < 0) this.#transmit(TCP_FLAG.ACK, this.#highest);
      return;
    }
    const skip = after(expected, sequence);
    if (skip >= 0 && skip <= payload.length && !this.#otherEnded) {
      const fresh = payload.subarray(skip);
      this.#expected = (expected + fresh.length + (fin ? 1 : 0)) >>> 0;
      this.#otherEnded = fin;
      this.#transmit(TCP_FLAG.ACK, this.#highest);
      if (fresh.length > 0) this.onData(fresh.slice());
      if (fin) {
        this.onEnd();
        if (this.#finAcknowledged) this.#close();
      }
    } else this.#transmit(TCP_FLAG.ACK, this.#highest);
  }

  /** Sends what the window has room for, from #next on. */
  #output(): void {
    if (!this.#open) {
      this.#transmit(
        this.#expected === null ? TCP_FLAG.SYN : TCP_FLAG.SYN | TCP_FLAG.ACK,
        this.#unacknowledged,
      );
      this.#sent((this.#unacknowledged + 1) >>> 0);
      return;
    }
    for (;;) {
      const at = after(this.#next, this.#unacknowledged);
      const room = this.#window - at;
      const payload = this.#buffer.subarray(at, at + Math.min(this.#mss, Math.max(0, room)));
      const last = at + payload.length === this.#buffer.length;
      const fin = this.#ended && last && at <= this.#buffer.length;
      if (payload.length === 0 && !fin) break;
      this.#transmit(
        TCP_FLAG.ACK | (payload.length > 0 && last ? TCP_FLAG.PSH : 0) | (fin ? TCP_FLAG.FIN : 0),
        this.#next,
        payload,
      );
      this.#sent((this.#next + payload.length + (fin ? 1 : 0)) >>> 0);
      if (fin) break;
    }
    this.#arm();
  }

  #sent(next: number): void {
    this.#next = next;
    if (after(next, this.#highest) > 0) this.#highest = next;
    this.#arm();
  }

  #arm(): void {
    const waiting = this.#highest !== this.#unacknowledged || this.#buffer.length > 0;
    this.#timer.set(waiting && !this.#closed ? this.options.now() + RETRANSMIT_NS * 2 ** this.#tries : null);
  }

  #timeout(): void {
    if (this.#closed) return;
    if (++this.#tries > RETRANSMISSIONS) return this.abort();
    this.#next = this.#unacknowledged;
    // A window that is shut is probed with one byte.
    if (this.#open && this.#window === 0) {
      this.#transmit(TCP_FLAG.ACK, this.#next, this.#buffer.subarray(0, 1));
      this.#sent((this.#next + Math.min(1, this.#buffer.length)) >>> 0);
    } else this.#output();
  }

  #transmit(flags: number, sequence: number, payload: Uint8Array = new Uint8Array()): void {
    this.options.send({
      sourcePort: this.options.localPort,
      destinationPort: this.options.remotePort,
      sequence,
      ack: this.#expected ?? 0,
      flags,
      window: WINDOW,
      mss: flags & TCP_FLAG.SYN ? MSS.OURS : undefined,
      payload,
    });
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#timer.set(null);
    this.onGone();
    this.onClose();
  }
}
