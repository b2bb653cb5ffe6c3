/**
 * Acceptance of memory: TDG.MEM.PAGE.ACCEPT by 2 MiB where the range and the VMM's mapping allow, by 4 KiB elsewhere.
 * Follows TdAcceptPages in OvmfPkg/Library/TdxLib and PlatformInitLib/IntelTdx.c (edk2).
 */
import type { Guest } from "@swtdx/abi";
import { statusIs, TDX_STATUS, tdcall } from "@swtdx/abi";
import { reportFatalError } from "../lib/tdx.js";

const SIZE_4K = 0x1000;
const SIZE_2M = 0x20_0000;
const MAX_BUSY_RETRIES = 3;

/** One page at `gpa`; level 0 is 4 KiB, 1 is 2 MiB. @returns whether the size fits the VMM's mapping */
function* acceptPage(gpa: number, level: 0 | 1): Guest<boolean> {
  for (let tries = 0; ; tries++) {
    const { rax } = yield* tdcall("TDG.MEM.PAGE.ACCEPT", { rcx: BigInt(gpa + level) });
    if (rax === 0n || statusIs(rax, TDX_STATUS.TDX_PAGE_ALREADY_ACCEPTED)) return true;
    if (level === 1 && statusIs(rax, TDX_STATUS.TDX_PAGE_SIZE_MISMATCH)) return false;
    if (statusIs(rax, TDX_STATUS.TDX_OPERAND_BUSY) && tries < MAX_BUSY_RETRIES) continue;
    return yield* reportFatalError(`Accepting 0x${gpa.toString(16)} failed: 0x${rax.toString(16)}`);
  }
}

/** Accepts [base, base + size), both multiples of 4 KiB. */
export function* acceptRange(base: number, size: number): Guest<void> {
  const end = base + size;
  for (let at = base; at < end;) {
    if (at % SIZE_2M === 0 && at + SIZE_2M <= end && (yield* acceptPage(at, 1))) {
      at += SIZE_2M;
    } else {
      const stop = Math.min(end, (Math.floor(at / SIZE_2M) + 1) * SIZE_2M);
      for (; at < stop; at += SIZE_4K) yield* acceptPage(at, 0);
    }
  }
}
