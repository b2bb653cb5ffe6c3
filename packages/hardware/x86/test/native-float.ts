/**
 * The vectors that tools/x86-vectors/float.c recorded on a real processor: reads them and computes the same inputs.
 */
import { readFileSync } from "node:fs";
import { brotliDecompressSync } from "node:zlib";
import { ones } from "./native.js";

export const FLOAT_CODE = 0x10000000;
export const FLOAT_DATA = 0x20000000;
export const FLOAT_CENTER = FLOAT_DATA + 0x800;
/** Words of an FXSAVE image that are compared: to xmm3 and the registers behind it, which nothing changes. */
export const FX_WORDS = 52;
export const MEMORY_WORDS = 8;

export interface FloatCase {
  /** FXSAVE image: FCW, FSW, abridged tags; MXCSR in word 3; 8 registers from word 4; xmm registers from word 20. */
  readonly image: BigUint64Array;
  readonly memory: BigUint64Array;
  /** RAX, RBX, RCX, RFLAGS. */
  readonly general: BigUint64Array;
}
export interface FloatOutcome extends FloatCase {
  /** Exception vector, 255 none. */
  readonly vector: number;
}
export interface FloatForm {
  readonly text: string;
  readonly number: number;
  readonly cases: number;
  readonly code: Uint8Array;
}

/** Options of a form, as in float.c. */
const X87 = 1;
const DIGEST = 2;
const CROSS = 4;

