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

/** Where each component of a compacted area with this XCOMP_BV is. */
function layout(mask: bigint): Map<number, number> {
  const at = new Map<number, number>();
  let offset = HEADER + 64;
  for (let i = 2; i < 16; i++) {
    if ((mask & (1n << BigInt(i))) === 0n) continue;
    at.set(i, offset);
    offset += COMPONENT_SIZE[i] ?? 0;
  }
  return at;
}
const requested = (lp: SeamContext, mask: bigint): bigint =>
  mask & (lp.regs.get(REG.XCR0) | lp.regs.get(REG.XSS));

export function xsaves(lp: SeamContext, pa: Hpa, keyId: KeyId, mask: bigint): void {
  const wanted = requested(lp, mask);
  const { regs } = lp;
  const area = new Uint8Array(AREA_MAX);
  const view = new DataView(area.buffer);
  const places = layout(wanted);
  let used = HEADER + 64;
  for (const [component, offset] of places) used = Math.max(used, offset + (COMPONENT_SIZE[component] ?? 0));
  if (wanted & 1n) {
    view.setUint16(0, regs.get32(REG.FCW), true);
    view.setUint16(2, regs.get32(REG.FSW), true);
    // Abridged tag: one bit for each register that is not empty.
    let tag = 0;
    for (let i = 0; i < 8; i++) if (((regs.get32(REG.FTW) >>> (2 * i)) & 3) !== 3) tag |= 1 << i;
    view.setUint8(4, tag);
    view.setUint16(6, regs.get32(REG.FOP), true);
    view.setBigUint64(8, regs.get(REG.FIP), true);
    view.setBigUint64(16, regs.get(REG.FDP), true);
    area.set(regs.u8.subarray(REG.ST, REG.ST + 128), 32);
  }
  view.setUint32(24, regs.get32(REG.MXCSR), true);
  view.setUint32(28, 0xffff, true);
  if (wanted & 2n)
    for (let i = 0; i < 16; i++)
      area.set(regs.u8.subarray(REG.ZMM + i * 64, REG.ZMM + i * 64 + 16), 160 + i * 16);
  const avx = places.get(2);
  if (avx !== undefined)
    for (let i = 0; i < 16; i++)
      area.set(regs.u8.subarray(REG.ZMM + i * 64 + 16, REG.ZMM + i * 64 + 32), avx + i * 16);
  const pkru = places.get(9);
  if (pkru !== undefined) view.setUint32(pkru, regs.get32(REG.PKRU), true);
  // CET_U: IA32_U_CET and PL3_SSP.
  const cet = places.get(11);
  if (cet !== undefined) {
    view.setBigUint64(cet, msr(lp, 0x6a0), true);
    view.setBigUint64(cet + 8, msr(lp, 0x6a7), true);
  }
  const cetS = places.get(12);
  if (cetS !== undefined)
    for (let i = 0; i < 3; i++) view.setBigUint64(cetS + i * 8, msr(lp, 0x6a4 + i), true);
  view.setBigUint64(HEADER, wanted, true);
  view.setBigUint64(HEADER + 8, wanted | (1n << 63n), true);
  for (let done = 0; done < used;) {
    const count = Math.min(4096 - ((pa + done) % 4096), used - done);
    lp.write((pa + done) as Hpa, keyId, area.subarray(done, done + count));
    done += count;
  }
}

export function xrstors(lp: SeamContext, pa: Hpa, keyId: KeyId, mask: bigint): void {
  const { regs } = lp;
  const area = new Uint8Array(AREA_MAX);
  const view = new DataView(area.buffer);
  for (let done = 0; done < AREA_MAX;) {
    const count = Math.min(4096 - ((pa + done) % 4096), AREA_MAX - done);
    // Only what the header says is there counts; the rest of the area is not touched.
    if (done > 0 && done >= HEADER + 64 + 0x600) break;
    lp.read((pa + done) as Hpa, keyId, area.subarray(done, done + count));
    done += count;
  }
  const present = view.getBigUint64(HEADER, true);
  const format = view.getBigUint64(HEADER + 8, true) & ~(1n << 63n);
  const wanted = requested(lp, mask);
  const places = layout(format);
  const load = (component: number): boolean =>
    (wanted & (1n << BigInt(component))) !== 0n && (present & (1n << BigInt(component))) !== 0n;
  const init = (component: number): boolean =>
    (wanted & (1n << BigInt(component))) !== 0n && (present & (1n << BigInt(component))) === 0n;
  if (load(0)) {
    regs.set32(REG.FCW, view.getUint16(0, true));
    regs.set32(REG.FSW, view.getUint16(2, true));
    const tag = view.getUint8(4);
    let full = 0;
    for (let i = 0; i < 8; i++) if ((tag & (1 << i)) === 0) full |= 3 << (2 * i);
    regs.set32(REG.FTW, full);
    regs.set32(REG.FOP, view.getUint16(6, true));
    regs.set(REG.FIP, view.getBigUint64(8, true));
    regs.set(REG.FDP, view.getBigUint64(16, true));
    regs.u8.set(area.subarray(32, 160), REG.ST);
  } else if (init(0)) {
    regs.set32(REG.FCW, 0x37f);
    regs.set32(REG.FSW, 0);
    regs.set32(REG.FTW, 0xffff);
    regs.set32(REG.FOP, 0);
    regs.set(REG.FIP, 0n);
    regs.set(REG.FDP, 0n);
    regs.u8.fill(0, REG.ST, REG.ST + 128);
  }
  if ((wanted & 6n) !== 0n) regs.set32(REG.MXCSR, (present & 6n) !== 0n ? view.getUint32(24, true) : 0x1f80);
  for (let i = 0; i < 16; i++) {
    const at = REG.ZMM + i * 64;
    if (load(1)) regs.u8.set(area.subarray(160 + i * 16, 176 + i * 16), at);
    else if (init(1)) regs.u8.fill(0, at, at + 16);
    const avx = places.get(2);
    if (load(2) && avx !== undefined) regs.u8.set(area.subarray(avx + i * 16, avx + i * 16 + 16), at + 16);
    else if (init(2)) regs.u8.fill(0, at + 16, at + 32);
  }
  const pkru = places.get(9);
  if (load(9) && pkru !== undefined) regs.set32(REG.PKRU, view.getUint32(pkru, true));
  else if (init(9)) regs.set32(REG.PKRU, 0);
  const cet = places.get(11);
  if (cet !== undefined && (load(11) || init(11))) {
    lp.wrmsr(0x6a0, load(11) ? view.getBigUint64(cet, true) : 0n);
    lp.wrmsr(0x6a7, load(11) ? view.getBigUint64(cet + 8, true) : 0n);
  }
  const cetS = places.get(12);
  if (cetS !== undefined && (load(12) || init(12)))
    for (let i = 0; i < 3; i++) lp.wrmsr(0x6a4 + i, load(12) ? view.getBigUint64(cetS + i * 8, true) : 0n);
}

function msr(lp: SeamContext, index: number): bigint {
  const outcome = lp.rdmsr(index);
  return outcome.kind === "ok" ? outcome.value : 0n;
}
