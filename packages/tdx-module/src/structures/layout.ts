/**
 * Control structures of the TDX module: tables of fields at offsets, and access to them where they live, in DRAM
 * under a private KeyID, through the logical processor's SEAM accesses.
 */
import { PAGE_SIZE, type Hpa, type KeyId } from "@swtdx/abi";
import type { SeamContext } from "@swtdx/cpu";

/** A field of 8, 16 or 32 bits. */
export interface NarrowField {
  readonly offset: number;
  readonly size: 1 | 2 | 4;
}
/** A field of 64 bits. */
export interface WideField {
  readonly offset: number;
  readonly size: 8;
}
/** A field of raw bytes. */
export interface BytesField {
  readonly offset: number;
  readonly size: number;
  readonly bytes: true;
}

export const f8 = (offset: number): NarrowField => ({ offset, size: 1 });
export const f16 = (offset: number): NarrowField => ({ offset, size: 2 });
export const f32 = (offset: number): NarrowField => ({ offset, size: 4 });
export const f64 = (offset: number): WideField => ({ offset, size: 8 });
export const fBytes = (offset: number, size: number): BytesField => ({ offset, size, bytes: true });

/** A page of which no keyhole is known. */
const UNMAPPED = -1;

/**
 * A structure of whole pages, each at its own HPA, accessed with one KeyID, by keyholes that are kept. Offsets are in
 * bytes from the start of the first page; a field does not cross a page.
 *
 * 64-bit fields are bigint, or two halves: at TD entries and exits the halves.
 */
export abstract class ControlStructure {
  /** Where each page is in the arena, as a number of 32-bit words. */
  readonly #words: Int32Array;
  /** `lp.keyholes` when they were mapped. */
  #keyholes = -1;

  constructor(
    readonly lp: SeamContext,
    /** KeyID of the accesses: the global HKID for a TDR, the TD's for the others. */
    readonly keyId: KeyId,
    pages: number,
  ) {
    this.#words = new Int32Array(pages).fill(UNMAPPED);
  }

  /** HPA of page `index` of the structure. */
  abstract page(index: number): Hpa;

  /** HPA of the byte at `offset`. */
  pa(offset: number): Hpa {
    return (this.page(offset >>> 12) + (offset & (PAGE_SIZE - 1))) as Hpa;
  }