let seed = 0;
function rnd(): number {
  seed ^= seed << 13;
  seed ^= seed >>> 17;
  seed ^= seed << 5;
  return Math.imul(seed, 0x9e3779b1) >>> 0;
}
const ONES = 0xffffffff;
const SPECIAL32 = [
  0, 1, 0x7fffff, 0x800000, 0x800001, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fbfffff, 0x7fc00000, 0x7fffffff,
  0x3f800000, 0x3f000000, 0x4b800000, 0x4f000000, 0x5f000000,
];
const SPECIAL64 = [
  [0, 0],
  [0, 1],
  [0xfffff, ONES],
  [0x100000, 0],
  [0x100000, 1],
  [0x7fefffff, ONES],
  [0x7ff00000, 0],
  [0x7ff00000, 1],
  [0x7ff7ffff, ONES],
  [0x7ff80000, 0],
  [0x7fffffff, ONES],
  [0x3ff00000, 0],
  [0x3fe00000, 0],
  [0x43400000, 0],
  [0x41e00000, 0],
  [0x43e00000, 0],
] as const;
/** By kind: where numbers of interest begin, and which bits above are random. */
const RANGES32: Record<number, readonly [number, number]> = {
  4: [0x00800000, 0x0fffffff],
  5: [0x70000000, 0x0f7fffff],
  6: [0x3f000000, 0x00ffffff],
  8: [0x4a000000, 0x06ffffff],
  9: [0x5e000000, 0x01ffffff],
  11: [0x3e800000, 0x01ffffff],
  12: [0x33000000, 0x0fffffff],
  13: [0x1f000000, 0x03ffffff],
  14: [0x5f000000, 0x00ffffff],
};
const RANGES64: Record<number, readonly [number, number]> = {
  4: [0x00100000, 0x05ffffff],
  5: [0x7c000000, 0x03efffff],
  6: [0x3fe00000, 0x001fffff],
  8: [0x41a00000, 0x009fffff],
  9: [0x43a00000, 0x005fffff],
  11: [0x38000000, 0x00ffffff],
  12: [0x36900000, 0x01ffffff],
  13: [0x1ff00000, 0x007fffff],
  14: [0x47e00000, 0x001fffff],
};
function single(): number {
  const kind = rnd() >>> 28;
  const r = rnd();
  const sign = r & 0x80000000;
  switch (kind) {
    case 0:
    case 1:
      return sign | SPECIAL32[r & 15];
    case 2:
      return sign | (r & 0x7fffff);
    case 3:
      return r | 0x7f800000;
    case 7:
      return sign | (0x3f800000 + ((r & 31) << 23)) | (((r >>> 8) & 7) << 20);
    case 10:
      return sign | (r & 0x7f800000) | (r & 1 ? 0x7fffff : 0);
    case 15:
      return r;
    default:
      return sign | (RANGES32[kind][0] + (r & RANGES32[kind][1]));
  }
}
const halves = new Uint32Array(2);
const whole = new BigUint64Array(halves.buffer);
function pair(low: number, high: number): bigint {
  halves[0] = low;
  halves[1] = high;
  return whole[0];
}
function twice(): bigint {
  const kind = rnd() >>> 28;
  let high = rnd();
  let low = rnd();
  const sign = high & 0x80000000;
  switch (kind) {
    case 0:
    case 1: {
      const [h, l] = SPECIAL64[high & 15];
      low = l;
      high = sign | h;
      break;
    }
    case 2:
      high = sign | (high & 0xfffff);
      break;
    case 3:
      high |= 0x7ff00000;
      break;
    case 7:
      high = sign | (0x3ff00000 + ((high & 31) << 20)) | (((high >>> 8) & 7) << 17);
      low = 0;
      break;
    case 10:
      high = sign | (high & 0x7ff00000) | (low & 1 ? 0xfffff : 0);
      low = low & 1 ? ONES : 0;
      break;
    case 15:
      break;
    default:
      high = sign | (RANGES64[kind][0] + (high & RANGES64[kind][1]));
  }
  return pair(low, high);
}
function integer(): number {
  const kind = rnd() >>> 29;
  const r = rnd();
  switch (kind) {
    case 0:
      return r & 31;
    case 1:
      return -(r & 31);
    case 2:
      return 0x7ffffff0 + (r & 31);
    case 3:
      return r & 0xffff00ff;
    case 4:
      return r & 0x01ffffff;
    default:
      return r;
  }
}
function letters(): number {
  const r = rnd();
  let text = 0;
  for (let n = 0; n < 4; n++) {
    const pick = (r >>> (8 * n)) & 15;
    text |= (pick === 0 ? 0 : pick < 12 ? 0x61 + (pick & 3) : 0x80 + (pick & 3)) << (8 * n);
  }
  return text;
}
function element(kind: string): bigint {
  if (kind === "t") {
    const first = letters();
    return pair(first, letters());
  }
  if (kind === "d") return twice();
  const low = kind === "s" ? single() : integer();
  const high = kind === "s" ? single() : integer();
  return pair(low, high);
}
function related(kind: string, other: bigint): bigint {
  const value = element(kind);
  const how = rnd();
  if (how >>> 29) return value;
  const high = how & 0x80000003;
  return other ^ pair(high & (kind === "d" ? 3 : -1), high);
}
function control(): number {
  const r = rnd();
  const choice = (r >>> 20) & 7;
  const masks = choice < 5 ? 63 : choice < 6 ? 0 : (r >>> 24) & 63;
  let mxcsr = (masks << 7) | ((r & 3) << 13);
  if (((r >>> 2) & 3) === 0) mxcsr |= 0x40;
  if (((r >>> 4) & 3) === 0) mxcsr |= 0x8000;
  if ((r >>> 6) & 1) mxcsr |= 0x20;
  if (((r >>> 7) & 3) === 0) mxcsr |= (r >>> 9) & 63;
  return mxcsr;
}
function input(number: number, i: number, xmm: string, memoryKind: string, options: number): FloatCase {
  seed = (Math.imul(number * 1000 + i, 2654435761) + 12345) | 0;
  if (seed === 0) seed = 1;
  rnd();
  rnd();
  const image = new BigUint64Array(64);
  const memory = new BigUint64Array(MEMORY_WORDS);
  for (let n = 20; n < 24; n++) image[n] = element(xmm);
  for (let n = 24; n < 28; n++) image[n] = related(xmm, image[n - 2]);
  if (options & DIGEST) for (let n = 28; n < 36; n++) image[n] = element(xmm);
  for (let n = 0; n < MEMORY_WORDS; n++)
    memory[n] = memoryKind === xmm ? related(memoryKind, image[22 + (n & 1)]) : element(memoryKind);
  for (let n = 0; n < 8; n++) {
    image[4 + 2 * n] = element("i");
    image[5 + 2 * n] = BigInt(rnd() & 0xffff);
  }
  let mxcsr = control();
  if (options & DIGEST) mxcsr = i & 3 ? 0x1fa0 : mxcsr | 0x1f80;
  const r = rnd();
  if (options & CROSS) {
    const lanes = xmm === "s" ? 4 : 2;
    const rounds = 1024 / lanes;
    mxcsr = i < rounds ? 0x1f80 : 0x9fc0;
    const words = new Uint32Array(image.buffer);
    for (let lane = 0; lane < lanes; lane++) {
      const n = (i % rounds) * lanes + lane;
      for (let k = 0; k < 2; k++) {
        const pick = k ? n >> 5 : n & 31;
        const sign = (pick >> 4) << 31;
        const to = 44 + 4 * k;
        if (xmm === "s") words[to + lane] = SPECIAL32[pick & 15] | sign;
        else {
          words[to + 2 * lane] = SPECIAL64[pick & 15][1];
          words[to + 2 * lane + 1] = SPECIAL64[pick & 15][0] | sign;
        }
      }
    }
  }
  let fcw = 0x37f;
  let fsw = 0;
  let tags = 0;
  if (options & X87) {
    fsw = (r & 7) << 11;
    tags = (r >>> 3) & 0xff;
    if (((r >>> 11) & 15) === 0 && !(options & DIGEST)) {
      fcw = 0x37e;
      fsw |= 0x8081;
    }
  }
  image[0] = BigInt(fcw) | (BigInt(fsw) << 16n) | (BigInt(tags) << 32n);
  image[3] = BigInt(mxcsr);
  const general = new BigUint64Array(4);
  for (let n = 0; n < 3; n++) general[n] = element("i");
  general[3] = BigInt(0x202 | (rnd() & 0x8d5));
  return { image, memory, general };
}

