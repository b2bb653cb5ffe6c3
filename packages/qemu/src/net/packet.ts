/** Packets of the Internet protocols, as far as the user network speaks them. RFC 826, 791, 792, 768, 9293, 1071. */
import { viewOf } from "@swtdx/abi";

export const ETHERTYPE = { IPV4: 0x0800, ARP: 0x0806 } as const;
export const IP_PROTOCOL = { ICMP: 1, TCP: 6, UDP: 17 } as const;
export const ETHERNET_HEADER = 14;
export const BROADCAST_MAC = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
const IP_HEADER = 20;
const IP = {
  LENGTH: 2,
  FRAGMENT: 6,
  TTL: 8,
  PROTOCOL: 9,
  CHECKSUM: 10,
  SOURCE: 12,
  DESTINATION: 16,
} as const;
const MORE_FRAGMENTS_OR_OFFSET = 0x3fff;
const DONT_FRAGMENT = 0x4000;
const TTL = 64;

/** An IPv4 address as an unsigned number. */
export type Ipv4 = number;

/** @throws RangeError for text that is no dotted quad */
export function parseIpv4(text: string): Ipv4 {
  const parts = text.split(".").map((part) => (/^\d{1,3}$/.test(part) ? Number(part) : 256));
  if (parts.length !== 4 || parts.some((part) => part > 255))
    throw new RangeError(`no IPv4 address: ${text}`);
  return ((parts[0] << 24) | (parts[1] << 16) | (parts[2] << 8) | parts[3]) >>> 0;
}
export const formatIpv4 = (address: Ipv4): string =>
  [24, 16, 8, 0].map((shift) => (address >>> shift) & 0xff).join(".");

/** The Internet checksum's sum over `bytes`, folded. */
function sum(bytes: Uint8Array, start = 0): number {
  let total = start;
  for (let i = 0; i < bytes.length; i++) total += i & 1 ? bytes[i] : bytes[i] << 8;
  while (total > 0xffff) total = (total & 0xffff) + Math.floor(total / 0x10000);
  return total;
}

export interface Ipv4Packet {
  readonly source: Ipv4;
  readonly destination: Ipv4;
  readonly protocol: number;
  readonly payload: Uint8Array;
}

/** @returns null for what is malformed, has a wrong checksum, or is a fragment. */
export function parseIpv4Packet(bytes: Uint8Array): Ipv4Packet | null {
  if (bytes.length < IP_HEADER || bytes[0] >> 4 !== 4) return null;
  const header = (bytes[0] & 0x0f) * 4;
  const view = viewOf(bytes);
  const length = view.getUint16(IP.LENGTH);
  if (header < IP_HEADER || length < header || length > bytes.length) return null;
  if (sum(bytes.subarray(0, header)) !== 0xffff) return null;
  if (view.getUint16(IP.FRAGMENT) & MORE_FRAGMENTS_OR_OFFSET) return null;
  return {
    source: view.getUint32(IP.SOURCE),
    destination: view.getUint32(IP.DESTINATION),
    protocol: bytes[IP.PROTOCOL],
    payload: bytes.subarray(header, length),
  };
}

export function buildIpv4Packet({ source, destination, protocol, payload }: Ipv4Packet): Uint8Array {
  const out = new Uint8Array(IP_HEADER + payload.length);
  const view = viewOf(out);
  out[0] = 0x45;
  view.setUint16(IP.LENGTH, out.length);
  view.setUint16(IP.FRAGMENT, DONT_FRAGMENT);
  out[IP.TTL] = TTL;
  out[IP.PROTOCOL] = protocol;
  view.setUint32(IP.SOURCE, source);
  view.setUint32(IP.DESTINATION, destination);
  view.setUint16(IP.CHECKSUM, ~sum(out.subarray(0, IP_HEADER)) & 0xffff);
  out.set(payload, IP_HEADER);
  return out;
}

/** Checksum of a UDP datagram or TCP segment, over the pseudo-header too; 0 when `segment` has the right one in it. */
export function transportChecksum({ source, destination, protocol, payload }: Ipv4Packet): number {
  const pseudo = new Uint8Array(12);
  const view = viewOf(pseudo);
  view.setUint32(0, source);
  view.setUint32(4, destination);
  pseudo[9] = protocol;
  view.setUint16(10, payload.length);
  return ~sum(payload, sum(pseudo)) & 0xffff;
}

/** Checksum of an ICMP message. */
export const icmpChecksum = (message: Uint8Array): number => ~sum(message) & 0xffff;

export function buildEthernet(
  destination: Uint8Array,
  source: Uint8Array,
  type: number,
  payload: Uint8Array,
): Uint8Array {
  const out = new Uint8Array(ETHERNET_HEADER + payload.length);
  out.set(destination);
  out.set(source, 6);
  viewOf(out).setUint16(12, type);
  out.set(payload, ETHERNET_HEADER);
  return out;
}
