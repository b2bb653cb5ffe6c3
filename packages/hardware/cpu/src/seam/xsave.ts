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
const requested = (lp: SeamContext, mask: bigint): number =>
  Number(mask & 0xffff_ffffn) & (lp.regs.get32(REG.XCR0) | lp.regs.get32(REG.XSS));

const scratch = new Uint8Array(AREA_MAX);
const words = new Uint32Array(scratch.buffer);
const view = new DataView(scratch.buffer);

/** Copies 16 registers' 16-byte lanes between the register file and the area. */
function saveLanes(u32: Uint32Array, lane: number, offset: number): void {
  for (let i = 0; i < 16; i++) {
    const from = (REG.ZMM + i * 64 + lane) / 4;
    const to = (offset + i * 16) / 4;
    words[to] = u32[from];
    words[to + 1] = u32[from + 1];
    words[to + 2] = u32[from + 2];
    words[to + 3] = u32[from + 3];
  }
}
/** @param offset -1: the initial state */
function loadLanes(u32: Uint32Array, lane: number, offset: number): void {
  for (let i = 0; i < 16; i++) {
    const to = (REG.ZMM + i * 64 + lane) / 4;
    const from = (offset + i * 16) / 4;
    for (let j = 0; j < 4; j++) u32[to + j] = offset < 0 ? 0 : words[from + j];
  }
}

const topOf = (fsw: number): number => (fsw >>> 11) & 7;

export function xsaves(lp: SeamContext, pa: Hpa, keyId: KeyId, mask: bigint): void {
  const wanted = requested(lp, mask);
  const { regs } = lp;
  const { u32 } = regs;
  const { at, size } = layout(wanted & ~3);
  words.fill(0, 0, size / 4);
  if (wanted & 1) {
    view.setUint16(0, regs.get32(REG.FCW), true);
    view.setUint16(2, regs.get32(REG.FSW), true);
    // Abridged tag: one bit for each register that is not empty.
    let tag = 0;
    for (let i = 0; i < 8; i++) if (((regs.get32(REG.FTW) >>> (2 * i)) & 3) !== 3) tag |= 1 << i;
    view.setUint8(4, tag);
    view.setUint16(6, regs.get32(REG.FOP), true);
    words[2] = u32[REG.FIP / 4];
    words[3] = u32[REG.FIP / 4 + 1];
    words[4] = u32[REG.FDP / 4];
    words[5] = u32[REG.FDP / 4 + 1];
    // ST(0) first.
    const first = topOf(regs.get32(REG.FSW)) * 4;
    for (let i = 0; i < 32; i++) words[8 + i] = u32[REG.ST / 4 + ((first + i) & 31)];
  }
  words[6] = regs.get32(REG.MXCSR);
  words[7] = 0xffff;
  if (wanted & 2) saveLanes(u32, 0, 160);
  if (at[AVX] >= 0) saveLanes(u32, 16, at[AVX]);
  if (at[PKRU] >= 0) words[at[PKRU] / 4] = regs.get32(REG.PKRU);
  // CET_U: IA32_U_CET and PL3_SSP.
  if (at[CET_U] >= 0) {
    view.setBigUint64(at[CET_U], msr(lp, 0x6a0), true);
    view.setBigUint64(at[CET_U] + 8, msr(lp, 0x6a7), true);
  }
  if (at[CET_S] >= 0)
    for (let i = 0; i < 3; i++) view.setBigUint64(at[CET_S] + i * 8, msr(lp, 0x6a4 + i), true);
  words[HEADER / 4] = wanted;
  words[HEADER / 4 + 2] = wanted;
  words[HEADER / 4 + 3] = 0x8000_0000;
  for (let done = 0; done < size;) {
    const count = Math.min(4096 - ((pa + done) % 4096), size - done);
    lp.write((pa + done) as Hpa, keyId, scratch.subarray(done, done + count));
    done += count;
  }
}

export function xrstors(lp: SeamContext, pa: Hpa, keyId: KeyId, mask: bigint): void {
  const { regs } = lp;
  const { u32 } = regs;
  // The header says how much of the area there is.
  lp.read(pa, keyId, scratch.subarray(0, EXTENDED));
  const present = words[HEADER / 4];
  const format = words[HEADER / 4 + 2];
  const { at, size } = layout(format & ~3);
  for (let done = EXTENDED; done < size;) {
    const count = Math.min(4096 - ((pa + done) % 4096), size - done);
    lp.read((pa + done) as Hpa, keyId, scratch.subarray(done, done + count));
    done += count;
  }
  const wanted = requested(lp, mask);
  const loaded = wanted & present;
  if (loaded & 1) {
    regs.set32(REG.FCW, view.getUint16(0, true));
    regs.set32(REG.FSW, view.getUint16(2, true));
    const tag = view.getUint8(4);
    let full = 0;
    for (let i = 0; i < 8; i++) if ((tag & (1 << i)) === 0) full |= 3 << (2 * i);
    regs.set32(REG.FTW, full);
    regs.set32(REG.FOP, view.getUint16(6, true));
    u32[REG.FIP / 4] = words[2];
    u32[REG.FIP / 4 + 1] = words[3];
    u32[REG.FDP / 4] = words[4];
    u32[REG.FDP / 4 + 1] = words[5];
    const first = topOf(regs.get32(REG.FSW)) * 4;
    for (let i = 0; i < 32; i++) u32[REG.ST / 4 + ((first + i) & 31)] = words[8 + i];
  } else if (wanted & 1) {
    regs.set32(REG.FCW, 0x37f);
    regs.set32(REG.FSW, 0);
    regs.set32(REG.FTW, 0xffff);
    regs.set32(REG.FOP, 0);
    regs.set(REG.FIP, 0n);
    regs.set(REG.FDP, 0n);
    regs.u8.fill(0, REG.ST, REG.ST + 128);
  }
  if ((wanted & 6) !== 0) regs.set32(REG.MXCSR, (present & 6) !== 0 ? words[6] : 0x1f80);
  if (wanted & 2) loadLanes(u32, 0, loaded & 2 ? 160 : -1);
  if (wanted & (1 << AVX)) loadLanes(u32, 16, loaded & (1 << AVX) ? at[AVX] : -1);
  if (wanted & (1 << PKRU)) regs.set32(REG.PKRU, loaded & (1 << PKRU) ? words[at[PKRU] / 4] : 0);
  restoreMsrs(lp, wanted, loaded, CET_U, at[CET_U], CET_U_MSRS);
  restoreMsrs(lp, wanted, loaded, CET_S, at[CET_S], CET_S_MSRS);
}

const CET_U_MSRS = [0x6a0, 0x6a7] as const;
const CET_S_MSRS = [0x6a4, 0x6a5, 0x6a6] as const;

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
  msrs.forEach((index, i) => lp.wrmsr(index, load ? view.getBigUint64(offset + i * 8, true) : 0n));
}

function msr(lp: SeamContext, index: number): bigint {
  const outcome = lp.rdmsr(index);
  return outcome.kind === "ok" ? outcome.value : 0n;
}
