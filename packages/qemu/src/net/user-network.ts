/**
 * A network in the process, like QEMU's `-netdev user`: gateway, DHCP and name server for one guest. Nothing leaves it;
 * what the guest can reach are services that the embedder registers, and it can be reached by `connect`.
 */
import { viewOf } from "@swtdx/abi";
import type { Timers } from "../clock.js";
import type { ByteStream } from "./byte-stream.js";
import { answerDhcp, DHCP_PORT } from "./dhcp.js";
import { answerDns, DNS_PORT } from "./dns.js";
import type { NetBackend, NetCard } from "./net-backend.js";
import {
  BROADCAST_MAC,
  buildEthernet,
  buildIpv4Packet,
  ETHERNET_HEADER,
  ETHERTYPE,
  formatIpv4,
  icmpChecksum,
  IP_PROTOCOL,
  type Ipv4,
  type Ipv4Packet,
  parseIpv4,
  parseIpv4Packet,
  transportChecksum,
} from "./packet.js";
import {
  buildTcp,
  parseTcp,
  refuse,
  TCP_CHECKSUM_OFFSET,
  TCP_FLAG,
  TcpConnection,
  type TcpSegment,
} from "./tcp.js";

/** Addresses, as QEMU's user network has them. */
export const USER_NETWORK = {
  GUEST: "10.0.2.15",
  GATEWAY: "10.0.2.2",
  DNS: "10.0.2.3",
  MASK: "255.255.255.0",
} as const;
const GUEST = parseIpv4(USER_NETWORK.GUEST);
const GATEWAY = parseIpv4(USER_NETWORK.GATEWAY);
const DNS = parseIpv4(USER_NETWORK.DNS);
const MASK = parseIpv4(USER_NETWORK.MASK);
const BROADCAST = 0xffffffff;
const ARP = { SIZE: 28, REQUEST: 1, REPLY: 2 } as const;
const ICMP = { ECHO_REPLY: 0, ECHO: 8, SIZE: 8 } as const;
const UDP_HEADER = 8;
const EPHEMERAL_PORT = 49152;
const PORT_MAX = 65535;
const CONNECTIONS_MAX = 4096;
const SEQUENCE_STEP = 64000;

/** Answers one datagram, any number of times. */
export type UdpService = (data: Uint8Array, reply: (data: Uint8Array) => void, peer: string) => void;

export class UserNetwork implements NetBackend {
  #card: NetCard | null = null;
  #timers: Timers | null = null;
  readonly #names = new Map<string, Ipv4>();
  readonly #addresses = new Set<Ipv4>([GATEWAY, DNS]);
  readonly #tcpServices = new Map<string, (stream: ByteStream) => void>();
  readonly #udpServices = new Map<string, UdpService>();
  readonly #connections = new Map<string, TcpConnection>();
  #sequence = 1;
  #port = EPHEMERAL_PORT;

  constructor() {
    this.serveUdp(
      DNS_PORT,
      (data, reply) => {
        const answer = answerDns(data, (name) => this.#names.get(name) ?? null);
        if (answer) reply(answer);
      },
      USER_NETWORK.DNS,
    );
  }

  /** A name that the guest can look up; its address is one of this network's, and answers. @throws RangeError */
  addHost(name: string, address: string): void {
    const parsed = parseIpv4(address);
    if ((parsed & MASK) !== (GATEWAY & MASK) || parsed === GUEST)
      throw new RangeError(`${address} cannot be had; 10.0.2.0/24 but ${USER_NETWORK.GUEST} can`);
    this.#addresses.add(parsed);
    this.#names.set(name.toLowerCase(), parsed);
  }

  /** `accept` gets a connection of the guest's to `port` of `address`. */
  serveTcp(port: number, accept: (stream: ByteStream) => void, address: string = USER_NETWORK.GATEWAY): void {
    this.#tcpServices.set(`${parseIpv4(address)}:${port}`, accept);
  }
  serveUdp(port: number, service: UdpService, address: string = USER_NETWORK.GATEWAY): void {
    this.#udpServices.set(`${parseIpv4(address)}:${port}`, service);
  }

  /** A connection to `port` of the guest. `onClose` tells when there is nobody. @throws Error before the machine is built */
  connectTcp(port: number): ByteStream {
    this.#port = this.#port === PORT_MAX ? EPHEMERAL_PORT : this.#port + 1;
    const connection = this.#connection(GATEWAY, this.#port, port, () => {});
    connection.connect();
    return connection;
  }

  connect(card: NetCard, timers: Timers): void {
    this.#card = card;
    this.#timers = timers;
  }

  transmit(frame: Uint8Array): void {
    const type = viewOf(frame).getUint16(12);
    const payload = frame.subarray(ETHERNET_HEADER);
    if (type === ETHERTYPE.ARP) this.#arp(payload);
    else if (type === ETHERTYPE.IPV4) {
      const packet = parseIpv4Packet(payload);
      if (packet) this.#ip(packet);
    }
  }

  /** A made-up address for each of ours: locally administered, then the IPv4 address. */
  #macOf(address: Ipv4): Uint8Array {
    return Uint8Array.of(0x52, 0x55, address >>> 24, address >>> 16, address >>> 8, address);
  }

