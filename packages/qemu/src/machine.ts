/**
 * A machine: q35 with firmware, as a Trust Domain. Built by the constructor the way QEMU builds one, run by `run`.
 */
import { KVM_X86_DEFAULT_VM, KVM_X86_TDX_VM, Trace } from "@swtdx/abi";
import { Kvm, type KvmRam, type KvmVcpu, type PrivateMemoryKind } from "./accel/kvm.js";
import type { Syscalls } from "./accel/syscalls.js";
import { type Outcome, VcpuRunner } from "./accel/vcpu-loop.js";
import { OptionError } from "./errors.js";
import { addLinuxBoot } from "./firmware/linux-loader.js";
import { isMultiboot, loadMultiboot, multibootState } from "./firmware/multiboot.js";
import { checkImageSize } from "./firmware/tdvf.js";
import { fillFwCfg } from "./hw/i386/fw-cfg-files.js";
import { isaGsi, Q35Board, VIRTIO_MAX } from "./hw/i386/q35.js";
import { IOAPIC_PINS } from "./hw/intc/ioapic.js";
import { attachTestDevices } from "./hw/misc/pc-testdev.js";
import { type BlockBackend, VirtioBlk } from "./hw/virtio/virtio-blk.js";
import { type ConsolePort, VirtioConsole } from "./hw/virtio/virtio-console.js";
import { VirtioNet } from "./hw/virtio/virtio-net.js";
import type { VirtioBackend } from "./hw/virtio/virtio-pci.js";
import { VirtioRng } from "./hw/virtio/virtio-rng.js";
import type { VirtioVsock } from "./hw/virtio/virtio-vsock.js";
import { GuestMemory } from "./memory/guest-memory.js";
import { layoutMemory, type MemoryMap } from "./memory/memory-map.js";
import type { NetBackend } from "./net/net-backend.js";
import { buildCpuModel, parseCpuOption } from "./target/cpu-model.js";
import { TrustDomain, type TrustDomainOptions } from "./target/trust-domain.js";

export interface MachineOptions extends TrustDomainOptions {
  readonly syscalls: Syscalls;
  /** The firmware image, and its name in errors. */
  readonly bios: Uint8Array;
  readonly biosName?: string;
  /** An ordinary VM instead of a TD. */
  readonly plain?: boolean;
  /** RAM in bytes, default 512 MiB. */
  readonly memoryBytes?: number;
  /**
   * Where a TD's private pages are: default guest_memfd. With "unmapped", for which KVM needs tdx_unmap_user, the process
   * is killed when a device reaches for one.
   */
  readonly privateMemory?: PrivateMemoryKind;
  /** vCPUs, default 1. */
  readonly smp?: number;
  /** Machine type: whose ACPI and SMBIOS tables the guest gets. Default pc-q35-10.1, the first that has TDX. */
  readonly machine?: string;
  /** `host[,±feature…]`. */
  readonly cpu?: string;
  /** A Linux kernel for the firmware to start; in an ordinary VM also a Multiboot kernel, which runs without firmware. */
  readonly kernel?: Uint8Array;
  readonly initrd?: Uint8Array;
  readonly append?: string;
  readonly shim?: Uint8Array;
  /** Further fw_cfg files by name. */
  readonly fwCfgFiles?: ReadonlyMap<string, Uint8Array>;
  /** Gets what the guest writes to its serial port. */
  readonly serial?: (bytes: Uint8Array) => void;
  /** Gets the firmware's debug log (port 0x402). */
  readonly debugcon?: (bytes: Uint8Array) => void;
  /** Drives, each a virtio block device. */
  readonly drives?: readonly BlockBackend[];
  /** Networks, each with a virtio network card. */
  readonly networks?: readonly NetBackend[];
  /** Ports of the virtio console device; without one there is no device. */
  readonly consolePorts?: readonly ConsolePort[];
  /** The virtio socket device. */
  readonly vsock?: VirtioVsock;
  /** Source of the virtio entropy device; without it there is none. */
  readonly random?: (bytes: number) => Uint8Array;
  /** Devices of test programs: isa-debug-exit at port 0xF4, and pc-testdev. */
  readonly testDevices?: boolean;
  /** Unix time in seconds when the machine is switched on; default 2026-01-01, so that runs are the same. */
  readonly rtcStart?: number;
}

