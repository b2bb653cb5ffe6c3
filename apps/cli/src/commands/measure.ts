/** `swtdx measure`: MRTD, RTMRs and event log of a TD, by running it; with --static MRTD alone, without. */
import { EXIT, UsageError } from "../errors.js";
import { toJson, writeOutput } from "../io/files.js";
import { Progress } from "../io/progress.js";
import { colors, err, out, table } from "../io/terminal.js";
import type { BootFlags } from "../options.js";

export async function measure(
  flags: BootFlags & { static?: boolean },
  global: { state?: string },
): Promise<number> {
  if (flags.plain) throw new UsageError("--plain: an ordinary VM has no measurements");
  return flags.static ? measureFirmware(flags) : measureRun(flags, global);
}

/** Builds the TD through KVM and the module, and destroys it. */
async function measureFirmware(flags: BootFlags): Promise<number> {
  const [{ readImages }, { powerOn }, { openProcess }, { measureStatic }, { Trace }, { SeededRandom }] =
    await Promise.all([
      import("../assembly/run.js"),
      import("../assembly/platform.js"),
      import("../assembly/vmm.js"),
      import("@swtdx/qemu"),
      import("@swtdx/abi"),
      import("@swtdx/crypto"),
    ]);
  const images = readImages(flags);
  const progress = new Progress(flags.quiet ?? false);
  progress.stage(`build a Trust Domain of ${images.firmwareName}`);
  const trace = new Trace();
  const random = new SeededRandom(new Uint8Array(Buffer.from(flags.seed ?? "00", "hex")));
  const platform = powerOn({
    random,
    trace,
    guestMemory: flags.memory,
    programs: images.programs,
  });
  const { mrtd, pages } = measureStatic({
    syscalls: openProcess(platform),
    bios: images.firmware,
    biosName: images.firmwareName,
    memoryBytes: flags.memory,
    smp: flags.smp,
    trace,
  });
  progress.end();
  out(flags.json ? toJson({ mrtd, pages }, 2) : `MRTD  ${mrtd}`);
  return EXIT.POWEROFF;
}

async function measureRun(flags: BootFlags, global: { state?: string }): Promise<number> {
  const [{ runMachine }, { openInstallation }, attestation] = await Promise.all([
    import("../assembly/run.js"),
    import("../state/installation.js"),
    import("@swtdx/attestation"),
  ]);
  const progress = new Progress(flags.quiet ?? false);
  const result = await runMachine(flags, await openInstallation(global.state), {
    serial: () => progress.tick(),
    stage: (text) => progress.stage(text),
    alive: () => progress.tick(),
  });
  progress.end();
  const { mrtd, rtmr } = result.td!;
  const events = result.eventLog
    ? attestation.describeEventLog(attestation.parseEventLog(result.eventLog))
    : [];
  if (flags.eventlogOut !== undefined) {
    if (!result.eventLog)
      throw new UsageError(`--eventlog-out: ${flags.eventlogOut}: the guest sent no event log`);
    writeOutput(flags.eventlogOut, result.eventLog);
  }
  if (flags.json) out(toJson({ mrtd, rtmr, events }, 2));
  else {
    out(table([["MRTD", mrtd], ...rtmr.map((value, i) => [`RTMR[${i}]`, value])]));
    const rows = events.map((event) => [
      `${event.index}`,
      event.register,
      event.type,
      event.digest,
      event.detail,
    ]);
    if (rows.length > 0) out(`\n${table(rows)}`);
  }
  if (result.outcome.exit === "poweroff") return EXIT.POWEROFF;
  if (!flags.quiet)
    err(colors("stderr").yellow(`the guest ended with ${result.outcome.exit}: ${result.outcome.reason}`));
  return { reset: EXIT.RESET, fatal: EXIT.FATAL, timeout: EXIT.TIMEOUT }[result.outcome.exit];
}
