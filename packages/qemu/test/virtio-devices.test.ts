/** Virtio devices that act by themselves, seen by a driver: network card, console, sockets; and hostile drivers. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ConsolePort, VirtioConsole } from "../src/hw/virtio/virtio-console.js";
import { MemoryDrive, VirtioBlk } from "../src/hw/virtio/virtio-blk.js";
import { VirtioNet } from "../src/hw/virtio/virtio-net.js";
import type { VirtioBackend } from "../src/hw/virtio/virtio-pci.js";
import { VirtioRng } from "../src/hw/virtio/virtio-rng.js";
import { VirtioVsock } from "../src/hw/virtio/virtio-vsock.js";
import type { ByteStream } from "../src/net/byte-stream.js";
import type { NetBackend, NetCard } from "../src/net/net-backend.js";
import { UserNetwork } from "../src/net/user-network.js";
import { EVENT_IDX, VirtioDriver } from "./support/virtio-driver.js";

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
const bytes = (string: string) => new TextEncoder().encode(string);
const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);

class Wire implements NetBackend {
  readonly sent: Uint8Array[] = [];
  card!: NetCard;
  connect(card: NetCard): void {
    this.card = card;
  }
  transmit(frame: Uint8Array): void {
    this.sent.push(frame.slice());
  }
}

describe.each([
  ["with EVENT_IDX", EVENT_IDX],
  ["without EVENT_IDX", 0n],
])("virtio-net %s", (_name, features) => {
  const frame = (fill: number, length = 60) => new Uint8Array(length).fill(fill);
  it("sends frames without their header, and interrupts", () => {
    const wire = new Wire();
    const driver = new VirtioDriver(new VirtioNet(wire, MAC), features);
    driver.offer(1, Uint8Array.of(...new Uint8Array(12), ...frame(7)));
    expect(wire.sent).toEqual([frame(7)]);
    expect(driver.collect(1).length).toBe(1);
    expect(driver.interrupts()).toEqual([1]);
    expect([driver.config(0, 4), driver.config(4, 2), driver.config(6, 2)]).toEqual([0x12005452, 0x5634, 1]);
  });
  it("keeps frames until there are buffers, in order, each with a header that counts one buffer", () => {
    const wire = new Wire();
    const driver = new VirtioDriver(new VirtioNet(wire, MAC), features);
    expect([1, 2, 3].map((fill) => wire.card.receive(frame(fill)))).toEqual([true, true, true]);
    expect(driver.collect(0)).toEqual([]);
    for (let i = 0; i < 4; i++) driver.offer(0, 2048);
    const got = driver.collect(0);
    expect(got.map((one) => [one.length, one[10], one[12]])).toEqual([
      [72, 1, 1],
      [72, 1, 2],
      [72, 1, 3],
    ]);
    driver.interrupts();
    wire.card.receive(frame(9));
    expect(driver.interrupts()).toEqual([0]);
    expect(driver.collect(0)[0][12]).toBe(9);
  });
  it("loses frames that nobody takes, and forgets them when reset", () => {
    const wire = new Wire();
    const driver = new VirtioDriver(new VirtioNet(wire, MAC), features);
    const taken = Array.from({ length: 1100 }, () => wire.card.receive(frame(1)));
    expect(taken.filter((one) => one).length).toBe(1024);
    driver.start(features);
    driver.offer(0, 2048);
    expect(driver.collect(0)).toEqual([]);
  });
  it("acknowledges commands about addresses, refuses others", () => {
    const driver = new VirtioDriver(new VirtioNet(new Wire(), MAC), features | (1n << 17n));
    for (const [command, ack] of [
      [[0, 0, 1], 0],
      [[1, 1, ...MAC], 0],
      [[4, 0, 1, 0], 1],
    ] as const) {
      const chain = driver.chain(2, Uint8Array.from(command), 1);
      expect(driver.collect(2).length).toBe(1);
      expect(driver.ram[chain]).toBe(ack);
    }
  });
});

describe("virtio-console", () => {
  const open = () => {
    const console_ = new ConsolePort();
    const agent = new ConsolePort("org.swtdx.agent");
    const driver = new VirtioDriver(new VirtioConsole([console_, agent]), EVENT_IDX | 2n);
    const control = (id: number, event: number, value: number) =>
      driver.offer(3, Uint8Array.of(id, 0, 0, 0, event, 0, value, 0));
    const told = () =>
      driver.collect(2).map((one) => [one[0], one[4], one[6], text(one.subarray(8))] as const);
    return { console_, agent, driver, control, told };
  };
  it("tells of its ports, what they are, and that they are open", () => {
    const { driver, control, told, agent } = open();
    for (let i = 0; i < 8; i++) driver.offer(2, 64);
    control(0, 0, 1);
    expect(told()).toEqual([
      [0, 1, 1, ""],
      [1, 1, 1, ""],
    ]);
    control(0, 3, 1);
    control(1, 3, 1);
    expect(told()).toEqual([
      [0, 4, 1, ""],
      [0, 6, 1, ""],
      [1, 7, 1, "org.swtdx.agent\0"],
      [1, 6, 1, ""],
    ]);
    const opened: boolean[] = [];
    agent.onGuestOpen = (is) => opened.push(is);
    control(1, 6, 1);
    control(1, 6, 0);
    expect(opened).toEqual([true, false]);
    expect(driver.config(4, 4)).toBe(2);
  });
  it("carries bytes both ways, on the port they belong to", () => {
    const { console_, agent, driver } = open();
    const got: string[] = [];
    console_.onData = (data) => got.push(`console ${text(data)}`);
    agent.onData = (data) => got.push(`agent ${text(data)}`);
    driver.offer(1, bytes("hello"));
    driver.offer(5, bytes("request"));
    expect(got).toEqual(["console hello", "agent request"]);
    agent.write(bytes("0123456789"));
    driver.offer(4, 4);
    driver.offer(4, 64);
    expect(driver.collect(4).map(text)).toEqual(["0123", "456789"]);
    driver.interrupts();
    driver.offer(0, 16);
    console_.write(bytes("x"));
    expect(driver.interrupts()).toEqual([0]);
    driver.writeConfig(8, 4, 0x21);
    expect(got.at(-1)).toBe("console !");
  });
});

describe("virtio-vsock", () => {
  const OP = { REQUEST: 1, RESPONSE: 2, RST: 3, SHUTDOWN: 4, RW: 5, CREDIT_UPDATE: 6 };
  const setup = () => {
    const vsock = new VirtioVsock(3);
    const driver = new VirtioDriver(vsock);
    const send = (op: number, to: number, data = "", flags = 0, room = 65536, forwarded = 0, from = 1024) => {
      const packet = new Uint8Array(44 + data.length);
      const view = new DataView(packet.buffer);
      view.setUint32(0, 3, true);
      view.setUint32(8, 2, true);
      [from, to, data.length].forEach((value, i) => view.setUint32(16 + 4 * i, value, true));
      view.setUint16(28, 1, true);
      view.setUint16(30, op, true);
      [flags, room, forwarded].forEach((value, i) => view.setUint32(32 + 4 * i, value, true));
      packet.set(bytes(data), 44);
      driver.offer(1, packet);
      driver.collect(1);
    };
    const received = () =>
      driver.collect(0).map((packet) => {
        driver.offer(0, 4096);
        const view = new DataView(packet.buffer);
        expect([view.getUint32(0, true), view.getUint32(8, true), packet.length]).toEqual([
          2,
          3,
          44 + view.getUint32(24, true),
        ]);
        return [view.getUint16(30, true), view.getUint32(20, true), text(packet.subarray(44))] as const;
      });
    for (let i = 0; i < 12; i++) driver.offer(0, 4096);
    return { vsock, driver, send, received };
  };
  it("accepts what somebody listens for, and refuses the rest", () => {
    const { vsock, send, received, driver } = setup();
    const streams: ByteStream[] = [];
    vsock.listen(5000, (stream) => streams.push(stream));
    send(OP.REQUEST, 5001);
    expect(received()).toEqual([[OP.RST, 1024, ""]]);
    send(OP.REQUEST, 5000);
    expect(received()).toEqual([[OP.RESPONSE, 1024, ""]]);
    expect(streams.map(({ peer }) => peer)).toEqual(["cid 3 port 1024"]);
    const got: string[] = [];
    streams[0].onData = (data) => {
      got.push(text(data));
      streams[0].write(bytes("pong"));
    };
    streams[0].onEnd = () => got.push("end");
    streams[0].onClose = () => got.push("close");
    send(OP.RW, 5000, "ping");
    expect(received()).toEqual([
      [OP.CREDIT_UPDATE, 1024, ""],
      [OP.RW, 1024, "pong"],
    ]);
    send(OP.SHUTDOWN, 5000, "", 3);
    expect(received()).toEqual([[OP.RST, 1024, ""]]);
    expect(got).toEqual(["ping", "end", "close"]);
    expect(driver.config(0, 4)).toBe(3);
  });
  it("sends no more than the guest has room for", () => {
    const { vsock, send, received } = setup();
    const stream = vsock.connect(22);
    const [[op, port]] = received();
    expect([op, port]).toEqual([OP.REQUEST, 22]);
    stream.write(bytes("0123456789"));
    stream.end();
    expect(received()).toEqual([]);
    const from = 0x80000000;
    send(OP.RESPONSE, from, "", 0, 4, 0, 22);
    expect(received()).toEqual([[OP.RW, 22, "0123"]]);
    send(OP.CREDIT_UPDATE, from, "", 0, 4, 3, 22);
    expect(received()).toEqual([[OP.RW, 22, "456"]]);
    send(OP.CREDIT_UPDATE, from, "", 0, 100, 7, 22);
    expect(received()).toEqual([
      [OP.RW, 22, "789"],
      [OP.SHUTDOWN, 22, ""],
    ]);
    let closed = false;
    stream.onClose = () => (closed = true);
    send(OP.RST, from, "", 0, 0, 0, 22);
    expect(closed).toBe(true);
  });
});

describe("a hostile driver", () => {
  const backends: [string, () => VirtioBackend][] = [
    ["net", () => new VirtioNet(new UserNetwork(), MAC)],
    ["console", () => new VirtioConsole([new ConsolePort(), new ConsolePort("x")])],
    ["vsock", () => new VirtioVsock(3)],
    ["rng", () => new VirtioRng((length) => new Uint8Array(length))],
    ["blk", () => new VirtioBlk(new MemoryDrive(new Uint8Array(8192)), "s")],
  ];
  it.each(backends)("breaks %s at most until the next reset", (_name, make) => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 0x800, maxLength: 0x800 }),
        fc.array(fc.tuple(fc.nat(0x3010), fc.constantFrom(1, 2, 4), fc.nat(0xffffffff)), { maxLength: 40 }),
        (rings, writes) => {
          const driver = new VirtioDriver(make());
          for (let queue = 0; queue < 6; queue++) driver.ram.set(rings, 0x1000 * (1 + queue) + 16 * queue);
          // Few registers matter: notifications most of all.
          for (const [offset, size, value] of writes)
            driver.mmio.write(0x900000000 + (offset & 1 ? 0x3000 + (offset & 0x1c) : offset), size, value);
          driver.start(0n);
          expect(driver.status).toBe(15);
        },
      ),
      { numRuns: 30 },
    );
  });
  // Rings that are almost right: each queue's are made of plausible descriptors, lengths, indexes and places.
  const place = fc.oneof(
    fc.constantFrom(0x1000, 0x1402, 0x1802, 0x2402, 0x2800, 0x100000, 0x3ffff0, 0x400000, 2 ** 40),
    fc.nat(0x3fffff),
  );
  const descriptor = fc.record({
    address: place,
    length: fc.constantFrom(0, 1, 2, 12, 16, 44, 64, 4096, 0x10000, 0xfffffff0),
    flags: fc.nat(7),
    next: fc.nat(17),
  });
  const ring = fc.record({
    descriptors: fc.array(descriptor, { minLength: 16, maxLength: 16 }),
    heads: fc.array(fc.nat(17), { minLength: 16, maxLength: 16 }),
    count: fc.nat(16),
    used: fc.constantFrom(0x1800, 0x1400, 0x1404, 0x2404, 0x1000, 0x400000),
  });
  it.each(backends)(
    "gets from %s an answer or a device that needs a reset, and no more than it asked for",
    (_name, make) => {
      fc.assert(
        fc.property(
          fc.array(ring, { minLength: 6, maxLength: 6 }),
          fc.array(fc.nat(5), { minLength: 1, maxLength: 6 }),
          fc.uint8Array({ maxLength: 200 }),
          (rings, notifications, data) => {
            const driver = new VirtioDriver(make());
            driver.ram.set(data, 0x100000);
            rings.forEach(({ descriptors, heads, count, used }, queue) => {
              const at = 0x1000 * (1 + queue);
              driver.placeUsed(queue, used === 0x400000 ? used : at + (used & 0xfff));
              descriptors.forEach(({ address, length, flags, next }, i) => {
                driver.view.setBigUint64(at + 16 * i, BigInt(address), true);
                driver.view.setUint32(at + 16 * i + 8, length, true);
                driver.view.setUint16(at + 16 * i + 12, flags, true);
                driver.view.setUint16(at + 16 * i + 14, next, true);
              });
              heads.forEach((head, i) => driver.view.setUint16(at + 0x404 + 2 * i, head, true));
              driver.view.setUint16(at + 0x402, count, true);
            });
            for (const queue of notifications) driver.mmio.write(0x900003000 + 4 * queue, 2, queue);
            expect(driver.status & ~64).toBe(15);
            driver.start(0n);
            expect(driver.status).toBe(15);
          },
        ),
        { numRuns: 60 },
      );
    },
  );
  it("cannot have a device walk a table of millions of descriptors", () => {
    const driver = new VirtioDriver(new VirtioRng((length) => new Uint8Array(length)));
    const table = 0x100000;
    // A table of 4 GiB by its length, whose first two descriptors refer to each other.
    driver.view.setBigUint64(0x1000, BigInt(table), true);
    driver.view.setUint32(0x1000 + 8, 0xfffffff0, true);
    driver.view.setUint16(0x1000 + 12, 4, true);
    for (const i of [0, 1]) {
      driver.view.setUint32(table + 16 * i + 8, 1, true);
      driver.view.setUint16(table + 16 * i + 12, 3, true);
      driver.view.setUint16(table + 16 * i + 14, 1 - i, true);
    }
    let reads = 0;
    driver.onRead = () => reads++;
    driver.view.setUint16(0x1000 + 0x402, 1, true);
    driver.mmio.write(0x900003000, 2, 0);
    expect(driver.status & 64).toBe(64);
    expect(reads).toBeLessThan(2000);
  });
  it("cannot have a device feed itself", () => {
    // The entropy that the device writes is the next index of the ring.
    let next = 2;
    const driver = new VirtioDriver(
      new VirtioRng(() => {
        const index = Uint8Array.of(next, next >> 8);
        next = (next + 1) & 0xffff;
        return index;
      }),
    );
    driver.view.setBigUint64(0x1000, 0x1402n, true);
    driver.view.setUint32(0x1000 + 8, 2, true);
    driver.view.setUint16(0x1000 + 12, 2, true);
    driver.view.setUint16(0x1000 + 0x402, 1, true);
    driver.mmio.write(0x900003000, 2, 0);
    expect(driver.status & 64).toBe(64);
    expect(next).toBe(2 + 16);
  });
  it("is told that the device needs a reset", () => {
    const driver = new VirtioDriver(new VirtioRng((length) => new Uint8Array(length)));
    driver.view.setUint16(0x1000 + 0x402, 100, true);
    driver.mmio.write(0x900003000, 2, 0);
    expect(driver.status & 64).toBe(64);
    expect(driver.interrupts()).toEqual([1]);
  });
});
