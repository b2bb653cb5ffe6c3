/** CPUID: the model's table, and what depends on the logical processor and its control registers. SDM vol. 2A CPUID. */
import type { Cpuid } from "./interface/seam.js";
import { BRAND_STRING, CPUID_TABLE } from "./cpuid-sapphire-rapids.js";

/** What the dynamic bits depend on. */
export interface CpuidState {
  readonly apicId: number;
  readonly lps: number;
  readonly tscHz: number;
  /** Low half of CR4, XCR0 and IA32_XSS. */
  readonly cr4: number;
  readonly xcr0: number;
  readonly xss: number;
}

const table = new Map<number, Cpuid>();
/** Leaves whose subleaf (ECX) does not matter. */
const anySubleaf = new Set<number>();
const keyOf = (leaf: number, subleaf: number): number => leaf * 64 + (subleaf & 63);
for (const [leaf, subleaf, eax, ebx, ecx, edx] of CPUID_TABLE) {
  if (subleaf < 0) anySubleaf.add(leaf);
  table.set(keyOf(leaf, Math.max(subleaf, 0)), {
    eax: eax >>> 0,
    ebx: ebx >>> 0,
    ecx: ecx >>> 0,
    edx: edx >>> 0,
  });
}
const brand = new Uint8Array(48);
brand.set(new TextEncoder().encode(BRAND_STRING));
const brandView = new DataView(brand.buffer);
for (let i = 0; i < 3; i++) {
  const word = (n: number) => brandView.getUint32(i * 16 + n * 4, true);
  anySubleaf.add(0x80000002 + i);
  table.set(keyOf(0x80000002 + i, 0), { eax: word(0), ebx: word(1), ecx: word(2), edx: word(3) });
}
const LAST_BASIC = table.get(keyOf(0, 0))!.eax;
const ZERO: Cpuid = { eax: 0, ebx: 0, ecx: 0, edx: 0 };

/** Standard-format size in bytes of the state components in a mask of XCR0. */
function xsaveSize(mask: number): number {
  if (mask & 0x200) return 0xa88;
  return mask & 4 ? 0x340 : 0x240;
}
/** Compacted-format size of components in XCR0 | XSS. */
export function xsaveCompactSize(mask: number): number {
  let size = 0x240;
  for (let i = 2; i < 16; i++) {
    if ((mask & (1 << i)) === 0) continue;
    const component = table.get(keyOf(0x0d, i));
    if (component) size += component.eax;
  }
  return size;
}

/** Executes CPUID. A leaf above the highest basic one returns that one's data, as on Intel processors. */
export function cpuid(leaf: number, subleaf: number, state: CpuidState): Cpuid {
  leaf >>>= 0;
  subleaf >>>= 0;
  if (leaf > LAST_BASIC && (leaf < 0x80000000 || leaf > 0x80000008)) leaf = LAST_BASIC;
  const entry =
    subleaf < 64 || anySubleaf.has(leaf)
      ? table.get(keyOf(leaf, anySubleaf.has(leaf) ? 0 : subleaf))
      : undefined;
  switch (leaf) {
    case 0x01:
      return {
        ...entry!,
        ebx: ((state.apicId << 24) | (64 << 16) | 0x800) >>> 0,
        ecx: (entry!.ecx | (state.cr4 & 0x40000 ? 1 << 27 : 0)) >>> 0,
      };
    case 0x07:
      if (subleaf !== 0 || !entry) break;
      return { ...entry, ecx: (entry.ecx | (state.cr4 & 0x400000 ? 1 << 4 : 0)) >>> 0 };
    case 0x0b:
    case 0x1f:
      return {
        eax: entry?.eax ?? 0,
        ebx: subleaf === 1 ? state.lps : (entry?.ebx ?? 0),
        ecx: entry?.ecx ?? subleaf & 0xff,
        edx: state.apicId,
      };
    case 0x0d:
      if (!entry) break;
      if (subleaf === 0) return { ...entry, ebx: xsaveSize(state.xcr0) };
      if (subleaf === 1) return { ...entry, ebx: xsaveCompactSize(state.xcr0 | state.xss) };
      break;
    case 0x15:
      return { ...entry!, ebx: Math.round((state.tscHz * 2) / 25_000_000) };
    case 0x16:
      return { ...entry!, eax: Math.round(state.tscHz / 1e6) };
  }
  return entry ?? ZERO;
}
