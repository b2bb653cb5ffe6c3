import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Timers } from "../src/clock.js";
import { PciBus } from "../src/hw/pci/pci-host.js";
import { MemoryDrive, VirtioBlk } from "../src/hw/virtio/virtio-blk.js";
import { type VirtioBackend, VirtioPci } from "../src/hw/virtio/virtio-pci.js";
import { VirtioRng } from "../src/hw/virtio/virtio-rng.js";
import { AddressSpace } from "../src/memory/address-space.js";
import { GuestMemory } from "../src/memory/guest-memory.js";

const BAR = 0x900000000;
const MSIX_BAR = 0xc0000000;
const DESC = 0x1000;
const AVAIL = 0x2000;
const USED = 0x3000;

/** A driver by the specification: finds the structures through the capabilities, sets up one queue. */
function setup(backend: VirtioBackend, ramBytes = 0x40000) {
  const ram = new Uint8Array(ramBytes);
  const view = new DataView(ram.buffer);
  const memory = new GuestMemory([
    {
      name: "ram",
      address: 0,
      length: ram.length,
      memory: { read: (at, length) => ram.slice(at, at + length), write: (at, data) => ram.set(data, at) },
    },
  ]);
  const msis: { address: number; data: number }[] = [];
  const levels: boolean[] = [];
  const mmio = new AddressSpace();
  const bus = new PciBus(new AddressSpace(), mmio);
  const device = new VirtioPci(backend, {
    timers: new Timers(() => 0),
    memory,
    sendMsi: (message) => msis.push({ address: message.address, data: message.data }),
    intx: (level) => levels.push(level),
  });
  bus.add(8, device);
  const caps = new Map<number, { bar: number; offset: number; length: number }>();
  let msix = 0;
  for (let at = device.readConfig(0x34, 1); at !== 0; at = device.readConfig(at + 1, 1)) {
    if (device.readConfig(at, 1) === 0x11) msix = at;
    else
      caps.set(device.readConfig(at + 3, 1), {
        bar: device.readConfig(at + 4, 1),
        offset: device.readConfig(at + 8, 4),
        length: device.readConfig(at + 12, 4),
      });
  }
  device.writeConfig(0x14, 4, MSIX_BAR);
  device.writeConfig(0x20, 4, BAR % 2 ** 32);
  device.writeConfig(0x24, 4, Math.floor(BAR / 2 ** 32));
  device.writeConfig(0x04, 2, 6);
  const common = BAR + caps.get(1)!.offset;
  const start = (features = 0x3_1000_0000n, useMsix = true) => {
    mmio.write(common + 0x14, 1, 0);
    mmio.write(common + 0x14, 1, 3);
    for (const word of [0, 1]) {
      mmio.write(common + 0x08, 4, word);
      mmio.write(common + 0x0c, 4, Number((features >> BigInt(32 * word)) & 0xffffffffn));
    }
    mmio.write(common + 0x14, 1, 11);
    const accepted = (mmio.read(common + 0x14, 1) & 8) !== 0;
    if (useMsix) {
      device.writeConfig(msix + 2, 2, 0x8000);
      for (const vector of [0, 1]) {
        mmio.write(MSIX_BAR + 16 * vector, 4, 0xfee01000);
        mmio.write(MSIX_BAR + 16 * vector + 8, 4, 0x40 + vector);
        mmio.write(MSIX_BAR + 16 * vector + 12, 4, 0);
      }
      mmio.write(common + 0x10, 2, 0);
    }
    mmio.write(common + 0x16, 2, 0);
    mmio.write(common + 0x18, 2, 8);
    mmio.write(common + 0x1a, 2, 1);
    [DESC, AVAIL, USED].forEach((address, i) => {
      mmio.write(common + 0x20 + 8 * i, 4, address);
      mmio.write(common + 0x24 + 8 * i, 4, 0);
    });
    mmio.write(common + 0x1c, 2, 1);
    mmio.write(common + 0x14, 1, 15);
    return accepted;
  };
  const descriptor = (i: number, address: number, length: number, flags: number, next = 0, table = DESC) => {
    view.setBigUint64(table + 16 * i, BigInt(address), true);
    view.setUint32(table + 16 * i + 8, length, true);
    view.setUint16(table + 16 * i + 12, flags, true);
    view.setUint16(table + 16 * i + 14, next, true);
  };
  let available = 0;
  const kick = (head: number) => {
    view.setUint16(AVAIL + 4 + 2 * (available % 8), head, true);
    view.setUint16(AVAIL + 2, ++available & 0xffff, true);
    mmio.write(BAR + caps.get(2)!.offset, 2, 0);
  };
  const used = () => ({
    index: view.getUint16(USED + 2, true),
    id: view.getUint32(USED + 4 + 8 * ((view.getUint16(USED + 2, true) - 1) % 8), true),
    length: view.getUint32(USED + 8 + 8 * ((view.getUint16(USED + 2, true) - 1) % 8), true),
  });
  const status = () => mmio.read(common + 0x14, 1);
  return { ram, view, device, caps, mmio, common, msis, levels, start, descriptor, kick, used, status };
}

