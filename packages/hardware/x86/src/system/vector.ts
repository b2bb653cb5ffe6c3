/**
 * Vector instructions that are rare enough for TypeScript: AES-NI, SHA, PCLMULQDQ, string comparison, MPSADBW,
 * PHMINPOSUW, MASKMOVDQU. SDM vol. 2; AES: FIPS 197; SHA: FIPS 180-4.
 */
import type { X86Core } from "../core.js";
import { Access, ENGINE, FpuBlock, Misc, RECORD, Status, Vector } from "../layout.js";
import { REG } from "../register-file.js";
import { fieldA, immediate } from "./memory.js";
import { enterMmx, requireMmx } from "./mmx.js";
import type { Operation } from "./operations.js";

/** Status if SSE may not run, else NEXT. */
export function requireSse(core: X86Core): number {
  const block = core.get32(ENGINE.FPU_BLOCK);
  if (block & FpuBlock.SSE_UD) return core.raise(Vector.UD);
  if (block & FpuBlock.SSE_NM) return core.raise(Vector.NM);
  return Status.NEXT;
}
/** Address of operand 1: a register's, or the host address of aligned memory; 0 with a fault prepared. */
function source(core: X86Core, pc: number, memory: boolean, aligned: boolean): number {
  if (!memory) return core.dv.getInt32(pc + RECORD.B, true);
  const host = core.fn.memory(pc, 0n, 16 | (aligned ? Access.ALIGNED : 0));
  if (host && aligned && host & 15) {
    core.raise(Vector.GP, 0);
    return 0;
  }
  return host;
}
type Compute = (core: X86Core, a: Uint8Array, b: Uint8Array, control: number) => Uint8Array | undefined;
/** destination = compute(destination, source, immediate); no result leaves the destination alone. */
const vector =
  (compute: Compute, aligned = true): Operation =>
  (core, pc, _bits, memory) => {
    const status = requireSse(core);
    if (status !== Status.NEXT) return status;
    const from = source(core, pc, memory, aligned);
    if (!from) return core.status;
    const to = core.regs.base + fieldA(core, pc);
    const result = compute(
      core,
      core.u8.slice(to, to + 16),
      core.u8.slice(from, from + 16),
      immediate(core, pc) & 0xff,
    );
    if (result) core.u8.set(result, to);
    return Status.NEXT;
  };

// --- AES

const SBOX = new Uint8Array(256);
const INVERSE = new Uint8Array(256);
const times2 = (x: number) => ((x << 1) ^ (x & 0x80 ? 0x11b : 0)) & 0xff;
function times(x: number, y: number): number {
  let r = 0;
  for (let a = x, b = y; b; b >>= 1, a = times2(a)) if (b & 1) r ^= a;
  return r;
}
{
  // Walk the powers of 3 and of its inverse together: p runs through all values, q is 1/p.
  let p = 1;
  let q = 1;
  do {
    p ^= times2(p);
    q ^= q << 1;
    q ^= q << 2;
    q ^= q << 4;
    q &= 0xff;
    if (q & 0x80) q ^= 0x09;
    const rot = (n: number) => ((q << n) | (q >> (8 - n))) & 0xff;
    SBOX[p] = q ^ rot(1) ^ rot(2) ^ rot(3) ^ rot(4) ^ 0x63;
  } while (p !== 1);
  SBOX[0] = 0x63;
  for (let i = 0; i < 256; i++) INVERSE[SBOX[i]] = i;
}
/** ShiftRows and SubBytes, or their inverses. */
function shiftSub(a: Uint8Array, box: Uint8Array, step: number): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, i) => box[a[(i + (i & 3) * step * 4 + 64) & 15]]);
}
function mix(a: Uint8Array, m: readonly number[]): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, i) => {
    let r = 0;
    for (let k = 0; k < 4; k++) r ^= times(a[(i & 12) + k], m[(k - (i & 3) + 4) & 3]);
    return r;
  });
}
const MIX = [2, 3, 1, 1];
const UNMIX = [14, 11, 13, 9];
const xor = (a: Uint8Array, b: Uint8Array) => a.map((v, i) => v ^ b[i]);

// --- words

const words = (a: Uint8Array) => new Uint32Array(a.slice().buffer);
const bytes = (w: ArrayLike<number>) => new Uint8Array(Uint32Array.from(w).buffer);
const rotr = (v: number, n: number) => (v >>> n) | (v << (32 - n));

// --- SHA: xmm words are numbered from the low end, message words from the high end in SHA-1

