/** The outcomes that tools/x86-vectors/x87.c recorded on a real processor: reads them and computes the same states. */
import { readFileSync } from "node:fs";
import { brotliDecompressSync } from "node:zlib";

export const WINDOW = 128;
const WORDS = WINDOW / 8;

export interface X87Form {
  readonly name: string;
  readonly code: Uint8Array;
}
/** The unit, some general state, and what the memory operand's address points to. Registers are in physical order. */
export interface X87State {
  control: number;
  /** As FRSTOR is given it: without the summary. */
  status: number;
  tags: number;
  /** 10 bytes each. */
  readonly registers: Uint8Array;
  flags: number;
  ax: number;
  readonly memory: BigUint64Array;
}
export interface X87Outcome extends X87State {
  /** Exception vector, 255 none; the rest is only meaningful without one. */
  readonly vector: number;
}

let seed = 0;
function random(): number {
  seed ^= seed << 13;
  seed ^= seed >>> 17;
  seed ^= seed << 5;
  return Math.imul(seed, 0x9e3779b1) >>> 0;
}
interface Real {
  low: number;
  high: number;
  exponent: number;
}
function real(): Real {
  const r = random();
  let low = random();
  let high = random();
  const sign = r & 1;
  const e = r >>> 8;
  let exponent = 0;
  let special = false;
  switch ((r >>> 4) & 7) {
    case 0:
      exponent = 0x3fff + (e & 15) - 8;
      break;
    case 1:
      exponent = 0x3fff + (e & 127) - 64;
      break;
    case 2:
      exponent = 0x3fff + (e & 63);
      break;
    case 3:
      exponent = 0x3fff + (e & 2047) - 1024;
      break;
    case 4:
      exponent = 0x3fff + (e & 511) - 256;
      break;
    case 5:
      exponent = e & 1 ? (e >>> 1) & 127 : 0x7ffe - ((e >>> 1) & 127);
      break;
    case 6:
      exponent = e & 0x7fff;
      break;
    default:
      special = true;
  }
  if (special) {
    switch (e & 15) {
      case 0:
      case 14:
        exponent = 0;
        high = 0;
        low = 0;
        break;
      case 1:
        exponent = 0x7fff;
        high = 0x80000000;
        low = 0;
        break;
      case 2:
        exponent = 0x7fff;
        high = 0xc0000000;
        low = 0;
        break;
      case 3:
        exponent = 0x7fff;
        high |= 0xc0000000;
        break;
      case 4:
        exponent = 0x7fff;
        high = 0x80000000 | (high & 0x3fffffff);
        low |= 1;
        break;
      case 5:
        exponent = 0;
        high &= 0x7fffffff;
        break;
      case 6:
        exponent = 0;
        high = 0;
        low = (low & 0xff) | 1;
        break;
      case 7:
        exponent = 0;
        high |= 0x80000000;
        break;
      case 8:
        exponent = (r >>> 12) & 0x7fff;
        high &= 0x7fffffff;
        break;
      case 9:
        exponent = 0x7fff;
        high = 0;
        low = 0;
        break;
      case 10:
        exponent = 0x7fff;
        high &= 0x7fffffff;
        break;
      case 11:
        exponent = 0x3fff;
        high = 0;
        low = 0;
        break;
      case 12:
        exponent = 1;
        high = 0x80000000;
        low = 0;
        break;
      case 13:
        exponent = 0x7ffe;
        high = 0xffffffff;
        low = 0xffffffff;
        break;
      default:
        exponent = 0x3fff;
        high = 0x80000000;
        low = 0;
    }
  } else {
    switch ((r >>> 1) & 7) {
      case 0:
        high = low = 0;
        break;
      case 1:
        high = low = 0xffffffff;
        break;
      case 2:
        high &= 0xffffff00;
        low = 0;
        break;
      case 3:
        low &= 0xfffff800;
        break;
      case 4:
        high = 0;
        low &= 0xff;
        break;
      case 5:
        low = (low & 0xfffff800) | 0x400;
        break;
      default:
    }
    high |= 0x80000000;
  }
  return { low: low >>> 0, high: high >>> 0, exponent: exponent | (sign << 15) };
}
function ieee(exponentBits: number, fractionBits: number): bigint {
  const r = random();
  const low = random();
  const high = random();
  const all = (1 << exponentBits) - 1;
  const bias = all >> 1;
  const top = 1n << BigInt(fractionBits - 1);
  const mask = top * 2n - 1n;
  const bits = ((BigInt(high) << 32n) | BigInt(low)) & mask;
  let fraction = bits;
  let exponent = 0;
  const kind = (r >>> 20) & 3;
  if (kind === 0) fraction = 0n;
  else if (kind === 1) fraction &= (mask << BigInt(fractionBits - 8)) & mask;
  switch ((r >>> 1) & 7) {
    case 0:
      switch ((r >>> 8) & 7) {
        case 0:
          fraction = 0n;
          break;
        case 1:
          exponent = all;
          fraction = 0n;
          break;
        case 2:
          exponent = all;
          fraction |= top;
          break;
        case 3:
          exponent = all;
          fraction = (fraction & (top - 1n)) | 1n;
          break;
        case 4:
          fraction = bits;
          break;
        case 5:
          fraction = BigInt((low & 15) + 1);
          break;
        case 6:
          exponent = all - 1;
          fraction = mask;
          break;
        default:
          exponent = 1;
          fraction = 0n;
      }
      break;
    case 1:
    case 2:
    case 3:
      exponent = bias + ((r >>> 8) & 15) - 8;
      break;
    case 4:
      exponent = bias + ((r >>> 8) & 63) - 32;
      break;
    default:
      exponent = (r >>> 8) & all;
  }
  return (
    (BigInt(r & 1) << BigInt(exponentBits + fractionBits)) |
    (BigInt(exponent & all) << BigInt(fractionBits)) |
    fraction
  );
}
function integer(bits: number): bigint {
  const r = random();
  const low = random();
  const high = random();
  switch (r & 7) {
    case 0:
      return 0n;
    case 1:
      return 1n << BigInt(bits - 1);
    case 2:
      return BigInt(((r >>> 3) & 1) - 1);
    case 3:
      return BigInt(((r >>> 3) & 15) - 8);
    case 4:
      return BigInt(low | 0);
    default:
      return (BigInt(high) << 32n) | BigInt(low);
  }
}
function controlWord(): number {
  const r = random();
  const pc = (r >>> 8) & 7;
  const masks = r & 3 ? 0x3f : (r >>> 2) & 0x3f;
  const precision = pc < 4 ? 3 : pc < 6 ? 2 : 0;
  return masks | 0x40 | (precision << 8) | (((r >>> 11) & 3) << 10) | (((r >>> 13) & 7) === 0 ? 1 << 12 : 0);
}
function statusWord(): number {
  const r = random();
  const exceptions = ((r >>> 7) & 15) === 0 ? (r >>> 11) & 0x7f : 0;
  return ((r & 7) << 11) | (((r >>> 3) & 7) << 8) | (((r >>> 6) & 1) << 14) | exceptions;
}
function tagWord(): number {
  const r = random();
  let tag = 0;
  for (let n = 0; n < 8; n++) if (((r >>> (4 * n)) & 15) === 0) tag |= 3 << (2 * n);
  return tag;
}
function narrow(x: Real, kind: string): void {
  const r = random();
  if ((r & 7) === 0) return;
  const sign = x.exponent & 0x8000;
  const e = r >>> 8;
  x.high = (x.high | 0x80000000) >>> 0;
  switch (kind) {
    case "t":
      x.exponent = sign | (0x3fff - 20 + ((e & 127) % 86));
      break;
    case "x":
      x.exponent = sign | (0x3ffe - (e & 3 ? (e >>> 2) & 7 : (e >>> 2) & 127));
      break;
    case "y":
      x.exponent = r & 0x40 ? 0x3ffe + (e & 1) : e & 3 ? 0x3fff - 32 + ((e >>> 2) & 63) : (e >>> 2) & 0x7fff;
      break;
    case "z":
      x.exponent = sign | (0x3ffd - (e & 3 ? (e >>> 2) & 7 : (e >>> 2) & 127));
      break;
    default:
  }
}
function putReal(view: DataView, at: number, x: Real): void {
  view.setUint32(at, x.low, true);
  view.setUint32(at + 4, x.high, true);
  view.setUint16(at + 8, x.exponent, true);
}
/** @param memoryForm it has a memory operand */
function input(number: number, i: number, kind: string, memoryForm: boolean): X87State {
  seed = (Math.imul(number * 8192 + i, 2654435761) + 1) | 0;
  if (seed === 0) seed = 1;
  random();
  random();
  const control = controlWord();
  const status = statusWord();
  let tags = tagWord();
  const st = [real(), real(), real(), real(), real(), real(), real(), real()];
  const relation = random();
  if ((relation & 7) === 0) {
    st[1] = { ...st[0] };
    st[1].low = (st[1].low ^ ((relation >>> 4) & 1)) >>> 0;
    st[1].exponent ^= ((relation >>> 5) & 1) << 15;
    if (relation & 0x40)
      st[1].exponent = (st[1].exponent & 0x8000) | ((st[1].exponent + ((relation >>> 8) & 63) - 32) & 0x7fff);
  }
  const top = (status >> 11) & 7;
  if (kind === "P" || kind === "t") {
    const above = (top - 1) & 7;
    tags = (tags & ~(3 << (2 * above))) | (relation >>> 28 ? 3 << (2 * above) : 0);
  }
  narrow(st[0], kind);
  const registers = new Uint8Array(80);
  const view = new DataView(registers.buffer);
  for (let n = 0; n < 8; n++) putReal(view, ((top + n) & 7) * 10, st[n]);
  const flags = (random() & 0x8d5) | 0x202;
  const memory = new BigUint64Array(WORDS);
  const words = new Uint32Array(memory.buffer);
  if (memoryForm) for (let n = 0; n < words.length; n++) words[n] = random();
  putOperand(memory.buffer, kind);
  return { control, status, tags, registers, flags, ax: 0x1234, memory };
}
function putOperand(buffer: ArrayBuffer, kind: string): void {
  const m = new DataView(buffer);
  switch (kind) {
    case "s":
      m.setUint32(0, Number(ieee(8, 23)), true);
      break;
    case "d":
      m.setBigUint64(0, ieee(11, 52), true);
      break;
    case "e":
      putReal(m, 0, real());
      break;
    case "2":
      m.setUint16(0, Number(BigInt.asUintN(16, integer(16))), true);
      break;
    case "4":
      m.setUint32(0, Number(BigInt.asUintN(32, integer(32))), true);
      break;
    case "8":
      m.setBigUint64(0, BigInt.asUintN(64, integer(64)), true);
      break;
    case "b": {
      const bytes = new Uint8Array(buffer);
      const bad = random();
      if (bad & 7)
        for (let n = 0; n < 9; n++) bytes[n] = (((bytes[n] >> 4) % 10) << 4) | ((bytes[n] & 15) % 10);
      if (bad & 8) bytes[9] &= 0x80;
      break;
    }
    case "n":
    case "o": {
      const step = kind === "n" ? 4 : 2;
      const at = kind === "n" ? 28 : 14;
      [controlWord(), statusWord(), tagWord()].forEach((w, n) => m.setUint16(n * step, w, true));
      for (let n = 0; n < 8; n++) putReal(m, at + 10 * n, real());
      break;
    }
    default:
  }
}