const image = () => Uint8Array.from({ length: 8192 }, (_, i) => (i * 31 + (i >> 9)) & 0xff);

describe("virtio-pci", () => {
  it("shows the modern interface through its capabilities", () => {
    const { device, caps, mmio, common } = setup(new VirtioBlk(new MemoryDrive(image()), "s"));
    expect(device.readConfig(0, 4)).toBe(0x10421af4);
    expect(device.readConfig(8, 1)).toBe(1);
    expect([...caps.keys()]).toEqual([5, 2, 4, 3, 1]);
    expect(caps.get(4)).toEqual({ bar: 4, offset: 0x2000, length: 0x1000 });
    mmio.write(common, 4, 1);
    expect(mmio.read(common + 4, 4)).toBe(0x103);
    expect(mmio.read(common + 0x12, 2)).toBe(1);
    expect(mmio.read(BAR + 0x2000, 4)).toBe(16);
    // The same register through configuration space.
    device.writeConfig(0x84 + 4, 1, 4);
    device.writeConfig(0x84 + 8, 4, 0x12);
    device.writeConfig(0x84 + 12, 4, 2);
    expect(device.readConfig(0x84 + 16, 2)).toBe(1);
  });
  it("insists on VERSION_1 and ACCESS_PLATFORM, and refuses what it did not offer", () => {
    const { start } = setup(new VirtioRng((n) => new Uint8Array(n)));
    expect(start(0x3_0000_0000n)).toBe(true);
    expect(start(0x1_0000_0000n)).toBe(false);
    expect(start(0x2_0000_0000n)).toBe(false);
    expect(start(0x3_4000_0000n)).toBe(false);
  });
  it("gives random bytes and interrupts by MSI-X", () => {
    const { start, descriptor, kick, used, ram, msis } = setup(
      new VirtioRng((n) => new Uint8Array(n).fill(0xab)),
    );
    start();
    descriptor(0, 0x8000, 16, 2);
    kick(0);
    expect(used()).toEqual({ index: 1, id: 0, length: 16 });
    expect(ram.subarray(0x8000, 0x8011)).toEqual(Uint8Array.of(...Array<number>(16).fill(0xab), 0));
    expect(msis).toEqual([{ address: 0xfee01000, data: 0x41 }]);
  });
  it("keeps a masked message pending", () => {
    const { start, descriptor, kick, msis, mmio } = setup(new VirtioRng((n) => new Uint8Array(n)));
    start();
    mmio.write(MSIX_BAR + 16 + 12, 4, 1);
    descriptor(0, 0x8000, 16, 2);
    kick(0);
    expect(msis).toEqual([]);
    expect(mmio.read(MSIX_BAR + 0x800, 4)).toBe(2);
    mmio.write(MSIX_BAR + 16 + 12, 4, 0);
    expect(msis.length).toBe(1);
    expect(mmio.read(MSIX_BAR + 0x800, 4)).toBe(0);
  });
  it("interrupts by INTx until the ISR is read", () => {
    const { start, descriptor, kick, levels, mmio } = setup(new VirtioRng((n) => new Uint8Array(n)));
    start(0x3_0000_0000n, false);
    levels.length = 0;
    descriptor(0, 0x8000, 16, 2);
    kick(0);
    expect(levels).toEqual([true]);
    expect(mmio.read(BAR + 0x1000, 1)).toBe(1);
    expect(levels).toEqual([true, false]);
  });
});

