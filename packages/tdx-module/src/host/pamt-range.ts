/**
 * PAMT entries of a 2 MiB or 1 GiB range as a whole.
 * Source: intel/tdx-module src/common/memory_handlers/pamt_manager.c.
 */
import { type Hpa, TDX_STATUS } from "@swtdx/abi";
import type { SeamCall } from "../call.js";
import { Lock } from "../locks.js";
import {
  Level,
  PAMT,
  PAMT_CHILD_ENTRIES,
  PAMT_ENTRY_SIZE,
  PageType,
  pamtOwner,
  setPamtEntry,
  setPamtPageType,
} from "../structures/pamt.js";
import { implicitPamtEntry, lockImplicit } from "./support.js";

/** The entries of the next level below a page. */
const children = (call: SeamCall, pa: Hpa, level: number): Hpa => implicitPamtEntry(call, pa, level - 1);
const entries = new Uint8Array(PAMT_CHILD_ENTRIES * PAMT_ENTRY_SIZE);
const entryView = new DataView(entries.buffer);

/** No 4 KiB page of the 2 MiB range at `pa` is in use. */
export function is2mRangeFree(call: SeamCall, pa: Hpa): boolean {
  call.lp.read(children(call, pa, Level.PT_2MB), call.globalHkid, entries);
  for (let at = PAMT.PT; at < entries.length; at += PAMT_ENTRY_SIZE)
    if (entries[at] !== PageType.PT_NDA) return false;
  return true;
}

/**
 * The entry of a large page takes the place of its 512 parts', which have one owner.
 * @returns TDX_SUCCESS, or the status of its lock
 */
export function pamtPromote(call: SeamCall, pa: Hpa, level: number): bigint {
  const { lp, globalHkid } = call;
  const entry = implicitPamtEntry(call, pa, level);
  const status = lockImplicit(call, entry, Lock.EXCLUSIVE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const first = children(call, pa, level);
  setPamtEntry(lp, entry, globalHkid, PageType.PT_REG, pamtOwner(lp, first, globalHkid));
  lp.read(first, globalHkid, entries);
  for (let at = PAMT.PT; at < entries.length; at += PAMT_ENTRY_SIZE) entries[at] = PageType.PT_NDA;
  lp.write(first, globalHkid, entries);
  return TDX_STATUS.TDX_SUCCESS;
}

/**
 * The 512 parts of a large page get entries of its owner's.
 * @returns TDX_SUCCESS, or the status of its lock
 */
export function pamtDemote(call: SeamCall, pa: Hpa, level: number): bigint {
  const { lp, globalHkid } = call;
  const entry = implicitPamtEntry(call, pa, level);
  const status = lockImplicit(call, entry, Lock.EXCLUSIVE);
  if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  const frame = pamtOwner(lp, entry, globalHkid) / 4096;
  const first = children(call, pa, level);
  lp.read(first, globalHkid, entries);
  for (let at = 0; at < entries.length; at += PAMT_ENTRY_SIZE) {
    entries[at + PAMT.PT] = PageType.PT_REG;
    entries[at + PAMT.OWNER] = frame % 256;
    entryView.setUint32(at + PAMT.OWNER + 1, Math.floor(frame / 256), true);
    entryView.setBigUint64(at + PAMT.BEPOCH, 0n, true);
  }
  lp.write(first, globalHkid, entries);
  setPamtPageType(lp, entry, globalHkid, PageType.PT_NDA);
  return TDX_STATUS.TDX_SUCCESS;
}