/** Calls back for every case. */
export function replayX87(
  file: URL,
  each: (form: X87Form, i: number, input: X87State, expected: X87Outcome) => void,
): void {
  const bytes = brotliDecompressSync(readFileSync(file));
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  const u16 = () => view.getUint16((at += 2) - 2, true);
  for (let number = 0; bytes[at] !== 0; number++) {
    const length = bytes[at++];
    const code = new Uint8Array(bytes.subarray(at, at + length));
    at += length;
    const kind = String.fromCharCode(bytes[at++]);
    const cases = u16();
    const nameLength = bytes[at++];
    const name = bytes.toString("latin1", at, at + nameLength);
    at += nameLength;
    for (let i = 0; i < cases; i++) {
      const from = input(number, i, kind, code[length - 1] < 0xc0);
      const expected = {
        ...from,
        registers: from.registers.slice(),
        memory: from.memory.slice(),
        vector: bytes[at++],
      };
      if (expected.vector === 255) {
        expected.control = u16();
        expected.status = u16();
        expected.tags = u16();
        const changed = bytes[at++];
        for (let n = 0; n < 8; n++) {
          if (!((changed >> n) & 1)) continue;
          expected.registers.set(bytes.subarray(at, at + 10), n * 10);
          at += 10;
        }
        expected.flags = u16();
        expected.ax = u16();
        const words = u16();
        for (let n = 0; n < WORDS; n++) {
          if (!((words >> n) & 1)) continue;
          expected.memory[n] = view.getBigUint64(at, true);
          at += 8;
        }
      }
      each({ name, code }, i, from, expected);
    }
  }
}
