/**
 * The VMX instructions in root operation, for host software and for SEAM software.
 * Intel SDM vol. 3C chapter 31 ("VMX instruction reference"): order of checks as in each instruction's operation.
 */
import { REG } from "@swtdx/x86";
import { OK, FAIL_INVALID, failValid, GP0, UD } from "../outcomes.js";
import type { Fault, VmEntryOutcome, VmExit, VmFail, VmxOutcome } from "../interface/outcome.js";
import type { MsrFile } from "../msr/msr-file.js";
import type { PhysicalMemory } from "../memory/physical.js";
import type { Guest } from "../guest/guest.js";
import { isCanonical } from "../msr/msr-file.js";
import { ExitReason, VmxError } from "./controls.js";
import { newCheckContext, type CheckContext } from "./entry-checks.js";
import { FieldWidth, fieldType, fieldWidth, VMCS } from "./fields.js";
import {
  checkContext,
  checkControlsAndHost,
  checkGuest,
  injectEvent,
  loadGuest,
  loadHost,
  recordEntryFailure,
  saveGuest,
} from "./transition.js";
import { fieldIndex, Vmcs, VMCS_REVISION } from "./vmcs.js";
import type { RegisterFile } from "@swtdx/x86";
import type { Step } from "../interface/engine.js";

/** What the instructions need of their logical processor. */
export interface VmxOwner {
  readonly regs: RegisterFile;
  readonly guest: Guest;
  readonly msrs: MsrFile;
  readonly phys: PhysicalMemory;
  /** Runs the guest, beginning with an event or not, until a VM exit is recorded. */
  runGuest(first: Step): void;
  /** VMX abort: the logical processor shuts down. */
  vmxAbort(): never;
  vmEntered(): void;
  /** A VM entry from SEAM root mode is about to change registers that SEAMRET restores. */
  enteringFromSeam(): void;
  /** A number that no VMCS of this processor has. */
  newVmcsIdentity(): number;
}

/** VMCSs that a logical processor keeps track of. */
const MAX_ACTIVE = 64;

