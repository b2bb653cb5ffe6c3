/**
 * SEAM root mode as firmware (P-SEAMLDR, the TDX module) sees it.
 *
 * Firmware is TypeScript that is registered under the name its image bytes carry (abi's program-image.ts: a stub at
 * the image's entry point). `SeamFirmware.seamcall` runs in SEAM root mode of one logical processor; returning is
 * SEAMRET. It reaches everything through the `SeamContext` and nothing else.
 *
 * Intel TDX Module Architecture Specification, "SEAM" chapters; SDM vol. 3D "SEAM instruction reference".
 */
import type { Hpa, HpaAndKeyId, KeyId } from "@swtdx/abi";
import type { RegisterFile } from "@swtdx/x86";
import type { ValueOutcome, Outcome, VmExit, VmFail } from "./outcome.js";

/** P-SEAMLDR or TDX module: one object per loaded image and package; state in it lives as long as the image is loaded. */
export interface SeamFirmware {
  /**
   * Runs one SEAMCALL. `lp.regs` holds the caller's general-purpose registers (leaf in RAX); what they hold on
   * return is what the caller sees. RFLAGS.CF of the caller is cleared unless `lp.vmFailInvalid()` was called.
   */
  seamcall(lp: SeamContext): void;
}

/** What a firmware is made from when the processor first enters a loaded image. */
export interface SeamLoad {
  /** The SEAM range (SEAMRR). */
  readonly seamRange: SeamRange;
  /** HPA of the image's entry point: where its stub is, in the SEAM range. */
  readonly entry: Hpa;
  /** Number of logical processors of the platform. */
  readonly lps: number;
  /** Reads the SEAM range as SEAM software does. */
  read(pa: Hpa, target: Uint8Array): void;
}
export type SeamFirmwareFactory = (load: SeamLoad) => SeamFirmware;

/** In bytes. `size` 0: SEAMRR is not enabled. */
export interface SeamRange {
  readonly base: Hpa;
  readonly size: number;
}

/**
 * IA32_SEAMEXTEND: the processor's internal record of what is loaded in SEAM. P-SEAMLDR writes it when it installs
 * or shuts down a module; SEAMREPORT copies the measurements into TEE_TCB_INFO.
 */
export interface SeamExtend {
  /** TEE_TCB_INFO.VALID: which of the measurements below are valid, 64 bits. */
  valid: bigint;
  /** 16 bytes. */
  teeTcbSvn: Uint8Array;
  /** SHA-384 of the module, 48 bytes. */
  mrSeam: Uint8Array;
  /** SHA-384 of the module's signer, 48 bytes (all zero for Intel). */
  mrSignerSeam: Uint8Array;
  attributes: bigint;
  /** 16 bytes; TEE_TCB_SVN2, the SVN of the currently running module. */
  teeTcbSvn2: Uint8Array;
  /** SEAMCALL with RAX[63] = 0 is allowed. */
  seamReady: boolean;
  /** SEAMCALL with RAX[63] = 1 is allowed. */
  pSeamldrReady: boolean;
  systemUnderDebug: boolean;
}

/** SEAMOPS[SEAMREPORT] operands. */
export interface SeamReportRequest {
  /** REPORTTYPE: type (0x81 TDX), subtype, version, and a reserved byte. */
  readonly reportType: { type: number; subtype: number; version: number };
  /** 64 bytes. */
  readonly reportData: Uint8Array;
  /** SHA-384 of TEE_INFO (TDINFO_STRUCT), 48 bytes. */
  readonly teeInfoHash: Uint8Array;
}
export interface SeamReport {
  /** 256 bytes with MAC. */
  readonly reportMacStruct: Uint8Array;
  /** 239 bytes. */
  readonly teeTcbInfo: Uint8Array;
}

/** SEAMOPS leaves, as bits of its capabilities leaf and values of RAX. */
export const SeamOps = {
  CAPABILITIES: 0,
  SEAMREPORT: 1,
  SEAMDB_CLEAR: 2,
  SEAMDB_INSERT: 3,
  SEAMDB_GETREF: 4,
  SEAMDB_REPORT: 5,
  SEAMVERIFYREPORT: 6,
} as const;

