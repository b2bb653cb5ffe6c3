/**
 * The architectural state of one logical processor as a block of linear memory, so that the interpreter, the JIT
 * and TypeScript share it without copying. Offsets are constants that generated code may use.
 *
 * Sources: Intel SDM vol. 1 ch. 3, vol. 3A ch. 2; descriptor cache layout is our own.
 */

/** Byte offsets within the block. 64-bit unless said otherwise. */
export const REG = {
  /** 16 general-purpose registers in x86 order (RAX RCX RDX RBX RSP RBP RSI RDI R8..R15). */
  GPR: 0,
  RIP: 128,
  RFLAGS: 136,
  CR0: 144,
  CR2: 152,
  CR3: 160,
  CR4: 168,
  CR8: 176,
  EFER: 184,
  XCR0: 192,
  XSS: 200,
  /** DR0..DR3, DR6, DR7. */
  DR0: 208,
  DR6: 240,
  DR7: 248,
  /** Segment registers ES CS SS DS FS GS LDTR TR, SEGMENT_SIZE bytes each. */
  SEGMENT: 256,
  GDTR_BASE: 448,
  /** 32-bit. */
  GDTR_LIMIT: 456,
  IDTR_BASE: 464,
  /** 32-bit. */
  IDTR_LIMIT: 472,
  STAR: 480,
  LSTAR: 488,
  CSTAR: 496,
  FMASK: 504,
  KERNEL_GS_BASE: 512,
  SYSENTER_CS: 520,
  SYSENTER_ESP: 528,
  SYSENTER_EIP: 536,
  TSC_AUX: 544,
  PAT: 552,
  /** 32-bit each: PKRU, MXCSR, x87 control, status, tag (16-bit form; 3 empty, else not), last opcode. */
  PKRU: 560,
  MXCSR: 564,
  FCW: 568,
  FSW: 572,
  FTW: 576,
  FOP: 580,
  FIP: 584,
  FDP: 592,
  /** 32-bit: VMX interruptibility state (bit 0 STI, 1 MOV SS, 2 SMI, 3 NMI). */
  INTERRUPTIBILITY: 600,
  /** 32-bit: VMX activity state (0 active, 1 HLT, 2 shutdown, 3 wait-for-SIPI). */
  ACTIVITY: 604,
  /** Instructions retired since reset. */
  INSTRUCTIONS: 608,
  /** x87 registers R0..R7, which are MM0..MM7, 16 bytes each (10 used). ST(n) is R(TOP + n). */
  ST: 640,
  /** Vector registers 0..15, 64 bytes each (XMM, YMM, ZMM parts of one register). */
  ZMM: 768,
} as const;

/** Size of the block in bytes. The engine may keep its own state behind it. */
export const REGISTER_FILE_SIZE = 2048;

/** Layout of a segment register, offsets within its SEGMENT_SIZE bytes. */
export const SEGMENT_SIZE = 24;
export const SEG = {
  BASE: 0,
  /** 32-bit byte limit. */
  LIMIT: 8,
  /** 32-bit access rights in VMX format (bit 16 unusable). */
  AR: 12,
  /** 16-bit. */
  SELECTOR: 16,
} as const;

/** Numbers of segment registers, as in ModRM and the VMCS. */
export const SegmentRegister = { ES: 0, CS: 1, SS: 2, DS: 3, FS: 4, GS: 5, LDTR: 6, TR: 7 } as const;

/** Numbers of the general-purpose registers. */
export const Gpr = {
  RAX: 0,
  RCX: 1,
  RDX: 2,
  RBX: 3,
  RSP: 4,
  RBP: 5,
  RSI: 6,
  RDI: 7,
  R8: 8,
  R9: 9,
  R10: 10,
  R11: 11,
  R12: 12,
  R13: 13,
  R14: 14,
  R15: 15,
} as const;

/** A view of the block at `base` bytes of a linear memory. 64-bit registers are bigint here. */
export class RegisterFile {
  readonly u64: BigUint64Array;
  readonly u32: Uint32Array;
  readonly u8: Uint8Array;

  /** @param base multiple of 64, with REGISTER_FILE_SIZE bytes behind it */
  constructor(
    readonly buffer: ArrayBufferLike,
    readonly base: number,
  ) {
    if (base % 64 !== 0) throw new RangeError(`register file at ${base}: must be a multiple of 64`);
    this.u64 = new BigUint64Array(buffer, base, REGISTER_FILE_SIZE / 8);
    this.u32 = new Uint32Array(buffer, base, REGISTER_FILE_SIZE / 4);
    this.u8 = new Uint8Array(buffer, base, REGISTER_FILE_SIZE);
  }

  /** A 64-bit register by its offset in REG. */
  get(offset: number): bigint {
    return this.u64[offset >> 3];
  }
  set(offset: number, value: bigint): void {
    this.u64[offset >> 3] = value;
  }
  /** A 32-bit register, or the low half of a 64-bit one. */
  get32(offset: number): number {
    return this.u32[offset >> 2];
  }
  set32(offset: number, value: number): void {
    this.u32[offset >> 2] = value;
  }
  /** A general-purpose register by number. */
  gpr(number: number): bigint {
    return this.u64[number];
  }
  setGpr(number: number, value: bigint): void {
    this.u64[number] = value;
  }
  /** Byte offset of a segment register's fields within the block. */
  static segment(number: number): number {
    return REG.SEGMENT + number * SEGMENT_SIZE;
  }
}
