/**
 * A vCPU's metadata fields, in TDVPS, and the fields of its TD VMCS (which is current when these are called).
 * Source: intel/tdx-module metadata_vp.c; TD VMCS write access of the host: include/auto_gen/td_vmcs_fields_lookup.c.
 */
import { decodeMetadataFieldId, GPR_NAMES, METADATA_CONTEXT, TD_VMCS_CLASS, TDX_STATUS } from "@swtdx/abi";
import type { SeamContext } from "@swtdx/cpu";
import type { MetadataOutcome } from "../guest/metadata-access.js";
import type { TdxModule } from "../module.js";
import { TDVPS, type TdvpsStructure } from "../structures/tdvps.js";
import { VMCS } from "../tables/vmcs-fields.js";
import { checkAccess, findElement, type FoundElement, type ReadAccess, type WriteAccess } from "./fields.js";

const failed = (status: bigint): MetadataOutcome => ({ status, value: 0n });
const { TDX_SUCCESS, TDX_METADATA_FIELD_VALUE_NOT_VALID } = TDX_STATUS;

/** Metadata names that are TDVPS names with another spelling. */
const ALIASES: Readonly<Record<string, keyof typeof TDVPS>> = {
  EXIT_REASON: "VE_INFO_EXIT_REASON",
  VALID: "VE_INFO_VALID",
  EXIT_QUALIFICATION: "VE_INFO_EXIT_QUALIFICATION",
  GLA: "VE_INFO_GLA",
  GPA: "VE_INFO_GPA",
  EPTP_INDEX: "VE_INFO_EPTP_INDEX",
  INSTRUCTION_LENGTH: "VE_INFO_INSTRUCTION_LENGTH",
  INSTRUCTION_INFORMATION: "VE_INFO_INSTRUCTION_INFORMATION",
  IA32_PERFEVTSELx: "IA32_PERFEVTSEL",
  MSR_OFFCORE_RSPx: "IA32_OFFCORE_RSP",
  IA32_FIXED_CTRx: "IA32_FIXED_CTR",
  IA32_A_PMCx: "IA32_A_PMC",
};

/** Offset of an element in TDVPS, or -1 for a field that is not kept (it reads as 0). */
function offsetOf({ name, field, index }: FoundElement): number {
  const gpr = (GPR_NAMES as readonly string[]).indexOf(name.toLowerCase());
  if (gpr >= 0) return TDVPS.GPR.offset + gpr * 8;
  const key = ALIASES[name] ?? name;
  if (!(key in TDVPS)) return -1;
  return TDVPS[key].offset + index * field.elementSize;
}

const SIZE_FIELDS = (offset: number, size: number) => ({ offset, size }) as never;

const load = (tdvps: TdvpsStructure, found: FoundElement): bigint => {
  const offset = offsetOf(found);
  if (offset < 0) return 0n;
  return BigInt(tdvps.get(SIZE_FIELDS(offset, found.field.elementSize)));
};

const PLE_GAP = 0x4020;
const PLE_WINDOW = 0x4022;
/** TD VMCS fields that the host of any TD may write. */
const HOST_WRITABLE: ReadonlySet<number> = new Set([
  VMCS.POSTED_INTR_DESC_ADDR,
  VMCS.POSTED_INTR_NV,
  VMCS.SHARED_EPTP,
  PLE_GAP,
  PLE_WINDOW,
]);

const vmcsEncoding = (id: bigint): number | null => {
  const { classCode, fieldCode } = decodeMetadataFieldId(id);
  return classCode === TD_VMCS_CLASS ? fieldCode : null;
};

function readVmcs(lp: SeamContext, encoding: number, access: ReadAccess): MetadataOutcome {
  if (access !== "debugRead" && !HOST_WRITABLE.has(encoding))
    return failed(TDX_STATUS.TDX_METADATA_FIELD_NOT_READABLE);
  return { status: TDX_SUCCESS, value: lp.vmread(encoding) };
}

