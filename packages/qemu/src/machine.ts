/**
 * A machine: q35 with firmware, as a Trust Domain. Built by the constructor the way QEMU builds one, run by `run`.
 */
import { FW_CFG, KVM_X86_TDX_VM, type KvmTdxCapabilities, Trace, type TraceEvent } from "@swtdx/abi";
import { RUN } from "./accel/exits.js";
import { Kvm, type KvmVcpu } from "./accel/kvm.js";
import type { Syscalls } from "./accel/syscalls.js";
import { type Outcome, VcpuRunner } from "./accel/vcpu-loop.js";
import { addAcpiTables } from "./acpi/build.js";
import { OptionError } from "./errors.js";
import { addLinuxBoot } from "./firmware/linux-loader.js";
import { parseTdvf, type Tdvf } from "./firmware/tdvf.js";
import { Q35Board, VIRTIO_MAX } from "./hw/i386/q35.js";
import { IOAPIC_PINS } from "./hw/intc/ioapic.js";
import { type BlockBackend, VirtioBlk } from "./hw/virtio/virtio-blk.js";
import type { VirtioBackend } from "./hw/virtio/virtio-pci.js";
import { VirtioRng } from "./hw/virtio/virtio-rng.js";
import { GuestMemory } from "./memory/guest-memory.js";
import { e820Table, encodeE820, layoutMemory, splitTdRam } from "./memory/memory-map.js";
import { buildCpuModel, parseCpuOption } from "./target/cpu-model.js";
import { QuoteGeneration, type QuoteGenerationService, TDG_VP_VMCALL } from "./target/quote-generation.js";
import { TD_ATTRIBUTES_DEFAULT, tdIdentity } from "./target/tdx-guest.js";
import { initTd, type LaunchPages, launchTd } from "./target/tdx-launch.js";

export interface MachineOptions {
  readonly syscalls: Syscalls;
  /** The firmware image, and its name in errors. */
  readonly bios: Uint8Array;
  readonly biosName?: string;
  /** RAM in bytes, default 512 MiB. */
  readonly memoryBytes?: number;
  /** vCPUs, default 1. */
  readonly smp?: number;
  /** `host[,±feature…]`. */
  readonly cpu?: string;
  readonly kernel?: Uint8Array;
  readonly initrd?: Uint8Array;
  readonly append?: string;
  readonly shim?: Uint8Array;
  /** TD ATTRIBUTES, default SEPT_VE_DISABLE. */
  readonly tdAttributes?: bigint;
  readonly mrconfigid?: Uint8Array;
  readonly mrowner?: Uint8Array;
  readonly mrownerconfig?: Uint8Array;
  /** Frequency of the virtual TSC in kHz; default the host's. */
  readonly tscKhz?: number;
  /** Further fw_cfg files by name. */
  readonly fwCfgFiles?: ReadonlyMap<string, Uint8Array>;
  /** Gets what the guest writes to its serial port. */
  readonly serial?: (bytes: Uint8Array) => void;
  /** Gets the firmware's debug log (port 0x402). */
  readonly debugcon?: (bytes: Uint8Array) => void;
  /** Drives, each a virtio block device. */
  readonly drives?: readonly BlockBackend[];
  /** Source of the virtio entropy device; without it there is none. */
  readonly random?: (bytes: number) => Uint8Array;
  readonly quoteGenerationService?: QuoteGenerationService;
  /** Unix time in seconds when the machine is switched on; default 2026-01-01, so that runs are the same. */
  readonly rtcStart?: number;
  /** The platform's trace: MRTD is read from it. */
  readonly trace?: Trace;
}

export interface RunOptions {
  /** Seconds of wall time after which the run ends with "timeout". */
  readonly timeoutSeconds?: number;
}

/** Most vCPUs of a machine. */
export const MAX_VCPUS = 255;
const MEMORY_DEFAULT = 512 * 2 ** 20;
const RTC_START_DEFAULT = Date.UTC(2026, 0, 1) / 1000;

/** KVM_EXIT_TDX: numbers of TDG.VP.VMCALL sub-functions. */
const TDVMCALL = { GET_TD_VM_CALL_INFO: 0x10000, GET_QUOTE: 0x10002, SETUP_EVENT_NOTIFY_INTERRUPT: 0x10004 };
/** GetTdVmCallInfo leaf 1, R11: SetupEventNotifyInterrupt is there. */
const INFO_SETUP_EVENT_NOTIFY = 1n << 1n;