export interface RunOptions {
  /** Seconds of wall time after which the run ends with "timeout". */
  readonly timeoutSeconds?: number;
}

/** Most vCPUs of a machine. */
export const MAX_VCPUS = 255;
const MEMORY_DEFAULT = 512 * 2 ** 20;
/** How much of an ordinary VM's firmware is seen below 1 MiB. */
const ISA_BIOS_SIZE = 128 * 1024;
const MACHINE_DEFAULT = "pc-q35-10.1";
const RTC_START_DEFAULT = Date.UTC(2026, 0, 1) / 1000;

/** Run states that a machine can be in, as QMP names them. */
export type MachineState = "prelaunch" | "running" | "paused" | "shutdown" | "guest-panicked";

/** What happens to a machine, as QMP's events name and describe it. */
export interface MachineEvent {
  readonly name: "STOP" | "RESUME" | "POWERDOWN" | "SHUTDOWN" | "RESET" | "GUEST_PANICKED";
  readonly data?: object;
}

export class Machine {
  /** What it has as a TD; null for an ordinary VM. */
  readonly td: TrustDomain | null;
  readonly board: Q35Board;
  readonly #kvm: Kvm;
  readonly #runner: VcpuRunner;
  readonly #trace: Trace;
  readonly #serial: ByteSink;
  readonly #debugcon: ByteSink;
  readonly vcpus: number;
  /** RAM in bytes. */
  readonly memoryBytes: number;
  #outcome: Outcome | null = null;
  #closed = false;
  #started = false;
  readonly #listeners = new Set<(event: MachineEvent) => void>();
  /** Resolves when a paused machine goes on. */
  #paused: { promise: Promise<void>; resume: () => void } | null = null;

