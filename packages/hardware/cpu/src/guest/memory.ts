/**
 * A guest's memory: linear address to DRAM through its page tables, EPT and the TLB.
 * Intel SDM vol. 3A chapter 4, vol. 3C chapter 29; TDX: private and shared EPT, KeyIDs (TDX Module Architecture
 * Specification, "Memory encryption and integrity", "Secure EPT").
 */
import { REG, type RegisterFile } from "@swtdx/x86";
import { Step, type GuestEvent } from "../interface/engine.js";
import { Ept, EPT_R, EPT_W, EPT_X, EPT_XU, EptWalker, newEptRoot, type EptRoot } from "../memory/ept.js";
import {
  newPagingMode,
  pageAccessAllowed,
  PagingWalker,
  PF,
  Walk,
  type TableMemory,
} from "../memory/paging.js";
import { Phys, type PhysicalMemory } from "../memory/physical.js";
import { Tlb, TLB, type TlbContext } from "../memory/tlb.js";

const WRITE = 2;
const FETCH = 16;
const ENGINE_FILTER = 65536;

/** Why the last memory access failed, for the events part to turn into #PF, #VE, #MC or a VM exit. */
export const MemFail = {
  NONE: 0,
  PAGE_FAULT: 1,
  EPT_VIOLATION: 2,
  EPT_MISCONFIG: 3,
  MACHINE_CHECK: 4,
  NOT_CANONICAL: 5,
};

export abstract class GuestMemory implements TableMemory {
  readonly mode = newPagingMode();
  readonly tlb = new Tlb();
  readonly ept: EptWalker;
  readonly paging: PagingWalker;
  readonly event: GuestEvent = { vector: 0, type: 3, hasErrorCode: false, errorCode: 0, length: 0 };
  readonly buffer: ArrayBufferLike;
  /** Where VM entry puts the guest's EPTs. */
  readonly ownRoot = newEptRoot();
  readonly ownSharedRoot = newEptRoot();
  /** EPT of the guest; null when it runs without EPT. */
  eptRoot: EptRoot | null = null;
  /** A TD's second EPT, for GPAs with the shared bit. */
  sharedRoot: EptRoot | null = null;
  /** The shared bit of a TD's GPAs as a power of two; 0 in an ordinary guest. */
  sharedBit = 0;
  step: Step = Step.DONE;
  low = 0;
  high = 0;
  done = 0;
  cpl = 0;
  longMode = false;
  mode64 = false;
  /** Halves read by `readEntry`. */
  lo = 0;
  hi = 0;
  /** The failed access: why, linear address, GPA, access, whether it was to a page table. */
  fail = MemFail.NONE;
  failGlaLow = 0;
  failGlaHigh = 0;
  failGpa = 0;
  failAccess = 0;
  failInWalk = false;
  #context: TlbContext;
  #globalContext: TlbContext;
  #listeners: ((pageLow: number, pageHigh: number) => void)[] = [];
  #glaLow = 0;
  #glaHigh = 0;
  readonly #byte8 = new Uint8Array(8);
  readonly #view8 = new DataView(this.#byte8.buffer);

  constructor(
    readonly regs: RegisterFile,
    readonly phys: PhysicalMemory,
  ) {
    this.buffer = phys.arena.memory.buffer;
    this.ept = new EptWalker(phys);
    this.paging = new PagingWalker(this);
    this.#context = this.tlb.context(0, 0, -1, -1);
    this.#globalContext = this.tlb.context(0, -1, -1, -1);
  }

  /** Turns a failed access into an event or exit: sets `step`. */
  protected abstract memoryFailed(): Step;

