/**
 * VM exit of control-register access: MOV to CR0 and CR4, LMSW.
 *
 * Source: intel/tdx-module 1.5.05 src/td_dispatcher/vm_exits/td_other_exits.c (td_cr_access_exit).
 */
import { Gpr, VMCS } from "@swtdx/cpu";
import type { VpContext } from "../entry/vp-context.js";
import { writeGuestCr0, writeGuestCr4 } from "../tables/control-registers.js";
import { ExitReason } from "../tables/exit-reasons.js";
import { injectGp, injectVe } from "./inject.js";

const MOV_TO_CR = 0;
const LMSW = 3;
/** CR0 bits that LMSW writes: MP, EM, TS. PE is 1 already. */
const LMSW_MASK = 0xen;

/** @returns false for an access that never exits (but in a TD under debug) */
export function tdCrAccessExit(vp: VpContext): boolean {
  const { lp } = vp;
  const qualification = Number(vp.exitQualification & 0xffff_ffffn);
  switch ((qualification >> 4) & 3) {
    case MOV_TO_CR: {
      const gpr = (qualification >> 8) & 0xf;
      const value = gpr === Gpr.RSP ? lp.vmread(VMCS.GUEST_RSP) : vp.regs.gpr(gpr);
      const cr0 = lp.vmread(VMCS.GUEST_CR0);
      const cr = qualification & 0xf;
      if (cr !== 0 && cr !== 4) return false;
      const write =
        cr === 0
          ? writeGuestCr0(value, cr0, lp.vmread(VMCS.GUEST_CR4), vp.platform.crFixed)
          : writeGuestCr4(value, cr0, vp.platform.crFixed, vp.attributes, vp.xfam);
      if (write.kind === "load") lp.vmwrite(VMCS.GUEST_CR0, write.value);
      else if (write.kind === "GP") injectGp(vp);
      else injectVe(vp, ExitReason.CR_ACCESS, vp.exitQualification);
      return true;
    }
    case LMSW: {
      const source = BigInt(qualification >>> 16);
      lp.vmwrite(VMCS.GUEST_CR0, (lp.vmread(VMCS.GUEST_CR0) & ~LMSW_MASK) | (source & LMSW_MASK));
      return true;
    }
    default:
      return false;
  }
}
