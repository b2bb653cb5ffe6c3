/**
 * Physical accesses of one package: KeyID decoding, the SEAM range's protection, DRAM's bounds, machine checks.
 * Intel SDM vol. 3A "Memory encryption", TDX Module Architecture Specification "SEAMRR", "KeyID partitioning".
 */
import type { Hpa, KeyId, Pfn } from "@swtdx/abi";
import { CodeFrames } from "@swtdx/x86";
import type { CpuArena, CpuMemory } from "../interface/memory.js";

/** Outcome of a physical access. */
export const Phys = { OK: 0, MC: 1 } as const;

/** Physical-address width: MAXPHYADDR, KeyID bits included (CPUID 0x80000008.EAX[7:0]). */
export const MAXPA = 52;

/** Frames whose place in the arena is remembered. */
const REMEMBERED = 1024;
/** Up to this many bytes are copied one by one: a view to copy from costs more. */
const SHORT = 32;
const KEY_IDS = 64;
const ZEROS = new Uint8Array(4096);

export class PhysicalMemory {
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  /** Which arena frames hold code that an engine has decoded: it is told before anybody else writes there. */
  readonly code: CodeFrames;
  /** Arena frames by the DRAM frames that engines fetched from. */
  readonly #fetched = new Map<number, number>();
  readonly u64: BigUint64Array;
  /** Where frames are, by the low bits of their number: frame and KeyID as one number (-1: none), and the offset. */
  readonly #readable = new Int32Array(REMEMBERED).fill(-1);
  readonly #writable = new Int32Array(REMEMBERED).fill(-1);
  readonly #readOffset = new Float64Array(REMEMBERED);
  readonly #writeOffset = new Float64Array(REMEMBERED);
  readonly #frames: number;
  /** KeyID bits at the top of a physical address: IA32_TME_ACTIVATE.MK_TME_KEYID_BITS. 0: MKTME is off. */
  keyIdBits = 0;
  /** The first physical-address bit that is a KeyID bit, as a power of two. */
  keyIdUnit = 2 ** MAXPA;
  /** KeyIDs from here on are private (TDX) ones. */
  firstPrivate = 64;
  /** Number of private KeyIDs. */
  privateCount = 0;
  /** SEAM range as page frames; empty while SEAMRR is not enabled. */
  seamFirst = 0;
  seamEnd = 0;
  /** Counts what makes offsets of frames (`frameForWrite`) stop being good. */
  mappings = 0;
  readonly #listeners: ((frame: number) => void)[] = [];
  /** Result of `readQ`. */
  lo = 0;
  hi = 0;
  /** Where the last machine check happened. */
  faultHpa = 0;
  /** Results of `split`. */
  hpa = 0;
  keyId = 0;
  readonly #scratch = new Uint8Array(8);
  readonly #scratchView = new DataView(this.#scratch.buffer);

