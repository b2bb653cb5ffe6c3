/**
 * Secure EPT: the entries that map a TD's private GPAs, in pages under the TD's HKID. An entry is handled as two
 * 32-bit halves: bit n >= 32 of the entry is bit n - 32 of `high`.
 *
 * Layout, states and what is allowed in each: TDX module 1.5 base architecture specification, "TD Private Memory
 * Management"; intel/tdx-module src/common/x86_defs/x86_defs.h, include/auto_gen/sept_state_lookup.{h,c},
 * src/common/memory_handlers/sept_manager.{h,c}.
 */
import { type Hpa, type KeyId, type L1SeptStateName, SEPT_STATE, SEPT_STATE_ENCODING } from "@swtdx/abi";
import type { SeamContext } from "@swtdx/cpu";

/** Bits of the low half. */
export const SEPT_LOW = {
  R: 1 << 0,
  W: 1 << 1,
  X: 1 << 2,
  RWX: 7,
  /** Memory type, 6 is write-back. */
  MT_SHIFT: 3,
  MT_MASK: 7 << 3,
  MT_WB: 6 << 3,
  IPAT: 1 << 6,
  /** Page size: the entry maps a page (in every leaf, also at level 0). */
  PS: 1 << 7,
  A: 1 << 8,
  /** In leaves bit 0 of the state's encoding, not a dirty flag. */
  D: 1 << 9,
  /** Entry lock. */
  TDEL: 1 << 11,
} as const;
/** Bits of the high half. */
export const SEPT_HIGH = {
  HPA_MASK: 0x000f_ffff,
  /** Host priority of the entry lock. */
  TDHP: 1 << 20,
  TDEX: 1 << 21,
  TDBW: 1 << 22,
  TDB: 1 << 23,
  TDP: 1 << 24,
  VPW: 1 << 25,
  PW: 1 << 26,
  SSS: 1 << 28,
  /** Suppress #VE. */
  SVE: 0x8000_0000 | 0,
} as const;
const ACCEPT_COUNTER = 0x001f_f000;
const STATE_LOW = SEPT_LOW.D | SEPT_LOW.IPAT | SEPT_LOW.PS;
const STATE_HIGH = SEPT_HIGH.TDEX | SEPT_HIGH.TDBW | SEPT_HIGH.TDB | SEPT_HIGH.TDP;

/** State encodings: PS, IPAT, TDP, TDB, TDBW, TDEX, D from bit 6 to bit 0. */
export const SeptState = SEPT_STATE_ENCODING;
export type SeptState = (typeof SeptState)[keyof typeof SeptState];

/** What holds in a state. */
export interface SeptStateInfo {
  readonly name: L1SeptStateName;
  /** As RDX[15:8] of the functions that report an entry. */
  readonly publicState: number;
  readonly anyBlocked: boolean;
  readonly anyPending: boolean;
  readonly guestAcceptable: boolean;
  readonly tlbTrackingRequired: boolean;
  readonly guestAccessibleLeaf: boolean;
  readonly guestFullyAccessibleLeaf: boolean;
}
type Flag = "b" | "p" | "a" | "t" | "g" | "f";
const info = (name: L1SeptStateName, flags: string): SeptStateInfo => {
  const has = (flag: Flag) => flags.includes(flag);
  return {
    name,
    publicState: SEPT_STATE[name],
    anyBlocked: has("b"),
    anyPending: has("p"),
    guestAcceptable: has("a"),
    tlbTrackingRequired: has("t"),
    guestAccessibleLeaf: has("g"),
    guestFullyAccessibleLeaf: has("f"),
  };
};
/** In the order of the module's state index. b: blocked, p: pending, a: acceptable by the guest, t: TLB tracking required, g: guest-accessible leaf, f: also for writes. */
export const SEPT_STATES: readonly SeptStateInfo[] = [
  info("FREE", ""),
  info("REMOVED", ""),
  info("NL_MAPPED", "t"),
  info("NL_BLOCKED", "bt"),
  info("MAPPED", "tgf"),
  info("BLOCKED", "bt"),
  info("BLOCKEDW", "tg"),
  info("EXPORTED_BLOCKEDW", "g"),
  info("EXPORTED_DIRTY", "tgf"),
  info("EXPORTED_DIRTY_BLOCKEDW", "tg"),
  info("PENDING", "pat"),
  info("PENDING_BLOCKED", "pbt"),
  info("PENDING_BLOCKEDW", "pt"),
  info("PENDING_EXPORTED_BLOCKEDW", "p"),
  info("PENDING_EXPORTED_DIRTY", "pat"),
  info("PENDING_EXPORTED_DIRTY_BLOCKEDW", "pt"),
];
const infoOfEncoding: (SeptStateInfo | undefined)[] = [];
for (const state of SEPT_STATES) infoOfEncoding[SeptState[state.name]] = state;

