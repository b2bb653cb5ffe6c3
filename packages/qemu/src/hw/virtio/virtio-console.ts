/**
 * The virtio console device: a console and named serial ports, with multiple-port support. VIRTIO specification 1.2, 5.3.
 * The embedder's end of a port is a ConsolePort.
 */
import { viewOf } from "@swtdx/abi";
import { feature, type VirtioBackend, type VirtioFunction } from "./virtio-pci.js";
import type { Virtqueue } from "./virtqueue.js";

const F = { MULTIPORT: 1, EMERG_WRITE: 2 } as const;
/** Queues of port 0, and of control messages; port n > 0 has 2n + 2 and 2n + 3. */
const QUEUE = { RECEIVE: 0, TRANSMIT: 1, CONTROL_RECEIVE: 2, CONTROL_TRANSMIT: 3 } as const;
const CONFIG = { MAX_PORTS: 4, EMERG_WRITE: 8, SIZE: 12 } as const;
const CONTROL = { ID: 0, EVENT: 4, VALUE: 6, SIZE: 8 } as const;
const EVENT = {
  DEVICE_READY: 0,
  PORT_ADD: 1,
  PORT_READY: 3,
  CONSOLE_PORT: 4,
  PORT_OPEN: 6,
  PORT_NAME: 7,
} as const;
export const CONSOLE_PORTS_MAX = 31;
const TRANSMIT_MAX = 2 ** 20;
/** Control messages that a driver lets wait for buffers. */
const CONTROL_PENDING_MAX = 1024;

/** The outside of a port. */
export class ConsolePort {
  /** Bytes for the guest that it has not taken yet. */
  #pending: Uint8Array[] = [];
  /** Something in the guest has the port open; of the console of a driver without multiple ports it is not known. */
  guestOpen = false;
  /** Set by the owner: bytes from the guest; the guest opened or closed the port. */
  onData: (data: Uint8Array) => void = () => {};
  onGuestOpen: (open: boolean) => void = () => {};
  /** Set by the device. */
  wake: () => void = () => {};

  /** `name`: how the guest finds the port (/dev/virtio-ports/NAME); without it the port is a console (hvc). */
  constructor(readonly name: string | null = null) {}

  write(data: Uint8Array): void {
    if (data.length === 0) return;
    this.#pending.push(data.slice());
    this.wake();
  }
  get hasData(): boolean {
    return this.#pending.length > 0;
  }
  /** Takes up to `limit` bytes. */
  take(limit: number): Uint8Array {
    const [first] = this.#pending;
    if (first === undefined) return new Uint8Array();
    if (first.length <= limit) this.#pending.shift();
    else this.#pending[0] = first.subarray(limit);
    return first.subarray(0, limit);
  }
  /** The guest's end is gone. */
  reset(): void {
    this.#pending = [];
    if (this.guestOpen) this.setGuestOpen(false);
  }
  setGuestOpen(open: boolean): void {
    this.guestOpen = open;
    this.onGuestOpen(open);
  }
}

export class VirtioConsole implements VirtioBackend {
  readonly deviceType = 3;
  readonly name = "virtio-serial-pci";
  readonly pciClass = 0x0780;
  readonly features = feature(F.MULTIPORT) | feature(F.EMERG_WRITE);
  readonly queues: number;
  /** As in QEMU: one for each port, and one for the configuration. */
  readonly vectors: number;
  readonly config = new Uint8Array(CONFIG.SIZE);
  #control: Uint8Array[] = [];
  #function: VirtioFunction | null = null;

