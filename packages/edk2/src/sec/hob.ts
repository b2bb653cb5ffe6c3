/**
 * The TD HOB: what the (untrusted) VMM says about memory. It is checked strictly before anything of it is used.
 * Follows OvmfPkg/IntelTdx/TdxHelperLib/SecTdxHelper.c (edk2).
 */
import {
  EFI_HOB_GENERIC_HEADER,
  EFI_HOB_HANDOFF_INFO_TABLE,
  EFI_HOB_RESOURCE_DESCRIPTOR,
  EFI_HOB_TYPE,
  EFI_RESOURCE,
  viewOf,
} from "@swtdx/abi";
import { IMAGE_BASE, IMAGE_END } from "../image/layout.js";

/** A range of memory that the VMM offers; addresses and sizes in bytes. */
export interface MemoryResource {
  base: number;
  size: number;
  /** Added before the TD ran (true), or to be accepted by the guest (false). */
  accepted: boolean;
}

export interface TdHob {
  resources: readonly MemoryResource[];
  /** Bytes from the start of the list up to the END HOB: what is measured. */
  measuredLength: number;
}

const HOB_TYPES = new Set<number>([
  EFI_HOB_TYPE.HANDOFF,
  EFI_HOB_TYPE.RESOURCE_DESCRIPTOR,
  EFI_HOB_TYPE.GUID_EXTENSION,
  EFI_HOB_TYPE.FV,
  EFI_HOB_TYPE.FV2,
  EFI_HOB_TYPE.FV3,
  EFI_HOB_TYPE.CPU,
]);
/** Above this no guest memory is expected: 52-bit GPAs. */
const GPA_LIMIT = 2 ** 52;
const KNOWN_ATTRIBUTES = 0x00fd_ffff;
const MAX_RESOURCES = 128;

/** @returns the list's contents, or what is wrong with it */
export function validateTdHob(list: Uint8Array): TdHob | { error: string } {
  const view = viewOf(list);
  const resources: MemoryResource[] = [];
  let at = 0;
  for (;;) {
    if (at + EFI_HOB_GENERIC_HEADER.size > list.length)
      return { error: `no END HOB in ${list.length} bytes` };
    const header = EFI_HOB_GENERIC_HEADER.read(view, at);
    if (header.HobType === EFI_HOB_TYPE.END_OF_HOB_LIST) break;
    const where = `HOB at 0x${at.toString(16)}`;
    if (!HOB_TYPES.has(header.HobType)) return { error: `${where}: type ${header.HobType} is not allowed` };
    if (header.Reserved !== 0) return { error: `${where}: reserved field is not 0` };
    const length = header.HobLength;
    if (length < EFI_HOB_GENERIC_HEADER.size || length % 8 !== 0 || at + length > list.length)
      return { error: `${where}: length ${length}` };
    if (at === 0) {
      if (header.HobType !== EFI_HOB_TYPE.HANDOFF) return { error: "the list does not start with a PHIT" };
      if (length !== EFI_HOB_HANDOFF_INFO_TABLE.size) return { error: `PHIT of ${length} bytes` };
    } else if (header.HobType === EFI_HOB_TYPE.HANDOFF) {
      return { error: `${where}: a second PHIT` };
    }
    if (header.HobType === EFI_HOB_TYPE.RESOURCE_DESCRIPTOR) {
      if (length !== EFI_HOB_RESOURCE_DESCRIPTOR.size)
        return { error: `${where}: resource of ${length} bytes` };
      const resource = EFI_HOB_RESOURCE_DESCRIPTOR.read(view, at);
      const base = Number(resource.PhysicalStart);
      const size = Number(resource.ResourceLength);
      if (resource.ResourceType > EFI_RESOURCE.MEMORY_UNACCEPTED)
        return { error: `${where}: resource type ${resource.ResourceType}` };
      if ((resource.ResourceAttribute & ~KNOWN_ATTRIBUTES) !== 0)
        return { error: `${where}: resource attribute 0x${resource.ResourceAttribute.toString(16)}` };
      if (base % 4096 !== 0 || size % 4096 !== 0 || size === 0 || base + size > GPA_LIMIT)
        return { error: `${where}: range 0x${base.toString(16)} + 0x${size.toString(16)}` };
      if (base < IMAGE_END && base + size > IMAGE_BASE)
        return {
          error: `${where}: range 0x${base.toString(16)} + 0x${size.toString(16)} covers the firmware`,
        };
      if (
        resource.ResourceType === EFI_RESOURCE.SYSTEM_MEMORY ||
        resource.ResourceType === EFI_RESOURCE.MEMORY_UNACCEPTED
      )
        resources.push({ base, size, accepted: resource.ResourceType === EFI_RESOURCE.SYSTEM_MEMORY });
      if (resources.length > MAX_RESOURCES) return { error: `more than ${MAX_RESOURCES} ranges of memory` };
    }
    at += length;
  }
  if (at === 0) return { error: "the list is empty" };
  resources.sort((a, b) => a.base - b.base);
  for (let i = 1; i < resources.length; i++)
    if (resources[i - 1].base + resources[i - 1].size > resources[i].base)
      return { error: `ranges overlap at 0x${resources[i].base.toString(16)}` };
  return { resources, measuredLength: at };
}
