/** Memory slots: which GPAs are RAM, and what is behind them. Source: Linux virt/kvm/kvm_main.c (KVM_SET_USER_MEMORY_REGION2). */
import { PAGE_SIZE, type Pfn } from "@swtdx/abi";
import type { UserMapping } from "@swtdx/linux-host";
import type { PrivateMemory } from "./private-memory.js";

export interface Memslot {
  readonly slot: number;
  readonly flags: number;
  /** Guest frame numbers. */
  readonly base: number;
  readonly pages: number;
  readonly mapping: UserMapping;
  /** Bytes in the mapping. */
  readonly mappingOffset: number;
  readonly privateMemory: PrivateMemory | null;
  /** Bytes in the private memory. */
  readonly privateOffset: number;
  /** 2 MiB units (gfn / 512) that the guest wants in 4 KiB pages (KVM_LPAGE_GUEST_INHIBIT_FLAG). */
  readonly inhibited: Set<number>;
}

/** Index into the private memory of a guest frame. */
export const privateIndex = (slot: Memslot, gfn: number): number =>
  slot.privateOffset / PAGE_SIZE + gfn - slot.base;

/** The page frame of user memory behind a guest frame. */
export const sharedPage = (slot: Memslot, gfn: number): Pfn =>
  slot.mapping.page(slot.mappingOffset + (gfn - slot.base) * PAGE_SIZE);

export class Memslots {
  #slots: Memslot[] = [];
  #last: Memslot | null = null;

  get all(): readonly Memslot[] {
    return this.#slots;
  }

  find(gfn: number): Memslot | null {
    const last = this.#last;
    if (last && gfn >= last.base && gfn < last.base + last.pages) return last;
    for (const slot of this.#slots) {
      if (gfn < slot.base || gfn >= slot.base + slot.pages) continue;
      this.#last = slot;
      return slot;
    }
    return null;
  }

  byNumber(slot: number): Memslot | null {
    return this.#slots.find((one) => one.slot === slot) ?? null;
  }

  overlaps(base: number, pages: number, except: number): boolean {
    return this.#slots.some(
      (one) => one.slot !== except && base < one.base + one.pages && one.base < base + pages,
    );
  }

  put(slot: Memslot): void {
    this.remove(slot.slot);
    this.#slots.push(slot);
  }
  remove(slot: number): void {
    this.#last = null;
    this.#slots = this.#slots.filter((one) => one.slot !== slot);
  }
}
