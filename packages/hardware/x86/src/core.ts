/**
 * One logical processor's engine: the generated interpreter with its TLB and code cache, the slow paths that it calls,
 * and the loop that delivers events between runs of it.
 *
 * Sources: Intel SDM vol. 3A ch. 5 (protection), 6 (exceptions); data structures are our own.
 */
import { CodeCache } from "./code-cache.js";
import { type CodeFrames, type CodeUser } from "./code-frames.js";
import { Decoded, Decoder } from "./decode/decoder.js";
import { Poll, Translation, type X86Environment } from "./environment.js";
import { buildInterpreter, type Built, Handler } from "./interpreter/build.js";
import {
  Access,
  ENGINE,
  JUMP,
  JUMP_ENTRIES,
  JUMP_ENTRY_SIZE,
  Misc,
  Mode,
  PAGE_SIZE,
  RECORD,
  RECORD_SIZE,
  Status,
  TLB,
  TLB_ENTRIES,
  TLB_ENTRY_SIZE,
  TLB_SETS,
  TLB_SET_SIZE,
  Vector,
} from "./layout.js";
import { REG, type RegisterFile, SEG, SEGMENT_SIZE } from "./register-file.js";
import { AR, CR0, CR4, EFER, RFLAGS } from "./bits.js";
import { operations, type Operation } from "./system/operations.js";
import { enterMmx } from "./system/mmx.js";
import { waits } from "./system/x87-state.js";
import { float } from "./system/vector-float.js";
import { deliver, deliverPending } from "./system/interrupts.js";

/** Why `run` returned. */
export const Stop = {
  /** The budget is used up. */
  BUDGET: 0,
  /** The environment asked for it. */
  ENVIRONMENT: 1,
  /** Triple fault. */
  SHUTDOWN: 2,
} as const;

export interface X86CoreOptions {
  readonly memory: WebAssembly.Memory;
  readonly regs: RegisterFile;
  readonly environment: X86Environment;
  readonly codeFrames: CodeFrames;
  /** Reserves linear memory for the engine's tables: (bytes, alignment) → byte offset. */
  readonly reserve: (bytes: number, align: number) => number;
  /** Size of the pool of decoded instructions in bytes; default 32 MiB (a million). */
  readonly codeBytes?: number;
  /** Instructions that raise #UD because CPUID does not offer them, by the names of the opcode tables. */
  readonly absent?: ReadonlySet<string>;
}

const ARITHMETIC_FLAGS = 0x8d5;
/** The instruction that is executed alone, and a STOP. */
const STEP_RECORDS = 2;
/** Longest instruction in bytes. */
const MAX_LENGTH = 15;
/** Instructions across two pages that are kept: a record, a LINK, and the bytes they come from. */
const CROSSINGS = 2048;
const CROSSING_SIZE = 3 * RECORD_SIZE;
/** Frame, next frame, offset and code size. */
const CROSSING_TAGS = 3;
const EXEC_ENTRIES = 1024;
const names = Object.keys(operations);
const table: Operation[] = names.map((name) => operations[name]);

/** What a translation found; the environment fills it in. */
export interface Fill {
  /** Byte offset of the 4 KiB frame in memory. */
  frame: number;
  /** Plain stores with the same privilege need not ask again. */
  writable: boolean;
  /** The TLB may keep it (false for one use only). */
  cacheable: boolean;
  /** Plain loads with the same privilege need not ask again. */
  readable: boolean;
  /** Physical address of a DEVICE page. */
  physical: number;
}

/** The event that is being delivered. */
export interface EngineEvent {
  vector: number;
  /** -1 if it has none. */
  errorCode: number;
  /** External interrupt, NMI, exception, software interrupt INT n, INT1, INT3 and INTO: VMX's interruption types. */
  type: number;
  /** Length of the instruction of a software event. */
  length: number;
}

