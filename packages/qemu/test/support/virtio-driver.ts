/** A virtio-pci driver by the specification, for devices with several queues: split rings, MSI-X, EVENT_IDX. */
import { Timers } from "../../src/clock.js";
import type { MsiMessage } from "../../src/hw/intc/ioapic.js";
import { PciBus } from "../../src/hw/pci/pci-host.js";
import { type VirtioBackend, VirtioPci } from "../../src/hw/virtio/virtio-pci.js";
import { AddressSpace } from "../../src/memory/address-space.js";
import { GuestMemory } from "../../src/memory/guest-memory.js";

const BAR = 0x900000000;
const MSIX_BAR = 0xc0000000;
const COMMON = BAR;
const CONFIG = BAR + 0x2000;
const NOTIFY = BAR + 0x3000;
const SIZE = 16;
/** Each queue has a page for its rings, and one of 4 KiB for each descriptor's buffer. */
const RINGS = 0x1000;
const BUFFERS = 0x100000;
const BUFFER_SIZE = 4096;
export const EVENT_IDX = 1n << 29n;
const BASE_FEATURES = (1n << 32n) | (1n << 33n);

export class VirtioDriver {
  readonly ram = new Uint8Array(4 * 2 ** 20);
  readonly view = new DataView(this.ram.buffer);
  readonly mmio = new AddressSpace();
  readonly clock = { now: 0 };
  readonly timers = new Timers(() => this.clock.now);
  readonly messages: MsiMessage[] = [];
  readonly device: VirtioPci;
  /** The device reads memory. */
  onRead: () => void = () => {};
  readonly #queues: { available: number; seen: number; free: number[] }[] = [];
  #eventIndex = false;

  constructor(backend: VirtioBackend, features = EVENT_IDX, started = true) {
    const { ram } = this;
    const memory = new GuestMemory([
      {
        name: "ram",
        address: 0,
        length: ram.length,
        memory: {
          read: (at, length) => {
            this.onRead();
            return ram.slice(at, at + length);
          },
          write: (at, data) => ram.set(data, at),
        },
      },
    ]);
    this.device = new VirtioPci(backend, {
      memory,
      timers: this.timers,
      sendMsi: (message) => this.messages.push(message),
      intx: () => {},
    });
    new PciBus(new AddressSpace(), this.mmio).add(8, this.device);
    this.device.writeConfig(0x14, 4, MSIX_BAR);
    this.device.writeConfig(0x20, 4, 0);
    this.device.writeConfig(0x24, 4, BAR / 2 ** 32);
    this.device.writeConfig(0x04, 2, 6);
    if (started) this.start(features);
  }

