/**
 * The virtio socket device: streams between guest and host without a network. VIRTIO specification 1.2, 5.10. The host's
 * end is the embedder's: `listen` for what the guest connects to, `connect` to what it listens on.
 */
import { viewOf } from "@swtdx/abi";
import type { ByteStream } from "../../net/byte-stream.js";
import { type VirtioBackend, type VirtioFunction } from "./virtio-pci.js";
import { type Virtqueue, VirtqueueError } from "./virtqueue.js";

const QUEUE = { RECEIVE: 0, TRANSMIT: 1, EVENT: 2 } as const;
/** The host's context ID. */
export const VSOCK_HOST_CID = 2;
const HEADER = {
  SOURCE_CID: 0,
  DESTINATION_CID: 8,
  SOURCE_PORT: 16,
  DESTINATION_PORT: 20,
  LENGTH: 24,
  TYPE: 28,
  OP: 30,
  FLAGS: 32,
  BUFFER: 36,
  FORWARDED: 40,
  SIZE: 44,
} as const;
const TYPE_STREAM = 1;
const OP = {
  REQUEST: 1,
  RESPONSE: 2,
  RST: 3,
  SHUTDOWN: 4,
  RW: 5,
  CREDIT_UPDATE: 6,
  CREDIT_REQUEST: 7,
} as const;
const SHUTDOWN = { RECEIVE: 1, SEND: 2, BOTH: 3 } as const;
/** Room that we say we have for a stream: what arrives is passed on at once. */
const BUFFER_SIZE = 256 * 1024;
const PACKET_MAX = 64 * 1024;
const STREAMS_MAX = 4096;
const EPHEMERAL_PORT = 0x80000000;
/** Packets without data that wait for buffers; a driver that lets more wait loses them. */
const PENDING_MAX = 4096;

interface Packet {
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly op: number;
  readonly flags: number;
  readonly data: Uint8Array;
}

class VsockStream implements ByteStream {
  onData: (data: Uint8Array) => void = () => {};
  onEnd: () => void = () => {};
  onClose: () => void = () => {};
  open = false;
  closed = false;
  /** Bytes to send, and what is to be told after them. */
  readonly outgoing: Uint8Array[] = [];
  ended = false;
  endSent = false;
  otherEnded = false;
  /** Bytes sent; of these taken by the guest, and room it has; bytes that we took. */
  sent = 0;
  peerForwarded = 0;
  peerBuffer = 0;
  forwarded = 0;

  constructor(
    readonly peer: string,
    readonly port: number,
    readonly guestPort: number,
    private readonly device: { push(): void; abort(stream: VsockStream): void },
  ) {}

  write(data: Uint8Array): void {
    if (this.ended || this.closed || data.length === 0) return;
    this.outgoing.push(data.slice());
    this.device.push();
  }
  end(): void {
    if (this.ended || this.closed) return;
    this.ended = true;
    this.device.push();
  }
  abort(): void {
    if (!this.closed) this.device.abort(this);
  }

  /** Bytes that the guest has room for. */
  get credit(): number {
    return Math.max(0, this.peerBuffer - ((this.sent - this.peerForwarded) >>> 0));
  }
}

