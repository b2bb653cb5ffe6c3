/**
 * SEAMCALL as the kernel makes it: operands in registers, software statuses for what is no answer of the module, and
 * retries while there is no entropy. Source: Linux arch/x86/virt/vmx/tdx/seamcall_internal.h, seamcall.S.
 */
import { encodeLeaf, SEAMCALL_LEAF, type SeamcallName, TDX_STATUS } from "@swtdx/abi";
import { Gpr, type LogicalProcessor } from "@swtdx/cpu";

/** struct tdx_module_args: operands of a SEAMCALL; in place for outputs. */
export interface TdxModuleArgs {
  rcx: bigint;
  rdx: bigint;
  r8: bigint;
  r9: bigint;
  r10: bigint;
  r11: bigint;
  r12: bigint;
  r13: bigint;
  r14: bigint;
  r15: bigint;
  rbx: bigint;
  rdi: bigint;
  rsi: bigint;
}
export const tdxModuleArgs = (args: Partial<TdxModuleArgs> = {}): TdxModuleArgs => ({
  rcx: 0n,
  rdx: 0n,
  r8: 0n,
  r9: 0n,
  r10: 0n,
  r11: 0n,
  r12: 0n,
  r13: 0n,
  r14: 0n,
  r15: 0n,
  rbx: 0n,
  rdi: 0n,
  rsi: 0n,
  ...args,
});

/** Statuses that the kernel itself makes up. */
export const TDX_SEAMCALL_VMFAILINVALID = 0x8000_ff00_ffff_0000n;
export const TDX_SEAMCALL_GP = 0x8000_ff00_0000_000dn;
export const TDX_SEAMCALL_UD = 0x8000_ff00_0000_0006n;
const RETRIES = 10;

/** A SEAMCALL of a raw RAX with the operands that are in the registers. @returns RAX or a software status */
export function rawSeamcall(lp: LogicalProcessor, rax: bigint): bigint {
  lp.regs.setGpr(Gpr.RAX, rax);
  seamcallInRegisters(lp);
  return lp.regs.gpr(Gpr.RAX);
}
/** The same with the leaf in the registers too, and the status in RAX afterwards. */
export function seamcallInRegisters(lp: LogicalProcessor): void {
  const outcome = lp.seamcall();
  if (outcome.kind === "fault")
    lp.regs.setGpr(Gpr.RAX, outcome.vector === 13 ? TDX_SEAMCALL_GP : TDX_SEAMCALL_UD);
  else if (outcome.cf) lp.regs.setGpr(Gpr.RAX, TDX_SEAMCALL_VMFAILINVALID);
}

/** __seamcall: operands in, status out. */
export function seamcall(lp: LogicalProcessor, rax: bigint, args: TdxModuleArgs): bigint {
  const { regs } = lp;
  regs.setGpr(Gpr.RCX, args.rcx);
  regs.setGpr(Gpr.RDX, args.rdx);
  regs.setGpr(Gpr.R8, args.r8);
  regs.setGpr(Gpr.R9, args.r9);
  regs.setGpr(Gpr.R10, args.r10);
  regs.setGpr(Gpr.R11, args.r11);
  return rawSeamcall(lp, rax);
}

/** __seamcall_ret: outputs in `args`. */
export function seamcallRet(lp: LogicalProcessor, rax: bigint, args: TdxModuleArgs): bigint {
  const status = seamcall(lp, rax, args);
  readOutputs(lp, args);
  return status;
}

/** What the last SEAMCALL left in the registers. */
export function readOutputs({ regs }: LogicalProcessor, args: TdxModuleArgs): void {
  args.rcx = regs.gpr(Gpr.RCX);
  args.rdx = regs.gpr(Gpr.RDX);
  args.r8 = regs.gpr(Gpr.R8);
  args.r9 = regs.gpr(Gpr.R9);
  args.r10 = regs.gpr(Gpr.R10);
  args.r11 = regs.gpr(Gpr.R11);
}

/** RAX of a function of the TDX module. */
export const leaf = (name: SeamcallName, version = 0): bigint => encodeLeaf(SEAMCALL_LEAF[name], version);

/** seamcall_ret with retries while the processor has no entropy (sc_retry). */
export function scRetry(lp: LogicalProcessor, rax: bigint, args: TdxModuleArgs): bigint {
  let status = TDX_STATUS.TDX_RND_NO_ENTROPY as bigint;
  for (let tries = 0; tries < RETRIES && status === TDX_STATUS.TDX_RND_NO_ENTROPY; tries++)
    status = seamcall(lp, rax, args);
  readOutputs(lp, args);
  return status;
}
