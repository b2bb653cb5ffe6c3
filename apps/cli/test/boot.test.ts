import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { openInstallation } from "../src/state/installation.js";
import { directory, spawnSwtdx, swtdx } from "./support/cli.js";

const file = (name: string): string => join(directory, name);

interface Summary {
  exit: string;
  td: { mrtd: string; rtmr: string[]; attributes: string };
  guest: { instructions: number };
  seamcalls: Record<string, number>;
  tdcalls: Record<string, number>;
  seed: string;
  quote: { path: string; verified: boolean };
}

describe("boot of the TypeScript guest", () => {
  test("from power-on to a verified quote", async () => {
    // Made first, so that the two do not race for it.
    await openInstallation(join(directory, "swtdx"));
    const machine = ["boot", "--seed", "0123", "--report-data", "c0ffee"];
    const [{ code, stdout, stderr }, again] = await Promise.all([
      spawnSwtdx(
        ...[...machine, "--json", file("summary"), "--trace", file("trace")],
        ...["--quote-out", file("quote"), "--eventlog-out", file("log")],
      ),
      spawnSwtdx(...machine, "--json", "-", "--quiet"),
    ]);
    expect(stderr).toMatch(/dcap-qvl accepts it: UpToDate/);
    expect(stderr).toMatch(/18 of 18 checks passed/);
    expect(stderr).not.toMatch(/DIFFERS|REFUSED/);
    expect(stdout).toContain("init: hello from a Trust Domain");
    expect(code).toBe(0);

    const summary = JSON.parse(readFileSync(file("summary"), "utf8")) as Summary;
    expect(summary).toMatchObject({
      exit: "poweroff",
      seed: "0123",
      quote: { path: file("quote"), verified: true },
    });
    expect(summary.td.attributes).toBe("0000000010000000");
    expect(summary.guest.instructions).toBeGreaterThan(1000);
    expect(summary.seamcalls["TDH.VP.ENTER"]).toBeGreaterThan(0);
    expect(summary.tdcalls["TDG.MR.REPORT"]).toBeGreaterThan(0);

    const measured = await swtdx("measure", "--static", "--json");
    expect(JSON.parse(measured.stdout)).toMatchObject({ mrtd: summary.td.mrtd });
    const replayed = await swtdx("eventlog", "replay", file("log"), "--json");
    const { rtmr } = JSON.parse(replayed.stdout) as { rtmr: string[] };
    expect(rtmr).toEqual(summary.td.rtmr);
    const shown = await swtdx("quote", "show", file("quote"));
    expect(shown.stdout).toContain(`c0ffee${"00".repeat(61)}`);
    expect(shown.stdout).toContain(summary.td.rtmr[3]);
    const traced = await swtdx("trace", "show", file("trace"), "--type", "MEASURE");
    expect(traced.stdout).toContain(summary.td.mrtd);

    // Equal seeds: equal runs. What the processes took differs.
    expect(again.code).toBe(0);
    const same = ({ exit, td, guest, seamcalls, tdcalls }: Summary) => ({
      exit,
      td,
      guest,
      seamcalls,
      tdcalls,
    });
    expect(same(JSON.parse(again.stdout) as Summary)).toEqual(same(summary));
    expect(again.stderr).toBe(stdout);
    // Bounds what hangs: two runs from the sources, on a loaded machine.
  }, 240_000);
});

test("host shows what Linux shows", async () => {
  const { code, stdout } = await swtdx("host", "--json");
  expect(code).toBe(0);
  const { sysfs, log } = JSON.parse(stdout) as { sysfs: Record<string, string>; log: string[] };
  expect(sysfs["/sys/module/kvm_intel/parameters/tdx"]).toBe("Y");
  expect(log).toContain("virt/tdx: module initialized");
});

test("bad machines are refused in one line", async () => {
  writeFileSync(file("short.fd"), new Uint8Array(1000));
  writeFileSync(file("empty.fd"), new Uint8Array(65536));
  const cases: [string[], RegExp][] = [
    [
      ["--bios", file("short.fd")],
      /short\.fd: file size: 1000 bytes; a firmware image is a non-zero multiple/,
    ],
    [["--bios", file("empty.fd")], /empty\.fd: /],
    [["--guest", "nobody"], /^swtdx: --guest: "nobody" is not one of default$/m],
    [["--td-attributes", "sparkling"], /td-attributes: no "sparkling"; there are debug/],
    [["--report-data", "zz"], /--report-data: "zz" is not hexadecimal bytes/],
    [["--drive", file("none.img")], /none\.img: no such file \(expected a disk image\)/],
    [["--qmp", "pigeon"], /--qmp: "pigeon" is not unix:PATH or tcp:HOST:PORT/],
    [["--memory", "100G"], /--memory: a guest has at most 59 GiB/],
    [["--cpu", "host,+warp"], /cpu/],
  ];
  for (const [args, message] of cases) {
    const { code, stderr } = await swtdx("boot", ...args);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(code).toBe(2);
  }
});
