/** Buffers of the VMM in shared memory. */
import type { Hpa, KeyId } from "@swtdx/abi";
import type { SeamCall } from "../call.js";

export { sharedHpaOperand } from "./support.js";

/** A physical address with KeyID bits, taken apart. */
export function splitSharedHpa(call: SeamCall, pa: number): { readonly hpa: Hpa; readonly keyId: KeyId } {
  const unit = 2 ** call.module.keyIdShift;
  return { hpa: (pa % unit) as Hpa, keyId: Math.floor(pa / unit) as KeyId };
}
