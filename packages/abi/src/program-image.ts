/**
 * The container that gives a TypeScript guest program its image bytes.
 *
 * At the program's entry point stands a 16-byte stub: UD2 (so that a processor without the engine stops here),
 * "SWTDX", a NUL, and the signed distance in bytes from the stub to the header. The header names the program:
 *
 * | offset | size | field |
 * | --- | --- | --- |
 * | 0 | 8 | "SWTDXPGM" |
 * | 8 | 4 | version, 1 |
 * | 12 | 4 | length of the name in bytes |
 * | 16 | n | name, UTF-8, for example "@swtdx/edk2:SecEntry" |
 */
import { viewOf } from "./struct.js";

/** Bytes of a stub. */
export const PROGRAM_STUB_SIZE = 16;
const STUB_MAGIC = [0x0f, 0x0b, 0x53, 0x57, 0x54, 0x44, 0x58, 0x00];
const HEADER_MAGIC = "SWTDXPGM";
const HEADER_FIXED = 16;
/** Longest name in bytes. */
export const PROGRAM_NAME_MAX = 255;

/** The stub to put at an entry point, `distance` bytes before (or, negative, after) its header. */
export function encodeProgramStub(distance: number): Uint8Array {
  const out = new Uint8Array(PROGRAM_STUB_SIZE);
  out.set(STUB_MAGIC);
  viewOf(out).setBigInt64(8, BigInt(distance), true);
  return out;
}

/** @returns the distance from the stub to its header, or null when these 16 bytes are no stub. */
export function decodeProgramStub(bytes: Uint8Array): number | null {
  if (bytes.length < PROGRAM_STUB_SIZE || STUB_MAGIC.some((byte, i) => bytes[i] !== byte)) return null;
  return Number(viewOf(bytes).getBigInt64(8, true));
}

/** The header that names a program. @throws RangeError for an empty name or one over PROGRAM_NAME_MAX bytes. */
export function encodeProgramHeader(name: string): Uint8Array {
  const utf8 = new TextEncoder().encode(name);
  if (utf8.length === 0 || utf8.length > PROGRAM_NAME_MAX)
    throw new RangeError(`program name of ${utf8.length} bytes`);
  const out = new Uint8Array(HEADER_FIXED + utf8.length);
  out.set(new TextEncoder().encode(HEADER_MAGIC));
  viewOf(out).setUint32(8, 1, true);
  viewOf(out).setUint32(12, utf8.length, true);
  out.set(utf8, HEADER_FIXED);
  return out;
}

/** @returns the program's name, or null when these bytes (at least 16) are no header. */
export function decodeProgramHeader(bytes: Uint8Array): { name: string } | null {
  if (bytes.length < HEADER_FIXED) return null;
  if (new TextDecoder().decode(bytes.subarray(0, 8)) !== HEADER_MAGIC) return null;
  const view = viewOf(bytes);
  const length = view.getUint32(12, true);
  if (view.getUint32(8, true) !== 1 || length > PROGRAM_NAME_MAX || bytes.length < HEADER_FIXED + length)
    return null;
  return { name: new TextDecoder().decode(bytes.subarray(HEADER_FIXED, HEADER_FIXED + length)) };
}

/** Bytes that always suffice to decode a header. */
export const PROGRAM_HEADER_MAX = HEADER_FIXED + PROGRAM_NAME_MAX;

/** A flat image that starts with its stub: stub, header, then `payload`. */
export function encodeProgramImage(name: string, payload: Uint8Array = new Uint8Array()): Uint8Array {
  const header = encodeProgramHeader(name);
  const out = new Uint8Array(PROGRAM_STUB_SIZE + header.length + payload.length);
  out.set(encodeProgramStub(PROGRAM_STUB_SIZE));
  out.set(header, PROGRAM_STUB_SIZE);
  out.set(payload, PROGRAM_STUB_SIZE + header.length);
  return out;
}
