/**
 * A vCPU while it runs on a logical processor: what the module keeps from TDH.VP.ENTER to the TD exit.
 *
 * Between VM exit and VM entry the guest's general-purpose registers stay in the processor's registers (RSP, RIP and
 * RFLAGS in the TD VMCS); they move to TDVPS at the TD exit.
 *
 * Source: intel/tdx-module src/common/data_structures/tdx_local_data.h (vp_ctx_t).
 */
import type { Hpa, KeyId, Trace } from "@swtdx/abi";
import { type RegisterFile, type SeamContext, VMCS } from "@swtdx/cpu";
import type { GuestMetadata } from "../guest/metadata-access.js";
import type { HeldLocks } from "../locks.js";
import { TDCS, type TdcsStructure } from "../structures/tdcs.js";
import { TDVPS, type TdvpsStructure } from "../structures/tdvps.js";
import type { TdrStructure } from "../structures/tdr.js";
import type { CrFixedBits } from "../tables/control-registers.js";

/** How a step of the dispatcher ends. */
export const Flow = {
  /** The exit is handled: to the next instruction, or to the injected event. */
  RESUME: 0,
  /** A TD exit has happened: back to the VMM. */
  TD_EXIT: 1,
  /** Back into the TD at the same instruction, nothing more to do. */
  REENTER: 2,
  /** An interrupt is pending: the TDCALL will be executed again after it. */
  INTERRUPTED: 3,
} as const;
export type Flow = (typeof Flow)[keyof typeof Flow];

/** What the guest side needs of the module's platform-scope state. */
export interface GuestSidePlatform {
  readonly trace: Trace;
  readonly metadata: GuestMetadata;
  readonly crFixed: CrFixedBits;
  /** CPUID(0xD,0).EAX and CPUID(0xD,1).ECX, the features the module knows. */
  readonly xcr0Supported: bigint;
  readonly xssSupported: bigint;
  /** IA32_ARCH_CAPABILITIES.TSX_CTRL of the processor. */
  readonly tsxCtrl: boolean;
  /** IA32_PERF_CAPABILITIES of the processor. */
  readonly perfCapabilities: bigint;
  /** SEAMOPS[SEAMVERIFYREPORT] is there. */
  readonly seamverifyreportAvailable: boolean;
  /** First bit of the KeyID in a physical address. */
  readonly keyIdShift: number;
  /** Whether `length` bytes at a physical address (with KeyID bits) may be shared memory: no private KeyID, not SEAM's. */
  isSharedHpa(pa: number, length: number): boolean;
}

export class VpContext {
  readonly regs: RegisterFile;
  /** What an HKID counts in a physical address. */
  readonly #keyIdUnit: number;
  /** The caller's GPRs as 32-bit words. */
  readonly vmmWords: Uint32Array;
  /** TDCS.ATTRIBUTES: DEBUG and PERFMON. */
  debug = false;
  perfmon = false;
  /** TDVPS.XFAM, which has no bits above 31. */
  xfamLow = 0;
  /** TDCS.CONFIG_FLAGS.NO_RBP_MOD. */
  noRbpMod = false;
  gpaw = false;
  hkid = 0 as KeyId;
  /** Length of the instruction and reason of the VM exit at hand. */
  exitReason = 0;
  exitIntrInfo = 0;
  busLockPreempted = false;
  /** RIP at VM entry after TDH.VP.ENTER: an EPT violation at the same one is no progress. */
  ripOnTdEntryLow = 0;
  ripOnTdEntryHigh = 0;
  /** Of guestSideGpa: where the GPA is. */
  mappedHpa = 0 as Hpa;
  mappedKeyId = 0 as KeyId;
  /** IA32_SPEC_CTRL, IA32_DS_AREA and IA32_TSX_CTRL of the VMM. */
  vmmSpecCtrl = 0n;
  vmmDsArea = 0n;
  vmmTsxCtrl = 0n;

  constructor(
    readonly lp: SeamContext,
    readonly platform: GuestSidePlatform,
    readonly tdr: TdrStructure,
    readonly tdcs: TdcsStructure,
    readonly tdvps: TdvpsStructure,
    /** Shared locks of TDVPR and TDR, released at the TD exit. */
    readonly locks: HeldLocks,
    /** The caller's GPRs, to be given back at the TD exit. */
    readonly vmm = new BigUint64Array(16),
  ) {
    this.regs = lp.regs;
    this.#keyIdUnit = 2 ** platform.keyIdShift;
    this.vmmWords = new Uint32Array(vmm.buffer, vmm.byteOffset, vmm.length * 2);
  }

  /** TDH.VP.ENTER: nothing is left of the time before. */
  begin(hkid: KeyId): void {
    this.hkid = hkid;
    this.busLockPreempted = false;
    this.vmmSpecCtrl = 0n;
    this.vmmDsArea = 0n;
    this.vmmTsxCtrl = 0n;
  }

  get attributes(): bigint {
    return this.tdcs.get(TDCS.ATTRIBUTES);
  }
  get xfam(): bigint {
    return BigInt(this.xfamLow);
  }
  /** Of the VM exit at hand. */
  get exitQualification(): bigint {
    return this.lp.vmread(VMCS.EXIT_QUALIFICATION);
  }
  get veInfoValid(): boolean {
    return this.tdvps.get(TDVPS.VE_INFO_VALID) !== 0;
  }
  /** HPA (with the HKID) of the TD VMCS. */
  get vmcs(): number {
    return this.tdvps.vmcsPa + this.hkid * this.#keyIdUnit;
  }
  /** A mistake of the module's own, or a processor that does what it was told not to: no way on. */
  fatalError(reason: string): never {
    return this.lp.shutdown(`TDX module: ${reason}`);
  }
}
