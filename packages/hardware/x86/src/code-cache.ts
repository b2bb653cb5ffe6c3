/**
 * Decoded code of one core: records by frame, code size and page offset. Records are allocated one behind the other, so
 * that straight code needs no lookups; when the pool is full everything is forgotten.
 */
import { Decoded, type Decoder, CodeSize } from "./decode/decoder.js";
import type { CodeFrames } from "./code-frames.js";
import { Handler, type Built } from "./interpreter/build.js";
import { ENGINE, Misc, PAGE_SIZE, RECORD, RECORD_SIZE } from "./layout.js";
import { RegisterFile, SEG } from "./register-file.js";

/** Records decoded at once. */
const RUN_LENGTH = 64;
/** Instructions behind which decoding stops. */
const ENDS = new Set(["jmp", "ret", "retf", "iret", "jmpfar", "sysret", "sysexit", "ud2", "syscall", "hlt"]);
const BRANCH = "J";
const SEGMENT_OFFSETS = [0, 1, 2, 3, 4, 5].map((n) => RegisterFile.segment(n) + SEG.BASE);

interface CodePage {
  /** Index + 1 into records by page offset, 0 none. */
  readonly map: Uint16Array;
  readonly records: number[];
}

export class CodeCache {
  private pages = new Map<number, CodePage>();
  private next: number;
  private readonly u8: Uint8Array;
  private readonly u16: Uint16Array;
  private readonly i32: Int32Array;
  /** Counts complete flushes, for statistics. */
  flushes = 0;

  /** @param pool @param poolEnd where records live @param core address of the register file */
  constructor(
    memory: ArrayBufferLike,
    private readonly pool: number,
    private readonly poolEnd: number,
    private readonly core: number,
    private readonly built: Built,
    private readonly decoder: Decoder,
    private readonly frames: CodeFrames,
    /** This core's number among the users of `frames`. */
    private readonly user: number,
    private readonly onFlush: () => void,
  ) {
    this.u8 = new Uint8Array(memory);
    this.u16 = new Uint16Array(memory);
    this.i32 = new Int32Array(memory);
    this.next = pool;
  }

  /** Record of the code at `offset` of a frame, decoded if need be; 0 if the first instruction crosses the page's end. */
  find(frame: number, code: number, offset: number): number {
    const key = frame * 3 + code;
    let page = this.pages.get(key);
    if (page) {
      const known = page.map[offset];
      if (known) return page.records[known - 1];
    }
    if (this.next + (RUN_LENGTH + 1) * RECORD_SIZE > this.poolEnd) {
      this.flush();
      page = undefined;
    }
    if (!page) {
      page = { map: new Uint16Array(PAGE_SIZE), records: [] };
      this.pages.set(key, page);
      this.frames.add(frame, this.user);
    }
    return this.decodeRun(page, frame, code, offset);
  }

  private decodeRun(page: CodePage, frame: number, code: number, offset: number): number {
    const base = frame * PAGE_SIZE;
    const first = this.next;
    let at = offset;
    for (let n = 0; ; n++) {
      const known = at < PAGE_SIZE ? page.map[at] : 0;
      if (n >= RUN_LENGTH || at >= PAGE_SIZE || known) {
        this.writeLink(this.allocate(), at, known ? page.records[known - 1] : 0);
        return first;
      }
      const status = this.decoder.decode(this.u8, base + at, base + PAGE_SIZE, code);
      if (status === Decoded.TRUNCATED) {
        if (n === 0) return 0;
        this.writeLink(this.allocate(), at, 0);
        return first;
      }
      const record = this.allocate();
      page.map[at] = page.records.push(record);
      this.write(record, at, status, code);
      at += this.decoder.length;
      if (status !== Decoded.OK || ENDS.has(this.decoder.form!.name)) return first;
    }
  }
  private allocate(): number {
    const record = this.next;
    this.next += RECORD_SIZE;
    return record;
  }

  /** A pseudo-instruction that goes on elsewhere. */
  writeLink(record: number, offset: number, target: number, handler: number = Handler.LINK): void {
    this.u16[(record + RECORD.HANDLER) >> 1] = handler;
    this.u16[(record + RECORD.OFFSET) >> 1] = offset;
    this.i32[(record + RECORD.TARGET) >> 2] = target;
  }

