/**
 * The TLB of a logical processor: a real cache. Translations stay until they are invalidated or evicted, so that a
 * forgotten INVLPG, INVVPID or INVEPT can be observed as on hardware.
 *
 * An entry is a combined mapping (linear to host-physical) tagged with a context: VPID, PCID, EP4TA of private and
 * shared EPT (Intel SDM vol. 3C section 29.4). Global pages are tagged with the context without PCID.
 * An entry also caches where the frame's plaintext lies in the arena; that part is dropped when the memory
 * controller says the frame moved, the translation is not.
 */

/** What an entry is tagged with. */
export interface TlbContext {
  readonly id: number;
  readonly vpid: number;
  /** -1: of global pages. */
  readonly pcid: number;
  /** EPTP bits 51:12 with the walk's KeyID (EP4TA), -1 without EPT. */
  readonly ep4ta: number;
  readonly sharedEp4ta: number;
}

/** Rights in an entry's flags. */
export const TLB = {
  VALID: 1,
  /** Page-table rights. */
  WRITABLE: 2,
  USER: 4,
  EXECUTABLE: 8,
  DIRTY: 16,
  GLOBAL: 32,
  /** EPT rights. */
  EPT_R: 64,
  EPT_W: 128,
  EPT_X: 256,
  /** EPT dirty flag is set (or not kept). */
  EPT_DIRTY: 512,
  /** Execute right for user-mode addresses (mode-based execute control), equal to EPT_X without it. */
  EPT_XU: 1024,
  /** A piece of a 2M (4M) or 1G page: INVLPG of any address in it drops all pieces. */
  LARGE: 2048,
  HUGE: 4096,
} as const;

const SETS = 1024;
const WAYS = 2;
const SIZE = SETS * WAYS;
const FILTER = 65536;

export class Tlb {
  readonly flags = new Uint16Array(SIZE);
  readonly frame = new Float64Array(SIZE);
  readonly keyId = new Uint16Array(SIZE);
  readonly protectionKey = new Uint8Array(SIZE);
  /** Arena offsets of the frame for reads and writes; -1 unknown or unusable. */
  readonly readAt = new Float64Array(SIZE).fill(-1);
  readonly writeAt = new Float64Array(SIZE).fill(-1);
  readonly #pageLow = new Uint32Array(SIZE);
  readonly #pageHigh = new Uint32Array(SIZE);
  readonly #context = new Int32Array(SIZE).fill(-1);
  readonly #victim = new Uint8Array(SETS);
  readonly #contexts = new Map<string, TlbContext>();
  readonly #byId: TlbContext[] = [];
  /** How many entries have a frame with this hash: most frame changes concern none. */
  readonly #frames = new Uint16Array(FILTER);

