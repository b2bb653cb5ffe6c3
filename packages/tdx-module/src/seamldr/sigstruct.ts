/**
 * SEAM_SIGSTRUCT: the manifest of a TDX module, signed with RSA-3072 (EMSA-PKCS1-v1_5, SHA-384) by the module's vendor.
 *
 * Layout, field values and what is signed: Intel TDX Loader Interface specification; intel/seam-loader
 * p-seam-loader/include/seam_sigstruct.h, src/pseamldr_dispatcher/api_calls/seamldr_install.c.
 */
import { array, bytes, struct, type StructOf, u16, u32, u64, u8 } from "@swtdx/abi";
import { sha384 } from "@swtdx/crypto";
import { MODULE_SIGNING_KEY } from "./signing-key.js";

const MODULUS_SIZE = 384;

export const SEAM_SIGSTRUCT = struct("SEAM_SIGSTRUCT", 2048, {
  HEADER_TYPE: u32(0),
  /** In dwords, as are the sizes below. */
  HEADER_LENGTH: u32(4),
  HEADER_VERSION: u32(8),
  /** Bit 31: signed for debugging. */
  MODULE_TYPE: u32(12),
  MODULE_VENDOR: u32(16),
  DATE: u32(20),
  SIZE: u32(24),
  KEY_SIZE: u32(28),
  MODULUS_SIZE: u32(32),
  EXPONENT_SIZE: u32(36),
  RESERVED_0: bytes(40, 88),
  /** Little-endian, as is the signature. */
  MODULUS: bytes(128, MODULUS_SIZE),
  EXPONENT: u32(512),
  SIGNATURE: bytes(516, MODULUS_SIZE),
  /** SHA-384 of the module's pages. */
  SEAMHASH: bytes(900, 48),
  SEAMSVN: u16(948),
  ATTRIBUTES: u64(950),
  RIP_OFFSET: u32(958),
  /** Pages per logical processor, and of global data, each less one. */
  NUM_STACK_PAGES: u8(962),
  NUM_TLS_PAGES: u8(963),
  NUM_KEYHOLE_PAGES: u16(964),
  NUM_GLOBAL_DATA_PAGES: u16(966),
  MAX_TDMRS: u16(968),
  MAX_RSVD_PER_TDMR: u16(970),
  PAMT_ENTRY_SIZE_4K: u16(972),
  PAMT_ENTRY_SIZE_2M: u16(974),
  PAMT_ENTRY_SIZE_1G: u16(976),
  RESERVED_1: bytes(978, 46),
  /** Processors the module runs on (CPUID(1).EAX, stepping aside); none listed: all. */
  CPUID_TABLE_SIZE: u32(1024),
  CPUID_TABLE: array(1028, 255, u32),
});
export type SeamSigstruct = StructOf<typeof SEAM_SIGSTRUCT>;

/** The values a P-SEAMLDR demands. */
export const SIGSTRUCT_HEADER = {
  HEADER_TYPE: 6,
  HEADER_LENGTH: 0xe1,
  HEADER_VERSION: 0x1_0000,
  MODULE_VENDOR: 0x8086,
  SIZE: 0x200,
  KEY_SIZE: 0x60,
  MODULUS_SIZE: 0x60,
  EXPONENT_SIZE: 1,
  EXPONENT: 0x1_0001,
} as const;
export const MODULE_TYPE_DEBUG = 0x8000_0000;

/** What is signed: all but modulus, exponent and signature. */
function signedBytes(sigstruct: Uint8Array): Uint8Array {
  const { MODULUS, SEAMHASH } = SEAM_SIGSTRUCT.fields;
  const out = new Uint8Array(MODULUS.offset + SEAM_SIGSTRUCT.size - SEAMHASH.offset);
  out.set(sigstruct.subarray(0, MODULUS.offset));
  out.set(sigstruct.subarray(SEAMHASH.offset), MODULUS.offset);
  return out;
}

/** DER of DigestInfo for SHA-384, before the digest (RFC 8017, section 9.2). */
const DIGEST_INFO = Uint8Array.of(
  ...[0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00],
  ...[0x04, 0x30],
);

/** EMSA-PKCS1-v1_5 of a message, as a number. */
function encodedMessage(message: Uint8Array): bigint {
  const digest = sha384(message);
  const out = new Uint8Array(MODULUS_SIZE).fill(0xff);
  const end = MODULUS_SIZE - digest.length - DIGEST_INFO.length;
  out.set([0, 1]);
  out[end - 1] = 0;
  out.set(DIGEST_INFO, end);
  out.set(digest, end + DIGEST_INFO.length);
  return fromLittleEndian(out.reverse());
}

function fromLittleEndian(bytesOfNumber: Uint8Array): bigint {
  let hex = "";
  for (const byte of bytesOfNumber) hex = byte.toString(16).padStart(2, "0") + hex;
  return BigInt(`0x${hex}`);
}
function toLittleEndian(value: bigint): Uint8Array {
  const hex = value.toString(16).padStart(2 * MODULUS_SIZE, "0");
  return Uint8Array.from({ length: MODULUS_SIZE }, (_, i) =>
    Number.parseInt(hex.slice(hex.length - 2 * (i + 1), hex.length - 2 * i), 16),
  );
}
function modPow(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n;
  let power = base % modulus;
  for (let e = exponent; e > 0n; e >>= 1n) {
    if (e & 1n) result = (result * power) % modulus;
    power = (power * power) % modulus;
  }
  return result;
}

/** The key that a P-SEAMLDR of ours trusts. */
export const SIGNER_MODULUS = toLittleEndian(MODULE_SIGNING_KEY.modulus);

const signatures = new Map<string, Uint8Array>();

/** Fills in the key and signs (RFC 8017, section 5.1.2, with the Chinese remainder theorem). */
export function signSigstruct(sigstruct: Uint8Array): void {
  const { P, Q, D_P, D_Q, Q_INVERSE } = MODULE_SIGNING_KEY;
  const message = signedBytes(sigstruct);
  const encoded = encodedMessage(message);
  const key = encoded.toString(36);
  let signature = signatures.get(key);
  if (!signature) {
    const [a, b] = [modPow(encoded, D_P, P), modPow(encoded, D_Q, Q)];
    const h = ((((a - b) * Q_INVERSE) % P) + P) % P;
    signatures.set(key, (signature = toLittleEndian(b + h * Q)));
  }
  SEAM_SIGSTRUCT.write(new DataView(sigstruct.buffer, sigstruct.byteOffset, sigstruct.byteLength), {
    MODULUS: SIGNER_MODULUS,
    EXPONENT: SIGSTRUCT_HEADER.EXPONENT,
    SIGNATURE: signature,
  });
}

/** Whether the signature is that of the key in the structure. */
export function verifySignature(
  sigstruct: Uint8Array,
  { MODULUS, EXPONENT, SIGNATURE }: SeamSigstruct,
): boolean {
  const modulus = fromLittleEndian(MODULUS);
  const signature = fromLittleEndian(SIGNATURE);
  if (signature >= modulus) return false;
  return modPow(signature, BigInt(EXPONENT), modulus) === encodedMessage(signedBytes(sigstruct));
}
