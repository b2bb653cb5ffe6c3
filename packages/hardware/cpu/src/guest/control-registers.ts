/**
 * MOV to and from control and debug registers, CLTS, LMSW in VMX non-root operation.
 * Intel SDM vol. 3C sections 26.1.3, 26.3; vol. 2B "MOV—Move to/from Control Registers"; vol. 3A 2.5, 4.10.4.
 */
import { REG, Vector } from "@swtdx/x86";
import { Step } from "../interface/engine.js";
import { Phys } from "../memory/physical.js";
import { CR0_FIXED0, CR0_FIXED1, CR4_FIXED0, CR4_FIXED1, ExitReason, PROC, PROC2 } from "../vmx/controls.js";
import { VMCS } from "../vmx/fields.js";
import { GuestMachineCode } from "./machine-code.js";

const CR0_PE = 1n;
const CR0_NW = 0x20000000n;
const CR0_CD = 0x40000000n;
const CR0_PG = 0x80000000n;
const CR0_WP = 0x10000n;
const CR4_PAE = 0x20n;
const CR4_PGE = 0x80n;
const CR4_LA57 = 0x1000n;
const CR4_PCIDE = 0x20000n;
const CR4_SMEP = 0x100000n;
const CR4_CET = 0x800000n;
const EFER_LME = 0x100n;
const EFER_LMA = 0x400n;
const PDPTE_RESERVED_LOW = 0x1e6;

export abstract class GuestControlRegisters extends GuestMachineCode {
  readonly #pdpte = new Uint32Array(8);

