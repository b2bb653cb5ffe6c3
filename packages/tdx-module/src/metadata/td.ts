/** A TD's metadata fields, in TDR and TDCS. Source: intel/tdx-module metadata_td.c. */
import { CONFIG_FLAGS, type Hpa, METADATA_CONTEXT, TD_CTLS, type TD_METADATA, TDX_STATUS } from "@swtdx/abi";
import type { MetadataOutcome } from "../guest/metadata-access.js";
import { TDCS, type TdcsStructure } from "../structures/tdcs.js";
import { TDR } from "../structures/tdr.js";
import { TD_CTLS_WRITABLE } from "../tables/attributes.js";
import { VIRTUAL_MSRS_OFFSET } from "../tables/virtual-msrs.js";
import {
  checkRead,
  findElement,
  type FoundElement,
  mergeWrite,
  readableBits,
  type ReadAccess,
  type WriteAccess,
} from "./fields.js";

type TdFieldName = keyof typeof TD_METADATA;

/** Fields whose place has another name, and the arrays whose fields are not next to one another. */
const RTMR_STRIDE = TDCS.RTMR1.offset - TDCS.RTMR0.offset;
const RTMR_ELEMENTS = 6;

/** HPA and KeyID of an element, or null for a field that this module keeps no storage for (it reads as 0). */
function locate(
  tdcs: TdcsStructure,
  { name, field, index }: FoundElement,
): { pa: Hpa; keyId: TdcsStructure["keyId"] } | null {
  const inTdcs = (offset: number) => ({ pa: tdcs.pa(offset), keyId: tdcs.keyId });
  const step = index * field.elementSize;
  if (name in TDR) {
    const { offset } = TDR[name as keyof typeof TDR];
    return { pa: tdcs.tdr.pa(offset + step), keyId: tdcs.tdr.keyId };
  }
  if (name === "RTMR")
    return inTdcs(
      TDCS.RTMR0.offset + Math.floor(index / RTMR_ELEMENTS) * RTMR_STRIDE + (index % RTMR_ELEMENTS) * 8,
    );
  if (name === "VIRTUAL_IA32_ARCH_CAPABILITIES") return inTdcs(TDCS.VIRT_IA32_ARCH_CAPABILITIES.offset);
  if (name.startsWith("VIRTUAL_IA32_VMX_")) return inTdcs(VIRTUAL_MSRS_OFFSET + VMX_ORDER.indexOf(name) * 8);
  if (name in TDCS) return inTdcs(TDCS[name as keyof typeof TDCS].offset + step);
  return null;
}
const VMX_ORDER: readonly string[] = [
  "BASIC",
  "MISC",
  "CR0_FIXED0",
  "CR0_FIXED1",
  "CR4_FIXED0",
  "CR4_FIXED1",
  "PROCBASED_CTLS2",
  "EPT_VPID_CAP",
  "TRUE_PINBASED_CTLS",
  "TRUE_PROCBASED_CTLS",
  "TRUE_EXIT_CTLS",
  "TRUE_ENTRY_CTLS",
  "VMFUNC",
  "PROCBASED_CTLS3",
  "EXIT_CTLS2",
].map((name) => `VIRTUAL_IA32_VMX_${name}`);

function load(tdcs: TdcsStructure, found: FoundElement): bigint {
  // The TD's topology is there when TDH.VP.INIT could give x2APIC IDs: always, with this module.
  if (found.name === "TOPOLOGY_ENUM_CONFIGURED") return 1n;
  const at = locate(tdcs, found);
  if (at === null) return 0n;
  const { lp } = tdcs;
  switch (found.field.elementSize) {
    case 1:
      return BigInt(lp.readU8(at.pa, at.keyId));
    case 2:
      return BigInt(lp.readU16(at.pa, at.keyId));
    case 4:
      return BigInt(lp.readU32(at.pa, at.keyId));
    default:
      return lp.readU64(at.pa, at.keyId);
  }
}

export function readTdField(tdcs: TdcsStructure, id: bigint, access: ReadAccess): MetadataOutcome {
  const found = findElement(METADATA_CONTEXT.TD, id);
  const status = checkRead(found, access);
  if (status !== TDX_STATUS.TDX_SUCCESS || found === null) return { status, value: 0n };
  return { status, value: load(tdcs, found) & found.field[access] };
}

/** Bits that may be written now, by field. */
const WRITABLE: Partial<Record<TdFieldName, bigint>> = { TD_CTLS: TD_CTLS_WRITABLE };
const HP_LOCK_TIMEOUT_MAX_USEC = 100_000_000n;
const HP_LOCK_TIMEOUT_MIN_USEC = 10_000n;

/**
 * What is written in place of a value.
 * @returns null: the value is not allowed
 */
function convert(
  tdcs: TdcsStructure,
  name: TdFieldName,
  old: bigint,
  value: bigint,
  tscHz: number,
): bigint | null {
  switch (name) {
    case "TD_CTLS": {
      // Only a TD whose CONFIG_FLAGS allow it changes what happens at pending pages.
      const flexible = (tdcs.get(TDCS.CONFIG_FLAGS) & CONFIG_FLAGS.FLEXIBLE_PENDING_VE) !== 0n;
      return ((old ^ value) & TD_CTLS.PENDING_VE_DISABLE) !== 0n && !flexible ? null : value;
    }
    case "HP_LOCK_TIMEOUT":
      // Given in microseconds, kept in TSC ticks.
      if (value < HP_LOCK_TIMEOUT_MIN_USEC || value > HP_LOCK_TIMEOUT_MAX_USEC) return null;
      return (value * BigInt(tscHz)) / 1_000_000n;
    default:
      return value;
  }
}

/** @param tscHz frequency of the processor's TSC */
export function writeTdField(
  tdcs: TdcsStructure,
  id: bigint,
  value: bigint,
  mask: bigint,
  access: WriteAccess,
  tscHz: number,
): MetadataOutcome {
  const failed = (status: bigint): MetadataOutcome => ({ status, value: 0n });
  const found = findElement(METADATA_CONTEXT.TD, id);
  if (found === null) return failed(TDX_STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
  const name = found.name as TdFieldName;
  const old = load(tdcs, found);
  const writable = found.field[access] === 0n ? 0n : (WRITABLE[name] ?? found.field[access]);
  const merged = mergeWrite(old, value, mask, writable);
  if (merged.status !== TDX_STATUS.TDX_SUCCESS) return merged;
  if (name === "HP_LOCK_TIMEOUT" && (mask & writable) !== writable)
    return failed(TDX_STATUS.TDX_METADATA_WR_MASK_NOT_VALID);
  const next = convert(tdcs, name, old, merged.value, tscHz);
  if (next === null) return failed(TDX_STATUS.TDX_METADATA_FIELD_VALUE_NOT_VALID);
  const at = locate(tdcs, found);
  if (at !== null) store(tdcs, found, at.pa, at.keyId, next);
  return { status: TDX_STATUS.TDX_SUCCESS, value: old & readableBits(found.field, access) };
}

function store(
  tdcs: TdcsStructure,
  found: FoundElement,
  pa: Hpa,
  keyId: TdcsStructure["keyId"],
  value: bigint,
): void {
  const { lp } = tdcs;
  switch (found.field.elementSize) {
    case 1:
      lp.writeU8(pa, keyId, Number(value));
      break;
    case 2:
      lp.writeU16(pa, keyId, Number(value));
      break;
    case 4:
      lp.writeU32(pa, keyId, Number(value));
      break;
    default:
      lp.writeU64(pa, keyId, value);
  }
}
