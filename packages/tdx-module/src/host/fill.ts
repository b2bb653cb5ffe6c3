/** Fresh contents of pages that the module takes: written line by line, so that nothing old is read. */
import type { Hpa, KeyId } from "@swtdx/abi";
import type { SeamContext } from "@swtdx/cpu";
import { SEPT_FREE_ENTRY } from "../structures/sept.js";

const page = new Uint8Array(4096);
const free = new Uint8Array(4096);
const freeView = new DataView(free.buffer);
for (let at = 0; at < 4096; at += 8) {
  freeView.setUint32(at, SEPT_FREE_ENTRY.low, true);
  freeView.setUint32(at + 4, SEPT_FREE_ENTRY.high, true);
}

/** Every byte is `value`. */
export function fillPage(lp: SeamContext, pa: Hpa, keyId: KeyId, value: number): void {
  lp.write(pa, keyId, page.fill(value));
}

/** A Secure EPT page of free entries. */
export const fillSeptPage = (lp: SeamContext, pa: Hpa, keyId: KeyId): void => lp.write(pa, keyId, free);
