/** The virtio block device. VIRTIO specification 1.2, 5.2. */
import { viewOf } from "@swtdx/abi";
import type { VirtioBackend } from "./virtio-pci.js";
import { type Request, type Segment, type Virtqueue, VirtqueueError } from "./virtqueue.js";

export const SECTOR_SIZE = 512;
const F = { SEG_MAX: 2, RO: 5, BLK_SIZE: 6, FLUSH: 9 } as const;
const T = { IN: 0, OUT: 1, FLUSH: 4, GET_ID: 8 } as const;
const S = { OK: 0, IOERR: 1, UNSUPP: 2 } as const;
const HEADER_SIZE = 16;
const ID_SIZE = 20;
const SEG_MAX = 254;
const CONFIG = { CAPACITY: 0, SEG_MAX: 12, BLK_SIZE: 20, SIZE: 60 } as const;
/** Largest request in bytes. */
const REQUEST_MAX = 32 * 2 ** 20;

/** What a drive's image is read from and written to. Sizes and offsets are bytes. */
export interface BlockBackend {
  /** A multiple of SECTOR_SIZE. */
  readonly size: number;
  readonly readonly: boolean;
  read(offset: number, length: number): Uint8Array;
  write(offset: number, data: Uint8Array): void;
  flush(): void;
}

export class VirtioBlk implements VirtioBackend {
  readonly deviceType = 2;
  readonly name = "virtio-blk-pci";
  readonly pciClass = 0x0100;
  readonly queues = 1;
  readonly features: bigint;
  readonly config = new Uint8Array(CONFIG.SIZE);

  constructor(
    private readonly drive: BlockBackend,
    private readonly serial: string,
  ) {
    this.features =
      (1n << BigInt(F.SEG_MAX)) |
      (1n << BigInt(F.BLK_SIZE)) |
      (1n << BigInt(F.FLUSH)) |
      (drive.readonly ? 1n << BigInt(F.RO) : 0n);
    const view = viewOf(this.config);
    view.setBigUint64(CONFIG.CAPACITY, BigInt(Math.floor(drive.size / SECTOR_SIZE)), true);
    view.setUint32(CONFIG.SEG_MAX, SEG_MAX, true);
    view.setUint32(CONFIG.BLK_SIZE, SECTOR_SIZE, true);
  }

  process(queue: Virtqueue): boolean {
    let interrupt = false;
    for (let request = queue.pop(); request !== null; request = queue.pop())
      if (queue.push(request, this.#serve(queue, request))) interrupt = true;
    return interrupt;
  }

  /** @returns bytes written to the request, its status byte included. */
  #serve(queue: Virtqueue, { readable, writable }: Request): number {
    const bytes = queue.gather(readable, REQUEST_MAX + HEADER_SIZE);
    const room = writable.reduce((sum, { length }) => sum + length, 0);
    if (bytes.length < HEADER_SIZE || room < 1)
      throw new VirtqueueError("a block request without header or status");
    if (room > REQUEST_MAX) throw new VirtqueueError(`a block request of ${room} bytes`);
    const view = viewOf(bytes);
    const type = view.getUint32(0, true);
    const offset = (view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32) * SECTOR_SIZE;
    const { status, data } = this.#execute(type, offset, bytes.subarray(HEADER_SIZE), room - 1);
    queue.scatter(writable, data);
    queue.scatter(lastByte(writable), Uint8Array.of(status));
    return data.length + 1;
  }

  #execute(
    type: number,
    offset: number,
    input: Uint8Array,
    room: number,
  ): { status: number; data: Uint8Array } {
    const none = new Uint8Array();
    const inside = (length: number) => length % SECTOR_SIZE === 0 && offset + length <= this.drive.size;
    switch (type) {
      case T.IN:
        return inside(room)
          ? { status: S.OK, data: this.drive.read(offset, room) }
          : { status: S.IOERR, data: none };
      case T.OUT:
        if (this.drive.readonly || !inside(input.length)) return { status: S.IOERR, data: none };
        this.drive.write(offset, input);
        return { status: S.OK, data: none };
      case T.FLUSH:
        this.drive.flush();
        return { status: S.OK, data: none };
      case T.GET_ID: {
        const id = new Uint8Array(Math.min(ID_SIZE, room));
        id.set(new TextEncoder().encode(this.serial).subarray(0, id.length));
        return { status: S.OK, data: id };
      }
      default:
        return { status: S.UNSUPP, data: none };
    }
  }
}

/** The status byte: the last one that the device may write. */
function lastByte(writable: readonly Segment[]): Segment[] {
  const last = writable.findLast(({ length }) => length > 0)!;
  return [{ address: last.address + last.length - 1, length: 1 }];
}

/** A drive in memory. */
export class MemoryDrive implements BlockBackend {
  readonly size: number;
  /** A size that is no multiple of a sector is rounded up; the rest reads as zeros. */
  constructor(
    private readonly image: Uint8Array,
    readonly readonly = false,
  ) {
    this.size = Math.ceil(image.length / SECTOR_SIZE) * SECTOR_SIZE;
  }
  read(offset: number, length: number): Uint8Array {
    const out = new Uint8Array(length);
    out.set(this.image.subarray(offset, offset + length));
    return out;
  }
  write(offset: number, data: Uint8Array): void {
    this.image.set(data.subarray(0, Math.max(0, this.image.length - offset)), offset);
  }
  flush(): void {}
}