  /** Recomputes what depends on CR0, CR3, CR4, EFER, CS, SS: after MOV to CR, far transfers, VM entry. */
  updateMode(): void {
    const { regs, mode } = this;
    const cr0 = regs.get32(REG.CR0);
    const cr4 = regs.get32(REG.CR4);
    const efer = regs.get32(REG.EFER);
    const paging = cr0 >>> 31 === 1;
    this.longMode = (efer & 0x400) !== 0;
    mode.levels = !paging ? 0 : (cr4 & 0x20) === 0 ? 2 : !this.longMode ? 3 : (cr4 & 0x1000) !== 0 ? 5 : 4;
    mode.cr3 = regs.get32(REG.CR3) + (regs.get32(REG.CR3 + 4) & 0xfffff) * 0x1_0000_0000;
    mode.wp = (cr0 & 0x10000) !== 0;
    mode.nx = (efer & 0x800) !== 0;
    mode.smep = (cr4 & 0x100000) !== 0;
    mode.smap = (cr4 & 0x200000) !== 0;
    mode.pse = (cr4 & 0x10) !== 0;
    mode.pge = (cr4 & 0x80) !== 0;
    mode.pku = (cr4 & 0x400000) !== 0 && this.longMode;
    mode.pks = (cr4 & 0x1000000) !== 0 && this.longMode;
    const cs = REG.SEGMENT + 1 * 24 + 12;
    this.mode64 = this.longMode && (regs.get32(cs) & 0x2000) !== 0;
    this.cpl = (cr0 & 1) === 0 ? 0 : (regs.get32(REG.SEGMENT + 2 * 24 + 12) >>> 5) & 3;
    const pcid = (cr4 & 0x20000) !== 0 && this.longMode ? regs.get32(REG.CR3) & 0xfff : 0;
    const vpid = this.vpid;
    const ep4ta = this.eptRoot ? this.phys.join(this.eptRoot.base, this.eptRoot.keyId) : -1;
    const shared = this.sharedRoot ? this.phys.join(this.sharedRoot.base, this.sharedRoot.keyId) : -1;
    const { vpid: oldVpid, pcid: oldPcid, ep4ta: oldEp4ta, sharedEp4ta } = this.#context;
    if (vpid !== oldVpid || pcid !== oldPcid || ep4ta !== oldEp4ta || shared !== sharedEp4ta) {
      this.#context = this.tlb.context(vpid, pcid, ep4ta, shared);
      this.#globalContext = this.tlb.context(vpid, -1, ep4ta, shared);
    }
    const { state } = this;
    // Engines keep their translations over VM exits and entries that change nothing about them.
    const same =
      state[0] === cr0 &&
      state[1] === cr4 &&
      state[2] === efer &&
      state[3] === mode.cr3 &&
      state[4] === this.#context.id &&
      state[5] === (regs.get32(REG.CR3 + 4) & 0xfff00000);
    if (!same || vpid === 0 || mode.levels === 3) {
      state[0] = cr0;
      state[1] = cr4;
      state[2] = efer;
      state[3] = mode.cr3;
      state[4] = this.#context.id;
      state[5] = regs.get32(REG.CR3 + 4) & 0xfff00000;
      this.flushed(-1, -1);
    }
  }
  /** What translations depend on, when engines were last told to drop theirs. */
  private readonly state = new Float64Array(6).fill(-1);
  /** VPID of the guest, 0 without VPIDs. */
  vpid = 0;