  start(features: bigint): void {
    const { mmio } = this;
    const all = features | BASE_FEATURES;
    this.#eventIndex = (all & EVENT_IDX) !== 0n;
    mmio.write(COMMON + 0x14, 1, 0);
    mmio.write(COMMON + 0x14, 1, 3);
    for (const word of [0, 1]) {
      mmio.write(COMMON + 0x08, 4, word);
      mmio.write(COMMON + 0x0c, 4, Number((all >> BigInt(32 * word)) & 0xffffffffn));
    }
    mmio.write(COMMON + 0x14, 1, 11);
    if (!(mmio.read(COMMON + 0x14, 1) & 8)) throw new Error("features refused");
    this.device.writeConfig(0x98 + 2, 2, 0x8000);
    const queues = mmio.read(COMMON + 0x12, 2);
    for (let vector = 0; vector <= queues; vector++) {
      mmio.write(MSIX_BAR + 16 * vector, 4, 0xfee00000);
      mmio.write(MSIX_BAR + 16 * vector + 8, 4, vector);
      mmio.write(MSIX_BAR + 16 * vector + 12, 4, 0);
    }
    mmio.write(COMMON + 0x10, 2, queues);
    this.#queues.length = 0;
    for (let queue = 0; queue < queues; queue++) {
      this.#queues.push({ available: 0, seen: 0, free: Array.from({ length: SIZE }, (_, i) => i) });
      this.ram.fill(0, this.#rings(queue), this.#rings(queue) + 4096);
      mmio.write(COMMON + 0x16, 2, queue);
      mmio.write(COMMON + 0x18, 2, SIZE);
      mmio.write(COMMON + 0x1a, 2, queue);
      [0, 0x400, 0x800].forEach((offset, i) => {
        mmio.write(COMMON + 0x20 + 8 * i, 4, this.#rings(queue) + offset);
        mmio.write(COMMON + 0x24 + 8 * i, 4, 0);
      });
      mmio.write(COMMON + 0x1c, 2, 1);
    }
    mmio.write(COMMON + 0x14, 1, 15);
  }

  get status(): number {
    return this.mmio.read(COMMON + 0x14, 1);
  }
  config(offset: number, size: number): number {
    return this.mmio.read(CONFIG + offset, size);
  }
  writeConfig(offset: number, size: number, value: number): void {
    this.mmio.write(CONFIG + offset, size, value);
  }

  /** Offers a buffer: bytes for the device, or room for it. Notifies unless the device said that it need not. */
  offer(queue: number, data: Uint8Array | number, next?: number): void {
    const state = this.#queues[queue];
    const head = state.free.shift()!;
    const rings = this.#rings(queue);
    const address = this.#buffer(queue, head);
    const device = typeof data === "number";
    if (!device) this.ram.set(data, address);
    this.view.setBigUint64(rings + 16 * head, BigInt(address), true);
    this.view.setUint32(rings + 16 * head + 8, device ? data : data.length, true);
    this.view.setUint16(rings + 16 * head + 12, (device ? 2 : 0) | (next === undefined ? 0 : 1), true);
    this.view.setUint16(rings + 16 * head + 14, next ?? 0, true);
    const old = state.available;
    this.view.setUint16(rings + 0x404 + 2 * (old % SIZE), head, true);
    state.available = (old + 1) & 0xffff;
    this.view.setUint16(rings + 0x402, state.available, true);
    const wanted = !this.#eventIndex || this.view.getUint16(rings + 0x804 + 8 * SIZE, true) === old;
    if (wanted) this.mmio.write(NOTIFY + 4 * queue, 2, queue);
  }

  /** Offers bytes for the device and room for its answer as one chain. @returns where the answer is. */
  chain(queue: number, data: Uint8Array, room: number): number {
    const next = this.#queues[queue].free.pop()!;
    const rings = this.#rings(queue);
    const answer = this.#buffer(queue, next);
    this.view.setBigUint64(rings + 16 * next, BigInt(answer), true);
    this.view.setUint32(rings + 16 * next + 8, room, true);
    this.view.setUint16(rings + 16 * next + 12, 2, true);
    this.offer(queue, data, next);
    return answer;
  }

  /** Buffers that came back: what the device wrote to each. Asks to be interrupted for the next one. */
  collect(queue: number): Uint8Array[] {
    const state = this.#queues[queue];
    const rings = this.#rings(queue);
    const out: Uint8Array[] = [];
    while (this.view.getUint16(rings + 0x802, true) !== state.seen) {
      const entry = rings + 0x804 + 8 * (state.seen % SIZE);
      const head = this.view.getUint32(entry, true);
      out.push(
        this.ram.slice(
          this.#buffer(queue, head),
          this.#buffer(queue, head) + this.view.getUint32(entry + 4, true),
        ),
      );
      state.free.push(head);
      state.seen = (state.seen + 1) & 0xffff;
    }
    this.view.setUint16(rings + 0x404 + 2 * SIZE, state.seen, true);
    return out;
  }

  /** Moves a queue's used ring, by a driver that ignores that the queue is in use. */
  placeUsed(queue: number, address: number): void {
    this.mmio.write(COMMON + 0x16, 2, queue);
    this.mmio.write(COMMON + 0x30, 4, address);
  }

  /** Vectors of the interrupts since the last call: queue numbers, and one more for configuration. */
  interrupts(): number[] {
    return this.messages.splice(0).map(({ data }) => data);
  }

  #rings(queue: number): number {
    return RINGS * (1 + queue);
  }
  #buffer(queue: number, head: number): number {
    return BUFFERS + (queue * SIZE + head) * BUFFER_SIZE;
  }
}
