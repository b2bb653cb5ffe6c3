/**
 * The kernel's EFI stub: measures command line and initrd, takes the memory map, ends boot services.
 * Linux: drivers/firmware/efi/libstub (x86-stub.c, efi-stub-helper.c).
 */
import {
  decodeGuid,
  decodeUcs2,
  EFI_BOOT_SERVICES,
  EFI_CC_EVENT,
  EFI_CC_MEASUREMENT,
  EFI_CONFIGURATION_TABLE,
  EFI_GUID,
  EFI_LOADED_IMAGE,
  EFI_MEMORY_DESCRIPTOR,
  EFI_MEMORY_TYPE,
  EFI_STATUS,
  EFI_SYSTEM_TABLE,
  efiCall,
  encodeGuid,
  EV,
  guest,
  type Guest,
  PAGE_SIZE,
  readStruct,
  viewOf,
} from "@swtdx/abi";
import type { MemoryRange } from "../mm/memory.js";

/** What the stub hands to the kernel. */
export interface BootParams {
  commandLine: string;
  memoryMap: MemoryRange[];
  /** GPA of the RSDP, 0 without one. */
  rsdp: number;
  initrd: { address: number; size: number } | null;
}

const PCR_INITRD_AND_OPTIONS = 9;
/** Tag of the load options' event: "LNX" + 1 as libstub has it. */
const LOAD_OPTIONS_EVENT_TAG_ID = 0x8f3b22ed;
const INITRD_EVENT_TAG_ID = 0x8f3b22ec;
const LOAD_OPTIONS_TAG = "LOADED_IMAGE::LoadOptions";
const INITRD_TAG = "Linux initrd";

/** The stub could not go on; the text goes to whoever started the image, as a status. */
export class StubError extends Error {
  override readonly name = "StubError";
  constructor(
    message: string,
    readonly status: bigint = EFI_STATUS.LOAD_ERROR,
  ) {
    super(message);
  }
}

class Stub {
  constructor(
    readonly bootServices: number,
    /** A few pages for what is passed by pointer. */
    readonly scratch: bigint,
  ) {}

  *call(name: keyof typeof EFI_BOOT_SERVICES, ...args: readonly (number | bigint)[]): Guest<bigint> {
    return yield* efiCall(yield* guest.load(BigInt(this.bootServices + EFI_BOOT_SERVICES[name]), 8), ...args);
  }

  *locate(guid: string): Guest<bigint> {
    yield* guest.storeBytes(this.scratch, encodeGuid(guid));
    const status = yield* this.call("LocateProtocol", this.scratch, 0, this.scratch + 16n);
    return status === EFI_STATUS.SUCCESS ? yield* guest.load(this.scratch + 16n, 8) : 0n;
  }

  *allocatePages(bytes: number): Guest<number> {
    const pages = Math.max(1, Math.ceil(bytes / PAGE_SIZE));
    const status = yield* this.call("AllocatePages", 0, EFI_MEMORY_TYPE.LoaderData, pages, this.scratch);
    if (status !== EFI_STATUS.SUCCESS) throw new StubError("out of memory", status);
    return Number(yield* guest.load(this.scratch, 8));
  }

  /** An EV_EVENT_TAG event over `size` bytes at `address`. */
  *measure(cc: bigint, address: bigint, size: number, tagId: number, tag: string): Guest<void> {
    if (cc === 0n) return;
    const map = yield* guest.load(cc + BigInt(EFI_CC_MEASUREMENT.MapPcrToMrIndex), 8);
    yield* efiCall(map, cc, PCR_INITRD_AND_OPTIONS, this.scratch);
    const mrIndex = Number(yield* guest.load(this.scratch, 4));
    const text = new TextEncoder().encode(`${tag}\0`);
    const event = new Uint8Array(EFI_CC_EVENT.size + 8 + text.length);
    const header = {
      HeaderSize: EFI_CC_EVENT.size - 4,
      HeaderVersion: 1,
      MrIndex: mrIndex,
      EventType: EV.EVENT_TAG,
    };
    event.set(EFI_CC_EVENT.encode({ Size: event.length, ...header }));
    viewOf(event).setUint32(EFI_CC_EVENT.size, tagId, true);
    viewOf(event).setUint32(EFI_CC_EVENT.size + 4, text.length, true);
    event.set(text, EFI_CC_EVENT.size + 8);
    yield* guest.storeBytes(this.scratch, event);
    const hashLogExtend = yield* guest.load(cc + BigInt(EFI_CC_MEASUREMENT.HashLogExtendEvent), 8);
    const status = yield* efiCall(hashLogExtend, cc, 0, address, size, this.scratch);
    if (status !== EFI_STATUS.SUCCESS) throw new StubError(`cannot measure ${tag}`, status);
  }
}