  /** Builds the machine and launches its TD. @throws FirmwareError | OptionError | MachineError | IoctlError */
  constructor(options: MachineOptions) {
    const smp = options.smp ?? 1;
    if (!Number.isInteger(smp) || smp < 1 || smp > MAX_VCPUS)
      throw new OptionError("smp", `${smp}; from 1 to ${MAX_VCPUS} can be had`);
    const machine = options.machine ?? MACHINE_DEFAULT;
    if (!/^pc-q35-\d+\.\d+$/.test(machine))
      throw new OptionError("machine", `"${machine}"; only pc-q35-VERSION can be had`);
    const cpu = parseCpuOption(options.cpu ?? "host");
    const biosName = options.biosName ?? "bios";
    checkImageSize(options.bios, biosName);
    this.vcpus = smp;
    this.memoryBytes = options.memoryBytes ?? MEMORY_DEFAULT;
    const map = layoutMemory(this.memoryBytes, options.bios.length);
    const td = (this.td = options.plain ? null : new TrustDomain(options, options.bios, biosName, map));
    this.#trace = options.trace ?? new Trace();
    this.#serial = new ByteSink(options.serial);
    this.#debugcon = new ByteSink(options.debugcon);

    const kvm = (this.#kvm = new Kvm(options.syscalls, td ? KVM_X86_TDX_VM : KVM_X86_DEFAULT_VM));
    try {
      kvm.setUp(smp, td !== null);
      const capabilities = td?.capabilities(kvm) ?? null;
      const model = buildCpuModel({
        option: cpu,
        supported: kvm.supportedCpuid(),
        tdx: capabilities,
        vcpus: smp,
      });
      if (model.unavailable.length > 0)
        throw new OptionError("cpu", `${model.unavailable.join(", ")} cannot be had here`);
      const memory = new GuestMemory(
        addMemory(kvm, map, td ? (options.privateMemory ?? "guest_memfd") : options.bios),
      );
      this.board = this.#buildBoard(options, memory, map, smp);
      fillFwCfg(this.board, {
        vcpus: smp,
        map,
        machine,
        cpuid1: model.vcpuCpuid(0).find((entry) => entry.function === 1)!,
        kernel: options.kernel !== undefined && !startsWithoutFirmware(options),
      });
      addBootFiles(this.board, options, map);
      td?.init(kvm, model);
      for (let i = 0; i < smp; i++) kvm.setCpuid(kvm.createVcpu(i), model.vcpuCpuid(i));
      td?.launch(kvm, memory);
      if (options.kernel && startsWithoutFirmware(options))
        startMultiboot(kvm, memory, options.kernel, options, map);
      this.#runner = new VcpuRunner(kvm, this.#handlers());
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #buildBoard(options: MachineOptions, memory: GuestMemory, map: MemoryMap, smp: number): Q35Board {
    const kvm = this.#kvm;
    const board = new Q35Board({
      memory,
      map,
      vcpus: smp,
      now: () => options.syscalls.now(),
      rtcStart: options.rtcStart ?? RTC_START_DEFAULT,
      virtio: virtioDevices(options),
      serial: (byte) => this.#serial.put(byte),
      debugcon: (byte) => this.#debugcon.put(byte),
      sendMsi: (message) => kvm.signalMsi(message),
      ioapicRouted: (ioapic) =>
        kvm.setGsiRouting(Array.from({ length: IOAPIC_PINS }, (_, pin) => ioapic.message(pin))),
      poweroff: (how) => this.#end({ exit: "poweroff", reason: how }),
      reset: (how) => this.#end({ exit: "reset", reason: how }),
    });
    if (options.testDevices)
      attachTestDevices({
        ports: board.ports,
        mmio: board.mmio,
        setIrq: (irq, level) => board.ioapic.setIrq(isaGsi(irq), level),
        exit: (status) => this.#end({ exit: "poweroff", reason: `debug exit ${status}` }),
      });
    return board;
  }

  #handlers() {
    // eslint-disable-next-line @typescript-eslint/no-this-alias -- the getters below are another object's
    const machine = this;
    return {
      ports: this.board.ports,
      mmio: this.board.mmio,
      tdxCall: (vcpu: KvmVcpu, number: number) => this.td?.vmcall(vcpu, number),
      ioapicEoi: (vector: number) => this.board.ioapic.eoi(vector),
      get outcome() {
        return machine.#outcome;
      },
      set outcome(outcome: Outcome | null) {
        if (outcome !== null) machine.#end(outcome);
      },
    };
  }

  #end(outcome: Outcome): void {
    if (this.#trace.on.DEVICE)
      this.#trace.emit({ type: "DEVICE", device: "machine", what: `${outcome.exit}: ${outcome.reason}` });
    if (this.#outcome !== null) return;
    this.#outcome = outcome;
    const { exit, reason } = outcome;
    if (exit === "fatal") this.#emit({ name: "GUEST_PANICKED", data: { action: "pause", info: { reason } } });
    else if (exit === "reset") this.#emit({ name: "RESET", data: { guest: true, reason: "guest-reset" } });
    else
      this.#emit({
        name: "SHUTDOWN",
        data: {
          guest: exit === "poweroff",
          reason: exit === "poweroff" ? "guest-shutdown" : "host-qmp-quit",
        },
      });
    this.resume();
  }

  /** Exits so far by name. */
  get exits(): Record<string, number> {
    return this.#runner.statistics();
  }

  /** Nanoseconds of virtual time. */
  now(): number {
    return this.#kvm.sys.now();
  }

  /** A byte comes in on the serial port. @returns false when its FIFO is full: try again later. */
  receive(byte: number): boolean {
    return this.board.serial.receive(byte);
  }