export class X86Core implements CodeUser {
  readonly regs: RegisterFile;
  readonly environment: X86Environment;
  readonly u8: Uint8Array;
  readonly dv: DataView;
  readonly fill: Fill = { frame: 0, writable: false, cacheable: true, readable: true, physical: 0 };
  readonly event: EngineEvent = { vector: 0, errorCode: -1, type: 3, length: 0 };
  /** An event was being delivered when another one or a VM exit arose (IDT vectoring); -1 no. */
  vectoring = -1;
  vectoringErrorCode = -1;
  vectoringType = 3;
  /** Values that hooks pass; see X86Environment. */
  value = 0n;
  /** Linear address of a policy instruction's memory operand. */
  operand = 0n;
  /** Register number and size of a policy instruction's operand. */
  operandRegister = 0;
  operandSize = 32;
  /** Of IN and OUT: the port is an immediate; of INS and OUTS: there is a REP prefix. */
  portImmediate = false;
  portRepeated = false;
  /** Of INS and OUTS: segment, address size (0 16, 1 32, 2 64 bits); the element's linear address is in `operand`. */
  portSegment = 0;
  portAddressSize = 0;
  /** Record of the instruction whose hook is running. */
  private current = 0;
  /** Byte offset of the buffer for accesses that are not plain memory. */
  readonly scratch: number;
  readonly built: Built;
  readonly cache: CodeCache;
  readonly decoder: Decoder;
  /** The generated module's helpers that TypeScript uses too. */
  readonly fn: {
    run(): number;
    memory(pc: number, displacement: bigint, descriptor: number): number;
    linear(address: bigint, descriptor: number, pc: number): number;
    segment(segment: number, offset: bigint, descriptor: number, pc: number): number;
    address(pc: number): bigint;
  };
  private readonly base: number;
  private readonly i32: Int32Array;
  private readonly tlb: number;
  private readonly jumps: number;
  private readonly step: number;
  private readonly frames: CodeFrames;
  private generation = 0;
  /** Counts flushes of translations, so that an instruction that causes one is followed by a fresh lookup. */
  translations = 0;
  private lastCsBase = -1n;
  private attention = false;
  /** Parts of the scratch buffer to write back: kind 0 none, 1 memory, 2 device. */
  private readonly parts = [
    { kind: 0, at: 0, length: 0, frame: 0 },
    { kind: 0, at: 0, length: 0, frame: 0 },
  ];
  private readonly execTag = new Float64Array(EXEC_ENTRIES).fill(-1);
  private readonly execFrame = new Int32Array(EXEC_ENTRIES);
  private readonly crossings: number;
  private readonly crossingTags = new Int32Array(CROSSINGS * CROSSING_TAGS).fill(-1);

  constructor(options: X86CoreOptions) {
    const { memory, regs, environment, codeFrames, reserve } = options;
    this.regs = regs;
    this.environment = environment;
    this.frames = codeFrames;
    this.base = regs.base;
    this.u8 = new Uint8Array(memory.buffer);
    this.i32 = new Int32Array(memory.buffer);
    this.dv = new DataView(memory.buffer);
    this.scratch = reserve(256, 64);
    this.step = reserve(STEP_RECORDS * RECORD_SIZE, 64);
    this.crossings = reserve(CROSSINGS * CROSSING_SIZE, 64);
    this.tlb = reserve(TLB_SETS * TLB_SET_SIZE, 64);
    this.jumps = reserve(JUMP_ENTRIES * JUMP_ENTRY_SIZE, 64);
    const codeBytes = options.codeBytes ?? 32 << 20;
    const pool = reserve(codeBytes, 64);
    this.built = buildInterpreter({
      operations: names,
      core: this.base,
      scratch: this.scratch,
      jumps: this.jumps,
      absent: options.absent,
    });
    this.decoder = new Decoder(this.built.table);
    const user = codeFrames.addUser(this);
    this.cache = new CodeCache(
      memory.buffer,
      pool,
      pool + codeBytes,
      this.base,
      this.built,
      this.decoder,
      codeFrames,
      user,
      () => this.clearJumps(),
    );
    const instance = new WebAssembly.Instance(new WebAssembly.Module(this.built.bytes), {
      engine: {
        memory,
        slow: (low: number, high: number, descriptor: number, pc: number) =>
          this.slow(low, high, descriptor, pc),
        segmentCheck: (segment: number, offset: number, descriptor: number) =>
          this.segmentCheck(segment, offset, descriptor),
        find: (entry: number) => this.find(entry),
        resolveInPage: (pc: number) => this.resolveInPage(pc),
        operation: (pc: number, operation: number) => this.operation(pc, operation),
        commit: () => this.commit(),
        waits: () => (waits(this) ? 1 : 0),
        enterMmx: () => enterMmx(this),
        float: (operation: number, a: number, b: number, control: number) =>
          float(this, operation, a, b, control),
      },
    });
    this.fn = instance.exports as unknown as X86Core["fn"];
    this.set64(ENGINE.ZERO, 0n);
    this.set64(ENGINE.POISON, 1n << 63n);
    this.set32(ENGINE.REP_ROUNDS, 4096);
    this.clearJumps();
    this.flushTlb();
  }

  // --- the register file's fields

