/**
 * Building a TD: its parameters before the first vCPU, then the firmware's sections in their order, then the end of
 * measurement. QEMU, target/i386/kvm/tdx.c (tdx_pre_create_vcpu, tdx_finalize_vm).
 */
import {
  KVM_TDX_MEASURE_MEMORY_REGION,
  type KvmCpuidEntry2,
  type KvmTdxCapabilities,
  KvmTdxCmdId,
  PAGE_SIZE,
} from "@swtdx/abi";
import type { Kvm } from "../accel/kvm.js";
import { hex, MachineError, OptionError } from "../errors.js";
import { buildTdHob } from "../firmware/td-hob.js";
import type { Tdvf, TdvfSection } from "../firmware/tdvf.js";
import type { TdRamRange } from "../memory/memory-map.js";
import { checkTdAttributes } from "./tdx-guest.js";

export interface TdParameters {
  readonly attributes: bigint;
  readonly xfam: bigint;
  readonly mrconfigid: Uint8Array;
  readonly mrowner: Uint8Array;
  readonly mrownerconfig: Uint8Array;
  /** Frequency of the virtual TSC in kHz, or 0 for the host's. */
  readonly tscKhz: number;
  readonly cpuid: KvmCpuidEntry2[];
}

const TSC_KHZ = { MIN: 100_000, MAX: 10_000_000, UNIT: 25_000 } as const;

/** KVM_TDX_INIT_VM. @throws OptionError | MachineError for parameters that KVM would refuse. */
export function initTd(kvm: Kvm, capabilities: KvmTdxCapabilities, td: TdParameters): void {
  checkTdAttributes(td.attributes, capabilities.supported_attrs);
  if (td.xfam & ~capabilities.supported_xfam)
    throw new MachineError(
      `XFAM ${hex(td.xfam)} is not supported by KVM (it supports ${hex(capabilities.supported_xfam)})`,
    );
  if (
    td.tscKhz !== 0 &&
    (td.tscKhz < TSC_KHZ.MIN || td.tscKhz > TSC_KHZ.MAX || td.tscKhz % TSC_KHZ.UNIT !== 0)
  )
    throw new OptionError(
      "tsc-frequency",
      `${td.tscKhz} kHz; a multiple of 25 MHz from 100 MHz to 10 GHz is needed`,
    );
  if (td.tscKhz !== 0) kvm.vmIoctl("KVM_SET_TSC_KHZ", td.tscKhz);
  kvm.tdx({
    id: KvmTdxCmdId.KVM_TDX_INIT_VM,
    flags: 0,
    data: {
      attributes: td.attributes,
      xfam: td.xfam,
      mrconfigid: td.mrconfigid,
      mrowner: td.mrowner,
      mrownerconfig: td.mrownerconfig,
      cpuid: { nent: td.cpuid.length, entries: td.cpuid },
    },
  });
}

/** Pages that launching added to the TD, and how many of them were measured with their contents. */
export interface LaunchPages {
  readonly added: number;
  readonly measured: number;
}

/** Adds the firmware's sections to the TD. All vCPUs exist already. */
export function launchTd(kvm: Kvm, tdvf: Tdvf, ram: readonly TdRamRange[]): LaunchPages {
  const hob = buildTdHob(tdvf, ram);
  for (const vcpu of kvm.vcpus)
    kvm.tdx({ id: KvmTdxCmdId.KVM_TDX_INIT_VCPU, flags: 0, data: BigInt(tdvf.tdHob.memoryAddress) }, vcpu);
  let added = 0;
  let measured = 0;
  for (const section of tdvf.sections) {
    const pages = section.memoryDataSize / PAGE_SIZE;
    addSection(kvm, section, contentsOf(tdvf, section, hob));
    added += pages;
    if (section.measured) measured += pages;
  }
  return { added, measured };
}

/** Ends the measurement: the TD can run. */
export function finalizeTd(kvm: Kvm): void {
  kvm.tdx({ id: KvmTdxCmdId.KVM_TDX_FINALIZE_VM, flags: 0 });
}

function contentsOf(tdvf: Tdvf, section: TdvfSection, hob: Uint8Array): Uint8Array {
  switch (section.type) {
    case "BFV":
    case "CFV":
      return tdvf.image.subarray(section.dataOffset, section.dataOffset + section.rawDataSize);
    case "TD_HOB":
      return hob;
    case "TEMP_MEM":
      return new Uint8Array();
  }
}

/** KVM_TDX_INIT_MEM_REGION from a mapping made for it; what the contents do not fill is zero. */
function addSection(kvm: Kvm, section: TdvfSection, contents: Uint8Array): void {
  const source = kvm.sys.mmap(section.memoryDataSize);
  try {
    if (contents.length > 0) source.write(0, contents);
    kvm.tdx(
      {
        id: KvmTdxCmdId.KVM_TDX_INIT_MEM_REGION,
        flags: section.measured ? KVM_TDX_MEASURE_MEMORY_REGION : 0,
        data: {
          source_addr: source.address,
          gpa: section.memoryAddress,
          nr_pages: section.memoryDataSize / PAGE_SIZE,
        },
      },
      kvm.vcpus[0],
    );
  } finally {
    kvm.sys.munmap(source);
  }
}
