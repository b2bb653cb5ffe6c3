/**
 * VM exit of XSETBV: XCR0 within XFAM, else #GP(0).
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/td_xsetbv.c.
 */
import { Gpr } from "@swtdx/cpu";
import type { VpContext } from "../entry/vp-context.js";
import { checkGuestXcr0Value } from "../tables/attributes.js";
import { injectGp } from "./inject.js";

export function tdXsetbvExit(vp: VpContext): void {
  const { regs } = vp;
  const value = (BigInt(regs.get32(Gpr.RDX * 8)) << 32n) | BigInt(regs.get32(Gpr.RAX * 8));
  if (regs.get32(Gpr.RCX * 8) !== 0 || !checkGuestXcr0Value(value, vp.xfam, vp.platform.xcr0Supported))
    return injectGp(vp);
  vp.lp.xsetbv(value);
}