  get32(offset: number): number {
    return this.i32[(this.base + offset) >> 2];
  }
  set32(offset: number, value: number): void {
    this.i32[(this.base + offset) >> 2] = value;
  }
  get64(offset: number): bigint {
    return this.regs.u64[offset >> 3];
  }
  set64(offset: number, value: bigint): void {
    this.regs.u64[offset >> 3] = value;
  }
  get mode(): number {
    return this.get32(ENGINE.MODE);
  }
  get cpl(): number {
    return (this.mode >> Mode.CPL_SHIFT) & 3;
  }
  get long(): boolean {
    return (this.mode & Mode.LONG) !== 0;
  }
  get code64(): boolean {
    return (this.mode & Mode.CODE_MASK) === 2;
  }
  get protectedMode(): boolean {
    return (this.mode & (Mode.PROTECTED | Mode.V86)) === Mode.PROTECTED;
  }

  /** RFLAGS with the arithmetic flags in it, as the guest sees it. */
  getFlags(): number {
    const c = this.get32(ENGINE.FLAG_C + 4);
    const s = this.get32(ENGINE.FLAG_S);
    let parity = s & 0xff;
    parity ^= parity >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    const zero = (this.get32(ENGINE.FLAG_Z) | this.get32(ENGINE.FLAG_Z + 4)) === 0;
    return (
      (this.get32(REG.RFLAGS) & ~ARITHMETIC_FLAGS) |
      (c >>> 31) |
      (parity & 1 ? 0 : 4) |
      ((this.get32(ENGINE.FLAG_C) & 8) << 1) |
      (zero ? 0x40 : 0) |
      ((this.get32(ENGINE.FLAG_S + 4) >>> 31) << 7) |
      (((c >>> 31) ^ ((c >>> 30) & 1)) << 11)
    );
  }
  /** Sets RFLAGS and unpacks the arithmetic flags. */
  setFlags(flags: number): void {
    this.set32(REG.RFLAGS, (flags & 0x3f7fd7) | 2);
    this.set32(REG.RFLAGS + 4, 0);
    const cf = flags & 1;
    this.set32(ENGINE.FLAG_C, (flags >> 1) & 8);
    this.set32(ENGINE.FLAG_C + 4, (cf << 31) | ((cf ^ ((flags >> 11) & 1)) << 30));
    this.set32(ENGINE.FLAG_Z, flags & 0x40 ? 0 : 1);
    this.set32(ENGINE.FLAG_Z + 4, 0);
    this.set32(ENGINE.FLAG_S, flags & 4 ? 0 : 1);
    this.set32(ENGINE.FLAG_S + 4, (flags & 0x80) << 24);
  }

  /** Derives what generated code needs from the control registers, segments and flags. Call after changing any. */
  updateMode(): void {
    const cr0 = this.get32(REG.CR0);
    const cr4 = this.get32(REG.CR4);
    const efer = this.get32(REG.EFER);
    const flags = this.get32(REG.RFLAGS);
    const csAr = this.segmentAr(1);
    const ssAr = this.segmentAr(2);
    const isProtected = (cr0 & CR0.PE) !== 0;
    const v86 = isProtected && (flags & RFLAGS.VM) !== 0;
    const long = (efer & EFER.LMA) !== 0;
    const code = long && csAr & AR.L ? 2 : csAr & AR.DB ? 1 : 0;
    const cpl = !isProtected ? 0 : v86 ? 3 : (ssAr >> AR.DPL_SHIFT) & 3;
    const mode =
      code |
      (isProtected ? Mode.PROTECTED : 0) |
      (v86 ? Mode.V86 : 0) |
      (long ? Mode.LONG : 0) |
      (cpl << Mode.CPL_SHIFT);
    this.set32(ENGINE.MODE, mode);
    const wide = code === 2;
    this.set64(ENGINE.STACK_MASK, wide ? 0xffffffffffffffffn : ssAr & AR.DB ? 0xffffffffn : 0xffffn);
    this.set64(ENGINE.RIP_MASK, wide ? 0xffffffffffffffffn : 0xffffffffn);
    this.set64(ENGINE.CANONICAL_SHIFT, wide ? (cr4 & CR4.LA57 ? 56n : 47n) : 63n);
    const smap = (cr4 & CR4.SMAP) !== 0 && (flags & RFLAGS.AC) === 0;
    this.set32(ENGINE.TLB, this.tlb + (cpl === 3 ? 0 : smap ? 1 : 2) * TLB_SET_SIZE);
    if (!wide) {
      const csBase = this.get64(REG.SEGMENT + SEGMENT_SIZE);
      if (csBase !== this.lastCsBase) {
        this.lastCsBase = csBase;
        this.generation++;
      }
      for (let n = 0; n < 6; n++) this.updateLimits(n, !isProtected || v86);
    }
    let block = 0;
    if (cr0 & (CR0.EM | CR0.TS)) block |= 1;
    if (cr0 & CR0.EM) block |= 2 | 4;
    if (!(cr4 & CR4.OSFXSR)) block |= 4;
    if (cr0 & CR0.TS) block |= 8;
    if (!(cr4 & CR4.OSXSAVE) || !isProtected || v86) block |= 16;
    if ((cr0 & (CR0.TS | CR0.MP)) === (CR0.TS | CR0.MP)) block |= 32;
    this.set32(ENGINE.FPU_BLOCK, block);
    this.set32(ENGINE.JUMP_KEY, code | (cpl === 3 ? 4 : 0) | (this.generation << 3));
  }
  private updateLimits(n: number, real: boolean): void {
    const ar = this.segmentAr(n);
    const limit = this.get32(REG.SEGMENT + n * SEGMENT_SIZE + SEG.LIMIT);
    const data = (ar & 8) === 0;
    const usable = (ar & AR.UNUSABLE) === 0 && (real || ar & AR.P) && !(data && ar & 4);
    this.set32(ENGINE.READ_LIMIT + n * 4, usable && (real || data || ar & 2) ? limit : 0);
    this.set32(ENGINE.WRITE_LIMIT + n * 4, usable && (real || (data && ar & 2)) ? limit : 0);
  }
  segmentAr(n: number): number {
    return this.get32(REG.SEGMENT + n * SEGMENT_SIZE + SEG.AR);
  }