const F1 = [
  (b: number, c: number, d: number) => (b & c) ^ (~b & d),
  (b: number, c: number, d: number) => b ^ c ^ d,
  (b: number, c: number, d: number) => (b & c) ^ (b & d) ^ (c & d),
  (b: number, c: number, d: number) => b ^ c ^ d,
];
const K1 = [0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6];
const sha1rnds4: Compute = (_core, x, y, control) => {
  const [d0, c0, b0, a0] = words(x) as unknown as [number, number, number, number];
  const w = words(y);
  const f = F1[control & 3];
  let [a, b, c, d, e] = [a0, b0, c0, d0, 0];
  for (let i = 0; i < 4; i++) {
    const next = (f(b, c, d) + rotr(a, 27) + w[3 - i] + e + K1[control & 3]) | 0;
    [e, d, c, b, a] = [d, c, rotr(b, 2), a, next];
  }
  return bytes([d, c, b, a]);
};
const sha256rnds2: Compute = (core, x, y) => {
  const at = core.regs.base + REG.ZMM;
  const k = [core.dv.getUint32(at, true), core.dv.getUint32(at + 4, true)];
  const [f0, e0, b0, a0] = words(y) as unknown as [number, number, number, number];
  const [h0, g0, d0, c0] = words(x) as unknown as [number, number, number, number];
  let [a, b, c, d, e, f, g, h] = [a0, b0, c0, d0, e0, f0, g0, h0];
  for (let i = 0; i < 2; i++) {
    const t1 = (h + (rotr(e, 6) ^ rotr(e, 11) ^ rotr(e, 25)) + ((e & f) ^ (~e & g)) + k[i]) | 0;
    const t2 = ((rotr(a, 2) ^ rotr(a, 13) ^ rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
  }
  return bytes([f, e, b, a]);
};
const s0 = (v: number) => rotr(v, 7) ^ rotr(v, 18) ^ (v >>> 3);
const s1 = (v: number) => rotr(v, 17) ^ rotr(v, 19) ^ (v >>> 10);

// --- carry-less product

const pclmulqdq: Compute = (_core, x, y, control) => {
  const half = (v: Uint8Array, n: number) => new DataView(v.buffer, v.byteOffset).getBigUint64(n * 8, true);
  const a = half(x, control & 1);
  let b = half(y, (control >> 4) & 1);
  let product = 0n;
  for (let shifted = a; b; b >>= 1n, shifted <<= 1n) if (b & 1n) product ^= shifted;
  const out = new Uint8Array(16);
  const view = new DataView(out.buffer);
  view.setBigUint64(0, product & 0xffffffffffffffffn, true);
  view.setBigUint64(8, product >> 64n, true);
  return out;
};

// --- string comparison

/** Elements as the control byte's format says. */
function elements(v: Uint8Array, control: number): number[] {
  const view = new DataView(v.buffer, v.byteOffset, 16);
  const wide = (control & 1) !== 0;
  const signed = (control & 2) !== 0;
  return Array.from({ length: wide ? 8 : 16 }, (_, i) =>
    wide
      ? signed
        ? view.getInt16(i * 2, true)
        : view.getUint16(i * 2, true)
      : signed
        ? view.getInt8(i)
        : view.getUint8(i),
  );
}
/** @param explicit lengths come from EAX and EDX, else the first zero ends @param index the result is an index in ECX */
const compareStrings =
  (explicit: boolean, index: boolean): Operation =>
  (core, pc, bits, memory) => {
    const status = requireSse(core);
    if (status !== Status.NEXT) return status;
    const from = source(core, pc, memory, false);
    if (!from) return core.status;
    const to = core.regs.base + fieldA(core, pc);
    const control = immediate(core, pc) & 0xff;
    const a = elements(core.u8.slice(to, to + 16), control);
    const b = elements(core.u8.slice(from, from + 16), control);
    const n = a.length;
    const lengthOf = (v: number[], register: number) => {
      if (!explicit) {
        const end = v.indexOf(0);
        return end < 0 ? n : end;
      }
      const value =
        bits === 64 ? BigInt.asIntN(64, core.get64(register * 8)) : BigInt(core.get32(register * 8));
      const size = value < 0n ? -value : value;
      return size > BigInt(n) ? n : Number(size);
    };
    const la = lengthOf(a, 0);
    const lb = lengthOf(b, 2);
    const mode = (control >> 2) & 3;
    let result = 0;
    for (let j = 0; j < n; j++) {
      let bit = false;
      if (mode === 0) bit = j < lb && a.slice(0, la).includes(b[j]);
      else if (mode === 1) {
        for (let i = 0; i + 1 < n && !bit; i += 2) {
          bit = j < lb && i + 1 < la && b[j] >= a[i] && b[j] <= a[i + 1];
        }
      } else if (mode === 2) bit = j < la && j < lb ? a[j] === b[j] : j >= la && j >= lb;
      else {
        bit = true;
        for (let i = 0; i < n - j && bit; i++) {
          if (i >= la) break;
          bit = i + j < lb && a[i] === b[i + j];
        }
      }
      if (bit) result |= 1 << j;
    }
    const valid = (1 << lb) - 1;
    const polarity = (control >> 4) & 3;
    if (polarity === 1) result ^= (1 << n) - 1;
    else if (polarity === 3) result ^= valid;
    const top = (control & 0x40) !== 0;
    if (index) {
      const found = result === 0 ? n : top ? 31 - Math.clz32(result) : 31 - Math.clz32(result & -result);
      core.set64(8, BigInt(found));
    } else {
      const out = new Uint8Array(16);
      if (top) {
        const wide = n === 8;
        for (let i = 0; i < 16; i++) if ((result >> (wide ? i >> 1 : i)) & 1) out[i] = 0xff;
      } else {
        out[0] = result & 0xff;
        out[1] = result >> 8;
      }
      core.u8.set(out, core.regs.base + REG.ZMM);
    }
    const flags =
      (result !== 0 ? 1 : 0) | (lb < n ? 0x40 : 0) | (la < n ? 0x80 : 0) | (result & 1 ? 0x800 : 0);
    core.setFlags((core.getFlags() & ~0x8d5) | flags);
    return Status.NEXT;
  };

/** Stores the bytes whose mask has its top bit. */
function storeMasked(core: X86Core, pc: number, length: number): number {
  const mask = core.dv.getInt32(pc + RECORD.B, true);
  const data = core.regs.base + fieldA(core, pc);
  const misc = core.dv.getUint16(pc + RECORD.MISC, true);
  const width = misc >> Misc.ADDRESS_SHIFT;
  const offset = core.get64(56) & (width === 0 ? 0xffffn : width === 1 ? 0xffffffffn : 0xffffffffffffffffn);
  const segment = (misc >> Misc.SEGMENT_SHIFT) & 7;
  for (let i = 0; i < length; i++) {
    if (!(core.u8[mask + i] & 0x80)) continue;
    const host = core.fn.segment(segment, offset + BigInt(i), 1 | Access.WRITE, pc);
    if (!host) return core.status;
    core.u8[host] = core.u8[data + i]!;
    if (host === core.scratch) core.commit();
  }
  return Status.NEXT;
}
const maskmovdqu: Operation = (core, pc) => {
  const status = requireSse(core);
  return status === Status.NEXT ? storeMasked(core, pc, 16) : status;
};
const maskmovq: Operation = (core, pc) => {
  const status = requireMmx(core);
  if (status !== Status.NEXT) return status;
  enterMmx(core);
  return storeMasked(core, pc, 8);
};

export const vectorOperations: Record<string, Operation> = {
  aesenc: vector((_core, a, b) => xor(mix(shiftSub(a, SBOX, 1), MIX), b)),
  aesenclast: vector((_core, a, b) => xor(shiftSub(a, SBOX, 1), b)),
  aesdec: vector((_core, a, b) => xor(mix(shiftSub(a, INVERSE, -1), UNMIX), b)),
  aesdeclast: vector((_core, a, b) => xor(shiftSub(a, INVERSE, -1), b)),
  aesimc: vector((_core, _a, b) => mix(b, UNMIX)),
  aeskeygenassist: vector((_core, _a, b, control) => {
    const sub = words(b.map((v) => SBOX[v]));
    return bytes([sub[1], rotr(sub[1], 8) ^ control, sub[3], rotr(sub[3], 8) ^ control]);
  }),
  sha1rnds4: vector(sha1rnds4),
  sha1nexte: vector((_core, x, y) => {
    const w = words(y);
    w[3] = (w[3] + rotr(words(x)[3], 2)) | 0;
    return bytes(w);
  }),
  sha1msg1: vector((_core, x, y) => {
    const a = words(x);
    const b = words(y);
    return bytes([a[0] ^ b[2], a[1] ^ b[3], a[2] ^ a[0], a[3] ^ a[1]]);
  }),
  sha1msg2: vector((_core, x, y) => {
    const a = words(x);
    const b = words(y);
    const w16 = rotr(a[3] ^ b[2], 31);
    const w17 = rotr(a[2] ^ b[1], 31);
    const w18 = rotr(a[1] ^ b[0], 31);
    return bytes([rotr(a[0] ^ w16, 31), w18, w17, w16]);
  }),
  sha256rnds2: vector(sha256rnds2),
  sha256msg1: vector((_core, x, y) => {
    const a = words(x);
    const w = [a[1], a[2], a[3], words(y)[0]];
    return bytes(w.map((v, i) => (a[i] + s0(v)) | 0));
  }),
  sha256msg2: vector((_core, x, y) => {
    const a = words(x);
    const b = words(y);
    const w16 = (a[0] + s1(b[2])) | 0;
    const w17 = (a[1] + s1(b[3])) | 0;
    return bytes([w16, w17, a[2] + s1(w16), a[3] + s1(w17)]);
  }),
  pclmulqdq: vector(pclmulqdq),
  mpsadbw: vector((_core, a, b, control) => {
    const out = new Uint16Array(8);
    const from = (control & 4) !== 0 ? 4 : 0;
    const block = (control & 3) * 4;
    for (let i = 0; i < 8; i++) {
      for (let k = 0; k < 4; k++) out[i] += Math.abs(a[from + i + k] - b[block + k]);
    }
    return new Uint8Array(out.buffer);
  }),
  phminposuw: vector((_core, _a, b) => {
    const w = new Uint16Array(b.slice().buffer);
    const least = Math.min(...w);
    const out = new Uint16Array(8);
    out[0] = least;
    out[1] = w.indexOf(least);
    return new Uint8Array(out.buffer);
  }),
  pcmpestri: compareStrings(true, true),
  pcmpestrm: compareStrings(true, false),
  pcmpistri: compareStrings(false, true),
  pcmpistrm: compareStrings(false, false),
  maskmovdqu,
  maskmovq,
};
