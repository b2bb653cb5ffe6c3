/** @swtdx/edk2: builds a firmware image and looks at what it says of itself: files, Authenticode digest, TD HOB check. */
import { encodeProgramPe, parsePe } from "@swtdx/abi";
import {
  authenticodeSha384,
  buildFirmware,
  IMAGE_SIZE,
  listFiles,
  programs,
  validateTdHob,
} from "@swtdx/edk2";
import { buildTdHob, layoutMemory, parseTdvf, splitTdRam } from "@swtdx/qemu";

const application = encodeProgramPe("@example/hello:main");
const guid = "6d1e31f0-33a5-4f3b-8d0c-5e2f5d7a9b11";
const image = buildFirmware({ applications: [{ guid, image: application }] });
const tdvf = parseTdvf(image, "example.fd");
const boot = tdvf.sections.find(({ type }) => type === "BFV")!;

console.log(`firmware of ${IMAGE_SIZE / 1024} KiB with ${programs.size} programs; files in its boot volume:`);
for (const { name, type, size } of listFiles(image.subarray(image.length - boot.memoryDataSize)))
  console.log(`  ${name} type 0x${type.toString(16).padStart(2, "0")} ${size} bytes`);

const pe = parsePe(application);
if ("error" in pe) throw new Error(pe.error);
const digest = Buffer.from(authenticodeSha384(application, pe)).toString("hex");
console.log(`the application would be measured as ${digest.slice(0, 32)}...`);

const hob = buildTdHob(tdvf, splitTdRam(layoutMemory(256 * 2 ** 20, image.length), tdvf));
const verdict = (list: Uint8Array) => {
  const out = validateTdHob(list);
  return "error" in out ? `refused: ${out.error}` : `${out.resources.length} ranges of memory`;
};
console.log(`the machine's TD HOB: ${verdict(hob)}`);
console.log(`the same without its end: ${verdict(hob.subarray(0, -8))}`);
