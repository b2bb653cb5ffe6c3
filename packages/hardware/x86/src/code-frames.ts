/**
 * Which frames of memory hold decoded code, shared by the cores that run on one memory. Whoever changes memory other
 * than through a core (DMA, host software, the memory controller taking a frame away) must call `written` first.
 */
export interface CodeUser {
  /** Bytes of a frame changed, or all of it. */
  dropCode(frame: number, offset: number, length: number): void;
  /** A frame now holds code: no TLB entry may allow plain stores to it. */
  protectFrame(frame: number): void;
}

export class CodeFrames {
  private readonly flags: Int32Array;
  private readonly users: CodeUser[] = [];

  /** @param bytes size of the memory */
  constructor(bytes: number) {
    this.flags = new Int32Array(Math.ceil(bytes / 4096));
  }
  /** At most 31. Returns the user's number. */
  addUser(user: CodeUser): number {
    if (this.users.length === 31) throw new RangeError("at most 31 cores share a memory");
    return this.users.push(user) - 1;
  }
  /** @param frame number of the frame: byte offset in memory / 4096 */
  has(frame: number): boolean {
    return this.flags[frame] !== 0;
  }
  add(frame: number, user: number): void {
    const before = this.flags[frame];
    this.flags[frame] = before | (1 << user);
    if (before) return;
    for (const user of this.users) user.protectFrame(frame);
  }
  remove(frame: number, user: number): void {
    this.flags[frame] = this.flags[frame] & ~(1 << user);
  }
  /** Bytes of a frame are about to change: forgets the code that they are part of. */
  written(frame: number, offset = 0, length = 4096): void {
    if (!this.flags[frame]) return;
    for (const user of this.users) user.dropCode(frame, offset, length);
  }
}
