/** The firmware configuration device. QEMU, hw/nvram/fw_cfg.c and docs/specs/fw_cfg.rst. */
import {
  encodeFwCfgDirectory,
  FW_CFG,
  FW_CFG_ARCH_LOCAL,
  FW_CFG_DMA_ACCESS_SIZE,
  FW_CFG_DMA_CTL,
  FW_CFG_DMA_SIGNATURE,
  FW_CFG_FILE_NAME_SIZE,
  FW_CFG_FILE_SLOTS,
  FW_CFG_INVALID,
  FW_CFG_VERSION,
  FW_CFG_WRITE_CHANNEL,
} from "@swtdx/abi";
import type { AddressSpace, IoRegion } from "../../memory/address-space.js";
import type { DmaMemory } from "../../memory/guest-memory.js";

/** Bits of a selector that number the item. */
const ENTRY_MASK = 0xffff & ~(FW_CFG_WRITE_CHANNEL | FW_CFG_ARCH_LOCAL);
const SIGNATURE_BYTES = new TextEncoder().encode(FW_CFG_DMA_SIGNATURE);

export interface FileOptions {
  /** Gives the contents anew (of the same size) whenever the guest selects the file. */
  readonly onSelect?: () => Uint8Array;
  /** The guest may write into `data`, by DMA. */
  readonly writable?: boolean;
}
interface File extends FileOptions {
  readonly data: Uint8Array;
}

export class FwCfg {
  readonly #items = new Map<number, Uint8Array>();
  readonly #files = new Map<string, File>();
  readonly #onSelect = new Map<number, () => Uint8Array>();
  /** Items that the guest may write. */
  readonly #writable = new Set<number>();
  #directoryStale = true;
  #current: number = FW_CFG.SIGNATURE;
  #offset = 0;
  #dmaAddress = 0;

  /** `dma`: guest memory as devices see it. */
  constructor(private readonly dma: DmaMemory) {
    this.addBytes(FW_CFG.SIGNATURE, new TextEncoder().encode("QEMU"));
    this.addU32(FW_CFG.ID, FW_CFG_VERSION.TRADITIONAL | FW_CFG_VERSION.DMA);
  }

  /** Maps the device's ports. */
  attach(ports: AddressSpace): void {
    ports.map(0x510, 2, this.#comb);
    ports.map(0x514, 8, this.#dmaRegister);
  }

  addBytes(selector: number, data: Uint8Array): void {
    this.#items.set(selector, data);
  }
  addU16(selector: number, value: number): void {
    this.addBytes(selector, Uint8Array.of(value, value >> 8));
  }
  addU32(selector: number, value: number): void {
    this.addBytes(selector, Uint8Array.of(value, value >> 8, value >> 16, value >> 24));
  }
  addU64(selector: number, value: number): void {
    this.addBytes(selector, new Uint8Array(new BigUint64Array([BigInt(value)]).buffer));
  }
  /** A string item, with its NUL. */
  addString(selector: number, text: string): void {
    this.addBytes(selector, new TextEncoder().encode(`${text}\0`));
  }
  /**
   * A file item; the directory is sorted by name, as QEMU keeps it. @throws RangeError
   * beyond the slots.
   */
  addFile(name: string, data: Uint8Array, options: FileOptions = {}): void {
    if (new TextEncoder().encode(name).length >= FW_CFG_FILE_NAME_SIZE)
      throw new RangeError(`fw_cfg file name ${name} is longer than ${FW_CFG_FILE_NAME_SIZE - 1} bytes`);
    if (!this.#files.has(name) && this.#files.size >= FW_CFG_FILE_SLOTS)
      throw new RangeError(`fw_cfg has ${FW_CFG_FILE_SLOTS} files`);
    this.#files.set(name, { data, ...options });
    this.#directoryStale = true;
  }
  /** A file's contents, or null: for tests and the monitor. */
  file(name: string): Uint8Array | null {
    return this.#files.get(name)?.data ?? null;
  }

  #select(selector: number): void {
    this.#offset = 0;
    if ((selector & ENTRY_MASK) >= FW_CFG.FILE_FIRST + FW_CFG_FILE_SLOTS) {
      this.#current = FW_CFG_INVALID;
      return;
    }
    if (this.#directoryStale) this.#buildDirectory();
    this.#current = selector & ~FW_CFG_WRITE_CHANNEL;
    const onSelect = this.#onSelect.get(this.#current);
    if (onSelect) this.#items.set(this.#current, onSelect());
  }

  #buildDirectory(): void {
    this.#directoryStale = false;
    const names = [...this.#files.keys()].sort();
    const entries = names.map((name, i) => {
      const { data, onSelect, writable } = this.#files.get(name)!;
      const select = FW_CFG.FILE_FIRST + i;
      this.#items.set(select, data);
      if (onSelect) this.#onSelect.set(select, onSelect);
      else this.#onSelect.delete(select);
      if (writable) this.#writable.add(select);
      else this.#writable.delete(select);
      return { name, select, size: data.length };
    });
    this.#items.set(FW_CFG.FILE_DIR, encodeFwCfgDirectory(entries));
  }

  #item(): Uint8Array | null {
    return this.#current === FW_CFG_INVALID ? null : (this.#items.get(this.#current) ?? null);
  }

  /** Selector and data register share ports 0x510 and 0x511: 16-bit writes select, bytes are data. */
  readonly #comb: IoRegion = {
    name: "fw_cfg",
    maxAccess: 2,
    read: (_offset, size) => {
      const data = this.#item();
      let value = 0;
      for (let i = 0; i < size; i++) {
        const byte = data !== null && this.#offset < data.length ? data[this.#offset++] : 0;
        value |= byte << (8 * (size - 1 - i));
      }
      return value;
    },
    write: (offset, size, value) => {
      if (size === 2 && offset === 0) this.#select(value);
    },
  };

  /** Big-endian 64-bit register; the write of its low half starts a transfer. */
  readonly #dmaRegister: IoRegion = {
    name: "fw_cfg.dma",
    maxAccess: 4,
    read: (offset, size) => {
      // A little-endian read of a big-endian register: the signature's bytes appear in order.
      let value = 0;
      for (let i = 0; i < size; i++) value |= SIGNATURE_BYTES[offset + i] << (8 * i);
      return value >>> 0;
    },
    write: (offset, size, value) => {
      if (size !== 4) return;
      const swapped = byteSwap(value);
      if (offset === 0) this.#dmaAddress = swapped * 2 ** 32;
      else if (offset === 4) this.#transfer(this.#dmaAddress + swapped);
    },
  };