/** The initrd that the firmware offers by LoadFile2. */
function* loadInitrd(stub: Stub, cc: bigint): Guest<BootParams["initrd"]> {
  const protocol = yield* stub.locate(EFI_GUID.LOAD_FILE2_PROTOCOL);
  if (protocol === 0n) return null;
  const loadFile = yield* guest.load(protocol, 8);
  const sizePointer = stub.scratch + 64n;
  yield* guest.store(sizePointer, 8, 0n);
  const probe = yield* efiCall(loadFile, protocol, 0, 0, sizePointer, 0);
  if (probe !== EFI_STATUS.BUFFER_TOO_SMALL) return null;
  const size = Number(yield* guest.load(sizePointer, 8));
  const address = yield* stub.allocatePages(size);
  const status = yield* efiCall(loadFile, protocol, 0, 0, sizePointer, address);
  if (status !== EFI_STATUS.SUCCESS) throw new StubError("cannot load the initrd", status);
  yield* stub.measure(cc, BigInt(address), size, INITRD_EVENT_TAG_ID, INITRD_TAG);
  return { address, size };
}

/** The memory map and the end of boot services; tried again while the map changes. */
function* exitBootServices(stub: Stub, image: bigint): Guest<MemoryRange[]> {
  const size = 4 * PAGE_SIZE;
  const map = BigInt(yield* stub.allocatePages(size));
  for (let tries = 0; tries < 3; tries++) {
    const [mapSize, key, descriptorSize, version] = [0n, 8n, 16n, 24n].map((offset) => stub.scratch + offset);
    yield* guest.store(mapSize, 8, BigInt(size));
    const status = yield* stub.call("GetMemoryMap", mapSize, map, key, descriptorSize, version);
    if (status !== EFI_STATUS.SUCCESS) throw new StubError("no memory map", status);
    const bytes = yield* guest.loadBytes(map, Number(yield* guest.load(mapSize, 8)));
    const step = Number(yield* guest.load(descriptorSize, 8));
    const mapKey = yield* guest.load(key, 8);
    if ((yield* stub.call("ExitBootServices", image, mapKey)) !== EFI_STATUS.SUCCESS) continue;
    const out: MemoryRange[] = [];
    for (let at = 0; at + EFI_MEMORY_DESCRIPTOR.size <= bytes.length; at += step) {
      const { Type, PhysicalStart, NumberOfPages } = EFI_MEMORY_DESCRIPTOR.read(viewOf(bytes), at);
      out.push({ type: Type, base: PhysicalStart, size: NumberOfPages * PAGE_SIZE });
    }
    return out;
  }
  throw new StubError("ExitBootServices failed", EFI_STATUS.INVALID_PARAMETER);
}

/** From the entry point (image handle, system table) to the end of boot services. @throws StubError */
export function* efiStub(image: bigint, systemTable: bigint): Guest<BootParams> {
  const table = yield* readStruct(systemTable, EFI_SYSTEM_TABLE);
  const loaded = yield* readStruct(image, EFI_LOADED_IMAGE);
  const { rsp } = yield* guest.getRegs();
  // Below this frame the stack is free: it serves as the first pointer argument.
  const first = new Stub(table.BootServices, (rsp - 0x400n) & ~0xfn);
  const stub = new Stub(table.BootServices, BigInt(yield* first.allocatePages(2 * PAGE_SIZE)));
  const cc = yield* stub.locate(EFI_GUID.CC_MEASUREMENT_PROTOCOL);
  let commandLine = "";
  if (loaded.LoadOptionsSize > 0) {
    const options = BigInt(loaded.LoadOptions);
    commandLine = decodeUcs2(yield* guest.loadBytes(options, loaded.LoadOptionsSize));
    yield* stub.measure(cc, options, loaded.LoadOptionsSize, LOAD_OPTIONS_EVENT_TAG_ID, LOAD_OPTIONS_TAG);
  }
  const initrd = yield* loadInitrd(stub, cc);
  let rsdp = 0;
  for (let i = 0; i < Number(table.NumberOfTableEntries); i++) {
    const entry = yield* readStruct(
      table.ConfigurationTable + i * EFI_CONFIGURATION_TABLE.size,
      EFI_CONFIGURATION_TABLE,
    );
    if (decodeGuid(entry.VendorGuid) === EFI_GUID.ACPI_20_TABLE) rsdp = entry.VendorTable;
  }
  const memoryMap = yield* exitBootServices(stub, image);
  return { commandLine, memoryMap, rsdp, initrd };
}
