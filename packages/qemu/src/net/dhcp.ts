/** DHCP for one client: it always gets the same address. RFC 2131, 2132. */
import { viewOf } from "@swtdx/abi";
import type { Ipv4 } from "./packet.js";

export const DHCP_PORT = { SERVER: 67, CLIENT: 68 } as const;
const OFFSET = {
  OP: 0,
  HTYPE: 1,
  HLEN: 2,
  YIADDR: 16,
  SIADDR: 20,
  CHADDR: 28,
  COOKIE: 236,
  OPTIONS: 240,
} as const;
const OP = { REQUEST: 1, REPLY: 2 } as const;
const COOKIE = 0x63825363;
const OPTION = {
  PAD: 0,
  SUBNET_MASK: 1,
  ROUTER: 3,
  DNS: 6,
  REQUESTED_ADDRESS: 50,
  LEASE_TIME: 51,
  TYPE: 53,
  SERVER: 54,
  END: 255,
} as const;
const TYPE = { DISCOVER: 1, OFFER: 2, REQUEST: 3, ACK: 5, NAK: 6, INFORM: 8 } as const;
const LEASE_SECONDS = 24 * 60 * 60;
/** Smallest message that every client takes. */
const SIZE = 300;

export interface DhcpLease {
  readonly address: Ipv4;
  readonly mask: Ipv4;
  readonly server: Ipv4;
  readonly router: Ipv4;
  readonly dns: Ipv4;
}

/** @returns the answer to a client's message, or null if there is none. */
export function answerDhcp(message: Uint8Array, lease: DhcpLease): Uint8Array | null {
  const request = parse(message);
  if (request === null) return null;
  const { type } = request;
  // A client that remembers another network's address must forget it.
  const refused = type === TYPE.REQUEST && request.wanted !== null && request.wanted !== lease.address;
  const answers: Partial<Record<number, number>> = {
    [TYPE.DISCOVER]: TYPE.OFFER,
    [TYPE.REQUEST]: refused ? TYPE.NAK : TYPE.ACK,
    [TYPE.INFORM]: TYPE.ACK,
  };
  const answer = answers[type];
  if (answer === undefined) return null;
  const out = new Uint8Array(SIZE);
  const view = viewOf(out);
  out.set(message.subarray(0, OFFSET.COOKIE));
  out.fill(0, 44, OFFSET.COOKIE);
  out[OFFSET.OP] = OP.REPLY;
  view.setUint32(OFFSET.COOKIE, COOKIE);
  if (answer !== TYPE.NAK && type !== TYPE.INFORM) view.setUint32(OFFSET.YIADDR, lease.address);
  view.setUint32(OFFSET.SIADDR, answer === TYPE.NAK ? 0 : lease.server);
  let at: number = OFFSET.OPTIONS;
  const option = (code: number, value: number, bytes = 4) => {
    out[at++] = code;
    out[at++] = bytes;
    if (bytes === 1) out[at] = value;
    else view.setUint32(at, value);
    at += bytes;
  };
  option(OPTION.TYPE, answer, 1);
  option(OPTION.SERVER, lease.server);
  if (answer !== TYPE.NAK) {
    if (type !== TYPE.INFORM) option(OPTION.LEASE_TIME, LEASE_SECONDS);
    option(OPTION.SUBNET_MASK, lease.mask);
    option(OPTION.ROUTER, lease.router);
    option(OPTION.DNS, lease.dns);
  }
  out[at] = OPTION.END;
  return out;
}

function parse(message: Uint8Array): { type: number; wanted: Ipv4 | null } | null {
  if (message.length < OFFSET.OPTIONS || message[OFFSET.OP] !== OP.REQUEST) return null;
  const view = viewOf(message);
  if (message[OFFSET.HTYPE] !== 1 || message[OFFSET.HLEN] !== 6) return null;
  if (view.getUint32(OFFSET.COOKIE) !== COOKIE) return null;
  let type = 0;
  let wanted: Ipv4 | null = null;
  for (let at: number = OFFSET.OPTIONS; at < message.length && message[at] !== OPTION.END;) {
    if (message[at] === OPTION.PAD) {
      at++;
      continue;
    }
    const length = message[at + 1];
    if (length === undefined || at + 2 + length > message.length) return null;
    if (message[at] === OPTION.TYPE && length === 1) type = message[at + 2];
    if (message[at] === OPTION.REQUESTED_ADDRESS && length === 4) wanted = view.getUint32(at + 2);
    at += 2 + length;
  }
  return { type, wanted };
}