describe("virtio-blk", () => {
  const request = (
    t: ReturnType<typeof setup>,
    type: number,
    sector: number,
    data: number,
    length: number,
  ) => {
    t.view.setUint32(0x8000, type, true);
    t.view.setBigUint64(0x8008, BigInt(sector), true);
    t.ram[0x8020] = 0xff;
    t.descriptor(0, 0x8000, 16, 1, 1);
    t.descriptor(1, data, length, type === 1 ? 1 : 3, 2);
    t.descriptor(2, 0x8020, 1, 2);
    t.kick(0);
    return t.ram[0x8020];
  };
  it("reads, writes, flushes and tells its name", () => {
    const bytes = image();
    const t = setup(new VirtioBlk(new MemoryDrive(bytes), "drive0"));
    t.start();
    expect(request(t, 0, 2, 0x9000, 1024)).toBe(0);
    expect(t.ram.slice(0x9000, 0x9400)).toEqual(bytes.slice(1024, 2048));
    expect(t.used()).toEqual({ index: 1, id: 0, length: 1025 });
    t.ram.fill(0x77, 0x9000, 0x9200);
    expect(request(t, 1, 15, 0x9000, 512)).toBe(0);
    expect(bytes[8191]).toBe(0x77);
    expect(bytes[7679]).not.toBe(0x77);
    expect(request(t, 8, 0, 0x9000, 20)).toBe(0);
    expect(new TextDecoder().decode(t.ram.slice(0x9000, 0x9006))).toBe("drive0");
    expect(request(t, 4, 0, 0x9000, 512)).toBe(0);
  });
  it("refuses what lies outside, what it cannot, and writes to a read-only drive", () => {
    const t = setup(new VirtioBlk(new MemoryDrive(image(), true), "s"));
    t.start();
    expect(request(t, 0, 16, 0x9000, 512)).toBe(1);
    expect(request(t, 0, 0, 0x9000, 100)).toBe(1);
    expect(request(t, 1, 0, 0x9000, 512)).toBe(1);
    expect(request(t, 99, 0, 0x9000, 512)).toBe(2);
  });
  it("takes indirect descriptors", () => {
    const t = setup(new VirtioBlk(new MemoryDrive(image()), "s"));
    t.start();
    t.view.setUint32(0x8000, 0, true);
    t.view.setBigUint64(0x8008, 1n, true);
    t.descriptor(0, 0x8000, 16, 1, 1, 0xa000);
    t.descriptor(1, 0x9000, 512, 3, 2, 0xa000);
    t.descriptor(2, 0x8020, 1, 2, 0, 0xa000);
    t.descriptor(5, 0xa000, 48, 4);
    t.kick(5);
    expect(t.used()).toEqual({ index: 1, id: 5, length: 513 });
    expect(t.ram.slice(0x9000, 0x9200)).toEqual(image().slice(512, 1024));
  });
  it("needs a reset after a broken ring, and recovers by it", () => {
    const t = setup(new VirtioBlk(new MemoryDrive(image()), "s"));
    t.start();
    t.descriptor(0, 0x8000, 16, 1, 0);
    t.kick(0);
    expect(t.status() & 64).toBe(64);
    expect(t.msis).toEqual([{ address: 0xfee01000, data: 0x40 }]);
    t.mmio.write(t.common + 0x14, 1, 0);
    expect(t.status()).toBe(0);
  });
  it("neither hangs nor throws, whatever the driver writes", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 64, maxLength: 128 }),
        fc.array(fc.tuple(fc.nat(0x3fff), fc.constantFrom(1, 2, 4), fc.nat(0xffffffff)), { maxLength: 20 }),
        fc.nat(0xffff),
        (descriptors, writes, head) => {
          const t = setup(new VirtioBlk(new MemoryDrive(image()), "s"));
          t.start();
          t.ram.set(descriptors, DESC);
          t.kick(head & 7);
          for (const [offset, size, value] of writes) t.mmio.write(BAR + offset, size, value);
          for (const [offset, size] of writes) t.mmio.read(BAR + offset, size);
          t.kick(head);
        },
      ),
    );
  });
});