  /** Closes the keyholes: what pages there are may have changed. */
  unmap(): void {
    this.#words.fill(UNMAPPED);
  }
  /** Number of the arena's 32-bit word at `offset`, a multiple of 4; negative: there is no keyhole to the page. */
  protected word(offset: number): number {
    if (this.#keyholes !== this.lp.keyholes) {
      this.unmap();
      this.#keyholes = this.lp.keyholes;
    }
    const page = this.#words[offset >>> 12];
    return page >= 0 ? page + ((offset & (PAGE_SIZE - 1)) >>> 2) : this.#map(offset);
  }
  #map(offset: number): number {
    const { lp } = this;
    const at = lp.keyhole(this.page(offset >>> 12), this.keyId);
    if (at < 0) return UNMAPPED;
    this.#words[offset >>> 12] = at / 4;
    return at / 4 + ((offset & (PAGE_SIZE - 1)) >>> 2);
  }

  /** 32 bits at an offset: a multiple of 4. */
  get32(offset: number): number {
    const at = this.word(offset);
    return at >= 0 ? this.lp.arena.u32[at] : this.lp.readU32(this.pa(offset), this.keyId);
  }
  set32(offset: number, value: number): void {
    const at = this.word(offset);
    if (at >= 0) this.lp.arena.u32[at] = value;
    else this.lp.writeU32(this.pa(offset), this.keyId, value >>> 0);
  }
  /** The halves of a 64-bit field. */
  low(field: WideField): number {
    return this.get32(field.offset);
  }
  high(field: WideField): number {
    return this.get32(field.offset + 4);
  }
  setHalves(field: WideField, low: number, high: number): void {
    this.set32(field.offset, low);
    this.set32(field.offset + 4, high);
  }
  /** Copies `count` 32-bit words from an offset on. */
  load32(offset: number, target: Uint32Array, to: number, count: number): void {
    const at = this.word(offset);
    const { u32 } = this.lp.arena;
    if (at >= 0) for (let i = 0; i < count; i++) target[to + i] = u32[at + i];
    else for (let i = 0; i < count; i++) target[to + i] = this.get32(offset + 4 * i);
  }
  store32(offset: number, source: Uint32Array, from: number, count: number): void {
    const at = this.word(offset);
    const { u32 } = this.lp.arena;
    if (at >= 0) for (let i = 0; i < count; i++) u32[at + i] = source[from + i];
    else for (let i = 0; i < count; i++) this.set32(offset + 4 * i, source[from + i]);
  }

  get(field: NarrowField): number;
  get(field: WideField): bigint;
  get(field: NarrowField | WideField): number | bigint {
    return this.#load(field.offset, field.size);
  }
  #load(offset: number, size: 1 | 2 | 4 | 8): number | bigint {
    const { lp } = this;
    switch (size) {
      case 1: {
        const at = this.word(offset & ~3);
        return at < 0 ? lp.readU8(this.pa(offset), this.keyId) : lp.arena.u8[at * 4 + (offset & 3)];
      }
      case 2: {
        const at = (offset & 3) === 3 ? UNMAPPED : this.word(offset & ~3);
        if (at < 0) return lp.readU16(this.pa(offset), this.keyId);
        return (lp.arena.u32[at] >>> ((offset & 3) * 8)) & 0xffff;
      }
      case 4:
        return (offset & 3) === 0 ? this.get32(offset) : lp.readU32(this.pa(offset), this.keyId);
      default: {
        const at = (offset & 7) === 0 ? this.word(offset) : UNMAPPED;
        return at < 0 ? lp.readU64(this.pa(offset), this.keyId) : lp.arena.u64[at / 2];
      }
    }
  }

  set(field: NarrowField, value: number): void;
  set(field: WideField, value: bigint): void;
  set(field: NarrowField | WideField, value: number | bigint): void {
    this.#store(field.offset, field.size, value);
  }
  #store(offset: number, size: 1 | 2 | 4 | 8, value: number | bigint): void {
    const { lp } = this;
    switch (size) {
      case 1: {
        const at = this.word(offset & ~3);
        if (at < 0) lp.writeU8(this.pa(offset), this.keyId, value as number);
        else lp.arena.u8[at * 4 + (offset & 3)] = value as number;
        break;
      }
      case 2: {
        const at = (offset & 3) === 3 ? UNMAPPED : this.word(offset & ~3);
        if (at < 0) lp.writeU16(this.pa(offset), this.keyId, value as number);
        else {
          lp.arena.u8[at * 4 + (offset & 3)] = value as number;
          lp.arena.u8[at * 4 + (offset & 3) + 1] = (value as number) >>> 8;
        }
        break;
      }
      case 4:
        if ((offset & 3) === 0) this.set32(offset, value as number);
        else lp.writeU32(this.pa(offset), this.keyId, value as number);
        break;
      default: {
        const at = (offset & 7) === 0 ? this.word(offset) : UNMAPPED;
        if (at < 0) lp.writeU64(this.pa(offset), this.keyId, value as bigint);
        else lp.arena.u64[at / 2] = value as bigint;
      }
    }
  }

  /** A 64-bit field that holds an address or a count below 2^53. */
  getNumber(field: WideField): number {
    return this.high(field) * 0x1_0000_0000 + this.low(field);
  }
  setNumber(field: WideField, value: number): void {
    this.setHalves(field, value >>> 0, Math.floor(value / 0x1_0000_0000));
  }

  /** Element `index` of an array of fields like `first`. */
  getAt(first: NarrowField, index: number): number;
  getAt(first: WideField, index: number): bigint;
  getAt(first: NarrowField | WideField, index: number): number | bigint {
    return this.#load(first.offset + index * first.size, first.size);
  }
  setAt(first: NarrowField, index: number, value: number): void;
  setAt(first: WideField, index: number, value: bigint): void;
  setAt(first: NarrowField | WideField, index: number, value: number | bigint): void {
    this.#store(first.offset + index * first.size, first.size, value);
  }

  getBytes(field: BytesField): Uint8Array {
    const out = new Uint8Array(field.size);
    this.lp.read(this.pa(field.offset), this.keyId, out);
    return out;
  }
  setBytes(field: BytesField, value: Uint8Array): void {
    this.lp.write(this.pa(field.offset), this.keyId, value);
  }
}
