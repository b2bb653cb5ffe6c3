/** A board with memory and nothing that runs on it: registers are read and written by port. */
import { Q35Board } from "../../src/hw/i386/q35.js";
import type { MsiMessage } from "../../src/hw/intc/ioapic.js";
import type { VirtioBackend } from "../../src/hw/virtio/virtio-pci.js";
import { GuestMemory } from "../../src/memory/guest-memory.js";
import { layoutMemory, type MemoryMap } from "../../src/memory/memory-map.js";

/** Bytes of RAM that the board has, whatever the map says. */
const RAM_SIZE = 4 * 2 ** 20;

export interface TestBoard {
  readonly board: Q35Board;
  readonly map: MemoryMap;
  readonly ram: Uint8Array;
  readonly clock: { now: number };
  readonly messages: MsiMessage[];
  /** What the guest did to the machine. */
  readonly ends: string[];
  /** Bytes that the serial port sent. */
  readonly serial: number[];
}

export function buildBoard(memoryBytes: number, vcpus: number, virtio: readonly VirtioBackend[]): TestBoard {
  const map = layoutMemory(memoryBytes, 4 * 2 ** 20);
  const ram = new Uint8Array(RAM_SIZE);
  const clock = { now: 0 };
  const messages: MsiMessage[] = [];
  const ends: string[] = [];
  const serial: number[] = [];
  const memory = new GuestMemory([
    {
      name: "ram",
      address: 0,
      length: ram.length,
      memory: {
        read: (offset, length) => ram.slice(offset, offset + length),
        write: (offset, data) => ram.set(data, offset),
      },
    },
  ]);
  const board = new Q35Board({
    memory,
    map,
    vcpus,
    now: () => clock.now,
    rtcStart: Date.UTC(2026, 0, 1) / 1000,
    virtio,
    serial: (byte) => serial.push(byte),
    debugcon: () => {},
    sendMsi: (message) => messages.push(message),
    ioapicRouted: () => {},
    poweroff: (how) => ends.push(`poweroff: ${how}`),
    reset: (how) => ends.push(`reset: ${how}`),
  });
  return { board, map, ram, clock, messages, ends, serial };
}
