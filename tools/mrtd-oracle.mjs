/**
 * MRTD of firmware images, by a bare calculation that uses nothing of the packages: the TDVF metadata by its GUID
 * table (TDX Virtual Firmware Design Guide, ch. 11), then SHA-384 over what TDH.MEM.PAGE.ADD and TDH.MR.EXTEND are
 * said to extend (TDX Module 1.5 ABI). What `swtdx measure --static` is checked against.
 *
 *   node tools/mrtd-oracle.mjs FILE...     prints "MRTD  FILE" per image
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** GUIDs as bytes: the table's footer, and the entry with the offset of the metadata. */
const FOOTER = Buffer.from("de82b596b21ff745baeaa366c55a082d", "hex");
const TDX_METADATA_OFFSET = Buffer.from("35657ae44a989847865e4685a7bf8ec2", "hex");
/** The table ends this many bytes before the image does. */
const RESET_VECTOR = 32;
const EXTEND = 1;

/**
 * @typedef {object} Section
 * @property {number} gpa
 * @property {number} memorySize bytes in memory, a multiple of 4096
 * @property {Uint8Array} data contents; what is missing up to memorySize is zero
 * @property {boolean} extend MR.EXTEND the contents
 */

/**
 * The sections of the metadata. @throws Error for an image without them
 * @param {Buffer} image
 * @returns {Section[]}
 */
function sections(image) {
  let end = image.length - RESET_VECTOR - 16;
  if (!image.subarray(end, end + 16).equals(FOOTER)) throw new Error("no GUID table");
  const start = end + 16 - image.readUInt16LE(end - 2);
  // Entries from the last to the first: data, length (16 bits), GUID.
  end -= 2;
  while (end > start) {
    const length = image.readUInt16LE(end - 18);
    if (length < 18) break;
    if (image.subarray(end - 16, end).equals(TDX_METADATA_OFFSET)) {
      const at = image.length - image.readUInt32LE(end - 22);
      if (image.toString("ascii", at, at + 4) !== "TDVF") throw new Error("no TDVF descriptor");
      return Array.from({ length: image.readUInt32LE(at + 12) }, (_, i) => {
        const entry = at + 16 + 32 * i;
        const offset = image.readUInt32LE(entry);
        const end = offset + image.readUInt32LE(entry + 4);
        // Code without the variables that its metadata speaks of is no image that can be launched.
        if (end > image.length) throw new Error("a section outside the image");
        return {
          data: image.subarray(offset, end),
          gpa: Number(image.readBigUInt64LE(entry + 8)),
          memorySize: Number(image.readBigUInt64LE(entry + 16)),
          extend: (image.readUInt32LE(entry + 28) & EXTEND) !== 0,
        };
      });
    }
    end -= length;
  }
  throw new Error("no TDX metadata");
}

/** @param {string} name @param {number} gpa */
function record(name, gpa) {
  const block = Buffer.alloc(128);
  block.write(name, "ascii");
  block.writeBigUInt64LE(BigInt(gpa), 16);
  return block;
}

/**
 * MRTD in hexadecimal of a TD built from sections in their order: per page the PAGE.ADD record, then for an extended
 * section 16 times the EXTEND record and 256 bytes.
 * @param {readonly Section[]} list
 */
export function mrtdOfSections(list) {
  const hash = createHash("sha384");
  for (const { gpa, memorySize, data, extend } of list)
    for (let page = 0; page < memorySize; page += 4096) {
      hash.update(record("MEM.PAGE.ADD", gpa + page));
      if (!extend) continue;
      for (let at = page; at < page + 4096; at += 256) {
        const chunk = Buffer.alloc(256);
        chunk.set(data.subarray(at, at + 256));
        hash.update(record("MR.EXTEND", gpa + at)).update(chunk);
      }
    }
  return hash.digest("hex");
}

/**
 * MRTD in hexadecimal of a firmware image. @throws Error for one that cannot be launched
 * @param {Uint8Array} image
 */
export const mrtd = (image) => mrtdOfSections(sections(Buffer.from(image)));

if (process.argv[1] === fileURLToPath(import.meta.url))
  for (const file of process.argv.slice(2)) console.log(`${mrtd(readFileSync(file))}  ${file}`);
