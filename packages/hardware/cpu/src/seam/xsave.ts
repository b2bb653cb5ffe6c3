/**
 * XSAVES and XRSTORS of the extended state that the register file holds: compacted format.
 * Intel SDM vol. 1 sections 13.4 (XSAVE area), 13.11 (XSAVES), 13.12 (XRSTORS).
 */
import type { Hpa, KeyId } from "@swtdx/abi";
import { REG } from "@swtdx/x86";
import type { SeamContext } from "../interface/seam.js";

/** Components with state in the register file, sizes in bytes; others are saved as their initial state (zeros). */
const COMPONENT_SIZE: Readonly<Record<number, number>> = {
  2: 0x100,
  8: 0x80,
  9: 8,
  11: 0x10,
  12: 0x18,
  15: 0x328,
};
const AREA_MAX = 4096;
const PAGE = 4096;
const HEADER = 512;
/** Where extended components begin. */
const EXTENDED = HEADER + 64;
const COMPONENTS = 16;
const AVX = 2;
const PKRU = 9;
const CET_U = 11;
const CET_S = 12;

interface Layout {
  /** Offset of each component, -1 for one that is not there. */
  readonly at: Int32Array;
  /** Bytes of the area that are used. */
  readonly size: number;
}
const layouts = new Map<number, Layout>();
/** Where each component of a compacted area with this XCOMP_BV (bits 31:0) is. */
function layout(mask: number): Layout {
  let found = layouts.get(mask);
  if (found) return found;
  const at = new Int32Array(COMPONENTS).fill(-1);
  let size = EXTENDED;
  for (let i = 2; i < COMPONENTS; i++) {
    if ((mask & (1 << i)) === 0) continue;
    at[i] = size;
    size += COMPONENT_SIZE[i] ?? 0;
  }
  layouts.set(mask, (found = { at, size }));
  return found;
}
const requested = (lp: SeamContext, mask: number): number =>
  mask & (lp.regs.get32(REG.XCR0) | lp.regs.get32(REG.XSS));

/** Words of the area at hand from `base` on: in the page itself, or in a copy. */
let area: Uint32Array;
let base = 0;
const scratch = new Uint32Array(AREA_MAX / 4);
const scratchBytes = new Uint8Array(scratch.buffer);

/** @returns whether the area is accessed where it is */
function open(lp: SeamContext, pa: Hpa, keyId: KeyId): boolean {
  const keyhole = (pa % PAGE) + AREA_MAX <= PAGE ? lp.keyhole(pa, keyId) : -1;
  area = keyhole < 0 ? scratch : lp.arena.u32;
  base = keyhole < 0 ? 0 : keyhole / 4;
  return keyhole >= 0;
}
function copy(lp: SeamContext, pa: Hpa, keyId: KeyId, from: number, to: number, write: boolean): void {
  for (let done = from; done < to;) {
    const count = Math.min(PAGE - ((pa + done) % PAGE), to - done);
    const part = scratchBytes.subarray(done, done + count);
    if (write) lp.write((pa + done) as Hpa, keyId, part);
    else lp.read((pa + done) as Hpa, keyId, part);
    done += count;
  }
}

/** Copies 16 registers' 16-byte lanes between the register file and the area. */
function saveLanes(u32: Uint32Array, lane: number, offset: number): void {
  let from = (REG.ZMM + lane) / 4;
  let to = base + offset / 4;
  for (let i = 0; i < 16; i++, from += 16, to += 4) {
    area[to] = u32[from];
    area[to + 1] = u32[from + 1];
    area[to + 2] = u32[from + 2];
    area[to + 3] = u32[from + 3];
  }
}
function loadLanes(u32: Uint32Array, lane: number, offset: number): void {
  let from = base + offset / 4;
  let to = (REG.ZMM + lane) / 4;
  for (let i = 0; i < 16; i++, from += 4, to += 16) {
    u32[to] = area[from];
    u32[to + 1] = area[from + 1];
    u32[to + 2] = area[from + 2];
    u32[to + 3] = area[from + 3];
  }
}
/** The initial state. */
function clearLanes(u32: Uint32Array, lane: number): void {
  let to = (REG.ZMM + lane) / 4;
  for (let i = 0; i < 16; i++, to += 16) {
    u32[to] = 0;
    u32[to + 1] = 0;
    u32[to + 2] = 0;
    u32[to + 3] = 0;
  }
}

const topOf = (fsw: number): number => (fsw >>> 11) & 7;
/** The x87 part of the legacy area: control, status, abridged tag, opcode, pointers, registers. */
function saveX87(u32: Uint32Array): void {
  const full = u32[REG.FTW / 4];
  // One bit for each register that is not empty.
  let tag = 0;
  for (let i = 0; i < 8; i++) if (((full >>> (2 * i)) & 3) !== 3) tag |= 1 << i;
  area[base] = (u32[REG.FCW / 4] & 0xffff) | (u32[REG.FSW / 4] << 16);
  area[base + 1] = tag | (u32[REG.FOP / 4] << 16);
  area[base + 2] = u32[REG.FIP / 4];
  area[base + 3] = u32[REG.FIP / 4 + 1];
  area[base + 4] = u32[REG.FDP / 4];
  area[base + 5] = u32[REG.FDP / 4 + 1];
  // ST(0) first.
  const first = topOf(u32[REG.FSW / 4]) * 4;
  for (let i = 0; i < 32; i++) area[base + 8 + i] = u32[REG.ST / 4 + ((first + i) & 31)];
}
function loadX87(u32: Uint32Array): void {
  u32[REG.FCW / 4] = area[base] & 0xffff;
  u32[REG.FSW / 4] = area[base] >>> 16;
  const tag = area[base + 1] & 0xff;
  let full = 0;
  for (let i = 0; i < 8; i++) if ((tag & (1 << i)) === 0) full |= 3 << (2 * i);
  u32[REG.FTW / 4] = full;
  u32[REG.FOP / 4] = area[base + 1] >>> 16;
  u32[REG.FIP / 4] = area[base + 2];
  u32[REG.FIP / 4 + 1] = area[base + 3];
  u32[REG.FDP / 4] = area[base + 4];
  u32[REG.FDP / 4 + 1] = area[base + 5];
  const first = topOf(u32[REG.FSW / 4]) * 4;
  for (let i = 0; i < 32; i++) u32[REG.ST / 4 + ((first + i) & 31)] = area[base + 8 + i];
}
function initX87(u32: Uint32Array): void {
  u32[REG.FCW / 4] = 0x37f;
  u32[REG.FSW / 4] = 0;
  u32[REG.FTW / 4] = 0xffff;
  u32[REG.FOP / 4] = 0;
  u32[REG.FIP / 4] = 0;
  u32[REG.FIP / 4 + 1] = 0;
  u32[REG.FDP / 4] = 0;
  u32[REG.FDP / 4 + 1] = 0;
  for (let i = 0; i < 32; i++) u32[REG.ST / 4 + i] = 0;
}