  constructor(
    readonly arena: CpuArena,
    readonly memory: CpuMemory,
  ) {
    this.u8 = new Uint8Array(arena.memory.buffer);
    this.u32 = new Uint32Array(arena.memory.buffer);
    this.code = new CodeFrames(arena.memory.buffer.byteLength);
    this.u64 = new BigUint64Array(arena.memory.buffer);
    this.#frames = memory.dramBytes / 4096;
    memory.onFrameChange((frame) => {
      const slot = frame & (REMEMBERED - 1);
      if (Math.floor(this.#readable[slot] / KEY_IDS) === frame) this.#readable[slot] = -1;
      if (Math.floor(this.#writable[slot] / KEY_IDS) === frame) this.#writable[slot] = -1;
      this.mappings++;
      for (const listener of this.#listeners) listener(frame);
    });
  }

  /** Called with a frame of DRAM whose place in the arena, or whose owner, is another now. */
  onFrameChange(listener: (frame: number) => void): void {
    this.#listeners.push(listener);
  }

  /** Takes a physical address with KeyID bits apart, into `hpa` and `keyId`. */
  split(pa: number): void {
    const key = Math.floor(pa / this.keyIdUnit);
    this.keyId = key;
    this.hpa = pa - key * this.keyIdUnit;
  }
  join(hpa: number, keyId: number): number {
    return hpa + keyId * this.keyIdUnit;
  }
  isPrivate(keyId: number): boolean {
    return keyId >= this.firstPrivate;
  }
  inSeam(frame: number): boolean {
    return frame >= this.seamFirst && frame < this.seamEnd;
  }

  /** Arena offset of a frame for reads under a key, or -1. `seam`: the access is one of SEAM root mode. */
  frameForRead(frame: number, keyId: number, seam: boolean): number {
    if (!seam && this.inSeam(frame)) return -1;
    if (frame >= this.#frames) return -1;
    const slot = frame & (REMEMBERED - 1);
    const tag = frame * KEY_IDS + keyId;
    if (this.#readable[slot] === tag) return this.#readOffset[slot];
    const offset = this.memory.frameForRead(frame as Pfn, keyId as KeyId);
    if (offset >= 0 && keyId < KEY_IDS) {
      this.#readable[slot] = tag;
      this.#readOffset[slot] = offset;
    }
    return offset;
  }
  frameForWrite(frame: number, keyId: number, seam: boolean): number {
    const base = this.frameOfEngine(frame, keyId, seam);
    if (base >= 0 && this.code.has(base / 4096)) this.code.written(base / 4096);
    return base;
  }
  /** An engine executes from a frame. */
  codeFetched(frame: number, base: number): void {
    this.#fetched.set(frame, base / 4096);
    // Who writes there without asking has to ask from now on.
    if (!this.code.has(base / 4096)) this.mappings++;
  }
  /** A frame's content changes, or what it is under a key. */
  contentChanged(frame: number): void {
    const at = this.#fetched.get(frame);
    if (at !== undefined) this.code.written(at);
  }
  /** As `frameForWrite`, for an engine that sees itself whether it writes to code. */
  frameOfEngine(frame: number, keyId: number, seam: boolean): number {
    if (!seam && this.inSeam(frame)) return -1;
    if (frame >= this.#frames) return -1;
    const slot = frame & (REMEMBERED - 1);
    const tag = frame * KEY_IDS + keyId;
    if (this.#writable[slot] === tag) return this.#writeOffset[slot];
    const offset = this.memory.frameForWrite(frame as Pfn, keyId as KeyId);
    if (offset >= 0 && keyId < KEY_IDS) {
      this.#writable[slot] = tag;
      this.#writeOffset[slot] = offset;
    }
    return offset;
  }

  /** Reads bytes within one page. Outside SEAM, the SEAM range is an abort page: all ones. */
  read(hpa: number, keyId: number, target: Uint8Array, seam: boolean): number {
    const { length } = target;
    const frame = Math.floor(hpa / 4096);
    const inPage = hpa - frame * 4096;
    if (inPage + length <= 4096) {
      const base = this.frameForRead(frame, keyId, seam);
      if (base >= 0) {
        const at = base + inPage;
        if (length <= SHORT) for (let i = 0; i < length; i++) target[i] = this.u8[at + i];
        else target.set(this.u8.subarray(at, at + length));
        return Phys.OK;
      }
    }
    if ((!seam && this.inSeam(Math.floor(hpa / 4096))) || hpa + target.length > this.memory.dramBytes) {
      target.fill(0xff);
      return Phys.OK;
    }
    if (this.memory.read(hpa as Hpa, keyId as KeyId, target) === 0) return Phys.OK;
    this.faultHpa = hpa;
    return Phys.MC;
  }
  /** Writes bytes within one page. */
  write(hpa: number, keyId: number, source: Uint8Array, seam: boolean): number {
    const { length } = source;
    const frame = Math.floor(hpa / 4096);
    const inPage = hpa - frame * 4096;
    if (inPage + length <= 4096) {
      const base = this.frameForWrite(frame, keyId, seam);
      if (base >= 0) {
        const at = base + inPage;
        if (length <= SHORT) for (let i = 0; i < length; i++) this.u8[at + i] = source[i];
        else this.u8.set(source, at);
        return Phys.OK;
      }
    }
    if ((!seam && this.inSeam(Math.floor(hpa / 4096))) || hpa + source.length > this.memory.dramBytes)
      return Phys.OK;
    if (this.#fetched.size > 0) this.contentChanged(Math.floor(hpa / 4096));
    if (this.memory.write(hpa as Hpa, keyId as KeyId, source) === 0) return Phys.OK;
    this.faultHpa = hpa;
    return Phys.MC;
  }
  /** Writes zeros over any number of lines (MOVDIR64B): nothing old is read, so nothing can fail. */
  zero(hpa: number, keyId: number, length: number, seam: boolean): void {
    for (let done = 0; done < length;) {
      const at = hpa + done;
      const pages = at % 4096 === 0 ? Math.floor((length - done) / 4096) : 0;
      const first = at / 4096;
      if (pages > 0 && (seam || first + pages <= this.seamFirst || first >= this.seamEnd)) {
        this.memory.zeroPages(first as Pfn, pages, keyId as KeyId);
        done += pages * 4096;
        continue;
      }
      const count = Math.min(4096 - (at % 4096), length - done);
      this.write(at, keyId, ZEROS.subarray(0, count), seam);
      done += count;
    }
  }
  /** Reads an aligned 64-bit value into `lo` and `hi`. */
  readQ(hpa: number, keyId: number, seam: boolean): number {
    const frame = Math.floor(hpa / 4096);
    const base = this.frameForRead(frame, keyId, seam);
    if (base >= 0) {
      const at = (base + (hpa - frame * 4096)) / 4;
      this.lo = this.u32[at]!;
      this.hi = this.u32[at + 1]!;
      return Phys.OK;
    }
    const status = this.read(hpa, keyId, this.#scratch, seam);
    this.lo = this.#scratchView.getUint32(0, true);
    this.hi = this.#scratchView.getUint32(4, true);
    return status;
  }
  /** Writes an aligned 64-bit value. */
  writeQ(hpa: number, keyId: number, lo: number, hi: number, seam: boolean): number {
    const frame = Math.floor(hpa / 4096);
    const base = this.frameForWrite(frame, keyId, seam);
    if (base >= 0) {
      const at = (base + (hpa - frame * 4096)) / 4;
      this.u32[at] = lo;
      this.u32[at + 1] = hi;
      return Phys.OK;
    }
    this.#scratchView.setUint32(0, lo, true);
    this.#scratchView.setUint32(4, hi, true);
    return this.write(hpa, keyId, this.#scratch, seam);
  }
}
