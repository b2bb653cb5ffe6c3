/** `swtdx eventlog show|replay`. */
import { inFile } from "../errors.js";
import { hex, readInput, toJson } from "../io/files.js";
import { colors, out, table } from "../io/terminal.js";

export interface EventLogOptions {
  json?: boolean;
}

async function read(file: string) {
  const attestation = await import("@swtdx/attestation");
  const bytes = readInput(file, "a CCEL event log");
  return { attestation, log: inFile(file, () => attestation.parseEventLog(bytes)) };
}

export async function eventLogShow(file: string, options: EventLogOptions): Promise<void> {
  const { attestation, log } = await read(file);
  const lines = attestation.describeEventLog(log);
  if (options.json) return out(toJson(lines, 2));
  const c = colors("stdout");
  out(
    table([
      ["#", "register", "type", "digest", "event"].map((head) => c.bold(head)),
      ...lines.map((line) => [
        `${line.index}`,
        line.register,
        line.type,
        `${line.digest.slice(0, 16)}…`,
        `${line.detail}${line.hashesEvent ? "" : c.dim("  (digest of something else)")}`,
      ]),
    ]),
  );
}

export async function eventLogReplay(file: string, options: EventLogOptions): Promise<void> {
  const { attestation, log } = await read(file);
  const rtmr = attestation.replayEventLog(log).map(hex);
  if (options.json) return out(toJson({ rtmr, events: log.events.length }, 2));
  rtmr.forEach((value, i) => out(`RTMR[${i}]  ${value}`));
}