  /** Ends the run after the current slice. */
  stop(reason = "stopped"): void {
    this.#end({ exit: "timeout", reason });
  }

  /** Resets the machine, which for a TD means that its run ends. */
  reset(how: string): void {
    this.#end({ exit: "reset", reason: how });
  }

  /** Presses the power button: the guest gets an ACPI event. */
  powerButton(): void {
    this.#emit({ name: "POWERDOWN" });
    this.board.pm.pressPowerButton();
  }

  /** No vCPU runs from the end of the current slice until `resume`. */
  pause(): void {
    if (this.#paused !== null) return;
    let resume = () => {};
    const promise = new Promise<void>((resolve) => (resume = resolve));
    this.#paused = { promise, resume };
    this.#emit({ name: "STOP" });
  }

  resume(): void {
    const paused = this.#paused;
    if (paused === null) return;
    this.#paused = null;
    this.#emit({ name: "RESUME" });
    paused.resume();
  }

  get state(): MachineState {
    if (this.#outcome !== null) return this.#outcome.exit === "fatal" ? "guest-panicked" : "shutdown";
    if (this.#paused !== null) return "paused";
    return this.#started ? "running" : "prelaunch";
  }

  /** @returns a function that ends the subscription. */
  onEvent(listener: (event: MachineEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #emit(event: MachineEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /**
   * Runs the vCPUs in turn until the guest powers off, resets (which a TD cannot: it must be launched again) or dies.
   * Returns to the event loop after each round of slices.
   */
  async run(options: RunOptions = {}): Promise<Outcome> {
    const seconds = options.timeoutSeconds;
    const alarm =
      seconds === undefined
        ? undefined
        : setTimeout(() => this.stop(`${seconds} s of wall time`), seconds * 1000);
    this.#started = true;
    try {
      while (this.#outcome === null) {
        if (this.#paused !== null) {
          this.#flush();
          await this.#paused.promise;
          continue;
        }
        this.#guardedRound();
        const pending = this.td?.settled();
        if (pending) await pending;
        this.td?.poll();
        await nextTick();
      }
      return this.#outcome;
    } finally {
      clearTimeout(alarm);
      this.#flush();
    }
  }

  #guardedRound(): void {
    try {
      this.#round();
    } catch (error) {
      // This process touched private memory that is unmapped.
      if (!(error instanceof Error) || error.name !== "HostMemoryFault") throw error;
      this.#end({ exit: "fatal", reason: `QEMU is killed: ${error.message}` });
    }
  }

  /** A slice for each vCPU, and the timers; when no vCPU has anything to do, time passes until a timer is due. */
  #round(): void {
    let ran = false;
    for (const vcpu of this.#kvm.vcpus) {
      if (this.#runner.turn(vcpu) === "ran") ran = true;
      if (this.#outcome !== null) return;
    }
    this.board.timers.run();
    if (!ran) {
      this.#flush();
      this.#kvm.sys.sleep(this.board.timers.next());
    }
  }

  #flush(): void {
    this.#serial.flush();
    this.#debugcon.flush();
  }

  /** Destroys the VM: its pages and KeyID go back to the host. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#flush();
    this.#kvm.close();
  }
}

/**
 * The guest's memory; an ordinary VM has its firmware, which is given for it, as ROM, and the end of it below 1 MiB, as
 * on a PC.
 */
function addMemory(kvm: Kvm, map: MemoryMap, kind: PrivateMemoryKind | Uint8Array): KvmRam[] {
  const [privateMemory, rom] = typeof kind === "string" ? [kind, null] : [null, kind];
  const ram = [kvm.addRam("pc.ram", map.below4g, { privateMemory })];
  if (map.above4g.length > 0) ram.push(kvm.addRam("pc.ram above 4G", map.above4g, { privateMemory }));
  const bios = kvm.addRam("pc.bios", map.firmware, { privateMemory, readonly: rom !== null });
  if (rom === null) return [...ram, bios];
  // Devices do not reach ROM: it is not among the blocks returned.
  bios.memory.write(0, rom);
  const tail = rom.subarray(Math.max(0, rom.length - ISA_BIOS_SIZE));
  ram[0].memory.write(2 ** 20 - tail.length, tail);
  return ram;
}

/** A Multiboot kernel of an ordinary VM. */
const startsWithoutFirmware = ({ kernel, plain = false }: MachineOptions): boolean =>
  kernel !== undefined && plain && isMultiboot(kernel);

/** The kernel is in memory, and the first vCPU at its entry. */
function startMultiboot(
  kvm: Kvm,
  memory: GuestMemory,
  kernel: Uint8Array,
  options: MachineOptions,
  map: MemoryMap,
): void {
  const image = loadMultiboot(kernel, options, map);
  for (const { address, data } of image.blobs) memory.write(address, data);
  const [vcpu] = kvm.vcpus;
  kvm.setState(vcpu, multibootState(image, kvm.getState(vcpu)));
}

/** fw_cfg items for a kernel that firmware starts, and the caller's own files. */
function addBootFiles({ fwCfg }: Q35Board, options: MachineOptions, map: MemoryMap): void {
  if (options.kernel && !startsWithoutFirmware(options)) {
    const { kernel, initrd, append, shim } = options;
    addLinuxBoot(fwCfg, { kernel, initrd, append, shim }, map.below4g.length);
  } else if (!options.kernel)
    for (const name of ["initrd", "append", "shim"] as const)
      if (options[name] !== undefined) throw new OptionError(name, "needs a kernel");
  for (const [name, data] of options.fwCfgFiles ?? []) fwCfg.addFile(name, data);
}

/** The virtio devices, in the order of their slots. */
function virtioDevices(options: MachineOptions): VirtioBackend[] {
  const { drives = [], networks = [], consolePorts = [], vsock, random } = options;
  const devices: VirtioBackend[] = [
    ...drives.map((drive, i) => new VirtioBlk(drive, `drive${i}`)),
    ...networks.map((network, i) => new VirtioNet(network, macAddress(i))),
    ...(consolePorts.length > 0 ? [new VirtioConsole(consolePorts)] : []),
    ...(vsock ? [vsock] : []),
    ...(random ? [new VirtioRng(random)] : []),
  ];
  if (devices.length > VIRTIO_MAX)
    throw new OptionError("drive", `${devices.length} virtio devices; ${VIRTIO_MAX} fit`);
  return devices;
}

/** As QEMU numbers them: 52:54:00:12:34:56 and on. */
const macAddress = (i: number): Uint8Array => Uint8Array.of(0x52, 0x54, 0x00, 0x12, 0x34, 0x56 + i);

/** Gathers bytes into lines, so that whoever listens is not called for each. */
class ByteSink {
  #bytes: number[] = [];
  constructor(private readonly sink: ((bytes: Uint8Array) => void) | undefined) {}

  put(byte: number): void {
    if (!this.sink) return;
    this.#bytes.push(byte);
    if (byte === 0x0a || this.#bytes.length >= 4096) this.flush();
  }
  flush(): void {
    if (this.#bytes.length === 0) return;
    const bytes = Uint8Array.from(this.#bytes);
    this.#bytes = [];
    this.sink?.(bytes);
  }
}

/** Lets the event loop turn: setImmediate where there is one, since timers are slow. */
const nextTick = (): Promise<void> =>
  new Promise((resolve) => {
    const immediate = (globalThis as { setImmediate?: (callback: () => void) => void }).setImmediate;
    if (immediate) immediate(resolve);
    else {
      const channel = new MessageChannel();
      channel.port1.onmessage = () => {
        channel.port1.close();
        resolve();
      };
      channel.port2.postMessage(null);
    }
  });
