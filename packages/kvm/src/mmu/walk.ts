/**
 * Translates a guest's linear addresses by its page tables, for KVM's own reads of guest memory (instruction bytes,
 * string I/O). Rights are not checked: the processor has done that, or will.
 * Source: Intel SDM vol. 3A ch. 5; Linux arch/x86/kvm/mmu/paging_tmpl.h.
 */

/** The control registers that say how to walk. */
export interface PagingState {
  readonly cr0: bigint;
  readonly cr3: bigint;
  readonly cr4: bigint;
  readonly efer: bigint;
}
/** Reads a paging-structure entry of `size` bytes; null: there is no memory. */
export type ReadEntry = (gpa: number, size: 4 | 8) => bigint | null;

const CR0_PG = 1n << 31n;
const CR4_PSE = 1n << 4n;
const CR4_PAE = 1n << 5n;
const CR4_LA57 = 1n << 12n;
const EFER_LMA = 1n << 10n;
const PRESENT = 1n;
const PAGE_SIZE_BIT = 1n << 7n;
const ADDRESS = 0x000f_ffff_ffff_f000n;

/** @returns the GPA, or null when the address is not mapped */
export function translate(state: PagingState, gla: bigint, read: ReadEntry): number | null {
  if ((state.cr0 & CR0_PG) === 0n) return Number(gla & 0xffff_ffffn);
  if ((state.cr4 & CR4_PAE) === 0n) return walk32(state, gla, read);
  const long = (state.efer & EFER_LMA) !== 0n;
  const levels = !long ? 3 : (state.cr4 & CR4_LA57) !== 0n ? 5 : 4;
  let table = long ? state.cr3 & ADDRESS : state.cr3 & 0xffff_ffe0n;
  const address = long ? gla : gla & 0xffff_ffffn;
  for (let level = levels - 1; ; level--) {
    const index = (address >> BigInt(12 + 9 * level)) & 0x1ffn;
    const entry = read(Number(table + index * 8n), 8);
    if (entry === null || (entry & PRESENT) === 0n) return null;
    const mask = (1n << BigInt(12 + 9 * level)) - 1n;
    // A PDPTE of PAE paging has no page size bit.
    const leaf = level === 0 || ((level === 1 || (level === 2 && long)) && (entry & PAGE_SIZE_BIT) !== 0n);
    if (leaf) return Number((entry & ADDRESS & ~mask) | (address & mask));
    table = entry & ADDRESS;
  }
}

function walk32({ cr3, cr4 }: PagingState, gla: bigint, read: ReadEntry): number | null {
  const pde = read(Number((cr3 & 0xffff_f000n) + ((gla >> 22n) & 0x3ffn) * 4n), 4);
  if (pde === null || (pde & PRESENT) === 0n) return null;
  if ((pde & PAGE_SIZE_BIT) !== 0n && (cr4 & CR4_PSE) !== 0n) {
    // PSE-36: bits 20:13 are address bits 39:32.
    const high = ((pde >> 13n) & 0xffn) << 32n;
    return Number(high | (pde & 0xffc0_0000n) | (gla & 0x3f_ffffn));
  }
  const pte = read(Number((pde & 0xffff_f000n) + ((gla >> 12n) & 0x3ffn) * 4n), 4);
  if (pte === null || (pte & PRESENT) === 0n) return null;
  return Number((pte & 0xffff_f000n) | (gla & 0xfffn));
}
