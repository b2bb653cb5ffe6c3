/**
 * TD-scope controls as bits: ATTRIBUTES, XFAM, CONFIG_FLAGS, TD_CTLS, VM_CTLS, TDX_FEATURES0.
 * TDX Module 1.5 ABI specification, as in intel/tdx-module include/tdx_api_defs.h; names of later modules from Linux
 * arch/x86/include/asm/shared/tdx.h.
 */

/** ATTRIBUTES of TD_PARAMS and TDINFO_STRUCT. */
export const TD_ATTRIBUTES = {
  /** TUD: TD under debug. */
  DEBUG: 1n << 0n,
  HGS_PLUS_PROF: 1n << 4n,
  PERF_PROF: 1n << 5n,
  PMT_PROF: 1n << 6n,
  ICSSD: 1n << 16n,
  LASS: 1n << 27n,
  /** No #VE for access to pending pages: they exit to the VMM instead. */
  SEPT_VE_DISABLE: 1n << 28n,
  MIGRATABLE: 1n << 29n,
  PKS: 1n << 30n,
  KL: 1n << 31n,
  TPA: 1n << 62n,
  PERFMON: 1n << 63n,
} as const;
/** ATTRIBUTES bits under which a TD is not to be trusted (TUD group). */
export const TD_ATTRIBUTES_TUD_MASK = 0xffn;

/** Bits of XFAM, and of XCR0 | IA32_XSS whose format it has (SDM vol. 1, 13.3). */
export const XFAM = {
  FP: 1n << 0n,
  SSE: 1n << 1n,
  AVX: 1n << 2n,
  MPX_BNDREGS: 1n << 3n,
  MPX_BNDCSR: 1n << 4n,
  AVX512_OPMASK: 1n << 5n,
  AVX512_ZMM_HI256: 1n << 6n,
  AVX512_HI16_ZMM: 1n << 7n,
  PT: 1n << 8n,
  PKRU: 1n << 9n,
  PASID: 1n << 10n,
  CET_U: 1n << 11n,
  CET_S: 1n << 12n,
  HDC: 1n << 13n,
  UINTR: 1n << 14n,
  LBR: 1n << 15n,
  HWP: 1n << 16n,
  AMX_TILECFG: 1n << 17n,
  AMX_TILEDATA: 1n << 18n,
} as const;
/** XFAM bits that belong to XCR0; the others belong to IA32_XSS. */
export const XFAM_XCR0_MASK = 0x602ffn;
/** XFAM bits that belong to IA32_XSS. */
export const XFAM_XSS_MASK = 0x1fd00n;

/** What a 1.5.01 module permits: a bit that is 0 in FIXED0 must be 0, one that is 1 in FIXED1 must be 1. */
export const TDX_1_5_LIMITS = {
  ATTRIBUTES_FIXED0: 0x8000_0000_7000_0001n,
  ATTRIBUTES_FIXED1: 0n,
  XFAM_FIXED0: 0x6dbe7n,
  XFAM_FIXED1: 0x3n,
} as const;

/** CONFIG_FLAGS of TD_PARAMS: not measured. */
export const CONFIG_FLAGS = {
  /** 1: GPAs have 52 bits and the shared bit is 51; 0: 48 and 47. */
  GPAW: 1n << 0n,
  /** The guest may clear and set TD_CTLS.PENDING_VE_DISABLE. */
  FLEXIBLE_PENDING_VE: 1n << 1n,
  /** RBP is no TDG.VP.VMCALL or TDH.VP.ENTER operand. */
  NO_RBP_MOD: 1n << 2n,
} as const;

/** TD_CTLS (TDCS field): written by the guest. */
export const TD_CTLS = {
  PENDING_VE_DISABLE: 1n << 0n,
  ENUM_TOPOLOGY: 1n << 1n,
  VIRT_CPUID2: 1n << 2n,
  REDUCE_VE: 1n << 3n,
  LOCK: 1n << 63n,
} as const;

/** NOTIFY_ENABLES (TDCS field): written by the guest. */
export const NOTIFY_ENABLES = {
  /** #VE when the module suspects zero-stepping by EPT violations. */
  ZERO_STEP: 1n << 0n,
} as const;

/** EPTP_CONTROLS of TD_PARAMS, in EPTP's format. */
export const EPTP_CONTROLS = {
  /** Bits 2:0: memory type of the paging structures, write-back. */
  MEMORY_TYPE_WB: 6n,
  /** Bits 5:3: page-walk length minus one. */
  PWL_4: 3n << 3n,
  PWL_5: 4n << 3n,
} as const;

/** TDX_FEATURES0 of TDH.SYS.RD. */
export const TDX_FEATURES0 = {
  TD_MIGRATION: 1n << 0n,
  TD_PRESERVING: 1n << 1n,
  SERVICE_TD: 1n << 2n,
  TDG_VP_RDWR: 1n << 3n,
  RELAXED_MEM_MNG_CONCURRENCY: 1n << 4n,
  CPUID_VIRT_GUEST_CTRL: 1n << 5n,
  TD_PARTITIONING: 1n << 7n,
  LOCAL_ATTESTATION: 1n << 8n,
  TD_ENTRY_ENHANCEMENTS: 1n << 9n,
  HOST_PRIORITY_LOCKS: 1n << 10n,
  CONFIG_IA32_ARCH_CAPABILITIES: 1n << 11n,
  PENDING_EPT_VIOLATION_V2: 1n << 16n,
  FMS_CONFIG: 1n << 17n,
  NO_RBP_MOD: 1n << 18n,
  L2_TLB_INVD_OPT: 1n << 19n,
  /** Later than 1.5.01; KVM requires it. */
  TOPOLOGY_ENUM: 1n << 20n,
} as const;
