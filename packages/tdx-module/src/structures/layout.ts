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

/**
 * A structure of whole pages, each at its own HPA, accessed with one KeyID. Offsets are in bytes from the start of
 * the first page; a field does not cross a page.
 */
export abstract class ControlStructure {
  constructor(
    readonly lp: SeamContext,
    /** KeyID of the accesses: the global HKID for a TDR, the TD's for the others. */
    readonly keyId: KeyId,
  ) {}

  /** HPA of page `index` of the structure. */
  abstract page(index: number): Hpa;

  /** HPA of the byte at `offset`. */
  pa(offset: number): Hpa {
    return (this.page(offset >>> 12) + (offset & (PAGE_SIZE - 1))) as Hpa;
  }

  get(field: NarrowField): number;
  get(field: WideField): bigint;
  get(field: NarrowField | WideField): number | bigint {
    return this.#load(field.offset, field.size);
  }
  #load(offset: number, size: 1 | 2 | 4 | 8): number | bigint {
    const pa = this.pa(offset);
    switch (size) {
      case 1:
        return this.lp.readU8(pa, this.keyId);
      case 2:
        return this.lp.readU16(pa, this.keyId);
      case 4:
        return this.lp.readU32(pa, this.keyId);
      default:
        return this.lp.readU64(pa, this.keyId);
    }
  }

  set(field: NarrowField, value: number): void;
  set(field: WideField, value: bigint): void;
  set(field: NarrowField | WideField, value: number | bigint): void {
    this.#store(field.offset, field.size, value);
  }
  #store(offset: number, size: 1 | 2 | 4 | 8, value: number | bigint): void {
    const pa = this.pa(offset);
    switch (size) {
      case 1:
        this.lp.writeU8(pa, this.keyId, value as number);
        break;
      case 2:
        this.lp.writeU16(pa, this.keyId, value as number);
        break;
      case 4:
        this.lp.writeU32(pa, this.keyId, value as number);
        break;
      default:
        this.lp.writeU64(pa, this.keyId, value as bigint);
    }
  }

  /** A 64-bit field that holds an address or a count below 2^53. */
  getNumber(field: WideField): number {
    const pa = this.pa(field.offset);
    return this.lp.readU32((pa + 4) as Hpa, this.keyId) * 0x1_0000_0000 + this.lp.readU32(pa, this.keyId);
  }
  setNumber(field: WideField, value: number): void {
    const pa = this.pa(field.offset);
    this.lp.writeU32(pa, this.keyId, value >>> 0);
    this.lp.writeU32((pa + 4) as Hpa, this.keyId, Math.floor(value / 0x1_0000_0000));
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
