/**
 * One SEAMCALL of the TDX module: operands, the structures it works on, the locks it holds.
 */
import { type Hpa, type KeyId, type SeamcallName } from "@swtdx/abi";
import { Gpr, type RegisterFile, type SeamContext } from "@swtdx/cpu";
import { HeldLocks } from "./locks.js";
import type { TdxModule } from "./module.js";
import { SeptEntry } from "./structures/sept.js";
import { TdcsStructure } from "./structures/tdcs.js";
import { TdrStructure } from "./structures/tdr.js";
import { TdvpsStructure } from "./structures/tdvps.js";
import { type GuestSidePlatform, VpContext } from "./entry/vp-context.js";

export class SeamCall {
  readonly regs: RegisterFile;
  readonly locks = new HeldLocks();
  /** Room for the caller's GPRs while a TD runs. */
  readonly vmm = new BigUint64Array(16);
  /** The Secure EPT entry at hand, and whether this call holds its lock. */
  readonly sept = new SeptEntry();
  septLocked = false;
  /** HPA and level of the PAMT entry that `lockPage` found. */
  pamtEntry = 0 as Hpa;
  pamtLevel = 0;
  leaf = 0;
  #tdr: TdrStructure | null = null;
  #tdcs: TdcsStructure | null = null;
  #lastTdcs: TdcsStructure | null = null;
  #lastTdvps: TdvpsStructure | null = null;
  #lastVp: VpContext | null = null;

  constructor(
    readonly lp: SeamContext,
    readonly module: TdxModule,
  ) {
    this.regs = lp.regs;
  }

  get rcx(): bigint {
    return this.regs.gpr(Gpr.RCX);
  }
  get rdx(): bigint {
    return this.regs.gpr(Gpr.RDX);
  }
  get r8(): bigint {
    return this.regs.gpr(Gpr.R8);
  }
  get r9(): bigint {
    return this.regs.gpr(Gpr.R9);
  }
  /** An operand as a number: exact below 2^53, and not less than 2^53 if the register is not. */
  operand(register: number): number {
    const at = register * 8;
    return this.regs.get32(at + 4) * 0x1_0000_0000 + this.regs.get32(at);
  }
  /** Zeroes RCX and RDX. */
  clearRcxRdx(): void {
    const { u32 } = this.regs;
    u32[Gpr.RCX * 2] = 0;
    u32[Gpr.RCX * 2 + 1] = 0;
    u32[Gpr.RDX * 2] = 0;
    u32[Gpr.RDX * 2 + 1] = 0;
  }
  /** Output registers. */
  set(register: keyof typeof Gpr, value: bigint): void {
    this.regs.setGpr(Gpr[register], value);
  }
  /** Zeroes output registers: what a function returns when it fails early. */
  clear(...registers: (keyof typeof Gpr)[]): void {
    for (const register of registers) this.regs.setGpr(Gpr[register], 0n);
  }

  get globalHkid(): KeyId {
    return this.module.globalHkid;
  }
  /** The TD that `lockTdr` found. */
  get tdr(): TdrStructure {
    return this.#tdr!;
  }
  set tdr(value: TdrStructure) {
    this.#tdr = value;
  }
  get tdcs(): TdcsStructure {
    return this.#tdcs!;
  }
  set tdcs(value: TdcsStructure) {
    this.#tdcs = value;
  }

  /** The TD of this call, by its TDR. The object of the call before serves again. */
  useTdr(base: Hpa): void {
    const { globalHkid } = this;
    if (this.#tdr?.base !== base || this.#tdr.keyId !== globalHkid)
      this.#tdr = new TdrStructure(this.lp, base, globalHkid);
  }
  /** Its TDCS, not in use yet: see `tdcs`. */
  findTdcs(): TdcsStructure {
    const { tdr } = this;
    const last = this.#lastTdcs;
    if (last?.tdr === tdr && last.keyId === tdr.hkid) {
      last.forget();
      return last;
    }
    return (this.#lastTdcs = new TdcsStructure(tdr));
  }

  /** A vCPU's TDVPS, by its TDVPR; the TD is known. The object of the call before serves again. */
  findTdvps(tdvpr: Hpa): TdvpsStructure {
    const { hkid } = this.tdr;
    const last = this.#lastTdvps;
    if (last?.tdvprPa === tdvpr && last.keyId === hkid) {
      last.unmap();
      return last;
    }
    return (this.#lastTdvps = new TdvpsStructure(this.lp, tdvpr, hkid));
  }
  /** The vCPU that this call enters. */
  vpContext(platform: GuestSidePlatform, tdvps: TdvpsStructure): VpContext {
    const { tdr, tdcs } = this;
    let vp = this.#lastVp;
    if (vp === null || vp.tdvps !== tdvps || vp.tdcs !== tdcs || vp.platform !== platform)
      vp = this.#lastVp = new VpContext(this.lp, platform, tdr, tdcs, tdvps, this.locks, this.vmm);
    vp.begin(tdr.hkid);
    return vp;
  }

  /** End of the call: nothing stays locked. */
  release(): void {
    if (this.septLocked) {
      this.sept.unlock(this.lp);
      this.septLocked = false;
    }
    this.locks.release(this.lp);
  }
}

/** A SEAMCALL function: operands and outputs in the caller's registers; returns the completion status for RAX. */
export type SeamcallHandler = (call: SeamCall, version: number) => bigint;

export interface SeamcallRow {
  readonly name: SeamcallName;
  readonly handler: SeamcallHandler;
  /** Highest version of the operands (RAX[23:16]). */
  readonly version: number;
  /** Runs before the module is ready (SYS_READY). */
  readonly beforeReady: boolean;
  /** Registers, for the trace. */
  readonly inputs: readonly (keyof typeof Gpr)[];
  readonly outputs: readonly (keyof typeof Gpr)[];
}
