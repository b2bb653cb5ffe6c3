/** AES-NI, SHA and PCLMULQDQ. SDM vol. 2; AES: FIPS 197; SHA: FIPS 180-4. */
import { type Context, type DefineHelper, type Emitter, type Semantics } from "../emit/context.js";
import { REG } from "../register-file.js";
import { I32, I64, V128 } from "../wasm/encoder.js";
import { type Code, i32, i64, type Local, select, simdOp, type V } from "../wasm/expr.js";
import {
  lane64,
  op,
  readVector,
  replace64,
  requireSse,
  shuffle,
  v128,
  writeVector,
  ZERO,
} from "./vector-operand.js";

const xor = (...values: V[]): V => values.reduce((a, b) => op(0x51, a, b));
const splat8 = (value: number): V => op(15, i32(value));
const binary =
  (compute: (a: Local, b: Local, c: Context) => V): Emitter =>
  (c) => {
    requireSse(c);
    const b = readVector(c, 1);
    const a = readVector(c, 0);
    writeVector(c, 0, compute(a, b, c));
  };
const control = (c: Context): V => c.immediate().wrap();

// --- AES

const SBOX = new Uint8Array(256);
const INVERSE = new Uint8Array(256);
{
  const times2 = (x: number) => ((x << 1) ^ (x & 0x80 ? 0x11b : 0)) & 0xff;
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
/** Looks all bytes up: each sixteenth of the table yields zeros for indexes that are not its own. */
function lookUp(table: Uint8Array, indexes: V): V {
  let result: V = ZERO;
  for (let k = 0; k < 256; k += 16) {
    const own = k === 0 ? indexes : op(0x71, indexes, splat8(k));
    result = op(0x50, result, op(14, v128(...table.subarray(k, k + 16)), own));
  }
  return result;
}
const permute = (v: V, from: (i: number) => number): V =>
  shuffle(
    v,
    v,
    Array.from({ length: 16 }, (_, i) => from(i)),
  );
const shiftRows = (v: V, step: number): V => permute(v, (i) => (i + (i & 3) * step * 4 + 64) & 15);
/** Each column's bytes moved by n. */
const rotate = (v: V, n: number): V => permute(v, (i) => (i & 12) | ((i + n) & 3));
const times2 = (v: V): V => xor(op(0x6e, v, v), op(0x4e, op(0x6c, v, i32(7)), splat8(0x1b)));
function mix(code: Code, v: V): V {
  const a = code.let(v);
  const b = code.let(rotate(a, 1));
  return xor(times2(xor(a, b)), b, rotate(a, 2), rotate(a, 3));
}
/** MixColumns of a vector to which four times the difference of opposite bytes is added. */
function unmix(code: Code, v: V): V {
  const a = code.let(v);
  const u = code.let(times2(code.let(xor(a, rotate(a, 2)))));
  return mix(code, xor(a, times2(u)));
}

// --- SHA: xmm words are numbered from the low end, SHA-1's message words from the high end

const lane32 = (v: V, n: number): V => simdOp(27, I32, [v], [n]);
const words = (c: Context, v: V): [Local, Local, Local, Local] => {
  const w = (n: number) => c.code.let(lane32(v, n));
  return [w(0), w(1), w(2), w(3)];
};
const vector = (w: readonly V[]): V => w.reduce((v, x, n) => simdOp(28, V128, [v, x], [n]), ZERO);
const sigma = (x: V, a: number, b: number, c: number): V => x.rotr(a).xor(x.rotr(b)).xor(x.rotr(c));
const small = (x: V, a: number, b: number, shift: number): V => x.rotr(a).xor(x.rotr(b)).xor(x.shr_u(shift));
const s0 = (x: V): V => small(x, 7, 18, 3);
const s1 = (x: V): V => small(x, 17, 19, 10);
const K1 = [0x5a827999, 0x6ed9eba1, 0x8f1bbcdc | 0, 0xca62c1d6 | 0];

const sha1rnds4: Emitter = binary((x, y, c) => {
  let [d, c0, b, a] = words(c, x);
  const w = words(c, y);
  const kind = c.code.let(control(c).and(3));
  const k = c.code.let(
    select(
      kind.and(2),
      select(kind.and(1), i32(K1[3]), i32(K1[2])),
      select(kind.and(1), i32(K1[1]), i32(K1[0])),
    ),
  );
  let e: V = i32(0);
  for (let i = 0; i < 4; i++) {
    const choose = b.and(c0).xor(b.not().and(d));
    const parity = b.xor(c0).xor(d);
    const majority = b.and(c0).xor(b.and(d)).xor(c0.and(d));
    const f = select(kind.eqz(), choose, select(kind.eq(2), majority, parity));
    const next = c.code.let(
      f
        .add(a.rotl(5))
        .add(w[3 - i])
        .add(e)
        .add(k),
    );
    [e, d, c0, b, a] = [d, c0, c.code.let(b.rotl(30)), a, next];
  }
  return vector([d, c0, b, a]);
});
const sha256rnds2: Emitter = binary((x, y, c) => {
  const { address, offset } = c.field(REG.ZMM);
  const k = c.code.let(address.loadV128(offset));
  let [f, e, b, a] = words(c, y);
  let [h, g, d, c0] = words(c, x);
  for (let i = 0; i < 2; i++) {
    const choose = e.and(f).xor(e.not().and(g));
    const t1 = c.code.let(
      h
        .add(sigma(e, 6, 11, 25))
        .add(choose)
        .add(lane32(k, i)),
    );
    const majority = a.and(b).xor(a.and(c0)).xor(b.and(c0));
    const next = c.code.let(t1.add(sigma(a, 2, 13, 22)).add(majority));
    [h, g, f, e, d, c0, b, a] = [g, f, e, c.code.let(d.add(t1)), c0, b, a, next];
  }
  return vector([f, e, b, a]);
});

/** Functions that these instructions call. */
export function buildCryptoHelpers(define: DefineHelper): void {
  define("subBytes", [V128], V128, (code, v) => code.return(lookUp(SBOX, v)));
  define("unsubBytes", [V128], V128, (code, v) => code.return(lookUp(INVERSE, v)));
  /** Carry-less product, by the set bits of one factor. */
  define("carryless", [I64, I64], V128, (code, a, b) => {
    const low = code.let(i64(0));
    const high = code.let(i64(0));
    const half = code.let(a.shr_u(1));
    const n = code.temp(I64);
    code.block((done) => {
      code.loop((again) => {
        code.brIf(b.eqz(), done);
        code.set(n, b.ctz());
        code.set(low, low.xor(a.shl(n)));
        code.set(high, high.xor(half.shr_u(i64(63).sub(n))));
        code.set(b, b.and(b.sub(1)));
        code.br(again);
      });
    });
    code.return(replace64(replace64(ZERO, 0, low), 1, high));
  });
}

export const vectorCrypto: Semantics = {
  aesenc: binary((a, b, c) => xor(mix(c.code, c.helper("subBytes", shiftRows(a, 1))), b)),
  aesenclast: binary((a, b, c) => xor(c.helper("subBytes", shiftRows(a, 1)), b)),
  aesdec: binary((a, b, c) => xor(unmix(c.code, c.helper("unsubBytes", shiftRows(a, -1))), b)),
  aesdeclast: binary((a, b, c) => xor(c.helper("unsubBytes", shiftRows(a, -1)), b)),
  aesimc: binary((_a, b, c) => unmix(c.code, b)),
  aeskeygenassist: binary((_a, b, c) => {
    const s = c.code.let(c.helper("subBytes", b));
    const round = control(c).and(0xff);
    const [low, high] = [c.code.let(lane32(s, 1)), c.code.let(lane32(s, 3))];
    return vector([low, low.rotr(8).xor(round), high, high.rotr(8).xor(round)]);
  }),
  sha1rnds4,
  sha1nexte: binary((x, y) => op(0xae, y, vector([i32(0), i32(0), i32(0), lane32(x, 3).rotl(30)]))),
  sha1msg1: binary((a, b) => xor(a, shuffle(a, b, [24, 25, 26, 27, 28, 29, 30, 31, 0, 1, 2, 3, 4, 5, 6, 7]))),
  sha1msg2: binary((x, y, c) => {
    const a = words(c, x);
    const b = words(c, y);
    const w16 = c.code.let(a[3].xor(b[2]).rotl(1));
    return vector([a[0].xor(w16).rotl(1), a[1].xor(b[0]).rotl(1), a[2].xor(b[1]).rotl(1), w16]);
  }),
  sha256rnds2,
  sha256msg1: binary((x, y, c) => {
    const a = words(c, x);
    const next = [a[1], a[2], a[3], c.code.let(lane32(y, 0))];
    return vector(a.map((w, i) => w.add(s0(next[i]))));
  }),
  sha256msg2: binary((x, y, c) => {
    const a = words(c, x);
    const b = words(c, y);
    const w16 = c.code.let(a[0].add(s1(b[2])));
    const w17 = c.code.let(a[1].add(s1(b[3])));
    return vector([w16, w17, a[2].add(s1(w16)), a[3].add(s1(w17))]);
  }),
  pclmulqdq: binary((a, b, c) => {
    const half = (v: V, bit: number) => select(control(c).and(bit), lane64(v, 1), lane64(v, 0));
    return c.helper("carryless", half(a, 1), half(b, 16));
  }),
};
