/** The MSRs of a logical processor as RDMSR and WRMSR see them: the table's rules, and the special ones. */
import { REG, RegisterFile, SEG, SegmentRegister } from "@swtdx/x86";
import { MSR_TABLE, type MsrRule } from "./table.js";

/** What special MSRs do in the rest of the processor. */
export interface MsrOwner {
  readonly regs: RegisterFile;
  tscNow(): bigint;
  setTscOffset(offset: bigint): void;
  tscOffset(): bigint;
  inSeam(): boolean;
  interruptsPending(): bigint;
  apicRead(index: number): bigint | null;
  apicWrite(index: number, value: bigint): boolean;
  readTscDeadline(): bigint;
  writeTscDeadline(value: bigint): void;
  /** IA32_TME_ACTIVATE was locked with this value. */
  tmeActivated(value: bigint): void;
  /** IA32_SEAMRR_* changed. */
  seamrrChanged(): void;
  /** Paging-relevant state changed by an MSR (EFER). */
  modeChanged(): void;
}

/** Number of each MSR in the table, -1 for one that is not there: those from 0, and those from 0xC0000000. */
const SLOTS = new Int16Array(0x2000).fill(-1);
const HIGH_SLOTS = new Int16Array(0x200).fill(-1);
const HIGH = 0xc000_0000;
MSR_TABLE.forEach(({ index }, slot) => {
  if (index >= HIGH) HIGH_SLOTS[index - HIGH] = slot;
  else SLOTS[index] = slot;
});
/** Where an MSR is kept; -1: there is none. */
export function msrSlot(index: number): number {
  if (index < SLOTS.length) return SLOTS[index];
  return index >= HIGH && index < HIGH + HIGH_SLOTS.length ? HIGH_SLOTS[index - HIGH] : -1;
}

/** Rules under which RDMSR gives what is stored. */
const SPECIAL_READ: ReadonlySet<MsrRule> = new Set<MsrRule>([
  "tsc",
  "tscAdjust",
  "tscDeadline",
  "efer",
  "pat",
  "xss",
  "register",
  "segmentBase",
  "seamOnly",
  "interruptPending",
  "predCmd",
  "command",
]);
const STORED = MSR_TABLE.map(({ rule }) => !SPECIAL_READ.has(rule));

/** Where MSRs that live in the register file are. */
const REGISTER: Readonly<Record<number, { at: number; canonical?: boolean; bits?: bigint }>> = {
  0x174: { at: REG.SYSENTER_CS },
  0x175: { at: REG.SYSENTER_ESP, canonical: true },
  0x176: { at: REG.SYSENTER_EIP, canonical: true },
  0xc0000081: { at: REG.STAR },
  0xc0000082: { at: REG.LSTAR, canonical: true },
  0xc0000083: { at: REG.CSTAR, canonical: true },
  0xc0000084: { at: REG.FMASK, bits: 0xffffffffn },
  0xc0000102: { at: REG.KERNEL_GS_BASE, canonical: true },
  0xc0000103: { at: REG.TSC_AUX, bits: 0xffffffffn },
};

/** Width in bits of linear addresses: MSRs are checked for it whatever CR4.LA57 is. SDM vol. 3A 3.3.7.1. */
export const LINEAR_BITS = 57;
/** Whether bits 63:bits-1 of an address are all equal. */
export function isCanonical(value: bigint, bits: number): boolean {
  const top = BigInt.asUintN(64, value) >> BigInt(bits - 1);
  return top === 0n || top === (1n << BigInt(65 - bits)) - 1n;
}

/** PAT and MTRR memory types: 0 UC, 1 WC, 4 WT, 5 WP, 6 WB; PAT has 7 UC- too. */
const isPat = (value: bigint): boolean => {
  for (let i = 0n; i < 64n; i += 8n) {
    const type = (value >> i) & 0xffn;
    if (type > 7n || type === 2n || type === 3n) return false;
  }
  return true;
};
const isMtrrType = (type: bigint): boolean => type === 0n || type === 1n || (type >= 4n && type <= 6n);

