/** A name server that knows a few names. RFC 1035. */
import { viewOf } from "@swtdx/abi";
import type { Ipv4 } from "./packet.js";

export const DNS_PORT = 53;
const HEADER_SIZE = 12;
const FLAGS = {
  RESPONSE: 0x8000,
  OPCODE: 0x7800,
  RECURSION_DESIRED: 0x0100,
  RECURSION_AVAILABLE: 0x0080,
} as const;
const RCODE = { OK: 0, FORMAT_ERROR: 1, NO_SUCH_NAME: 3, NOT_IMPLEMENTED: 4 } as const;
const TYPE_A = 1;
const CLASS_IN = 1;
const TTL_SECONDS = 60;
/** A name that was given at the start of the question. */
const NAME_OF_QUESTION = 0xc000 | HEADER_SIZE;
const LABEL_MAX = 63;

/** @returns the answer to a query; `lookup` gives a name's (lower case) address. Null for what is no query. */
export function answerDns(query: Uint8Array, lookup: (name: string) => Ipv4 | null): Uint8Array | null {
  if (query.length < HEADER_SIZE) return null;
  const view = viewOf(query);
  const flags = view.getUint16(2);
  if (flags & FLAGS.RESPONSE) return null;
  const question = view.getUint16(4) === 1 ? parseQuestion(query) : null;
  const address = question === null ? null : lookup(question.name);
  let rcode: number = RCODE.OK;
  if (flags & FLAGS.OPCODE) rcode = RCODE.NOT_IMPLEMENTED;
  else if (question === null) rcode = RCODE.FORMAT_ERROR;
  else if (address === null) rcode = RCODE.NO_SUCH_NAME;
  const answers =
    rcode === RCODE.OK && question !== null && question.type === TYPE_A && question.class === CLASS_IN;
  const questionBytes = question === null ? new Uint8Array() : query.subarray(HEADER_SIZE, question.end);
  const out = new Uint8Array(HEADER_SIZE + questionBytes.length + (answers ? 16 : 0));
  const response = viewOf(out);
  response.setUint16(0, view.getUint16(0));
  response.setUint16(
    2,
    FLAGS.RESPONSE | (flags & (FLAGS.OPCODE | FLAGS.RECURSION_DESIRED)) | FLAGS.RECURSION_AVAILABLE | rcode,
  );
  response.setUint16(4, question === null ? 0 : 1);
  response.setUint16(6, answers ? 1 : 0);
  out.set(questionBytes, HEADER_SIZE);
  if (answers) {
    const at = HEADER_SIZE + questionBytes.length;
    response.setUint16(at, NAME_OF_QUESTION);
    response.setUint16(at + 2, TYPE_A);
    response.setUint16(at + 4, CLASS_IN);
    response.setUint32(at + 6, TTL_SECONDS);
    response.setUint16(at + 10, 4);
    response.setUint32(at + 12, address!);
  }
  return out;
}

function parseQuestion(query: Uint8Array): { name: string; type: number; class: number; end: number } | null {
  const labels: string[] = [];
  let at = HEADER_SIZE;
  for (;;) {
    const length = query[at];
    if (length === undefined || length > LABEL_MAX || at + 1 + length + 4 > query.length) return null;
    at++;
    if (length === 0) break;
    labels.push(new TextDecoder().decode(query.subarray(at, at + length)).toLowerCase());
    at += length;
  }
  const view = viewOf(query);
  return { name: labels.join("."), type: view.getUint16(at), class: view.getUint16(at + 2), end: at + 4 };
}
