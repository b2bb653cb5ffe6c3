import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { directory, spawnSwtdx, swtdx } from "./support/cli.js";

const junk = join(directory, "junk.bin");
writeFileSync(junk, "this is no quote, no log and no trace");

describe("bad usage and bad input: one line, exit 2, no stack trace", () => {
  const cases: readonly [args: string[], line: string | RegExp][] = [
    [[], "swtdx: expected a command: boot, measure, quote, eventlog, images, host, trace, doctor"],
    [["fly"], /^swtdx: unknown command "fly"; there are boot, measure/],
    [["quote"], "swtdx: quote: expected a command: show, verify"],
    [["--nonsense"], "swtdx: unknown option '--nonsense'"],
    [["boot", "--memroy", "1G"], /^swtdx: unknown option '--memroy' \(Did you mean --memory\?\)$/],
    [["boot", "--memory", "5X"], /--memory.*'5X' is invalid. expected a size such as 512M or 2G$/],
    [["boot", "--smp", "0"], /--smp.*'0' is invalid. expected a number from 1 to 255$/],
    [["boot", "--drive", "a,format=vmdk"], /"format=vmdk" is not format=raw, format=qcow2 or readonly$/],
    [["boot", "--mrowner", "00"], /--mrowner.*expected 48 bytes in hexadecimal$/],
    [["boot", "--engine", "magic"], /--engine.*Allowed choices are interpreter, jit\.$/],
    [["quote", "show"], "swtdx: missing required argument 'file'"],
    [["quote", "show", "/no/such/file"], "swtdx: /no/such/file: no such file (expected a TD quote)"],
    [["quote", "show", directory], /: is a directory, expected a file \(expected a TD quote\)$/],
    [["quote", "show", junk], /junk\.bin: QUOTE_HEADER at byte 0: has 48 bytes, but 37 are left$/],
    [["quote", "verify", junk], /junk\.bin: QUOTE_HEADER at byte 0/],
    [["eventlog", "show", junk], /junk\.bin: TCG_PCR_EVENT\.EventType at byte 4: is 0x/],
    [["eventlog", "replay", junk], /junk\.bin: TCG_PCR_EVENT\.EventType at byte 4: is 0x/],
    [["trace", "show", junk], /junk\.bin: line 1: expected a JSON object with "type"$/],
    [
      ["trace", "show", junk, "--type", "SEAMCALLS"],
      /^swtdx: --type: "SEAMCALLS" is no event type; there are/,
    ],
    [
      ["images", join(directory, "images"), "--suite", "woody"],
      'swtdx: --suite: "woody" is not one of bookworm, trixie, sid',
    ],
    [["images", join(directory, "images"), "--mirror", "a b"], /^swtdx: --mirror: "a b" is no http/],
  ];
  test.each(cases)("%j", async (args, line) => {
    const { code, stdout, stderr } = await swtdx(...args);
    expect(stdout).toBe("");
    expect(stderr.trimEnd().split("\n")).toEqual([expect.any(String)]);
    if (typeof line === "string") expect(stderr.trimEnd()).toBe(line);
    else expect(stderr.trimEnd()).toMatch(line);
    expect(code).toBe(2);
  });
});

test("as a process", async () => {
  expect(await spawnSwtdx("quote", "show", junk)).toEqual({
    code: 2,
    stdout: "",
    stderr: `swtdx: ${junk}: QUOTE_HEADER at byte 0: has 48 bytes, but 37 are left\n`,
  });
});

test("--help and --version", async () => {
  const help = await swtdx("--help");
  expect(help).toMatchObject({ code: 0, stderr: "" });
  expect(help.stdout).toContain("Usage: swtdx");
  expect(await swtdx("--version")).toMatchObject({ code: 0, stderr: "" });
});

test("doctor finds what is needed", async () => {
  const { code, stdout } = await spawnSwtdx("doctor", "--json");
  expect(code).toBe(0);
  const findings = JSON.parse(stdout) as { name: string; needed: boolean; ok: boolean }[];
  expect(findings.filter(({ needed, ok }) => needed && !ok)).toEqual([]);
  expect(findings.map(({ name }) => name)).toContain("apt-get");
});

test("trace show filters", async () => {
  const file = join(directory, "trace.jsonl");
  writeFileSync(
    file,
    [
      { type: "STAGE", layer: "tdx-module", what: "initialised" },
      { type: "SEAMCALL", lp: 0, leaf: "TDH.SYS.INIT", input: { rcx: "0x0" }, status: "0x0", output: {} },
      { type: "SEAMCALL", lp: 1, leaf: "TDH.SYS.LP.INIT", input: {}, status: "0x0", output: {} },
    ]
      .map((event) => JSON.stringify(event))
      .join("\n"),
  );
  const { stdout, code } = await swtdx("trace", "show", file, "--type", "seamcall", "--lp", "1");
  expect(code).toBe(0);
  expect(stdout).toBe("SEAMCALL  lp: 1  TDH.SYS.LP.INIT  status: 0x0\n");
});
