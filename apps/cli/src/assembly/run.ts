/** A machine from the command line's options, run to its end. `boot` and `measure` differ in what they say of it. */
import { randomBytes } from "node:crypto";
import { Trace } from "@swtdx/abi";
import { Qgs, QuotingEnclave } from "@swtdx/attestation";
import { SeededRandom } from "@swtdx/crypto";
import { type BlockBackend, Machine, MemoryDrive, type Outcome, parseTdAttributes } from "@swtdx/qemu";
import { UsageError } from "../errors.js";
import { hex, hexOption, readInput } from "../io/files.js";
import { qmpAddress, serveQmp } from "../io/qmp-server.js";
import { TraceFile } from "../io/trace-file.js";
import type { BootFlags, DriveFlag } from "../options.js";
import { type Installation, pkiOf, randomOf } from "../state/installation.js";
import { EventLogReceiver } from "./event-log.js";
import { guestImages } from "./guest.js";
import { Observer } from "./observer.js";
import { powerOn } from "./platform.js";
import { where, type Where } from "./post-mortem.js";
import { openProcess } from "./vmm.js";

/** What a run left behind. */
export interface RunResult {
  readonly outcome: Outcome;
  readonly seed: string;
  readonly firmware: { readonly name: string; readonly image: Uint8Array };
  /** Null for an ordinary VM. */
  readonly td: {
    readonly mrtd: string;
    readonly rtmr: readonly string[];
    readonly attributes: bigint;
    readonly xfam: bigint;
    readonly mrconfigid: string;
    readonly mrowner: string;
    readonly mrownerconfig: string;
  } | null;
  /** Of a guest that died or was stopped. */
  readonly where: Where | null;
  readonly quote: Uint8Array | null;
  readonly eventLog: Uint8Array | null;
  readonly exits: Readonly<Record<string, number>>;
  readonly seamcalls: Readonly<Record<string, number>>;
  readonly tdcalls: Readonly<Record<string, number>>;
  readonly instructions: number;
  readonly virtualSeconds: number;
}

export interface RunListeners {
  /** What the guest writes to its serial port. */
  serial(bytes: Uint8Array): void;
  stage(text: string): void;
  /** @param instructions that guests have retired */
  alive(instructions: number): void;
}

/** Sign of life while the guest runs. */
const ALIVE_MS = 100;
const ZERO_48 = "00".repeat(48);

/** Builds the machine and runs it. @throws UsageError and the layers' input errors */
export async function runMachine(
  flags: BootFlags,
  installation: Installation,
  listeners: RunListeners,
): Promise<RunResult> {
  const images = readImages(flags);
  const append = commandLine(flags);
  if (flags.qmp !== undefined) qmpAddress(flags.qmp);
  const drives = (flags.drive ?? []).map(openDrive);
  const tdAttributes =
    flags.tdAttributes === undefined ? {} : { tdAttributes: parseTdAttributes(flags.tdAttributes) };
  const seed = flags.seed ?? randomBytes(16).toString("hex");
  const random = new SeededRandom(hexOption("--seed", seed));
  const trace = new Trace();
  const traceFile = flags.trace === undefined ? null : new TraceFile(flags.trace);
  let machine: Machine | undefined;
  let qmp: { close(): void } | null = null;
  let instructions = (): number => 0;
  const pulse = setInterval(() => listeners.alive(instructions()), ALIVE_MS);
  try {
    const observer = new Observer(
      trace,
      (text) => listeners.stage(text),
      traceFile && ((line) => traceFile.write(line)),
    );
    listeners.stage("power on a host with TDX");
    const platform = powerOn({ random, trace, guestMemory: flags.memory, programs: images.programs });
    instructions = () => platform.instructions();
    let quote: Uint8Array | null = null;
    const qgs = await quoteService(
      installation,
      (mac) => platform.verifyReport(mac),
      (bytes) => (quote = bytes),
    );
    const eventLog = new EventLogReceiver();
    listeners.stage(flags.plain ? "build a VM" : "build a Trust Domain");
    machine = new Machine({
      syscalls: openProcess(platform, {
        tdx_huge_page: flags.hugePages,
        tdx_unmap_user: flags.privateMemory === "unmapped",
      }),
      bios: images.firmware,
      biosName: images.firmwareName,
      memoryBytes: flags.memory,
      privateMemory: flags.privateMemory,
      smp: flags.smp,
      trace,
      serial(bytes) {
        eventLog.receiveSerial(bytes);
        listeners.serial(bytes);
      },
      debugcon: (bytes) => eventLog.receive(bytes),
      drives,
      random: (() => {
        const source = random.fork("virtio-rng");
        return (bytes: number) => source.bytes(bytes);
      })(),
      ...(flags.plain !== undefined && { plain: flags.plain }),
      ...(flags.cpu !== undefined && { cpu: flags.cpu }),
      ...(images.kernel && { kernel: images.kernel }),
      ...(images.initrd && { initrd: images.initrd }),
      ...(images.shim && { shim: images.shim }),
      ...(append !== undefined && { append }),
      ...(flags.mrconfigid && { mrconfigid: flags.mrconfigid }),
      ...(flags.mrowner && { mrowner: flags.mrowner }),
      ...(flags.mrownerconfig && { mrownerconfig: flags.mrownerconfig }),
      ...tdAttributes,
      quoteGenerationService: qgs,
    });
    listeners.stage(flags.plain ? "run the VM" : "run the Trust Domain");
    qmp = flags.qmp === undefined ? null : await serveQmp(machine, flags.qmp);
    const outcome = await machine.run(flags.timeout === undefined ? {} : { timeoutSeconds: flags.timeout });
    const { td } = machine;
    return {
      outcome,
      seed,
      firmware: { name: images.firmwareName, image: images.firmware },
      td: td && {
        mrtd: observer.mrtd ?? td.mrtd ?? "",
        rtmr: observer.rtmrTexts,
        attributes: td.attributes,
        xfam: td.xfam,
        mrconfigid: flags.mrconfigid ? hex(flags.mrconfigid) : ZERO_48,
        mrowner: flags.mrowner ? hex(flags.mrowner) : ZERO_48,
        mrownerconfig: flags.mrownerconfig ? hex(flags.mrownerconfig) : ZERO_48,
      },
      where: outcome.exit === "fatal" || outcome.exit === "timeout" ? where(platform.postMortem) : null,
      quote,
      eventLog: eventLog.eventLog,
      exits: machine.exits,
      seamcalls: observer.seamcalls,
      tdcalls: observer.tdcalls,
      instructions: platform.instructions(),
      virtualSeconds: machine.now() / 1e9,
    };
  } finally {
    clearInterval(pulse);
    qmp?.close();
    machine?.close();
    traceFile?.close();
  }
}

