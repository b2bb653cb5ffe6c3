/** `swtdx doctor`: what this machine offers. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { availableParallelism, freemem, totalmem } from "node:os";
import { EXIT } from "../errors.js";
import { out, colors, table } from "../io/terminal.js";
import { toJson } from "../io/files.js";
import { defaultStateDirectory } from "../state/installation.js";

interface Finding {
  readonly name: string;
  /** Without it swtdx does not run. */
  readonly needed: boolean;
  readonly ok: boolean;
  readonly detail: string;
}

const section = (id: number, body: readonly number[]): number[] => [id, body.length, ...body];

/** Features by a function body that needs each: no locals, the instructions, end. */
const WASM: readonly [name: string, why: string, body: readonly number[]][] = [
  // memory.fill
  ["wasm bulk memory", "pages are copied with it", [0, 0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 11, 0, 0x0b]],
  // i8x16.splat, i8x16.popcnt, drop
  ["wasm SIMD", "SSE and AVX instructions", [0, 0x41, 0, 0xfd, 15, 0xfd, 98, 0x1a, 0x0b]],
  // return_call 0
  ["wasm tail calls", "chains of translated blocks", [0, 0x12, 0, 0x0b]],
];
function wasm([name, why, body]: (typeof WASM)[number]): Finding {
  const module = Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 0, 0]),
    ...section(3, [1, 0]),
    ...section(5, [1, 0, 1]),
    ...section(10, [1, body.length, ...body]),
  ]);
  const ok = WebAssembly.validate(module);
  return { name, needed: false, ok, detail: `${ok ? "yes" : "no"}: ${why}` };
}

function program(name: string, why: string, args: readonly string[] = ["--version"]): Finding {
  const run = spawnSync(name, args, { encoding: "utf8", timeout: 20_000 });
  const ok = !run.error && run.status === 0;
  const version = (run.stdout ?? "").split("\n")[0]?.trim();
  return { name, needed: false, ok, detail: ok ? (version ?? "yes") : `not found: ${why}` };
}

const GIB = 2 ** 30;

/** Looks at everything; starts a few programs to ask for their versions. */
export function findings(): Finding[] {
  const major = Number(process.versions.node.split(".")[0]);
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 65536 });
  const state = defaultStateDirectory();
  return [
    { name: "Node", needed: true, ok: major >= 20, detail: `${process.version}, expected 20 or newer` },
    {
      name: "wasm memory",
      needed: true,
      ok: memory.buffer.byteLength === 65536,
      detail: "up to 4 GiB can be asked for",
    },
    ...WASM.map(wasm),
    {
      name: "memory",
      needed: false,
      ok: totalmem() >= 2 * GIB,
      detail: `${(totalmem() / GIB).toFixed(1)} GiB, ${(freemem() / GIB).toFixed(1)} GiB free`,
    },
    { name: "processors", needed: false, ok: true, detail: `${availableParallelism()}` },
    program("apt-get", "swtdx images needs it"),
    program("dpkg-deb", "swtdx images needs it"),
    {
      name: "Debian keyring",
      needed: false,
      ok: existsSync("/usr/share/keyrings/debian-archive-keyring.gpg"),
      detail: "package debian-archive-keyring: swtdx images checks signatures with it",
    },
    program("gdb", "it debugs a TD with boot --gdb"),
    program("chromium", "the lab's tests run in it"),
    {
      name: "private root",
      needed: false,
      ok: true,
      detail: existsSync(state) ? state : `${state} (made on first use)`,
    },
  ];
}

export function doctor(options: { json?: boolean }): number {
  const all = findings();
  if (options.json) out(toJson(all, 2));
  else {
    const c = colors("stdout");
    const mark = (one: Finding): string =>
      one.ok ? c.green("ok") : one.needed ? c.red("MISSING") : c.yellow("no");
    out(table(all.map((one) => [one.name, mark(one), one.detail])));
  }
  return all.every((one) => one.ok || !one.needed) ? EXIT.POWEROFF : EXIT.BAD_INPUT;
}