  // --- exceptions

  /** Prepares an exception; the caller returns its layer's "fault". Always yields Status.FAULT. */
  raise(vector: number, errorCode = -1): number {
    this.set32(ENGINE.VECTOR, vector);
    this.set32(ENGINE.ERROR_CODE, errorCode);
    this.set32(ENGINE.STATUS, Status.FAULT);
    return Status.FAULT;
  }
  /** Prepares a page fault. @param errorCode as the architecture pushes it */
  raisePageFault(low: number, high: number, errorCode: number): void {
    this.set32(REG.CR2, low);
    this.set32(REG.CR2 + 4, high);
    this.raise(Vector.PF, errorCode);
  }
  /** Asks the run loop to look at events at the next opportunity. */
  requestAttention(): void {
    this.attention = true;
  }
  get status(): number {
    return this.get32(ENGINE.STATUS);
  }

  // --- memory

  /** Forgets all translations. */
  flushTlb(): void {
    this.u8.fill(0xff, this.tlb, this.tlb + TLB_SETS * TLB_SET_SIZE);
    this.execTag.fill(-1);
    this.nextGeneration();
  }
  /** Forgets the translation of one page, by the halves of an address in it. */
  flushPage(low: number, high: number): void {
    const index = ((low >>> 12) & (TLB_ENTRIES - 1)) * TLB_ENTRY_SIZE;
    for (let set = 0; set < TLB_SETS; set++) this.clearEntry(this.tlb + set * TLB_SET_SIZE + index);
    void high;
    this.execTag.fill(-1);
    this.nextGeneration();
  }
  private clearEntry(entry: number): void {
    this.u8.fill(0xff, entry, entry + 16);
  }
  private nextGeneration(): void {
    this.generation++;
    this.translations++;
    if (this.generation >= 1 << 27) {
      this.generation = 0;
      this.clearJumps();
    }
    this.updateMode();
  }
  private clearJumps(): void {
    // A key of all ones matches no mode.
    this.u8.fill(0xff, this.jumps, this.jumps + JUMP_ENTRIES * JUMP_ENTRY_SIZE);
  }
  dropCode(frame: number, offset: number, length: number): void {
    // The jump cache may lead to records that now only lead back to it.
    if (this.cache.drop(frame, offset, length)) {
      this.generation++;
      this.set32(ENGINE.JUMP_KEY, (this.get32(ENGINE.JUMP_KEY) & 7) | (this.generation << 3));
    }
  }
  protectFrame(frame: number): void {
    for (let entry = this.tlb; entry < this.tlb + TLB_SETS * TLB_SET_SIZE; entry += TLB_ENTRY_SIZE) {
      const low = this.i32[(entry + TLB.WRITE) >> 2];
      if (low === -1 && this.i32[(entry + TLB.WRITE + 4) >> 2] === -1) continue;
      if ((this.i32[(entry + TLB.ADDEND) >> 2] + low) >>> 12 === frame) {
        this.i32[(entry + TLB.WRITE) >> 2] = -1;
        this.i32[(entry + TLB.WRITE + 4) >> 2] = -1;
      }
    }
  }

