/**
 * QEMU's fw_cfg: byte by byte through its data port, or by DMA through shared memory once there is some.
 * Follows OvmfPkg/Library/QemuFwCfgLib (edk2).
 */
import {
  decodeFwCfgDirectory,
  FW_CFG,
  FW_CFG_DMA_CTL,
  FW_CFG_FILE_ENTRY_SIZE,
  FW_CFG_PORT,
  FW_CFG_VERSION,
  type FwCfgFileEntry,
  guest,
  type Guest,
} from "@swtdx/abi";
import { readState } from "./state.js";
import { ioRead, ioWrite } from "./tdx.js";

const DESCRIPTOR_BYTES = 16;

function* readByPort(item: number, length: number): Guest<Uint8Array> {
  yield* ioWrite(FW_CFG_PORT.SELECTOR, 2, item);
  const out = new Uint8Array(length);
  for (let i = 0; i < length; i++) out[i] = yield* ioRead(FW_CFG_PORT.DATA, 1);
  return out;
}

const swap32 = (value: number) =>
  (((value & 0xff) << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0;

/** The buffer starts with the DMA descriptor; the device sees the same GPA that the guest maps as shared. */
function* readByDma(item: number, length: number, base: number, size: number): Guest<Uint8Array> {
  const out = new Uint8Array(length);
  const chunk = size - DESCRIPTOR_BYTES;
  for (let at = 0; at < length; at += chunk) {
    const count = Math.min(chunk, length - at);
    const descriptor = new DataView(new ArrayBuffer(DESCRIPTOR_BYTES));
    const select = at === 0 ? (item << 16) | FW_CFG_DMA_CTL.SELECT : 0;
    descriptor.setUint32(0, select | FW_CFG_DMA_CTL.READ);
    descriptor.setUint32(4, count);
    descriptor.setBigUint64(8, BigInt(base + DESCRIPTOR_BYTES));
    yield* guest.storeBytes(BigInt(base), new Uint8Array(descriptor.buffer));
    yield* ioWrite(FW_CFG_PORT.DMA_HIGH, 4, swap32(Math.floor(base / 2 ** 32)));
    yield* ioWrite(FW_CFG_PORT.DMA_LOW, 4, swap32(base >>> 0));
    const control = new DataView((yield* guest.loadBytes(BigInt(base), 4)).buffer).getUint32(0);
    if (control !== 0) return yield* readByPort(item, length);
    out.set(yield* guest.loadBytes(BigInt(base + DESCRIPTOR_BYTES), count), at);
  }
  return out;
}

/** Reads the first `length` bytes of an item. */
export function* fwCfgRead(item: number, length: number): Guest<Uint8Array> {
  const { DmaBase, DmaSize } = yield* readState();
  return yield* DmaBase !== 0 && length > 64
    ? readByDma(item, length, DmaBase, DmaSize)
    : readByPort(item, length);
}

/** A 32-bit little-endian item, such as a size. */
export function* fwCfgRead32(item: number): Guest<number> {
  return new DataView((yield* fwCfgRead(item, 4)).buffer).getUint32(0, true);
}

/** Whether there is a fw_cfg device. */
export function* fwCfgPresent(): Guest<boolean> {
  return new TextDecoder().decode(yield* readByPort(FW_CFG.SIGNATURE, 4)) === "QEMU";
}

/** Whether it can do DMA. */
export function* fwCfgHasDma(): Guest<boolean> {
  return ((yield* fwCfgRead32(FW_CFG.ID)) & FW_CFG_VERSION.DMA) !== 0;
}

/** Largest directory and largest item that are read: a hostile count or size ends here. */
const MAX_FILES = 1024;
export const MAX_ITEM = 256 * 2 ** 20;

/** The directory; empty without the device. */
export function* fwCfgFiles(): Guest<FwCfgFileEntry[]> {
  const count = new DataView((yield* fwCfgRead(FW_CFG.FILE_DIR, 4)).buffer).getUint32(0);
  if (count > MAX_FILES) return [];
  return decodeFwCfgDirectory(yield* fwCfgRead(FW_CFG.FILE_DIR, 4 + count * FW_CFG_FILE_ENTRY_SIZE));
}

/** A file's contents, or null when there is none of that name. */
export function* fwCfgFile(name: string): Guest<Uint8Array | null> {
  const file = (yield* fwCfgFiles()).find((entry) => entry.name === name);
  return file && file.size <= MAX_ITEM ? yield* fwCfgRead(file.select, file.size) : null;
}
