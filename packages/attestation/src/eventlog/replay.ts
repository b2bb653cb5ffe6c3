/** From an event log to the RTMRs it claims: what TDG.MR.RTMR.EXTEND would have made of the digests. */
import { EV, MEASUREMENT_SIZE, NUM_RTMRS } from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";
import { concat } from "../bytes.js";
import type { EventLog, LogEvent } from "./parse.js";

/** The register after one extension: SHA-384 of register and digest. */
export const extendRtmr = (rtmr: Uint8Array, digest: Uint8Array): Uint8Array => sha384(concat(rtmr, digest));

/** Index of the RTMR an event extends; null for events of MRTD and events that are not measured. */
export const rtmrOf = (event: Pick<LogEvent, "mrIndex" | "type">): number | null =>
  event.type !== EV.NO_ACTION && event.mrIndex >= 1 && event.mrIndex <= NUM_RTMRS ? event.mrIndex - 1 : null;

/** RTMR[0..3] after all events, 48 bytes each. */
export function replayEventLog(log: EventLog): Uint8Array[] {
  const rtmrs = Array.from({ length: NUM_RTMRS }, () => new Uint8Array(MEASUREMENT_SIZE));
  for (const event of log.events) {
    const index = rtmrOf(event);
    if (index !== null) rtmrs[index] = new Uint8Array(extendRtmr(rtmrs[index], event.digest));
  }
  return rtmrs;
}
