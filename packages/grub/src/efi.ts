/** What GRUB uses of EFI: console, files, measurement, images. Follows grub-core/kern/efi (GRUB 2.14). */
import {
  EFI_BOOT_SERVICES,
  EFI_CC_EVENT,
  EFI_CC_MEASUREMENT,
  EFI_FILE,
  EFI_FILE_INFO,
  EFI_GUID,
  EFI_MEMORY_TYPE,
  EFI_ALLOCATE_TYPE,
  EFI_SIMPLE_FILE_SYSTEM,
  EFI_SIMPLE_TEXT_OUTPUT,
  EFI_STATUS,
  EFI_SYSTEM_TABLE,
  efiCall,
  encodeGuid,
  encodeUcs2,
  EV,
  guest,
  type Guest,
  PAGE_SIZE,
  readStruct,
} from "@swtdx/abi";

/** Handles and pointers that the loader works with; addresses are linear. */
export interface Efi {
  imageHandle: bigint;
  systemTable: bigint;
  bootServices: number;
  conOut: number;
  /** A page for arguments that are passed by pointer. */
  scratch: bigint;
  /** EFI_CC_MEASUREMENT_PROTOCOL, 0n where the firmware has none. */
  cc: bigint;
  /** Root directory of the firmware's file system, 0n without one. */
  root: bigint;
}

/** A boot service failed; what GRUB prints. */
export class GrubError extends Error {
  override readonly name = "GrubError";
}

function* service(efi: Pick<Efi, "bootServices">, name: keyof typeof EFI_BOOT_SERVICES): Guest<bigint> {
  return yield* guest.load(BigInt(efi.bootServices + EFI_BOOT_SERVICES[name]), 8);
}
/** Calls a boot service. */
export function* bootService(
  efi: Pick<Efi, "bootServices">,
  name: keyof typeof EFI_BOOT_SERVICES,
  ...args: readonly (number | bigint)[]
): Guest<bigint> {
  return yield* efiCall(yield* service(efi, name), ...args);
}

/** Pages of loader data. @throws GrubError without memory */
export function* allocatePages(
  efi: Pick<Efi, "bootServices">,
  bytes: number,
  pointer: bigint,
): Guest<bigint> {
  const pages = Math.ceil(bytes / PAGE_SIZE);
  const { AnyPages } = EFI_ALLOCATE_TYPE;
  const status = yield* bootService(
    efi,
    "AllocatePages",
    AnyPages,
    EFI_MEMORY_TYPE.LoaderData,
    pages,
    pointer,
  );
  if (status !== EFI_STATUS.SUCCESS) throw new GrubError("out of memory");
  return yield* guest.load(pointer, 8);
}

/** The interface of a protocol, or 0n. The scratch page's last bytes hold GUID and result. */
function* locate(efi: Pick<Efi, "bootServices" | "scratch">, guid: string): Guest<bigint> {
  const at = efi.scratch + BigInt(PAGE_SIZE - 64);
  yield* guest.storeBytes(at, encodeGuid(guid));
  const status = yield* bootService(efi, "LocateProtocol", at, 0, at + 16n);
  return status === EFI_STATUS.SUCCESS ? yield* guest.load(at + 16n, 8) : 0n;
}

/** Finds what the loader needs. `stack` is free stack below RSP, used until there is a scratch page. */
export function* initEfi(imageHandle: bigint, systemTable: bigint): Guest<Efi> {
  const table = yield* readStruct(systemTable, EFI_SYSTEM_TABLE);
  const partial = { bootServices: table.BootServices, conOut: table.ConOut };
  const { rsp } = yield* guest.getRegs();
  // The firmware's stack below this frame serves as the first pointer argument.
  const scratch = yield* allocatePages(partial, PAGE_SIZE, (rsp - 0x400n) & ~0xfn);
  const efi = { ...partial, imageHandle, systemTable, scratch };
  const cc = yield* locate(efi, EFI_GUID.CC_MEASUREMENT_PROTOCOL);
  const fileSystem = yield* locate(efi, EFI_GUID.SIMPLE_FILE_SYSTEM_PROTOCOL);
  let root = 0n;
  if (fileSystem !== 0n) {
    const openVolume = yield* guest.load(fileSystem + BigInt(EFI_SIMPLE_FILE_SYSTEM.OpenVolume), 8);
    const status = yield* efiCall(openVolume, fileSystem, scratch);
    if (status === EFI_STATUS.SUCCESS) root = yield* guest.load(scratch, 8);
  }
  return { ...efi, cc, root };
}