export class Machine {
  readonly tdvf: Tdvf;
  readonly pages: LaunchPages;
  /** ATTRIBUTES and XFAM of the TD. */
  readonly attributes: bigint;
  readonly xfam: bigint;
  /** MRTD in hex; null when the platform's trace is not given. */
  readonly mrtd: string | null;
  readonly board: Q35Board;
  readonly #kvm: Kvm;
  readonly #runner: VcpuRunner;
  readonly #quotes: QuoteGeneration;
  readonly #trace: Trace;
  readonly #capabilities: KvmTdxCapabilities;
  readonly #serial: ByteSink;
  readonly #debugcon: ByteSink;
  #notify: { vector: number; apicId: number } | null = null;
  #outcome: Outcome | null = null;
  #closed = false;

  /** Builds the machine and launches its TD. @throws FirmwareError | OptionError | MachineError | IoctlError */
  constructor(options: MachineOptions) {
    const smp = options.smp ?? 1;
    if (!Number.isInteger(smp) || smp < 1 || smp > MAX_VCPUS)
      throw new OptionError("smp", `${smp}; from 1 to ${MAX_VCPUS} can be had`);
    const cpu = parseCpuOption(options.cpu ?? "host");
    const identities = {
      mrconfigid: tdIdentity("mrconfigid", options.mrconfigid),
      mrowner: tdIdentity("mrowner", options.mrowner),
      mrownerconfig: tdIdentity("mrownerconfig", options.mrownerconfig),
    };
    this.tdvf = parseTdvf(options.bios, options.biosName ?? "bios");
    const map = layoutMemory(options.memoryBytes ?? MEMORY_DEFAULT, options.bios.length);
    const tdRam = splitTdRam(map, this.tdvf);
    this.#trace = options.trace ?? new Trace();
    this.#serial = new ByteSink(options.serial);
    this.#debugcon = new ByteSink(options.debugcon);

    const kvm = (this.#kvm = new Kvm(options.syscalls, KVM_X86_TDX_VM));
    try {
      kvm.setUp(smp, true);
      this.#capabilities = kvm.tdxCapabilities();
      const supported = kvm.supportedCpuid();
      const model = buildCpuModel({ option: cpu, supported, tdx: this.#capabilities, vcpus: smp });
      if (model.unavailable.length > 0)
        throw new OptionError("cpu", `TDX does not support ${model.unavailable.join(", ")} here`);
      this.attributes = (options.tdAttributes ?? TD_ATTRIBUTES_DEFAULT) | model.attributes;
      this.xfam = model.xfam;

      const ram = [kvm.addRam("pc.ram", map.below4g, true)];
      if (map.above4g.length > 0) ram.push(kvm.addRam("pc.ram above 4G", map.above4g, true));
      ram.push(kvm.addRam("pc.bios", map.firmware, true));
      const memory = new GuestMemory(ram);
      this.board = new Q35Board({
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
      this.#fillFwCfg(options, smp);

      const initVm = { attributes: this.attributes, xfam: this.xfam, ...identities };
      initTd(kvm, this.#capabilities, {
        ...initVm,
        tscKhz: options.tscKhz ?? 0,
        cpuid: model.initVmCpuid(),
      });
      for (let i = 0; i < smp; i++) kvm.setCpuid(kvm.createVcpu(i), model.vcpuCpuid(i));
      const heard = this.#hearMrtd(() => launchTd(kvm, this.tdvf, tdRam));
      this.pages = heard.pages;
      this.mrtd = options.trace ? heard.mrtd : null;

      this.#quotes = new QuoteGeneration({
        memory,
        service: options.quoteGenerationService ?? null,
        completed: () => this.#injectNotify(),
      });
      this.#runner = new VcpuRunner(kvm, this.#handlers(), this.#trace);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #fillFwCfg(options: MachineOptions, smp: number): void {
    const { fwCfg } = this.board;
    const map = layoutMemory(options.memoryBytes ?? MEMORY_DEFAULT, options.bios.length);
    fwCfg.addU16(FW_CFG.NB_CPUS, smp);
    fwCfg.addU16(FW_CFG.MAX_CPUS, smp);
    fwCfg.addU64(FW_CFG.RAM_SIZE, map.below4g.length + map.above4g.length);
    fwCfg.addU16(FW_CFG.NOGRAPHIC, 1);
    fwCfg.addU16(FW_CFG.BOOT_MENU, 0);
    fwCfg.addBytes(FW_CFG.UUID, new Uint8Array(16));
    fwCfg.addFile("etc/e820", encodeE820(e820Table(map)));
    addAcpiTables(this.board, { vcpus: smp, map });
    if (options.kernel) {
      const { kernel, initrd, append, shim } = options;
      addLinuxBoot(fwCfg, { kernel, initrd, append, shim }, map.below4g.length);
    } else
      for (const name of ["initrd", "append", "shim"] as const)
        if (options[name] !== undefined) throw new OptionError(name, "needs a kernel");
    for (const [name, data] of options.fwCfgFiles ?? []) fwCfg.addFile(name, data);
  }

  /** Runs `launch` and takes MRTD from the trace. */
  #hearMrtd(launch: () => LaunchPages): { pages: LaunchPages; mrtd: string | null } {
    let mrtd: string | null = null;
    const end = this.#trace.subscribe((event: TraceEvent) => {
      if (event.type === "MEASURE" && event.register === "MRTD") mrtd = event.digest;
    });
    try {
      return { pages: launch(), mrtd };
    } finally {
      end();
    }
  }

