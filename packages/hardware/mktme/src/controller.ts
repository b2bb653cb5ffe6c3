/**
 * DRAM and its memory controller with total memory encryption.
 *
 * Frames hold plaintext together with the key they were last written under, so that the same key reads them at no
 * cost. The cipher runs only when somebody looks with another key, or at the DIMM itself; what is seen then is what
 * hardware would show (a test holds this against a cipher that encrypts at once).
 *
 * Integrity, as the TDX Module base specification 1.5 has it ("TDX Memory Integrity Protection Background"):
 *  - Every line has a TD-owner bit: set by a write with a private KeyID, cleared by one with a shared KeyID. Writes
 *    check nothing.
 *  - A read with a private KeyID of a line whose TD-owner bit is clear makes poison; in cryptographic mode (Ci) so
 *    does one whose MAC does not fit: another key, or tampered. In logical mode (Li) there is no MAC.
 *  - A read with a shared KeyID of a TD-owned line gets zeros, without new poison: so the host can neither see
 *    ciphertext nor test for MAC collisions. (`tdOwnedRead: "ciphertext"` shows what it would see otherwise.)
 *  - Poison is kept with the line: whoever reads it, under any KeyID, gets zeros and poison, until the line is
 *    written whole (MOVDIR64B). A write of a part leaves it poisoned.
 *
 * What memory holds before anybody writes: zeros under TME's key, not TD-owned, as the BIOS leaves it.
 *
 * Pages of zeros take no frame, whoever wrote them: of a 2 MiB region without pages only the key is kept.
 */
import { type Hpa, hpaOf, type KeyId, keyId as asKeyId, PAGE_SIZE, type Pfn, Trace } from "@swtdx/abi";
import type { SeededRandom } from "@swtdx/crypto";
import type { Arena } from "./arena.js";
import {
  createMemoryKey,
  fromDimm,
  type KeyMaterial,
  lineMac,
  MAC_KEY_SIZE,
  type MemoryKey,
  toDimm,
} from "./key.js";
import {
  type DimmLine,
  isDimmLine,
  lineIndex,
  type LineOwner,
  LINES_PER_PAGE,
  NO_FRAME,
  type Page,
} from "./page.js";
import { LINE_SIZE } from "./xts.js";

/** Outcome of an access. */
export const MemoryStatus = { OK: 0, POISON: 1 } as const;
export type MemoryStatus = (typeof MemoryStatus)[keyof typeof MemoryStatus];

const MAX_DRAM = 2 ** 36;
/** Up to this many bytes are copied one by one: a view to copy from costs more. */
const SHORT = 32;
/** A table of the directory covers 2 MiB. */
const DIRECTORY_SHIFT = 9;
const DIRECTORY_SIZE = 1 << DIRECTORY_SHIFT;
const ZERO_LINE = new Uint8Array(LINE_SIZE);
const ZERO_PAGE = new Uint8Array(PAGE_SIZE);

export interface MemoryControllerOptions {
  /** Bytes of DRAM from address 0, a multiple of 4 KiB, at most 64 GiB. */
  dramBytes: number;
  /** Default "logical": the TD-owner bit alone. */
  integrity?: "logical" | "cryptographic";
  /** What a shared KeyID reads of TD-owned lines. Default "zeros", as specified. */
  tdOwnedRead?: "zeros" | "ciphertext";
  /** For TME's key, the MAC key and keys that PCONFIG has made at random. */
  random: SeededRandom;
  trace?: Trace;
}

/** KeyIDs: how many of each kind (IA32_MKTME_KEYID_PARTITIONING). KeyID 0 is TME's own. */
export interface KeyIdPartition {
  /** Shared KeyIDs 1..mktmeKeyIds. */
  mktmeKeyIds: number;
  /** Private KeyIDs above them. */
  tdxKeyIds: number;
}

export class MemoryController {
  readonly dramBytes: number;
  readonly integrity: "logical" | "cryptographic";
  readonly #tdOwnedRead: "zeros" | "ciphertext";
  readonly #random: SeededRandom;
  readonly #trace: Trace;
  readonly #directory: ((Page | undefined)[] | undefined)[] = [];
  /** Whose zeros a 2 MiB region holds where it has no page; none: TME's. */
  readonly #zeroKeys: (MemoryKey | undefined)[] = [];
  readonly #macKey: Uint8Array;
  readonly #tme: MemoryKey;
  readonly #programmed = new Map<number, MemoryKey>();
  readonly #unprogrammedPrivate = new Map<number, MemoryKey>();
  readonly #listeners: ((frame: Pfn) => void)[] = [];
  #partition: KeyIdPartition = { mktmeKeyIds: 0, tdxKeyIds: 0 };
  #keys: MemoryKey[] = [];

