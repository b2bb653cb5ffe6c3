/** Numbers and layouts of TDX interfaces: a completion status in words, TD_PARAMS as bytes, metadata field identifiers. */
import {
  decodeMetadataFieldId,
  encodeLeaf,
  formatStatus,
  SEAMCALL_LEAF,
  TD_ATTRIBUTES,
  TD_METADATA,
  TD_PARAMS,
  TDX_STATUS,
  vmcsFieldId,
  withOperand,
} from "@swtdx/abi";

const hex = (value: bigint): string => `0x${value.toString(16).padStart(16, "0")}`;

console.log("RAX of TDH.MEM.SEPT.ADD, version 1:", hex(encodeLeaf(SEAMCALL_LEAF["TDH.MEM.SEPT.ADD"], 1)));
for (const status of [withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX"), 0x0000_0b0a_0000_0001n, 0n])
  console.log(hex(status), formatStatus(status));

const zeros = (length: number): Uint8Array => new Uint8Array(length);
const params = TD_PARAMS.encode({
  ATTRIBUTES: TD_ATTRIBUTES.SEPT_VE_DISABLE,
  XFAM: 7n,
  MAX_VCPUS: 2,
  NUM_L2_VMS: 0,
  MSR_CONFIG_CTLS: 0,
  RESERVED_0: zeros(4),
  EPTP_CONTROLS: 6n | (3n << 3n),
  CONFIG_FLAGS: 0n,
  TSC_FREQUENCY: 100,
  RESERVED_1: zeros(38),
  MRCONFIGID: zeros(48),
  MROWNER: zeros(48),
  MROWNERCONFIG: zeros(48),
  IA32_ARCH_CAPABILITIES_CONFIG: 0n,
  RESERVED_2: zeros(24),
  CPUID_CONFIG: [],
});
console.log(
  `TD_PARAMS: ${params.length} bytes, ATTRIBUTES ${Buffer.from(params.subarray(0, 8)).toString("hex")}`,
);

const { fieldCode, classCode } = decodeMetadataFieldId(TD_METADATA.MRTD.id);
console.log("MRTD:", hex(TD_METADATA.MRTD.id), `class ${classCode}, code ${fieldCode}`);
console.log("shared EPT pointer of the TD VMCS:", hex(vmcsFieldId(0x203c)));