/** An address that the host gives the processor: shared memory only. */
function writeVmcs(
  lp: SeamContext,
  encoding: number,
  value: bigint,
  mask: bigint,
  access: WriteAccess,
  module: TdxModule,
): MetadataOutcome {
  if (!HOST_WRITABLE.has(encoding)) {
    if (access !== "debugWrite") return failed(TDX_STATUS.TDX_METADATA_FIELD_NOT_WRITABLE);
  } else if (encoding === VMCS.POSTED_INTR_DESC_ADDR) {
    if (value >> 52n !== 0n || (value & 63n) !== 0n || !module.isSharedHpa(Number(value), 64))
      return failed(TDX_METADATA_FIELD_VALUE_NOT_VALID);
  } else if (encoding === VMCS.SHARED_EPTP) {
    if (value >> 52n !== 0n || (value & 0xfffn) !== 0n || !module.isSharedHpa(Number(value), 4096))
      return failed(TDX_METADATA_FIELD_VALUE_NOT_VALID);
  } else if (encoding === VMCS.POSTED_INTR_NV && value > 255n) {
    return failed(TDX_METADATA_FIELD_VALUE_NOT_VALID);
  }
  const old = lp.vmread(encoding);
  lp.vmwrite(encoding, (old & ~mask) | (value & mask));
  if (encoding === VMCS.POSTED_INTR_NV || encoding === VMCS.POSTED_INTR_DESC_ADDR) enablePostedInterrupts(lp);
  return { status: TDX_SUCCESS, value: old };
}

/** Posted interrupts are processed once the host has given both descriptor and notification vector. */
function enablePostedInterrupts(lp: SeamContext): void {
  const PROCESS_POSTED_INTERRUPTS = 1n << 7n;
  const vector = lp.vmread(VMCS.POSTED_INTR_NV);
  const descriptor = lp.vmread(VMCS.POSTED_INTR_DESC_ADDR);
  const on = vector <= 255n && descriptor !== 0xffff_ffff_ffff_ffffn;
  const controls = lp.vmread(VMCS.PIN_BASED_VM_EXEC_CONTROL);
  lp.vmwrite(
    VMCS.PIN_BASED_VM_EXEC_CONTROL,
    on ? controls | PROCESS_POSTED_INTERRUPTS : controls & ~PROCESS_POSTED_INTERRUPTS,
  );
}

export function readVpField(
  lp: SeamContext,
  tdvps: TdvpsStructure,
  id: bigint,
  access: ReadAccess,
): MetadataOutcome {
  const encoding = vmcsEncoding(id);
  if (encoding !== null) return readVmcs(lp, encoding, access);
  const found = findElement(METADATA_CONTEXT.VP, id);
  const status = checkAccess(found, access);
  if (status !== TDX_SUCCESS || found === null) return failed(status);
  return { status, value: load(tdvps, found) & found.field[access] };
}

export function writeVpField(
  lp: SeamContext,
  tdvps: TdvpsStructure,
  id: bigint,
  value: bigint,
  mask: bigint,
  access: WriteAccess,
  module: TdxModule,
): MetadataOutcome {
  const encoding = vmcsEncoding(id);
  if (encoding !== null) return writeVmcs(lp, encoding, value, mask, access, module);
  const found = findElement(METADATA_CONTEXT.VP, id);
  const status = checkAccess(found, access);
  if (status !== TDX_SUCCESS || found === null) return failed(status);
  const bits = mask & found.field[access];
  if (bits === 0n) return failed(TDX_STATUS.TDX_METADATA_WR_MASK_NOT_VALID);
  if (found.name === "PEND_NMI" && value > 1n) return failed(TDX_METADATA_FIELD_VALUE_NOT_VALID);
  const old = load(tdvps, found);
  const next = (old & ~bits) | (value & bits);
  const offset = offsetOf(found);
  if (offset >= 0)
    tdvps.set(
      SIZE_FIELDS(offset, found.field.elementSize),
      (found.field.elementSize === 8 ? next : Number(next)) as never,
    );
  return { status: TDX_SUCCESS, value: old };
}
