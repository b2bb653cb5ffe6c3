/**
 * Where the BIOS puts things in physical memory: DRAM below 3 GiB and from 4 GiB on; at the top of low memory the
 * SEAM range, below it the SMM range (TSEG). The rest but the first megabyte is convertible memory.
 */

/** A range of bytes, `end` exclusive. */
export interface MemoryRange {
  readonly start: number;
  readonly end: number;
}

export interface MemoryLayout {
  /** Bytes of DRAM address space that the memory controller needs. */
  readonly dramBytes: number;
  readonly seamRange: MemoryRange;
  readonly smmRange: MemoryRange;
  /** What the kernel may use (E820 RAM). */
  readonly usable: readonly MemoryRange[];
  /** Convertible memory ranges (CMRs). */
  readonly cmrs: readonly MemoryRange[];
}

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const LOW_LIMIT = 3 * GIB;
const HIGH_START = 4 * GIB;
const SEAM_SIZE = 32 * MIB;
const SMM_SIZE = 8 * MIB;
export const MIN_HOST_MEMORY = 256 * MIB;
export const MAX_HOST_MEMORY = 60 * GIB;

/** @throws RangeError for a size that is not a multiple of 32 MiB in [MIN_HOST_MEMORY, MAX_HOST_MEMORY] */
export function layoutHostMemory(memoryBytes: number): MemoryLayout {
  if (!(memoryBytes >= MIN_HOST_MEMORY && memoryBytes <= MAX_HOST_MEMORY && memoryBytes % SEAM_SIZE === 0))
    throw new RangeError(
      `host memory of ${memoryBytes} bytes: must be a multiple of ${SEAM_SIZE} from ${MIN_HOST_MEMORY} to ${MAX_HOST_MEMORY}`,
    );
  const low = Math.min(memoryBytes, LOW_LIMIT);
  const high = memoryBytes - low;
  const seamRange = { start: low - SEAM_SIZE, end: low };
  const smmRange = { start: seamRange.start - SMM_SIZE, end: seamRange.start };
  const above = high > 0 ? [{ start: HIGH_START, end: HIGH_START + high }] : [];
  return {
    dramBytes: high > 0 ? HIGH_START + high : low,
    seamRange,
    smmRange,
    usable: [{ start: 0x1000, end: 0xa0000 }, { start: MIB, end: smmRange.start }, ...above],
    cmrs: [{ start: MIB, end: smmRange.start }, ...above],
  };
}