  #arp(request: Uint8Array): void {
    if (request.length < ARP.SIZE || viewOf(request).getUint16(6) !== ARP.REQUEST) return;
    const target = viewOf(request).getUint32(24);
    if (!this.#addresses.has(target)) return;
    const reply = request.slice(0, ARP.SIZE);
    const view = viewOf(reply);
    view.setUint16(6, ARP.REPLY);
    reply.set(this.#macOf(target), 8);
    view.setUint32(14, target);
    reply.set(request.subarray(8, 18), 18);
    this.#card?.receive(buildEthernet(request.subarray(8, 14), this.#macOf(target), ETHERTYPE.ARP, reply));
  }

  #ip(packet: Ipv4Packet): void {
    switch (packet.protocol) {
      case IP_PROTOCOL.ICMP:
        return this.#icmp(packet);
      case IP_PROTOCOL.UDP:
        return this.#udp(packet);
      case IP_PROTOCOL.TCP:
        return this.#tcp(packet);
      default:
    }
  }

  #icmp({ source, destination, payload }: Ipv4Packet): void {
    if (!this.#addresses.has(destination) || payload.length < ICMP.SIZE || payload[0] !== ICMP.ECHO) return;
    if (icmpChecksum(payload) !== 0) return;
    const reply = payload.slice();
    reply[0] = ICMP.ECHO_REPLY;
    viewOf(reply).setUint16(2, 0);
    viewOf(reply).setUint16(2, icmpChecksum(reply));
    this.#send({ source: destination, destination: source, protocol: IP_PROTOCOL.ICMP, payload: reply });
  }

  #udp(packet: Ipv4Packet): void {
    const { source, destination, payload } = packet;
    if (payload.length < UDP_HEADER) return;
    const view = viewOf(payload);
    const length = view.getUint16(4);
    if (length < UDP_HEADER || length > payload.length) return;
    const datagram = payload.subarray(0, length);
    if (view.getUint16(6) !== 0 && transportChecksum({ ...packet, payload: datagram }) !== 0) return;
    const [sourcePort, port] = [view.getUint16(0), view.getUint16(2)];
    const data = datagram.slice(UDP_HEADER);
    if (port === DHCP_PORT.SERVER) return this.#dhcp(data);
    const reply = (answer: Uint8Array) => this.#sendUdp(destination, port, source, sourcePort, answer);
    this.#udpServices.get(`${destination}:${port}`)?.(data, reply, `${formatIpv4(source)}:${sourcePort}`);
  }

  #dhcp(message: Uint8Array): void {
    const answer = answerDhcp(message, {
      address: GUEST,
      mask: MASK,
      server: GATEWAY,
      router: GATEWAY,
      dns: DNS,
    });
    if (answer) this.#sendUdp(GATEWAY, DHCP_PORT.SERVER, BROADCAST, DHCP_PORT.CLIENT, answer);
  }

  #sendUdp(source: Ipv4, sourcePort: number, destination: Ipv4, port: number, data: Uint8Array): void {
    const payload = new Uint8Array(UDP_HEADER + data.length);
    const view = viewOf(payload);
    view.setUint16(0, sourcePort);
    view.setUint16(2, port);
    view.setUint16(4, payload.length);
    payload.set(data, UDP_HEADER);
    const packet = { source, destination, protocol: IP_PROTOCOL.UDP, payload };
    view.setUint16(6, transportChecksum(packet) || 0xffff);
    this.#send(packet);
  }

  #tcp(packet: Ipv4Packet): void {
    const { source, destination, payload } = packet;
    if (transportChecksum(packet) !== 0) return;
    const segment = parseTcp(payload);
    if (segment === null || source !== GUEST) return;
    const known = this.#connections.get(key(destination, segment.destinationPort, segment.sourcePort));
    if (known) return known.receive(segment);
    const accept = this.#tcpServices.get(`${destination}:${segment.destinationPort}`);
    if (
      !accept ||
      this.#connections.size >= CONNECTIONS_MAX ||
      (segment.flags & (TCP_FLAG.SYN | TCP_FLAG.ACK | TCP_FLAG.RST)) !== TCP_FLAG.SYN
    ) {
      const answer = refuse(segment);
      if (answer && this.#addresses.has(destination)) this.#sendTcp(destination, answer);
      return;
    }
    const connection = this.#connection(destination, segment.destinationPort, segment.sourcePort, accept);
    connection.receive(segment);
  }

  #connection(
    address: Ipv4,
    port: number,
    guestPort: number,
    accept: (stream: ByteStream) => void,
  ): TcpConnection {
    const timers = this.#timers;
    if (timers === null) throw new Error("the network has no card yet");
    const id = key(address, port, guestPort);
    const connection = new TcpConnection({
      localPort: port,
      remotePort: guestPort,
      peer: `${USER_NETWORK.GUEST}:${guestPort}`,
      initialSequence: (this.#sequence = (this.#sequence + SEQUENCE_STEP) >>> 0),
      now: timers.now,
      createTimer: (callback) => timers.create(callback),
      send: (segment) => this.#sendTcp(address, segment),
    });
    connection.onOpen = () => accept(connection);
    connection.onGone = () => this.#connections.delete(id);
    this.#connections.set(id, connection);
    return connection;
  }

  #sendTcp(source: Ipv4, segment: TcpSegment): void {
    const packet = { source, destination: GUEST, protocol: IP_PROTOCOL.TCP, payload: buildTcp(segment) };
    viewOf(packet.payload).setUint16(TCP_CHECKSUM_OFFSET, transportChecksum(packet));
    this.#send(packet);
  }

  #send(packet: Ipv4Packet): void {
    const card = this.#card;
    if (card === null) return;
    const to = packet.destination === BROADCAST ? BROADCAST_MAC : card.mac;
    card.receive(buildEthernet(to, this.#macOf(packet.source), ETHERTYPE.IPV4, buildIpv4Packet(packet)));
  }
}

const key = (address: Ipv4, port: number, guestPort: number): string => `${address}:${port}-${guestPort}`;
