/**
 * Runs an ordinary VM here and on QEMU's emulator, instruction by instruction, and names the first one after which
 * the registers differ.
 *
 *     node --conditions=@swtdx/source --import tsx tools/lockstep/lockstep.ts OPTION…
 *       --kernel FILE [--append TEXT] [--initrd FILE]   a Multiboot kernel, from its entry
 *       --bios FILE                                     firmware, from the reset vector
 *       --memory MIB (128)  --cpu MODEL (Nehalem)  --limit INSTRUCTIONS (1000000)
 *
 * What may differ is taken over from QEMU: results of CPUID, RDTSC, RDRAND, RDMSR and devices, and flags that an
 * instruction leaves undefined. A side that takes an interrupt alone is let run until it has returned.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Trace } from "@swtdx/abi";
import { type GuestContext, REG, RegisterFile, SEG } from "@swtdx/cpu";
import { openKvm } from "@swtdx/kvm";
import type { Mapping, Syscalls } from "@swtdx/qemu";
import { plainVm } from "../plain-vm.js";
import { type CpuState, QemuStates } from "./qemu-states.js";

const GPRS = "AX CX DX BX SP BP SI DI R8 R9 R10 R11 R12 R13 R14 R15".split(" ");
const SEGMENTS = ["ES", "CS", "SS", "DS", "FS", "GS"];
const CONTROLS = [
  ["CR0", REG.CR0],
  ["CR2", REG.CR2],
  ["CR3", REG.CR3],
  ["CR4", REG.CR4],
] as const;
/** VM exits whose results are the machine's. */
const FOLLOWED = new Set(["CPUID", "IO_INSTRUCTION", "MSR_READ", "EPT_MISCONFIG", "KVM_EXIT_MMIO"]);
const HISTORY = 12;
/** CR4.VMXE stands in the real register of a guest; CR0.NE and ET, and the caches' bits. */
const IGNORED: Readonly<Record<string, bigint>> = { CR0: 0x6000_0030n, CR4: 0x2000n, FL: 0x1_0000n };
const LOW32 = 0xffff_ffffn;

const { values: options } = parseArgs({
  options: {
    kernel: { type: "string" },
    append: { type: "string" },
    initrd: { type: "string" },
    bios: { type: "string" },
    memory: { type: "string", default: "128" },
    cpu: { type: "string", default: "Nehalem" },
    limit: { type: "string", default: "1000000" },
  },
});
if ((options.kernel === undefined) === (options.bios === undefined))
  throw new Error("lockstep: one of --kernel and --bios");
const memoryMib = Number(options.memory);
const limit = Number(options.limit);

/** Flags that an instruction leaves undefined: OF 0x800, SF 0x80, ZF 0x40, AF 0x10, PF 4, CF 1. SDM vol. 2. */
function undefinedFlags(code: Uint8Array): number {
  let at = 0;
  while (at < 14 && [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3].includes(code[at]))
    at++;
  if ((code[at] & 0xf0) === 0x40 && wide) at++;
  const opcode = code[at] === 0x0f ? 0x0f00 | code[at + 1] : code[at];
  const reg = (code[at + (opcode > 0xff ? 2 : 1)] >> 3) & 7;
  if (opcode < 0x40 && [1, 4, 6].includes(opcode >> 3) && (opcode & 7) < 6) return 0x10;
  if (opcode >= 0x80 && opcode <= 0x83 && [1, 4, 6].includes(reg)) return 0x10;
  if ([0x84, 0x85, 0xa8, 0xa9].includes(opcode)) return 0x10;
  if ([0xc0, 0xc1, 0xd0, 0xd1, 0xd2, 0xd3, 0x0fa4, 0x0fa5, 0x0fac, 0x0fad].includes(opcode)) return 0x8d5;
  if (opcode === 0xf6 || opcode === 0xf7) return reg < 2 ? 0x10 : reg >= 6 ? 0x8d5 : reg >= 4 ? 0xd4 : 0;
  if ([0x69, 0x6b, 0x0faf].includes(opcode)) return 0xd4;
  if ([0x0fbc, 0x0fbd].includes(opcode)) return 0x895;
  if ([0x0fa3, 0x0fab, 0x0fb3, 0x0fbb, 0x0fba].includes(opcode)) return 0x894;
  if ([0x27, 0x2f, 0x37, 0x3f, 0xd4, 0xd5].includes(opcode)) return 0x8d5;
  return 0;
}
/** RDTSC, RDTSCP, RDPMC, RDRAND, RDSEED, RDPID. */
function isFollowed(code: Uint8Array): boolean {
  const at = code.indexOf(0x0f);
  if (at < 0 || at > 3) return false;
  const [second, third] = [code[at + 1], code[at + 2]];
  return (
    second === 0x31 ||
    second === 0x33 ||
    (second === 1 && third === 0xf9) ||
    (second === 0xc7 && third >= 0xf0)
  );
}

