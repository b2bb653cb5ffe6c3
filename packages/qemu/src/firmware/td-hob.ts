/** The TD HOB list: what a TD's firmware learns about RAM. Byte for byte as QEMU's hw/i386/tdvf-hob.c builds it. */
import {
  EFI_HOB_ALIGNMENT,
  EFI_HOB_GENERIC_HEADER,
  EFI_HOB_HANDOFF_INFO_TABLE,
  EFI_HOB_HANDOFF_TABLE_VERSION,
  EFI_HOB_RESOURCE_DESCRIPTOR,
  EFI_HOB_TYPE,
  EFI_RESOURCE,
  EFI_RESOURCE_ATTRIBUTE,
} from "@swtdx/abi";
import { FirmwareError } from "../errors.js";
import type { TdRamRange } from "../memory/memory-map.js";
import type { Tdvf } from "./tdvf.js";

const ATTRIBUTES =
  EFI_RESOURCE_ATTRIBUTE.PRESENT | EFI_RESOURCE_ATTRIBUTE.INITIALIZED | EFI_RESOURCE_ATTRIBUTE.TESTED;

/**
 * The HOB list for the firmware's TD_HOB section, as long as the list (the section's rest stays zero).
 * @throws FirmwareError when the section is too small.
 */
export function buildTdHob(tdvf: Tdvf, ram: readonly TdRamRange[]): Uint8Array {
  const { memoryAddress, memoryDataSize } = tdvf.tdHob;
  const hobs: Uint8Array[] = [
    new Uint8Array(EFI_HOB_HANDOFF_INFO_TABLE.size),
    ...ram.map(({ address, length, type }) =>
      EFI_HOB_RESOURCE_DESCRIPTOR.encode({
        Header: header(EFI_HOB_TYPE.RESOURCE_DESCRIPTOR, EFI_HOB_RESOURCE_DESCRIPTOR.size),
        ResourceType: type === "ADDED" ? EFI_RESOURCE.SYSTEM_MEMORY : EFI_RESOURCE.MEMORY_UNACCEPTED,
        ResourceAttribute: ATTRIBUTES,
        PhysicalStart: BigInt(address),
        ResourceLength: BigInt(length),
      }),
    ),
    EFI_HOB_GENERIC_HEADER.encode(header(EFI_HOB_TYPE.END_OF_HOB_LIST, EFI_HOB_GENERIC_HEADER.size)),
  ];
  const aligned = (bytes: number): number => Math.ceil(bytes / EFI_HOB_ALIGNMENT) * EFI_HOB_ALIGNMENT;
  const size = hobs.reduce((sum, hob) => sum + aligned(hob.length), 0);
  if (size > memoryDataSize)
    throw new FirmwareError(
      tdvf.file,
      "TD_HOB MemoryDataSize",
      `${memoryDataSize} bytes; the list of ${ram.length} memory ranges takes ${size}`,
    );
  hobs[0] = EFI_HOB_HANDOFF_INFO_TABLE.encode({
    Header: header(EFI_HOB_TYPE.HANDOFF, EFI_HOB_HANDOFF_INFO_TABLE.size),
    Version: EFI_HOB_HANDOFF_TABLE_VERSION,
    EfiEndOfHobList: BigInt(memoryAddress + size),
  });
  const list = new Uint8Array(size);
  let at = 0;
  for (const hob of hobs) {
    list.set(hob, at);
    at += aligned(hob.length);
  }
  return list;
}

const header = (type: number, length: number) => ({ HobType: type, HobLength: length, Reserved: 0 });
