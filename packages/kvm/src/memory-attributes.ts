/** Per-page attributes of guest memory (KVM_SET_MEMORY_ATTRIBUTES): which ranges are private. */

interface Range {
  start: number;
  end: number;
}

/** A set of guest frame numbers as sorted, disjoint ranges. */
export class PrivateRanges {
  #ranges: Range[] = [];

  /** Sets or clears [start, end). */
  set(start: number, end: number, isPrivate: boolean): void {
    const out: Range[] = [];
    for (const range of this.#ranges) {
      if (
        range.end < start ||
        range.start > end ||
        (!isPrivate && (range.end <= start || range.start >= end))
      ) {
        out.push(range);
        continue;
      }
      if (isPrivate) {
        start = Math.min(start, range.start);
        end = Math.max(end, range.end);
      } else {
        if (range.start < start) out.push({ start: range.start, end: start });
        if (range.end > end) out.push({ start: end, end: range.end });
      }
    }
    if (isPrivate) out.push({ start, end });
    this.#ranges = out.sort((a, b) => a.start - b.start);
  }

  has(frame: number): boolean {
    return this.hasAll(frame, frame + 1);
  }

  /** Whether all of [start, end), which is not empty, is in the set. */
  hasAll(start: number, end: number): boolean {
    const ranges = this.#ranges;
    let low = 0;
    let high = ranges.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const range = ranges[middle];
      if (start < range.start) high = middle - 1;
      else if (start >= range.end) low = middle + 1;
      else return end <= range.end;
    }
    return false;
  }
}