  #handlers() {
    // eslint-disable-next-line @typescript-eslint/no-this-alias -- the getters below are another object's
    const machine = this;
    return {
      ports: this.board.ports,
      mmio: this.board.mmio,
      tdxCall: (vcpu: KvmVcpu, number: number) => this.#tdxCall(vcpu, number),
      ioapicEoi: (vector: number) => this.board.ioapic.eoi(vector),
      get outcome() {
        return machine.#outcome;
      },
      set outcome(outcome: Outcome | null) {
        machine.#outcome = outcome;
      },
    };
  }

  #end(outcome: Outcome): void {
    if (this.#trace.on)
      this.#trace.emit({ type: "DEVICE", device: "machine", what: `${outcome.exit}: ${outcome.reason}` });
    this.#outcome ??= outcome;
  }

  #tdxCall({ view, index }: KvmVcpu, number: number): void {
    const ret = (status: bigint) => view.setBigUint64(RUN.tdxRet, status, true);
    const data = (i: number) => view.getBigUint64(RUN.tdxData + 8 * i, true);
    const setData = (i: number, value: bigint) => view.setBigUint64(RUN.tdxData + 8 * i, value, true);
    switch (number) {
      case TDVMCALL.GET_QUOTE:
        return ret(this.#quotes.getQuote(data(0), data(1)));
      case TDVMCALL.GET_TD_VM_CALL_INFO: {
        if (data(0) !== 1n) return;
        const { kernel_tdvmcallinfo_1_r11: kernel11, kernel_tdvmcallinfo_1_r12: kernel12 } =
          this.#capabilities;
        setData(1, kernel11 | (this.#capabilities.user_tdvmcallinfo_1_r11 & INFO_SETUP_EVENT_NOTIFY));
        setData(2, kernel12);
        setData(3, 0n);
        setData(4, 0n);
        return ret(TDG_VP_VMCALL.SUCCESS);
      }
      case TDVMCALL.SETUP_EVENT_NOTIFY_INTERRUPT: {
        const vector = data(0);
        if (vector < 32n || vector > 255n) return ret(TDG_VP_VMCALL.INVALID_OPERAND);
        this.#notify = { vector: Number(vector), apicId: index };
        return ret(TDG_VP_VMCALL.SUCCESS);
      }
      default:
        return; // `ret` says SUBFUNC_UNSUPPORTED already
    }
  }

  #injectNotify(): void {
    if (this.#notify === null) return;
    const { vector, apicId } = this.#notify;
    const high = apicId - (apicId & 0xff);
    this.#kvm.signalMsi({ address: 0xfee00000 + (apicId & 0xff) * 0x1000 + high * 2 ** 32, data: vector });
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
    this.#outcome ??= { exit: "timeout", reason };
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
    try {
      while (this.#outcome === null) {
        this.#round();
        const pending = this.#quotes.settled();
        if (pending) await pending;
        this.#quotes.poll();
        await nextTick();
      }
      return this.#outcome;
    } finally {
      clearTimeout(alarm);
      this.#flush();
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

function virtioDevices({ drives = [], random }: MachineOptions): VirtioBackend[] {
  const devices: VirtioBackend[] = drives.map((drive, i) => new VirtioBlk(drive, `drive${i}`));
  if (random) devices.push(new VirtioRng(random));
  if (devices.length > VIRTIO_MAX)
    throw new OptionError("drive", `${drives.length} drives; ${VIRTIO_MAX - (random ? 1 : 0)} fit`);
  return devices;
}

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
