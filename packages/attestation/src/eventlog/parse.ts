/**
 * Reads a confidential-computing event log (the CCEL's data) as TDVF writes it. Layout: @swtdx/abi efi/event-log.ts.
 * Source: TCG PC Client Platform Firmware Profile 1.06, ch. 10; UEFI 2.10, ch. 38.
 */
import { type CcEvent, EV, SHA384_SIZE, TCG_PCR_EVENT, TPM_ALG_SHA384, viewOf } from "@swtdx/abi";
import { EventLogError } from "../errors.js";

/** One record and where it stands. */
export interface LogEvent extends CcEvent {
  readonly offset: number;
  /** Of the whole record, in bytes. */
  readonly size: number;
}

export interface EventLog {
  readonly events: readonly LogEvent[];
  /** Bytes up to the end of the last record; firmware reserves more than it fills. */
  readonly used: number;
}

const SIGNATURE = "Spec ID Event03";
const hexNumber = (value: number): string => `0x${value.toString(16)}`;

interface Algorithms {
  /** Digest size in bytes by algorithm. */
  readonly sizes: ReadonlyMap<number, number>;
  readonly end: number;
}

function readSpecId(source: Uint8Array, view: DataView): Algorithms {
  const field = "TCG_EfiSpecIDEvent";
  if (source.length < TCG_PCR_EVENT.size)
    throw new EventLogError(
      "TCG_PCR_EVENT",
      `has ${TCG_PCR_EVENT.size} bytes, but the log has ${source.length}`,
      0,
    );
  const head = TCG_PCR_EVENT.read(view);
  if (head.EventType !== EV.NO_ACTION)
    throw new EventLogError(
      "TCG_PCR_EVENT.EventType",
      `is ${hexNumber(head.EventType)}, expected 0x3 (EV_NO_ACTION)`,
      4,
    );
  const start = TCG_PCR_EVENT.size;
  const end = start + head.EventSize;
  if (end > source.length)
    throw new EventLogError(
      "TCG_PCR_EVENT.EventSize",
      `is ${head.EventSize}, but ${source.length - start} bytes follow`,
      28,
    );
  if (new TextDecoder().decode(source.subarray(start, Math.min(start + 15, end))) !== SIGNATURE)
    throw new EventLogError(`${field}.signature`, `is not "${SIGNATURE}"`, start);
  if (head.EventSize < 28)
    throw new EventLogError(field, `has ${head.EventSize} bytes, expected 29 or more`, start);
  const count = view.getUint32(start + 24, true);
  if (start + 28 + 4 * count + 1 > end)
    throw new EventLogError(
      `${field}.numberOfAlgorithms`,
      `is ${count}, which does not fit the event`,
      start + 24,
    );
  const sizes = new Map<number, number>();
  for (let i = 0; i < count; i++)
    sizes.set(view.getUint16(start + 28 + 4 * i, true), view.getUint16(start + 30 + 4 * i, true));
  if (sizes.get(TPM_ALG_SHA384) !== SHA384_SIZE)
    throw new EventLogError(`${field}.digestSizes`, "has no SHA-384 with 48 bytes", start + 28);
  return { sizes, end };
}

/**
 * Reads a log. It ends where its bytes do, or at padding (a record that starts with FFh or with nothing but zeros).
 * @throws EventLogError
 */
export function parseEventLog(source: Uint8Array): EventLog {
  const view = viewOf(source);
  const { sizes, end } = readSpecId(source, view);
  const events: LogEvent[] = [];
  let at = end;
  while (at < source.length && !isPadding(source, at)) {
    const event = readEvent(source, view, at, events.length + 1, sizes);
    events.push(event);
    at += event.size;
  }
  return { events, used: at };
}

/** MrIndex 0 with type 0, or all ones: memory the firmware has not written a record to. */
function isPadding(source: Uint8Array, at: number): boolean {
  const head = source.subarray(at, at + 8);
  return head.every((byte) => byte === 0xff) || head.every((byte) => byte === 0);
}

function readEvent(
  source: Uint8Array,
  view: DataView,
  offset: number,
  index: number,
  sizes: ReadonlyMap<number, number>,
): LogEvent {
  const name = (field: string): string => `event ${index}: CC_EVENT.${field}`;
  let at = offset;
  const take = (size: number, field: string): number => {
    if (size > source.length - at)
      throw new EventLogError(name(field), `needs ${size} bytes, but ${source.length - at} are left`, at);
    at += size;
    return at - size;
  };
  const mrIndex = view.getUint32(take(4, "MrIndex"), true);
  const type = view.getUint32(take(4, "EventType"), true);
  if (mrIndex > 4 && type !== EV.NO_ACTION)
    throw new EventLogError(name("MrIndex"), `is ${mrIndex}, expected 0 (MRTD) or 1..4 (RTMR[0..3])`, offset);
  const count = view.getUint32(take(4, "DigestCount"), true);
  if (count === 0 || count > sizes.size)
    throw new EventLogError(name("DigestCount"), `is ${count}, expected 1..${sizes.size}`, at - 4);
  let digest: Uint8Array | null = null;
  for (let i = 0; i < count; i++) {
    const algorithm = view.getUint16(take(2, "AlgorithmId"), true);
    const size = sizes.get(algorithm);
    if (size === undefined)
      throw new EventLogError(
        name("AlgorithmId"),
        `is ${hexNumber(algorithm)}, which the log's first record does not list`,
        at - 2,
      );
    const start = take(size, "Digest");
    if (algorithm === TPM_ALG_SHA384) digest = source.slice(start, start + size);
  }
  if (!digest) throw new EventLogError(name("Digest"), "has no SHA-384", offset);
  const eventSize = view.getUint32(take(4, "EventSize"), true);
  const start = take(eventSize, "Event");
  return { mrIndex, type, digest, event: source.slice(start, at), offset, size: at - offset };
}
