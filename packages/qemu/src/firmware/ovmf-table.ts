/**
 * OVMF's GUIDed table: entries that grow downwards from just under the reset vector, each data, u16 length of the
 * whole entry, GUID. QEMU, hw/i386/pc_sysfw_ovmf.c.
 */
import { decodeGuid, OVMF_TABLE_BYTES_AFTER, OVMF_TABLE_FOOTER_GUID, viewOf } from "@swtdx/abi";
import { FirmwareError } from "../errors.js";

const GUID_SIZE = 16;
/** GUID and length. */
const ENTRY_MIN = GUID_SIZE + 2;

export interface OvmfTableEntry {
  readonly guid: string;
  /** Offset in bytes of the entry's data in the image, and its size. */
  readonly offset: number;
  readonly size: number;
}

/**
 * The entries of the image's table in the order in which they are found, top down.
 * @throws FirmwareError when there is no table or its lengths do not fit.
 */
export function readOvmfTable(image: Uint8Array, file: string): OvmfTableEntry[] {
  const view = viewOf(image);
  const footer = image.length - OVMF_TABLE_BYTES_AFTER - GUID_SIZE;
  if (footer < 2 || decodeGuid(image, footer) !== OVMF_TABLE_FOOTER_GUID)
    throw new FirmwareError(
      file,
      "OVMF table",
      `no TDVF image: no footer GUID ${OVMF_TABLE_FOOTER_GUID} 48 bytes before its end`,
    );
  const total = view.getUint16(footer - 2, true);
  if (total < ENTRY_MIN || total - GUID_SIZE > footer)
    throw new FirmwareError(
      file,
      "OVMF table length",
      `${total} bytes; from ${ENTRY_MIN} to ${footer + GUID_SIZE} would fit`,
    );
  const start = footer + GUID_SIZE - total;
  const entries: OvmfTableEntry[] = [];
  let end = footer - 2;
  while (end - start >= ENTRY_MIN) {
    const length = view.getUint16(end - ENTRY_MIN, true);
    if (length < ENTRY_MIN || length > end - start)
      throw new FirmwareError(
        file,
        "OVMF table entry length",
        `${length} bytes; from ${ENTRY_MIN} to ${end - start} would fit`,
      );
    entries.push({
      guid: decodeGuid(image, end - GUID_SIZE),
      offset: end - length,
      size: length - ENTRY_MIN,
    });
    end -= length;
  }
  return entries;
}
