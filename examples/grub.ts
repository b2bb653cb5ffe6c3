/** @swtdx/grub: a boot loader image with a configuration of one's own, and how its script is read. */
import { parsePe } from "@swtdx/abi";
import { buildImage, parseScript } from "@swtdx/grub";

const config = `# What to boot
set root=hd0; echo "Booting from $root ..."
linux /kernel $fw_cmdline panic=-1
initrd /initrd
boot
`;
const image = buildImage(config);
const pe = parsePe(image);
if ("error" in pe) throw new Error(pe.error);
console.log(
  `EFI application of ${image.length} bytes, entry point 0x${pe.entryPoint.toString(16)}, sections:`,
);
for (const { name, virtualSize } of pe.sections) console.log(`  ${name.padEnd(8)} ${virtualSize} bytes`);

const variables = new Map([
  ["root", "hd0"],
  ["fw_cmdline", "console=ttyS0"],
]);
console.log("commands, as they are measured into RTMR[2]:");
for (const { words } of parseScript(config, (name) => variables.get(name) ?? ""))
  console.log(`  grub_cmd: ${words.join(" ")}`);