/** Entry of a PCONFIG MKTME_KEY_PROGRAM for a TD: see `SeamContext.pconfig`. */
export interface KeyProgram {
  readonly keyId: KeyId;
  /** MKTME_KEY_PROGRAM commands: 0 set key directly, 1 set key to a random one, 2 clear key (KeyID 0's TME key), 3 no encryption. */
  readonly command: 0 | 1 | 2 | 3;
  /** ENC_ALG bits of KEYID_CTRL (1 AES-XTS-128, 2 AES-XTS-128 with integrity, 4 AES-XTS-256, …). */
  readonly encAlg: number;
  /** KEY_FIELD_1 (data key) and KEY_FIELD_2 (tweak key), 16 (32) bytes; for command 1, entropy XORed into the random key. */
  readonly dataKey?: Uint8Array;
  readonly tweakKey?: Uint8Array;
}
/** RAX of PCONFIG: ZF is set unless it is 0. SDM vol. 2B PCONFIG, table 4-17. */
export const PconfigStatus = {
  SUCCESS: 0,
  INVALID_PROG_CMD: 1,
  ENTROPY_ERROR: 2,
  INVALID_KEYID: 3,
  INVALID_ENC_ALG: 4,
  DEVICE_BUSY: 5,
} as const;

/** The logical processor shut down in SEAM root mode. Thrown through firmware; never to be caught by it. */
export class SeamShutdown extends Error {
  override readonly name = "SeamShutdown";
}
/** The firmware did what only a mistake in it can: a bug, not an outcome. */
export class SeamFirmwareError extends Error {
  override readonly name = "SeamFirmwareError";
}

/** Memory as firmware's loads and stores see it through keyholes. */
export interface SeamArena {
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly u64: BigUint64Array;
}

/**
 * A logical processor in SEAM root mode. Addresses of data are HPA and KeyID apart: where the firmware maps pages, but
 * for keyholes that stay open for a while, is not modelled. Data in the SEAM range uses KeyID 0.
 *
 * A machine check here (poison consumed) shuts the logical processor down: the call in progress ends by a
 * non-local exit that firmware must not catch (`SeamShutdown`); every later SEAMCALL on it is VMfailInvalid.
 */
export interface SeamContext {
  /** Number of the logical processor in the platform, from 0. */
  readonly index: number;
  readonly packageIndex: number;
  /**
   * The registers. At SEAMCALL the GPRs are the caller's. RSP, RIP, RFLAGS, control and segment registers of the
   * caller are saved in the SEAM transfer VMCS and restored by SEAMRET; GPRs, CR2, DR0-3, DR6, XCR0, x87/SSE/AVX
   * state and MSRs that no VMCS field holds are the firmware's to save and restore around running a TD.
   */
  readonly regs: RegisterFile;
  /** IA32_TIME_STAMP_COUNTER now. */
  rdtsc(): bigint;
  /** The same as a number: exact below 2^53. */
  rdtscNumber(): number;

  /**
   * A keyhole: maps a page for the firmware's own loads and stores, under a KeyID. The byte offset in `arena` of the
   * page's 4096 bytes; -1 when the page can be accessed only by `read` and `write`. It is good until `keyholes` changes.
   */
  keyhole(pa: Hpa, keyId: KeyId): number;
  readonly keyholes: number;
  readonly arena: SeamArena;
  /** @throws SeamShutdown on poison */
  read(pa: Hpa, keyId: KeyId, target: Uint8Array): void;
  write(pa: Hpa, keyId: KeyId, source: Uint8Array): void;
  readU8(pa: Hpa, keyId: KeyId): number;
  readU16(pa: Hpa, keyId: KeyId): number;
  readU32(pa: Hpa, keyId: KeyId): number;
  readU64(pa: Hpa, keyId: KeyId): bigint;
  /** 64 bits at once, as the halves `low` and `high`; `pa` a multiple of 8. */
  readHalves(pa: Hpa, keyId: KeyId): void;
  writeHalves(pa: Hpa, keyId: KeyId, low: number, high: number): void;
  readonly low: number;
  readonly high: number;
  writeU8(pa: Hpa, keyId: KeyId, value: number): void;
  writeU16(pa: Hpa, keyId: KeyId, value: number): void;
  writeU32(pa: Hpa, keyId: KeyId, value: number): void;
  writeU64(pa: Hpa, keyId: KeyId, value: bigint): void;
  /** Writes zeros with MOVDIR64B: initializes lines without reading them. `pa` and `length` multiples of 64. */
  zero(pa: Hpa, keyId: KeyId, length: number): void;
  /** Copies `length` bytes (multiple of 64) from one page and key to another, writing with MOVDIR64B. */
  copy(target: Hpa, targetKeyId: KeyId, source: Hpa, sourceKeyId: KeyId, length: number): void;