  onTlbFlush(listener: (pageLow: number, pageHigh: number) => void): void {
    this.#listeners.push(listener);
  }
  /** Tells engines that translations changed: one page, or all (-1). */
  flushed(pageLow: number, pageHigh: number): void {
    if (pageHigh < 0 && this.#engineAny) {
      this.#engineFrames.fill(0);
      this.#engineAny = false;
    }
    for (const listener of this.#listeners) listener(pageLow, pageHigh);
  }

  /** Frames, by hash, that engines with a TLB of their own may hold. */
  readonly #engineFrames = new Uint8Array(ENGINE_FILTER);
  #engineAny = false;
  engineUses(frame: number): boolean {
    return this.#engineFrames[frame % ENGINE_FILTER] !== 0;
  }

  translate(glaLow: number, glaHigh: number, access: number): number {
    glaLow >>>= 0;
    glaHigh >>>= 0;
    if (!this.mode64) glaHigh = 0;
    else if (!this.#canonical(glaHigh)) {
      this.fail = MemFail.NOT_CANONICAL;
      this.failGlaLow = glaLow;
      this.failGlaHigh = glaHigh;
      this.step = this.memoryFailed();
      return -1;
    }
    const pageLow = ((glaLow >>> 12) | (glaHigh << 20)) >>> 0;
    const pageHigh = glaHigh >>> 12;
    const { tlb } = this;
    let index = tlb.find(this.#context.id, pageLow, pageHigh);
    if (index < 0) index = tlb.find(this.#globalContext.id, pageLow, pageHigh);
    if (index < 0 || !this.#usable(index, access)) {
      index = this.#fill(glaLow, glaHigh, pageLow, pageHigh, access);
      if (index < 0) return -1;
    }
    this.#lastIndex = index;
    let base: number;
    if (access === WRITE && this.#engineAsks)
      base = this.phys.frameOfEngine(tlb.frame[index], tlb.keyId[index], false);
    else if (access === WRITE) {
      base = tlb.writeAt[index]!;
      if (base < 0) {
        base = this.phys.frameForWrite(tlb.frame[index], tlb.keyId[index], false);
        tlb.writeAt[index] = base;
      }
    } else {
      base = tlb.readAt[index]!;
      if (base < 0) {
        base = this.phys.frameForRead(tlb.frame[index], tlb.keyId[index], false);
        tlb.readAt[index] = base;
      }
    }
    if (base < 0) {
      this.#slowFrame = tlb.frame[index]!;
      this.#slowKey = tlb.keyId[index]!;
      this.step = Step.DONE;
      return -1;
    }
    return base + (glaLow & 0xfff);
  }
  #slowFrame = 0;
  #slowKey = 0;

  /** Result of `translatePage`: arena offset of the frame, or -1: use `pageRead` and `pageWrite`. */
  pageFrame = -1;
  /** Loads (stores) with the same privilege may use the frame without asking again, until `onTlbFlush` says so. */
  pageReadable = false;
  pageWritable = false;
  /** For engines with a TLB of their own: translates the page of an access made with the given privilege. */
  translatePage(glaLow: number, glaHigh: number, access: number, user: boolean, implicit: boolean): Step {
    const { cpl, mode64 } = this;
    this.cpl = user ? 3 : 0;
    // Linear addresses of compatibility mode are cut by the engine; those of descriptor tables have 64 bits.
    this.mode64 = this.longMode;
    this.#implicit = implicit;
    this.#engineAsks = true;
    this.step = Step.DONE;
    let at = this.translate(glaLow, glaHigh, access);
    if (at < 0 && this.step === Step.DONE) {
      // Zeros that have no frame yet become resident.
      const index = this.#lastIndex;
      const base = this.phys.frameOfEngine(this.tlb.frame[index], this.tlb.keyId[index], false);
      if (base >= 0) at = base + (glaLow & 0xfff);
    }
    this.#engineAsks = false;
    this.mode64 = mode64;
    this.pageFrame = at < 0 ? -1 : at - (glaLow & 0xfff);
    this.pageReadable = false;
    this.pageWritable = false;
    if (at >= 0) {
      const index = this.#lastIndex;
      this.pageReadable = this.#usable(index, 0);
      this.pageWritable =
        this.#usable(index, WRITE) &&
        this.phys.frameOfEngine(this.tlb.frame[index], this.tlb.keyId[index], false) === this.pageFrame;
      const frame = this.tlb.frame[index];
      this.#engineFrames[frame % ENGINE_FILTER] = 1;
      this.#engineAny = true;
      if (access === FETCH) this.phys.codeFetched(frame, this.pageFrame);
    }
    this.cpl = cpl;
    this.#implicit = false;
    return this.step;
  }
  #lastIndex = 0;
  #engineAsks = false;
  /** Access within the page of the last `translatePage` that found no frame. Machine checks set `step`. */
  pageRead(offset: number, target: Uint8Array): Step {
    return this.#pageAccess(offset, target, false);
  }
  pageWrite(offset: number, source: Uint8Array): Step {
    return this.#pageAccess(offset, source, true);
  }
  #pageAccess(offset: number, bytes: Uint8Array, write: boolean): Step {
    const hpa = this.#slowFrame * 4096 + offset;
    const status = write
      ? this.phys.write(hpa, this.#slowKey, bytes, false)
      : this.phys.read(hpa, this.#slowKey, bytes, false);
    if (status === Phys.OK) return Step.DONE;
    this.fail = MemFail.MACHINE_CHECK;
    this.step = this.memoryFailed();
    return this.step;
  }

  #canonical(glaHigh: number): boolean {
    const top = this.mode.levels === 5 ? glaHigh >> 24 : glaHigh >> 15;
    return top === 0 || top === -1;
  }
  /** The access is an implicit supervisor access: SMAP applies whatever EFLAGS.AC is. */
  #implicit = false;
  #smapApplies(): boolean {
    return this.#implicit || (this.regs.get32(REG.RFLAGS) & 0x40000) === 0;
  }
  #usable(index: number, access: number): boolean {
    const flags = this.tlb.flags[index];
    const user = this.cpl === 3;
    if (
      this.mode.levels !== 0 &&
      !pageAccessAllowed(
        this.mode,
        (flags & TLB.WRITABLE) !== 0,
        (flags & TLB.USER) !== 0,
        (flags & TLB.EXECUTABLE) !== 0,
        access,
        user,
        this.#smapApplies(),
      )
    )
      return false;
    if (access === WRITE) {
      const wanted = TLB.EPT_W | TLB.DIRTY | TLB.EPT_DIRTY;
      return (flags & wanted) === wanted && this.#keyAllows(index, access);
    }
    if (access === FETCH) return (flags & ((flags & TLB.USER) !== 0 ? TLB.EPT_XU : TLB.EPT_X)) !== 0;
    return (flags & TLB.EPT_R) !== 0 && this.#keyAllows(index, access);
  }
  /** Protection keys for user pages (PKRU). */
  #keyAllows(index: number, access: number): boolean {
    if (!this.mode.pku || (this.tlb.flags[index] & TLB.USER) === 0) return true;
    return this.#pkruAllows(this.tlb.protectionKey[index], access);
  }
  #pkruAllows(key: number, access: number): boolean {
    const bits = (this.regs.get32(REG.PKRU) >>> (key * 2)) & 3;
    if ((bits & 1) !== 0) return false;
    return (bits & 2) === 0 || access !== WRITE || (this.cpl !== 3 && !this.mode.wp);
  }

