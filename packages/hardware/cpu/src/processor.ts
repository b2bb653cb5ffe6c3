/** A package (socket): its logical processors and what they share: MSRs of package scope, SEAM, keys, engines. */
import { Trace, type Hpa } from "@swtdx/abi";
import type { CodeFrames } from "@swtdx/x86";
import type { ExecutionEngine, GuestContext, MemoryInstruction } from "./interface/engine.js";
import type { Fault } from "./interface/outcome.js";
import type {
  LogicalProcessor,
  Processor as ProcessorInterface,
  ProcessorOptions,
  RandomSource,
} from "./interface/processor.js";
import {
  PconfigStatus,
  type KeyProgram,
  type SeamFirmware,
  type SeamFirmwareFactory,
  type SeamRange,
} from "./interface/seam.js";
import type { MsrFile } from "./msr/msr-file.js";
import { PhysicalMemory } from "./memory/physical.js";
import { GP0 } from "./outcomes.js";
import { LogicalProcessorUnit, programNameAt } from "./logical-processor.js";
import { ReportUnit } from "./seam/report.js";
import type { CpuArena } from "./interface/memory.js";

const MAX_LPS = 64;
/** CPUSVN: 16 components of the security version. */
const CPUSVN = Uint8Array.from([3, 3, 2, 2, 3, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0]);

/** A firmware that has been entered: at which entry, and the object. */
interface LoadedFirmware {
  readonly entry: number;
  firmware: SeamFirmware | null;
}

export class ProcessorUnit implements ProcessorInterface {
  readonly lps: LogicalProcessorUnit[] = [];
  readonly packageIndex = 0;
  readonly trace: Trace;
  readonly random: RandomSource;
  readonly arena: CpuArena;
  readonly phys: PhysicalMemory;
  readonly packageMsrs = new Map<number, bigint>();
  readonly tscHz: number;
  readonly reports: ReportUnit;
  /** The newest identity of a VMCS. */
  lastVmcs = 0;
  readonly #engines: readonly ExecutionEngine[];
  readonly #factories = new Map<string, SeamFirmwareFactory>();
  #pSeamldr: LoadedFirmware | null = null;
  #module: LoadedFirmware | null = null;

