/** Boot services: memory, protocols and the console. Source: UEFI 2.10, ch. 7 and 12.4. */
import {
  decodeGuid,
  EFI_ALLOCATE_TYPE,
  EFI_GUID,
  EFI_MEMORY_DESCRIPTOR,
  EFI_MEMORY_TYPE,
  EFI_STATUS,
  efiArguments,
  EV,
  FW_CFG,
  guest,
  type Guest,
  type GuestProgram,
  PAGE_SIZE,
  readUcs2,
} from "@swtdx/abi";
import { fwCfgRead32 } from "../lib/fw-cfg.js";
import { measure } from "../lib/measure.js";
import { print } from "../lib/serial.js";
import { readState } from "../lib/state.js";
import { releaseDma } from "./dma.js";
import { allocate, encodeMap, FIRMWARE_DMA, readMap, retype } from "./memory-map.js";

const { SUCCESS, INVALID_PARAMETER, BUFFER_TOO_SMALL, OUT_OF_RESOURCES, NOT_FOUND, UNSUPPORTED } = EFI_STATUS;

/** EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL.OutputString(This, String). */
export const OutputString: GuestProgram = function* (regs) {
  yield* print((yield* readUcs2(regs.rdx)).replace(/\r\n/g, "\n"));
  return SUCCESS;
};

/** AllocatePages(Type, MemoryType, Pages, *Memory). */
export const AllocatePages: GuestProgram = function* (regs) {
  const type = Number(regs.rcx);
  const memoryType = Number(regs.rdx);
  const size = Number(regs.r8) * PAGE_SIZE;
  if (size <= 0 || !Number.isSafeInteger(size) || memoryType >= EFI_MEMORY_TYPE.Unaccepted)
    return INVALID_PARAMETER;
  const limit = yield* guest.load(regs.r9, 8);
  if (type === EFI_ALLOCATE_TYPE.Address) return UNSUPPORTED;
  const high = type === EFI_ALLOCATE_TYPE.MaxAddress ? Math.min(Number(limit) + 1, 2 ** 32) : 2 ** 32;
  const base = yield* allocate(size, memoryType, high);
  if (base < 0) return OUT_OF_RESOURCES;
  yield* guest.store(regs.r9, 8, BigInt(base));
  return SUCCESS;
};

/** FreePages(Memory, Pages). */
export const FreePages: GuestProgram = function* (regs) {
  const size = Number(regs.rdx) * PAGE_SIZE;
  if (size <= 0 || regs.rcx % BigInt(PAGE_SIZE) !== 0n) return INVALID_PARAMETER;
  return (yield* retype(Number(regs.rcx), size, EFI_MEMORY_TYPE.Conventional)) ? SUCCESS : NOT_FOUND;
};

/** GetMemoryMap(*MapSize, *Map, *MapKey, *DescriptorSize, *DescriptorVersion). */
export const GetMemoryMap: GuestProgram = function* (regs) {
  const [sizePointer, map, keyPointer, descriptorSize, version] = yield* efiArguments(regs, 5);
  const entries = yield* readMap();
  const needed = BigInt(entries.length * EFI_MEMORY_DESCRIPTOR.size);
  const available = yield* guest.load(sizePointer, 8);
  yield* guest.store(sizePointer, 8, needed);
  if (descriptorSize) yield* guest.store(descriptorSize, 8, BigInt(EFI_MEMORY_DESCRIPTOR.size));
  if (version) yield* guest.store(version, 4, 1n);
  if (available < needed) return BUFFER_TOO_SMALL;
  if (!map) return INVALID_PARAMETER;
  // The DMA range goes back to where it came from when boot services end.
  const seen = entries.map((entry) =>
    entry.type === FIRMWARE_DMA ? { ...entry, type: EFI_MEMORY_TYPE.Unaccepted } : entry,
  );
  yield* guest.storeBytes(map, encodeMap(seen));
  if (keyPointer) yield* guest.store(keyPointer, 8, BigInt((yield* readState()).MapKey));
  return SUCCESS;
};

/** ExitBootServices(ImageHandle, MapKey): measured; afterwards the firmware's programs are gone. */
export const ExitBootServices: GuestProgram = function* (regs) {
  if (regs.rdx !== BigInt((yield* readState()).MapKey)) return INVALID_PARAMETER;
  for (const action of ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"]) {
    const text = new TextEncoder().encode(action);
    yield* measure(2, EV.EFI_ACTION, text, text);
  }
  yield* releaseDma();
  return SUCCESS;
};

/** HandleProtocol(Handle, *Protocol, **Interface): an image's handle is the address of its EFI_LOADED_IMAGE. */
export const HandleProtocol: GuestProgram = function* (regs) {
  const protocol = decodeGuid(yield* guest.loadBytes(regs.rdx, 16));
  if (protocol !== EFI_GUID.LOADED_IMAGE_PROTOCOL) return UNSUPPORTED;
  yield* guest.store(regs.r8, 8, regs.rcx);
  return SUCCESS;
};

/** LocateProtocol(*Protocol, *Registration, **Interface). */
export const LocateProtocol: GuestProgram = function* (regs) {
  const address = yield* locate(decodeGuid(yield* guest.loadBytes(regs.rcx, 16)));
  if (address === 0) return NOT_FOUND;
  yield* guest.store(regs.r8, 8, BigInt(address));
  return SUCCESS;
};

function* locate(protocol: string): Guest<number> {
  const state = yield* readState();
  if (protocol === EFI_GUID.CC_MEASUREMENT_PROTOCOL) return state.CcProtocol;
  if (protocol === EFI_GUID.SIMPLE_FILE_SYSTEM_PROTOCOL) return state.FileSystem;
  // LoadFile2 serves the initrd, when QEMU was given one.
  if (protocol === EFI_GUID.LOAD_FILE2_PROTOCOL)
    return (yield* fwCfgRead32(FW_CFG.INITRD_SIZE)) > 0 ? state.LoadFile2 : 0;
  return 0;
}
