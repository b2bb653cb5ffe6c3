/**
 * @swtdx/grub: the boot loader of a TD. `buildImage` makes an EFI application with an embedded configuration;
 * `programs` holds the TypeScript guest program that its entry point names.
 */
import { encodeProgramPe, type GuestProgram } from "@swtdx/abi";
import { CONFIG_SECTION, grubMain } from "./main.js";

export { parseScript } from "./script.js";

const PROGRAM = "@swtdx/grub:grub_main";
export const programs: ReadonlyMap<string, GuestProgram> = new Map([[PROGRAM, grubMain]]);

/** File name under which a firmware volume carries the image (OvmfPkg/AmdSev's grub.efi has the same). */
export const GRUB_FILE_GUID = "b5ae312c-bc8a-43b1-9c62-ebb826dd5d07";

/** Boots what QEMU was given with -kernel, -initrd and -append. */
export const DEFAULT_CONFIG = `# Boot what the machine was given.
echo Loading Linux ...
linux /kernel $fw_cmdline
boot
`;

/** An EFI application, PE32+, that runs `config` (GRUB script). */
export const buildImage = (config: string = DEFAULT_CONFIG): Uint8Array =>
  encodeProgramPe(PROGRAM, [{ name: CONFIG_SECTION, data: new TextEncoder().encode(config) }]);
