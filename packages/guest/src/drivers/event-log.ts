/**
 * The event log behind ACPI's CCEL table, and what the running system adds to it. Source: TCG PC Client Platform
 * Firmware Profile 1.06, ch. 10; UEFI 2.10, ch. 38.4.
 */
import { CC_EVENT, type CcEvent, encodeCcEvent, guest, type Guest, TCG_PCR_EVENT, viewOf } from "@swtdx/abi";
import { type AcpiTable, eventLogArea } from "./acpi.js";

/** The area's unused bytes are ones. */
const UNUSED = 0xffff_ffff;

/** All bytes of the area, or null without a log. */
export function* readEventLog(tables: readonly AcpiTable[]): Guest<Uint8Array | null> {
  const area = eventLogArea(tables);
  return area ? yield* guest.loadBytes(BigInt(area.address), area.length) : null;
}

/** Where the log ends in its area, in bytes; null when there is a record that this kernel cannot walk over. */
function endOfLog(area: Uint8Array): number | null {
  if (area.length < TCG_PCR_EVENT.size) return null;
  const view = viewOf(area);
  let at = TCG_PCR_EVENT.size + TCG_PCR_EVENT.read(view).EventSize;
  while (at + CC_EVENT.size <= area.length) {
    const { MrIndex, DigestCount, EventSize } = CC_EVENT.read(view, at);
    if (MrIndex === UNUSED) return at;
    if (DigestCount !== 1) return null;
    at += CC_EVENT.size + EventSize;
  }
  return at <= area.length ? at : null;
}

/** Appends a record. @returns false when there is no log, or no room in it */
export function* appendEvent(tables: readonly AcpiTable[], event: CcEvent): Guest<boolean> {
  const area = eventLogArea(tables);
  const bytes = yield* readEventLog(tables);
  const end = bytes && endOfLog(bytes);
  const record = encodeCcEvent(event);
  if (!area || end === null || end + record.length > area.length) return false;
  yield* guest.storeBytes(BigInt(area.address + end), record);
  return true;
}