  /** @param vmcs HPA with the KeyID the VMCS region is read and written with */
  vmclear(vmcs: HpaAndKeyId): VmFail | null;
  /** Makes a VMCS current and active. In SEAM a VMCS may use any KeyID. */
  vmptrld(vmcs: HpaAndKeyId): VmFail | null;
  /** The current VMCS's address, or null. */
  vmptrst(): HpaAndKeyId | null;
  /**
   * Reads a field of the current VMCS by its SDM encoding.
   * @throws SeamFirmwareError for a field that does not exist or without a current VMCS: a mistake of the firmware
   */
  vmread(field: number): bigint;
  vmwrite(field: number, value: bigint): void;
  /** VMREAD and VMWRITE with the value as two halves: what is done at every VM exit. `high` counts for 64-bit fields. */
  vmreadLow(field: number): number;
  vmreadHigh(field: number): number;
  vmwriteHalves(field: number, low: number, high: number): void;
  /** Enters the guest and runs it to its next VM exit. Guest GPRs are taken from and left in `regs`. */
  vmlaunch(): VmExit | VmFail;
  vmresume(): VmExit | VmFail;
  /** INVEPT type 1 (single context, `eptp` with its KeyID bits) or 2 (all). */
  invept(type: 1 | 2, eptp?: bigint): VmFail | null;
  /** INVVPID type 0 (one address), 1 (one VPID), 2 (all), 3 (one VPID without globals). */
  invvpid(type: 0 | 1 | 2 | 3, vpid?: number, gla?: bigint): VmFail | null;

  cpuid(leaf: number, subleaf: number): Cpuid;
  /** #GP comes back as a value. */
  rdmsr(index: number): ValueOutcome<bigint>;
  wrmsr(index: number, value: bigint): Outcome;
  /** EAX and EDX of RDMSR; -1: #GP. */
  rdmsrLow(index: number): number;
  rdmsrHigh(index: number): number;
  xgetbv(): bigint;
  xsetbv(value: bigint): Outcome;
  /**
   * XSAVES / XRSTORS of the components in `mask` (EAX: bits 31:0; compacted format, SDM vol. 1 chapter 13), 64-byte
   * aligned.
   */
  xsaves(pa: Hpa, keyId: KeyId, mask: number): void;
  xrstors(pa: Hpa, keyId: KeyId, mask: number): void;
  /** null: no entropy now (CF = 0). */
  rdrand(): bigint | null;
  rdseed(): bigint | null;

  /** PCONFIG MKTME_KEY_PROGRAM of a private (TDX) KeyID; KeyIDs outside SEAM's range give INVALID_KEYID. Returns RAX. */
  pconfig(key: KeyProgram): number;
  /** Write back and invalidate all caches of the package. */
  wbinvd(): void;
  wbnoinvd(): void;

  readonly seamRange: SeamRange;
  /** SEAMOPS[CAPABILITIES]: bit n is set when leaf n is supported. */
  seamopsCapabilities(): bigint;
  seamreport(request: SeamReportRequest): SeamReport;
  /** SEAMOPS[SEAMDB_GETREF]: index and 32-byte nonce of the newest entry of the SEAM database (TD-preserving update). */
  seamdbGetref(): { index: bigint; nonce: Uint8Array; size: bigint };
  /** SEAMOPS[SEAMDB_REPORT]: as SEAMREPORT, with the TCB information of a SEAM database entry; a status on error. */
  seamdbReport(request: SeamReportRequest, index: bigint, nonce: Uint8Array): SeamReport | { status: number };
  /** SEAMOPS[SEAMDB_CLEAR] and [SEAMDB_INSERT] (P-SEAMLDR): empties the database; adds the current SEAMEXTEND. */
  seamdbClear(): number;
  seamdbInsert(): number;
  /**
   * SEAMOPS[SEAMVERIFYREPORT] of a REPORTMACSTRUCT (256 bytes).
   * @returns 0, or the error in RAX (SeamOpsStatus)
   */
  seamverifyreport(reportMacStruct: Uint8Array): number;
  /** RDMSR / WRMSR of IA32_SEAMEXTEND: what is loaded. Writing is the P-SEAMLDR's; from the module it shuts down. */
  readSeamExtend(): SeamExtend;
  writeSeamExtend(value: SeamExtend): void;
  /**
   * Sets where SEAMCALL enters the TDX module on every logical processor: the entry point (stub) in the SEAM range,
   * as P-SEAMLDR writes HOST_RIP of the SEAM transfer VMCSs. Only P-SEAMLDR may.
   */
  setModuleEntry(entry: Hpa | null): void;

  /** SEAMRET will report VMfailInvalid (RFLAGS.CF = 1) to the caller. */
  vmFailInvalid(): void;
  /** An NMI or external interrupt is pending for the host: long-running functions should return as interrupted. */
  readonly interruptPending: boolean;
  /** Disables SEAM on this logical processor ("unbreakable shutdown"). Does not return. */
  shutdown(reason: string): never;
}

/** RAX of SEAMOPS leaves. */
export const SeamOpsStatus = {
  SUCCESS: 0,
  INPUT_ERROR: 1,
  ENTROPY_ERROR: 2,
  DATABASE_ERROR: 3,
  INVALID_CPUSVN: 4,
  INVALID_REPORTMACSTRUCT: 5,
} as const;

/** Results of CPUID, each 32 bits unsigned. */
export interface Cpuid {
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}
