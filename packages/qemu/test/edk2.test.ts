/** The loader against the firmware of this project: what one builds, the other must load, and the other way round. */
import { buildFirmware, validateTdHob } from "@swtdx/edk2";
import { describe, expect, it } from "vitest";
import { buildTdHob } from "../src/firmware/td-hob.js";
import { parseTdvf } from "../src/firmware/tdvf.js";
import { layoutMemory, splitTdRam } from "../src/memory/memory-map.js";

describe("edk2's image", () => {
  const image = buildFirmware({});
  it("parses, and its memory lies in a machine", () => {
    const tdvf = parseTdvf(image, "edk2");
    const types = tdvf.sections.map(({ type }) => type);
    expect(types).toContain("BFV");
    expect(types).toContain("CFV");
    expect(types).toContain("TD_HOB");
    expect(tdvf.sections.find(({ type }) => type === "BFV")!.measured).toBe(true);
    expect(() => splitTdRam(layoutMemory(512 * 2 ** 20, image.length), tdvf)).not.toThrow();
  });
  it.each([64, 512, 4096])("accepts the HOB list of a machine with %i MiB", (mib) => {
    const tdvf = parseTdvf(image, "edk2");
    const ram = splitTdRam(layoutMemory(mib * 2 ** 20, image.length), tdvf);
    const hob = validateTdHob(buildTdHob(tdvf, ram));
    if ("error" in hob) throw new Error(hob.error);
    expect(hob.resources).toEqual(
      ram.map(({ address, length, type }) => ({ base: address, size: length, accepted: type === "ADDED" })),
    );
  });
});
