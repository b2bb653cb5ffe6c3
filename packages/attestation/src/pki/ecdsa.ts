/**
 * ECDSA on P-256 with SHA-256 (FIPS 186-5), the one signature scheme of DCAP. Signing is deterministic
 * (RFC 6979), so equal inputs give equal quotes. Verification uses the platform's native code where there is one.
 */
import { p256 } from "@noble/curves/nist.js";
import { concat, hex } from "../bytes.js";

/** Where keys and serial numbers come from: @swtdx/crypto's SeededRandom, or anything shaped like it. */
export interface RandomSource {
  bytes(count: number): Uint8Array;
  fork(label: string): RandomSource;
}

export interface KeyPair {
  /** 32 bytes. */
  readonly secretKey: Uint8Array;
  /** x ‖ y, 64 bytes. */
  readonly publicKey: Uint8Array;
}

/** A key pair drawn from `random`. */
export function generateKeyPair(random: RandomSource): KeyPair {
  // 48 bytes reduced modulo the group's order: no bias worth the name (FIPS 186-5, A.2.1).
  const { secretKey, publicKey } = p256.keygen(random.bytes(48));
  return { secretKey, publicKey: p256.Point.fromBytes(publicKey).toBytes(false).subarray(1) };
}

/** The signature r ‖ s, 64 bytes, over SHA-256 of `message`. */
export const sign = (key: KeyPair, message: Uint8Array): Uint8Array =>
  p256.sign(message, key.secretKey, { lowS: false, prehash: true });

interface NodeVerify {
  createPublicKey(key: { key: Record<string, string>; format: "jwk" }): unknown;
  verify(
    hash: string,
    data: Uint8Array,
    key: { key: unknown; dsaEncoding: "ieee-p1363" },
    signature: Uint8Array,
  ): boolean;
}
interface ProcessLike {
  getBuiltinModule?(name: string): unknown;
}
const { process } = globalThis as { process?: ProcessLike };
const node = (process?.getBuiltinModule?.("node:crypto") ?? null) as NodeVerify | null;

const base64url = (data: Uint8Array): string =>
  btoa(String.fromCharCode(...data))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");

/** Native keys by their bytes: making one costs more than using it. */
const nativeKeys = new Map<string, unknown>();
function nativeKey(node: NodeVerify, publicKey: Uint8Array): unknown {
  const name = hex(publicKey);
  let key = nativeKeys.get(name);
  if (key === undefined) {
    key = node.createPublicKey({
      key: {
        kty: "EC",
        crv: "P-256",
        x: base64url(publicKey.subarray(0, 32)),
        y: base64url(publicKey.subarray(32)),
      },
      format: "jwk",
    });
    if (nativeKeys.size > 64) nativeKeys.clear();
    nativeKeys.set(name, key);
  }
  return key;
}

/** Whether r ‖ s is a signature over SHA-256 of `message` by the key x ‖ y. A key off the curve verifies nothing. */
export function verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean {
  if (publicKey.length !== 64 || signature.length !== 64) return false;
  try {
    if (node)
      return node.verify(
        "sha256",
        message,
        { key: nativeKey(node, publicKey), dsaEncoding: "ieee-p1363" },
        signature,
      );
    return p256.verify(signature, message, concat(Uint8Array.of(4), publicKey), { lowS: false });
  } catch {
    return false;
  }
}

/** r ‖ s as the SEQUENCE of two INTEGERs that X.509 wants. */
export const signatureToDer = (signature: Uint8Array): Uint8Array =>
  p256.Signature.fromBytes(signature).toBytes("der");

/** r ‖ s of a DER signature, or null when it is none. */
export function signatureFromDer(der: Uint8Array): Uint8Array | null {
  try {
    return p256.Signature.fromBytes(der, "der").toBytes("compact");
  } catch {
    return null;
  }
}
