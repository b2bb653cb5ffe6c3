/** Events for people: what was measured, and whether the digest is that of the event's own bytes. */
import { EV, eventTypeName } from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";
import { equal, hex } from "../bytes.js";
import type { EventLog, LogEvent } from "./parse.js";
import { rtmrOf } from "./replay.js";

export interface EventLine {
  readonly index: number;
  readonly offset: number;
  /** "RTMR[0]", "MRTD" or "-". */
  readonly register: string;
  readonly type: string;
  readonly digest: string;
  /** Text found in the event, or its bytes. */
  readonly detail: string;
  /** The digest is SHA-384 of the event's bytes; false where something else was measured, such as an image. */
  readonly hashesEvent: boolean;
}

const PRINTABLE = /^[\x20-\x7e]+$/;

const utf16 = (data: Uint8Array): string => new TextDecoder("utf-16le").decode(data);

/** UEFI_VARIABLE_DATA: GUID, length of the name in characters, length of the data, name. */
function variable(event: Uint8Array): string | null {
  if (event.length < 32) return null;
  const view = new DataView(event.buffer, event.byteOffset, event.byteLength);
  const characters = view.getBigUint64(16, true);
  const size = view.getBigUint64(24, true);
  if (characters > 256n || 32n + 2n * characters + size > BigInt(event.length)) return null;
  const name = utf16(event.subarray(32, 32 + 2 * Number(characters)));
  return PRINTABLE.test(name) ? `variable ${name}, ${size} bytes` : null;
}

/** UEFI_PLATFORM_FIRMWARE_BLOB2: description with its length before it. */
function blob2(event: Uint8Array): string | null {
  const length = event[0];
  if (length === undefined || event.length < 1 + length) return null;
  const text = String.fromCharCode(...event.subarray(1, 1 + length)).replace(/\0+$/, "");
  return PRINTABLE.test(text) ? text : null;
}

function plain(event: Uint8Array): string {
  const ascii = String.fromCharCode(...event.subarray(0, 512)).replace(/\0+$/, "");
  if (PRINTABLE.test(ascii)) return `"${ascii}"`;
  if (event.length >= 4 && event.length % 2 === 0) {
    const wide = utf16(event.subarray(0, 512)).replace(/\0+$/, "");
    if (PRINTABLE.test(wide)) return `"${wide}"`;
  }
  return event.length > 32 ? `${hex(event.subarray(0, 32))}… (${event.length} bytes)` : hex(event);
}

function detailOf({ type, event }: LogEvent): string {
  switch (type) {
    case EV.EFI_VARIABLE_DRIVER_CONFIG:
    case EV.EFI_VARIABLE_BOOT:
    case EV.EFI_VARIABLE_BOOT2:
    case EV.EFI_VARIABLE_AUTHORITY:
      return variable(event) ?? plain(event);
    case EV.EFI_PLATFORM_FIRMWARE_BLOB2:
    case EV.EFI_HANDOFF_TABLES2:
      return blob2(event) ?? plain(event);
    default:
      return plain(event);
  }
}

/** One line an event, in the log's order. */
export const describeEventLog = (log: EventLog): EventLine[] =>
  log.events.map((event, i) => {
    const rtmr = rtmrOf(event);
    return {
      index: i + 1,
      offset: event.offset,
      register:
        rtmr !== null ? `RTMR[${rtmr}]` : event.mrIndex === 0 && event.type !== EV.NO_ACTION ? "MRTD" : "-",
      type: eventTypeName(event.type),
      digest: hex(event.digest),
      detail: detailOf(event),
      hashesEvent: equal(sha384(event.event), event.digest),
    };
  });