  private isCanonical(low: number, high: number): boolean {
    if (this.get32(REG.CR4) & CR4.LA57) {
      const top = high >> 24;
      return top === 0 || top === -1;
    }
    const top = high >> 15;
    void low;
    return top === 0 || top === -1;
  }

  /** Sets STATUS for an outcome of the environment that is not OK. */
  private outcome(result: number): number {
    if (result === Translation.STOP) this.set32(ENGINE.STATUS, Status.STOP);
    return 0;
  }

  /** Makes the access with supervisor privilege whatever the CPL is (descriptor tables, TSS). */
  implicit = false;

  private translate(low: number, high: number, access: number): number {
    const user = this.cpl === 3 && !this.implicit;
    this.fill.cacheable = true;
    this.fill.readable = true;
    return this.environment.translate(this, low, high, access, user, this.implicit);
  }

  /** A load or store that missed the TLB: host address, or 0 with STATUS set. */
  slow(low: number, high: number, descriptor: number, pc: number): number {
    const size = descriptor & 0xff;
    if (this.code64 || (this.long && this.implicit)) {
      const lastLow = (low + size - 1) >>> 0;
      const lastHigh = lastLow < low >>> 0 ? (high + 1) | 0 : high;
      if (!this.isCanonical(low, high) || !this.isCanonical(lastLow, lastHigh)) {
        const misc = pc === 0 ? 0 : this.dv.getUint16(pc + RECORD.MISC, true);
        const stack = descriptor & Access.STACK || (pc !== 0 && ((misc >> Misc.SEGMENT_SHIFT) & 7) === 2);
        this.raise(stack ? Vector.SS : Vector.GP, 0);
        return 0;
      }
    }
    if (descriptor & Access.ALIGNED && low & 15) {
      this.raise(Vector.GP, 0);
      return 0;
    }
    const access = descriptor & Access.WRITE;
    const offset = low & 0xfff;
    this.parts[0].kind = this.parts[1].kind = 0;
    if (offset + size <= PAGE_SIZE) return this.slowPart(low, high, size, access, 0, 0, true);
    // The access spans two pages: both must be good before either is touched.
    const first = PAGE_SIZE - offset;
    if (!this.slowPart(low, high, first, access, 0, 0, false)) return 0;
    const nextLow = ((low & ~0xfff) + PAGE_SIZE) | 0;
    let nextHigh = nextLow === 0 ? (high + 1) | 0 : high;
    if (!this.long) nextHigh = 0;
    if (!this.slowPart(nextLow, nextHigh, size - first, access, 1, first, false)) return 0;
    return this.scratch;
  }
  private slowPart(
    low: number,
    high: number,
    size: number,
    access: number,
    part: number,
    at: number,
    direct: boolean,
  ): number {
    const result = this.translate(low, high, access);
    const offset = low & 0xfff;
    const p = this.parts[part];
    if (result === Translation.OK) {
      const { frame } = this.fill;
      if (this.fill.cacheable && !this.implicit) this.insert(low, high, frame);
      const host = frame + offset;
      const code = access !== 0 && this.frames.has(frame >>> 12);
      if (direct && !code) return host;
      this.u8.copyWithin(this.scratch + at, host, host + size);
      p.kind = access ? 1 : 0;
      p.at = host;
      p.length = size;
      p.frame = frame >>> 12;
      return this.scratch;
    }
    if (result === Translation.DEVICE) {
      const physical = this.fill.physical + offset;
      // A store to a device is not preceded by a load.
      if (!access) this.environment.deviceRead(this, physical, size, at);
      p.kind = access ? 2 : 0;
      p.at = physical;
      p.length = size;
      return this.scratch;
    }
    return this.outcome(result);
  }
  private insert(low: number, high: number, frame: number): void {
    const entry = this.get32(ENGINE.TLB) + ((low >>> 12) & (TLB_ENTRIES - 1)) * TLB_ENTRY_SIZE;
    const w = entry >> 2;
    const page = low & ~0xfff;
    const { i32 } = this;
    i32[w + TLB.READ / 4] = this.fill.readable ? page : -1;
    i32[w + TLB.READ / 4 + 1] = this.fill.readable ? high : -1;
    const plain = this.fill.writable && !this.frames.has(frame >>> 12);
    i32[w + TLB.WRITE / 4] = plain ? page : -1;
    i32[w + TLB.WRITE / 4 + 1] = plain ? high : -1;
    i32[w + TLB.ADDEND / 4] = (frame - page) | 0;
  }
  /** Writes the scratch buffer to where it belongs. */
  commit(): void {
    let at = 0;
    for (const p of this.parts) {
      if (p.kind === 1) {
        const source = this.scratch + at;
        this.u8.copyWithin(p.at, source, source + p.length);
        this.frames.written(p.frame, p.at & 0xfff, p.length);
      } else if (p.kind === 2) this.environment.deviceWrite(this, p.at, p.length, at);
      at += p.length;
      p.kind = 0;
    }
  }

