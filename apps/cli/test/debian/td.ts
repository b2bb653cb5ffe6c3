/** What holds for any TD that boots a kernel of Debian with the initial RAM disk of `swtdx images`. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { authenticode, type Boot, type Event, image, json, says, sha384, swtdx, utf16 } from "./support.js";

export interface Case {
  readonly suite: string;
  readonly bios: string;
  readonly reportData: string;
}

export const arguments_ = ({ suite, bios, reportData }: Case): string[] => [
  ...["--bios", image(bios), "--kernel", image(`${suite}/vmlinuz`), "--initrd", image(`${suite}/initrd.gz`)],
  ...["--append", "console=ttyS0", "--report-data", reportData],
];

interface ShownQuote {
  title: string;
  fields: { name: string; value: string }[];
}

export function checkTrustDomain({ suite, bios, reportData }: Case, booted: () => Boot): void {
  test("Linux knows where it is, and powers off", () => {
    const { lines, summary } = booted();
    expect(says(lines, "tdx: Guest detected")).toBe(true);
    expect(says(lines, "Memory Encryption Features active: Intel TDX")).toBe(true);
    expect(says(lines, "init: in a Trust Domain")).toBe(true);
    expect(says(lines, "reboot: Power down")).toBe(true);
    // Linux 6.12 asks for the microcode's revision before it handles #VE other than of port I/O: so it is on hardware.
    const asked = "unchecked MSR access error: WRMSR to 0x8b";
    const complaint = /FAILED|WARNING:|BUG:|Oops|unchecked MSR/;
    expect(lines.filter((line) => complaint.test(line) && !line.includes(asked))).toEqual([]);
    expect(summary.exit).toBe("poweroff");
  });

  test("its quote is accepted, and says what is known otherwise", async () => {
    const { summary, quote, lines } = booted();
    const verdict = await swtdx(["quote", "verify", quote]);
    expect(verdict.code, verdict.stdout + verdict.stderr).toBe(0);
    // The TD's own report comes before the quoting enclave's.
    const fields = new Map(
      (await json<ShownQuote[]>("quote", "show", quote))
        .flatMap((part) => part.fields.map(({ name, value }) => [name, value] as const))
        .reverse(),
    );
    const padded = reportData.padEnd(128, "0");
    expect(lines).toContain(`init: report data ${padded}`);
    expect(fields.get("REPORTDATA")).toBe(padded);
    expect(fields.get("MRTD")).toBe(summary.td!.mrtd);
    for (const i of [0, 1, 2, 3]) expect(fields.get(`RTMR${i}`)).toBe(summary.td!.rtmr[i]);
  });

  test("MRTD is what the image gives without running it", async () => {
    const { summary } = booted();
    const measured = await json<{ mrtd: string }>("measure", "--static", "--bios", image(bios));
    expect(measured.mrtd).toBe(summary.td!.mrtd);
  });

  test("the event log gives the RTMRs, and is of these files", async () => {
    const { summary, eventLog, lines } = booted();
    const { rtmr } = await json<{ rtmr: string[] }>("eventlog", "replay", eventLog);
    expect(rtmr).toEqual(summary.td!.rtmr);
    const events = await json<Event[]>("eventlog", "show", eventLog);
    const digests = (register: string): string[] =>
      events.filter((event) => event.register === register).map(({ digest }) => digest);
    expect(digests("RTMR[1]")).toContain(authenticode(image(`${suite}/vmlinuz`)));
    const commandLine = lines.find((line) => line.includes("Command line: "))!.split("Command line: ")[1];
    expect(digests("RTMR[2]")).toEqual([
      sha384(utf16(commandLine)),
      sha384(readFileSync(image(`${suite}/initrd.gz`))),
    ]);
  });
}