  /** Walks and caches. @returns the TLB entry, or -1 with `step` set */
  #fill(glaLow: number, glaHigh: number, pageLow: number, pageHigh: number, access: number): number {
    this.#glaLow = glaLow;
    this.#glaHigh = glaHigh;
    const { paging } = this;
    const status = paging.walk(this.mode, glaLow, glaHigh, access, this.cpl === 3, this.#smapApplies());
    if (status === Walk.FAULT) {
      this.fail = MemFail.PAGE_FAULT;
      this.failGlaLow = glaLow;
      this.failGlaHigh = glaHigh;
      this.step = this.memoryFailed();
      return -1;
    }
    if (status === Walk.BELOW) {
      this.step = this.memoryFailed();
      return -1;
    }
    if (access !== FETCH && this.mode.pku && paging.user && !this.#pkruAllows(paging.protectionKey, access)) {
      paging.errorCode = PF.P | PF.PK | (access & PF.W) | (this.cpl === 3 ? PF.U : 0);
      this.fail = MemFail.PAGE_FAULT;
      this.failGlaLow = glaLow;
      this.failGlaHigh = glaHigh;
      this.step = this.memoryFailed();
      return -1;
    }
    if (!this.#translateGpa(paging.gpa + (glaLow & 0xfff), access, false)) {
      this.step = this.memoryFailed();
      return -1;
    }
    let flags =
      (paging.writable ? TLB.WRITABLE : 0) |
      (paging.user ? TLB.USER : 0) |
      (paging.executable ? TLB.EXECUTABLE : 0) |
      (paging.dirty ? TLB.DIRTY : 0) |
      (paging.global ? TLB.GLOBAL : 0) |
      (paging.level === 0 ? 0 : paging.level === 1 ? TLB.LARGE : TLB.HUGE);
    flags |= this.#gpaFlags;
    const context = paging.global ? this.#globalContext : this.#context;
    const index = this.tlb.insert(context.id, pageLow, pageHigh, this.#gpaHpa / 4096, this.#gpaKey, flags);
    this.tlb.protectionKey[index] = paging.protectionKey;
    return index;
  }

  #gpaHpa = 0;
  #gpaKey = 0;
  #gpaFlags = 0;
  /** Translates a GPA's page: HPA, KeyID, rights. Records why not. */
  #translateGpa(gpa: number, access: number, inWalk: boolean): boolean {
    const shared = this.sharedBit !== 0 && Math.floor(gpa / this.sharedBit) % 2 === 1;
    if (shared && (inWalk || access === FETCH)) {
      // A TD's code and page tables are private: a reserved bit, whatever the shared EPT says.
      const { mode } = this;
      this.paging.errorCode =
        PF.P |
        PF.RSVD |
        (access === FETCH && (mode.nx || mode.smep) ? PF.I : 0) |
        (access & PF.W) |
        (this.cpl === 3 ? PF.U : 0);
      this.fail = MemFail.PAGE_FAULT;
      this.failGlaLow = this.#glaLow;
      this.failGlaHigh = this.#glaHigh;
      return false;
    }
    const root = shared ? this.sharedRoot : this.eptRoot;
    if (!root) {
      // Without EPT, physical addresses are host ones, KeyID bits and all.
      this.phys.split(gpa);
      const page = this.phys.hpa - (this.phys.hpa % 4096);
      if (this.phys.isPrivate(this.phys.keyId)) {
        this.paging.errorCode = PF.P | PF.RSVD | (access & PF.W) | (this.cpl === 3 ? PF.U : 0);
        this.fail = MemFail.PAGE_FAULT;
        this.failGlaLow = this.#glaLow;
        this.failGlaHigh = this.#glaHigh;
        return false;
      }
      this.#gpaHpa = page;
      this.#gpaKey = this.phys.keyId;
      this.#gpaFlags = TLB.EPT_R | TLB.EPT_W | TLB.EPT_X | TLB.EPT_XU | TLB.EPT_DIRTY;
      return true;
    }
    const { ept } = this;
    let status: number;
    if (root.levels === 4 && gpa >= 2 ** 48) {
      ept.rights = 0;
      ept.suppressVe = true;
      status = Ept.VIOLATION;
    } else status = ept.walk(root, gpa);
    if (status === Ept.OK) {
      const executeRight = root.modeBasedExecute && this.paging.user ? EPT_XU : EPT_X;
      const need = access === WRITE ? EPT_W : access === FETCH ? executeRight : EPT_R;
      if ((ept.rights & need) === 0) status = Ept.VIOLATION;
    }
    if (status === Ept.OK) {
      // With accessed and dirty flags, accesses to guest page tables count as writes.
      const write = access === WRITE || inWalk;
      if (root.accessedDirty && !this.#peeking) {
        if (inWalk && (ept.rights & EPT_W) === 0) status = Ept.VIOLATION;
        else ept.setAccessedDirty(write);
      }
    }
    if (status === Ept.OK) {
      const rights = ept.rights;
      this.#gpaHpa = ept.hpa;
      this.#gpaKey = ept.keyId;
      this.#gpaFlags =
        ((rights & EPT_R) !== 0 ? TLB.EPT_R : 0) |
        ((rights & EPT_W) !== 0 ? TLB.EPT_W : 0) |
        ((rights & EPT_X) !== 0 && !shared ? TLB.EPT_X : 0) |
        ((rights & (root.modeBasedExecute ? EPT_XU : EPT_X)) !== 0 && !shared ? TLB.EPT_XU : 0) |
        (!root.accessedDirty || (ept.entryLo & 0x200) !== 0 ? TLB.EPT_DIRTY : 0);
      return true;
    }
    this.failGpa = gpa;
    this.failGlaLow = this.#glaLow;
    this.failGlaHigh = this.#glaHigh;
    this.failAccess = access;
    this.failInWalk = inWalk;
    this.fail =
      status === Ept.VIOLATION
        ? MemFail.EPT_VIOLATION
        : status === Ept.MISCONFIG
          ? MemFail.EPT_MISCONFIG
          : MemFail.MACHINE_CHECK;
    return false;
  }

