/**
 * MRTD calculated from a firmware image alone, by the text of the specification and without any layer that builds
 * TDs: what a machine's MRTD is checked against. Source: TDX Module 1.5 ABI, TDH.MEM.PAGE.ADD, TDH.MR.EXTEND.
 */
import { createSha384 } from "@swtdx/crypto";
import { parseTdvf } from "@swtdx/qemu";
import { hex } from "../io/files.js";

const PAGE = 4096;
const CHUNK = 256;

/** The 128-byte buffer that is hashed: the function's name, the GPA at offset 16. */
function record(name: string, gpa: number): Uint8Array {
  const block = new Uint8Array(128);
  block.set(new TextEncoder().encode(name));
  new DataView(block.buffer).setBigUint64(16, BigInt(gpa), true);
  return block;
}

/** MRTD in hexadecimal, as QEMU and KVM launch the image. @throws FirmwareError */
export function calculateMrtd(image: Uint8Array, file: string): string {
  const hash = createSha384();
  for (const section of parseTdvf(image, file).sections) {
    const { memoryAddress, memoryDataSize, dataOffset, rawDataSize } = section;
    const data = image.subarray(dataOffset, dataOffset + rawDataSize);
    for (let page = 0; page < memoryDataSize; page += PAGE) {
      hash.update(record("MEM.PAGE.ADD", memoryAddress + page));
      if (!section.measured) continue;
      for (let at = page; at < page + PAGE; at += CHUNK) {
        const chunk = new Uint8Array(CHUNK);
        chunk.set(data.subarray(at, at + CHUNK));
        hash.update(record("MR.EXTEND", memoryAddress + at));
        hash.update(chunk);
      }
    }
  }
  return hex(hash.digest());
}
