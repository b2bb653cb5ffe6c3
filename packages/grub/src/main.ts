/**
 * GRUB: runs the configuration in its image. Every command is measured into PCR 8 and every file that it reads
 * into PCR 9 (RTMR[2] of a TD), in the words of GRUB 2.14 (grub-core/commands/tpm.c, loader/efi/linux.c).
 */
import {
  EFI_LOADED_IMAGE,
  EFI_STATUS,
  efiStatusName,
  encodeUcs2,
  guest,
  type Guest,
  type GuestProgram,
  parsePe,
  readStruct,
  viewOf,
} from "@swtdx/abi";
import { allocatePages, bootService, type Efi, GrubError, initEfi, measure, print, readFile } from "./efi.js";
import { parseScript } from "./script.js";

/** Name of the image's section that holds the configuration. */
export const CONFIG_SECTION = ".cfg";
const VERSION = "GRUB  version 2.14-swtdx";
const PCR_COMMANDS = 8;
const PCR_FILES = 9;

/** What the `linux` command prepared. */
interface LoadedKernel {
  handle: bigint;
}

/** The configuration, from GRUB's own image in memory. */
function* readConfig(handle: bigint): Guest<string> {
  const { ImageBase, ImageSize } = yield* readStruct(handle, EFI_LOADED_IMAGE);
  const image = yield* guest.loadBytes(BigInt(ImageBase), ImageSize);
  const pe = parsePe(image);
  const section = "error" in pe ? undefined : pe.sections.find(({ name }) => name === CONFIG_SECTION);
  if (!section) throw new GrubError("no configuration in the image");
  const start = section.virtualAddress;
  return new TextDecoder().decode(image.subarray(start, start + section.virtualSize));
}

/** Reads and measures a file. */
function* load(efi: Efi, path: string): Guest<{ address: bigint; bytes: Uint8Array }> {
  const file = yield* readFile(efi, path);
  if (!file) throw new GrubError(`file \`${path}' not found`);
  yield* measure(efi, PCR_FILES, { address: file.address, length: file.bytes.length }, path);
  return file;
}

/** linux FILE ARGS…: the kernel is an EFI image; its command line becomes its load options. */
function* linux(efi: Efi, [path, ...args]: readonly string[]): Guest<LoadedKernel> {
  if (!path) throw new GrubError("filename expected");
  const file = yield* load(efi, path);
  const given = [path, ...args].join(" ");
  yield* measure(efi, PCR_COMMANDS, given, `kernel_cmdline: ${given}`);
  const commandLine = `BOOT_IMAGE=${given}`;
  const length = file.bytes.length;
  const status = yield* bootService(
    efi,
    "LoadImage",
    0,
    efi.imageHandle,
    0,
    file.address,
    length,
    efi.scratch,
  );
  if (status !== EFI_STATUS.SUCCESS) throw new GrubError(`cannot load image: ${efiStatusName(status)}`);
  const handle = yield* guest.load(efi.scratch, 8);
  const options = encodeUcs2(commandLine);
  const address = yield* allocatePages(efi, options.length, efi.scratch);
  yield* guest.storeBytes(address, options);
  const loaded = new Uint8Array(yield* guest.loadBytes(handle, EFI_LOADED_IMAGE.size));
  EFI_LOADED_IMAGE.write(viewOf(loaded), { LoadOptions: Number(address), LoadOptionsSize: options.length });
  yield* guest.storeBytes(handle, loaded);
  return { handle };
}

function* boot(efi: Efi, kernel: LoadedKernel | null): Guest<void> {
  if (!kernel) throw new GrubError("you need to load the kernel first");
  const status = yield* bootService(efi, "StartImage", kernel.handle, 0, 0);
  throw new GrubError(`start_image() returned ${efiStatusName(status)}`);
}

/** Runs the configuration up to its `boot`. */
function* run(efi: Efi): Guest<void> {
  const variables = new Map([["grub_platform", "efi"]]);
  // What QEMU was given with -append, for configurations that pass it on.
  const given = yield* readFile(efi, "cmdline");
  variables.set("fw_cmdline", given ? new TextDecoder().decode(given.bytes).replace(/\0.*$/s, "") : "");
  let kernel: LoadedKernel | null = null;
  for (const { words } of parseScript(
    yield* readConfig(efi.imageHandle),
    (name) => variables.get(name) ?? "",
  )) {
    const text = words.join(" ");
    yield* measure(efi, PCR_COMMANDS, text, `grub_cmd: ${text}`);
    const [name, ...args] = words;
    if (name === "linux")
      kernel = yield* linux(
        efi,
        args.flatMap((arg) => arg.split(" ").filter(Boolean)),
      );
    else if (name === "initrd") yield* load(efi, args[0] ?? "");
    else if (name === "echo") yield* print(efi, `${args.join(" ")}\n`);
    else if (name === "set") variables.set(...splitAssignment(args[0] ?? ""));
    else if (name === "boot") return yield* boot(efi, kernel);
    else throw new GrubError(`can't find command \`${name}'`);
  }
  yield* boot(efi, kernel);
}

function splitAssignment(text: string): [string, string] {
  const at = text.indexOf("=");
  if (at < 1) throw new GrubError(`invalid assignment \`${text}'`);
  return [text.slice(0, at), text.slice(at + 1)];
}

/** The entry point: RCX is the image handle, RDX the system table. Returns to the firmware when it cannot boot. */
export const grubMain: GuestProgram = function* (regs) {
  const efi = yield* initEfi(regs.rcx, regs.rdx);
  yield* print(efi, `${VERSION}\n`);
  try {
    yield* run(efi);
  } catch (error) {
    // Errors of the configuration are GRUB's to report; the firmware goes on.
    if (!(error instanceof GrubError)) throw error;
    yield* print(efi, `error: ${error.message}.\n`);
  }
  return EFI_STATUS.ABORTED;
};
