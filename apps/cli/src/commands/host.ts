/** `swtdx host`: powers a host on, loads the TDX module, prints its sysfs. */
import { randomBytes } from "node:crypto";
import { Trace } from "@swtdx/abi";
import { SeededRandom } from "@swtdx/crypto";
import { powerOn } from "../assembly/platform.js";
import { toJson } from "../io/files.js";
import { Progress } from "../io/progress.js";
import { colors, out, table } from "../io/terminal.js";

export interface HostOptions {
  seed?: string;
  json?: boolean;
  quiet?: boolean;
}

const GUEST_MEMORY = 512 * 2 ** 20;

export function showHost(options: HostOptions): void {
  const progress = new Progress(options.quiet ?? false);
  const trace = new Trace();
  trace.subscribe(({ layer, what }) => progress.stage(`${layer}: ${what}`), ["STAGE"]);
  const seed = options.seed ?? randomBytes(16).toString("hex");
  progress.stage("power on a host with TDX");
  const { host } = powerOn({
    random: new SeededRandom(new Uint8Array(Buffer.from(seed, "hex"))),
    trace,
    guestMemory: GUEST_MEMORY,
    programs: new Map(),
  });
  progress.end();
  const files = host.sysfs.list().map((path) => [path, (host.sysfs.read(path) ?? "").trimEnd()] as const);
  const log = host.log.lines.map(({ text }) => text);
  if (options.json) return out(toJson({ sysfs: Object.fromEntries(files), log }, 2));
  const c = colors("stdout");
  out(table(files.map(([path, value]) => [path, c.bold(value)])));
  out("");
  for (const line of log) out(c.dim(line));
}
