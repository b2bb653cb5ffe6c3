/** The network in the process: what a guest's stack sends it, and TCP against itself over a link that loses. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Timers } from "../src/clock.js";
import type { ByteStream } from "../src/net/byte-stream.js";
import {
  BROADCAST_MAC,
  buildEthernet,
  buildIpv4Packet,
  icmpChecksum,
  parseIpv4,
  parseIpv4Packet,
  transportChecksum,
} from "../src/net/packet.js";
import { buildTcp, parseTcp, TCP_FLAG, TcpConnection, type TcpSegment } from "../src/net/tcp.js";
import { UserNetwork } from "../src/net/user-network.js";

const MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56);
const GUEST = parseIpv4("10.0.2.15");
const GATEWAY = parseIpv4("10.0.2.2");
const DNS = parseIpv4("10.0.2.3");
const bytes = (text: string) => new TextEncoder().encode(text);
const text = (data: Uint8Array) => new TextDecoder().decode(data);
const hex = (data: Uint8Array) => Buffer.from(data).toString("hex");
const unhex = (data: string) => Uint8Array.from(Buffer.from(data.replaceAll(" ", ""), "hex"));

function plugged() {
  const network = new UserNetwork();
  const frames: Uint8Array[] = [];
  const clock = { now: 0 };
  const timers = new Timers(() => clock.now);
  network.connect({ mac: MAC, receive: (frame) => frames.push(frame) > 0 }, timers);
  const sendIp = (destination: number, protocol: number, payload: Uint8Array, source = GUEST) =>
    network.transmit(
      buildEthernet(BROADCAST_MAC, MAC, 0x0800, buildIpv4Packet({ source, destination, protocol, payload })),
    );
  const udp = (destination: number, port: number, data: Uint8Array, source = GUEST, sourcePort = 4000) => {
    const payload = new Uint8Array(8 + data.length);
    const view = new DataView(payload.buffer);
    [sourcePort, port, payload.length].forEach((value, i) => view.setUint16(2 * i, value));
    payload.set(data, 8);
    view.setUint16(6, transportChecksum({ source, destination, protocol: 17, payload }));
    sendIp(destination, 17, payload, source);
  };
  const packets = () =>
    frames
      .splice(0)
      .map((frame) => ({ to: hex(frame.subarray(0, 6)), ...parseIpv4Packet(frame.subarray(14))! }));
  return { network, frames, clock, timers, sendIp, udp, packets };
}

describe("UserNetwork", () => {
  it("answers ARP for its own addresses only", () => {
    const { network, frames } = plugged();
    const request = (last: string) =>
      network.transmit(
        unhex(
          `ffffffffffff 525400123456 0806 0001080006040001 525400123456 0a00020f 000000000000 0a0002${last}`,
        ),
      );
    request("02");
    request("63");
    expect(frames.map(hex)).toEqual([
      hex(
        unhex("525400123456 52550a000202 0806 0001080006040002 52550a000202 0a000202 525400123456 0a00020f"),
      ),
    ]);
  });
  it("gives the guest its address", () => {
    const { udp, packets } = plugged();
    const ask = (type: number, ...options: number[]) => {
      const message = new Uint8Array(300);
      message.set([1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef]);
      message.set(MAC, 28);
      message.set([0x63, 0x82, 0x53, 0x63, 53, 1, type, ...options, 255], 236);
      udp(0xffffffff, 67, message, 0, 68);
      return packets().map(({ source, destination, to, payload }) => ({
        source,
        destination,
        to,
        checksum: transportChecksum({ source, destination, protocol: 17, payload }),
        xid: hex(payload.subarray(12, 16)),
        address: hex(payload.subarray(24, 28)),
        options: hex(payload.subarray(248, 248 + 40)),
      }));
    };
    const rest = "3604 0a000202 3304 00015180 0104 ffffff00 0304 0a000202 0604 0a000203 ff".replaceAll(
      " ",
      "",
    );
    const common = {
      source: GATEWAY,
      destination: 0xffffffff,
      to: "ffffffffffff",
      checksum: 0,
      xid: "deadbeef",
    };
    const [offer] = ask(1);
    expect(offer).toMatchObject({ ...common, address: "0a00020f" });
    expect(offer.options).toContain(`350102${rest}`);
    const [ack] = ask(3, 50, 4, 10, 0, 2, 15);
    expect(ack.options).toContain(`350105${rest}`);
    const [nak] = ask(3, 50, 4, 192, 168, 1, 1);
    expect(nak).toMatchObject({ address: "00000000" });
    expect(nak.options.startsWith("3501063604")).toBe(true);
    expect(ask(7)).toEqual([]);
  });
  it("answers pings", () => {
    const { sendIp, packets } = plugged();
    const ping = unhex("0800 0000 0001 0002 616263");
    new DataView(ping.buffer).setUint16(2, icmpChecksum(ping));
    sendIp(GATEWAY, 1, ping);
    sendIp(parseIpv4("8.8.8.8"), 1, ping);
    const replies = packets();
    expect(replies.length).toBe(1);
    expect(icmpChecksum(replies[0].payload)).toBe(0);
    expect(hex(replies[0].payload)).toMatch(/^0000....00010002616263$/);
  });
  it("knows the names that it was given", () => {
    const { network, udp, packets } = plugged();
    network.addHost("Verifier.test", "10.0.2.77");
    const ask = (name: string, type: number) => {
      const labels = name.split(".").flatMap((label) => [label.length, ...bytes(label)]);
      udp(DNS, 53, Uint8Array.of(0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...labels, 0, 0, type, 0, 1));
      return packets().map(({ payload }) => [hex(payload.subarray(8, 16)), hex(payload.subarray(-4))]);
    };
    expect(ask("verifier.TEST", 1)).toEqual([["1234818000010001", "0a00024d"]]);
    expect(ask("verifier.test", 28)).toEqual([["1234818000010000", "001c0001"]]);
    expect(ask("example.com", 1)).toEqual([["1234818300010000", "00010001"]]);
    expect(() => network.addHost("x", "8.8.8.8")).toThrow(RangeError);
  });
  it("takes datagrams to services, and their answers back", () => {
    const { network, udp, packets } = plugged();
    network.serveUdp(7, (data, reply, peer) => reply(bytes(`${peer} ${text(data)}`)));
    udp(GATEWAY, 7, bytes("echo"));
    udp(GATEWAY, 8, bytes("echo"));
    expect(packets().map(({ payload }) => text(payload.subarray(8)))).toEqual(["10.0.2.15:4000 echo"]);
  });
  it("refuses connections to nowhere, drops broken segments", () => {
    const { sendIp, packets } = plugged();
    const segment = (checksum: number) => {
      const payload = buildTcp({
        sourcePort: 4000,
        destinationPort: 80,
        sequence: 1000,
        ack: 0,
        flags: TCP_FLAG.SYN,
        window: 1000,
        payload: new Uint8Array(),
      });
      const sum = transportChecksum({ source: GUEST, destination: GATEWAY, protocol: 6, payload });
      new DataView(payload.buffer).setUint16(16, sum ^ checksum);
      return payload;
    };
    sendIp(GATEWAY, 6, segment(1));
    expect(packets()).toEqual([]);
    sendIp(GATEWAY, 6, segment(0));
    const [reset] = packets();
    expect(parseTcp(reset.payload)).toMatchObject({ flags: TCP_FLAG.RST | TCP_FLAG.ACK, ack: 1001 });
  });
  it("survives any frame", () => {
    const { network, frames } = plugged();
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 14, maxLength: 200 }),
        fc.constantFrom(0x0806, 0x0800),
        (frame, type) => {
          new DataView(frame.buffer, frame.byteOffset).setUint16(12, type);
          network.transmit(frame);
          expect(frames.length).toBeLessThan(2);
          frames.length = 0;
        },
      ),
    );
  });
});

/** Two ends and a link that loses the segments whose turn `lost` names. */
function pair(lost: ReadonlySet<number>) {
  const clock = { now: 0 };
  const timers = new Timers(() => clock.now);
  const inFlight: (() => void)[] = [];
  let count = 0;
  const ends: TcpConnection[] = [];
  const events: string[] = [];
  const make = (i: number) => {
    const end = new TcpConnection({
      localPort: i,
      remotePort: 1 - i,
      peer: `${1 - i}`,
      initialSequence: 0xfffffff0 + i,
      now: timers.now,
      createTimer: (callback) => timers.create(callback),
      send: (segment: TcpSegment) => {
        if (!lost.has(count++)) inFlight.push(() => ends[1 - i].receive(parseTcp(buildTcp(segment))!));
      },
    });
    end.onEnd = () => events.push(`${i} end`);
    end.onClose = () => events.push(`${i} close`);
    return end;
  };
  ends.push(make(0), make(1));
  const settle = () => {
    for (let steps = 0; steps < 10000; steps++) {
      const next = inFlight.shift();
      if (next) next();
      else {
        const deadline = timers.next();
        if (deadline === null) return;
        clock.now = deadline;
        timers.run();
      }
    }
    throw new Error("the connection does not come to rest");
  };
  return { ends, events, settle };
}