/** VMX state of a logical processor. */
export class Vmx {
  /** In VMX operation. */
  on = false;
  /** HPA of the VMXON region. */
  region = -1;
  /** The current VMCS; SEAM root mode has one of its own while a SEAMCALL runs. */
  current: Vmcs | null = null;
  /** Why the last VM entry failed: the check's name. */
  entryFailure = "";
  /** VMCSs that were current and have not been cleared since, the latest last. */
  #active: Vmcs[] = [];
  readonly #checks: CheckContext;
  readonly #exit = { kind: "exit" as const, reason: 0 };
  readonly #failed = (what: string): void => {
    this.entryFailure = what;
  };

  constructor(private readonly lp: VmxOwner) {
    this.#checks = newCheckContext(lp.phys);
    lp.phys.onFrameChange((frame) => {
      for (const vmcs of this.#active) vmcs.frameLost(frame);
    });
  }

  reset(): void {
    this.on = false;
    this.region = -1;
    this.current = null;
    this.#active = [];
    this.entryFailure = "";
  }

  /** A VMX instruction's address operand: aligned, within the physical-address width. Outside SEAM no private KeyID. */
  #addressValid(pa: number, seam: boolean): boolean {
    if (!(pa >= 0 && pa < 2 ** 52 && pa % 4096 === 0)) return false;
    this.lp.phys.split(pa);
    return seam || !this.lp.phys.isPrivate(this.lp.phys.keyId);
  }
  /** VMfail: valid if there is a current VMCS to hold the number. */
  fail(error: number): VmFail {
    if (!this.current) return FAIL_INVALID;
    this.current.set(VMCS.VM_INSTRUCTION_ERROR, error);
    return failValid(error);
  }

  vmxon(region: number): VmxOutcome {
    const { lp } = this;
    if ((lp.regs.get32(REG.CR4) & 0x2000) === 0) return UD;
    if (this.on) return this.fail(VmxError.VMXON_IN_ROOT);
    // Locked, with VMX outside SMX enabled.
    if ((lp.msrs.raw(0x3a) & 5n) !== 5n) return GP0;
    if ((lp.regs.get32(REG.CR0) & 0x80000021) >>> 0 !== 0x80000021) return GP0;
    if (!this.#addressValid(region, false)) return FAIL_INVALID;
    const { phys } = lp;
    phys.split(region);
    phys.readQ(phys.hpa, phys.keyId, false);
    if (phys.lo !== VMCS_REVISION) return FAIL_INVALID;
    this.on = true;
    this.region = region;
    this.current = null;
    return OK;
  }
  vmxoff(): VmxOutcome {
    if (!this.on) return UD;
    this.release(false);
    this.on = false;
    this.region = -1;
    return OK;
  }
  /** Writes the current VMCS back and makes none current. */
  release(seam: boolean): void {
    const { current } = this;
    this.current = null;
    // The SEAM transfer VMCS has no region.
    if (!current || current.pa < 0) return;
    current.store(this.lp.phys, seam);
  }
  /** The processor's knowledge of a VMCS, if it is active. */
  #find(pa: number): Vmcs | null {
    const active = this.#active;
    for (let i = active.length - 1; i >= 0; i--) if (active[i].pa === pa) return active[i];
    return null;
  }

  vmclear(pa: number, seam: boolean): VmxOutcome {
    if (!this.on) return UD;
    if (!this.#addressValid(pa, seam)) return this.fail(VmxError.VMCLEAR_INVALID_ADDRESS);
    if (pa === this.region) return this.fail(VmxError.VMCLEAR_VMXON_POINTER);
    const { phys } = this.lp;
    this.#active = this.#active.filter((vmcs) => vmcs.pa !== pa);
    if (this.current?.pa === pa) {
      this.current.launched = false;
      this.release(seam);
      return OK;
    }
    // Not current: only the launch state in the region is cleared.
    phys.split(pa);
    const { hpa, keyId } = phys;
    const status = phys.readQ(hpa + 8, keyId, seam);
    if (status !== 0) return { kind: "fault", vector: 18, errorCode: null, address: hpa };
    phys.writeQ(hpa + 8, keyId, 0, phys.hi, seam);
    return OK;
  }
  vmptrld(pa: number, seam: boolean): VmxOutcome {
    if (!this.on) return UD;
    if (!this.#addressValid(pa, seam)) return this.fail(VmxError.VMPTRLD_INVALID_ADDRESS);
    if (pa === this.region) return this.fail(VmxError.VMPTRLD_VMXON_POINTER);
    if (this.current?.pa === pa) return OK;
    const { phys } = this.lp;
    phys.split(pa);
    const active = this.#find(pa);
    const vmcs = active ?? new Vmcs(pa, phys.hpa, phys.keyId);
    // Another current VMCS stays intact until the new one is known to be good.
    const revision = vmcs.load(phys, seam);
    if (revision < 0) return { kind: "fault", vector: 18, errorCode: null, address: vmcs.hpa };
    if (revision !== VMCS_REVISION) return this.fail(VmxError.VMPTRLD_WRONG_REVISION);
    this.release(seam);
    if (vmcs.identity === 0) vmcs.identity = this.lp.newVmcsIdentity();
    this.current = vmcs;
    if (active === null) {
      // Software has to clear a VMCS before it uses the region for something else.
      if (this.#active.length >= MAX_ACTIVE) this.#active.shift();
      this.#active.push(vmcs);
    }
    return OK;
  }

  vmread(field: number): { kind: "ok"; value: bigint } | VmFail | Fault {
    if (!this.on) return UD;
    if (!this.current) return FAIL_INVALID;
    const value = this.current.read(field);
    return value === null ? this.fail(VmxError.UNSUPPORTED_FIELD) : { kind: "ok", value };
  }
  vmwrite(field: number, value: bigint): VmxOutcome {
    if (!this.on) return UD;
    if (!this.current) return FAIL_INVALID;
    // Read-only fields may be written: IA32_VMX_MISC[29].
    return this.current.write(field, BigInt.asUintN(64, value)) ? OK : this.fail(VmxError.UNSUPPORTED_FIELD);
  }

  /** One half of what VMREAD gives; -1: it fails. */
  readHalf(field: number, high: boolean): number {
    const { current } = this;
    if (!this.on || current === null) return -1;
    return high ? current.readHigh(field) : current.readLow(field);
  }
  writeHalves(field: number, low: number, high: number): boolean {
    return this.on && this.current !== null && this.current.writeHalves(field, low, high);
  }

  invept(type: number, eptp: bigint): VmxOutcome {
    if (!this.on) return UD;
    const { guest, phys } = this.lp;
    if (type === 2) guest.tlb.flushAllEpt();
    else if (type === 1) {
      const low = Number(eptp & 0xfffn);
      const levels = (low >>> 3) & 7;
      if (
        ((low & 7) !== 6 && (low & 7) !== 0) ||
        (levels !== 3 && levels !== 4) ||
        (low & 0xf80) !== 0 ||
        eptp >> 52n !== 0n
      )
        return this.fail(VmxError.INVALID_INVEPT_INVVPID_OPERAND);
      const base = Number(eptp & 0xf_ffff_ffff_f000n);
      phys.split(base);
      const { hpa, keyId } = phys;
      guest.tlb.flushEpt(base, (own) => {
        if (own < 0) return false;
        phys.split(own);
        // A TD's EPT pointer has no KeyID: it names its tables whatever the TD's HKID is.
        return phys.hpa === hpa && (keyId === 0 || phys.keyId === keyId);
      });
    } else return this.fail(VmxError.INVALID_INVEPT_INVVPID_OPERAND);
    guest.flushed(-1, -1);
    return OK;
  }
  invvpid(type: number, vpid: number, gla: bigint): VmxOutcome {
    if (!this.on) return UD;
    const { guest } = this.lp;
    const bad = (): VmxOutcome => this.fail(VmxError.INVALID_INVEPT_INVVPID_OPERAND);
    if (type > 3 || (type !== 2 && (vpid === 0 || vpid > 0xffff))) return bad();
    if (type === 0) {
      if (!isCanonical(gla, 57)) return bad();
      const low = Number(gla & 0xffffffffn);
      const high = Number((gla >> 32n) & 0xffffffffn);
      guest.tlb.flushPage(vpid, -1, ((low >>> 12) | (high << 20)) >>> 0, high >>> 12);
    } else if (type === 1) guest.tlb.flushVpid(vpid, false);
    else if (type === 2) guest.tlb.flushAllVpids();
    else guest.tlb.flushVpid(vpid, true);
    guest.flushed(-1, -1);
    return OK;
  }

  /** VMLAUNCH, VMRESUME. */
  enter(launch: boolean, seam: boolean): VmEntryOutcome {
    if (!this.on) return UD;
    const v = this.current;
    if (!v) return FAIL_INVALID;
    const { lp } = this;
    if (launch && v.launched) return this.fail(VmxError.VMLAUNCH_NOT_CLEAR);
    if (!launch && !v.launched) return this.fail(VmxError.VMRESUME_NOT_LAUNCHED);
    const c = checkContext(this.#checks, v, seam);
    const error = checkControlsAndHost(c, this.#failed);
    if (error !== 0) return this.fail(error);
    const qualification = checkGuest(c, this.#failed);
    if (qualification >= 0) return this.#entryFailed(v, ExitReason.INVALID_GUEST_STATE, qualification, seam);
    if (seam) lp.enteringFromSeam();
    const entry = loadGuest(lp, c);
    if (entry !== 0) return this.#entryFailed(v, ExitReason.MSR_LOADING, entry, seam);
    // An entry that succeeds launches, whatever happens then.
    if (launch) v.launched = true;
    lp.vmEntered();
    lp.runGuest(injectEvent(lp, v));
    // Somebody wrote to the region while the guest ran: nothing can be gone on with.
    if (v.lost) lp.vmxAbort();
    saveGuest(lp, v);
    if (!loadHost(lp, v, true, seam)) lp.vmxAbort();
    return this.#exited(v.lo(VMCS.VM_EXIT_REASON));
  }
  #entryFailed(v: Vmcs, reason: number, qualification: number, seam: boolean): VmExit {
    if (seam) this.lp.enteringFromSeam();
    const full = recordEntryFailure(v, reason, qualification);
    if (!loadHost(this.lp, v, false, seam)) this.lp.vmxAbort();
    return this.#exited(full);
  }
  #exited(reason: number): VmExit {
    this.#exit.reason = reason;
    return this.#exit;
  }
}

/** Whether VMREAD and VMWRITE know an encoding, and what it is: for software that lists fields. */
export const fieldExists = (encoding: number): boolean => fieldIndex(encoding) >= 0;
export const fieldIsReadOnly = (encoding: number): boolean => fieldType(encoding) === 1;
export const fieldBits = (encoding: number): 16 | 32 | 64 => {
  const width = fieldWidth(encoding);
  return width === FieldWidth.W16 ? 16 : width === FieldWidth.W32 || (encoding & 1) === 1 ? 32 : 64;
};