  /** @throws RangeError for a number of logical processors outside 1 to 64, or an impossible TSC frequency */
  constructor(options: ProcessorOptions) {
    const lps = options.lps ?? 1;
    if (!(Number.isInteger(lps) && lps >= 1 && lps <= MAX_LPS))
      throw new RangeError(`${lps} logical processors: must be 1 to ${MAX_LPS}`);
    this.tscHz = options.tscHz ?? 2_000_000_000;
    if (!(this.tscHz >= 1_000_000 && this.tscHz <= 10_000_000_000))
      throw new RangeError(`tscHz ${this.tscHz}: must be 1 MHz to 10 GHz`);
    this.trace = options.trace ?? new Trace();
    this.random = options.random.fork("cpu");
    this.arena = options.arena;
    this.phys = new PhysicalMemory(options.arena, options.memory);
    this.reports = new ReportUnit(this.random, CPUSVN);
    this.#engines = options.engines ?? [];
    for (let i = 0; i < lps; i++) this.lps.push(new LogicalProcessorUnit(this, i));
    this.phys.onFrameChange((frame) => {
      this.phys.contentChanged(frame);
      for (const lp of this.lps)
        if (lp.guest.tlb.frameChanged(frame) || lp.guest.engineUses(frame)) lp.guest.flushed(-1, -1);
    });
    this.code.addUser({
      dropCode: () => undefined,
      protectFrame: (frame) => this.lps.forEach((lp) => lp.guest.tlb.protect(frame * 4096)),
    });
    for (const engine of this.#engines) for (const lp of this.lps) engine.attach?.(lp.guest, this);
  }

  reset(): void {
    this.packageMsrs.clear();
    this.phys.keyIdBits = 0;
    this.phys.keyIdUnit = 2 ** 52;
    this.phys.firstPrivate = 64;
    this.phys.privateCount = 0;
    this.phys.seamFirst = 0;
    this.phys.seamEnd = 0;
    this.phys.memory.activate({ mktmeKeyIds: 0, tdxKeyIds: 0 });
    this.reports.reset();
    this.#pSeamldr = null;
    this.#module = null;
    for (const lp of this.lps) lp.reset();
  }

  get code(): CodeFrames {
    return this.phys.code;
  }
  awaited(guest: GuestContext): boolean {
    for (const engine of this.#engines) if (engine.awaits?.(guest) === true) return true;
    return false;
  }
  engineFor(guest: GuestContext): ExecutionEngine | null {
    for (const engine of this.#engines) if (engine.claims(guest)) return engine;
    return null;
  }
  memoryInstruction(vmcs: number): MemoryInstruction | null {
    for (const engine of this.#engines) {
      const found = engine.memoryInstruction?.(vmcs);
      if (found) return found;
    }
    return null;
  }

  // ---- Keys

  /** IA32_TME_ACTIVATE was locked: KeyID bits take effect if encryption is on. */
  tmeActivated(value: bigint): void {
    const enabled = (value & 2n) !== 0n;
    const bits = enabled ? Number((value >> 32n) & 0xfn) : 0;
    const tdxBits = enabled ? Number((value >> 36n) & 0xfn) : 0;
    const total = 2 ** bits;
    const shared = 2 ** (bits - tdxBits);
    const mktmeKeyIds = shared - 1;
    const tdxKeyIds = total - shared;
    this.phys.keyIdBits = bits;
    this.phys.keyIdUnit = 2 ** (52 - bits);
    this.phys.firstPrivate = shared;
    this.phys.privateCount = tdxKeyIds;
    this.packageMsrs.set(0x87, BigInt(mktmeKeyIds) | (BigInt(tdxKeyIds) << 32n));
    this.phys.memory.activate({ mktmeKeyIds, tdxKeyIds });
  }
  /** MKTME_KEY_PROGRAM: RAX of PCONFIG. */
  programKey(key: KeyProgram): number {
    const { memory, keyIdBits } = this.phys;
    if (!(key.keyId >= 1 && key.keyId < 2 ** keyIdBits)) return PconfigStatus.INVALID_KEYID;
    const algorithms = Number((this.packageMsrs.get(0x982) ?? 0n) >> 48n);
    if (key.command === 0 || key.command === 1) {
      // Exactly one of the algorithms that IA32_TME_ACTIVATE allows.
      if ((key.encAlg & (key.encAlg - 1)) !== 0 || (key.encAlg & algorithms) === 0)
        return PconfigStatus.INVALID_ENC_ALG;
    }
    switch (key.command) {
      case 0: {
        const { dataKey, tweakKey } = key;
        if (dataKey?.length !== 16 || tweakKey?.length !== 16) return PconfigStatus.INVALID_PROG_CMD;
        memory.programKey(key.keyId, { mode: "encrypt", dataKey, tweakKey });
        return PconfigStatus.SUCCESS;
      }
      case 1:
        memory.programRandomKey(key.keyId);
        return PconfigStatus.SUCCESS;
      case 2:
        memory.clearKey(key.keyId);
        return PconfigStatus.SUCCESS;
      case 3:
        memory.programKey(key.keyId, { mode: "none" });
        return PconfigStatus.SUCCESS;
      default:
        return PconfigStatus.INVALID_PROG_CMD;
    }
  }

  // ---- SEAM

  /** SEAMRR takes effect when its base is configured and its mask is valid. */
  seamrrChanged(msrs: MsrFile): void {
    const base = msrs.raw(0x1400);
    const mask = msrs.raw(0x1401);
    const { phys } = this;
    if ((base & 8n) === 0n || (mask & 0x800n) === 0n) {
      phys.seamFirst = 0;
      phys.seamEnd = 0;
      return;
    }
    const range = mask & 0xf_ffff_fe00_0000n;
    const size = Number(range & -range);
    const start = Number(base & range);
    phys.seamFirst = start / 4096;
    phys.seamEnd = range === 0n ? phys.seamFirst : (start + size) / 4096;
  }
  get seamRange(): SeamRange {
    const { seamFirst, seamEnd } = this.phys;
    return { base: (seamFirst * 4096) as Hpa, size: (seamEnd - seamFirst) * 4096 };
  }
  registerSeamFirmware(name: string, factory: SeamFirmwareFactory): void {
    this.#factories.set(name, factory);
  }
  #read(pa: number, target: Uint8Array): void {
    for (let done = 0; done < target.length;) {
      const count = Math.min(4096 - ((pa + done) % 4096), target.length - done);
      this.phys.read(pa + done, 0, target.subarray(done, done + count), true);
      done += count;
    }
  }
  #load(loaded: LoadedFirmware): SeamFirmware | null {
    if (loaded.firmware) return loaded.firmware;
    const name = programNameAt(loaded.entry, (pa, target) => this.#read(pa, target));
    const factory = name === null ? undefined : this.#factories.get(name);
    if (!factory) return null;
    loaded.firmware = factory({
      seamRange: this.seamRange,
      entry: loaded.entry as Hpa,
      lps: this.lps.length,
      read: (pa, target) => this.#read(pa, target),
    });
    return loaded.firmware;
  }
  /** The firmware a SEAMCALL enters, or null when what is at its entry cannot run. */
  seamFirmware(pSeamldr: boolean): SeamFirmware | null {
    const loaded = pSeamldr ? this.#pSeamldr : this.#module;
    return loaded ? this.#load(loaded) : null;
  }
  setModuleEntry(entry: Hpa | null): void {
    this.#module = entry === null ? null : { entry, firmware: null };
  }
  /** What GETSEC[ENTERACCS] of the NP-SEAMLDR does. */
  loadPSeamldr(image: Uint8Array): { kind: "ok" } | { kind: "error"; reason: string } | Fault {
    const { base, size } = this.seamRange;
    if (size === 0) return GP0;
    const name = programNameAt(0, (at, target) => {
      target.fill(0);
      if (at >= 0 && at < image.length) target.set(image.subarray(at, at + target.length));
    });
    if (name === null) return { kind: "error", reason: "the module is no program image" };
    if (!this.#factories.has(name))
      return { kind: "error", reason: `no SEAM firmware is registered as ${name}` };
    const pages = Math.ceil(image.length / 4096);
    if (pages * 4096 > size) return { kind: "error", reason: "the module does not fit into the SEAM range" };
    const entry = base + size - pages * 4096;
    for (let i = 0; i < pages; i++) {
      const page = new Uint8Array(4096);
      page.set(image.subarray(i * 4096, (i + 1) * 4096));
      this.phys.write(entry + i * 4096, 0, page, true);
    }
    this.#pSeamldr = { entry, firmware: null };
    this.#module = null;
    this.reports.extend.pSeamldrReady = true;
    this.reports.extend.seamReady = false;
    return { kind: "ok" };
  }

  // ---- Inter-processor interrupts

  /** @param destination x2APIC ID, -1 all but the sender, -2 all; `mode` 0 fixed, 4 NMI, 5 INIT */
  sendIpi(from: LogicalProcessor, destination: number, mode: number, vector: number): void {
    for (const lp of this.lps) {
      if (destination === -1 ? lp === from : destination !== -2 && lp.apicId !== destination) continue;
      if (mode === 0 || mode === 1) lp.pendExternalInterrupt(vector);
      else if (mode === 4) lp.pendNmi();
      else if (mode === 5) lp.pendInit();
    }
  }
}

/** A processor package (socket). */
export type Processor = ProcessorInterface;
export const Processor: new (options: ProcessorOptions) => Processor = ProcessorUnit;