const received = (stream: ByteStream): (() => Uint8Array) => {
  const parts: Uint8Array[] = [];
  stream.onData = (data) => parts.push(data);
  return () => Uint8Array.from(parts.flatMap((part) => [...part]));
};

describe("TcpConnection", () => {
  it("carries everything in order, whatever the link loses, and ends on both sides", () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(40), { maxLength: 6 }),
        fc.array(fc.nat(4000), { maxLength: 5 }),
        fc.array(fc.nat(4000), { maxLength: 5 }),
        (lost, forth, back) => {
          const { ends, events, settle } = pair(new Set(lost));
          const [a, b] = ends;
          const got = [received(a), received(b)];
          const data = (sizes: number[], seed: number) =>
            sizes.map((size) => Uint8Array.from({ length: size }, (_, i) => (i * 7 + seed) & 0xff));
          a.connect();
          for (const part of data(forth, 1)) a.write(part);
          a.end();
          b.onEnd = () => {
            events.push("1 end");
            for (const part of data(back, 2)) b.write(part);
            b.end();
          };
          settle();
          const all = (parts: Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]));
          expect(hex(got[1]())).toBe(hex(all(data(forth, 1))));
          expect(hex(got[0]())).toBe(hex(all(data(back, 2))));
          expect(events.filter((event) => event.endsWith("end")).sort()).toEqual(["0 end", "1 end"]);
          expect(events).toContain("0 close");
        },
      ),
      { numRuns: 60 },
    );
  });
  it("breaks off at both ends", () => {
    const { ends, events, settle } = pair(new Set());
    ends[0].connect();
    settle();
    ends[1].abort();
    settle();
    expect(events).toEqual(["1 close", "0 close"]);
  });
  it("gives up when nobody answers", () => {
    const { ends, events, settle } = pair(new Set(Array.from({ length: 100 }, (_, i) => i)));
    ends[0].connect();
    settle();
    expect(events).toEqual(["0 close"]);
  });
});