/** @param mask components, bits 31:0 */
export function xsaves(lp: SeamContext, pa: Hpa, keyId: KeyId, mask: number): void {
  const wanted = requested(lp, mask);
  const { u32 } = lp.regs;
  const { at, size } = layout(wanted & ~3);
  const inPlace = open(lp, pa, keyId);
  if (!inPlace || (wanted & ~REGISTER_COMPONENTS) !== 0) area.fill(0, base, base + size / 4);
  if (wanted & 1) saveX87(u32);
  area[base + 6] = u32[REG.MXCSR / 4];
  area[base + 7] = 0xffff;
  if (wanted & 2) saveLanes(u32, 0, 160);
  if (at[AVX] >= 0) saveLanes(u32, 16, at[AVX]);
  if (at[PKRU] >= 0) {
    area[base + at[PKRU] / 4] = u32[REG.PKRU / 4];
    area[base + at[PKRU] / 4 + 1] = 0;
  }
  // CET_U: IA32_U_CET and PL3_SSP.
  if (at[CET_U] >= 0) saveMsrs(lp, at[CET_U], CET_U_MSRS);
  if (at[CET_S] >= 0) saveMsrs(lp, at[CET_S], CET_S_MSRS);
  area[base + HEADER / 4] = wanted;
  area[base + HEADER / 4 + 1] = 0;
  area[base + HEADER / 4 + 2] = wanted;
  area[base + HEADER / 4 + 3] = 0x8000_0000;
  for (let i = 4; i < 16; i++) area[base + HEADER / 4 + i] = 0;
  if (!inPlace) copy(lp, pa, keyId, 0, size, true);
}

/** @param mask components, bits 31:0 */
export function xrstors(lp: SeamContext, pa: Hpa, keyId: KeyId, mask: number): void {
  const { u32 } = lp.regs;
  const inPlace = open(lp, pa, keyId);
  // The header says how much of the area there is.
  if (!inPlace) copy(lp, pa, keyId, 0, EXTENDED, false);
  const present = area[base + HEADER / 4];
  const { at, size } = layout(area[base + HEADER / 4 + 2] & ~3);
  if (!inPlace) copy(lp, pa, keyId, EXTENDED, size, false);
  const wanted = requested(lp, mask);
  const loaded = wanted & present;
  if (loaded & 1) loadX87(u32);
  else if (wanted & 1) initX87(u32);
  if ((wanted & 6) !== 0) u32[REG.MXCSR / 4] = (present & 6) !== 0 ? area[base + 6] : 0x1f80;
  if (loaded & 2) loadLanes(u32, 0, 160);
  else if (wanted & 2) clearLanes(u32, 0);
  if (loaded & (1 << AVX)) loadLanes(u32, 16, at[AVX]);
  else if (wanted & (1 << AVX)) clearLanes(u32, 16);
  if (wanted & (1 << PKRU)) u32[REG.PKRU / 4] = loaded & (1 << PKRU) ? area[base + at[PKRU] / 4] : 0;
  restoreMsrs(lp, wanted, loaded, CET_U, at[CET_U], CET_U_MSRS);
  restoreMsrs(lp, wanted, loaded, CET_S, at[CET_S], CET_S_MSRS);
}

/** Components of which every byte is written from the register file. */
const REGISTER_COMPONENTS = 3 | (1 << AVX) | (1 << PKRU);
const CET_U_MSRS = [0x6a0, 0x6a7] as const;
const CET_S_MSRS = [0x6a4, 0x6a5, 0x6a6] as const;

function saveMsrs(lp: SeamContext, offset: number, msrs: readonly number[]): void {
  msrs.forEach((index, i) => {
    const outcome = lp.rdmsr(index);
    const value = outcome.kind === "ok" ? outcome.value : 0n;
    area[base + offset / 4 + 2 * i] = Number(value & 0xffff_ffffn);
    area[base + offset / 4 + 2 * i + 1] = Number(value >> 32n);
  });
}
/** Components that live in MSRs; an area that does not have them leaves them alone. */
function restoreMsrs(
  lp: SeamContext,
  wanted: number,
  loaded: number,
  component: number,
  offset: number,
  msrs: readonly number[],
): void {
  if (offset < 0 || (wanted & (1 << component)) === 0) return;
  const load = (loaded & (1 << component)) !== 0;
  msrs.forEach((index, i) => {
    const at = base + offset / 4 + 2 * i;
    lp.wrmsr(index, load ? (BigInt(area[at + 1]) << 32n) | BigInt(area[at]) : 0n);
  });
}