  /** @throws RangeError for a DRAM size that is not a multiple of 4 KiB in (0, 64 GiB] */
  constructor(
    readonly arena: Arena,
    options: MemoryControllerOptions,
  ) {
    const { dramBytes } = options;
    if (!(dramBytes > 0 && dramBytes <= MAX_DRAM && dramBytes % PAGE_SIZE === 0))
      throw new RangeError(`dramBytes ${dramBytes}: must be a multiple of ${PAGE_SIZE} in (0, ${MAX_DRAM}]`);
    this.dramBytes = dramBytes;
    this.integrity = options.integrity ?? "logical";
    this.#tdOwnedRead = options.tdOwnedRead ?? "zeros";
    this.#random = options.random.fork("mktme");
    this.#trace = options.trace ?? new Trace();
    this.#tme = createMemoryKey(this.#randomMaterial(), false);
    this.#macKey = this.#random.bytes(MAC_KEY_SIZE);
    this.#rebuildKeys();
  }

  // ---- KeyIDs

  get partition(): Readonly<KeyIdPartition> {
    return this.#partition;
  }

  /** Takes effect as IA32_TME_ACTIVATE locks it: keys that were programmed are forgotten. */
  activate(partition: KeyIdPartition): void {
    this.#partition = { ...partition };
    this.#programmed.clear();
    this.#unprogrammedPrivate.clear();
    this.#rebuildKeys();
  }

  isPrivate(keyId: KeyId): boolean {
    return (
      keyId > this.#partition.mktmeKeyIds && keyId <= this.#partition.mktmeKeyIds + this.#partition.tdxKeyIds
    );
  }