describe("a guest's connection", () => {
  it("is accepted, carries data, and is gone", () => {
    const { network, sendIp, packets, clock, timers } = plugged();
    const events: string[] = [];
    network.serveTcp(80, (stream) => {
      events.push(`accept ${stream.peer}`);
      stream.onData = (data) => stream.write(bytes(text(data).toUpperCase()));
      stream.onEnd = () => stream.end();
      stream.onClose = () => events.push("close");
    });
    // The guest's end is this project's too; what is tested is the way through packets.
    const guest: TcpConnection = new TcpConnection({
      localPort: 4000,
      remotePort: 80,
      peer: "gateway",
      initialSequence: 7,
      now: () => clock.now,
      createTimer: (callback) => timers.create(callback),
      send: (segment) => {
        const packet = { source: GUEST, destination: GATEWAY, protocol: 6, payload: buildTcp(segment) };
        new DataView(packet.payload.buffer).setUint16(16, transportChecksum(packet));
        sendIp(GATEWAY, 6, packet.payload);
      },
    });
    const got = received(guest);
    const run = () => {
      for (let arrived = packets(); arrived.length > 0; arrived = packets())
        for (const packet of arrived) {
          expect(transportChecksum(packet)).toBe(0);
          guest.receive(parseTcp(packet.payload)!);
        }
    };
    guest.connect();
    guest.write(bytes("hello"));
    run();
    expect(text(got())).toBe("HELLO");
    guest.end();
    run();
    expect(events).toEqual(["accept 10.0.2.15:4000", "close"]);
  });
});