  #exitCr(cr: number, type: number, gpr: number, length: number, source = 0): Step {
    return this.exit(ExitReason.CR_ACCESS, cr | (type << 4) | (gpr << 8) | (source * 0x10000), length);
  }
  #gp(): Step {
    return this.raise(Vector.GP, 0);
  }
  /** CPL 0 is needed. */
  protected privileged(): boolean {
    return this.cpl === 0;
  }

  movFromCr(cr: number, gpr: number, length: number): Step {
    if (!this.privileged()) return this.#gp();
    const { regs, v } = this;
    let value: bigint;
    switch (cr) {
      case 0: {
        const mask = v.get(VMCS.CR0_GUEST_HOST_MASK);
        value = (regs.get(REG.CR0) & ~mask) | (v.get(VMCS.CR0_READ_SHADOW) & mask);
        break;
      }
      case 2:
        value = regs.get(REG.CR2);
        break;
      case 3:
        if ((this.proc & PROC.CR3_STORE_EXITING) !== 0) return this.#exitCr(3, 1, gpr, length);
        value = regs.get(REG.CR3);
        break;
      case 4: {
        const mask = v.get(VMCS.CR4_GUEST_HOST_MASK);
        value = (regs.get(REG.CR4) & ~mask) | (v.get(VMCS.CR4_READ_SHADOW) & mask);
        break;
      }
      case 8:
        if ((this.proc & PROC.CR8_STORE_EXITING) !== 0) return this.#exitCr(8, 1, gpr, length);
        value =
          (this.proc & PROC.TPR_SHADOW) !== 0
            ? BigInt((this.vapicRead(0x80) >>> 4) & 0xf)
            : regs.get(REG.CR8);
        break;
      default:
        return this.raise(Vector.UD);
    }
    regs.setGpr(gpr, this.mode64 ? value : value & 0xffffffffn);
    return Step.DONE;
  }

  movToCr(cr: number, gpr: number, length: number): Step {
    if (!this.privileged()) return this.#gp();
    const { regs } = this;
    const value = this.mode64 ? regs.gpr(gpr) : regs.gpr(gpr) & 0xffffffffn;
    switch (cr) {
      case 0:
        return this.#toCr0(value, 0, gpr, length);
      case 2:
        regs.set(REG.CR2, value);
        return Step.DONE;
      case 3:
        return this.#toCr3(value, gpr, length);
      case 4:
        return this.#toCr4(value, gpr, length);
      case 8:
        if ((this.proc & PROC.CR8_LOAD_EXITING) !== 0) return this.#exitCr(8, 0, gpr, length);
        if (value > 15n) return this.#gp();
        if ((this.proc & PROC.TPR_SHADOW) !== 0) return this.tprWritten(Number(value) << 4);
        regs.set(REG.CR8, value);
        return Step.DONE;
      default:
        return this.raise(Vector.UD);
    }
  }
  clts(length: number): Step {
    if (!this.privileged()) return this.#gp();
    const mask = this.v.get(VMCS.CR0_GUEST_HOST_MASK);
    if ((mask & 8n) !== 0n) {
      if ((this.v.get(VMCS.CR0_READ_SHADOW) & 8n) !== 0n) return this.#exitCr(0, 2, 0, length);
      return Step.DONE;
    }
    this.regs.set(REG.CR0, this.regs.get(REG.CR0) & ~8n);
    return Step.DONE;
  }
  lmsw(value: number, length: number): Step {
    if (!this.privileged()) return this.#gp();
    const { regs, v } = this;
    const mask = v.get(VMCS.CR0_GUEST_HOST_MASK);
    const shadow = v.get(VMCS.CR0_READ_SHADOW);
    const source = BigInt(value & 0xf);
    // PE exits only when it would be set; TS, EM, MP when they differ.
    if ((mask & 1n & source & ~shadow) !== 0n || (mask & 0xen & (source ^ shadow)) !== 0n)
      return this.#exitCr(0, 3, 0, length, value & 0xffff);
    const old = regs.get(REG.CR0);
    const wanted = (old & ~0xen) | (source & 0xen) | (source & 1n);
    return this.#loadCr0((wanted & ~mask) | (old & mask));
  }

  #toCr0(value: bigint, type: number, gpr: number, length: number): Step {
    const mask = this.v.get(VMCS.CR0_GUEST_HOST_MASK);
    if (((value ^ this.v.get(VMCS.CR0_READ_SHADOW)) & mask) !== 0n) return this.#exitCr(0, type, gpr, length);
    const old = this.regs.get(REG.CR0);
    return this.#loadCr0((value & ~mask) | (old & mask));
  }
  /** Loads CR0 with the checks of MOV to CR0 and of VMX operation. */
  #loadCr0(value: bigint): Step {
    const { regs, mode } = this;
    const old = regs.get(REG.CR0);
    // ET is always 1; reserved bits below 32 are ignored.
    value = (value & ~0x1ffaffc0n) | 0x10n;
    let fixed0 = BigInt(CR0_FIXED0);
    if ((this.proc2 & PROC2.UNRESTRICTED_GUEST) !== 0) fixed0 &= ~(CR0_PE | CR0_PG);
    const pg = (value & CR0_PG) !== 0n;
    if (
      value > 0xffffffffn ||
      (value & fixed0) !== fixed0 ||
      (value & ~BigInt(CR0_FIXED1)) !== 0n ||
      (pg && (value & CR0_PE) === 0n) ||
      ((value & CR0_NW) !== 0n && (value & CR0_CD) === 0n) ||
      ((value & CR0_WP) === 0n && (regs.get(REG.CR4) & CR4_CET) !== 0n)
    )
      return this.#gp();
    const wasPaging = (old & CR0_PG) !== 0n;
    const efer = regs.get(REG.EFER);
    const cr4 = regs.get(REG.CR4);
    if (pg && !wasPaging) {
      if ((efer & EFER_LME) !== 0n) {
        // Long mode needs PAE, and a code segment that is not already 64-bit.
        if ((cr4 & CR4_PAE) === 0n || (regs.get32(REG.SEGMENT + 24 + 12) & 0x2000) !== 0) return this.#gp();
        regs.set(REG.EFER, efer | EFER_LMA);
      } else if ((cr4 & CR4_PAE) !== 0n) {
        const step = this.#loadPdptes(regs.get(REG.CR3));
        if (step !== Step.DONE) return step;
        mode.pdptes.set(this.#pdpte);
      }
    } else if (!pg && wasPaging) {
      if (this.mode64 || (cr4 & CR4_PCIDE) !== 0n) return this.#gp();
      regs.set(REG.EFER, efer & ~EFER_LMA);
    }
    regs.set(REG.CR0, value);
    if (((old ^ value) & (CR0_PG | CR0_WP | CR0_PE)) !== 0n) this.tlb.flushVpid(this.vpid, false);
    this.updateMode();
    return Step.DONE;
  }

  #toCr3(value: bigint, gpr: number, length: number): Step {
    if ((this.proc & PROC.CR3_LOAD_EXITING) !== 0) {
      const count = this.v.lo(VMCS.CR3_TARGET_COUNT);
      let target = false;
      for (let i = 0; i < count; i++) if (this.v.get(VMCS.CR3_TARGET_VALUE0 + 2 * i) === value) target = true;
      if (!target) return this.#exitCr(3, 0, gpr, length);
    }
    const { regs, mode } = this;
    const pcide = (regs.get(REG.CR4) & CR4_PCIDE) !== 0n;
    const keep = pcide && value >> 63n === 1n;
    if (pcide) value &= 0x7fff_ffff_ffff_ffffn;
    if (this.longMode && value >> 52n !== 0n) return this.#gp();
    if (mode.levels === 3) {
      const step = this.#loadPdptes(value);
      if (step !== Step.DONE) return step;
      mode.pdptes.set(this.#pdpte);
    }
    regs.set(REG.CR3, value);
    if (!keep) {
      this.tlb.flushVpid(this.vpid, true, pcide ? Number(value & 0xfffn) : -1);
      this.flushed(-1, -1);
    }
    this.updateMode();
    return Step.DONE;
  }

  #toCr4(value: bigint, gpr: number, length: number): Step {
    const mask = this.v.get(VMCS.CR4_GUEST_HOST_MASK);
    if (((value ^ this.v.get(VMCS.CR4_READ_SHADOW)) & mask) !== 0n) return this.#exitCr(4, 0, gpr, length);
    const { regs, mode } = this;
    const old = regs.get(REG.CR4);
    value = (value & ~mask) | (old & mask);
    const changed = old ^ value;
    if ((value & BigInt(CR4_FIXED0)) !== BigInt(CR4_FIXED0) || (value & ~BigInt(CR4_FIXED1)) !== 0n)
      return this.#gp();
    if (this.longMode && ((value & CR4_PAE) === 0n || (changed & CR4_LA57) !== 0n)) return this.#gp();
    if ((value & changed & CR4_PCIDE) !== 0n && (!this.longMode || (regs.get(REG.CR3) & 0xfffn) !== 0n))
      return this.#gp();
    if ((value & CR4_CET) !== 0n && (regs.get(REG.CR0) & CR0_WP) === 0n) return this.#gp();
    const paging = (regs.get(REG.CR0) & CR0_PG) !== 0n;
    if (
      paging &&
      !this.longMode &&
      (value & CR4_PAE) !== 0n &&
      (changed & (CR4_PAE | CR4_PGE | 0x10n | CR4_SMEP)) !== 0n
    ) {
      const step = this.#loadPdptes(regs.get(REG.CR3));
      if (step !== Step.DONE) return step;
      mode.pdptes.set(this.#pdpte);
    }
    regs.set(REG.CR4, value);
    if ((changed & (CR4_PGE | CR4_PAE | CR4_SMEP | CR4_PCIDE | 0x10n | 0x200000n | CR4_LA57)) !== 0n)
      this.tlb.flushVpid(this.vpid, false);
    this.updateMode();
    return Step.DONE;
  }

  /** Reads the four PAE page-directory-pointer entries at CR3. Reserved bits in a present one give #GP. */
  #loadPdptes(cr3: bigint): Step {
    const base = Number(cr3 & 0xffffffe0n);
    for (let i = 0; i < 4; i++) {
      if (this.readEntry(base + i * 8, 8) !== Phys.OK) return this.memoryFailed();
      this.#pdpte[i * 2] = this.lo;
      this.#pdpte[i * 2 + 1] = this.hi;
      if ((this.lo & 1) !== 0 && ((this.lo & PDPTE_RESERVED_LOW) !== 0 || this.hi >>> 20 !== 0))
        return this.#gp();
    }
    return Step.DONE;
  }

  movFromDr(dr: number, gpr: number, length: number): Step {
    const step = this.#checkDr(dr, 1, gpr, length);
    if (step !== Step.DONE) return step;
    this.regs.setGpr(gpr, this.regs.get(drRegister(dr)));
    return Step.DONE;
  }
  movToDr(dr: number, gpr: number, length: number): Step {
    const step = this.#checkDr(dr, 0, gpr, length);
    if (step !== Step.DONE) return step;
    const value = this.regs.gpr(gpr);
    if (dr >= 4 && value > 0xffffffffn) return this.#gp();
    const at = drRegister(dr);
    if (at === REG.DR6) this.regs.set(at, (value & 0x1e80fn) | 0xfffe07f0n);
    else if (at === REG.DR7) this.regs.set(at, (value & ~0xd000n) | 0x400n);
    else this.regs.set(at, value);
    return Step.DONE;
  }
  #checkDr(dr: number, direction: number, gpr: number, length: number): Step {
    if ((this.regs.get(REG.CR4) & 8n) !== 0n && (dr === 4 || dr === 5)) return this.raise(Vector.UD);
    if ((this.proc & PROC.MOV_DR_EXITING) !== 0)
      return this.exit(ExitReason.DR_ACCESS, dr | (direction << 4) | (gpr << 8), length);
    if (!this.privileged()) return this.#gp();
    // General detect: DR7.GD makes any access #DB.
    if ((this.regs.get(REG.DR7) & 0x2000n) !== 0n) {
      this.regs.set(REG.DR6, this.regs.get(REG.DR6) | 0x2000n);
      this.regs.set(REG.DR7, this.regs.get(REG.DR7) & ~0x2000n);
      return this.raise(Vector.DB);
    }
    return Step.DONE;
  }
}

const drRegister = (dr: number): number =>
  dr < 4 ? REG.DR0 + dr * 8 : dr === 4 || dr === 6 ? REG.DR6 : REG.DR7;
