/** `swtdx boot`: runs a machine and tells what happened. */
import { closeSync, openSync, writeSync } from "node:fs";
import { calculateMrtd } from "../assembly/mrtd.js";
import { whereRows } from "../assembly/post-mortem.js";
import { runMachine, type RunResult } from "../assembly/run.js";
import { EXIT, UsageError } from "../errors.js";
import { hex, toJson, writeOutput } from "../io/files.js";
import { Progress } from "../io/progress.js";
import { colors, err, out, table } from "../io/terminal.js";
import type { BootFlags } from "../options.js";
import { openInstallation, pkiOf } from "../state/installation.js";
import { judgeQuote, type Judgement } from "../state/verification.js";

const EXIT_CODES = {
  poweroff: EXIT.POWEROFF,
  reset: EXIT.RESET,
  fatal: EXIT.FATAL,
  timeout: EXIT.TIMEOUT,
} as const;

export async function boot(flags: BootFlags, global: { state?: string }): Promise<number> {
  const started = performance.now();
  if (flags.gdb !== undefined) throw new UsageError("--gdb: this build has no gdb stub");
  const quiet = flags.quiet ?? false;
  const installation = await openInstallation(global.state);
  const progress = new Progress(quiet);
  const console = openConsole(flags, progress);
  let result: RunResult;
  try {
    result = await runMachine(flags, installation, {
      serial: (bytes) => console.write(bytes),
      stage: (text) => progress.stage(text),
      alive: (instructions) => progress.tick(instructions),
    });
  } catch (error) {
    progress.clear();
    throw error;
  } finally {
    console.close();
  }
  progress.stage("verify the quote");
  const judgement = result.quote && (await judge(result.quote, installation));
  progress.end();
  if (flags.quoteOut !== undefined) {
    if (!result.quote) throw new UsageError(`--quote-out: ${flags.quoteOut}: the guest got no quote`);
    writeOutput(flags.quoteOut, result.quote);
  }
  if (flags.eventlogOut !== undefined) {
    if (!result.eventLog)
      throw new UsageError(`--eventlog-out: ${flags.eventlogOut}: the guest sent no event log`);
    writeOutput(flags.eventlogOut, result.eventLog);
  }
  if (!quiet) await report(result, judgement);
  if (flags.json !== undefined) {
    const text = toJson(summary(result, judgement, flags, (performance.now() - started) / 1000), 2);
    if (flags.json === "-") out(text);
    else writeOutput(String(flags.json), `${text}\n`);
  }
  return EXIT_CODES[result.outcome.exit];
}

/** Both verifiers' verdict on a quote of this installation, with collateral of today. */
async function judge(
  quote: Uint8Array,
  installation: Awaited<ReturnType<typeof openInstallation>>,
): Promise<Judgement> {
  const { createCollateral } = await import("@swtdx/attestation");
  const pki = await pkiOf(installation);
  const now = new Date();
  return judgeQuote(quote, {
    root: pki.root.certificate.der,
    collateral: createCollateral(pki, { issueDate: new Date(now.getTime() - 86_400_000) }),
    now,
  });
}

/** Where the guest's console goes: stdout; stderr when the summary has stdout; or a file. */
function openConsole(flags: BootFlags, progress: Progress) {
  if (flags.serial !== "stdio") {
    let fd: number;
    try {
      fd = openSync(flags.serial, "w");
    } catch (error) {
      throw new UsageError(`--serial: ${flags.serial}: cannot be written (${(error as Error).message})`);
    }
    return { write: (bytes: Uint8Array) => void writeSync(fd, bytes), close: () => closeSync(fd) };
  }
  const stream = flags.json === "-" ? process.stderr : process.stdout;
  return {
    write(bytes: Uint8Array) {
      progress.clear();
      stream.write(bytes);
    },
    close: () => undefined,
  };
}

/** The table of measurements and what checked them, on stderr. */
async function report(result: RunResult, judgement: Judgement | null): Promise<void> {
  const c = colors("stderr");
  const mark = (good: boolean): string => (good ? c.green("ok") : c.red("DIFFERS"));
  const rows: string[][] = [];
  const { td } = result;
  if (td) {
    const expected = calculateMrtd(result.firmware.image, result.firmware.name);
    rows.push(["MRTD", td.mrtd, mark(td.mrtd === expected), "calculated from the firmware image"]);
    const replayed = await replay(result.eventLog);
    td.rtmr.forEach((value, i) => {
      const check = replayed ? [mark(value === replayed[i]), "event log replayed"] : ["", "no event log"];
      rows.push([`RTMR[${i}]`, value, ...check]);
    });
  }
  if (judgement) {
    const { own, dcapQvl } = judgement;
    const passed = own.checks.filter(({ ok }) => ok).length;
    rows.push([
      "quote",
      `version ${own.quote?.header.VERSION}, ${result.quote!.length} bytes`,
      dcapQvl.ok ? c.green("ok") : c.red("REFUSED"),
      dcapQvl.ok ? `dcap-qvl accepts it: ${dcapQvl.status}` : `dcap-qvl: ${dcapQvl.error}`,
    ]);
    rows.push([
      "",
      `TCB ${own.tcbStatus ?? "unknown"}`,
      own.ok ? c.green("ok") : c.red("REFUSED"),
      `${passed} of ${own.checks.length} checks passed`,
    ]);
  }
  if (rows.length > 0) err(`\n${table(rows)}`);
  if (result.where) err(`\n${table(whereRows(result.where))}`);
  const how = { poweroff: "powered off", reset: "reset", fatal: "died", timeout: "timed out" }[
    result.outcome.exit
  ];
  err(
    c.dim(
      `the guest ${how} (${result.outcome.reason}) after ${result.virtualSeconds.toFixed(3)} s of its time; seed ${result.seed}`,
    ),
  );
}

async function replay(eventLog: Uint8Array | null): Promise<string[] | null> {
  if (!eventLog) return null;
  const { EventLogError, parseEventLog, replayEventLog } = await import("@swtdx/attestation");
  try {
    return replayEventLog(parseEventLog(eventLog)).map(hex);
  } catch (error) {
    if (error instanceof EventLogError) return null;
    throw error;
  }
}

function summary(result: RunResult, judgement: Judgement | null, flags: BootFlags, wallSeconds: number) {
  const hex64 = (value: bigint): string => value.toString(16).padStart(16, "0");
  const { td } = result;
  return {
    exit: result.outcome.exit,
    reason: result.outcome.reason,
    where: result.where,
    td: td && { ...td, attributes: hex64(td.attributes), xfam: hex64(td.xfam) },
    guest: { instructions: result.instructions, exits: result.exits },
    seamcalls: result.seamcalls,
    tdcalls: result.tdcalls,
    virtualSeconds: result.virtualSeconds,
    wallSeconds,
    peakRssBytes: process.resourceUsage().maxRSS * 1024,
    seed: result.seed,
    quote: judgement && { path: flags.quoteOut ?? null, verified: judgement.ok },
  };
}