  /** Programs a KeyID (PCONFIG.MKTME_KEY_PROGRAM). @throws RangeError for KeyID 0 or one that does not exist */
  programKey(keyId: KeyId, material: KeyMaterial): void {
    this.#checkKeyId(keyId);
    this.#programmed.set(keyId, createMemoryKey(material, this.isPrivate(keyId)));
    this.#rebuildKeys();
    if (this.#trace.on.KEYID) this.#trace.emit({ type: "KEYID", op: "programmed", keyId });
  }

  /** Programs a KeyID with a random key (PCONFIG.MKTME_KEY_PROGRAM, KEYID_SET_KEY_RANDOM). */
  programRandomKey(keyId: KeyId): void {
    this.programKey(keyId, this.#randomMaterial());
  }

  /** Back to TME's key (PCONFIG "clear key"). */
  clearKey(keyId: KeyId): void {
    this.#checkKeyId(keyId);
    this.#programmed.delete(keyId);
    this.#unprogrammedPrivate.delete(keyId);
    this.#rebuildKeys();
    if (this.#trace.on.KEYID) this.#trace.emit({ type: "KEYID", op: "cleared", keyId });
  }

  #checkKeyId(keyId: KeyId): void {
    const count = this.#partition.mktmeKeyIds + this.#partition.tdxKeyIds;
    if (!(keyId >= 1 && keyId <= count))
      throw new RangeError(`KeyID ${keyId}: there are KeyIDs 1 to ${count}`);
  }

  #randomMaterial(): KeyMaterial {
    return { mode: "encrypt", dataKey: this.#random.bytes(16), tweakKey: this.#random.bytes(16) };
  }

  /** The key of each KeyID: unprogrammed ones use TME's, which for private ones is an owner of its own. */
  #rebuildKeys(): void {
    const count = 1 + this.#partition.mktmeKeyIds + this.#partition.tdxKeyIds;
    const before = this.#keys;
    this.#keys = Array.from({ length: count }, (_, id) => {
      if (id === 0) return this.#tme;
      const programmed = this.#programmed.get(id);
      if (programmed) return programmed;
      if (!this.isPrivate(asKeyId(id))) return this.#tme;
      let key = this.#unprogrammedPrivate.get(id);
      if (!key) this.#unprogrammedPrivate.set(id, (key = { ...this.#tme, isPrivate: true }));
      return key;
    });
    // Frames whose key is no longer anybody's must not be read directly.
    const gone = new Set(before.filter((key, id) => this.#keys[id] !== key));
    if (gone.size > 0)
      this.#forEachPage((frame, page) => {
        if (page.key !== null && gone.has(page.key)) this.#changed(frame);
      });
  }

  #keyOf(keyId: KeyId): MemoryKey {
    return this.#keys[keyId] ?? this.#tme;
  }

  // ---- Pages

  #page(frame: Pfn): Page | undefined {
    return this.#directory[frame >>> DIRECTORY_SHIFT]?.[frame & (DIRECTORY_SIZE - 1)];
  }

  #forEachPage(visit: (frame: Pfn, page: Page) => void): void {
    this.#directory.forEach((table, i) =>
      table?.forEach((page, j) => page && visit(((i << DIRECTORY_SHIFT) + j) as Pfn, page)),
    );
  }

  /** The key of a frame that has no page: of the zeros in it. */
  #zeroKey(frame: Pfn): MemoryKey {
    return this.#zeroKeys[frame >>> DIRECTORY_SHIFT] ?? this.#tme;
  }

  /** The page, made resident. */
  #touch(frame: Pfn): Page {
    const existing = this.#page(frame);
    if (existing) {
      if (existing.offset === NO_FRAME) existing.offset = this.arena.allocFrame();
      return existing;
    }
    return this.#put(frame, this.arena.allocFrame(), this.#zeroKey(frame));
  }

  #put(frame: Pfn, offset: number, key: MemoryKey): Page {
    const page: Page = { offset, key, lines: null, poison: null };
    const table = (this.#directory[frame >>> DIRECTORY_SHIFT] ??= []);
    table[frame & (DIRECTORY_SIZE - 1)] = page;
    return page;
  }

  /** Takes a page's frame away. */
  #evict(frame: Pfn, page: Page): void {
    if (page.offset === NO_FRAME) return;
    this.arena.freeFrame(page.offset);
    page.offset = NO_FRAME;
    this.#changed(frame);
  }

  #changed(frame: Pfn): void {
    for (const listener of this.#listeners) listener(frame);
  }

  /** Called with a frame whose offset (`frameForRead`, `frameForWrite`) stops being valid. */
  onFrameChange(listener: (frame: Pfn) => void): void {
    this.#listeners.push(listener);
  }

  /** Byte offset in the arena of the frame's plaintext, or -1: accesses have to go through `read`. */
  frameForRead(frame: Pfn, keyId: KeyId): number {
    const page = this.#page(frame);
    return page !== undefined && page.key === this.#keyOf(keyId) ? page.offset : -1;
  }

  /** As `frameForRead`, for writing; zeros become resident for the key that they have. */
  frameForWrite(frame: Pfn, keyId: KeyId): number {
    const key = this.#keyOf(keyId);
    const page = this.#page(frame);
    if (page !== undefined && page.offset !== NO_FRAME) return page.key === key ? page.offset : -1;
    if ((page === undefined ? this.#zeroKey(frame) : page.key) !== key) return -1;
    return hpaOf(frame) < this.dramBytes ? this.#touch(frame).offset : -1;
  }

  // ---- Accesses

  /** Reads `target.length` bytes; a poisoned line reads as zeros. Past the end of DRAM reads are all ones. */
  read(address: Hpa, keyId: KeyId, target: Uint8Array): MemoryStatus {
    const { length } = target;
    if (length <= SHORT && (address % PAGE_SIZE) + length <= PAGE_SIZE) {
      const base = this.frameForRead(Math.floor(address / PAGE_SIZE) as Pfn, keyId);
      if (base >= 0) {
        const from = base + (address % PAGE_SIZE);
        for (let i = 0; i < length; i++) target[i] = this.arena.u8[from + i];
        return MemoryStatus.OK;
      }
    }
    const key = this.#keyOf(keyId);
    let status: MemoryStatus = MemoryStatus.OK;
    for (let done = 0; done < target.length;) {
      const at = address + done;
      const inPage = at % PAGE_SIZE;
      const count = Math.min(PAGE_SIZE - inPage, target.length - done);
      const part = target.subarray(done, done + count);
      if (this.#readInPage(Math.floor(at / PAGE_SIZE) as Pfn, inPage, key, part) !== MemoryStatus.OK)
        status = MemoryStatus.POISON;
      done += count;
    }
    return status;
  }

  #readInPage(frame: Pfn, offset: number, key: MemoryKey, target: Uint8Array): MemoryStatus {
    if (hpaOf(frame) >= this.dramBytes) {
      target.fill(0xff);
      return MemoryStatus.OK;
    }
    const page = this.#page(frame);
    const owner = page === undefined ? this.#zeroKey(frame) : page.key;
    if (owner === key) {
      if (page === undefined || page.offset === NO_FRAME) target.fill(0);
      else target.set(this.arena.u8.subarray(page.offset + offset, page.offset + offset + target.length));
      return MemoryStatus.OK;
    }
    if (!key.isPrivate && owner !== null) {
      // Nothing is checked line by line.
      if (owner.isPrivate && this.#tdOwnedRead === "zeros") target.fill(0);
      else {
        const { first, stored } = this.#stored(frame, page, owner, offset, target.length);
        const seen = fromDimm(key, frame * LINES_PER_PAGE + first, stored);
        const start = offset - first * LINE_SIZE;
        target.set(seen.subarray(start, start + target.length));
      }
      return MemoryStatus.OK;
    }
    let status: MemoryStatus = MemoryStatus.OK;
    for (let done = 0; done < target.length;) {
      const at = offset + done;
      const inLine = at % LINE_SIZE;
      const count = Math.min(LINE_SIZE - inLine, target.length - done);
      const line = this.#readLine(frame, Math.floor(at / LINE_SIZE), key);
      if (line === null) {
        status = MemoryStatus.POISON;
        target.fill(0, done, done + count);
      } else {
        target.set(line.subarray(inLine, inLine + count), done);
      }
      done += count;
    }
    return status;
  }

  /** What the DIMM holds of the lines that a range of a page with one owner touches. */
  #stored(
    frame: Pfn,
    page: Page | undefined,
    owner: MemoryKey,
    offset: number,
    length: number,
  ): { first: number; stored: Uint8Array } {
    const first = Math.floor(offset / LINE_SIZE);
    const end = Math.ceil((offset + length) / LINE_SIZE);
    const zero = page === undefined || page.offset === NO_FRAME;
    const base = zero ? 0 : page.offset;
    const plain = (zero ? ZERO_PAGE : this.arena.u8).subarray(
      base + first * LINE_SIZE,
      base + end * LINE_SIZE,
    );
    return { first, stored: toDimm(owner, frame * LINES_PER_PAGE + first, plain) };
  }

  /** What a reader with `key` sees of a line; null is poison, which stays with the line. */
  #readLine(frame: Pfn, index: number, key: MemoryKey): Uint8Array | null {
    const page = this.#page(frame);
    if (page?.poison?.has(index)) return null;
    const owner = this.#ownerOf(frame, page, index);
    const content = this.#content(page, index);
    if (owner === key) return content;
    const tdOwner = isDimmLine(owner) ? owner.tdOwner : owner.isPrivate;
    if (!key.isPrivate && tdOwner && this.#tdOwnedRead === "zeros") return new Uint8Array(LINE_SIZE);
    const line = frame * LINES_PER_PAGE + index;
    if (key.isPrivate && !tdOwner) return this.#makePoison(frame, index);
    const stored = isDimmLine(owner) ? content : toDimm(owner, line, content);
    if (key.isPrivate && this.integrity === "cryptographic") {
      const mac = isDimmLine(owner) ? owner.mac : lineMac(this.#macKey, owner, line, tdOwner, stored);
      if (mac !== lineMac(this.#macKey, key, line, tdOwner, stored)) return this.#makePoison(frame, index);
    }
    return fromDimm(key, line, stored);
  }

  #ownerOf(frame: Pfn, page: Page | undefined, index: number): LineOwner {
    return page?.lines?.[index] ?? page?.key ?? this.#zeroKey(frame);
  }

  /** The frame's bytes of a line: plaintext of its owner, or what somebody put on the DIMM. */
  #content(page: Page | undefined, index: number): Uint8Array {
    if (page === undefined || page.offset === NO_FRAME) return ZERO_LINE;
    const start = page.offset + index * LINE_SIZE;
    return this.arena.u8.subarray(start, start + LINE_SIZE);
  }

  /**
   * Writes bytes. A line that is written only in part is first read under the writer's key: POISON says that this
   * found poison; the line then stays poisoned, with the bytes it had. Past the end of DRAM writes are dropped.
   */
  write(address: Hpa, keyId: KeyId, source: Uint8Array): MemoryStatus {
    const { length } = source;
    if (length <= SHORT && (address % PAGE_SIZE) + length <= PAGE_SIZE) {
      const base = this.frameForWrite(Math.floor(address / PAGE_SIZE) as Pfn, keyId);
      if (base >= 0) {
        const to = base + (address % PAGE_SIZE);
        for (let i = 0; i < length; i++) this.arena.u8[to + i] = source[i];
        return MemoryStatus.OK;
      }
    }
    const key = this.#keyOf(keyId);
    let status: MemoryStatus = MemoryStatus.OK;
    for (let done = 0; done < source.length;) {
      const at = address + done;
      const inPage = at % PAGE_SIZE;
      const count = Math.min(PAGE_SIZE - inPage, source.length - done);
      const frame = Math.floor(at / PAGE_SIZE) as Pfn;
      const part = source.subarray(done, done + count);
      if (hpaOf(frame) < this.dramBytes && this.#writeInPage(frame, inPage, key, part) !== MemoryStatus.OK)
        status = MemoryStatus.POISON;
      done += count;
    }
    return status;
  }

  #writeInPage(frame: Pfn, offset: number, key: MemoryKey, source: Uint8Array): MemoryStatus {
    const page = this.#touch(frame);
    const { u8 } = this.arena;
    if (page.key === key) {
      u8.set(source, page.offset + offset);
      return MemoryStatus.OK;
    }
    if (source.length === PAGE_SIZE) {
      u8.set(source, page.offset);
      this.#setOwner(frame, page, key);
      return MemoryStatus.OK;
    }
    let status: MemoryStatus = MemoryStatus.OK;
    for (let done = 0; done < source.length;) {
      const at = offset + done;
      const index = Math.floor(at / LINE_SIZE);
      const inLine = at % LINE_SIZE;
      const count = Math.min(LINE_SIZE - inLine, source.length - done);
      const part = source.subarray(done, done + count);
      if (count === LINE_SIZE) {
        this.#setLine(frame, page, index, key, part);
      } else {
        const old = this.#readLine(frame, index, key);
        if (old === null) status = MemoryStatus.POISON;
        else {
          const merged = old.slice();
          merged.set(part, inLine);
          this.#setLine(frame, page, index, key, merged);
        }
      }
      done += count;
    }
    this.#collapse(frame, page);
    return status;
  }

  /**
   * Writes zeros over `count` whole pages, as MOVDIR64B does: nothing old is read, poison is gone. Zeros take no frame
   * until somebody writes something else. Past the end of DRAM they are dropped.
   */
  zeroPages(first: Pfn, count: number, keyId: KeyId): void {
    const key = this.#keyOf(keyId);
    const end = Math.min(first + count, this.dramBytes / PAGE_SIZE);
    for (let frame: number = first; frame < end;) {
      if (frame % DIRECTORY_SIZE === 0 && frame + DIRECTORY_SIZE <= end) {
        this.#zeroRegion(frame >>> DIRECTORY_SHIFT, key);
        frame += DIRECTORY_SIZE;
      } else this.#zeroPage(frame++ as Pfn, key);
    }
  }
  #zeroRegion(index: number, key: MemoryKey): void {
    const table = this.#directory[index];
    if (table !== undefined)
      for (let i = 0; i < table.length; i++) {
        const page = table[i];
        if (page !== undefined) this.#evict(((index << DIRECTORY_SHIFT) + i) as Pfn, page);
      }
    this.#directory[index] = undefined;
    this.#zeroKeys[index] = key;
  }
  #zeroPage(frame: Pfn, key: MemoryKey): void {
    const page = this.#page(frame);
    if (page !== undefined) this.#evict(frame, page);
    if (key === this.#zeroKey(frame)) {
      if (page !== undefined)
        this.#directory[frame >>> DIRECTORY_SHIFT]![frame & (DIRECTORY_SIZE - 1)] = undefined;
    } else if (page === undefined) this.#put(frame, NO_FRAME, key);
    else {
      page.key = key;
      page.lines = null;
      page.poison = null;
    }
  }

  #setOwner(frame: Pfn, page: Page, key: MemoryKey): void {
    page.key = key;
    page.lines = null;
    page.poison = null;
    this.#changed(frame);
  }

  /** Splits a page into lines with owners of their own. */
  #split(frame: Pfn, page: Page): LineOwner[] {
    if (page.lines === null) {
      page.lines = new Array<LineOwner>(LINES_PER_PAGE).fill(page.key ?? this.#tme);
      page.key = null;
      this.#changed(frame);
    }
    return page.lines;
  }

  #setLine(frame: Pfn, page: Page, index: number, owner: LineOwner, content: Uint8Array): void {
    this.#split(frame, page)[index] = owner;
    page.poison?.delete(index);
    this.arena.u8.set(content, page.offset + index * LINE_SIZE);
  }

  /** Marks a line poisoned. Its bytes stay as they are. @returns null, as a poisoned read does */
  #makePoison(frame: Pfn, index: number): null {
    const page = this.#touch(frame);
    this.#split(frame, page);
    (page.poison ??= new Set()).add(index);
    return null;
  }

  /** A page whose lines have one owner again needs no list of them. */
  #collapse(frame: Pfn, page: Page): void {
    const { lines } = page;
    if (lines === null || (page.poison !== null && page.poison.size > 0)) return;
    const first = lines[0];
    if (isDimmLine(first)) return;
    for (let i = 1; i < LINES_PER_PAGE; i++) if (lines[i] !== first) return;
    this.#setOwner(frame, page, first);
  }

  /** Poisons the line that holds `address`, as an uncorrectable error would (error injection). */
  poison(address: Hpa): void {
    this.#makePoison(this.#frameOf(address), lineIndex(address));
  }

  /** @throws RangeError past the end of DRAM */
  #frameOf(address: Hpa): Pfn {
    if (!(address >= 0 && address < this.dramBytes))
      throw new RangeError(`HPA 0x${address.toString(16)}: DRAM ends at 0x${this.dramBytes.toString(16)}`);
    return Math.floor(address / PAGE_SIZE) as Pfn;
  }

  // ---- The DIMM

  /** The line that holds `address`, as a probe on the DIMM sees it. @throws RangeError past the end of DRAM */
  dimmReadLine(address: Hpa): DimmLine {
    const frame = this.#frameOf(address);
    const index = lineIndex(address);
    const page = this.#page(frame);
    const owner = this.#ownerOf(frame, page, index);
    const content = this.#content(page, index);
    const poison = page?.poison?.has(index) ?? false;
    if (isDimmLine(owner)) return { ...owner, data: content.slice(), poison };
    const line = frame * LINES_PER_PAGE + index;
    const data = toDimm(owner, line, content);
    const mac =
      this.integrity === "cryptographic" ? lineMac(this.#macKey, owner, line, owner.isPrivate, data) : 0;
    return { data, mac, tdOwner: owner.isPrivate, poison };
  }

  /**
   * Puts a line on the DIMM: tampering, or replay of what `dimmReadLine` gave.
   * @throws RangeError past the end of DRAM, or when the line has not 64 bytes
   */
  dimmWriteLine(address: Hpa, line: DimmLine): void {
    if (line.data.length !== LINE_SIZE) throw new RangeError(`a line of ${line.data.length} bytes`);
    const frame = this.#frameOf(address);
    const index = lineIndex(address);
    this.#setLine(frame, this.#touch(frame), index, { ...line, data: line.data.slice() }, line.data);
    if (line.poison) this.#makePoison(frame, index);
  }

  /** `length` bytes as a probe on the DIMM sees them; zeros past the end of DRAM. */
  probe(address: Hpa, length: number): Uint8Array {
    const out = new Uint8Array(length);
    for (let done = 0; done < length && address + done < this.dramBytes;) {
      const at = (address + done) as Hpa;
      const offset = at % PAGE_SIZE;
      const frame = this.#frameOf(at);
      const page = this.#page(frame);
      let count = Math.min(PAGE_SIZE - offset, length - done);
      if (page !== undefined && page.key !== null) {
        const { first, stored } = this.#stored(frame, page, page.key, offset, count);
        const start = offset - first * LINE_SIZE;
        out.set(stored.subarray(start, start + count), done);
      } else {
        const inLine = at % LINE_SIZE;
        count = Math.min(LINE_SIZE - inLine, count);
        out.set(this.dimmReadLine(at).data.subarray(inLine, inLine + count), done);
      }
      done += count;
    }
    return out;
  }

  /** Frames of DRAM that are resident, by page frame number, for whoever searches all of it: others hold zeros. */
  residentFrames(): Pfn[] {
    const out: Pfn[] = [];
    this.#forEachPage((frame, page) => page.offset !== NO_FRAME && out.push(frame));
    return out;
  }
}
