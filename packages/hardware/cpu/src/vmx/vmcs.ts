/**
 * A VMCS: its region in DRAM, and what the processor knows of one that is active. Intel SDM vol. 3C section 25.2, 25.11.
 *
 * The region (4 KiB, of which VMCS_REGION_SIZE bytes are used): revision identifier, VMX-abort indicator, launch
 * state, identity, then 8 bytes for each field in the order of the field table. The processor works on it where it is,
 * under the KeyID it was loaded with. A region that has no frame of its own (lines of several owners) is copied in at
 * VMPTRLD, and back when it is no longer current.
 */
import type { PhysicalMemory } from "../memory/physical.js";
import { FIELD_COUNT, FIELD_INDEX, fieldType, fieldWidth, FieldWidth, VMCS } from "./fields.js";

/** IA32_VMX_BASIC[30:0]. */
export const VMCS_REVISION = 0x15;
/** IA32_VMX_BASIC[44:32] in bytes. */
export const VMCS_REGION_SIZE = 2048;
const DATA_OFFSET = 16;
const LAUNCH_STATE = 2;
const IDENTITY = 3;
const WORDS = FIELD_COUNT * 2;
/** Bytes of the region that hold something. */
const USED_SIZE = DATA_OFFSET + WORDS * 4;
/** The three VM-entry fields of event injection: checked at every entry. */
const INJECTION_FIRST = VMCS.VM_ENTRY_INTR_INFO_FIELD;
const INJECTION_LAST = VMCS.VM_ENTRY_INSTRUCTION_LEN;
/** Fields of guest state that change with every exit, and on which only checks made at every entry depend. */
const CHANGING: ReadonlySet<number> = new Set([
  VMCS.GUEST_RIP,
  VMCS.GUEST_RSP,
  VMCS.GUEST_RFLAGS,
  VMCS.GUEST_INTERRUPTIBILITY_INFO,
  VMCS.GUEST_ACTIVITY_STATE,
  VMCS.GUEST_PENDING_DBG_EXCEPTIONS,
  VMCS.GUEST_INTR_STATUS,
  VMCS.VMX_PREEMPTION_TIMER_VALUE,
]);

export class Vmcs {
  /** Field values as low and high halves, by index in the table: in the region itself, or a copy. */
  data: Uint32Array;
  /**
   * Controls and host state passed the checks of VM entry and no VMWRITE changed one since: checking them again gives
   * the same. (What the checks depend on besides, the KeyID partition, is locked by then.)
   */
  checked = false;
  /** The same for guest state but for the fields that change all the time. */
  guestChecked = false;
  /** The region was written by somebody else while it was active: it cannot be gone on with. */
  lost = false;
  readonly #own = new Uint32Array(WORDS);
  /** Arena offset of the region; -1: `data` is a copy. */
  #base = -1;
  #u32: Uint32Array | null = null;
  #launched = false;
  #identity = 0;
  readonly #words = new Uint32Array(USED_SIZE / 4);
  readonly #bytes = new Uint8Array(this.#words.buffer);
  /** Launch state and fields: what is written back. */
  readonly #stored = this.#bytes.subarray(8);

  /** @param pa HPA with KeyID bits; `hpa`, `keyId` the two apart */
  constructor(
    readonly pa: number,
    readonly hpa: number,
    readonly keyId: number,
  ) {
    this.data = this.#own;
  }