interface Step {
  readonly rip: bigint;
  readonly code: Uint8Array;
}
let wide = false;
let compared = 0;
const history: Step[] = [];
let exits = new Set<string>();
const followed = new Map<string, number>();

class Finished extends Error {}

function disassemble({ rip, code }: Step): string {
  const folder = mkdtempSync(join(tmpdir(), "lockstep-"));
  try {
    const file = join(folder, "code");
    writeFileSync(file, code);
    const mode = wide ? "i386:x86-64" : codeBits === 16 ? "i8086" : "i386";
    const text = execFileSync("objdump", ["-D", "-b", "binary", "-m", mode, file], { encoding: "utf8" });
    return (/^\s*0:\s*(.*)$/m.exec(text)?.[1] ?? "").replace(/\s+/g, " ");
  } catch {
    return [...code].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
  } finally {
    rmSync(folder, { recursive: true, force: true });
    void rip;
  }
}
let codeBits = 16;

function ours({ regs }: GuestContext): Map<string, bigint> {
  const out = new Map<string, bigint>();
  GPRS.forEach((name, i) => out.set(name, regs.gpr(i)));
  out.set("IP", regs.get(REG.RIP));
  out.set("FL", BigInt(regs.get32(REG.RFLAGS)));
  for (const [name, at] of CONTROLS) out.set(name, regs.get(at));
  SEGMENTS.forEach((name, i) => {
    const at = RegisterFile.segment(i);
    out.set(name, BigInt(regs.get32(at + SEG.SELECTOR) & 0xffff));
    out.set(`${name}.base`, regs.get(at + SEG.BASE));
  });
  return out;
}

/** The bytes at RIP, as far as they are in its page. */
function codeAt(guest: GuestContext): Uint8Array {
  const { regs } = guest;
  const base = wide ? 0n : regs.get(RegisterFile.segment(1) + SEG.BASE);
  const linear = wide ? regs.get(REG.RIP) : (base + regs.get(REG.RIP)) & LOW32;
  const at = guest.translate(Number(linear & LOW32), Number(linear >> 32n), 16);
  if (at < 0) return new Uint8Array(0);
  const length = Math.min(15, 4096 - Number(linear & 0xfffn));
  return new Uint8Array(guest.buffer as ArrayBuffer, at, length).slice();
}

function differences(mine: Map<string, bigint>, theirs: CpuState): string[] {
  const out: string[] = [];
  for (const [name, value] of mine) {
    const other = theirs.values.get(name);
    if (other === undefined || name === "IP") continue;
    // In 64-bit mode the bases of ES, CS, SS and DS do not count.
    if (wide && /^[ECSD]S\.base$/.test(name)) continue;
    const ignored = IGNORED[name] ?? 0n;
    const mask = wide ? ~0n : LOW32;
    if (((value ^ other) & ~ignored & mask) !== 0n) out.push(name);
  }
  return out;
}

const qemu = new QemuStates({ ...options, memoryMib });

/** QEMU's next state at another RIP than the last one's: REP and loops onto themselves are one step. */
let pending: CpuState | null = null;
let theirRip = -1n;
function nextTheirs(): CpuState {
  if (pending) return pending;
  for (;;) {
    const state = qemu.next();
    const rip = state.values.get("IP")!;
    if (rip === theirRip) continue;
    theirRip = rip;
    return (pending = state);
  }
}

let myRip = -1n;
/** Set while this side runs an interrupt handler alone. */
let until: { rip: bigint; sp: bigint } | null = null;

function report(guest: GuestContext, mine: Map<string, bigint>, theirs: CpuState, names: string[]): never {
  console.log(`after ${compared} instructions they differ; the last ones, and what came of the last:`);
  for (const step of history.slice(-HISTORY))
    console.log(`  ${step.rip.toString(16).padStart(8, "0")}  ${disassemble(step)}`);
  for (const name of names)
    console.log(
      `  ${name.padEnd(8)} here ${mine.get(name)?.toString(16)}  QEMU ${theirs.values.get(name)?.toString(16)}`,
    );
  console.log(`  exits here: ${[...exits].join(" ") || "none"}; CPL ${guest.cpl}`);
  throw new Finished();
}

/** Whether one side is at the beginning of an interrupt handler, and the other not. */
function entered(one: ReadonlyMap<string, bigint>, other: ReadonlyMap<string, bigint>): boolean {
  const open = (state: ReadonlyMap<string, bigint>) => (state.get("FL")! & 0x200n) !== 0n;
  const distance = other.get("SP")! - one.get("SP")!;
  return !open(one) && open(other) && distance >= 6n && distance < 64n;
}

