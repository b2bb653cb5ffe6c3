/**
 * Which private KeyIDs are in use: Linux's ida over the guest KeyIDs (tdx_guest_keyid_alloc/free in
 * arch/x86/virt/vmx/tdx/tdx.c). The lowest free one is given out.
 */
import { Errno, type KeyId } from "@swtdx/abi";

export class GuestKeyIds {
  readonly #used = new Set<number>();

  /** KeyIDs `first` to `first + count - 1` are for guests. */
  constructor(
    readonly first: number,
    readonly count: number,
  ) {}

  /** @returns a KeyID, or -ENOSPC as ida_alloc_range() */
  alloc(): number {
    for (let id = this.first; id < this.first + this.count; id++) {
      if (this.#used.has(id)) continue;
      this.#used.add(id);
      return id;
    }
    return -Errno.ENOSPC;
  }

  free(id: KeyId | number): void {
    if (!this.#used.delete(id))
      throw new RangeError(`ida_free called for KeyID ${id} which is not allocated`);
  }

  /** KeyIDs in use now. */
  get inUse(): number {
    return this.#used.size;
  }
}
