/**
 * Metadata lists: all fields of a context, as sequences behind a header.
 * Source: intel/tdx-module src/common/metadata_handlers/metadata_generic.c (md_dump_list, md_dump_sequence).
 */
import {
  decodeMetadataFieldId,
  encodeMetadataListHeader,
  type MetadataFieldDefinition,
  metadataFieldId,
  SYS_METADATA,
  TDX_STATUS,
  viewOf,
} from "@swtdx/abi";
import { isNullFieldId, MD_FIELD_ID_NA } from "../guest/metadata-access.js";
import { findElement, type ReadAccess } from "./fields.js";

const HEADER = 8;
const SEQUENCE_HEADER = 8;
const ELEMENT = 8;
const LAST_ELEMENT_SHIFT = 34n;
const LAST_FIELD_SHIFT = 38n;

/** The fields of the context SYS in the order of the module's table, arrays taken apart. */
interface Item {
  readonly field: MetadataFieldDefinition;
  /** Number within its array. */
  readonly index: number;
  readonly id: bigint;
}
const SYS_ITEMS: readonly Item[] = Object.values(SYS_METADATA).flatMap((field) =>
  Array.from({ length: field.fields }, (_, index) => ({ field, index, id: metadataFieldId(field, index) })),
);

/** Whether `next` continues the sequence that ends with `last`. */
function continues(last: Item, next: Item): boolean {
  const [a, b] = [decodeMetadataFieldId(last.id), decodeMetadataFieldId(next.id)];
  const stride = a.incSize ? 2 : 1;
  return (
    a.classCode === b.classCode &&
    a.fieldCode + last.field.elements * stride === b.fieldCode &&
    last.field.elements === next.field.elements &&
    a.elementSizeCode === b.elementSizeCode
  );
}

/**
 * Writes as many whole fields as fit, from the field `start` ("no field": from the first).
 * @param read value of an element
 * @returns the status and the field to go on with: TDX_METADATA_LIST_OVERFLOW as long as there is one
 */
export function dumpSysList(
  start: bigint,
  list: Uint8Array,
  access: ReadAccess,
  read: (id: bigint) => bigint,
): { readonly status: bigint; readonly next: bigint } {
  const items = SYS_ITEMS.filter(({ field }) => field[access] !== 0n);
  let at = 0;
  if (!isNullFieldId(start)) {
    const found = findElement(0, start);
    if (found === null) return { status: TDX_STATUS.TDX_METADATA_FIELD_ID_INCORRECT, next: MD_FIELD_ID_NA };
    const index = Math.floor(found.index / found.field.elements);
    at = items.findIndex((item) => item.field === found.field && item.index === index);
    if (at < 0) return { status: TDX_STATUS.TDX_METADATA_FIELD_NOT_READABLE, next: MD_FIELD_ID_NA };
  }
  const view = viewOf(list);
  let used = HEADER;
  let sequences = 0;
  for (; at < items.length; sequences++) {
    const first = items[at];
    const size = first.field.elements * ELEMENT;
    if (used + SEQUENCE_HEADER + size > list.length) break;
    const header = used;
    used += SEQUENCE_HEADER;
    let fields = 0;
    do {
      for (let i = 0; i < first.field.elements; i++, used += ELEMENT)
        view.setBigUint64(used, read(items[at].id + BigInt(i)), true);
      fields++;
      at++;
    } while (at < items.length && continues(items[at - 1], items[at]) && used + size <= list.length);
    const counts =
      (BigInt(first.field.elements - 1) << LAST_ELEMENT_SHIFT) | (BigInt(fields - 1) << LAST_FIELD_SHIFT);
    view.setBigUint64(header, first.id | counts, true);
  }
  view.setBigUint64(0, encodeMetadataListHeader(used, sequences), true);
  return at < items.length
    ? { status: TDX_STATUS.TDX_METADATA_LIST_OVERFLOW, next: items[at].id }
    : { status: TDX_STATUS.TDX_SUCCESS, next: MD_FIELD_ID_NA };
}
