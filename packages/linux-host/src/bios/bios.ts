/**
 * What the BIOS does for TDX before the kernel runs: memory types, memory encryption with its KeyID ranges, the SMM and
 * SEAM ranges, VMX, and the launch of the SEAM loader.
 * Source: Intel TDX module base architecture specification 1.5, "Platform Initialization"; the checks of TDH.SYS.INIT.
 */
import type { LogicalProcessor, Outcome, Processor } from "@swtdx/cpu";
import type { MemoryLayout, MemoryRange } from "./memory-layout.js";

/** The platform could not be brought up: firmware or configuration does not fit the processor. */
export class BiosError extends Error {
  override readonly name = "BiosError";
}

const MSR = {
  FEATURE_CONTROL: 0x3a,
  SMRR_PHYSBASE: 0x1f2,
  SMRR_PHYSMASK: 0x1f3,
  MTRR_DEF_TYPE: 0x2ff,
  TME_ACTIVATE: 0x982,
  SEAMRR_BASE: 0x1400,
  SEAMRR_MASK: 0x1401,
} as const;
const MAX_PHYS_MASK = (1n << 46n) - 1n;

/** Lock, VMX outside SMX. */
const FEATURE_CONTROL = 0x5n;
/** MTRRs on, write-back. */
const MTRR_DEF_TYPE = 0x806n;
const WRITE_BACK = 6n;
const SMRR_VALID_LOCK = 0xc00n;
const SEAMRR_CONFIGURED = 0x8n;
const SEAMRR_VALID_LOCK = 0xc00n;

/** KeyIDs: 2^bits in all, of which 2^(bits - tdxBits) are shared (KeyID 0 among them). */
export interface KeyIdConfiguration {
  readonly keyIdBits: number;
  readonly tdxKeyIdBits: number;
  /** "logical": TD-owner bit alone; "cryptographic": with MAC. */
  readonly integrity: "logical" | "cryptographic";
}
export const DEFAULT_KEY_IDS: KeyIdConfiguration = { keyIdBits: 6, tdxKeyIdBits: 1, integrity: "logical" };

const ENABLE = 2n;
const ALGORITHM = { logical: 1n << 48n, cryptographic: 3n << 48n } as const;

function expectOk(what: string, outcome: Outcome): void {
  if (outcome.kind !== "ok") throw new BiosError(`${what}: exception ${outcome.vector}`);
}
const wrmsr = (lp: LogicalProcessor, name: keyof typeof MSR, value: bigint): void =>
  expectOk(`IA32_${name} = 0x${value.toString(16)}`, lp.wrmsr(MSR[name], value));

/** Mask of a range register for a size that is a power of two. */
const rangeMask = ({ start, end }: MemoryRange): bigint => MAX_PHYS_MASK & ~(BigInt(end - start) - 1n);

/** Powers the platform on. The SEAM loader (ACM) is launched when there is one. @throws BiosError */
export function runBios(
  processor: Processor,
  layout: MemoryLayout,
  keyIds: KeyIdConfiguration,
  seamldrAcm: Uint8Array | null,
): void {
  for (const lp of processor.lps) {
    wrmsr(lp, "MTRR_DEF_TYPE", MTRR_DEF_TYPE);
    wrmsr(lp, "SMRR_PHYSBASE", BigInt(layout.smmRange.start) | WRITE_BACK);
    wrmsr(lp, "SMRR_PHYSMASK", (rangeMask(layout.smmRange) & 0xffff_ffffn) | SMRR_VALID_LOCK);
    wrmsr(lp, "FEATURE_CONTROL", FEATURE_CONTROL);
  }
  const [bsp] = processor.lps;
  const { keyIdBits, tdxKeyIdBits, integrity } = keyIds;
  wrmsr(
    bsp,
    "TME_ACTIVATE",
    ALGORITHM[integrity] | ENABLE | (BigInt(keyIdBits) << 32n) | (BigInt(tdxKeyIdBits) << 36n),
  );
  wrmsr(bsp, "SEAMRR_BASE", BigInt(layout.seamRange.start) | SEAMRR_CONFIGURED);
  wrmsr(bsp, "SEAMRR_MASK", (rangeMask(layout.seamRange) & ~0x1ff_ffffn) | SEAMRR_VALID_LOCK);
  if (seamldrAcm === null) return;
  const launched = bsp.enteraccs(seamldrAcm);
  if (launched.kind === "error") throw new BiosError(`SEAM loader: ${launched.reason}`);
  if (launched.kind === "fault") throw new BiosError(`GETSEC[ENTERACCS]: exception ${launched.vector}`);
}