  get launched(): boolean {
    return this.#launched;
  }
  set launched(launched: boolean) {
    this.#launched = launched;
    if (this.#u32 !== null) this.#u32[this.#base / 4 + LAUNCH_STATE] = launched ? 1 : 0;
  }

  /** Which VMCS this is: a new number for a region that software cleared. 0: it is not known yet. */
  get identity(): number {
    return this.#identity;
  }
  set identity(identity: number) {
    this.#identity = identity;
    if (this.#u32 !== null) this.#u32[this.#base / 4 + IDENTITY] = identity;
  }

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

  /** A VM exit saves a register of 64 bits, of which both halves are in `words`. */
  save(encoding: number, words: Uint32Array, from: number): void {
    const at = FIELD_INDEX[encoding] * 2;
    if (this.data[at] === words[from] && this.data[at + 1] === words[from + 1]) return;
    this.data[at] = words[from];
    this.data[at + 1] = words[from + 1];
    this.guestChecked = false;
  }

  /** VMREAD: null for an unsupported encoding. Bit 0 of a 64-bit field's encoding selects its high half. */
  read(encoding: number): bigint | null {
    const index = fieldIndex(encoding);
    if (index < 0) return null;
    if ((encoding & 1) === 1) return BigInt(this.data[index * 2 + 1]);
    return (BigInt(this.data[index * 2 + 1]) << 32n) | BigInt(this.data[index * 2]);
  }
  /** The halves of a field of any width, as numbers; -1 for an unsupported encoding. */
  readLow(encoding: number): number {
    const index = fieldIndex(encoding);
    return index < 0 ? -1 : this.data[index * 2 + (encoding & 1)];
  }
  readHigh(encoding: number): number {
    const index = fieldIndex(encoding);
    return index < 0 ? -1 : (encoding & 1) === 1 ? 0 : this.data[index * 2 + 1];
  }
  /** VMWRITE of a field that exists: cut to the field's width. @returns false for an unsupported encoding */
  write(encoding: number, value: bigint): boolean {
    return this.writeHalves(encoding, Number(value & 0xffffffffn), Number((value >> 32n) & 0xffffffffn));
  }
  writeHalves(encoding: number, low: number, high: number): boolean {
    const index = fieldIndex(encoding);
    if (index < 0) return false;
    const { data } = this;
    const at = index * 2;
    if ((encoding & 1) === 1) {
      if (data[at + 1] !== low >>> 0) this.#written(encoding & ~1);
      data[at + 1] = low;
      return true;
    }
    const width = fieldWidth(encoding);
    const lo = width === FieldWidth.W16 ? low & 0xffff : low >>> 0;
    const hi = width === FieldWidth.W64 || width === FieldWidth.NATURAL ? high >>> 0 : 0;
    if (data[at] !== lo || data[at + 1] !== hi) this.#written(encoding);
    data[at] = lo;
    data[at + 1] = hi;
    return true;
  }

  /** Software changes a field: what was known of it is known no more. */
  #written(encoding: number): void {
    switch (fieldType(encoding)) {
      case 0:
        if (encoding < INJECTION_FIRST || encoding > INJECTION_LAST) this.forget();
        return;
      case 2:
        if (!CHANGING.has(encoding)) this.guestChecked = false;
        return;
      case 3:
        this.checked = false;
    }
  }
  /** Everything has to be checked again. */
  forget(): void {
    this.checked = false;
    this.guestChecked = false;
  }

  /**
   * Takes hold of the region.
   * @returns the revision identifier (bit 31: shadow VMCS), or -1 on a machine check
   */
  load(phys: PhysicalMemory, seam: boolean): number {
    const frame = this.hpa / 4096;
    const base = phys.frameForWrite(frame, this.keyId, seam);
    if (base < 0) return this.#copyIn(phys, seam);
    if (base !== this.#base || this.#u32 === null) {
      this.#base = base;
      this.#u32 = phys.u32;
      this.data = phys.u32.subarray((base + DATA_OFFSET) / 4, (base + DATA_OFFSET) / 4 + WORDS);
      this.forget();
    }
    this.lost = false;
    this.#launched = phys.u32[base / 4 + LAUNCH_STATE] === 1;
    this.#identity = phys.u32[base / 4 + IDENTITY];
    return phys.u32[base / 4];
  }
  #copyIn(phys: PhysicalMemory, seam: boolean): number {
    this.#detach();
    this.forget();
    if (phys.read(this.hpa, this.keyId, this.#bytes, seam) !== 0) return -1;
    this.lost = false;
    this.#launched = this.#words[LAUNCH_STATE] === 1;
    this.#identity = this.#words[IDENTITY];
    this.#own.set(this.#words.subarray(DATA_OFFSET / 4));
    return this.#words[0];
  }
  #detach(): void {
    this.data = this.#own;
    this.#base = -1;
    this.#u32 = null;
  }
  /** Writes a copy back; revision and abort indicator keep their bytes. */
  store(phys: PhysicalMemory, seam: boolean): number {
    if (this.#base >= 0 || this.lost) return 0;
    this.#words[LAUNCH_STATE] = this.launched ? 1 : 0;
    this.#words[IDENTITY] = this.identity;
    this.#words.set(this.data, DATA_OFFSET / 4);
    return phys.write(this.hpa + 8, this.keyId, this.#stored, seam);
  }
  /** The region's frame is no longer this VMCS's: its bytes are somebody else's. */
  frameLost(frame: number): void {
    if (this.#base < 0 || this.hpa / 4096 !== frame) return;
    this.#own.fill(0);
    this.#detach();
    this.forget();
    this.lost = true;
  }
}

/** Index of the field an encoding names, -1 if there is none: reserved bits, or high access to a narrow field. */
export function fieldIndex(encoding: number): number {
  if (encoding < 0 || encoding > 0x7fff) return -1;
  if ((encoding & 1) === 1) return fieldWidth(encoding) === FieldWidth.W64 ? FIELD_INDEX[encoding & ~1] : -1;
  return FIELD_INDEX[encoding];
}