export class VirtioVsock implements VirtioBackend {
  readonly deviceType = 19;
  readonly name = "virtio-vsock-pci";
  readonly pciClass = 0x0780;
  readonly features = 0n;
  readonly queues = 3;
  readonly config = new Uint8Array(8);
  readonly #listeners = new Map<number, (stream: ByteStream) => void>();
  readonly #streams = new Map<string, VsockStream>();
  /** Packets without data. */
  #control: { stream: VsockStream | null; packet: Packet }[] = [];
  #function: VirtioFunction | null = null;
  #port = EPHEMERAL_PORT;
  readonly #device = {
    push: () => this.#function?.kick(QUEUE.RECEIVE),
    abort: (stream: VsockStream) => {
      this.#tell(stream, OP.RST);
      this.#close(stream);
      this.#device.push();
    },
  };

  /** `cid`: the guest's context ID, 3 or more. */
  constructor(readonly cid: number) {
    viewOf(this.config).setBigUint64(0, BigInt(cid), true);
  }

  /** `accept` gets what the guest connects to this port of the host. */
  listen(port: number, accept: (stream: ByteStream) => void): void {
    this.#listeners.set(port, accept);
  }

  /** A stream to a port of the guest; `onClose` tells when nobody listens there. */
  connect(guestPort: number): ByteStream {
    const stream = this.#stream(this.#port++ >>> 0, guestPort);
    this.#tell(stream, OP.REQUEST);
    this.#device.push();
    return stream;
  }

  attach(function_: VirtioFunction): void {
    this.#function = function_;
  }

  reset(): void {
    this.#control = [];
    for (const stream of [...this.#streams.values()]) this.#close(stream);
  }

  process(queue: Virtqueue, index: number): boolean {
    if (index === QUEUE.RECEIVE) return this.#deliver(queue);
    if (index === QUEUE.EVENT) return false;
    let interrupt = false;
    for (let request = queue.pop(); request !== null; request = queue.pop()) {
      const bytes = queue.gather(request.readable, HEADER.SIZE + PACKET_MAX);
      if (queue.push(request, 0)) interrupt = true;
      this.#receive(bytes);
    }
    this.#device.push();
    return interrupt;
  }

  /** A packet of the guest's. */
  #receive(bytes: Uint8Array): void {
    const view = viewOf(bytes);
    if (bytes.length < HEADER.SIZE || view.getUint32(HEADER.LENGTH, true) > bytes.length - HEADER.SIZE)
      throw new VirtqueueError(`a vsock packet of ${bytes.length} bytes`);
    const packet: Packet = {
      sourcePort: view.getUint32(HEADER.SOURCE_PORT, true),
      destinationPort: view.getUint32(HEADER.DESTINATION_PORT, true),
      op: view.getUint16(HEADER.OP, true),
      flags: view.getUint32(HEADER.FLAGS, true),
      data: bytes.subarray(HEADER.SIZE, HEADER.SIZE + view.getUint32(HEADER.LENGTH, true)),
    };
    const ours =
      view.getBigUint64(HEADER.DESTINATION_CID, true) === BigInt(VSOCK_HOST_CID) &&
      view.getBigUint64(HEADER.SOURCE_CID, true) === BigInt(this.cid) &&
      view.getUint16(HEADER.TYPE, true) === TYPE_STREAM;
    const stream = this.#streams.get(key(packet.destinationPort, packet.sourcePort));
    if (!ours || !stream) {
      if (ours && packet.op === OP.REQUEST) this.#accept(packet, view);
      else if (packet.op !== OP.RST) this.#refuse(packet);
      return;
    }
    credit(stream, view);
    this.#handle(stream, packet);
  }

  #accept(packet: Packet, view: DataView): void {
    const accept = this.#listeners.get(packet.destinationPort);
    if (!accept || this.#streams.size >= STREAMS_MAX) return this.#refuse(packet);
    const stream = this.#stream(packet.destinationPort, packet.sourcePort);
    credit(stream, view);
    stream.open = true;
    this.#tell(stream, OP.RESPONSE);
    accept(stream);
  }

  #handle(stream: VsockStream, { op, flags, data }: Packet): void {
    switch (op) {
      case OP.RESPONSE:
        stream.open = true;
        return;
      case OP.RW:
        if (!stream.open) return this.#device.abort(stream);
        stream.forwarded = (stream.forwarded + data.length) >>> 0;
        this.#tell(stream, OP.CREDIT_UPDATE);
        return stream.onData(data.slice());
      case OP.CREDIT_UPDATE:
        return;
      case OP.CREDIT_REQUEST:
        return this.#tell(stream, OP.CREDIT_UPDATE);
      case OP.SHUTDOWN:
        if (flags & SHUTDOWN.SEND && !stream.otherEnded) {
          stream.otherEnded = true;
          stream.onEnd();
        }
        // The guest takes no more either: nothing is left to say.
        if ((flags & SHUTDOWN.BOTH) === SHUTDOWN.BOTH) this.#device.abort(stream);
        return;
      case OP.RST:
        return this.#close(stream);
      default:
        return this.#device.abort(stream);
    }
  }

  #stream(port: number, guestPort: number): VsockStream {
    const stream = new VsockStream(`cid ${this.cid} port ${guestPort}`, port, guestPort, this.#device);
    this.#streams.set(key(port, guestPort), stream);
    return stream;
  }

  #close(stream: VsockStream): void {
    if (stream.closed) return;
    stream.closed = true;
    this.#streams.delete(key(stream.port, stream.guestPort));
    stream.onClose();
  }

  #tell(stream: VsockStream, op: number, flags = 0): void {
    const packet = {
      sourcePort: stream.port,
      destinationPort: stream.guestPort,
      op,
      flags,
      data: new Uint8Array(),
    };
    this.#enqueue(stream, packet);
  }
  #refuse({ sourcePort, destinationPort }: Packet): void {
    const packet = {
      sourcePort: destinationPort,
      destinationPort: sourcePort,
      op: OP.RST,
      flags: 0,
      data: new Uint8Array(),
    };
    this.#enqueue(null, packet);
  }
  #enqueue(stream: VsockStream | null, packet: Packet): void {
    if (this.#control.length < PENDING_MAX) this.#control.push({ stream, packet });
  }

  /** Fills the guest's buffers: what must be told first, then data as far as there is credit. */
  #deliver(queue: Virtqueue): boolean {
    let interrupt = false;
    for (;;) {
      if (!queue.hasRequest) {
        queue.pop(); // asks to be told of buffers
        return interrupt;
      }
      const next = this.#control.shift() ?? this.#nextData();
      if (!next) return interrupt;
      const request = queue.pop()!;
      const room = request.writable.reduce((sum, { length }) => sum + length, 0) - HEADER.SIZE;
      if (room < 0) throw new VirtqueueError("a vsock buffer without room for a header");
      const { stream, packet } = next;
      const data = packet.data.subarray(0, room);
      if (stream && data.length < packet.data.length) stream.outgoing.unshift(packet.data.subarray(room));
      if (stream) stream.sent = (stream.sent + data.length) >>> 0;
      const bytes = this.#encode({ ...packet, data }, stream);
      if (queue.push(request, queue.scatter(request.writable, bytes))) interrupt = true;
    }
  }

  #nextData(): { stream: VsockStream; packet: Packet } | null {
    for (const stream of this.#streams.values()) {
      if (!stream.open) continue;
      const ports = { sourcePort: stream.port, destinationPort: stream.guestPort, flags: 0 };
      const [first] = stream.outgoing;
      const length = Math.min(first?.length ?? 0, stream.credit, PACKET_MAX);
      if (first && length > 0) {
        if (length === first.length) stream.outgoing.shift();
        else stream.outgoing[0] = first.subarray(length);
        return { stream, packet: { ...ports, op: OP.RW, data: first.subarray(0, length) } };
      }
      if (!first && stream.ended && !stream.endSent) {
        stream.endSent = true;
        const flags = stream.otherEnded ? SHUTDOWN.BOTH : SHUTDOWN.SEND;
        return { stream, packet: { ...ports, op: OP.SHUTDOWN, flags, data: new Uint8Array() } };
      }
    }
    return null;
  }

  #encode(packet: Packet, stream: VsockStream | null): Uint8Array {
    const out = new Uint8Array(HEADER.SIZE + packet.data.length);
    const view = viewOf(out);
    view.setBigUint64(HEADER.SOURCE_CID, BigInt(VSOCK_HOST_CID), true);
    view.setBigUint64(HEADER.DESTINATION_CID, BigInt(this.cid), true);
    view.setUint32(HEADER.SOURCE_PORT, packet.sourcePort, true);
    view.setUint32(HEADER.DESTINATION_PORT, packet.destinationPort, true);
    view.setUint32(HEADER.LENGTH, packet.data.length, true);
    view.setUint16(HEADER.TYPE, TYPE_STREAM, true);
    view.setUint16(HEADER.OP, packet.op, true);
    view.setUint32(HEADER.FLAGS, packet.flags, true);
    view.setUint32(HEADER.BUFFER, stream ? BUFFER_SIZE : 0, true);
    view.setUint32(HEADER.FORWARDED, stream?.forwarded ?? 0, true);
    out.set(packet.data, HEADER.SIZE);
    return out;
  }
}

/** What each packet says of the guest's room. */
function credit(stream: VsockStream, view: DataView): void {
  stream.peerBuffer = view.getUint32(HEADER.BUFFER, true);
  stream.peerForwarded = view.getUint32(HEADER.FORWARDED, true);
}

const key = (port: number, guestPort: number): string => `${port}-${guestPort}`;
