/**
 * Fields of the TD VMCS as metadata of a vCPU (class 0): which bits the host of a production TD and of a debug TD may
 * read and write. A field that is not here is no metadata field.
 *
 * Source: intel/tdx-module 1.5.05 include/auto_gen/td_vmcs_fields_lookup.c.
 */
import { type MetadataFieldDefinition, type MetadataTable, vmcsFieldId } from "@swtdx/abi";
import { VMCS } from "@swtdx/cpu";

type Masks = readonly [hostRead: bigint, hostWrite: bigint, debugRead: bigint, debugWrite: bigint];

const ALL = (1n << 64n) - 1n;
const NONE: Masks = [0n, 0n, 0n, 0n];
const DEBUG_READ: Masks = [0n, 0n, ALL, 0n];
const DEBUG: Masks = [0n, 0n, ALL, ALL];
const READ: Masks = [ALL, 0n, ALL, 0n];
const READ_DEBUG_WRITE: Masks = [ALL, 0n, ALL, ALL];
const HOST: Masks = [ALL, ALL, ALL, ALL];
const debugWrite = (mask: bigint): Masks => [0n, 0n, ALL, mask];

// prettier-ignore
const GROUPS: readonly (readonly [Masks, readonly number[]])[] = [
  [NONE, [0x200c, 0x2012, 0x2800, 0x4828, 0x6c08, 0x6c14, 0x6c16, 0x6c1a]],
  [DEBUG_READ, [
    0x0000, 0x0004, 0x0006,
    0x2000, 0x2006, 0x2008, 0x200a, 0x2014, 0x201c, 0x2026, 0x2028, 0x202a, 0x202e, 0x2036, 0x2038, 0x203a, 0x203e,
    0x2040, 0x204a, 0x204c, 0x2400, 0x280a,
    0x400c, 0x400e, 0x4010, 0x4012, 0x4014, 0x4016, 0x4018, 0x401a, 0x401c,
    0x4400, 0x4402, 0x4404, 0x4406, 0x4408, 0x440a, 0x440c, 0x440e, 0x4826,
    0x6400, 0x6402, 0x6404, 0x6406, 0x6408, 0x640a,
  ]],
  [DEBUG, [
    0x0800, 0x0802, 0x0804, 0x0806, 0x0808, 0x080a, 0x080c, 0x080e, 0x0810, 0x0812, 0x0814,
    0x202c, 0x2804, 0x2806, 0x2808, 0x2814, 0x2816, 0x2818, 0x4006, 0x4008, 0x400a,
    0x4800, 0x4802, 0x4804, 0x4806, 0x4808, 0x480a, 0x480c, 0x480e, 0x4810, 0x4812, 0x4814, 0x4816, 0x4818, 0x481a,
    0x481c, 0x481e, 0x4820, 0x4822, 0x4824, 0x482a, 0x482e, 0x6008,
    0x6800, 0x6802, 0x6804, 0x6806, 0x6808, 0x680a, 0x680c, 0x680e, 0x6810, 0x6812, 0x6814, 0x6816, 0x6818, 0x681a,
    0x681c, 0x681e, 0x6820, 0x6822, 0x6824, 0x6826, 0x6828, 0x682a, 0x682c,
  ]],
  [READ, [VMCS.MSR_BITMAP, 0x2018, VMCS.EPT_POINTER, VMCS.EPTP_LIST_ADDRESS, VMCS.TD_HKID]],
  [READ_DEBUG_WRITE, [VMCS.TSC_OFFSET, VMCS.TSC_MULTIPLIER, 0x4020, 0x4022]],
  [HOST, [VMCS.POSTED_INTR_NV, VMCS.NOTIFY_WINDOW]],
  [[ALL, 0n, ALL, 0xffff_ffff_ffff_f000n], [VMCS.PML_ADDRESS]],
  [[ALL, ~63n & ALL, ALL, ~63n & ALL], [VMCS.POSTED_INTR_DESC_ADDR]],
  [[0xf_ffff_ffff_f000n, 0xf_ffff_ffff_f000n, ALL, 0xf_ffff_ffff_f000n], [VMCS.SHARED_EPT_POINTER]],
  [[0x80n, 0x80n, ALL, 0x80n], [VMCS.PIN_BASED_VM_EXEC_CONTROL]],
  [[0xc000_0000n, 0xc000_0000n, ALL, 0xc013_0c04n], [VMCS.SECONDARY_VM_EXEC_CONTROL]],
  [debugWrite(0x6999_9a04n), [VMCS.CPU_BASED_VM_EXEC_CONTROL]],
  [debugWrite(1n), [VMCS.TERTIARY_VM_EXEC_CONTROL]],
  [debugWrite(0xffc7n), [VMCS.GUEST_IA32_DEBUGCTL]],
  [debugWrite(0xfffb_ffffn), [VMCS.EXCEPTION_BITMAP]],
  [debugWrite(0xffff_ffff_9fff_ffden), [VMCS.CR0_GUEST_HOST_MASK]],
  [debugWrite(0xffff_ffff_ffff_9fbfn), [VMCS.CR4_GUEST_HOST_MASK]],
  [debugWrite(0xffff_ffff_ffff_ffden), [VMCS.CR0_READ_SHADOW]],
  [debugWrite(0xffff_ffff_ffff_ffbfn), [VMCS.CR4_READ_SHADOW]],
];

/** By the encoding's width bits 14:13. */
const WIDTHS = [2, 8, 4, 8] as const;

function definition(encoding: number, masks: Masks): MetadataFieldDefinition {
  const elementSize = WIDTHS[((encoding >> 13) & 3) as 0 | 1 | 2 | 3];
  const [hostRead, hostWrite, debugRead, debugWrite] = masks.map((mask) =>
    BigInt.asUintN(elementSize * 8, mask),
  );
  return {
    id: vmcsFieldId(encoding),
    fields: 1,
    elements: 1,
    elementSize,
    hostRead,
    hostWrite,
    debugRead,
    debugWrite,
    guestRead: 0n,
    guestWrite: 0n,
  };
}

const NAMES = new Map<number, string>(Object.entries(VMCS).map(([name, encoding]) => [encoding, name]));

/** By name; fields that this processor has not are left out. */
export const TD_VMCS_METADATA: MetadataTable = Object.fromEntries(
  GROUPS.flatMap(([masks, encodings]) =>
    encodings.flatMap((encoding) => {
      const name = NAMES.get(encoding);
      return name === undefined ? [] : [[`VMCS.${name}`, definition(encoding, masks)] as const];
    }),
  ),
);
