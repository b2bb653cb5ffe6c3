/**
 * The virtio network card: one pair of queues and the control queue, no offloads. VIRTIO specification 1.2, 5.1. What it
 * is plugged into: net/net-backend.ts.
 */
import type { NetBackend } from "../../net/net-backend.js";
import { feature, type VirtioBackend, type VirtioFunction } from "./virtio-pci.js";
import { type Request, type Virtqueue } from "./virtqueue.js";

const F = { MAC: 5, STATUS: 16, CTRL_VQ: 17, CTRL_RX: 18, CTRL_MAC_ADDR: 23 } as const;
const QUEUE = { RECEIVE: 0, TRANSMIT: 1, CONTROL: 2 } as const;
const CONFIG = { MAC: 0, STATUS: 6, SIZE: 8 } as const;
const MAC_SIZE = 6;
const STATUS_LINK_UP = 1;
/** The header before each frame, with num_buffers. */
const HEADER_SIZE = 12;
const HEADER_NUM_BUFFERS = 10;
/** Longest frame of the largest MTU that a driver can set. */
const FRAME_MAX = 14 + 65535;
const FRAME_MIN = 14;
const CONTROL = { RX: 0, MAC: 1, MAC_ADDR_SET: 1 } as const;
const CONTROL_MAX = 64 * 1024;
const ACK = { OK: 0, ERROR: 1 } as const;
/** Frames that wait for buffers; more are lost, as on a wire. */
const PENDING_MAX = 1024;

export class VirtioNet implements VirtioBackend {
  readonly deviceType = 1;
  readonly name = "virtio-net-pci";
  readonly pciClass = 0x0200;
  readonly queues = 3;
  readonly features = Object.values(F).reduce((all, bit) => all | feature(bit), 0n);
  readonly config = new Uint8Array(CONFIG.SIZE);
  #pending: Uint8Array[] = [];
  #function: VirtioFunction | null = null;

  /** `mac`: six bytes. */
  constructor(
    private readonly backend: NetBackend,
    mac: Uint8Array,
  ) {
    this.config.set(mac, CONFIG.MAC);
    this.config[CONFIG.STATUS] = STATUS_LINK_UP;
  }

  attach(function_: VirtioFunction): void {
    this.#function = function_;
    const mac = this.config.slice(CONFIG.MAC, CONFIG.MAC + MAC_SIZE);
    this.backend.connect({ mac, receive: (frame) => this.#receive(frame) }, function_.timers);
  }

  reset(): void {
    this.#pending = [];
  }

  process(queue: Virtqueue, index: number): boolean {
    if (index === QUEUE.RECEIVE) return this.#deliver(queue);
    let interrupt = false;
    for (let request = queue.pop(); request !== null; request = queue.pop())
      if (
        queue.push(
          request,
          index === QUEUE.TRANSMIT ? this.#transmit(queue, request) : control(queue, request),
        )
      )
        interrupt = true;
    return interrupt;
  }

  /** A frame comes in. It is the guest's to have addresses filtered: the card is promiscuous. */
  #receive(frame: Uint8Array): boolean {
    if (this.#function === null || this.#pending.length >= PENDING_MAX) return false;
    this.#pending.push(frame);
    this.#function.kick(QUEUE.RECEIVE);
    return true;
  }

  #deliver(queue: Virtqueue): boolean {
    let interrupt = false;
    while (this.#pending.length > 0) {
      const request = queue.pop();
      if (request === null) break;
      const frame = this.#pending.shift()!;
      const data = new Uint8Array(HEADER_SIZE + frame.length);
      data[HEADER_NUM_BUFFERS] = 1;
      data.set(frame, HEADER_SIZE);
      // A buffer that is too short gets what fits, and the driver sees a truncated frame.
      if (queue.push(request, queue.scatter(request.writable, data))) interrupt = true;
    }
    return interrupt;
  }

  #transmit(queue: Virtqueue, { readable }: Request): number {
    const data = queue.gather(readable, HEADER_SIZE + FRAME_MAX);
    if (data.length >= HEADER_SIZE + FRAME_MIN) this.backend.transmit(data.subarray(HEADER_SIZE));
    return 0;
  }
}

/** Commands about receive modes and addresses change nothing on a card that takes every frame. */
function control(queue: Virtqueue, { readable, writable }: Request): number {
  const command = queue.gather(readable, CONTROL_MAX);
  const known =
    command[0] === CONTROL.RX || (command[0] === CONTROL.MAC && command[1] <= CONTROL.MAC_ADDR_SET);
  return queue.scatter(writable, Uint8Array.of(known && command.length >= 2 ? ACK.OK : ACK.ERROR));
}
