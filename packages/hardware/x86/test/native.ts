/**
 * The vectors that tools/x86-vectors recorded on a real processor: reads them and computes the same inputs as oracle.c.
 */
import { readFileSync } from "node:fs";
import { brotliDecompressSync } from "node:zlib";

export const CODE = 0x10000000;
export const DATA = 0x20000000;
export const CENTER = DATA + 0x800;
export const WINDOW = 512;
const PIN = { D: 1, I: 2, B: 4, N: 8, C: 16, X: 32, T: 64, V: 128, E: 256, F: 512 };

export interface NativeCase {
  readonly gpr: BigUint64Array;
  readonly flags: number;
  readonly memory: BigUint64Array;
  /** Two halves of each xmm register; only with vectors. */
  readonly xmm: BigUint64Array;
}
export interface NativeOutcome extends NativeCase {
  /** Exception vector, 255 none; the rest is only meaningful without one. */
  readonly vector: number;
}
export interface NativeForm {
  readonly text: string;
  readonly mode: 32 | 64;
  readonly code: Uint8Array;
  readonly vectors: boolean;
  readonly cases: number;
}

const SPECIAL = [0, 1, 0x7f, 0x80, 0x7fff, 0x8000, 0x7fffffff, 0x80000000];
let seed = 0;
function random(): number {
  seed ^= seed << 13;
  seed ^= seed >>> 17;
  seed ^= seed << 5;
  return Math.imul(seed, 0x9e3779b1) >>> 0;
}
const halves = new Uint32Array(2);
const whole = new BigUint64Array(halves.buffer);
function value(): bigint {
  const kind = random() >>> 29;
  const low = random();
  const high = random();
  const set = (l: number, h: number) => {
    halves[0] = l;
    halves[1] = h;
  };
  switch (kind) {
    case 0:
      set(SPECIAL[low >>> 29], 0);
      break;
    case 1: {
      const v = -(SPECIAL[low >>> 29] | 0) | 0;
      set(v, v >> 31);
      break;
    }
    case 2:
      set(SPECIAL[high >>> 29], SPECIAL[low >>> 29]);
      break;
    case 3:
      set(low >>> 24, 0);
      break;
    case 4:
      set(low, (low | 0) >> 31);
      break;
    case 5:
      set(low, 0);
      break;
    default:
      set(low, high);
  }
  return whole[0];
}
function input(number: number, i: number, form: NativeForm, pins: number): NativeCase {
  seed = Math.imul(number * 1000 + i, 2654435761) + 1;
  seed |= 0;
  if (seed === 0) seed = 1;
  random();
  random();
  const gpr = new BigUint64Array(16);
  for (let n = 0; n < 16; n++) gpr[n] = form.mode === 64 ? value() : value() & 0xffffffffn;
  let flags = random() & 0x8d5;
  const memory = new BigUint64Array(WINDOW / 8);
  for (let n = 0; n < memory.length; n++) memory[n] = value();
  gpr[4] = BigInt(CENTER - 0x60);
  if (pins & PIN.D) gpr[7] = BigInt(CENTER);
  if (pins & PIN.I) gpr[6] = BigInt(CENTER - 64 + (random() & 7));
  if (pins & PIN.B) gpr[5] = BigInt(CENTER + 64);
  if (pins & PIN.N) gpr[5] = BigInt(random() & 7);
  if (pins & PIN.C) gpr[1] = BigInt(random() % 9);
  if (pins & PIN.X) gpr[3] = BigInt(CENTER - 128);
  if (pins & PIN.T) gpr[2] = BigInt.asUintN(64, BigInt((random() & 1023) - 512));
  if (pins & PIN.E && random() & 1) {
    const wide = form.mode === 64 && form.code.length === 4;
    memory[WINDOW / 16] = wide ? gpr[0] : (gpr[0] & 0xffffffffn) | ((gpr[2] & 0xffffffffn) << 32n);
    memory[WINDOW / 16 + 1] = gpr[2]!;
  }
  if (pins & PIN.F) flags |= 0x400;
  const xmm = new BigUint64Array(pins & PIN.V ? 32 : 0);
  for (let n = 0; n < xmm.length; n++) xmm[n] = value();
  return { gpr, flags: flags | 0x202, memory, xmm };
}

/** Set bits. */
export function ones(value: bigint): number {
  let n = 0;
  for (let v = value; v; v &= v - 1n) n++;
  return n;
}
/** What a file has vectors of. */
export function nativeForms(file: URL): NativeForm[] {
  const bytes = brotliDecompressSync(readFileSync(file));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const forms: NativeForm[] = [];
  let at = 0;
  const u16 = () => BigInt(view.getUint16((at += 2) - 2, true));
  const words = (mask: bigint, size: number) => (at += ones(mask) * size);
  while (bytes[at] !== 0) {
    const { form, end } = formAt(bytes, at);
    forms.push(form);
    at = end;
    for (let i = 0; i < form.cases; i++) {
      if (bytes[at++] !== 255) continue;
      words(u16(), 8);
      at += 2;
      words(view.getBigUint64((at += 8) - 8, true), 8);
      if (form.vectors) words(u16(), 16);
    }
  }
  return forms;
}
function formAt(bytes: Buffer, at: number): { form: NativeForm; pins: number; end: number } {
  const pins = bytes.readUInt16LE(at + 2);
  const code = at + 7 + bytes[at + 6];
  const end = code + bytes[at + 1];
  const form: NativeForm = {
    text: bytes.toString("latin1", at + 7, code),
    mode: bytes[at] as 32 | 64,
    code: new Uint8Array(bytes.subarray(code, end)),
    vectors: (pins & PIN.V) !== 0,
    cases: bytes.readUInt16LE(at + 4),
  };
  return { form, pins, end };
}

/** Calls back for every case. */
export function replay(
  file: URL,
  each: (form: NativeForm, i: number, input: NativeCase, expected: NativeOutcome) => void,
): void {
  const bytes = brotliDecompressSync(readFileSync(file));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const u64 = () => view.getBigUint64((at += 8) - 8, true);
  const u16 = () => view.getUint16((at += 2) - 2, true);
  for (let number = 0; bytes[at] !== 0; number++) {
    const { form, pins, end } = formAt(bytes, at);
    at = end;
    for (let i = 0; i < form.cases; i++) {
      const from = input(number, i, form, pins);
      const vector = bytes[at++];
      const gpr = from.gpr.slice();
      const memory = from.memory.slice();
      const xmm = from.xmm.slice();
      let { flags } = from;
      if (vector === 255) {
        const changed = u16();
        for (let n = 0; n < 16; n++) if ((changed >> n) & 1) gpr[n] = u64();
        flags = u16();
        const words = u64();
        for (let n = 0; n < memory.length; n++) if ((words >> BigInt(n)) & 1n) memory[n] = u64();
        if (form.vectors) {
          const x = u16();
          for (let n = 0; n < 16; n++) {
            if (!((x >> n) & 1)) continue;
            xmm[n * 2] = u64();
            xmm[n * 2 + 1] = u64();
          }
        }
      }
      each(form, i, from, { vector, gpr, memory, xmm, flags });
    }
  }
}
