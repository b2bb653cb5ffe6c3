/**
 * Metadata field identifiers against the tables of fields: finding, checking, enumerating.
 *
 * Source: intel/tdx-module src/common/metadata_handlers/metadata_generic.c.
 */
import {
  decodeMetadataFieldId,
  METADATA_CONTEXT,
  type MetadataFieldDefinition,
  type MetadataTable,
  SYS_METADATA,
  TD_METADATA,
  TDX_STATUS,
  VP_METADATA,
} from "@swtdx/abi";
import { TD_VMCS_METADATA } from "../tables/td-vmcs-access.js";
import { CPUID_LOOKUP, CPUID_SUBLEAF_NA, getCpuidLookupEntry } from "../tables/cpuid.js";
import { isNullFieldId, MD_FIELD_ID_NA, type MetadataContextCode } from "../guest/metadata-access.js";

/** Who reads or writes. */
export type ReadAccess = "hostRead" | "debugRead" | "guestRead";
export type WriteAccess = "hostWrite" | "debugWrite" | "guestWrite";

/** An element that an identifier names. */
export interface FoundElement {
  readonly name: string;
  readonly field: MetadataFieldDefinition;
  /** Number of the element, counted over all fields of the array. */
  readonly index: number;
}

interface Row {
  readonly name: string;
  readonly field: MetadataFieldDefinition;
  readonly first: number;
  readonly count: number;
}
/** A field's class and code: what it is found by. */
const keyOf = (id: bigint): number => Number((id >> 56n) & 0x3fn) * 0x100_0000 + Number(id & 0xff_ffffn);
/** In the order in which fields are enumerated: the tables'. */
const rowsOf = (table: MetadataTable): readonly Row[] =>
  Object.entries(table).map(([name, field]) => ({
    name,
    field,
    first: keyOf(field.id),
    count: field.fields * field.elements,
  }));
const ROWS: Readonly<Record<number, readonly Row[]>> = {
  [METADATA_CONTEXT.SYS]: rowsOf(SYS_METADATA),
  [METADATA_CONTEXT.TD]: rowsOf(TD_METADATA),
  [METADATA_CONTEXT.VP]: rowsOf({ ...TD_VMCS_METADATA, ...VP_METADATA }),
};

// TDCS.CPUID_VALUES is an array by CPUID leaf and sub-leaf, which its field codes say.
const CPUID_CODE = { SUBLEAF: 1, SUBLEAF_NA: 1 << 8, LEAF: 9, LEAF_31: 1 << 16 } as const;
const CPUID_ELEMENTS = 2;
/** Element index from a field code; -1 for a leaf that the module has no row for. */
function cpuidIndex(code: number): number {
  const leaf = ((code >> CPUID_CODE.LEAF) & 0x7f) + (code & CPUID_CODE.LEAF_31 ? 0x8000_0000 : 0);
  const subleaf = code & CPUID_CODE.SUBLEAF_NA ? CPUID_SUBLEAF_NA : (code >> CPUID_CODE.SUBLEAF) & 0x7f;
  const row = getCpuidLookupEntry(leaf, subleaf);
  return row < 0 ? -1 : row * CPUID_ELEMENTS + (code & 1);
}
function cpuidCode(index: number): number {
  const { leaf, subleaf } = CPUID_LOOKUP[Math.floor(index / CPUID_ELEMENTS)]!;
  const sub = subleaf === CPUID_SUBLEAF_NA ? CPUID_CODE.SUBLEAF_NA : subleaf << CPUID_CODE.SUBLEAF;
  return (
    ((leaf & 0x7f) << CPUID_CODE.LEAF) | (leaf >= 0x8000_0000 ? CPUID_CODE.LEAF_31 : 0) | sub | (index & 1)
  );
}
/** The first element from `index` on whose leaf the module has a row for; -1 after the last. */
function cpuidElement(index: number): number {
  for (let i = index; i < CPUID_LOOKUP.length * CPUID_ELEMENTS; i++)
    if (CPUID_LOOKUP[Math.floor(i / CPUID_ELEMENTS)]) return i;
  return -1;
}
const isCpuid = (row: Row): boolean => row.field === TD_METADATA.CPUID_VALUES;

