/**
 * Elementary functions in fixed point: numbers are integers of 2^-BITS. Far more bits than a register has, so that the
 * functions of transcendental.ts round as if their results were exact; bigint, because nothing executes them often.
 */

export const BITS = 320;
const SCALE = BigInt(BITS);
export const ONE = 1n << SCALE;

export const product = (a: bigint, b: bigint): bigint => (a * b) >> SCALE;
export const quotient = (a: bigint, b: bigint): bigint => (a << SCALE) / b;

/** Area tangent of |z| < 1/2. */
function areaTangent(z: bigint): bigint {
  const square = product(z, z);
  let sum = 0n;
  let power = z;
  for (let n = 1n; power !== 0n && power !== -1n; n += 2n) {
    sum += power / n;
    power = product(power, square);
  }
  return sum;
}
/** Arc tangent of a small number. */
function arcTangentSeries(z: bigint): bigint {
  const square = -product(z, z);
  let sum = 0n;
  let power = z;
  for (let n = 1n; power !== 0n && power !== -1n; n += 2n) {
    sum += power / n;
    power = product(power, square);
  }
  return sum;
}
/** ln 2 = 2 artanh 1/3. */
export const LN2 = 2n * areaTangent(ONE / 3n);
/** Machin: pi/4 = 4 arctan 1/5 - arctan 1/239. */
export const PI = 4n * (4n * arcTangentSeries(ONE / 5n) - arcTangentSeries(ONE / 239n));

/** Square root. */
function root(a: bigint): bigint {
  const radicand = a << SCALE;
  // Newton's method from above.
  let x = 1n << BigInt((radicand.toString(16).length + 1) * 2);
  for (;;) {
    const next = (x + radicand / x) >> 1n;
    if (next >= x) return x;
    x = next;
  }
}
/** Arc tangent of 0 to 1. */
export function arcTangent(t: bigint): bigint {
  // Halve the angle until the series is short.
  for (let n = 0; n < 4; n++) t = quotient(t, ONE + root(ONE + product(t, t)));
  return arcTangentSeries(t) << 4n;
}
/** Sine of an angle of at most pi/4. */
export function sine(r: bigint): bigint {
  const square = product(r, r);
  let sum = 0n;
  let term = r;
  for (let n = 2n; term !== 0n && term !== -1n; n += 2n) {
    sum += term;
    term = -product(term, square) / (n * (n + 1n));
  }
  return sum;
}
/** Cosine of an angle of at most pi/4. */
export function cosine(r: bigint): bigint {
  const square = product(r, r);
  let sum = 0n;
  let term = ONE;
  for (let n = 1n; term !== 0n && term !== -1n; n += 2n) {
    sum += term;
    term = -product(term, square) / (n * (n + 1n));
  }
  return sum;
}
/** e^t - 1 for |t| < 1. */
export function exponentialMinusOne(t: bigint): bigint {
  let sum = 0n;
  let term = t;
  for (let n = 2n; term !== 0n && term !== -1n; n++) {
    sum += term;
    term = product(term, t) / n;
  }
  return sum;
}
/** Binary logarithm of a positive number; exact for powers of two. */
export function logarithm(a: bigint): bigint {
  let k = a.toString(2).length - 1 - BITS;
  let unit = k >= 0 ? ONE << BigInt(k) : ONE >> BigInt(-k);
  // Between 3/4 and 3/2 of a power of two, that the logarithms of numbers near 1 keep their bits.
  if (2n * a > 3n * unit) {
    unit <<= 1n;
    k++;
  }
  const z = quotient(a - unit, a + unit);
  return BigInt(k) * ONE + quotient(2n * areaTangent(z), LN2);
}
