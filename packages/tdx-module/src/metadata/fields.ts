/**
 * Metadata field identifiers against the tables of fields: finding, checking, enumerating.
 *
 * Source: intel/tdx-module src/common/metadata_handlers/metadata_generic.c.
 */
import {
  decodeMetadataFieldId,
  METADATA_CONTEXT,
  type MetadataFieldDefinition,
  metadataFieldId,
  metadataFieldKey,
  type MetadataTable,
  SYS_METADATA,
  TD_METADATA,
  TDX_STATUS,
  VP_METADATA,
} from "@swtdx/abi";
import { TD_VMCS_METADATA } from "../tables/td-vmcs-access.js";
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
const rowsOf = (table: MetadataTable): readonly Row[] =>
  Object.entries(table)
    .map(([name, field]) => ({
      name,
      field,
      first: metadataFieldKey(field.id),
      count: field.fields * field.elements,
    }))
    .sort((a, b) => a.first - b.first);
const ROWS: Readonly<Record<number, readonly Row[]>> = {
  [METADATA_CONTEXT.SYS]: rowsOf(SYS_METADATA),
  [METADATA_CONTEXT.TD]: rowsOf(TD_METADATA),
  [METADATA_CONTEXT.VP]: rowsOf({ ...TD_VMCS_METADATA, ...VP_METADATA }),
};

/** The element of this identifier, or null. Sizes and counts in the identifier do not matter. */
export function findElement(context: MetadataContextCode, id: bigint): FoundElement | null {
  const key = metadataFieldKey(id);
  const row = ROWS[context].find(({ first, count }) => key >= first && key < first + count);
  return row ? { name: row.name, field: row.field, index: key - row.first } : null;
}

/** An identifier that names one element: no sequence. */
export function checkSingleElementId(id: bigint): bigint {
  const { lastElementInField, lastFieldInSequence, writeMaskValid } = decodeMetadataFieldId(id);
  return lastElementInField !== 0 || lastFieldInSequence !== 0 || writeMaskValid
    ? TDX_STATUS.TDX_METADATA_FIELD_ID_INCORRECT
    : TDX_STATUS.TDX_SUCCESS;
}

const elementId = (row: Row, index: number): bigint =>
  row.field.elements === 1 ? metadataFieldId(row.field, index) : row.field.id + BigInt(index);

/** The next element's identifier that `access` may read; from "no field" the first. */
export function nextFieldId(context: MetadataContextCode, id: bigint, access: ReadAccess): bigint {
  const key = isNullFieldId(id) ? -1 : metadataFieldKey(id);
  for (const row of ROWS[context]) {
    if (row.first + row.count - 1 <= key || row.field[access] === 0n) continue;
    return elementId(row, Math.max(0, key + 1 - row.first));
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