  /** Writes the decoder's result as a record. */
  write(record: number, offset: number, status: number, code: number): void {
    const { u8, u16, i32, decoder: d, built } = this;
    const h = record >> 1;
    const w = record >> 2;
    u8[record + RECORD.LENGTH] = d.length;
    u16[h + RECORD.OFFSET / 2] = offset;
    if (status !== Decoded.OK) {
      u16[h] = status === Decoded.TOO_LONG ? built.tooLongHandler : built.undefinedHandler;
      return;
    }
    const form = d.form!;
    const size = d.operandSize === 64 ? 2 : d.operandSize === 32 ? 1 : 0;
    u16[h] = form.handlers[size * 2 + (d.memory ? 1 : 0)]!;
    u8[record + RECORD.SCALE] = d.scale;
    u16[h + RECORD.A / 2] = d.a;
    i32[w + RECORD.IMM / 4] = d.immLow;
    i32[w + RECORD.TARGET / 4] = d.immHigh;
    if (d.bImmediate) i32[w + RECORD.B / 4] = record + RECORD.IMM;
    else i32[w + RECORD.B / 4] = this.core + d.b;
    if (!d.hasImmediate) u16[h + RECORD.C / 2] = d.c;
    const kind = form.operands[0]?.kind;
    if (kind === BRANCH) {
      i32[w + RECORD.IMM / 4] = offset + d.length + d.immLow;
      i32[w + RECORD.TARGET / 4] = 0;
      u8[record + RECORD.SCALE] = d.operandSize === 16 ? 1 : 0;
    }
    if (!form.hasModrm && (form.operands.length === 0 || form.operands[0].kind === "t")) {
      u16[h + RECORD.A / 2] = d.rep;
    }
    this.writeAddress(record, offset, code);
  }
  private writeAddress(record: number, offset: number, code: number): void {
    const { u16, i32, decoder: d } = this;
    const h = record >> 1;
    let displacement = d.displacement;
    let base = d.base;
    if (base === 17) displacement += offset + d.length;
    let simple = code === CodeSize.BITS64 && d.addressSize === 2;
    if (d.absolute && d.addressSize === 2 && d.displacementHigh !== displacement >> 31) {
      // A 64-bit absolute address: kept where an immediate would be.
      base = 18;
      simple = false;
      i32[(record + RECORD.IMM) >> 2] = d.displacement;
      i32[(record + RECORD.TARGET) >> 2] = d.displacementHigh;
    }
    i32[(record + RECORD.DISP) >> 2] = displacement;
    u16[h + RECORD.MISC / 2] =
      base |
      (d.index << Misc.INDEX_SHIFT) |
      (d.segment << Misc.SEGMENT_SHIFT) |
      (d.addressSize << Misc.ADDRESS_SHIFT);
    if (simple) {
      u16[h + RECORD.BASE / 2] = base === 16 ? ENGINE.ZERO : base === 17 ? ENGINE.RIP_BASE : base * 8;
      u16[h + RECORD.INDEX / 2] = d.index === 16 ? ENGINE.ZERO : d.index * 8;
      u16[h + RECORD.SEGMENT / 2] = d.segment >= 4 ? SEGMENT_OFFSETS[d.segment] : ENGINE.ZERO;
    } else {
      u16[h + RECORD.BASE / 2] = ENGINE.ZERO;
      u16[h + RECORD.INDEX / 2] = ENGINE.ZERO;
      u16[h + RECORD.SEGMENT / 2] = ENGINE.POISON;
    }
  }

  /**
   * Forgets the code of a frame that overlaps the given bytes; its records lead to a fresh lookup. Returns whether
   * there was any.
   */
  drop(frame: number, offset: number, length: number): boolean {
    let left = false;
    let dropped = false;
    for (let code = 0; code < 3; code++) {
      const page = this.pages.get(frame * 3 + code);
      if (!page) continue;
      if (!this.touches(page, offset, length)) {
        left = true;
        continue;
      }
      for (const record of page.records) {
        this.u16[(record + RECORD.HANDLER) >> 1] = Handler.LINK;
        this.i32[(record + RECORD.TARGET) >> 2] = 0;
      }
      this.pages.delete(frame * 3 + code);
      dropped = true;
    }
    if (!left) this.frames.remove(frame, this.user);
    return dropped;
  }
  private touches(page: CodePage, offset: number, length: number): boolean {
    for (let at = Math.max(0, offset - 14); at < Math.min(PAGE_SIZE, offset + length); at++) {
      const n = page.map[at];
      if (n && at + this.u8[page.records[n - 1] + RECORD.LENGTH] > offset) return true;
    }
    return false;
  }
  /** Forgets everything. Only between instructions. */
  flush(): void {
    for (const key of this.pages.keys()) this.frames.remove(Math.floor(key / 3), this.user);
    this.pages.clear();
    this.next = this.pool;
    this.flushes++;
    this.onFlush();
  }
}
