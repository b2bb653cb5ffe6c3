/** The module's file format: what is made can be read, what is damaged is refused, and a host boots from it. */
import { buildModuleImage } from "@swtdx/tdx-module";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeTdxImage, encodeTdxImage } from "../src/index.js";
import { powerOn } from "./support/host.js";

const PAGE = 4096;

describe("a TDX-BLOB", () => {
  const module = buildModuleImage();
  const file = encodeTdxImage(module);

  it("carries signature and module in whole pages, with a checksum of 0", () => {
    const decoded = decodeTdxImage(file)!;
    expect(decoded.sigstruct.subarray(0, module.sigstruct.length)).toEqual(module.sigstruct);
    expect(decoded.image.subarray(0, module.image.length)).toEqual(module.image);
    expect(decoded.image.length % PAGE).toBe(0);
    expect(new TextDecoder().decode(file.subarray(4, 12))).toBe("TDX-BLOB");
    const words = new Uint16Array(file.slice().buffer);
    expect(words.reduce((sum, word) => (sum + word) & 0xffff, 0)).toBe(0);
  });

  it("is refused when its header is damaged or its size is wrong", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: PAGE * 8 - 1 }), (bit) => {
        // The checksum is not the kernel's business.
        if (bit >= 16 && bit < 32) return;
        const bad = file.slice();
        bad[bit >> 3] ^= 1 << (bit & 7);
        expect(decodeTdxImage(bad)).toBeNull();
      }),
    );
    for (const length of [0, 1, PAGE - 1, PAGE, file.length - 1])
      expect(decodeTdxImage(file.subarray(0, length))).toBeNull();
  });

  it("is refused when it asks for more pages than SEAMLDR_PARAMS lists", () => {
    expect(() => encodeTdxImage({ ...module, image: new Uint8Array(497 * PAGE) })).toThrow(RangeError);
    expect(() => encodeTdxImage({ ...module, sigstruct: new Uint8Array(PAGE + 1) })).toThrow(RangeError);
  });

  it("boots a host; a damaged one leaves it without TDX", () => {
    expect(powerOn({ module: file }).host.tdx).not.toBeNull();
    const { host } = powerOn({ module: file.subarray(1) });
    expect(host.tdx).toBeNull();
    expect(host.log.lines.at(-1)!.text).toBe("virt/tdx: the TDX module image is invalid");
  });
});
