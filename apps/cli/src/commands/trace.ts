/** `swtdx trace show FILE`: a recorded trace, one event a line. */
import { createReadStream, statSync } from "node:fs";
import { createInterface } from "node:readline";
import { UsageError } from "../errors.js";
import { readInput } from "../io/files.js";
import { colors, out } from "../io/terminal.js";

export interface TraceShowOptions {
  type?: string;
  lp?: string;
  grep?: string;
}

type Event = { type: string } & Record<string, unknown>;

const TYPES = [
  "SEAMCALL",
  "TDCALL",
  "TDVMCALL",
  "VMENTRY",
  "VMEXIT",
  "VE",
  "EXCEPTION",
  "MC",
  "SEPT",
  "KEYID",
  "MEASURE",
  "IOCTL",
  "KVM_EXIT",
  "DEVICE",
  "STAGE",
] as const;

export async function traceShow(file: string, options: TraceShowOptions): Promise<void> {
  const types = options.type?.split(",").map((type) => type.toUpperCase());
  for (const type of types ?? [])
    if (!(TYPES as readonly string[]).includes(type))
      throw new UsageError(`--type: "${type}" is no event type; there are ${TYPES.join(", ")}`);
  const lp = options.lp === undefined ? undefined : Number(options.lp);
  if (lp !== undefined && !(Number.isInteger(lp) && lp >= 0))
    throw new UsageError(`--lp: "${options.lp}" is not the number of a logical processor or vCPU`);
  if (!statSync(file, { throwIfNoEntry: false })?.isFile()) readInput(file, "a trace, JSON lines");

  const paint = colors("stdout");
  const lines = createInterface({ input: createReadStream(file), crlfDelay: Infinity });
  let number = 0;
  for await (const line of lines) {
    number++;
    if (line.trim() === "") continue;
    const event = parse(line, file, number);
    if (types && !types.includes(event.type)) continue;
    if (lp !== undefined && event["lp"] !== lp && event["vcpu"] !== lp) continue;
    const text = show(event, paint);
    if (options.grep !== undefined && !line.includes(options.grep)) continue;
    out(text);
  }
}

function parse(line: string, file: string, number: number): Event {
  try {
    const event = JSON.parse(line) as Event | null;
    if (typeof event?.type === "string") return event;
  } catch {
    // Said below.
  }
  throw new UsageError(`${file}: line ${number}: expected a JSON object with "type"`);
}

type Paint = ReturnType<typeof colors>;

const values = (value: unknown): string =>
  typeof value === "object" && value !== null
    ? Object.entries(value as Record<string, unknown>)
        .map(([name, item]) => `${name}=${String(item)}`)
        .join(" ")
    : String(value);

function show(event: Event, c: Paint): string {
  const color: Record<string, (text: string) => string> = {
    SEAMCALL: c.cyan,
    TDCALL: c.blue,
    TDVMCALL: c.blue,
    VMEXIT: c.yellow,
    VE: c.magenta,
    EXCEPTION: c.magenta,
    MC: c.red,
    MEASURE: c.green,
    STAGE: c.bold,
  };
  const { type, ...rest } = event;
  const head = (color[type] ?? c.dim)(type.padEnd(9));
  const tail = Object.entries(rest)
    .filter(([, value]) => values(value) !== "")
    .map(([name, value]) =>
      name === "leaf" || name === "name" ? c.bold(String(value)) : `${c.dim(`${name}:`)} ${values(value)}`,
    )
    .join("  ");
  return `${head} ${tail}`;
}
