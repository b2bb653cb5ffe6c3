/**
 * Metadata field identifiers: how TDH.SYS.RD, TDH.MNG.RD/WR, TDH.VP.RD/WR, TDG.VM.RD/WR and the like name a field.
 * TDX Module 1.5 ABI specification, "MD_FIELD_ID"; the fields themselves are in metadata-sys.ts, metadata-td.ts and
 * metadata-vp.ts.
 */

/** MD_FIELD_ID taken apart. */
export interface MetadataFieldId {
  /** Bits 23:0. */
  readonly fieldCode: number;
  /** Bits 33:32: log2 of an element's size in bytes. */
  readonly elementSizeCode: number;
  /** Bits 37:34: number of elements in the field, minus one. */
  readonly lastElementInField: number;
  /** Bits 46:38: number of fields in the sequence, minus one. */
  readonly lastFieldInSequence: number;
  /** Bit 50: field codes in a sequence advance by the field's element count rather than by one. */
  readonly incSize: boolean;
  /** Bit 51: a write mask element follows the header in a metadata list. */
  readonly writeMaskValid: boolean;
  /** Bits 54:52, see METADATA_CONTEXT. */
  readonly contextCode: number;
  /** Bits 61:56. */
  readonly classCode: number;
  /** Bit 63: the field is specific to a module version. */
  readonly nonArch: boolean;
}

export const METADATA_CONTEXT = { SYS: 0, TD: 1, VP: 2 } as const;
export type MetadataContext = keyof typeof METADATA_CONTEXT;

/** "No field": ends an enumeration with *.RD (next field id), and asks for the first one. */
export const MD_FIELD_ID_NA = 0xffff_ffff_ffff_ffffn;
/** Context bits, which the caller may leave zero where the function implies the context. */
export const MD_FIELD_ID_CONTEXT_MASK = 0x0070_0000_0000_0000n;

export const decodeMetadataFieldId = (id: bigint): MetadataFieldId => ({
  fieldCode: Number(id & 0xff_ffffn),
  elementSizeCode: Number((id >> 32n) & 3n),
  lastElementInField: Number((id >> 34n) & 0xfn),
  lastFieldInSequence: Number((id >> 38n) & 0x1ffn),
  incSize: ((id >> 50n) & 1n) === 1n,
  writeMaskValid: ((id >> 51n) & 1n) === 1n,
  contextCode: Number((id >> 52n) & 7n),
  classCode: Number((id >> 56n) & 0x3fn),
  nonArch: ((id >> 63n) & 1n) === 1n,
});

export const encodeMetadataFieldId = (id: Partial<MetadataFieldId>): bigint =>
  BigInt(id.fieldCode ?? 0) |
  (BigInt(id.elementSizeCode ?? 0) << 32n) |
  (BigInt(id.lastElementInField ?? 0) << 34n) |
  (BigInt(id.lastFieldInSequence ?? 0) << 38n) |
  (id.incSize ? 1n << 50n : 0n) |
  (id.writeMaskValid ? 1n << 51n : 0n) |
  (BigInt(id.contextCode ?? 0) << 52n) |
  (BigInt(id.classCode ?? 0) << 56n) |
  (id.nonArch ? 1n << 63n : 0n);

/** What identifies a field whatever sizes and context the caller filled in: non-arch bit, class and field code. */
export const metadataFieldKey = (id: bigint): number =>
  Number((id >> 56n) & 0xbfn) * 0x100_0000 + Number(id & 0xff_ffffn);

/** Who reads or writes: H host of a production TD, D host of a debug TD, G the guest. */
export type MetadataAccessor = "H" | "D" | "G";

/** A metadata field, or an array of fields at consecutive field codes. */
export interface MetadataFieldDefinition {
  /** Identifier of the (first) field, complete with size and context. */
  readonly id: bigint;
  /** Number of fields at consecutive field codes (times the element count). */
  readonly fields: number;
  /** Number of elements in a field. */
  readonly elements: number;
  /** Size of an element in bytes: 1, 2, 4 or 8. */
  readonly elementSize: 1 | 2 | 4 | 8;
  /** Bits readable and writable; zero where there is no access. */
  readonly hostRead: bigint;
  readonly hostWrite: bigint;
  readonly debugRead: bigint;
  readonly debugWrite: bigint;
  readonly guestRead: bigint;
  readonly guestWrite: bigint;
}
export type MetadataTable = Readonly<Record<string, MetadataFieldDefinition>>;

type Masks = Omit<MetadataFieldDefinition, "id" | "fields" | "elements" | "elementSize">;

/**
 * A row of the tables: the accessors that may read and write, with `masks` where not all bits are accessible.
 * The module's own fields (context SYS) know no debug host: D is as H there.
 */
export function metadataField(
  id: bigint,
  fields: number,
  elements: number,
  read: string,
  write: string,
  masks: Partial<Masks> = {},
): MetadataFieldDefinition {
  const elementSize = (1 << decodeMetadataFieldId(id).elementSizeCode) as 1 | 2 | 4 | 8;
  const all = (1n << BigInt(elementSize * 8)) - 1n;
  const isSys = decodeMetadataFieldId(id).contextCode === METADATA_CONTEXT.SYS;
  const mask = (who: string, accessor: MetadataAccessor) => (who.includes(accessor) ? all : 0n);
  return {
    id,
    fields,
    elements,
    elementSize,
    hostRead: mask(read, "H"),
    hostWrite: mask(write, "H"),
    debugRead: mask(read, isSys ? "H" : "D"),
    debugWrite: mask(write, isSys ? "H" : "D"),
    guestRead: mask(read, "G"),
    guestWrite: mask(write, "G"),
    ...masks,
  };
}

/** Identifier of field `index` of an array of fields. */
export const metadataFieldId = (field: MetadataFieldDefinition, index = 0): bigint =>
  field.id + BigInt(index * field.elements);

/** Class code of TD VMCS fields (context VP). Their field code is the VMCS field's encoding. */
export const TD_VMCS_CLASS = 0;
/** Class codes of the L2 VMCSs of VMs 1, 2 and 3 (context VP). */
export const L2_VMCS_CLASS = [36, 44, 52] as const;

/** By the encoding's width bits 14:13: 16-bit, 64-bit, 32-bit, natural width. */
const VMCS_ELEMENT_SIZE_CODE = [1, 3, 2, 3] as const;

/** Identifier of a TD VMCS field (TDH.VP.RD/WR). @param encoding the SDM's field encoding; high halves have none. */
export const vmcsFieldId = (encoding: number, classCode: number = TD_VMCS_CLASS): bigint =>
  encodeMetadataFieldId({
    fieldCode: encoding,
    elementSizeCode: VMCS_ELEMENT_SIZE_CODE[((encoding >> 13) & 3) as 0 | 1 | 2 | 3],
    incSize: true,
    contextCode: METADATA_CONTEXT.VP,
    classCode,
  });

/** MD_LIST_HEADER: the first 8 bytes of a metadata list (TDH.SYS.RDALL, migration). */
export const encodeMetadataListHeader = (listBuffSize: number, numSequences: number): bigint =>
  BigInt(listBuffSize) | (BigInt(numSequences) << 16n);