/** Prints on the firmware's console. */
export function* print(efi: Efi, text: string): Guest<void> {
  const output = yield* guest.load(BigInt(efi.conOut + EFI_SIMPLE_TEXT_OUTPUT.OutputString), 8);
  for (let at = 0; at < text.length; at += 200) {
    yield* guest.storeBytes(efi.scratch, encodeUcs2(text.slice(at, at + 200).replace(/\n/g, "\r\n")));
    yield* efiCall(output, efi.conOut, efi.scratch);
  }
}

/** A file's bytes and where they lie, or null when it does not exist. */
export function* readFile(efi: Efi, path: string): Guest<{ address: bigint; bytes: Uint8Array } | null> {
  if (efi.root === 0n) return null;
  const name = efi.scratch + 0x100n;
  yield* guest.storeBytes(name, encodeUcs2(path.replace(/^\//, "")));
  const open = yield* guest.load(efi.root + BigInt(EFI_FILE.Open), 8);
  if ((yield* efiCall(open, efi.root, efi.scratch, name, 1, 0)) !== EFI_STATUS.SUCCESS) return null;
  const file = yield* guest.load(efi.scratch, 8);
  const [infoGuid, sizePointer, info] = [name, efi.scratch + 8n, efi.scratch + 0x200n];
  yield* guest.storeBytes(infoGuid, encodeGuid(EFI_GUID.FILE_INFO));
  yield* guest.store(sizePointer, 8, 0x200n);
  const getInfo = yield* guest.load(file + BigInt(EFI_FILE.GetInfo), 8);
  if ((yield* efiCall(getInfo, file, infoGuid, sizePointer, info)) !== EFI_STATUS.SUCCESS)
    throw new GrubError(`cannot stat ${path}`);
  const { FileSize } = yield* readStruct(info, EFI_FILE_INFO);
  const address = yield* allocatePages(efi, FileSize, efi.scratch);
  yield* guest.store(sizePointer, 8, BigInt(FileSize));
  const read = yield* guest.load(file + BigInt(EFI_FILE.Read), 8);
  if ((yield* efiCall(read, file, sizePointer, address)) !== EFI_STATUS.SUCCESS)
    throw new GrubError(`cannot read ${path}`);
  yield* efiCall(yield* guest.load(file + BigInt(EFI_FILE.Close), 8), file);
  return { address, bytes: yield* guest.loadBytes(address, FileSize) };
}

/** Measures `data` into the register of `pcr`, described by `description` (EV_IPL, as grub_tpm_measure). */
export function* measure(
  efi: Efi,
  pcr: number,
  data: { address: bigint; length: number } | string,
  description: string,
): Guest<void> {
  if (efi.cc === 0n) return;
  const map = yield* guest.load(efi.cc + BigInt(EFI_CC_MEASUREMENT.MapPcrToMrIndex), 8);
  if ((yield* efiCall(map, efi.cc, pcr, efi.scratch)) !== EFI_STATUS.SUCCESS) return;
  const mrIndex = Number(yield* guest.load(efi.scratch, 4));
  const text = new TextEncoder().encode(`${description}\0`).subarray(0, 0x800);
  const event = new Uint8Array(EFI_CC_EVENT.size + text.length);
  event.set(
    EFI_CC_EVENT.encode({
      Size: event.length,
      HeaderSize: EFI_CC_EVENT.size - 4,
      HeaderVersion: 1,
      MrIndex: mrIndex,
      EventType: EV.IPL,
    }),
  );
  event.set(text, EFI_CC_EVENT.size);
  yield* guest.storeBytes(efi.scratch, event);
  let what = data;
  if (typeof what === "string") {
    const bytes = new TextEncoder().encode(what).subarray(0, 0x600);
    what = { address: efi.scratch + 0x900n, length: bytes.length };
    yield* guest.storeBytes(what.address, bytes);
  }
  const hashLogExtend = yield* guest.load(efi.cc + BigInt(EFI_CC_MEASUREMENT.HashLogExtendEvent), 8);
  const status = yield* efiCall(hashLogExtend, efi.cc, 0, what.address, what.length, efi.scratch);
  if (status !== EFI_STATUS.SUCCESS) throw new GrubError(`cannot measure ${description}`);
}
