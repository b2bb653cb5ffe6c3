/** The module's functions as KVM calls them, with its errors for what must not fail. Source: Linux arch/x86/kvm/vmx/tdx.c. */
import { Errno, type SeamcallName, statusIs, TDX_STATUS } from "@swtdx/abi";
import {
  leaf,
  type LogicalProcessor,
  readOutputs,
  scRetry,
  seamcall,
  type TdxModuleArgs,
  tdxModuleArgs,
} from "@swtdx/linux-host";

/** Times that a busy operand is asked for again. */
const BUSY_RETRIES = 16;

/** Operands of a call, then its outputs once somebody asks for them; overwritten by the next. */
const args: TdxModuleArgs = tdxModuleArgs();
/** Where the outputs of the last call still are in the registers. */
let caller: LogicalProcessor | null = null;
const LEAVES = new Map<string, bigint>();

function rax(name: SeamcallName, version: number): bigint {
  const key = version === 0 ? name : `${name}@${version}`;
  let value = LEAVES.get(key);
  if (value === undefined) LEAVES.set(key, (value = leaf(name, version)));
  return value;
}

/** One SEAMCALL; outputs are in the object that `outputs()` gives, until the next one. */
export function tdh(
  lp: LogicalProcessor,
  name: SeamcallName,
  rcx = 0n,
  rdx = 0n,
  r8 = 0n,
  r9 = 0n,
  version = 0,
): bigint {
  setOperands(rcx, rdx, r8, r9);
  caller = lp;
  return seamcall(lp, rax(name, version), args);
}
function setOperands(rcx: bigint, rdx: bigint, r8: bigint, r9: bigint): void {
  args.rcx = rcx;
  args.rdx = rdx;
  args.r8 = r8;
  args.r9 = r9;
  args.r10 = 0n;
  args.r11 = 0n;
}
/** Outputs of the last call, to be asked for before anything else runs on its logical processor. */
export function outputs(): Readonly<TdxModuleArgs> {
  if (caller) readOutputs(caller, args);
  caller = null;
  return args;
}

/** As `tdh`, again while an operand is busy or there is no entropy. */
export function tdhRetry(
  lp: LogicalProcessor,
  name: SeamcallName,
  rcx = 0n,
  rdx = 0n,
  r8 = 0n,
  r9 = 0n,
  version = 0,
): bigint {
  let status = 0n;
  for (let tries = 0; tries < BUSY_RETRIES; tries++) {
    setOperands(rcx, rdx, r8, r9);
    caller = null;
    status = scRetry(lp, rax(name, version), args);
    if (!isBusy(status)) return status;
  }
  return status;
}

export const isBusy = (status: bigint): boolean =>
  statusIs(status, TDX_STATUS.TDX_OPERAND_BUSY) ||
  statusIs(status, TDX_STATUS.TDX_OPERAND_BUSY_HOST_PRIORITY);

/** errno for a status that KVM has no better answer to. */
export const statusErrno = (status: bigint): number => (isBusy(status) ? -Errno.EAGAIN : -Errno.EIO);

/** A SEAMCALL that cannot fail failed: a bug of KVM's (KVM_BUG_ON), or of the module. */
export class TdxBug extends Error {
  override readonly name = "TdxBug";
}
export function mustSucceed(name: SeamcallName, status: bigint): void {
  if (status !== 0n) throw new TdxBug(`SEAMCALL ${name} failed: 0x${status.toString(16)}`);
}