/** EFER: SCE, LME, LMA, NXE. */
export const EFER_SCE = 1n;
export const EFER_LME = 0x100n;
export const EFER_LMA = 0x400n;
export const EFER_NXE = 0x800n;
const EFER_WRITABLE = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
/** XSS components: PT, CET_U, CET_S, LBR. */
export const XSS_SUPPORTED = 0x9900n;

export class MsrFile {
  /** Stored values by slot, as halves: VM entries and exits move them. */
  readonly low = new Uint32Array(MSR_TABLE.length);
  readonly high = new Uint32Array(MSR_TABLE.length);

  /** @param shared values of MSRs that exist once for the package */
  constructor(
    private readonly owner: MsrOwner,
    private readonly shared: Map<number, bigint>,
  ) {
    this.reset();
  }

  reset(): void {
    for (const { index, reset } of MSR_TABLE) this.setRaw(index, reset);
  }

  /** The stored value, without side effects or checks. */
  raw(index: number): bigint {
    const slot = msrSlot(index);
    return slot < 0 ? 0n : this.#stored(slot, index);
  }
  #stored(slot: number, index: number): bigint {
    if (MSR_TABLE[slot].package) return this.shared.get(index) ?? 0n;
    const low = this.low[slot];
    const high = this.high[slot];
    if (high === 0) return low === 0 ? 0n : BigInt(low);
    return (BigInt(high) << 32n) | BigInt(low);
  }
  setRaw(index: number, value: bigint): void {
    const slot = msrSlot(index);
    if (slot < 0) return;
    if (MSR_TABLE[slot].package) this.shared.set(index, value);
    else {
      this.low[slot] = Number(value & 0xffff_ffffn);
      this.high[slot] = Number((value >> 32n) & 0xffff_ffffn);
    }
  }

  /** RDMSR: null is #GP(0). */
  read(index: number): bigint | null {
    index >>>= 0;
    if (index >= 0x800 && index <= 0x8ff) return this.owner.apicRead(index);
    const slot = msrSlot(index);
    if (slot < 0) return null;
    if (STORED[slot]) return this.#stored(slot, index);
    const owner = this.owner;
    switch (MSR_TABLE[slot].rule) {
      case "tsc":
        return owner.tscNow();
      case "tscAdjust":
        return owner.tscOffset();
      case "tscDeadline":
        return owner.readTscDeadline();
      case "efer":
        return owner.regs.get(REG.EFER);
      case "pat":
        return owner.regs.get(REG.PAT);
      case "xss":
        return owner.regs.get(REG.XSS);
      case "register":
        return owner.regs.get(REGISTER[index].at);
      case "segmentBase":
        return owner.regs.get(segmentBase(index));
      case "seamOnly":
        return owner.inSeam() ? this.raw(index) : null;
      case "interruptPending":
        return owner.inSeam() ? owner.interruptsPending() : null;
      case "predCmd":
      case "command":
        return index === 0x79 || index === 0x49 || index === 0x10b ? null : 0n;
      default:
        return this.raw(index);
    }
  }

  /** One half of what RDMSR gives; -1 is #GP(0). */
  readHalf(index: number, high: boolean): number {
    const slot = msrSlot(index);
    if (slot >= 0 && STORED[slot] && !MSR_TABLE[slot].package) return high ? this.high[slot] : this.low[slot];
    const value = this.read(index);
    return value === null ? -1 : Number(high ? value >> 32n : BigInt.asUintN(32, value));
  }

  /** WRMSR: false is #GP(0). */
  write(index: number, value: bigint): boolean {
    index >>>= 0;
    value = BigInt.asUintN(64, value);
    if (index >= 0x800 && index <= 0x8ff) return this.owner.apicWrite(index, value);
    const slot = msrSlot(index);
    if (slot < 0) return false;
    const one = MSR_TABLE[slot];
    const owner = this.owner;
    const reserved = value & ~one.writable;
    switch (one.rule) {
      case "ro":
      case "keyIdPartitioning":
      case "seamOnly":
      case "interruptPending":
        return false;
      case "mask":
        if (reserved !== 0n) return false;
        break;
      case "keep":
        value = (value & one.writable) | (this.raw(index) & ~one.writable);
        break;
      case "canonical":
        if (!isCanonical(value, LINEAR_BITS)) return false;
        break;
      case "lock":
        if (reserved !== 0n || ((this.raw(index) >> BigInt(one.lock)) & 1n) === 1n) return false;
        break;
      case "tsc":
        owner.setTscOffset(BigInt.asUintN(64, owner.tscOffset() + value - owner.tscNow()));
        return true;
      case "tscAdjust":
        owner.setTscOffset(value);
        return true;
      case "tscDeadline":
        owner.writeTscDeadline(value);
        return true;
      case "apicBase":
        // x2APIC mode is locked in (IA32_XAPIC_DISABLE_STATUS): EN and EXTD stay set.
        if ((value & ~0xfffff_fffff_d00n) !== 0n || (value & 0xc00n) !== 0xc00n) return false;
        break;
      case "efer": {
        if ((value & ~EFER_WRITABLE) !== 0n) return false;
        const old = owner.regs.get(REG.EFER);
        const paging = (owner.regs.get(REG.CR0) & 0x80000000n) !== 0n;
        if (paging && ((old ^ value) & EFER_LME) !== 0n) return false;
        owner.regs.set(REG.EFER, (value & ~EFER_LMA) | (old & EFER_LMA));
        owner.modeChanged();
        return true;
      }
      case "pat":
        if (!isPat(value)) return false;
        owner.regs.set(REG.PAT, value);
        return true;
      case "xss":
        if ((value & ~XSS_SUPPORTED) !== 0n) return false;
        owner.regs.set(REG.XSS, value);
        return true;
      case "mtrrType":
        if (reserved !== 0n || !isMtrrType(value & 0xffn)) return false;
        break;
      case "mtrrFixed":
        for (let i = 0n; i < 64n; i += 8n) if (!isMtrrType((value >> i) & 0xffn)) return false;
        break;
      case "debugctl":
        if (reserved !== 0n) return false;
        break;
      case "mcStatus":
        // Software may only clear machine-check records.
        if (value !== 0n) return false;
        break;
      case "predCmd":
        return reserved === 0n;
      case "command":
        return true;
      case "tmeActivate":
        if ((this.raw(index) & 1n) === 1n || !isTmeActivate(value)) return false;
        value |= 1n;
        this.setRaw(index, value);
        owner.tmeActivated(value);
        return true;
      case "seamrrBase":
      case "seamrrMask":
        if (reserved !== 0n || (this.raw(0x1401) & 0x400n) !== 0n) return false;
        this.setRaw(index, value);
        owner.seamrrChanged();
        return true;
      case "register": {
        const { at, canonical, bits } = REGISTER[index];
        if (canonical && !isCanonical(value, LINEAR_BITS)) return false;
        if (bits !== undefined && (value & ~bits) !== 0n) return false;
        owner.regs.set(at, value);
        return true;
      }
      case "segmentBase":
        if (!isCanonical(value, LINEAR_BITS)) return false;
        owner.regs.set(segmentBase(index), value);
        return true;
    }
    this.setRaw(index, value);
    return true;
  }
}

const segmentBase = (index: number): number =>
  RegisterFile.segment(index === 0xc0000100 ? SegmentRegister.FS : SegmentRegister.GS) + SEG.BASE;

/** IA32_TME_ACTIVATE as hardware accepts it: known policy, no more KeyID bits than there are, known algorithms. */
function isTmeActivate(value: bigint): boolean {
  if ((value & 0x0000_ff00_7fff_fe00n) !== 0n) return false;
  const policy = (value >> 4n) & 0xfn;
  const keyIdBits = (value >> 32n) & 0xfn;
  const tdxBits = (value >> 36n) & 0xfn;
  const algorithms = value >> 48n;
  return policy <= 1n && keyIdBits <= 6n && tdxBits <= keyIdBits && (algorithms & ~3n) === 0n;
}
