/**
 * Metadata as the guest-side functions use it: the fields of the module (SYS), the TD and the vCPU that a guest may read
 * and write.
 *
 * Source: intel/tdx-module 1.5.05 src/common/metadata_handlers/metadata_generic.c (MD_GUEST_RD, MD_GUEST_WR).
 */
import { type METADATA_CONTEXT } from "@swtdx/abi";
import type { VpContext } from "../entry/vp-context.js";

export type MetadataContextCode = (typeof METADATA_CONTEXT)[keyof typeof METADATA_CONTEXT];

/** `value`: what was read, or the old value of what was written; meaningful when `status` is TDX_SUCCESS. */
export interface MetadataOutcome {
  readonly status: bigint;
  readonly value: bigint;
}

export interface GuestMetadata {
  /** TDX_SUCCESS when the identifier names a single element, else the status. */
  checkSingleElementId(fieldId: bigint): bigint;
  read(context: MetadataContextCode, fieldId: bigint, vp: VpContext): MetadataOutcome;
  write(
    context: MetadataContextCode,
    fieldId: bigint,
    value: bigint,
    mask: bigint,
    vp: VpContext,
  ): MetadataOutcome;
  /** The next readable element's identifier, after -1 the first; MD_FIELD_ID_NA at the end. */
  next(context: MetadataContextCode, fieldId: bigint): bigint;
  /** Fills a metadata list page from `fieldId` on (MD_FIELD_ID_NA: the first). */
  dumpList(
    context: MetadataContextCode,
    fieldId: bigint,
    list: Uint8Array,
    vp: VpContext,
  ): { readonly status: bigint; readonly next: bigint };
}

/** "No field": all ones. */
export const MD_FIELD_ID_NA = 0xffff_ffff_ffff_ffffn;
/** Identifiers without regard to the context code, which the function implies. */
export const withContext = (fieldId: bigint, context: MetadataContextCode): bigint =>
  (fieldId & ~(7n << 52n)) | (BigInt(context) << 52n);
/** The identifier that asks for the first one; the context code does not count. */
export const isNullFieldId = (fieldId: bigint): boolean => (fieldId | (7n << 52n)) === MD_FIELD_ID_NA;