/** FNV-1a over what float.c writes of a case. */
function digestCase(start: number, from: FloatCase, got: FloatOutcome): number {
  let hash = start;
  const put = (value: bigint, bytes: number) => {
    whole[0] = value;
    for (let i = 0; i < bytes; i++)
      hash = Math.imul(hash ^ ((halves[i >> 2] >>> ((i & 3) * 8)) & 0xff), 16777619);
  };
  let changed = 0n;
  for (let n = 0; n < FX_WORDS; n++)
    if (n !== 1 && n !== 2 && got.image[n] !== from.image[n]) changed |= 1n << BigInt(n);
  let others = 0n;
  for (let n = 0; n < MEMORY_WORDS; n++) if (got.memory[n] !== from.memory[n]) others |= 1n << BigInt(n);
  for (let n = 0; n < 4; n++) if (got.general[n] !== from.general[n]) others |= 256n << BigInt(n);
  put(BigInt(got.vector), 1);
  put(changed, 8);
  put(others, 2);
  for (let n = 0; n < FX_WORDS; n++) if ((changed >> BigInt(n)) & 1n) put(got.image[n], 8);
  for (let n = 0; n < MEMORY_WORDS; n++) if ((others >> BigInt(n)) & 1n) put(got.memory[n], 8);
  for (let n = 0; n < 4; n++) if ((others >> BigInt(8 + n)) & 1n) put(got.general[n], 8);
  return hash;
}

/** What to do with the vectors. */
export interface FloatReplay {
  /** Executes a case. */
  run: (form: FloatForm, input: FloatCase) => FloatOutcome;
  /** Compares one. */
  check: (form: FloatForm, i: number, input: FloatCase, got: FloatOutcome, expected: FloatOutcome) => void;
  /** All cases of a form of which only a digest was recorded have been executed. */
  digest: (form: FloatForm, cases: number, same: boolean) => void;
}
interface FloatHeader {
  readonly form: FloatForm;
  readonly xmm: string;
  readonly memoryKind: string;
  readonly options: number;
  readonly end: number;
}
function formAt(bytes: Buffer, at: number, number: number): FloatHeader {
  const code = at + 7 + bytes[at + 6];
  const end = code + bytes[at];
  return {
    form: {
      text: bytes.toString("latin1", at + 7, code),
      number,
      code: new Uint8Array(bytes.subarray(code, end)),
      cases: bytes.readUInt16LE(at + 4),
    },
    xmm: String.fromCharCode(bytes[at + 1]),
    memoryKind: String.fromCharCode(bytes[at + 2]),
    options: bytes[at + 3],
    end,
  };
}
/** What a file has vectors of. */
export function floatForms(file: URL): FloatForm[] {
  const bytes = brotliDecompressSync(readFileSync(file));
  const forms: FloatForm[] = [];
  for (let at = 0; bytes[at] !== 0;) {
    const { form, options, end } = formAt(bytes, at, forms.length);
    forms.push(form);
    at = end + (options & DIGEST ? 4 : 0);
    if (options & DIGEST) continue;
    for (let i = 0; i < form.cases; i++) {
      const mask = bytes.readBigUInt64LE(at + 1) | (BigInt(bytes.readUInt16LE(at + 9)) << 64n);
      at += 11 + 8 * ones(mask);
    }
  }
  return forms;
}
export function replayFloat(file: URL, { run, check, digest }: FloatReplay): void {
  const bytes = brotliDecompressSync(readFileSync(file));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const u64 = () => view.getBigUint64((at += 8) - 8, true);
  const outcome = (from: FloatCase): FloatOutcome => {
    const vector = bytes[at++];
    const changed = u64();
    const others = view.getUint16((at += 2) - 2, true);
    const image = from.image.slice();
    const memory = from.memory.slice();
    const general = from.general.slice();
    for (let n = 0; n < FX_WORDS; n++) if ((changed >> BigInt(n)) & 1n) image[n] = u64();
    for (let n = 0; n < MEMORY_WORDS; n++) if ((others >> n) & 1) memory[n] = u64();
    for (let n = 0; n < 4; n++) if ((others >> (8 + n)) & 1) general[n] = u64();
    return { vector, image, memory, general };
  };
  for (let number = 0; bytes[at] !== 0; number++) {
    const { form, xmm, memoryKind, options, end } = formAt(bytes, at, number);
    const { cases } = form;
    at = end;
    let hash = 2166136261 | 0;
    for (let i = 0; i < cases; i++) {
      const from = input(number, i, xmm, memoryKind, options);
      const got = run(form, from);
      if (options & DIGEST) hash = digestCase(hash, from, got);
      else check(form, i, from, got, outcome(from));
    }
    if (options & DIGEST) digest(form, cases, hash >>> 0 === view.getUint32((at += 4) - 4, true));
  }
}