  /** A limit or rights check that the fast test did not pass: 1, or 0 with an exception prepared. */
  segmentCheck(segment: number, offset: number, descriptor: number): number {
    const ar = this.segmentAr(segment);
    const limit = this.get32(REG.SEGMENT + segment * SEGMENT_SIZE + SEG.LIMIT) >>> 0;
    const size = descriptor & 0xff;
    const write = (descriptor & Access.WRITE) !== 0;
    const first = offset >>> 0;
    const last = first + size - 1;
    const real = (this.mode & Mode.PROTECTED) === 0 || (this.mode & Mode.V86) !== 0;
    let good = real || ((ar & AR.UNUSABLE) === 0 && (ar & AR.P) !== 0);
    if (good && !real) {
      if (ar & 8) good = !write && (ar & 2) !== 0;
      else if (write) good = (ar & 2) !== 0;
    }
    if (good) {
      if (!(ar & 8) && ar & 4 && !real) {
        const upper = ar & AR.DB ? 0xffffffff : 0xffff;
        good = first > limit && last <= upper;
      } else if (limit === 0xffffffff) good = true;
      else good = last <= limit;
    }
    if (good) return 1;
    this.raise(segment === 2 ? Vector.SS : Vector.GP, 0);
    return 0;
  }

  // --- code

  /** Physical frame of the code at RIP, or -1 with STATUS set. */
  private codeFrame(low: number, high: number): number {
    const page = (high >>> 0) * 0x100000 + (low >>> 12);
    const index = (low >>> 12) & (EXEC_ENTRIES - 1);
    const tag = page * 2 + (this.cpl === 3 ? 1 : 0);
    if (this.execTag[index] === tag) return this.execFrame[index];
    const result = this.translate(low, high, Access.EXECUTE);
    if (result === Translation.DEVICE) {
      this.raise(Vector.UD);
      return -1;
    }
    if (result !== Translation.OK) {
      this.outcome(result);
      return -1;
    }
    const frame = this.fill.frame >>> 12;
    if (this.fill.cacheable) {
      this.execTag[index] = tag;
      this.execFrame[index] = frame;
    }
    return frame;
  }

  /** Record for RIP, put into a jump cache entry; 0 with STATUS set if there is none. */
  private find(entry: number): number {
    const code = this.mode & Mode.CODE_MASK;
    let low = this.get32(REG.RIP);
    let high = this.get32(REG.RIP + 4);
    if (this.environment.arrive?.(this) === true) {
      this.set32(ENGINE.STATUS, Status.STOP);
      return 0;
    }
    if (code === 2) {
      if (!this.isCanonical(low, high)) {
        this.raise(Vector.GP, 0);
        return 0;
      }
    } else {
      if (low >>> 0 > this.get32(REG.SEGMENT + SEGMENT_SIZE + SEG.LIMIT) >>> 0) {
        this.raise(Vector.GP, 0);
        return 0;
      }
      low = (low + this.get32(REG.SEGMENT + SEGMENT_SIZE)) | 0;
      high = 0;
    }
    const frame = this.codeFrame(low, high);
    if (frame < 0) return 0;
    const offset = low & 0xfff;
    const pc = this.cache.find(frame, code, offset);
    // RIP_BASE = RIP - offset in the page.
    this.set64(ENGINE.RIP_BASE, this.get64(REG.RIP) - BigInt(offset));
    if (pc === 0) return this.crossing(frame, code, offset, low, high);
    if (entry) {
      const w = entry >> 2;
      this.i32[w] = this.get32(REG.RIP);
      this.i32[w + 1] = this.get32(REG.RIP + 4);
      this.i32[w + JUMP.KEY / 4] = this.get32(ENGINE.JUMP_KEY);
      this.i32[w + JUMP.RECORD / 4] = pc;
    }
    return pc;
  }
  /**
   * The record of an instruction that continues on the next page. It belongs to neither page's code: it is used again
   * when frames and bytes are the same as when it was decoded.
   */
  private crossing(frame: number, code: number, offset: number, low: number, high: number): number {
    const here = PAGE_SIZE - offset;
    const nextLow = ((low & ~0xfff) + PAGE_SIZE) | 0;
    const nextHigh = nextLow === 0 && this.long ? (high + 1) | 0 : high;
    const next = this.codeFrame(nextLow, nextHigh);
    if (next < 0) return 0;
    const index = (frame * MAX_LENGTH + here + code) & (CROSSINGS - 1);
    const record = this.crossings + index * CROSSING_SIZE;
    const key = (offset << 2) | code;
    const { u8, i32, crossingTags: tags } = this;
    const tag = index * CROSSING_TAGS;
    const bytes = record + 2 * RECORD_SIZE;
    let same = tags[tag] === frame && tags[tag + 1] === next && tags[tag + 2] === key;
    const first = frame * PAGE_SIZE + offset;
    const second = next * PAGE_SIZE - here;
    for (let i = 0; i < MAX_LENGTH && same; i++) same = u8[bytes + i] === u8[(i < here ? first : second) + i];
    if (same) return record;
    for (let i = 0; i < MAX_LENGTH; i++) u8[bytes + i] = u8[(i < here ? first : second) + i];
    tags[tag] = frame;
    tags[tag + 1] = next;
    tags[tag + 2] = key;
    for (let i = 0; i < RECORD_SIZE >> 2; i++) i32[(record >> 2) + i] = 0;
    const status = this.decoder.decode(u8, bytes, bytes + MAX_LENGTH, code);
    this.cache.write(record, offset, status === Decoded.TRUNCATED ? Decoded.TOO_LONG : status, code);
    this.cache.writeLink(record + RECORD_SIZE, offset + this.decoder.length, 0);
    return record;
  }
  private isCrossing(record: number): boolean {
    return record >= this.crossings && record < this.crossings + CROSSINGS * CROSSING_SIZE;
  }
  private resolveInPage(pc: number): number {
    const flushes = this.cache.flushes;
    const target = this.find(0);
    if (target !== 0 && !this.isCrossing(target) && !this.isCrossing(pc) && flushes === this.cache.flushes) {
      this.i32[(pc + RECORD.TARGET) >> 2] = target;
    }
    return target;
  }