  /** The first port is the console of a driver that knows one port only. @throws RangeError for none or too many */
  constructor(private readonly ports: readonly ConsolePort[]) {
    if (ports.length < 1 || ports.length > CONSOLE_PORTS_MAX)
      throw new RangeError(`${ports.length} console ports; from 1 to ${CONSOLE_PORTS_MAX} can be had`);
    this.vectors = ports.length + 1;
    this.queues = 2 * (ports.length + 1);
    viewOf(this.config).setUint32(CONFIG.MAX_PORTS, ports.length, true);
    ports.forEach((port, i) => (port.wake = () => this.#function?.kick(receiveQueue(i))));
  }

  attach(function_: VirtioFunction): void {
    this.#function = function_;
  }

  reset(): void {
    this.#control = [];
    for (const port of this.ports) port.reset();
  }

  /** The emergency write: a character before there are queues. */
  writeConfig(offset: number, _size: number, value: number): void {
    if (offset === CONFIG.EMERG_WRITE) this.ports[0].onData(Uint8Array.of(value));
  }

  process(queue: Virtqueue, index: number): boolean {
    if (index === QUEUE.CONTROL_RECEIVE) return this.#sendControl(queue);
    if (index === QUEUE.CONTROL_TRANSMIT) return this.#takeControl(queue);
    const port = this.ports[index < QUEUE.CONTROL_RECEIVE ? 0 : (index >> 1) - 1];
    return index & 1 ? transmit(queue, port) : receive(queue, port);
  }

  #sendControl(queue: Virtqueue): boolean {
    let interrupt = false;
    while (this.#control.length > 0) {
      const request = queue.pop();
      if (request === null) break;
      if (queue.push(request, queue.scatter(request.writable, this.#control.shift()!))) interrupt = true;
    }
    return interrupt;
  }

  #takeControl(queue: Virtqueue): boolean {
    let interrupt = false;
    for (let request = queue.pop(); request !== null; request = queue.pop()) {
      const message = queue.gather(request.readable, TRANSMIT_MAX);
      if (message.length >= CONTROL.SIZE) this.#handle(viewOf(message));
      if (queue.push(request, 0)) interrupt = true;
    }
    this.#function?.kick(QUEUE.CONTROL_RECEIVE);
    return interrupt;
  }

  #handle(message: DataView): void {
    const id = message.getUint32(CONTROL.ID, true);
    const value = message.getUint16(CONTROL.VALUE, true);
    const port = this.ports[id];
    switch (message.getUint16(CONTROL.EVENT, true)) {
      case EVENT.DEVICE_READY:
        if (value === 1) this.ports.forEach((_, i) => this.#tell(i, EVENT.PORT_ADD, 1));
        return;
      case EVENT.PORT_READY:
        if (!port || value !== 1) return;
        if (port.name === null) this.#tell(id, EVENT.CONSOLE_PORT, 1);
        else this.#tell(id, EVENT.PORT_NAME, 1, new TextEncoder().encode(`${port.name}\0`));
        return this.#tell(id, EVENT.PORT_OPEN, 1);
      case EVENT.PORT_OPEN:
        return port?.setGuestOpen(value === 1);
      default:
    }
  }

  #tell(id: number, event: number, value: number, more: Uint8Array = new Uint8Array()): void {
    if (this.#control.length >= CONTROL_PENDING_MAX) return;
    const message = new Uint8Array(CONTROL.SIZE + more.length);
    const view = viewOf(message);
    view.setUint32(CONTROL.ID, id, true);
    view.setUint16(CONTROL.EVENT, event, true);
    view.setUint16(CONTROL.VALUE, value, true);
    message.set(more, CONTROL.SIZE);
    this.#control.push(message);
  }
}

const receiveQueue = (port: number): number => (port === 0 ? QUEUE.RECEIVE : 2 * port + 2);

function receive(queue: Virtqueue, port: ConsolePort): boolean {
  let interrupt = false;
  while (port.hasData) {
    const request = queue.pop();
    if (request === null) break;
    const room = request.writable.reduce((sum, { length }) => sum + length, 0);
    if (queue.push(request, queue.scatter(request.writable, port.take(room)))) interrupt = true;
  }
  return interrupt;
}

function transmit(queue: Virtqueue, port: ConsolePort): boolean {
  let interrupt = false;
  for (let request = queue.pop(); request !== null; request = queue.pop()) {
    port.onData(queue.gather(request.readable, TRANSMIT_MAX));
    if (queue.push(request, 0)) interrupt = true;
  }
  return interrupt;
}