/** Level of an entry: 0 EPTE (4K), 1 EPDE (2M), 2 EPDPTE (1G), 3 EPML4E, 4 EPML5E. */
export const SeptLevel = { PT: 0, PD: 1, PDPT: 2, PML4: 3, PML5: 4 } as const;

/** The free entry: state FREE, suppress #VE. */
const FREE_LOW = (SeptState.FREE & 1) << 9;
const FREE_HIGH = (((SeptState.FREE >> 1) & 0xf) << 21) | SEPT_HIGH.SVE;
/** 8 free entries: one cache line of a fresh Secure EPT page. */
export const SEPT_FREE_ENTRY = { low: FREE_LOW >>> 0, high: FREE_HIGH >>> 0 } as const;

/** An entry found by a walk: where it is and what it held. Reused by its owner. */
export class SeptEntry {
  pa = 0 as Hpa;
  keyId = 0 as KeyId;
  level = 0;
  low = 0;
  high = 0;

  /** State encoding, one of SeptState. */
  get state(): SeptState {
    return (((this.low >> 9) & 1) |
      (((this.high >> 21) & 0xf) << 1) |
      (((this.low >> 6) & 3) << 5)) as SeptState;
  }
  get info(): SeptStateInfo {
    const found = infoOfEncoding[this.state];
    if (!found) throw new Error(`Secure EPT entry at 0x${this.pa.toString(16)} has no valid state`);
    return found;
  }
  get leaf(): boolean {
    return (this.low & SEPT_LOW.PS) !== 0;
  }
  get present(): boolean {
    return (this.low & SEPT_LOW.RWX) !== 0;
  }
  /** The frame or table the entry refers to. */
  get hpa(): Hpa {
    return ((this.high & SEPT_HIGH.HPA_MASK) * 0x1_0000_0000 + ((this.low & 0xffff_f000) >>> 0)) as Hpa;
  }
  get locked(): boolean {
    return (this.low & SEPT_LOW.TDEL) !== 0;
  }

  read(lp: SeamContext): void {
    lp.readHalves(this.pa, this.keyId);
    this.low = lp.low;
    this.high = lp.high;
  }
  write(lp: SeamContext): void {
    lp.writeHalves(this.pa, this.keyId, this.low >>> 0, this.high >>> 0);
  }

  /** Takes the entry lock for the host. @returns false when it is taken (host priority is then noted) */
  lockForHost(lp: SeamContext): boolean {
    this.read(lp);
    if (this.low & SEPT_LOW.TDEL) {
      this.high |= SEPT_HIGH.TDHP;
      this.write(lp);
      return false;
    }
    this.low |= SEPT_LOW.TDEL;
    this.high &= ~SEPT_HIGH.TDHP;
    this.write(lp);
    return true;
  }
  /** Takes the entry lock for the guest. */
  lockForGuest(lp: SeamContext): "ok" | "busy" | "busyHostPriority" {
    this.read(lp);
    if (this.low & SEPT_LOW.TDEL) return "busy";
    if (this.high & SEPT_HIGH.TDHP) return "busyHostPriority";
    this.low |= SEPT_LOW.TDEL;
    this.write(lp);
    return "ok";
  }
  unlock(lp: SeamContext): void {
    this.read(lp);
    this.low &= ~SEPT_LOW.TDEL;
    this.write(lp);
  }

