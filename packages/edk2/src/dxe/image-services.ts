/**
 * LoadImage and StartImage: PE images are measured by their Authenticode digest, loaded and called.
 * Source: UEFI 2.10, ch. 7.4; the event: TCG PC Client Platform Firmware Profile, EFI_IMAGE_LOAD_EVENT.
 */
import {
  EFI_LOADED_IMAGE,
  EFI_MEMORY_TYPE,
  EFI_STATUS,
  efiArguments,
  EV,
  guest,
  type Guest,
  type GuestProgram,
  IMAGE_DOS_HEADER,
  IMAGE_NT_HEADERS64,
  IMAGE_SUBSYSTEM_EFI_APPLICATION,
  PAGE_SIZE,
  parsePe,
  type PeImage,
  readStruct,
  struct,
  u64,
  writeStruct,
} from "@swtdx/abi";
import { efiCall } from "@swtdx/abi";
import { extendAndLog } from "../lib/measure.js";
import { readState } from "../lib/state.js";
import { authenticodeSha384 } from "./authenticode.js";
import { allocate } from "./memory-map.js";

const { SUCCESS, INVALID_PARAMETER, LOAD_ERROR, OUT_OF_RESOURCES, NOT_FOUND } = EFI_STATUS;

const EFI_IMAGE_LOAD_EVENT = struct("EFI_IMAGE_LOAD_EVENT", 32, {
  ImageLocationInMemory: u64(0),
  ImageLengthInMemory: u64(8),
  ImageLinkTimeAddress: u64(16),
  LengthOfDevicePath: u64(24),
});
/** Largest image that is taken from memory, and largest that is laid out in it, in bytes. */
const MAX_IMAGE = 64 * 2 ** 20;

/** The image as it lies in memory: headers, then each section at its address. */
function layOut(file: Uint8Array, image: PeImage): Uint8Array {
  const out = new Uint8Array(image.sizeOfImage);
  out.set(file.subarray(0, image.sizeOfHeaders));
  for (const { virtualAddress, virtualSize, rawOffset, rawSize } of image.sections)
    out.set(file.subarray(rawOffset, rawOffset + Math.min(virtualSize, rawSize)), virtualAddress);
  return out;
}

/** Measures and loads an image's bytes. @returns status and, on success, the handle */
export function* loadImage(
  file: Uint8Array,
  parent: bigint,
  path: Uint8Array = new Uint8Array(),
): Guest<{ status: bigint; handle: bigint }> {
  const image = parsePe(file);
  if ("error" in image || image.sizeOfImage > MAX_IMAGE) return { status: LOAD_ERROR, handle: 0n };
  const size = Math.ceil(image.sizeOfImage / PAGE_SIZE) * PAGE_SIZE;
  // The EFI_LOADED_IMAGE, which is the handle, has the page before the image.
  const base = yield* allocate(PAGE_SIZE + size, EFI_MEMORY_TYPE.LoaderCode);
  if (base < 0) return { status: OUT_OF_RESOURCES, handle: 0n };
  const imageBase = base + PAGE_SIZE;
  const event = EFI_IMAGE_LOAD_EVENT.encode({
    ImageLocationInMemory: BigInt(imageBase),
    ImageLengthInMemory: BigInt(file.length),
    LengthOfDevicePath: BigInt(path.length),
  });
  const type =
    image.subsystem === IMAGE_SUBSYSTEM_EFI_APPLICATION
      ? EV.EFI_BOOT_SERVICES_APPLICATION
      : EV.EFI_BOOT_SERVICES_DRIVER;
  yield* extendAndLog(2, type, authenticodeSha384(file, image), new Uint8Array([...event, ...path]));
  yield* guest.storeBytes(BigInt(imageBase), layOut(file, image));
  yield* writeStruct(base, EFI_LOADED_IMAGE, {
    Revision: 0x1000,
    ParentHandle: Number(parent),
    SystemTable: (yield* readState()).SystemTable,
    ImageBase: imageBase,
    ImageSize: image.sizeOfImage,
    ImageCodeType: EFI_MEMORY_TYPE.LoaderCode,
    ImageDataType: EFI_MEMORY_TYPE.LoaderData,
  });
  return { status: SUCCESS, handle: BigInt(base) };
}

/** LoadImage(BootPolicy, ParentImageHandle, *DevicePath, *SourceBuffer, SourceSize, *ImageHandle). */
export const LoadImage: GuestProgram = function* (regs) {
  const [, parent, , source, size, handlePointer] = yield* efiArguments(regs, 6);
  if (!handlePointer) return INVALID_PARAMETER;
  if (!source) return NOT_FOUND;
  if (size === undefined || size === 0n || size > BigInt(MAX_IMAGE)) return LOAD_ERROR;
  const { status, handle } = yield* loadImage(yield* guest.loadBytes(source, Number(size)), parent ?? 0n);
  if (status === SUCCESS) yield* guest.store(handlePointer, 8, handle);
  return status;
};

/** Calls the image's entry point. @returns what it returns */
export function* startImage(handle: bigint): Guest<bigint> {
  const image = yield* readStruct(handle, EFI_LOADED_IMAGE);
  const dos = yield* readStruct(image.ImageBase, IMAGE_DOS_HEADER);
  const nt = yield* readStruct(image.ImageBase + dos.e_lfanew, IMAGE_NT_HEADERS64);
  return yield* efiCall(image.ImageBase + nt.AddressOfEntryPoint, handle, image.SystemTable);
}

/** StartImage(ImageHandle, *ExitDataSize, **ExitData). */
export const StartImage: GuestProgram = (regs) => startImage(regs.rcx);