/** Row and element of an identifier. Sizes and counts in it do not matter. */
function locate(context: MetadataContextCode, id: bigint): { at: number; index: number } | null {
  const rows = ROWS[context];
  const key = keyOf(id);
  if (context === METADATA_CONTEXT.TD && key >> 24 === keyOf(TD_METADATA.CPUID_VALUES.id) >> 24) {
    const index = cpuidIndex(key & 0xff_ffff);
    return index < 0 ? null : { at: rows.findIndex(isCpuid), index };
  }
  const at = rows.findIndex(({ first, count }) => key >= first && key < first + count);
  return at < 0 ? null : { at, index: key - rows[at].first };
}

/** The element of this identifier, or null. */
export function findElement(context: MetadataContextCode, id: bigint): FoundElement | null {
  const found = locate(context, id);
  if (found === null) return null;
  const { name, field } = ROWS[context][found.at];
  return { name, field, index: found.index };
}

/** An identifier that names one element: no sequence. */
export function checkSingleElementId(id: bigint): bigint {
  const { lastElementInField, lastFieldInSequence, writeMaskValid } = decodeMetadataFieldId(id);
  return lastElementInField !== 0 || lastFieldInSequence !== 0 || writeMaskValid
    ? TDX_STATUS.TDX_METADATA_FIELD_ID_INCORRECT
    : TDX_STATUS.TDX_SUCCESS;
}

const elementId = (row: Row, index: number): bigint =>
  row.field.id + BigInt(isCpuid(row) ? cpuidCode(index) : index);

/** The next element's identifier that `access` may read; from "no field" the first. */
export function nextFieldId(context: MetadataContextCode, id: bigint, access: ReadAccess): bigint {
  const rows = ROWS[context];
  const last = isNullFieldId(id) ? { at: -1, index: 0 } : locate(context, id);
  if (last === null) return MD_FIELD_ID_NA;
  for (let at = Math.max(last.at, 0); at < rows.length; at++) {
    const row = rows[at];
    if (row.field[access] === 0n) continue;
    const from = at === last.at ? last.index + 1 : 0;
    const index = isCpuid(row) ? cpuidElement(from) : from < row.count ? from : -1;
    if (index >= 0) return elementId(row, index);
  }
  return MD_FIELD_ID_NA;
}

/** What a read comes to before the value is looked at. */
export function checkRead(found: FoundElement | null, access: ReadAccess): bigint {
  if (found === null) return TDX_STATUS.TDX_METADATA_FIELD_ID_INCORRECT;
  return found.field[access] === 0n ? TDX_STATUS.TDX_METADATA_FIELD_NOT_READABLE : TDX_STATUS.TDX_SUCCESS;
}

/** What reads go with these writes: of the old value only what may be read is returned. */
const READ_OF: Readonly<Record<WriteAccess, ReadAccess>> = {
  hostWrite: "hostRead",
  debugWrite: "debugRead",
  guestWrite: "guestRead",
};
export const readableBits = (field: MetadataFieldDefinition, access: WriteAccess): bigint =>
  field[READ_OF[access]];

/**
 * The value after a write with a mask: bits that are asked for and may not be written must stay as they are.
 * @returns the value, or the status
 */
export function mergeWrite(
  old: bigint,
  value: bigint,
  mask: bigint,
  writable: bigint,
): { readonly status: bigint; readonly value: bigint } {
  if ((mask & writable) === 0n) return { status: TDX_STATUS.TDX_METADATA_FIELD_NOT_WRITABLE, value: 0n };
  if (((old ^ value) & mask & ~writable) !== 0n)
    return { status: TDX_STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID, value: 0n };
  const bits = mask & writable;
  return { status: TDX_STATUS.TDX_SUCCESS, value: (old & ~bits) | (value & bits) };
}
