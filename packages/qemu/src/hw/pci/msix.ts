/**
 * MSI-X: a function's table of messages and its pending bits, in a BAR of 4 KiB. PCI Local Bus specification 3.0, 6.8.2;
 * laid out as QEMU's virtio functions have it: table at 0, pending bits at 0x800.
 */
import type { IoRegion } from "../../memory/address-space.js";
import type { MsiMessage } from "../intc/ioapic.js";
import type { PciDevice } from "./pci-device.js";

const CAP_ID_MSIX = 0x11;
const CAP_SIZE = 12;
const CONTROL = 2;
const ENABLE = 0x8000;
const FUNCTION_MASK = 0x4000;
const PBA_OFFSET = 0x800;
const ENTRY_SIZE = 16;
const VECTOR_MASKED = 1;
export const MSIX_BAR_SIZE = 4096;

export class Msix implements IoRegion {
  readonly name = "msix";
  readonly maxAccess = 4;
  readonly #table: DataView;
  readonly #pending: Uint8Array;
  #unmasked = false;

  /** Adds the capability to `device` at `offset`, with `vectors` messages in BAR `bar`. */
  constructor(
    private readonly device: PciDevice,
    private readonly offset: number,
    bar: number,
    readonly vectors: number,
    private readonly send: (message: MsiMessage) => void,
  ) {
    this.#table = new DataView(new ArrayBuffer(vectors * ENTRY_SIZE));
    this.#pending = new Uint8Array(vectors);
    for (let i = 0; i < vectors; i++) this.#table.setUint32(i * ENTRY_SIZE + 12, VECTOR_MASKED, true);
    device.addCapability(CAP_ID_MSIX, offset, CAP_SIZE);
    device.view.setUint16(offset + CONTROL, vectors - 1, true);
    device.setWritable(offset + CONTROL, 2, ENABLE | FUNCTION_MASK);
    device.view.setUint32(offset + 4, bar, true);
    device.view.setUint32(offset + 8, PBA_OFFSET | bar, true);
    device.setBar(bar, { kind: "mem32", size: MSIX_BAR_SIZE, region: this });
  }

  get enabled(): boolean {
    return (this.device.view.getUint16(this.offset + CONTROL, true) & ENABLE) !== 0;
  }

  /** Sends message `vector`, or keeps it pending while it is masked. */
  notify(vector: number): void {
    if (vector >= this.vectors || !this.enabled) return;
    if (this.#isMasked(vector)) {
      this.#pending[vector] = 1;
      return;
    }
    const at = vector * ENTRY_SIZE;
    this.send({
      address: this.#table.getUint32(at + 4, true) * 2 ** 32 + this.#table.getUint32(at, true),
      data: this.#table.getUint32(at + 8, true),
    });
  }

  /** The device calls it when its configuration space was written: the function may have been unmasked. */
  configWritten(): void {
    const control = this.device.view.getUint16(this.offset + CONTROL, true);
    const unmasked = (control & (ENABLE | FUNCTION_MASK)) === ENABLE;
    if (unmasked && !this.#unmasked) for (let i = 0; i < this.vectors; i++) this.#flush(i);
    this.#unmasked = unmasked;
  }

  reset(): void {
    this.#pending.fill(0);
  }

  read(offset: number, size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.#byte(offset + i) << (8 * i);
    return value >>> 0;
  }

  write(offset: number, size: number, value: number): void {
    if (offset + size > this.#table.byteLength) return;
    for (let i = 0; i < size; i++) this.#table.setUint8(offset + i, (value >>> (8 * i)) & 0xff);
    this.#flush(Math.floor(offset / ENTRY_SIZE));
  }

  #byte(at: number): number {
    if (at < this.#table.byteLength) return this.#table.getUint8(at);
    const first = (at - PBA_OFFSET) * 8;
    if (at < PBA_OFFSET || first >= this.vectors) return 0;
    let bits = 0;
    for (let i = 0; i < 8; i++) if (this.#pending[first + i]) bits |= 1 << i;
    return bits;
  }

  #isMasked(vector: number): boolean {
    const control = this.device.view.getUint16(this.offset + CONTROL, true);
    return (
      (control & FUNCTION_MASK) !== 0 ||
      (this.#table.getUint32(vector * ENTRY_SIZE + 12, true) & VECTOR_MASKED) !== 0
    );
  }

  #flush(vector: number): void {
    if (!this.#pending[vector] || !this.enabled || this.#isMasked(vector)) return;
    this.#pending[vector] = 0;
    this.notify(vector);
  }
}