  #transfer(address: number): void {
    this.#dmaAddress = 0;
    const access = new Uint8Array(FW_CFG_DMA_ACCESS_SIZE);
    if (!this.dma.read(address, access)) {
      this.#finish(address, FW_CFG_DMA_CTL.ERROR);
      return;
    }
    const view = new DataView(access.buffer);
    const control = view.getUint32(0);
    const length = view.getUint32(4);
    const target = view.getUint32(8) * 2 ** 32 + view.getUint32(12);
    if (control & FW_CFG_DMA_CTL.SELECT) this.#select(control >>> 16);
    const data = this.#item() ?? new Uint8Array();
    let error = 0;
    if (control & FW_CFG_DMA_CTL.READ) {
      if (length > 0 && !this.#dmaRead(target, length, data)) error = FW_CFG_DMA_CTL.ERROR;
    } else if (control & FW_CFG_DMA_CTL.WRITE) {
      if (length > 0 && !this.#dmaWrite(target, length, data)) error = FW_CFG_DMA_CTL.ERROR;
    } else if (control & FW_CFG_DMA_CTL.SKIP) this.#offset = Math.min(data.length, this.#offset + length);
    this.#finish(address, error);
  }

  /** Copies `length` bytes of the item to guest memory, zeros where it ends. */
  #dmaRead(target: number, length: number, data: Uint8Array): boolean {
    const part = data.subarray(this.#offset, this.#offset + length);
    if (part.length > 0 && !this.dma.write(target, part)) return false;
    this.#offset += part.length;
    // In pieces: a guest may ask for 4 GiB of zeros.
    const zeros = new Uint8Array(Math.min(length - part.length, 65536));
    for (let done = part.length; done < length; done += zeros.length)
      if (!this.dma.write(target + done, zeros.subarray(0, Math.min(zeros.length, length - done))))
        return false;
    return true;
  }

  /** Fills the rest of a writable item from guest memory; it must fit. */
  #dmaWrite(source: number, length: number, data: Uint8Array): boolean {
    if (!this.#writable.has(this.#current) || length > data.length - this.#offset) return false;
    const bytes = new Uint8Array(length);
    if (!this.dma.read(source, bytes)) return false;
    data.set(bytes, this.#offset);
    this.#offset += length;
    return true;
  }

  #finish(address: number, control: number): void {
    const out = new Uint8Array(4);
    new DataView(out.buffer).setUint32(0, control);
    this.dma.write(address, out);
  }
}

const byteSwap = (value: number): number =>
  ((value << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0;
