/**
 * The one source of randomness: ChaCha20 (RFC 8439) keyed by a seed. The same seed and the same calls give the
 * same bytes on every platform.
 */
import { chacha20 } from "@noble/ciphers/chacha.js";
import { hmacSha256, sha256 } from "./hash.js";

const CHUNK = 4096;

export class SeededRandom {
  readonly #key: Uint8Array;
  #counter = 0;
  #buffer = new Uint8Array();
  #used = 0;

  /** @param seed any number of bytes */
  constructor(seed: Uint8Array) {
    this.#key = sha256(seed);
  }

  /** A source of its own for one consumer: what it draws does not change what others get. */
  fork(label: string): SeededRandom {
    return new SeededRandom(hmacSha256(this.#key, new TextEncoder().encode(label)));
  }

  /** The next `count` bytes. */
  bytes(count: number): Uint8Array {
    const out = new Uint8Array(count);
    for (let at = 0; at < count;) {
      if (this.#used === this.#buffer.length) this.#refill();
      const part = this.#buffer.subarray(this.#used, this.#used + count - at);
      out.set(part, at);
      this.#used += part.length;
      at += part.length;
    }
    return out;
  }

  /** The next 64 bits. */
  u64(): bigint {
    return new DataView(this.bytes(8).buffer).getBigUint64(0, true);
  }

  /** The next 32 bits. */
  u32(): number {
    return new DataView(this.bytes(4).buffer).getUint32(0, true);
  }

  #refill(): void {
    const nonce = new Uint8Array(12);
    new DataView(nonce.buffer).setUint32(0, this.#counter++, true);
    this.#buffer = chacha20(this.#key, nonce, new Uint8Array(CHUNK));
    this.#used = 0;
  }
}