  /** Replaces the state, keeps the rest, suppresses #VE. */
  setState(state: SeptState): void {
    this.low = (this.low & ~STATE_LOW) | ((state & 1) << 9) | ((state >> 5) << 6);
    this.high = (this.high & ~STATE_HIGH) | (((state >> 1) & 0xf) << 21) | SEPT_HIGH.SVE;
  }
  /** A leaf that maps `hpa`: write-back, with the given access rights, unlocked. */
  setLeaf(state: SeptState, hpa: number, rights: number): void {
    this.low = (hpa & 0xffff_f000) | SEPT_LOW.MT_WB | SEPT_LOW.IPAT | rights;
    this.high = Math.floor(hpa / 0x1_0000_0000) & SEPT_HIGH.HPA_MASK;
    this.setState(state);
  }
  /** A present entry that refers to the table at `hpa`, unlocked. */
  setTable(hpa: number): void {
    this.low = (hpa & 0xffff_f000) | SEPT_LOW.RWX;
    this.high = Math.floor(hpa / 0x1_0000_0000) & SEPT_HIGH.HPA_MASK;
    this.setState(SeptState.NL_MAPPED);
  }
  /** Forgets how far the guest has come in accepting a 2 MiB page (the counter in the address's low bits). */
  cleanupPending(): void {
    if (this.level === SeptLevel.PD && this.info.anyPending && this.info.guestAcceptable)
      this.low &= ~ACCEPT_COUNTER;
  }
  setFree(): void {
    this.low = FREE_LOW;
    this.high = FREE_HIGH;
  }

  /** RCX of the functions that report an entry: what the architecture lets the host see. */
  get archEntry(): bigint {
    const state = this.state;
    if (state === SeptState.FREE) return 1n << 63n;
    if (!this.leaf) return BigInt(this.low & (SEPT_LOW.RWX | SEPT_LOW.PS));
    const low =
      (this.low & (0xffff_f000 | SEPT_LOW.RWX | SEPT_LOW.MT_MASK | SEPT_LOW.IPAT | SEPT_LOW.PS)) >>> 0;
    const high = (this.high & (SEPT_HIGH.HPA_MASK | SEPT_HIGH.SVE)) >>> 0;
    return (BigInt(high) << 32n) | BigInt(low);
  }
  /** RDX of the functions that report an entry: level in bits 2:0, public state in bits 15:8. */
  get archInfo(): bigint {
    return BigInt(this.level | (this.info.publicState << 8));
  }
}

/** Index into the table of `level` for a GPA. */
export function septIndex(gpa: number, level: number): number {
  const low = gpa >>> 0;
  const high = Math.floor(gpa / 0x1_0000_0000);
  switch (level) {
    case 0:
      return (low >>> 12) & 511;
    case 1:
      return (low >>> 21) & 511;
    case 2:
      return ((low >>> 30) | (high << 2)) & 511;
    case 3:
      return (high >>> 7) & 511;
    default:
      return (high >>> 16) & 511;
  }
}

/**
 * Walks from the root to the entry of `requestedLevel`, or to the last one there is: not present, or a leaf.
 * @param root HPA of the root table
 * @param rootLevel its level: 3 for 4-level EPT, 4 for 5-level
 */
export function septWalk(
  lp: SeamContext,
  root: number,
  rootLevel: number,
  keyId: KeyId,
  gpa: number,
  requestedLevel: number,
  out: SeptEntry,
): void {
  let table = root;
  out.keyId = keyId;
  for (let level = rootLevel; ; level--) {
    out.pa = (table + septIndex(gpa, level) * 8) as Hpa;
    out.level = level;
    out.read(lp);
    if (level === requestedLevel || !out.present || out.leaf || level === 0) return;
    table = out.hpa;
  }
}