  readEntry(gpa: number, bytes: 4 | 8): number {
    if (!this.#translateGpa(gpa, 0, true)) return 1;
    const at = this.#gpaHpa + (gpa % 4096);
    if (this.phys.readQ(at - (at % 8), this.#gpaKey, false) !== Phys.OK) {
      this.fail = MemFail.MACHINE_CHECK;
      return 1;
    }
    if (bytes === 8) {
      this.lo = this.phys.lo;
      this.hi = this.phys.hi;
    } else {
      this.lo = at % 8 === 4 ? this.phys.hi : this.phys.lo;
      this.hi = 0;
    }
    return 0;
  }
  setEntryFlags(gpa: number, lo: number, bytes: 4 | 8): number {
    if (this.#peeking) return 0;
    if (!this.#translateGpa(gpa, WRITE, true)) return 1;
    const at = this.#gpaHpa + (gpa % 4096);
    const aligned = at - (at % 8);
    if (this.phys.readQ(aligned, this.#gpaKey, false) !== Phys.OK) {
      this.fail = MemFail.MACHINE_CHECK;
      return 1;
    }
    const second = bytes === 4 && at % 8 === 4;
    const status = second
      ? this.phys.writeQ(aligned, this.#gpaKey, this.phys.lo, lo >>> 0, false)
      : this.phys.writeQ(aligned, this.#gpaKey, lo >>> 0, this.phys.hi, false);
    if (status === Phys.OK) return 0;
    this.fail = MemFail.MACHINE_CHECK;
    return 1;
  }

  load(glaLow: number, glaHigh: number, size: number, access: number): Step {
    const bytes = this.#byte8.subarray(0, size);
    const step = this.#access(glaLow >>> 0, glaHigh >>> 0, bytes, access);
    if (step !== Step.DONE) return step;
    if (size < 8) this.#byte8.fill(0, size);
    this.low = this.#view8.getUint32(0, true);
    this.high = this.#view8.getUint32(4, true);
    return step;
  }
  store(glaLow: number, glaHigh: number, size: number, low: number, high: number): Step {
    // Both pages of a crossing store are checked before either is written.
    glaLow >>>= 0;
    glaHigh >>>= 0;
    if ((glaLow & 0xfff) + size > 4096) {
      const last = glaLow + size - 1;
      if (
        this.translate(last >>> 0, glaHigh + (last > 0xffffffff ? 1 : 0), WRITE) < 0 &&
        this.step !== Step.DONE
      )
        return this.step;
    }
    this.#view8.setUint32(0, low, true);
    this.#view8.setUint32(4, high, true);
    return this.#access(glaLow, glaHigh, this.#byte8.subarray(0, size), WRITE);
  }
  loadBytes(gla: bigint, target: Uint8Array): Step {
    return this.#access(Number(gla & 0xffffffffn), Number((gla >> 32n) & 0xffffffffn), target, 0);
  }
  storeBytes(gla: bigint, source: Uint8Array): Step {
    return this.#access(Number(gla & 0xffffffffn), Number((gla >> 32n) & 0xffffffffn), source, WRITE);
  }

  #access(glaLow: number, glaHigh: number, bytes: Uint8Array, access: number): Step {
    this.done = 0;
    while (this.done < bytes.length) {
      const at = glaLow + this.done;
      const low = at >>> 0;
      const high = (glaHigh + (at > 0xffffffff ? 1 : 0)) >>> 0;
      const length = Math.min(4096 - (low & 0xfff), bytes.length - this.done);
      const offset = this.translate(low, high, access);
      if (offset >= 0) {
        const { u8 } = this.phys;
        if (access === WRITE) for (let i = 0; i < length; i++) u8[offset + i] = bytes[this.done + i]!;
        else for (let i = 0; i < length; i++) bytes[this.done + i] = u8[offset + i]!;
      } else {
        if (this.step !== Step.DONE) return this.step;
        const part = bytes.subarray(this.done, this.done + length);
        const hpa = this.#slowFrame * 4096 + (low & 0xfff);
        const status =
          access === WRITE
            ? this.phys.write(hpa, this.#slowKey, part, false)
            : this.phys.read(hpa, this.#slowKey, part, false);
        if (status !== Phys.OK) {
          this.fail = MemFail.MACHINE_CHECK;
          this.failGlaLow = low;
          this.failGlaHigh = high;
          this.step = this.memoryFailed();
          return this.step;
        }
      }
      this.done += length;
    }
    this.step = Step.DONE;
    return Step.DONE;
  }

  #peeking = false;
  /**
   * Reads without a trace: nothing is cached, marked as accessed, or raised. For whoever looks at a guest from outside.
   * @returns how many bytes are mapped, from the first
   */
  peek(gla: bigint, target: Uint8Array): number {
    this.#peeking = true;
    let done = 0;
    while (done < target.length) {
      const at = gla + BigInt(done);
      const low = Number(at & 0xffffffffn);
      const high = Number((at >> 32n) & 0xffffffffn);
      const offset = low & 0xfff;
      const length = Math.min(4096 - offset, target.length - done);
      if (this.mode64 && !this.#canonical(high | 0)) break;
      if (this.paging.walk(this.mode, low, high, 0, false, false) !== Walk.OK) break;
      if (!this.#translateGpa(this.paging.gpa, 0, false)) break;
      const part = target.subarray(done, done + length);
      if (this.phys.read(this.#gpaHpa + offset, this.#gpaKey, part, false) !== Phys.OK) break;
      done += length;
    }
    this.#peeking = false;
    return done;
  }

  /** INVLPG by the guest, for its current PCID and VPID. */
  flushLinear(glaLow: number, glaHigh: number): void {
    if (!this.mode64) glaHigh = 0;
    const pageLow = ((glaLow >>> 12) | (glaHigh << 20)) >>> 0;
    const pageHigh = glaHigh >>> 12;
    const small =
      this.tlb.isSmall(this.#context.id, pageLow, pageHigh) ||
      this.tlb.isSmall(this.#globalContext.id, pageLow, pageHigh);
    this.tlb.flushPage(this.vpid, this.#context.pcid, pageLow, pageHigh);
    // An engine does not know the other pieces of a large page.
    if (small) this.flushed(pageLow, pageHigh);
    else this.flushed(-1, -1);
  }
  get pcid(): number {
    return this.#context.pcid;
  }
}
