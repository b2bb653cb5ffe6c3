/** Split virtqueues, the device's side. VIRTIO specification 1.2, 2.7. Offsets and lengths are bytes, addresses GPAs. */
import { viewOf } from "@swtdx/abi";
import type { DmaMemory } from "../../memory/guest-memory.js";

const DESC = { SIZE: 16, NEXT: 1, WRITE: 2, INDIRECT: 4 } as const;
const AVAIL_NO_INTERRUPT = 1;
export const QUEUE_SIZE_MAX = 256;
/** Most descriptors of a request, as QEMU has it (VIRTQUEUE_MAX_SIZE): an indirect table may claim many more. */
const CHAIN_MAX = 1024;

/** A buffer of a request, in guest memory. */
export interface Segment {
  readonly address: number;
  readonly length: number;
}

/** A request that the driver made available: what the device reads, then what it writes. */
export interface Request {
  readonly head: number;
  readonly readable: readonly Segment[];
  readonly writable: readonly Segment[];
}

/** The driver broke the ring: the device needs a reset. */
export class VirtqueueError extends Error {
  override name = "VirtqueueError";
}

export class Virtqueue {
  size: number;
  enabled = false;
  descriptors = 0;
  driver = 0;
  device = 0;
  vector = 0xffff;
  /** VIRTIO_F_EVENT_IDX was negotiated. */
  eventIndex = false;
  #lastAvailable = 0;
  #usedIndex = 0;
  #left = 0;

  constructor(
    private readonly memory: DmaMemory,
    readonly maxSize = QUEUE_SIZE_MAX,
  ) {
    this.size = maxSize;
  }

  reset(): void {
    this.size = this.maxSize;
    this.enabled = false;
    this.descriptors = this.driver = this.device = 0;
    this.vector = 0xffff;
    this.#lastAvailable = this.#usedIndex = 0;
  }

  /**
   * The device turns to the queue. No driver runs meanwhile, so it has at most as many requests for the device as the
   * queue is long; a ring that makes itself longer, by what the device writes, is broken.
   */
  begin(): void {
    this.#left = this.size;
  }

  /** The next request, or null when there is none. @throws VirtqueueError */
  pop(): Request | null {
    if (!this.enabled) return null;
    const available = this.#u16(this.driver + 2);
    if (available === this.#lastAvailable) {
      // Nothing left: tell of the next one.
      if (this.eventIndex) this.#writeU16(this.device + 4 + 8 * this.size, available);
      return null;
    }
    if (((available - this.#lastAvailable) & 0xffff) > this.size)
      throw new VirtqueueError(
        `available index ${available} after ${this.#lastAvailable}, queue of ${this.size}`,
      );
    if (this.#left-- <= 0) throw new VirtqueueError("requests that nobody made");
    const head = this.#u16(this.driver + 4 + 2 * (this.#lastAvailable % this.size));
    this.#lastAvailable = (this.#lastAvailable + 1) & 0xffff;
    return this.#chain(head);
  }

  #chain(head: number): Request {
    const readable: Segment[] = [];
    const writable: Segment[] = [];
    let table = this.descriptors;
    let count = this.size;
    let index = head;
    let indirect = false;
    for (let steps = 0; ; steps++) {
      if (index >= count || steps >= count || readable.length + writable.length >= CHAIN_MAX)
        throw new VirtqueueError(`descriptor ${index} of ${count}, a loop?`);
      const bytes = this.#read(table + index * DESC.SIZE, DESC.SIZE);
      const view = viewOf(bytes);
      const address = view.getUint32(0, true) + view.getUint32(4, true) * 2 ** 32;
      const length = view.getUint32(8, true);
      const flags = view.getUint16(12, true);
      if (flags & DESC.INDIRECT) {
        if (indirect || flags & DESC.NEXT || length === 0 || length % DESC.SIZE !== 0)
          throw new VirtqueueError(`indirect descriptor ${index} of ${length} bytes`);
        indirect = true;
        table = address;
        count = length / DESC.SIZE;
        index = 0;
        steps = -1;
        continue;
      }
      if (flags & DESC.WRITE) writable.push({ address, length });
      else if (writable.length > 0)
        throw new VirtqueueError(`descriptor ${index} is readable after writable ones`);
      else readable.push({ address, length });
      if (!(flags & DESC.NEXT)) return { head, readable, writable };
      index = view.getUint16(14, true);
    }
  }

  /** Whether `pop` would give a request. @throws VirtqueueError */
  get hasRequest(): boolean {
    return this.enabled && this.#u16(this.driver + 2) !== this.#lastAvailable;
  }

  /** Gives a request back, with the number of bytes written. @returns true when the driver wants an interrupt. */
  push(request: Request, written: number): boolean {
    const entry = new Uint8Array(8);
    viewOf(entry).setUint32(0, request.head, true);
    viewOf(entry).setUint32(4, written, true);
    this.#write(this.device + 4 + 8 * (this.#usedIndex % this.size), entry);
    const before = this.#usedIndex;
    this.#usedIndex = (before + 1) & 0xffff;
    this.#writeU16(this.device + 2, this.#usedIndex);
    if (this.eventIndex) return this.#u16(this.driver + 4 + 2 * this.size) === before;
    return (this.#u16(this.driver) & AVAIL_NO_INTERRUPT) === 0;
  }

  /** All bytes of the segments, at most `limit`. @throws VirtqueueError */
  gather(segments: readonly Segment[], limit: number): Uint8Array {
    const total = segments.reduce((sum, { length }) => sum + length, 0);
    if (total > limit) throw new VirtqueueError(`a request of ${total} bytes; at most ${limit}`);
    const out = new Uint8Array(total);
    let at = 0;
    for (const { address, length } of segments) {
      if (!this.memory.read(address, out.subarray(at, at + length))) throw outside(address);
      at += length;
    }
    return out;
  }

  /** Writes `data` to the segments from their start. @returns bytes written. @throws VirtqueueError */
  scatter(segments: readonly Segment[], data: Uint8Array): number {
    let done = 0;
    for (const { address, length } of segments) {
      const part = data.subarray(done, done + length);
      if (part.length === 0) break;
      this.#write(address, part);
      done += part.length;
    }
    return done;
  }

  #u16(address: number): number {
    const bytes = this.#read(address, 2);
    return bytes[0] | (bytes[1] << 8);
  }
  #read(address: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    if (!this.memory.read(address, bytes)) throw outside(address);
    return bytes;
  }
  #writeU16(address: number, value: number): void {
    this.#write(address, Uint8Array.of(value, value >> 8));
  }
  #write(address: number, data: Uint8Array): void {
    if (!this.memory.write(address, data)) throw outside(address);
  }
}

const outside = (address: number) => new VirtqueueError(`no memory at GPA 0x${address.toString(16)}`);
