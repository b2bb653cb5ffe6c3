/**
 * The file system of what QEMU was given on its command line: "kernel", "initrd" and "cmdline", read from fw_cfg
 * when they are opened. LoadFile2 gives the initrd to a kernel's EFI stub.
 * Follows OvmfPkg/QemuKernelLoaderFsDxe (edk2).
 */
import {
  EFI_FILE,
  EFI_FILE_INFO,
  EFI_MEMORY_TYPE,
  EFI_STATUS,
  efiArguments,
  FW_CFG,
  guest,
  type Guest,
  type GuestProgram,
  PAGE_SIZE,
  readUcs2,
  viewOf,
} from "@swtdx/abi";
import { fwCfgRead, fwCfgRead32, MAX_ITEM } from "../lib/fw-cfg.js";
import { allocate, retype } from "./memory-map.js";
import { encodeFileProtocol } from "./system-table.js";

const { SUCCESS, INVALID_PARAMETER, NOT_FOUND, OUT_OF_RESOURCES, BUFFER_TOO_SMALL } = EFI_STATUS;

const FILES: Readonly<Record<string, { size: number; data: number }>> = {
  kernel: { size: FW_CFG.KERNEL_SIZE, data: FW_CFG.KERNEL_DATA },
  initrd: { size: FW_CFG.INITRD_SIZE, data: FW_CFG.INITRD_DATA },
  cmdline: { size: FW_CFG.CMDLINE_SIZE, data: FW_CFG.CMDLINE_DATA },
};
const KERNEL_SETUP = { size: FW_CFG.SETUP_SIZE, data: FW_CFG.SETUP_DATA };

/** An open file: the protocol's functions, then contents' address, size, position, and the allocation's size. */
const AT = {
  contents: EFI_FILE.SIZE,
  size: EFI_FILE.SIZE + 8,
  position: EFI_FILE.SIZE + 16,
  allocated: EFI_FILE.SIZE + 24,
};
const CONTENTS = 0x100;

/** A file's bytes, or null when QEMU was given none; the kernel's setup part comes before the rest. */
export function* readKernelFile(name: string): Guest<Uint8Array | null> {
  const file = FILES[name];
  if (!file) return null;
  const size = yield* fwCfgRead32(file.size);
  if (size === 0 || size > MAX_ITEM) return null;
  const data = yield* fwCfgRead(file.data, size);
  const setupSize = name === "kernel" ? yield* fwCfgRead32(KERNEL_SETUP.size) : 0;
  if (setupSize === 0) return data;
  if (setupSize > MAX_ITEM) return null;
  const setup = yield* fwCfgRead(KERNEL_SETUP.data, setupSize);
  const out = new Uint8Array(setup.length + data.length);
  out.set(setup);
  out.set(data, setup.length);
  return out;
}

function* open(contents: Uint8Array): Guest<number> {
  const size = Math.ceil((CONTENTS + contents.length) / PAGE_SIZE) * PAGE_SIZE;
  const base = yield* allocate(size, EFI_MEMORY_TYPE.BootServicesData);
  if (base < 0) return -1;
  const header = new Uint8Array(CONTENTS);
  header.set(encodeFileProtocol());
  const view = viewOf(header);
  view.setBigUint64(AT.contents, BigInt(base + CONTENTS), true);
  view.setBigUint64(AT.size, BigInt(contents.length), true);
  view.setBigUint64(AT.allocated, BigInt(size), true);
  yield* guest.storeBytes(BigInt(base), header);
  yield* guest.storeBytes(BigInt(base + CONTENTS), contents);
  return base;
}

/** EFI_SIMPLE_FILE_SYSTEM_PROTOCOL.OpenVolume(This, **Root): the root is an empty file. */
export const OpenVolume: GuestProgram = function* (regs) {
  const root = yield* open(new Uint8Array());
  if (root < 0) return OUT_OF_RESOURCES;
  yield* guest.store(regs.rdx, 8, BigInt(root));
  return SUCCESS;
};

/** EFI_FILE_PROTOCOL.Open(This, **NewHandle, *FileName, OpenMode, Attributes). */
export const FileOpen: GuestProgram = function* (regs) {
  const [, handlePointer, name] = yield* efiArguments(regs, 3);
  const contents = yield* readKernelFile((yield* readUcs2(name)).replace(/^\\/, ""));
  if (!contents) return NOT_FOUND;
  const file = yield* open(contents);
  if (file < 0) return OUT_OF_RESOURCES;
  yield* guest.store(handlePointer, 8, BigInt(file));
  return SUCCESS;
};

/** EFI_FILE_PROTOCOL.Close(This). */
export const FileClose: GuestProgram = function* (regs) {
  const size = yield* guest.load(regs.rcx + BigInt(AT.allocated), 8);
  yield* retype(Number(regs.rcx), Number(size), EFI_MEMORY_TYPE.Conventional);
  return SUCCESS;
};

/** EFI_FILE_PROTOCOL.Read(This, *BufferSize, *Buffer). */
export const FileRead: GuestProgram = function* (regs) {
  const contents = yield* guest.load(regs.rcx + BigInt(AT.contents), 8);
  const size = yield* guest.load(regs.rcx + BigInt(AT.size), 8);
  const position = yield* guest.load(regs.rcx + BigInt(AT.position), 8);
  const wanted = yield* guest.load(regs.rdx, 8);
  const count = wanted < size - position ? wanted : size - position;
  if (count > 0n)
    yield* guest.storeBytes(regs.r8, yield* guest.loadBytes(contents + position, Number(count)));
  yield* guest.store(regs.rcx + BigInt(AT.position), 8, position + count);
  yield* guest.store(regs.rdx, 8, count);
  return SUCCESS;
};

/** EFI_FILE_PROTOCOL.GetInfo(This, *InformationType, *BufferSize, *Buffer): the size, without a name. */
export const FileGetInfo: GuestProgram = function* (regs) {
  const available = yield* guest.load(regs.r8, 8);
  const needed = EFI_FILE_INFO.size + 2;
  yield* guest.store(regs.r8, 8, BigInt(needed));
  if (available < BigInt(needed)) return BUFFER_TOO_SMALL;
  const size = Number(yield* guest.load(regs.rcx + BigInt(AT.size), 8));
  const info = new Uint8Array(needed);
  EFI_FILE_INFO.write(viewOf(info), { Size: needed, FileSize: size, PhysicalSize: size });
  yield* guest.storeBytes(regs.r9, info);
  return SUCCESS;
};

/** EFI_LOAD_FILE2_PROTOCOL.LoadFile(This, *FilePath, BootPolicy, *BufferSize, *Buffer): the initrd. */
export const LoadFile: GuestProgram = function* (regs) {
  const [, , bootPolicy, sizePointer, buffer] = yield* efiArguments(regs, 5);
  if (bootPolicy !== 0n || !sizePointer) return INVALID_PARAMETER;
  const size = yield* fwCfgRead32(FW_CFG.INITRD_SIZE);
  if (size === 0 || size > MAX_ITEM) return NOT_FOUND;
  const available = yield* guest.load(sizePointer, 8);
  yield* guest.store(sizePointer, 8, BigInt(size));
  if (!buffer || available < BigInt(size)) return BUFFER_TOO_SMALL;
  yield* guest.storeBytes(buffer, yield* fwCfgRead(FW_CFG.INITRD_DATA, size));
  return SUCCESS;
};