/** The quote generation service of this platform: its quoting enclave, certified under the installation's root. */
async function quoteService(
  installation: Installation,
  verifyReport: (mac: Uint8Array) => boolean,
  quoted: (quote: Uint8Array) => void,
): Promise<(message: Uint8Array) => Uint8Array> {
  const pki = await pkiOf(installation);
  const enclave = new QuotingEnclave({
    pki,
    random: (await randomOf(installation)).fork("qe"),
    verifyReport,
  });
  const qgs = new Qgs({
    pki,
    enclave: {
      qeId: enclave.qeId,
      isvSvn: enclave.isvSvn,
      quote(report) {
        const result = enclave.quote(report);
        if (result.ok) quoted(result.quote);
        return result;
      },
    },
  });
  return (message) => qgs.handle(message);
}

interface Images {
  firmware: Uint8Array;
  firmwareName: string;
  kernel?: Uint8Array;
  initrd?: Uint8Array;
  shim?: Uint8Array;
  programs: ReturnType<typeof guestImages>["programs"];
}

/** Opens what the options name; without firmware and kernel the TypeScript ones are taken. @throws UsageError */
export function readImages(flags: BootFlags): Images {
  const built = guestImages(flags.guest);
  if (flags.bios !== undefined && flags.guest !== undefined && flags.kernel !== undefined)
    throw new UsageError("--guest: --bios and --kernel leave nothing for it to run");
  const kernel = flags.kernel !== undefined ? readInput(flags.kernel, "a kernel") : null;
  const useGuest = kernel === null && (flags.bios === undefined || flags.guest !== undefined);
  return {
    firmware: flags.bios !== undefined ? readInput(flags.bios, "a TDVF image") : built.firmware,
    firmwareName: flags.bios ?? "swtdx firmware",
    ...(kernel ? { kernel } : useGuest ? { kernel: built.kernel } : {}),
    ...(flags.initrd !== undefined && { initrd: readInput(flags.initrd, "an initial RAM disk") }),
    ...(flags.shim !== undefined && { shim: readInput(flags.shim, "a shim") }),
    programs: built.programs,
  };
}

/** The kernel's command line, with the data that the guest's quote is to vouch for. @throws UsageError */
function commandLine(flags: BootFlags): string | undefined {
  const { reportData, append } = flags;
  if (reportData === undefined) return append;
  const bytes = reportData.startsWith("@")
    ? readInput(reportData.slice(1), "report data, up to 64 bytes")
    : hexOption("--report-data", reportData);
  if (bytes.length > 64) throw new UsageError(`--report-data: ${bytes.length} bytes, expected up to 64`);
  return [append, `report_data=${hex(bytes)}`].filter((part) => part !== undefined).join(" ");
}

function openDrive(drive: DriveFlag): BlockBackend {
  const image = readInput(drive.file, "a disk image");
  if (drive.format === "qcow2")
    throw new UsageError(`${drive.file}: format=qcow2 cannot be read, expected raw`);
  return new MemoryDrive(image, drive.readonly);
}
