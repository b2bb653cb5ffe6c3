/**
 * A Linux host: BIOS, kernel memory, the TDX module loaded and initialized, sysfs and log. KVM runs on it.
 */
import { type HpaAndKeyId, PAGE_SIZE, Trace } from "@swtdx/abi";
import type { LogicalProcessor, Processor } from "@swtdx/cpu";
import { DEFAULT_KEY_IDS, type KeyIdConfiguration, runBios } from "./bios/bios.js";
import { layoutHostMemory, type MemoryLayout, type MemoryRange } from "./bios/memory-layout.js";
import { KernelLog, type LogLine } from "./kernel/printk.js";
import { Sysfs } from "./kernel/sysfs.js";
import { PageAllocator } from "./mm/page-allocator.js";
import { AddressSpace } from "./mm/user-memory.js";
import { installModule, seamldrInfo, type TdxModuleImage } from "./virt/tdx/seamldr.js";
import { decodeTdxImage } from "./virt/tdx/tdx-image.js";
import { formatVersion, TdxHost } from "./virt/tdx/tdx.js";

/** The firmware of a TDX platform; absent, the host has none and runs ordinary VMs only. */
export interface TdxFirmware {
  /** Builds the NP-SEAMLDR module (ACM) for a platform with these convertible memory ranges, in bytes. */
  buildSeamldr(platform: {
    cmrs: readonly { base: number; size: number }[];
    tdxWithoutIntegrity: boolean;
  }): Uint8Array;
  /** The module, or an update image (TDX-BLOB) that carries it. */
  readonly module: TdxModuleImage | Uint8Array;
}

export interface LinuxHostOptions {
  readonly processor: Processor;
  /** Bytes of DRAM: see layoutHostMemory. */
  readonly memoryBytes: number;
  readonly firmware?: TdxFirmware;
  readonly keyIds?: KeyIdConfiguration;
  readonly trace?: Trace;
  /** Gets each line of the kernel's log. */
  readonly onLog?: (line: LogLine) => void;
}

const VMX_BASIC = 0x480;
const REAL_MODE_END = 0x10_0000;

export class LinuxHost {
  readonly pages: PageAllocator;
  readonly log: KernelLog;
  readonly sysfs = new Sysfs();
  readonly trace: Trace;
  /** TDX support, null when the platform has none or it failed to come up. */
  tdx: TdxHost | null = null;

  private constructor(
    readonly processor: Processor,
    readonly layout: MemoryLayout,
    options: LinuxHostOptions,
  ) {
    this.trace = options.trace ?? new Trace();
    this.log = new KernelLog(options.onLog);
    // The first megabyte is reserved at boot (reserve_real_mode()), so every page the allocator gives is TDX memory.
    this.pages = new PageAllocator(
      layout.usable
        .filter(({ start }) => start >= REAL_MODE_END)
        .map(({ start, end }: MemoryRange) => ({ start: start / PAGE_SIZE, end: end / PAGE_SIZE })),
    );
  }

  /** Bytes of DRAM address space for a host with `memoryBytes` of memory. */
  static dramBytes(memoryBytes: number): number {
    return layoutHostMemory(memoryBytes).dramBytes;
  }

  /**
   * Powers on, boots the kernel and, with firmware, loads and initializes the TDX module.
   * @throws RangeError for impossible memory, BiosError when the platform does not come up
   */
  static boot(options: LinuxHostOptions): LinuxHost {
    const { processor, firmware, keyIds = DEFAULT_KEY_IDS } = options;
    const layout = layoutHostMemory(options.memoryBytes);
    const host = new LinuxHost(processor, layout, options);
    host.#stage("BIOS: memory encryption, SEAM range, SEAM loader");
    const cmrs = layout.cmrs.map(({ start, end }) => ({ base: start, size: end - start }));
    const acm = firmware?.buildSeamldr({ cmrs, tdxWithoutIntegrity: keyIds.integrity === "logical" }) ?? null;
    runBios(processor, layout, keyIds, acm);
    host.#vmxon();
    if (firmware) host.#initTdx(firmware.module);
    host.#createSysfs();
    return host;
  }

  #stage(what: string): void {
    if (this.trace.on.STAGE) this.trace.emit({ type: "STAGE", layer: "linux-host", what });
  }

  /** VMX operation on every CPU. */
  #vmxon(): void {
    for (const lp of this.processor.lps) {
      const region = this.pages.allocPage("vmxon");
      if (region === null) throw new RangeError("no memory for a VMXON region");
      const pa = (region * PAGE_SIZE) as HpaAndKeyId;
      const basic = lp.rdmsr(VMX_BASIC);
      lp.memZero(pa, PAGE_SIZE);
      lp.memWriteU64(pa, basic.kind === "ok" ? basic.value & 0x7fff_ffffn : 0n);
      const on = lp.vmxon(pa);
      if (on.kind !== "ok") this.log.printk("err", `kvm: VMXON failed on CPU ${lp.index}`);
    }
  }

  #initTdx(image: TdxModuleImage | Uint8Array): void {
    this.#stage("loading the TDX module");
    const tdx = TdxHost.probe(this.processor, this.pages, this.log);
    if (!tdx) return;
    const module = image instanceof Uint8Array ? decodeTdxImage(image) : image;
    if (!module) {
      this.log.printk("err", "virt/tdx: the TDX module image is invalid");
      return;
    }
    const status = installModule(this.processor, this.pages, module);
    if (status !== 0n) {
      this.log.printk("err", `virt/tdx: SEAMLDR.INSTALL failed: 0x${status.toString(16)}`);
      return;
    }
    this.#stage("initializing the TDX module");
    const memory = this.layout.usable.map(({ start, end }) => ({ start, end }));
    if (tdx.enable(memory) === 0) this.tdx = tdx;
  }

  #createSysfs(): void {
    const { sysfs, tdx } = this;
    sysfs.create("/sys/module/kvm_intel/parameters/tdx", () => (tdx ? "Y" : "N"));
    if (!tdx?.sysInfo) return;
    const { sysInfo } = tdx;
    const device = "/sys/devices/faux/tdx_host";
    sysfs.create(`${device}/version`, () => formatVersion(sysInfo));
    const loader = seamldrInfo(this.lps[0], this.pages);
    if (typeof loader !== "bigint") {
      const { MAJOR_VERSION, MINOR_VERSION, UPDATE_VERSION } = loader;
      const update = String(UPDATE_VERSION).padStart(2, "0");
      sysfs.create(`${device}/seamldr_version`, () => `${MAJOR_VERSION}.${MINOR_VERSION}.${update}`);
      sysfs.create(`${device}/num_remaining_updates`, () => String(loader.NUM_REMAINING_UPDATES));
    }
    sysfs.create("/sys/fs/cgroup/misc.capacity", () => `tdx ${tdx.keyIds - 1}`);
    sysfs.create("/sys/fs/cgroup/misc.current", () => `tdx ${tdx.guestKeyIds.inUse}`);
  }

  get lps(): readonly LogicalProcessor[] {
    return this.processor.lps;
  }

  /** Flags of /proc/cpuinfo that concern TDX. */
  get cpuFlags(): readonly string[] {
    return ["vmx", "tme", ...(this.tdx ? ["tdx_host_platform"] : [])];
  }

  /** A new process's address space. */
  createAddressSpace(): AddressSpace {
    return new AddressSpace(this.pages, this.processor.lps[0]);
  }
}
