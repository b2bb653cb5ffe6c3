/** @swtdx/qemu: what a firmware image asks of the machine that launches it, and what the machine tells it of memory. */
import { buildFirmware } from "@swtdx/edk2";
import { buildTdHob, layoutMemory, parseTdvf, splitTdRam } from "@swtdx/qemu";

const hex = (value: number) => `0x${value.toString(16)}`;
const MIB = 2 ** 20;

const image = buildFirmware({});
const tdvf = parseTdvf(image, "edk2");
console.log(`firmware of ${image.length / MIB} MiB, TDX metadata at ${hex(tdvf.descriptorOffset)}:`);
for (const { type, memoryAddress, memoryDataSize, measured } of tdvf.sections)
  console.log(
    `  ${type.padEnd(8)} ${hex(memoryAddress)} + ${hex(memoryDataSize)}${measured ? ", contents measured" : ""}`,
  );

const ram = splitTdRam(layoutMemory(512 * MIB, image.length), tdvf);
console.log("RAM of a TD with 512 MiB at launch:");
for (const { address, length, type } of ram) console.log(`  ${hex(address)} + ${hex(length)} ${type}`);
console.log(`described by a TD HOB list of ${buildTdHob(tdvf, ram).length} bytes`);
