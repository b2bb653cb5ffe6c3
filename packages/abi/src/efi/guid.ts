/**
 * EFI GUIDs: 16 bytes whose first three fields are little-endian (UEFI specification, appendix A), and the ones
 * that the layers share.
 */

/** The 16 bytes of a GUID in its written form. @throws RangeError when the text is no GUID. */
export function encodeGuid(text: string): Uint8Array {
  const match = /^([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})$/i.exec(text);
  if (!match) throw new RangeError(`"${text}" is no GUID`);
  const out = new Uint8Array(16);
  const view = new DataView(out.buffer);
  view.setUint32(0, Number.parseInt(match[1], 16), true);
  view.setUint16(4, Number.parseInt(match[2], 16), true);
  view.setUint16(6, Number.parseInt(match[3], 16), true);
  const tail = match[4] + match[5];
  for (let i = 0; i < 8; i++) out[8 + i] = Number.parseInt(tail.slice(2 * i, 2 * i + 2), 16);
  return out;
}

/** The written form, in lower case, of the GUID that starts at `offset`. */
export function decodeGuid(bytes: Uint8Array, offset = 0): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset + offset, 16);
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");
  let tail = "";
  for (let i = 8; i < 16; i++) tail += hex(view.getUint8(i), 2);
  const head = [
    hex(view.getUint32(0, true), 8),
    hex(view.getUint16(4, true), 4),
    hex(view.getUint16(6, true), 4),
  ];
  return `${head.join("-")}-${tail.slice(0, 4)}-${tail.slice(4)}`;
}

export const EFI_GUID = {
  ACPI_20_TABLE: "8868e871-e4f1-11d3-bc22-0080c73c8881",
  /** EFI_CC_MEASUREMENT_PROTOCOL. */
  CC_MEASUREMENT_PROTOCOL: "96751a3d-72f4-41a6-a794-ed5d0e67ae6b",
  CC_FINAL_EVENTS_TABLE: "dd4a4648-2de7-4665-964d-21d9ef5fb446",
  LOADED_IMAGE_PROTOCOL: "5b1b31a1-9562-11d2-8e3f-00a0c969723b",
  SIMPLE_FILE_SYSTEM_PROTOCOL: "964e5b22-6459-11d2-8e39-00a0c969723b",
  LOAD_FILE2_PROTOCOL: "4006c0c1-fcb3-403e-996d-4a6c8724e06d",
  FILE_INFO: "09576e92-6d3f-11d2-8e39-00a0c969723b",
  FIRMWARE_FILE_SYSTEM2: "8c8ce578-8a3d-4f1c-9935-896185c32dd3",
  SYSTEM_NV_DATA_FV: "fff12b8d-7696-4c8b-a985-2747075b4f50",
  AUTHENTICATED_VARIABLE: "aaf32c78-947b-439a-a180-2e144ec37792",
  GLOBAL_VARIABLE: "8be4df61-93ca-11d2-aa0d-00e098032b8c",
  IMAGE_SECURITY_DATABASE: "d719b2cb-3d3a-4596-a3bc-dad00e67656f",
} as const;
