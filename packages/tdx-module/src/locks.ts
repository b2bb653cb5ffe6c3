/**
 * Locks of the TDX module: 16-bit words in the structures they guard. One SEAMCALL at a time runs here, but a guest
 * runs inside TDH.VP.ENTER, and one call may name a page twice: then a lock is found taken.
 *
 * Source: intel/tdx-module src/common/helpers/tdx_locks.h.
 */
import { TDX_STATUS, type Hpa, type KeyId } from "@swtdx/abi";
import type { SeamContext } from "@swtdx/cpu";

/** How a lock is taken. */
export const Lock = { NONE: 0, SHARED: 1, EXCLUSIVE: 2 } as const;
export type Lock = (typeof Lock)[keyof typeof Lock];

/** Shared/exclusive lock: bit 0 exclusive, bits 15:1 readers. */
const SHAREX_EXCLUSIVE = 1;
const SHAREX_READER = 2;
/** Shared/exclusive lock with host priority: bit 0 exclusive, bit 1 host priority, bits 15:2 readers. */
const HP_EXCLUSIVE = 1;
const HP_HOST_PRIORITY = 2;
const HP_READER = 4;

/** The status, without operand id. */
export type LockStatus =
  | typeof TDX_STATUS.TDX_SUCCESS
  | typeof TDX_STATUS.TDX_OPERAND_BUSY
  | typeof TDX_STATUS.TDX_OPERAND_BUSY_HOST_PRIORITY;
const { TDX_SUCCESS, TDX_OPERAND_BUSY, TDX_OPERAND_BUSY_HOST_PRIORITY } = TDX_STATUS;

export function acquireSharex(lp: SeamContext, pa: Hpa, key: KeyId, lock: Lock): LockStatus {
  const value = lp.readU16(pa, key);
  if (lock === Lock.EXCLUSIVE) {
    if (value !== 0) return TDX_OPERAND_BUSY;
    lp.writeU16(pa, key, SHAREX_EXCLUSIVE);
    return TDX_SUCCESS;
  }
  lp.writeU16(pa, key, (value + SHAREX_READER) & 0xffff);
  return value & SHAREX_EXCLUSIVE ? TDX_OPERAND_BUSY : TDX_SUCCESS;
}

export function releaseSharex(lp: SeamContext, pa: Hpa, key: KeyId, lock: Lock): void {
  lp.writeU16(pa, key, lock === Lock.EXCLUSIVE ? 0 : (lp.readU16(pa, key) - SHAREX_READER) & 0xffff);
}

/** @param guest the guest side asks: it yields to a waiting host */
export function acquireSharexHp(lp: SeamContext, pa: Hpa, key: KeyId, lock: Lock, guest = false): LockStatus {
  const value = lp.readU16(pa, key);
  if (value === 0) {
    lp.writeU16(pa, key, lock === Lock.EXCLUSIVE ? HP_EXCLUSIVE : HP_READER);
    return TDX_SUCCESS;
  }
  if (lock === Lock.EXCLUSIVE) {
    if (value === HP_HOST_PRIORITY) {
      if (guest) return TDX_OPERAND_BUSY_HOST_PRIORITY;
      lp.writeU16(pa, key, HP_EXCLUSIVE);
      return TDX_SUCCESS;
    }
    if (!guest) lp.writeU16(pa, key, value | HP_HOST_PRIORITY);
    return TDX_OPERAND_BUSY;
  }
  if (guest) {
    if (value & HP_HOST_PRIORITY) return TDX_OPERAND_BUSY_HOST_PRIORITY;
    lp.writeU16(pa, key, (value + HP_READER) & 0xffff);
    return value & HP_EXCLUSIVE ? TDX_OPERAND_BUSY : TDX_SUCCESS;
  }
  const counted = (value + HP_READER) & 0xffff;
  if (value & HP_EXCLUSIVE) {
    lp.writeU16(pa, key, counted | HP_HOST_PRIORITY);
    return TDX_OPERAND_BUSY;
  }
  lp.writeU16(pa, key, counted & ~HP_HOST_PRIORITY);
  return TDX_SUCCESS;
}

export function releaseSharexHp(lp: SeamContext, pa: Hpa, key: KeyId, lock: Lock): void {
  const value = lp.readU16(pa, key);
  lp.writeU16(pa, key, lock === Lock.EXCLUSIVE ? value & HP_HOST_PRIORITY : (value - HP_READER) & 0xffff);
}

/** From shared, held once by the caller, to exclusive. On failure the shared lock is still held. */
export function promoteSharexHp(lp: SeamContext, pa: Hpa, key: KeyId): LockStatus {
  const value = lp.readU16(pa, key);
  if ((value & ~HP_HOST_PRIORITY) === HP_READER) {
    lp.writeU16(pa, key, HP_EXCLUSIVE);
    return TDX_SUCCESS;
  }
  lp.writeU16(pa, key, value | HP_HOST_PRIORITY);
  return TDX_OPERAND_BUSY;
}

/** The locks a call holds, released together at its end. Reused; no allocation once warm. */
export class HeldLocks {
  readonly #pa: Hpa[] = [];
  readonly #key: KeyId[] = [];
  readonly #lock: Lock[] = [];
  readonly #hostPriority: boolean[] = [];
  #count = 0;

  get count(): number {
    return this.#count;
  }

  push(pa: Hpa, key: KeyId, lock: Lock, hostPriority: boolean): void {
    const i = this.#count++;
    this.#pa[i] = pa;
    this.#key[i] = key;
    this.#lock[i] = lock;
    this.#hostPriority[i] = hostPriority;
  }

  /** The newest lock was promoted. */
  replaceNewest(lock: Lock): void {
    this.#lock[this.#count - 1] = lock;
  }

  /** Releases the newest ones until `count` are left. */
  release(lp: SeamContext, count = 0): void {
    while (this.#count > count) {
      const i = --this.#count;
      if (this.#hostPriority[i]) releaseSharexHp(lp, this.#pa[i], this.#key[i], this.#lock[i]);
      else releaseSharex(lp, this.#pa[i], this.#key[i], this.#lock[i]);
    }
  }
}
