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

/** The sections of the metadata. @throws Error for an image without them */
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
          gpa: image.readBigUInt64LE(entry + 8),
          size: Number(image.readBigUInt64LE(entry + 16)),
          extend: (image.readUInt32LE(entry + 28) & EXTEND) !== 0,
        };
      });
    }
    end -= length;
  }
  throw new Error("no TDX metadata");
}

function record(name, gpa) {
  const block = Buffer.alloc(128);
  block.write(name, "ascii");
  block.writeBigUInt64LE(gpa, 16);
  return block;
}

/** MRTD in hexadecimal. */
export function mrtd(image) {
  const hash = createHash("sha384");
  for (const { data, gpa, size, extend } of sections(image)) {
    const memory = Buffer.alloc(size);
    data.copy(memory);
    for (let page = 0; page < size; page += 4096) {
      hash.update(record("MEM.PAGE.ADD", gpa + BigInt(page)));
      for (let at = page; extend && at < page + 4096; at += 256)
        hash.update(record("MR.EXTEND", gpa + BigInt(at))).update(memory.subarray(at, at + 256));
    }
  }
  return hash.digest("hex");
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  for (const file of process.argv.slice(2)) console.log(`${mrtd(readFileSync(file))}  ${file}`);
