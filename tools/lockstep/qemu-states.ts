/**
 * QEMU's emulator as the other machine: a process whose log (-d cpu, one instruction a block) is read state by state.
 * A kernel is let run by QEMU's own firmware to its entry, where registers and memory are taken over.
 */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, openSync, readFileSync, readSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Registers at an instruction. Names as QEMU's log has them, without E or R: "AX", "R8", "IP", "FL", "CR0"… */
export interface CpuState {
  readonly wide: boolean;
  readonly values: ReadonlyMap<string, bigint>;
}

export interface QemuOptions {
  readonly bios?: string | undefined;
  readonly kernel?: string | undefined;
  readonly append?: string | undefined;
  readonly initrd?: string | undefined;
  readonly cpu: string;
  readonly memoryMib: number;
}

const CHUNK = 1 << 20;
const SEGMENTS = ["ES", "CS", "SS", "DS", "FS", "GS", "LDT", "TR"];

export class QemuStates {
  readonly #folder = mkdtempSync(join(tmpdir(), "lockstep-"));
  readonly #log: number;
  readonly #process: ChildProcess;
  #text = "";
  #at = 0;
  readonly #chunk = Buffer.alloc(CHUNK);

  constructor(private readonly options: QemuOptions) {
    const fifo = join(this.#folder, "log");
    execFileSync("mkfifo", [fifo]);
    // Open for both, so that neither side waits for the other.
    this.#log = openSync(fifo, "r+");
    const { bios, kernel, append, initrd, cpu, memoryMib } = options;
    const args = ["-accel", "tcg", "-machine", "q35", "-cpu", cpu, "-m", String(memoryMib)];
    args.push("-nodefaults", "-display", "none", "-no-reboot", "-net", "none");
    args.push("-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-device", "pc-testdev", "-serial", "null");
    if (bios !== undefined) args.push("-bios", bios);
    if (kernel !== undefined) args.push("-kernel", kernel);
    if (append) args.push("-append", append);
    if (initrd !== undefined) args.push("-initrd", initrd);
    args.push("-D", fifo);
    if (kernel === undefined) args.push("-singlestep", "-d", "cpu,nochain");
    else args.push("-S", "-gdb", `unix:${this.#path("gdb")},server=on,wait=off`);
    args.push("-qmp", `unix:${this.#path("qmp")},server=on,wait=off`);
    this.#process = spawn("qemu-system-x86_64", args, { stdio: ["ignore", "ignore", "inherit"] });
  }
  #path(name: string): string {
    return join(this.#folder, name);
  }

  /** Lets QEMU run to `address`, and logs from there. @returns the guest's memory then */
  async runTo(address: number): Promise<Uint8Array> {
    const gdb = await open(this.#path("gdb"));
    const qmp = await open(this.#path("qmp"));
    await packet(gdb, `Z1,${address.toString(16)},1`);
    const stopped = await packet(gdb, "c");
    if (!stopped.startsWith("T05")) throw new Error(`QEMU did not come to the kernel: ${stopped}`);
    await packet(gdb, `z1,${address.toString(16)},1`);
    await command(qmp, { execute: "qmp_capabilities" });
    const file = this.#path("memory");
    const size = this.options.memoryMib * 2 ** 20;
    await command(qmp, { execute: "pmemsave", arguments: { val: 0, size, filename: file } });
    for (const line of ["singlestep on", "log cpu,nochain"])
      await command(qmp, { execute: "human-monitor-command", arguments: { "command-line": line } });
    const memory = readFileSync(file);
    gdb.write(frame("D"));
    gdb.end();
    qmp.end();
    return memory;
  }

  /** The next state. Waits for QEMU. */
  next(): CpuState {
    for (;;) {
      const end = this.#text.indexOf("\nEFER=", this.#at);
      const stop = end < 0 ? -1 : this.#text.indexOf("\n", end + 1);
      if (stop >= 0) {
        const text = this.#text.slice(this.#at, stop);
        this.#at = stop + 1;
        return this.#parse(text);
      }
      const length = readSync(this.#log, this.#chunk);
      if (length === 0) throw new Error("QEMU has ended");
      this.#text = this.#text.slice(this.#at) + this.#chunk.toString("latin1", 0, length);
      this.#at = 0;
    }
  }
  #parse(text: string): CpuState {
    const values = new Map<string, bigint>();
    const wide = text.includes("RIP=");
    for (const [, name, value] of text.matchAll(/\b([A-Z][A-Z0-9]*)=([0-9a-f]+)/g)) {
      const short = /^[ER](?:[A-D]X|[SD]I|[SB]P|IP)$/.test(name)
        ? name.slice(1)
        : name === "EFL" || name === "RFL"
          ? "FL"
          : name;
      values.set(short, BigInt(`0x${value}`));
    }
    for (const name of SEGMENTS) {
      const found = new RegExp(`^${name.padEnd(3)}=([0-9a-f]{4}) ([0-9a-f]+) ([0-9a-f]+)`, "m").exec(text);
      if (!found) continue;
      values.set(name, BigInt(`0x${found[1]}`));
      values.set(`${name}.base`, BigInt(`0x${found[2]}`));
    }
    return { wide, values };
  }

  close(): void {
    this.#process.kill("SIGKILL");
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Connects to a socket that is about to be there. */
async function open(path: string): Promise<Socket> {
  for (let tries = 0; ; tries++) {
    try {
      return await new Promise<Socket>((resolve, reject) => {
        const socket = connect(path, () => resolve(socket)).once("error", reject);
      });
    } catch (error) {
      if (tries > 100) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

const frame = (text: string): string => {
  const sum = [...text].reduce((total, letter) => (total + letter.charCodeAt(0)) & 0xff, 0);
  return `$${text}#${sum.toString(16).padStart(2, "0")}`;
};
/** A packet of gdb's remote protocol and its answer. */
function packet(socket: Socket, text: string): Promise<string> {
  return new Promise((resolve) => {
    let answer = "";
    const receive = (data: Buffer) => {
      answer += data.toString("latin1");
      const found = /\$([^#]*)#..$/.exec(answer);
      if (!found) return;
      socket.off("data", receive);
      socket.write("+");
      resolve(found[1]);
    };
    socket.on("data", receive);
    socket.write(frame(text));
  });
}
/** A QMP command and its answer. */
function command(socket: Socket, request: object): Promise<void> {
  return new Promise((resolve, reject) => {
    let answer = "";
    const receive = (data: Buffer) => {
      answer += data.toString("utf8");
      for (const line of answer.split("\n")) {
        if (line.startsWith('{"error"')) reject(new Error(line));
        if (!line.startsWith('{"return"') || !line.trimEnd().endsWith("}")) continue;
        socket.off("data", receive);
        resolve();
      }
    };
    socket.on("data", receive);
    socket.write(JSON.stringify(request));
  });
}
