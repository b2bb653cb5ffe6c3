/**
 * A vCPU's metadata fields, in TDVPS, and the fields of its TD VMCS (which is current when these are called).
 * Source: intel/tdx-module metadata_vp.c; TD VMCS write access of the host: include/auto_gen/td_vmcs_fields_lookup.c.
 */
import {
  decodeMetadataFieldId,
  GPR_NAMES,
  type Hpa,
  METADATA_CONTEXT,
  TD_VMCS_CLASS,
  TDX_STATUS,
  withOperand,
} from "@swtdx/abi";
import { type SeamContext, VMCS } from "@swtdx/cpu";
import type { MetadataOutcome } from "../guest/metadata-access.js";
import type { TdxModule } from "../module.js";
import { TDVPS, TdvpsPage, type TdvpsStructure } from "../structures/tdvps.js";
import {
  checkRead,
  findElement,
  type FoundElement,
  mergeWrite,
  readableBits,
  type ReadAccess,
  type WriteAccess,
} from "./fields.js";

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

/** Pending virtual interrupt above the processor priority: VCPU_STATE_DETAILS.VMXIP. */
function vcpuStateDetails(lp: SeamContext, tdvps: TdvpsStructure): bigint {
  const rvi = Number(lp.vmread(VMCS.GUEST_INTR_STATUS) & 0xf0n);
  const ppr = lp.readU8((tdvps.page(TdvpsPage.VAPIC) + VAPIC_PPR) as Hpa, tdvps.keyId) & 0xf0;
  return rvi > ppr ? 1n : 0n;
}
const VAPIC_PPR = 0xa0;

const isVmcs = (found: FoundElement): boolean =>
  decodeMetadataFieldId(found.field.id).classCode === TD_VMCS_CLASS;
const encodingOf = (found: FoundElement): number => decodeMetadataFieldId(found.field.id).fieldCode;

function load(lp: SeamContext, tdvps: TdvpsStructure, found: FoundElement): bigint {
  if (isVmcs(found)) return lp.vmread(encodingOf(found));
  if (found.name === "VCPU_STATE_DETAILS") return vcpuStateDetails(lp, tdvps);
  const offset = offsetOf(found);
  if (offset < 0) return 0n;
  return BigInt(tdvps.get(SIZE_FIELDS(offset, found.field.elementSize)));
}

const NULL_PA = 0xffff_ffff_ffff_ffffn;
const PROCESS_POSTED_INTERRUPTS = 1n << 7n;
const NOTIFICATION_VECTOR_INIT = 0xffffn;
/** Addresses of shared memory that the processor uses, and how many bytes there. */
const SHARED_HPA_SIZES = new Map<number, number>([
  [VMCS.POSTED_INTR_DESC_ADDR, 64],
  [VMCS.SHARED_EPT_POINTER, 4096],
  [VMCS.PML_ADDRESS, 4096],
]);

/** CR0 and CR4 as a debugger may set them: bits that the module owns stay. */
function mergeControlRegister(lp: SeamContext, encoding: number, value: bigint): bigint | null {
  const [mask, shadow] =
    encoding === VMCS.GUEST_CR0
      ? [VMCS.CR0_GUEST_HOST_MASK, VMCS.CR0_READ_SHADOW]
      : [VMCS.CR4_GUEST_HOST_MASK, VMCS.CR4_READ_SHADOW];
  const owned = lp.vmread(mask);
  if (((value ^ lp.vmread(shadow)) & owned) !== 0n) return null;
  return (lp.vmread(encoding) & owned) | (value & ~owned);
}

/** Writes a field of the TD VMCS. @returns TDX_SUCCESS, or the status for a value that is not allowed */
function storeVmcs(
  lp: SeamContext,
  tdvps: TdvpsStructure,
  encoding: number,
  value: bigint,
  module: TdxModule,
): bigint {
  const size = SHARED_HPA_SIZES.get(encoding);
  if (size !== undefined && (value >> 52n !== 0n || !module.isSharedHpa(Number(value), size)))
    return TDX_METADATA_FIELD_VALUE_NOT_VALID;
  const notInitialized = (field: number): bigint =>
    withOperand(TDX_STATUS.TDX_TD_VMCS_FIELD_NOT_INITIALIZED, field);
  let written = value;
  switch (encoding) {
    case VMCS.PIN_BASED_VM_EXEC_CONTROL:
      // Posted interrupts need a vector and a descriptor.
      if ((value & PROCESS_POSTED_INTERRUPTS) !== 0n) {
        if (lp.vmread(VMCS.POSTED_INTR_NV) === NOTIFICATION_VECTOR_INIT)
          return notInitialized(VMCS.POSTED_INTR_NV);
        if (lp.vmread(VMCS.POSTED_INTR_DESC_ADDR) === NULL_PA)
          return notInitialized(VMCS.POSTED_INTR_DESC_ADDR);
      }
      tdvps.set(TDVPS.SHADOW_PINBASED_EXEC_CTLS, Number(value));
      break;
    case VMCS.POSTED_INTR_DESC_ADDR:
      tdvps.set(TDVPS.SHADOW_PID_HPA, value);
      break;
    case VMCS.POSTED_INTR_NV:
      if (value > 255n) return TDX_METADATA_FIELD_VALUE_NOT_VALID;
      tdvps.set(TDVPS.SHADOW_POSTED_INT_NOTIFICATION_VECTOR, Number(value));
      break;
    case VMCS.SHARED_EPT_POINTER:
      tdvps.setAt(TDVPS.SHADOW_SHARED_EPTP, 0, value);
      break;
    case VMCS.GUEST_CR0:
    case VMCS.GUEST_CR4: {
      const merged = mergeControlRegister(lp, encoding, value);
      if (merged === null) return TDX_METADATA_FIELD_VALUE_NOT_VALID;
      written = merged;
      break;
    }
    default:
  }
  lp.vmwrite(encoding, written);
  return TDX_SUCCESS;
}

export function readVpField(
  lp: SeamContext,
  tdvps: TdvpsStructure,
  id: bigint,
  access: ReadAccess,
): MetadataOutcome {
  const found = findElement(METADATA_CONTEXT.VP, id);
  const status = checkRead(found, access);
  if (status !== TDX_SUCCESS || found === null) return failed(status);
  return { status, value: load(lp, tdvps, found) & found.field[access] };
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
  const found = findElement(METADATA_CONTEXT.VP, id);
  if (found === null) return failed(TDX_STATUS.TDX_METADATA_FIELD_ID_INCORRECT);
  const writable = found.field[access];
  const old = load(lp, tdvps, found);
  // An address that was never set counts as zero where it is not written.
  const before = isVmcs(found) && old === NULL_PA ? old & writable : old;
  const merged = mergeWrite(before, value, mask, writable);
  if (merged.status !== TDX_SUCCESS) return merged;
  if (isVmcs(found)) {
    const status = storeVmcs(lp, tdvps, encodingOf(found), merged.value, module);
    if (status !== TDX_SUCCESS) return failed(status);
  } else {
    const offset = offsetOf(found);
    if (offset >= 0)
      tdvps.set(
        SIZE_FIELDS(offset, found.field.elementSize),
        (found.field.elementSize === 8 ? merged.value : Number(merged.value)) as never,
      );
  }
  return { status: TDX_SUCCESS, value: old & readableBits(found.field, access) };
}
