/** PAMT entries of a 2 MiB range as a whole. Source: intel/tdx-module src/common/memory_handlers/pamt_manager.c. */
import type { Hpa } from "@swtdx/abi";
import type { SeamCall } from "../call.js";
import { Level, MIB2, PageType, pamtPageType } from "../structures/pamt.js";
import { implicitPamtEntry } from "./support.js";

/** No 4 KiB page of the range is in use. */
export function is2mRangeFree(call: SeamCall, pa: Hpa): boolean {
  for (let at = 0; at < MIB2; at += 4096) {
    const entry = implicitPamtEntry(call, pa + at, Level.PT_4KB);
    if (pamtPageType(call.lp, entry, call.globalHkid) !== PageType.PT_NDA) return false;
  }
  return true;
}
