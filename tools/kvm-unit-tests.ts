/**
 * Runs kvm-unit-tests' x86 programs as ordinary VMs: an outside judge of processor and KVM.
 *
 *     node --conditions=@swtdx/source --import tsx tools/kvm-unit-tests.ts [-v] FOLDER [TEST…]
 *
 * FOLDER is a built kvm-unit-tests (./configure && make); what is run, and how, its x86/unittests.cfg says. Each test
 * runs in a process of its own. Without names, all are run that this machine can be expected to have.
 */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { plainVm } from "./plain-vm.js";

const MIB = 2 ** 20;
const MEMORY_DEFAULT = 128;
const TIMEOUT_DEFAULT = 90;
/** Groups that test what other machines or other processors have. */
const NOT_HERE = ["svm", "vmx", "hyperv", "nodefault", "pmu"];

interface UnitTest {
  readonly name: string;
  readonly file: string;
  readonly smp: number;
  readonly args: string;
  readonly cpu: string;
  readonly memoryMib: number;
  readonly timeout: number;
  readonly arch: string;
  readonly groups: readonly string[];
}

function parseConfig(text: string): UnitTest[] {
  const tests: UnitTest[] = [];
  for (const section of text.split(/^\[/m).slice(1)) {
    const name = section.slice(0, section.indexOf("]"));
    if (/^#\[/m.test(section.split("\n")[0])) continue;
    const values = new Map(
      section
        .split("\n")
        .slice(1)
        .flatMap((line) => {
          const match = /^\s*(\w+)\s*=\s*(.*)$/.exec(line);
          return match ? [[match[1], match[2].trim()] as const] : [];
        }),
    );
    const qemu = values.get("qemu_params") ?? values.get("extra_params") ?? "";
    tests.push({
      name,
      file: values.get("file") ?? "",
      smp: Number(values.get("smp") ?? 1),
      args: (values.get("test_args") ?? "")
        .replace(/^['"]|['"]$/g, "")
        .replace("`date +%s`", String(Date.UTC(2026, 0, 1) / 1000)),
      cpu: /-cpu (\S+)/.exec(qemu)?.[1] ?? "",
      memoryMib: Number(/-m (\d+)/.exec(qemu)?.[1] ?? MEMORY_DEFAULT),
      timeout: Number(values.get("timeout") ?? TIMEOUT_DEFAULT),
      arch: values.get("arch") ?? "",
      groups: (values.get("groups") ?? "").split(/\s+/).filter((group) => group !== ""),
    });
  }
  return tests;
}

/** What our host model is told of a test's -cpu: features that are switched off. */
const cpuOption = (cpu: string): string =>
  ["host", ...cpu.split(",").filter((part) => ["-x2apic", "-pcid", "-invpcid"].includes(part))].join(",");

async function runOne(folder: string, test: UnitTest): Promise<void> {
  const environment = [`NR_CPUS=${test.smp}`, `MEMSIZE=${test.memoryMib}`, "TEST_DEVICE=1", "BOOTLOADER="];
  const { machine } = plainVm({
    memoryBytes: test.memoryMib * MIB,
    smp: test.smp,
    kernel: readFileSync(join(folder, "x86", test.file)),
    append: test.args,
    initrd: new TextEncoder().encode(`${environment.join("\n")}\n`),
    cpu: cpuOption(test.cpu),
    testDevices: true,
    serial: (bytes) => process.stdout.write(bytes),
  });
  const outcome = await machine.run({ timeoutSeconds: test.timeout });
  console.log(`\n@outcome ${outcome.exit}: ${outcome.reason}`);
}

interface Verdict {
  readonly verdict: "PASS" | "FAIL" | "SKIP" | "TIMEOUT" | "DIED";
  readonly why: string;
}

/** As scripts/runtime.bash judges: by the exit status, and by SKIP lines alone. */
function judge(output: string): Verdict {
  const outcome = /^@outcome (.*)$/m.exec(output)?.[1] ?? "no outcome";
  const summary = /^SUMMARY: (.*)$/m.exec(output)?.[1] ?? "";
  const status = /debug exit (\d+)/.exec(outcome)?.[1];
  if (outcome.startsWith("timeout")) return { verdict: "TIMEOUT", why: summary };
  if (status === undefined) return { verdict: "DIED", why: outcome };
  if (status === "1") return { verdict: "PASS", why: summary };
  if (status === "77") return { verdict: "SKIP", why: summary };
  return { verdict: "FAIL", why: summary || `exit status ${status}` };
}

function spawnOne(folder: string, name: string): Promise<string> {
  const args = [
    "--conditions=@swtdx/source",
    "--import",
    "tsx",
    fileURLToPath(import.meta.url),
    "--one",
    folder,
    name,
  ];
  return new Promise((resolve) => {
    execFile(process.execPath, args, { maxBuffer: 256 * MIB }, (error, stdout, stderr) =>
      resolve(error ? `${stdout}\n${stderr}` : stdout),
    );
  });
}

async function main(args: readonly string[]): Promise<void> {
  const verbose = args.includes("-v");
  const one = args.includes("--one");
  const [folder, ...names] = args.filter((arg) => !arg.startsWith("-"));
  if (folder === undefined) throw new Error("kvm-unit-tests.ts [-v] FOLDER [TEST…]");
  const tests = parseConfig(readFileSync(join(folder, "x86/unittests.cfg"), "utf8"));
  if (one)
    return runOne(
      folder,
      tests.find(({ name }) => name === names[0])!,
    );
  const chosen = tests.filter(({ name, arch, groups }) =>
    names.length > 0
      ? names.includes(name)
      : arch !== "i386" && !groups.some((group) => NOT_HERE.includes(group)),
  );
  const counts = new Map<string, number>();
  for (const { name } of chosen) {
    const output = await spawnOne(folder, name);
    const { verdict, why } = judge(output);
    counts.set(verdict, (counts.get(verdict) ?? 0) + 1);
    if (verbose) console.log(output);
    else
      for (const line of output.split("\n"))
        if (/^FAIL|unhandled|Error/i.test(line)) console.log(`    ${line}`);
    console.log(`${verdict.padEnd(7)} ${name}  ${why}`);
  }
  console.log([...counts].map(([verdict, count]) => `${count} ${verdict}`).join(", "));
}

await main(process.argv.slice(2));
