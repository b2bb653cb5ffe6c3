/**
 * QEMU Machine Protocol: one session, independent of what carries it (a socket, a pipe, a page in the browser): text
 * in, lines of JSON out. QEMU, docs/interop/qmp-spec.rst and qapi/*.json; the commands are those that a machine like
 * this one has an answer to.
 */
import type { Machine, MachineEvent } from "../machine.js";

/** The version of QEMU whose interface this is. */
const VERSION = { qemu: { major: 10, minor: 2, micro: 0 }, package: "swtdx" } as const;
/** Longest command in characters: whoever sends more without a newline is cut off. */
const INPUT_MAX = 65536;

type Arguments = Readonly<Record<string, unknown>>;

/** A command that fails; `class` as QMP names it. */
class QmpError extends Error {
  constructor(
    readonly errorClass: "GenericError" | "CommandNotFound",
    description: string,
  ) {
    super(description);
  }
}

const COMMANDS: Readonly<Record<string, (machine: Machine, args: Arguments) => unknown>> = {
  "query-version": () => VERSION,
  "query-name": () => ({}),
  "query-kvm": () => ({ enabled: true, present: true }),
  "query-commands": () => commandNames().map((name) => ({ name })),
  "query-status": (machine) => ({ running: machine.state === "running", status: machine.state }),
  "query-cpus-fast": (machine) =>
    Array.from({ length: machine.vcpus }, (_, i) => ({
      "cpu-index": i,
      "qom-path": `/machine/unattached/device[${i}]`,
      "thread-id": i,
      target: "x86_64",
      props: { "socket-id": 0, "core-id": i, "thread-id": 0 },
    })),
  "query-memory-size-summary": (machine) => ({ "base-memory": machine.memoryBytes }),
  "query-pci": (machine) => [
    {
      bus: 0,
      devices: machine.board.pci.functions().map(([at, device]) => ({
        bus: 0,
        slot: at >> 3,
        function: at & 7,
        class_info: { class: device.readConfig(0x0a, 2), desc: device.name },
        id: { vendor: device.readConfig(0, 2), device: device.readConfig(2, 2) },
        qdev_id: "",
        regions: [],
      })),
    },
  ],
  stop: (machine) => {
    machine.pause();
    return {};
  },
  cont: (machine) => {
    machine.resume();
    return {};
  },
  system_powerdown: (machine) => {
    machine.powerButton();
    return {};
  },
  system_reset: (machine) => {
    machine.reset("QMP system_reset");
    return {};
  },
  quit: (machine) => {
    machine.stop("QMP quit");
    return {};
  },
};
const commandNames = (): string[] => ["qmp_capabilities", ...Object.keys(COMMANDS)].sort();

export class QmpSession {
  #input = "";
  #negotiated = false;
  readonly #unsubscribe: () => void;

  /** Greets at once. `send` gets whole lines. */
  constructor(
    private readonly machine: Machine,
    private readonly send: (line: string) => void,
  ) {
    this.#unsubscribe = machine.onEvent((event) => this.#event(event));
    this.#put({ QMP: { version: VERSION, capabilities: [] } });
  }

  /** Takes what came in: parts of lines, or several. */
  receive(text: string): void {
    this.#input += text;
    for (let end = this.#input.indexOf("\n"); end >= 0; end = this.#input.indexOf("\n")) {
      const line = this.#input.slice(0, end).trim();
      this.#input = this.#input.slice(end + 1);
      if (line !== "") this.#line(line);
    }
    if (this.#input.length > INPUT_MAX) {
      this.#input = "";
      this.#put(failure("GenericError", `a command has at most ${INPUT_MAX} characters`));
    }
  }

  close(): void {
    this.#unsubscribe();
  }

  #put(message: object): void {
    this.send(`${JSON.stringify(message)}\r\n`);
  }

  #event({ name, data }: MachineEvent): void {
    if (!this.#negotiated) return;
    const ns = this.machine.now();
    const timestamp = { seconds: Math.floor(ns / 1e9), microseconds: Math.floor((ns % 1e9) / 1e3) };
    this.#put({ timestamp, event: name, ...(data ? { data } : {}) });
  }

  #line(line: string): void {
    let request: unknown;
    try {
      request = JSON.parse(line);
    } catch {
      this.#put(failure("GenericError", "JSON parse error"));
      return;
    }
    if (typeof request !== "object" || request === null || Array.isArray(request)) {
      this.#put(failure("GenericError", "QMP input must be a JSON object"));
      return;
    }
    const { execute, arguments: args, id } = request as Record<string, unknown>;
    const tag = id === undefined ? {} : { id };
    try {
      this.#put({ return: this.#execute(execute, args), ...tag });
    } catch (error) {
      if (!(error instanceof QmpError)) throw error;
      this.#put({ ...failure(error.errorClass, error.message), ...tag });
    }
  }

  #execute(name: unknown, args: unknown): unknown {
    if (typeof name !== "string") throw new QmpError("GenericError", "QMP input lacks member 'execute'");
    if (args !== undefined && (typeof args !== "object" || args === null))
      throw new QmpError("GenericError", "QMP input member 'arguments' must be an object");
    if (name === "qmp_capabilities") {
      if (this.#negotiated)
        throw new QmpError(
          "CommandNotFound",
          "Capabilities negotiation is already complete, command ignored",
        );
      this.#negotiated = true;
      return {};
    }
    if (!this.#negotiated)
      throw new QmpError("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'");
    const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
    if (!command) throw new QmpError("CommandNotFound", `The command ${name} has not been found`);
    return command(this.machine, (args ?? {}) as Arguments);
  }
}

const failure = (errorClass: string, desc: string) => ({ error: { class: errorClass, desc } });
