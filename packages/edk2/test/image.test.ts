import { encodeProgramPe, parsePe, type PeImage, viewOf } from "@swtdx/abi";
import { parseTdvf } from "@swtdx/qemu";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { EFI_FIRMWARE_VOLUME_HEADER, EFI_FV_FILETYPE, encodeFile } from "../src/image/firmware-volume.js";
import { BFV_BASE, BFV_SIZE, CFV_BASE, CFV_SIZE, IMAGE_BASE } from "../src/image/layout.js";
import {
  authenticodeSha384,
  buildFirmware,
  FirmwareBuildError,
  IMAGE_SIZE,
  listFiles,
  pe32Section,
} from "../src/index.js";

const guid = "12345678-1234-5678-9abc-def012345678";
const application = encodeProgramPe("@swtdx/test:app");
const image = buildFirmware({ applications: [{ guid, image: application }] });
const bfv = image.subarray(CFV_SIZE);

describe("the firmware's image", () => {
  it("has the sections of a TDVF, of which only the boot volume is measured", () => {
    const tdvf = parseTdvf(image, "edk2");
    expect(
      tdvf.sections.map(({ type, memoryAddress, memoryDataSize, measured }) => [
        type,
        memoryAddress,
        memoryDataSize,
        measured,
      ]),
    ).toEqual([
      ["BFV", BFV_BASE, BFV_SIZE, true],
      ["CFV", CFV_BASE, CFV_SIZE, false],
      ["TEMP_MEM", 0x810000, 0x10000, false],
      ["TEMP_MEM", 0x80b000, 0x2000, false],
      ["TD_HOB", 0x809000, 0x2000, false],
      ["TEMP_MEM", 0x800000, 0x6000, false],
    ]);
    expect(image.length).toBe(IMAGE_SIZE);
    expect(IMAGE_BASE + image.length).toBe(2 ** 32);
  });
  it("is two firmware volumes with right checksums", () => {
    for (const [volume, length] of [
      [image, CFV_SIZE],
      [bfv, BFV_SIZE],
    ] as const) {
      const header = EFI_FIRMWARE_VOLUME_HEADER.decode(volume);
      expect(new TextDecoder().decode(header.Signature)).toBe("_FVH");
      expect(header.FvLength).toBe(BigInt(length));
      expect(header.NumBlocks * header.BlockLength).toBe(length);
      let sum = 0;
      for (let at = 0; at < header.HeaderLength; at += 2) sum += viewOf(volume).getUint16(at, true);
      expect(sum & 0xffff).toBe(0);
    }
  });
  it("carries the application, and files up to its end", () => {
    const files = listFiles(bfv);
    expect(files.map(({ type }) => type)).toEqual([
      EFI_FV_FILETYPE.SECURITY_CORE,
      EFI_FV_FILETYPE.APPLICATION,
      EFI_FV_FILETYPE.PAD,
      EFI_FV_FILETYPE.RAW,
    ]);
    const app = files[1];
    expect(app.name).toBe(guid);
    expect(pe32Section(bfv.subarray(app.offset, app.offset + app.size))).toEqual(application);
    expect(files[3].offset + files[3].size).toBe(BFV_SIZE);
  });
  it("is the same for the same options, and not for others", () => {
    expect(Buffer.compare(buildFirmware({ applications: [{ guid, image: application }] }), image)).toBe(0);
    const variables = Uint8Array.of(1, 2, 3);
    const other = buildFirmware({ applications: [{ guid, image: application }], variables });
    expect(Buffer.compare(other.subarray(CFV_SIZE), bfv)).toBe(0);
    expect(other.subarray(72, 75)).toEqual(variables);
  });
  it("refuses what does not fit", () => {
    expect(() => buildFirmware({ applications: [{ guid, image: new Uint8Array(BFV_SIZE) }] })).toThrow(
      FirmwareBuildError,
    );
    expect(() => buildFirmware({ variables: new Uint8Array(CFV_SIZE) })).toThrow(FirmwareBuildError);
  });
  it("takes applications up to the last byte that is free", () => {
    const room = listFiles(bfv)[2].size;
    fc.assert(
      fc.property(fc.integer({ min: room - 100, max: room + 200 }), (extra) => {
        const one = { guid, image: new Uint8Array(application.length + extra) };
        try {
          const files = listFiles(buildFirmware({ applications: [one] }).subarray(CFV_SIZE));
          expect(files.at(-1)!.offset + files.at(-1)!.size).toBe(BFV_SIZE);
        } catch (error) {
          expect(error).toBeInstanceOf(FirmwareBuildError);
        }
      }),
    );
  });
  it("is read without trust in its headers", () => {
    const volume = new Uint8Array(2000).fill(0xff);
    volume.set(encodeFile(guid, EFI_FV_FILETYPE.RAW, new Uint8Array(100)), 72);
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 5 }),
        fc.nat(2000),
        (changes, cut) => {
          const bad = volume.slice(0, cut);
          for (const [at, value] of changes) if (at < bad.length) bad[at] = value;
          for (const file of listFiles(bad)) expect(file.offset + file.size).toBeLessThanOrEqual(bad.length);
          pe32Section(bad);
        },
      ),
    );
  });
});

/** Digests that osslsigncode 2.9 calculates of the same bytes. */
describe("Authenticode's digest", () => {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
  const digest = (file: Uint8Array) => hex(authenticodeSha384(file, parsePe(file) as PeImage));
  const data = Uint8Array.from({ length: 5000 }, (_, i) => (i * 7) & 0xff);
  const file = encodeProgramPe("@swtdx/test:vector", [{ name: ".data", data }]);
  const plain =
    "245fe13fa33bece8642ffd9791ce65f28291b06e8ee2339d4b5c28fcc037d5fba349cb1066f4d20218a6482095151db1";
  it("is osslsigncode's", () => {
    expect(digest(file)).toBe(plain);
    const tail = Array.from({ length: 24 }, (_, i) => i);
    expect(digest(new Uint8Array([...file, ...tail]))).toBe(
      "c9a36861d4dbe66956be4adaf2696794846d552b88b13c999ef8bac5981c9530a4cdeb1bcb1fd9d38f27194756d4d91c",
    );
  });
  it("leaves out checksum and certificates", () => {
    const pe = parsePe(file) as PeImage;
    const signed = new Uint8Array(file.length + 64).fill(0x5a);
    signed.set(file);
    viewOf(signed).setUint32(pe.checksumOffset, 0x1234_5678, true);
    viewOf(signed).setUint32(pe.securityOffset, file.length, true);
    viewOf(signed).setUint32(pe.securityOffset + 4, 64, true);
    expect(digest(signed)).toBe(plain);
    signed[0x1000] ^= 1;
    expect(digest(signed)).not.toBe(plain);
  });
});
