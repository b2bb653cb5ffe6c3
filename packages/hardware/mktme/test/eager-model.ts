/**
 * The oracle: a memory controller that encrypts at once. Every line is kept as the DIMM holds it, with its MAC and
 * TD-owner bit; every read decrypts. Written independently of the lazy one, for clarity and not for speed.
 */
import { createCipheriv, createDecipheriv, createHash } from "node:crypto";

export interface ModelKey {
  data: Uint8Array;
  tweak: Uint8Array;
  isPrivate: boolean;
}
interface StoredLine {
  cipher: Uint8Array;
  mac: number;
  tdOwner: boolean;
  poisoned: boolean;
}

const aes = (key: Uint8Array, block: Uint8Array, encrypt: boolean): Uint8Array => {
  const cipher = (encrypt ? createCipheriv : createDecipheriv)("aes-128-ecb", key, null).setAutoPadding(
    false,
  );
  return new Uint8Array(Buffer.concat([cipher.update(block), cipher.final()]));
};

/** XTS on one line, straight from IEEE 1619, with the tweak as a 128-bit integer. */
function xts(key: ModelKey, line: number, source: Uint8Array, encrypt: boolean): Uint8Array {
  const number = new Uint8Array(16);
  new DataView(number.buffer).setBigUint64(0, BigInt(line), true);
  let tweak = Buffer.from(aes(key.tweak, number, true)).reverse();
  const out = new Uint8Array(source.length);
  for (let at = 0; at < source.length; at += 16) {
    const mask = Uint8Array.from(tweak).reverse();
    const block = source.subarray(at, at + 16).map((byte, i) => byte ^ mask[i]);
    out.set(
      aes(key.data, block, encrypt).map((byte, i) => byte ^ mask[i]),
      at,
    );
    const value = BigInt(`0x${tweak.toString("hex")}`);
    let next = (value << 1n) & ((1n << 128n) - 1n);
    if (value >> 127n) next ^= 0x87n;
    tweak = Buffer.from(next.toString(16).padStart(32, "0"), "hex");
  }
  return out;
}

/** MAC key, ciphertext, encrypted line number, TD-owner bit. */
const mac = (
  macKey: Uint8Array,
  key: ModelKey,
  line: number,
  tdOwner: boolean,
  cipher: Uint8Array,
): number => {
  const number = Buffer.alloc(16);
  number.writeBigUInt64LE(BigInt(line));
  const input = Buffer.concat([macKey, cipher, aes(key.tweak, number, true), Buffer.from([tdOwner ? 1 : 0])]);
  return createHash("sha3-256").update(input).digest().readUInt32BE(0) >>> 4;
};

export class EagerMemory {
  readonly #lines = new Map<number, StoredLine>();
  constructor(
    readonly background: ModelKey,
    readonly macKey: Uint8Array,
    readonly cryptographic: boolean,
    readonly zeros: boolean,
  ) {}

  line(index: number): StoredLine {
    const known = this.#lines.get(index);
    if (known) return known;
    const cipher = xts(this.background, index, new Uint8Array(64), true);
    return {
      cipher,
      mac: mac(this.macKey, this.background, index, false, cipher),
      tdOwner: false,
      poisoned: false,
    };
  }

  /** Null is poison, which the line keeps. */
  readLine(index: number, key: ModelKey): Uint8Array | null {
    const line = this.line(index);
    if (line.poisoned) return null;
    if (key.isPrivate) {
      const fits = !this.cryptographic || mac(this.macKey, key, index, true, line.cipher) === line.mac;
      if (!line.tdOwner || !fits) {
        this.#lines.set(index, { ...line, poisoned: true });
        return null;
      }
    } else if (line.tdOwner && this.zeros) return new Uint8Array(64);
    return xts(key, index, line.cipher, false);
  }

  /** @returns whether poison was met */
  writeLine(index: number, key: ModelKey, offset: number, bytes: Uint8Array): boolean {
    let plain = new Uint8Array(bytes);
    if (bytes.length < 64) {
      const old = this.readLine(index, key);
      if (old === null) return true;
      plain = new Uint8Array(old);
      plain.set(bytes, offset);
    }
    const cipher = xts(key, index, plain, true);
    const tdOwner = key.isPrivate;
    this.#lines.set(index, {
      cipher,
      mac: mac(this.macKey, key, index, tdOwner, cipher),
      tdOwner,
      poisoned: false,
    });
    return false;
  }

  setLine(index: number, line: StoredLine): void {
    this.#lines.set(index, line);
  }
}
