/** The platform's native crypto: Node's, reached without an import so that browsers load the same code. */

/** The part of node:crypto that is used. */
export interface NativeCrypto {
  createHash(algorithm: string): NativeHash;
  createHmac(algorithm: string, key: Uint8Array): NativeHash;
  createCipheriv(algorithm: string, key: Uint8Array, iv: null): NativeCipher;
  createDecipheriv(algorithm: string, key: Uint8Array, iv: null): NativeCipher;
}
export interface NativeHash {
  update(data: Uint8Array): NativeHash;
  digest(): Uint8Array;
}
export interface NativeCipher {
  setAutoPadding(on: boolean): NativeCipher;
  update(data: Uint8Array): Uint8Array;
}

interface ProcessLike {
  getBuiltinModule?(name: string): unknown;
}

const { process } = globalThis as { process?: ProcessLike };
/** Node's crypto, or null where there is none (a browser, or a Node before 20.16). */
export const native = (process?.getBuiltinModule?.("node:crypto") ?? null) as NativeCrypto | null;