  // --- operations in TypeScript

  private operation(pc: number, argument: number): number {
    const operation = table[argument & 0xfff];
    this.current = pc;
    const status = operation(this, pc, 16 << ((argument >> 12) & 3), (argument & (1 << 14)) !== 0);
    if (this.attention && (status === Status.NEXT || status === Status.JUMP)) {
      if (status === Status.NEXT) this.advance(pc);
      return Status.ATTENTION;
    }
    return status;
  }
  /** Length in bytes of the instruction whose hook is running. */
  get instructionLength(): number {
    return this.u8[this.current + RECORD.LENGTH];
  }
  /** RIP goes behind the instruction. */
  advance(pc: number): void {
    const length = BigInt(this.u8[pc + RECORD.LENGTH]);
    this.set64(REG.RIP, (this.get64(REG.RIP) + length) & this.get64(ENGINE.RIP_MASK));
  }

  // --- running

  /** Instructions retired, current also within a hook. A number is good for 2^53 of them. */
  get instructions(): number {
    const low = this.get32(REG.INSTRUCTIONS) >>> 0;
    return (this.get32(REG.INSTRUCTIONS + 4) >>> 0) * 0x1_0000_0000 + low + this.retiredInSlice();
  }
  private sliceBudget = 0;
  private retiredInSlice(): number {
    return (this.sliceBudget - this.get32(ENGINE.BUDGET)) / RECORD_SIZE - this.get32(ENGINE.EXTRA);
  }
  private account(): number {
    const done = (this.sliceBudget - this.get32(ENGINE.BUDGET)) / RECORD_SIZE;
    const retired = done - this.get32(ENGINE.EXTRA);
    const low = (this.get32(REG.INSTRUCTIONS) >>> 0) + retired;
    this.set32(REG.INSTRUCTIONS, low | 0);
    if (low >= 0x1_0000_0000) this.set32(REG.INSTRUCTIONS + 4, this.get32(REG.INSTRUCTIONS + 4) + 1);
    this.sliceBudget = 0;
    this.set32(ENGINE.BUDGET, 0);
    this.set32(ENGINE.EXTRA, 0);
    return done;
  }

