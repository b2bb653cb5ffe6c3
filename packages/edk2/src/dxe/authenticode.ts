/**
 * The Authenticode digest of a PE image with SHA-384: what LoadImage measures.
 * Source: Windows Authenticode Portable Executable Signature Format 1.0, "Calculating the PE image hash".
 */
import type { PeImage } from "@swtdx/abi";
import { createSha384 } from "@swtdx/crypto";

/** `file` without its checksum, its certificate directory entry and its certificates. */
export function authenticodeSha384(file: Uint8Array, image: PeImage): Uint8Array {
  const hash = createSha384();
  hash.update(file.subarray(0, image.checksumOffset));
  const afterChecksum = image.checksumOffset + 4;
  if (image.securityOffset < 0) {
    hash.update(file.subarray(afterChecksum, image.sizeOfHeaders));
  } else {
    hash.update(file.subarray(afterChecksum, image.securityOffset));
    hash.update(file.subarray(image.securityOffset + 8, image.sizeOfHeaders));
  }
  let hashed = image.sizeOfHeaders;
  for (const section of [...image.sections].sort((a, b) => a.rawOffset - b.rawOffset)) {
    if (section.rawSize === 0) continue;
    hash.update(file.subarray(section.rawOffset, section.rawOffset + section.rawSize));
    hashed += section.rawSize;
  }
  const end = file.length - image.certificates.size;
  if (end > hashed) hash.update(file.subarray(hashed, end));
  return hash.digest();
}