function observe(guest: GuestContext): void {
  const { regs } = guest;
  const rip = regs.get(REG.RIP);
  if (rip === myRip) return;
  myRip = rip;
  wide = guest.mode64;
  codeBits = (regs.get32(RegisterFile.segment(1) + SEG.AR) & 0x4000) !== 0 ? 32 : 16;
  if (until) {
    if (rip !== until.rip || regs.gpr(4) !== until.sp) return;
    until = null;
  }
  const mine = ours(guest);
  let theirs = nextTheirs();
  if (theirs.values.get("IP") !== rip) {
    const sp = theirs.values.get("SP")!;
    if (entered(theirs.values, mine)) {
      // QEMU's handler runs to its end.
      for (let n = 0; ; n++) {
        pending = null;
        theirs = nextTheirs();
        if (theirs.values.get("IP") === rip && theirs.values.get("SP") === mine.get("SP")) break;
        if (n > 1_000_000) report(guest, mine, theirs, ["IP"]);
      }
    } else if (entered(mine, theirs.values)) {
      until = { rip: theirs.values.get("IP")!, sp };
      exits = new Set();
      return;
    } else report(guest, mine, theirs, ["IP", ...differences(mine, theirs)]);
  }
  pending = null;
  const names = differences(mine, theirs);
  const last = history.at(-1);
  if (names.length > 0 && last) {
    const flags = Number((mine.get("FL")! ^ theirs.values.get("FL")!) & 0xffffn);
    const follow = [...exits].find((name) => FOLLOWED.has(name)) ?? (isFollowed(last.code) ? "RDTSC…" : null);
    const onlyFlags = names.length === 1 && names[0] === "FL" && (flags & ~undefinedFlags(last.code)) === 0;
    // QEMU does not push RF with a fault's frame.
    const onlyRf = names.every((name) => (mine.get(name)! ^ theirs.values.get(name)!) === 0x1_0000n);
    if (follow === null && !onlyFlags && !onlyRf) report(guest, mine, theirs, names);
    if (follow !== null) followed.set(follow, (followed.get(follow) ?? 0) + 1);
    for (const name of names) {
      const value = theirs.values.get(name)!;
      const gpr = GPRS.indexOf(name);
      if (gpr >= 0) regs.setGpr(gpr, wide ? value : (regs.gpr(gpr) & ~LOW32) | value);
      else if (name === "FL") regs.set32(REG.RFLAGS, Number(value));
      else report(guest, mine, theirs, names);
    }
  }
  exits = new Set();
  history.push({ rip, code: codeAt(guest) });
  if (history.length > 4 * HISTORY) history.splice(0, 2 * HISTORY);
  if (++compared >= limit) throw new Finished();
}

async function main(): Promise<void> {
  const trace = new Trace();
  trace.subscribe((event) => exits.add(event.name), ["VMEXIT"]);
  trace.subscribe((event) => exits.add(event.reason), ["KVM_EXIT"]);
  const mappings: Mapping[] = [];
  const { machine } = plainVm(
    {
      memoryBytes: memoryMib * 2 ** 20,
      testDevices: true,
      ...(options.bios !== undefined && { bios: readFileSync(options.bios) }),
      ...(options.kernel !== undefined && { kernel: readFileSync(options.kernel) }),
      serial: (bytes) => process.stdout.write(bytes),
    },
    trace,
    { observe },
    (host): Syscalls => {
      const kvm = openKvm(host);
      const mmap = kvm.mmap.bind(kvm);
      return Object.assign(kvm, {
        mmap: (length: number) => {
          const mapping = mmap(length);
          mappings.push(mapping);
          return mapping;
        },
      });
    },
  );
  try {
    if (options.kernel !== undefined) {
      const entry = readFileSync(options.kernel).readUInt32LE(24);
      const memory = await qemu.runTo(entry);
      mappings[0].write(0, memory.subarray(0, mappings[0].length));
      // At its entry the kernel may find anything in its registers: they are QEMU's.
      history.push({ rip: 0n, code: new Uint8Array(15) });
      exits.add("CPUID");
    }
    const outcome = await machine.run();
    console.log(`the run ended here: ${outcome.exit}, ${outcome.reason}`);
  } catch (error) {
    if (!(error instanceof Finished)) throw error;
  } finally {
    qemu.close();
  }
  const taken = [...followed].map(([name, count]) => `${name} ${count}`).join(", ");
  console.log(`${compared} instructions compared; taken over from QEMU: ${taken || "nothing"}`);
  process.exit(0);
}
await main();