  /**
   * Executes from the state in the register file until about `budget` instructions have retired (the block at hand is
   * finished) or something ends it. The register file is complete on return.
   * @returns Stop
   */
  run(budget: number): number {
    this.setFlags(this.get32(REG.RFLAGS));
    this.updateMode();
    const result = this.runLoop(budget);
    this.set32(REG.RFLAGS, this.getFlags());
    return result;
  }
  private runLoop(budget: number): number {
    let left = budget;
    for (;;) {
      this.attention = false;
      const shadow = this.get32(REG.INTERRUPTIBILITY) & 3;
      const flags = this.get32(REG.RFLAGS);
      const polled = this.environment.poll(this, (flags & RFLAGS.IF) !== 0 && shadow === 0);
      if (polled === Poll.STOP) return Stop.ENVIRONMENT;
      if (polled !== Poll.NONE) {
        const nmi = polled === Poll.NMI;
        const stop = deliver(this, nmi ? Vector.NMI : polled, -1, nmi ? 2 : 0, 0);
        if (stop >= 0) return stop;
        continue;
      }
      if (left <= 0) return Stop.BUDGET;
      const single = (flags & RFLAGS.TF) !== 0;
      const stepping = single || shadow !== 0 || left === 1;
      const slice = stepping ? 1 : Math.min(left, 1 << 24);
      let status: number;
      if (stepping) {
        if (single) this.set32(ENGINE.REP_ROUNDS, 1);
        status = this.stepOne();
        this.set32(ENGINE.REP_ROUNDS, 4096);
      } else {
        this.sliceBudget = slice * RECORD_SIZE;
        this.set32(ENGINE.BUDGET, this.sliceBudget);
        status = this.fn.run();
      }
      // An event costs one, so that a guest that only faults uses its budget up too.
      left -= this.account() + (status === Status.FAULT ? 1 : 0);
      if (status === Status.FAULT) {
        if (stepping) this.set32(REG.INTERRUPTIBILITY, this.get32(REG.INTERRUPTIBILITY) & ~3);
        const stop = deliverPending(this);
        if (stop >= 0) return stop;
        continue;
      }
      if (flags & RFLAGS.RF && status !== Status.STOP) {
        // RF lasts for one instruction; IRET may just have set it again, which is that one's business.
        this.set32(REG.RFLAGS, this.get32(REG.RFLAGS) & ~RFLAGS.RF);
      }
      if (stepping && status !== Status.STOP) {
        // The shadow that was there ends with this instruction; one that it made itself has begun.
        const now = this.get32(REG.INTERRUPTIBILITY);
        if (shadow !== 0 && (now & 3) === shadow && !this.shadowSet)
          this.set32(REG.INTERRUPTIBILITY, now & ~3);
        this.shadowSet = false;
        if (single && !this.trapSuppressed) this.trapPending = true;
      }
      this.trapSuppressed = false;
      if (this.trapPending && status !== Status.STOP) {
        this.trapPending = false;
        this.set32(REG.DR6, this.get32(REG.DR6) | 0x4000);
        const stop = deliver(this, Vector.DB, -1, 3, 0);
        if (stop >= 0) return stop;
      }
      this.shadowSet = false;
      if (status === Status.STOP || this.stopRequested) {
        this.stopRequested = false;
        return Stop.ENVIRONMENT;
      }
    }
  }
  /** The instruction just executed has set an interrupt shadow itself. */
  shadowSet = false;
  /** The single-step trap after this instruction does not occur (POP SS, INT). */
  trapSuppressed = false;
  /** A single-step trap follows the instruction just executed, though TF was clear before it (SYSRET). */
  trapPending = false;
  /** A hook has completed its instruction and wants control. */
  stopRequested = false;

  /** Executes exactly one instruction. */
  private stepOne(): number {
    const key = this.get32(ENGINE.JUMP_KEY);
    // Without a jump cache entry and with a copy of the record in front of a STOP.
    const pc = this.find(0);
    this.sliceBudget = RECORD_SIZE;
    this.set32(ENGINE.BUDGET, RECORD_SIZE);
    if (pc === 0) return this.status;
    const copy = this.step;
    this.u8.copyWithin(copy, pc, pc + RECORD_SIZE);
    if (this.i32[(copy + RECORD.B) >> 2] === pc + RECORD.IMM)
      this.i32[(copy + RECORD.B) >> 2] = copy + RECORD.IMM;
    this.cache.writeLink(
      copy + RECORD_SIZE,
      this.dv.getUint16(pc + RECORD.OFFSET, true) + this.u8[pc + RECORD.LENGTH],
      0,
      Handler.STOP,
    );
    // The interpreter looks RIP up first: let the jump cache answer with the step records.
    const low = this.get32(REG.RIP);
    const entry = this.jumps + (((low ^ (low >>> 13)) & (JUMP_ENTRIES - 1)) << 4);
    const w = entry >> 2;
    this.i32[w] = low;
    this.i32[w + 1] = this.get32(REG.RIP + 4);
    this.i32[w + JUMP.KEY / 4] = key;
    this.i32[w + JUMP.RECORD / 4] = copy;
    const status = this.fn.run();
    this.i32[w + JUMP.KEY / 4] = -1;
    return status;
  }
}
