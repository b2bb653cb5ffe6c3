/** Options of `boot` and `measure`: the machine's, named as QEMU names them, and the run's. */
import { type Command, InvalidArgumentError, Option } from "commander";

/** What commander gives: values checked by themselves, files not opened yet. */
export interface BootFlags {
  bios?: string;
  kernel?: string;
  initrd?: string;
  append?: string;
  shim?: string;
  drive?: DriveFlag[];
  memory: number;
  smp: number;
  cpu?: string;
  plain?: boolean;
  hugePages: boolean;
  privateMemory: "guest_memfd" | "unmapped";
  tdAttributes?: string;
  mrconfigid?: Uint8Array;
  mrowner?: Uint8Array;
  mrownerconfig?: Uint8Array;
  seed?: string;
  engine?: "interpreter" | "jit";
  guest?: string;

  serial: string;
  reportData?: string;
  quoteOut?: string;
  eventlogOut?: string;
  trace?: string;
  gdb?: string;
  qmp?: string;
  timeout?: number;
  json?: string | boolean;
  quiet?: boolean;
}

export interface DriveFlag {
  file: string;
  format: "raw" | "qcow2";
  readonly: boolean;
}

const UNITS: Readonly<Record<string, number>> = {
  "": 2 ** 20,
  k: 2 ** 10,
  m: 2 ** 20,
  g: 2 ** 30,
  t: 2 ** 40,
};

/** QEMU's sizes: 512, 512M, 2G; without a unit MiB. Bytes. */
export function sizeArgument(text: string): number {
  const match = /^(\d+)([kmgt]?)i?b?$/i.exec(text);
  const bytes = match ? Number(match[1]) * UNITS[match[2].toLowerCase()] : NaN;
  if (!Number.isSafeInteger(bytes) || bytes === 0)
    throw new InvalidArgumentError("expected a size such as 512M or 2G");
  return bytes;
}

const integerArgument =
  (least: number, most: number) =>
  (text: string): number => {
    const value = /^\d+$/.test(text) ? Number(text) : NaN;
    if (!(value >= least && value <= most))
      throw new InvalidArgumentError(`expected a number from ${least} to ${most}`);
    return value;
  };

function secondsArgument(text: string): number {
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : NaN;
  if (!(value > 0 && value <= 1e6)) throw new InvalidArgumentError("expected seconds");
  return value;
}

function identityArgument(text: string): Uint8Array {
  if (!/^[0-9a-f]{96}$/i.test(text)) throw new InvalidArgumentError("expected 48 bytes in hexadecimal");
  return new Uint8Array(Buffer.from(text, "hex"));
}

/** `FILE[,format=raw|qcow2][,readonly]`; a comma in the name is written twice, as in QEMU. */
export function driveArgument(text: string, before: DriveFlag[] = []): DriveFlag[] {
  const [name, ...rest] = text.split(/(?<!,),(?!,)/);
  const drive: DriveFlag = { file: name.replaceAll(",,", ","), format: "raw", readonly: false };
  if (drive.file === "") throw new InvalidArgumentError("expected FILE[,format=raw|qcow2][,readonly]");
  for (const part of rest) {
    if (part === "readonly" || part === "readonly=on") drive.readonly = true;
    else if (part === "format=raw" || part === "format=qcow2")
      drive.format = part === "format=raw" ? "raw" : "qcow2";
    else throw new InvalidArgumentError(`"${part}" is not format=raw, format=qcow2 or readonly`);
  }
  return [...before, drive];
}

function seedArgument(text: string): string {
  if (!/^([0-9a-f]{2})+$/i.test(text)) throw new InvalidArgumentError("expected bytes in hexadecimal");
  return text.toLowerCase();
}

/** Adds the options. `measure` has the machine's and those of the run that it can use. */
export function addBootOptions(command: Command, kind: "run" | "measure"): Command {
  command
    .option("--bios <file>", "the firmware: a TDVF image")
    .option("--kernel <file>", "a kernel for the firmware to start")
    .option("--initrd <file>", "the kernel's initial RAM disk")
    .option("--append <string>", "the kernel's command line")
    .option("--shim <file>", "a shim for the firmware to start the kernel with")
    .addOption(
      new Option("--drive <file[,opts]>", "a disk: FILE[,format=raw|qcow2][,readonly]; repeatable").argParser(
        driveArgument,
      ),
    )
    .addOption(new Option("--memory <size>", "RAM").argParser(sizeArgument).default(512 * 2 ** 20, "512M"))
    .addOption(new Option("--smp <n>", "vCPUs").argParser(integerArgument(1, 255)).default(1))
    .option("--cpu <model>", "host[,±feature…]")
    .option("--plain", "an ordinary VM instead of a TD")
    .option("--no-huge-pages", "KVM maps a TD's memory in pages of 4 KiB only (tdx_huge_page=N), as upstream")
    .addOption(
      new Option(
        "--private-memory <kind>",
        "a TD's: a file, or memory that is PROT_NONE while it is the guest's",
      )
        .choices(["guest_memfd", "unmapped"])
        .default("guest_memfd"),
    )
    .option("--td-attributes <names>", "the TD's ATTRIBUTES: sept-ve-disable, debug, …")
    .addOption(new Option("--mrconfigid <hex>", "the TD's MRCONFIGID, 48 bytes").argParser(identityArgument))
    .addOption(new Option("--mrowner <hex>", "the TD's MROWNER, 48 bytes").argParser(identityArgument))
    .addOption(
      new Option("--mrownerconfig <hex>", "the TD's MROWNERCONFIG, 48 bytes").argParser(identityArgument),
    )
    .addOption(
      new Option("--seed <hex>", "seed of all randomness (default: by chance)").argParser(seedArgument),
    )
    .addOption(new Option("--engine <name>", "how machine code is executed").choices(["interpreter", "jit"]))
    .option("--guest <name>", "a TypeScript guest program (the default when no firmware is given)")
    .addOption(
      new Option("--timeout <seconds>", "ends the run after this wall time").argParser(secondsArgument),
    )
    .option("--trace <file>", "record a trace, JSON lines")
    .option("--quiet", "no progress");
  if (kind === "measure")
    return command.option("--eventlog-out <file>", "write the event log").option("--json", "print JSON");
  return command
    .option("--serial <stdio|file>", "where the guest's console goes", "stdio")
    .option("--report-data <hex|@file>", "what the guest's quote vouches for, up to 64 bytes")
    .option("--quote-out <file>", "write the guest's quote")
    .option("--eventlog-out <file>", "write the guest's event log")
    .option("--gdb <[host:]port>", "serve gdb")
    .option("--qmp <unix:path|tcp:host:port>", "serve QMP")
    .option("--json <file|->", "write a summary; - is stdout, and moves the console to stderr");
}
