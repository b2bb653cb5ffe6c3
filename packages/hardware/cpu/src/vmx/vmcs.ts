/**
 * A VMCS: its region in DRAM and the processor's copy while it is active. Intel SDM vol. 3C section 25.2, 25.11.
 *
 * The region (4 KiB, of which VMCS_REGION_SIZE bytes are used): revision identifier, VMX-abort indicator, launch
 * state, identity, then 8 bytes for each field in the order of the field table. While active it lives in the processor;
 * VMCLEAR, and becoming not current, write it back under the KeyID it was loaded with.
 */
import type { PhysicalMemory } from "../memory/physical.js";
import { FIELD_COUNT, FIELD_INDEX, fieldType, fieldWidth, FieldWidth, VMCS } from "./fields.js";

/** IA32_VMX_BASIC[30:0]. */
export const VMCS_REVISION = 0x15;
/** IA32_VMX_BASIC[44:32] in bytes. */
export const VMCS_REGION_SIZE = 2048;
const DATA_OFFSET = 16;
/** Bytes of the region that hold something. */
const USED_SIZE = DATA_OFFSET + FIELD_COUNT * 8;
/** The three VM-entry fields of event injection: checked at every entry. */
const INJECTION_FIRST = VMCS.VM_ENTRY_INTR_INFO_FIELD;
const INJECTION_LAST = VMCS.VM_ENTRY_INSTRUCTION_LEN;

export class Vmcs {
  /** Field values as low and high halves, by index in the table. */
  readonly data = new Uint32Array(FIELD_COUNT * 2);
  launched = false;
  /** Which VMCS this is: a new number for a region that software cleared. 0: it is not known yet. */
  identity = 0;
  /**
   * Controls and host state passed the checks of VM entry and no VMWRITE changed one since: checking them again gives
   * the same. (What the checks depend on besides, the KeyID partition, is locked by then.)
   */
  checked = false;
  /** The words that checks on guest state depend on, at the last VM entry that passed them: see entry-checks.ts. */
  guestChecked: Uint32Array | null = null;
  readonly #bytes = new Uint8Array(USED_SIZE);
  readonly #words = new Uint32Array(this.#bytes.buffer);
  /** Launch state and fields: what VMCLEAR writes. */
  readonly #stored = this.#bytes.subarray(8);

  /** @param pa HPA with KeyID bits; `hpa`, `keyId` the two apart */
  constructor(
    readonly pa: number,
    readonly hpa: number,
    readonly keyId: number,
  ) {}

  /** Low 32 bits of a field. */
  lo(encoding: number): number {
    return this.data[FIELD_INDEX[encoding] * 2];
  }
  hi(encoding: number): number {
    return this.data[FIELD_INDEX[encoding] * 2 + 1];
  }
  /** A field that holds an address below 2^53. */
  addr(encoding: number): number {
    const at = FIELD_INDEX[encoding] * 2;
    return this.data[at + 1] * 0x1_0000_0000 + this.data[at];
  }
  set(encoding: number, lo: number, hi = 0): void {
    const at = FIELD_INDEX[encoding] * 2;
    this.data[at] = lo;
    this.data[at + 1] = hi;
  }
  setAddr(encoding: number, value: number): void {
    this.set(encoding, value % 0x1_0000_0000, Math.floor(value / 0x1_0000_0000));
  }
  get(encoding: number): bigint {
    const at = FIELD_INDEX[encoding] * 2;
    return (BigInt(this.data[at + 1]) << 32n) | BigInt(this.data[at]);
  }
  put(encoding: number, value: bigint): void {
    this.set(encoding, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
  }

  /** VMREAD: null for an unsupported encoding. Bit 0 of a 64-bit field's encoding selects its high half. */
  read(encoding: number): bigint | null {
    const index = fieldIndex(encoding);
    if (index < 0) return null;
    if ((encoding & 1) === 1) return BigInt(this.data[index * 2 + 1]);
    return (BigInt(this.data[index * 2 + 1]) << 32n) | BigInt(this.data[index * 2]);
  }
  /** VMWRITE of a field that exists: cut to the field's width. */
  write(encoding: number, value: bigint): boolean {
    const index = fieldIndex(encoding);
    if (index < 0) return false;
    const type = fieldType(encoding);
    if ((type === 0 || type === 3) && (encoding < INJECTION_FIRST || encoding > INJECTION_LAST))
      this.checked = false;
    const low = Number(value & 0xffffffffn);
    if ((encoding & 1) === 1) {
      this.data[index * 2 + 1] = low;
      return true;
    }
    const width = fieldWidth(encoding);
    this.data[index * 2] = width === FieldWidth.W16 ? low & 0xffff : low;
    this.data[index * 2 + 1] =
      width === FieldWidth.W64 || width === FieldWidth.NATURAL ? Number((value >> 32n) & 0xffffffffn) : 0;
    return true;
  }

  /**
   * Reads the region. A copy that was current before and finds its own bytes again keeps what it knew of them.
   * @returns the revision identifier (bit 31: shadow VMCS), or -1 on a machine check
   */
  load(phys: PhysicalMemory, seam: boolean): number {
    if (phys.read(this.hpa, this.keyId, this.#bytes, seam) !== 0) return -1;
    const words = this.#words;
    const { data } = this;
    this.launched = words[2] === 1;
    this.identity = words[3];
    let same = true;
    for (let i = 0; i < data.length; i++) {
      const word = words[DATA_OFFSET / 4 + i];
      if (data[i] !== word) {
        data[i] = word;
        same = false;
      }
    }
    if (!same) this.checked = false;
    return words[0];
  }
  /** Writes the region back; revision and abort indicator keep their bytes. */
  store(phys: PhysicalMemory, seam: boolean): number {
    this.#words[2] = this.launched ? 1 : 0;
    this.#words[3] = this.identity;
    this.#words.set(this.data, DATA_OFFSET / 4);
    return phys.write(this.hpa + 8, this.keyId, this.#stored, seam);
  }
}

/** Index of the field an encoding names, -1 if there is none: reserved bits, or high access to a narrow field. */
export function fieldIndex(encoding: number): number {
  if (encoding < 0 || encoding > 0x7fff) return -1;
  if ((encoding & 1) === 1) return fieldWidth(encoding) === FieldWidth.W64 ? FIELD_INDEX[encoding & ~1] : -1;
  return FIELD_INDEX[encoding];
}