  /** The context with these tags; the same object for the same tags. */
  context(vpid: number, pcid: number, ep4ta: number, sharedEp4ta: number): TlbContext {
    const key = `${vpid}/${pcid}/${ep4ta}/${sharedEp4ta}`;
    let context = this.#contexts.get(key);
    if (!context) {
      context = { id: this.#byId.length, vpid, pcid, ep4ta, sharedEp4ta };
      this.#byId.push(context);
      this.#contexts.set(key, context);
    }
    return context;
  }

  /** Index of the entry for a page (linear address bits 63:12, as low and high words), or -1. */
  find(context: number, pageLow: number, pageHigh: number): number {
    let index = ((pageLow ^ (context * 0x9e5)) & (SETS - 1)) * WAYS;
    for (let way = 0; way < WAYS; way++, index++)
      if (
        this.#context[index] === context &&
        this.#pageLow[index] === pageLow &&
        this.#pageHigh[index] === pageHigh
      )
        return index;
    return -1;
  }

  insert(
    context: number,
    pageLow: number,
    pageHigh: number,
    frame: number,
    keyId: number,
    flags: number,
  ): number {
    let index = this.find(context, pageLow, pageHigh);
    if (index < 0) {
      const set = (pageLow ^ (context * 0x9e5)) & (SETS - 1);
      const way = this.#victim[set];
      this.#victim[set] = way ^ 1;
      index = set * WAYS + way;
    }
    this.#drop(index);
    this.#context[index] = context;
    this.#pageLow[index] = pageLow;
    this.#pageHigh[index] = pageHigh;
    this.frame[index] = frame;
    this.keyId[index] = keyId;
    this.flags[index] = flags | TLB.VALID;
    this.#frames[frame % FILTER]++;
    return index;
  }

  #drop(index: number): void {
    if (this.#context[index] < 0) return;
    this.#frames[this.frame[index] % FILTER]--;
    this.#context[index] = -1;
    this.flags[index] = 0;
    this.readAt[index] = -1;
    this.writeAt[index] = -1;
  }

  /** The frame's plaintext is no longer where it was. */
  frameChanged(frame: number): boolean {
    if (this.#frames[frame % FILTER] === 0) return false;
    let any = false;
    for (let i = 0; i < SIZE; i++)
      if (this.frame[i] === frame && this.#context[i] >= 0) {
        this.readAt[i] = -1;
        this.writeAt[i] = -1;
        any = true;
      }
    return any;
  }

  /** The frame at this arena offset may no longer be written without asking. */
  protect(base: number): void {
    for (let i = 0; i < SIZE; i++) if (this.writeAt[i] === base) this.writeAt[i] = -1;
  }
  /** Whether the mapping of a page is cached as one of 4 KiB. */
  isSmall(context: number, pageLow: number, pageHigh: number): boolean {
    const index = this.find(context, pageLow, pageHigh);
    return index >= 0 && (this.flags[index] & (TLB.LARGE | TLB.HUGE)) === 0;
  }

  /** INVLPG: one page under a PCID, and global. `pcid` -1: all. */
  flushPage(vpid: number, pcid: number, pageLow: number, pageHigh: number): void {
    for (let i = 0; i < SIZE; i++) {
      const id = this.#context[i];
      if (id < 0 || this.#pageHigh[i] !== pageHigh) continue;
      const shift = this.flags[i] & TLB.HUGE ? 18 : this.flags[i] & TLB.LARGE ? 9 : 0;
      if (this.#pageLow[i] >>> shift !== pageLow >>> shift) continue;
      const context = this.#byId[id];
      if (context.vpid === vpid && (pcid < 0 || context.pcid < 0 || context.pcid === pcid)) this.#drop(i);
    }
  }
  /** All of a VPID; `keepGlobal` leaves global pages, `pcid` >= 0 limits to one PCID. */
  flushVpid(vpid: number, keepGlobal: boolean, pcid = -1): void {
    this.#flush((c) => c.vpid === vpid && (c.pcid >= 0 ? pcid < 0 || c.pcid === pcid : !keepGlobal));
  }
  /** All mappings made with VPIDs: INVVPID of all contexts leaves VPID 0. */
  flushAllVpids(): void {
    this.#flush((c) => c.vpid !== 0);
  }
  /** INVEPT of one context: mappings made with this EPT, private or shared. */
  flushEpt(ep4ta: number, matches: (own: number, given: number) => boolean): void {
    this.#flush((c) => matches(c.ep4ta, ep4ta) || matches(c.sharedEp4ta, ep4ta));
  }
  flushAllEpt(): void {
    this.#flush((c) => c.ep4ta >= 0);
  }
  flushAll(): void {
    this.#flush(() => true);
  }
  #flush(which: (context: TlbContext) => boolean): void {
    for (let i = 0; i < SIZE; i++) {
      const id = this.#context[i];
      if (id >= 0 && which(this.#byId[id])) this.#drop(i);
    }
  }
  /** Number of valid entries. */
  get used(): number {
    let count = 0;
    for (let i = 0; i < SIZE; i++) if (this.#context[i] >= 0) count++;
    return count;
  }
}
