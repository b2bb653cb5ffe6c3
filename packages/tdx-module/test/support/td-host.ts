/**
 * A booted host with the module ready, and TDs built on it by SEAMCALLs alone, as KVM builds them. What the module
 * keeps is looked at only through its interface functions.
 */
import {
  encodeProgramHeader,
  encodeProgramStub,
  type GuestProgram,
  type HpaAndKeyId,
  PAGE_SIZE,
  PROGRAM_STUB_SIZE,
  type SeamcallName,
  TD_PARAMS,
  type TdParams,
  Trace,
  type TraceEvent,
} from "@swtdx/abi";
import { type LogicalProcessor, Processor, ProgramEngine } from "@swtdx/cpu";
import { SeededRandom } from "@swtdx/crypto";
import { leaf, LinuxHost, seamcallRet, tdxModuleArgs, type TdxModuleArgs } from "@swtdx/linux-host";
import { Arena, MemoryController } from "@swtdx/mktme";
import { buildModuleImage, buildSeamldrAcm, registerTdxFirmware } from "../../src/index.js";

const GIB = 2 ** 30;
export const NULL_PA = 0xffff_ffff_ffff_ffffn;
export const RESET_PAGE = 0xffff_f000;

/** RAX and the registers after a SEAMCALL. */
export type Outputs = TdxModuleArgs & { readonly status: bigint };

export class TdHost {
  readonly trace = new Trace();
  readonly events: TraceEvent[] = [];
  readonly programs = new Map<string, GuestProgram>();
  readonly memory: MemoryController;
  readonly host: LinuxHost;
  #hkid: number;

  constructor(options: { lps?: number; memoryBytes?: number; seed?: string } = {}) {
    const { lps = 2, memoryBytes = GIB, seed = "td-host" } = options;
    const random = new SeededRandom(new TextEncoder().encode(seed));
    const arena = new Arena({ residentBytes: 256 * 2 ** 20 });
    this.memory = new MemoryController(arena, { dramBytes: LinuxHost.dramBytes(memoryBytes), random });
    const processor = new Processor({
      arena,
      memory: this.memory,
      random,
      lps,
      engines: [new ProgramEngine({ programs: this.programs })],
    });
    registerTdxFirmware(processor, this.trace);
    this.host = LinuxHost.boot({
      processor,
      memoryBytes,
      firmware: { buildSeamldr: buildSeamldrAcm, module: buildModuleImage() },
    });
    this.#hkid = this.host.tdx!.firstKeyId + 1;
  }

  get lp(): LogicalProcessor {
    return this.host.lps[0];
  }
  listen(): TraceEvent[] {
    this.trace.subscribe((event) => this.events.push(event));
    return this.events;
  }
  nextHkid(): number {
    return this.#hkid++;
  }
  /** HPA of a new page (or an aligned block of 2^order) of host memory. */
  page(order = 0): number {
    return this.host.pages.allocPages(order, "test")! * PAGE_SIZE;
  }

  /** A SEAMCALL; the registers that are not given are zero. */
  call(name: SeamcallName, args: Partial<TdxModuleArgs> = {}, lp = this.lp, version = 0): Outputs {
    const all = tdxModuleArgs(args);
    const status = seamcallRet(lp, leaf(name, version), all);
    return { ...all, status };
  }
  /** A SEAMCALL that must succeed. */
  ok(name: SeamcallName, args: Partial<TdxModuleArgs> = {}, lp = this.lp, version = 0): Outputs {
    const outputs = this.call(name, args, lp, version);
    if (outputs.status !== 0n) throw new Error(`${name}: 0x${outputs.status.toString(16)}`);
    return outputs;
  }
  /** Type, owner and size of a page by TDH.PHYMEM.PAGE.RDMD. */
  pageType(hpa: number): number {
    return Number(this.ok("TDH.PHYMEM.PAGE.RDMD", { rcx: BigInt(hpa) }).rcx);
  }
  write(hpa: number, bytes: Uint8Array): void {
    const outcome = this.lp.memWrite(hpa as HpaAndKeyId, bytes);
    if (outcome.kind !== "ok") throw new Error(`write at 0x${hpa.toString(16)}: ${outcome.kind}`);
  }
}

const zeros = (length: number): Uint8Array => new Uint8Array(length);

/** TD_PARAMS of a small TD; CPUID all off that may be. */
export const tdParams = (changes: Partial<TdParams> = {}): TdParams => ({
  ATTRIBUTES: 1n << 28n,
  XFAM: 3n,
  MAX_VCPUS: 4,
  NUM_L2_VMS: 0,
  MSR_CONFIG_CTLS: 0,
  RESERVED_0: zeros(4),
  EPTP_CONTROLS: 6n | (3n << 3n),
  CONFIG_FLAGS: 4n,
  TSC_FREQUENCY: 100,
  RESERVED_1: zeros(38),
  MRCONFIGID: new Uint8Array(48).fill(1),
  MROWNER: new Uint8Array(48).fill(2),
  MROWNERCONFIG: new Uint8Array(48).fill(3),
  IA32_ARCH_CAPABILITIES_CONFIG: 0n,
  RESERVED_2: zeros(24),
  CPUID_CONFIG: [],
  ...changes,
});

export interface Vcpu {
  readonly tdvpr: number;
  readonly pages: number[];
}

/** A TD in steps; each page that it takes is remembered. */
export class Td {
  readonly tdr: number;
  readonly tdcx: number[] = [];
  readonly vcpus: Vcpu[] = [];
  /** Secure EPT pages: "GPA/level" to HPA. */
  readonly sept = new Map<string, number>();
  /** Private pages: GPA to HPA. */
  readonly pages = new Map<number, number>();
  readonly hkid: number;

  constructor(
    readonly at: TdHost,
    readonly lp: LogicalProcessor = at.lp,
    hkid?: number,
  ) {
    this.tdr = at.page();
    this.hkid = hkid ?? at.nextHkid();
  }
  get handle(): bigint {
    return BigInt(this.tdr);
  }
  ok(name: SeamcallName, args: Partial<TdxModuleArgs> = {}, version = 0): Outputs {
    return this.at.ok(name, args, this.lp, version);
  }

  /** MNG.CREATE, MNG.KEY.CONFIG, MNG.ADDCX. */
  create(tdcxPages = 6): this {
    this.ok("TDH.MNG.CREATE", { rcx: this.handle, rdx: BigInt(this.hkid) });
    this.ok("TDH.MNG.KEY.CONFIG", { rcx: this.handle });
    for (let i = 0; i < tdcxPages; i++) {
      const page = this.at.page();
      this.ok("TDH.MNG.ADDCX", { rcx: BigInt(page), rdx: this.handle });
      this.tdcx.push(page);
    }
    return this;
  }
  init(params: TdParams = tdParams()): this {
    const page = this.at.page();
    this.at.write(page, TD_PARAMS.encode(params));
    this.ok("TDH.MNG.INIT", { rcx: this.handle, rdx: BigInt(page) });
    return this;
  }
  addVcpu(rcx = 0n, x2apicId = this.vcpus.length, tdcxPages = 5): Vcpu {
    const vcpu: Vcpu = { tdvpr: this.at.page(), pages: [] };
    this.ok("TDH.VP.CREATE", { rcx: BigInt(vcpu.tdvpr), rdx: this.handle });
    for (let i = 0; i < tdcxPages; i++) {
      const page = this.at.page();
      this.ok("TDH.VP.ADDCX", { rcx: BigInt(page), rdx: BigInt(vcpu.tdvpr) });
      vcpu.pages.push(page);
    }
    this.ok("TDH.VP.INIT", { rcx: BigInt(vcpu.tdvpr), rdx: rcx, r8: BigInt(x2apicId) }, 1);
    this.vcpus.push(vcpu);
    return vcpu;
  }
  /** Secure EPT pages down to the table that holds the entry of `level` for this GPA. */
  addSept(gpa: number, level = 0): void {
    for (let l = 3; l > level; l--) {
      const base = gpa - (gpa % 2 ** (12 + 9 * l));
      const key = `${base}/${l}`;
      if (this.sept.has(key)) continue;
      const page = this.at.page();
      this.ok("TDH.MEM.SEPT.ADD", { rcx: BigInt(base + l), rdx: this.handle, r8: BigInt(page) });
      this.sept.set(key, page);
    }
  }
  addPage(gpa: number, contents: Uint8Array = zeros(PAGE_SIZE), measure = true): number {
    this.addSept(gpa);
    const [source, page] = [this.at.page(), this.at.page()];
    this.at.write(source, contents);
    this.ok("TDH.MEM.PAGE.ADD", {
      rcx: BigInt(gpa),
      rdx: this.handle,
      r8: BigInt(page),
      r9: BigInt(source),
    });
    this.pages.set(gpa, page);
    for (let chunk = 0; measure && chunk < PAGE_SIZE; chunk += 256)
      this.ok("TDH.MR.EXTEND", { rcx: BigInt(gpa + chunk), rdx: this.handle });
    this.at.host.pages.freePages((source / PAGE_SIZE) as never, 0);
    return page;
  }
  aug(gpa: number, level = 0): number {
    this.addSept(gpa, level);
    const page = this.at.page(9 * level);
    this.ok("TDH.MEM.PAGE.AUG", { rcx: BigInt(gpa + level), rdx: this.handle, r8: BigInt(page) });
    this.pages.set(gpa, page);
    return page;
  }
  finalize(): this {
    this.ok("TDH.MR.FINALIZE", { rcx: this.handle });
    return this;
  }
  enter(vcpu = this.vcpus[0], args: Partial<TdxModuleArgs> = {}, lp: LogicalProcessor = this.lp): Outputs {
    return this.at.call("TDH.VP.ENTER", { ...args, rcx: BigInt(vcpu.tdvpr) }, lp);
  }

  /** All pages that are the TD's, the TDR excepted. */
  get children(): number[] {
    return [
      ...this.tdcx,
      ...this.vcpus.flatMap(({ tdvpr, pages }) => [tdvpr, ...pages]),
      ...this.sept.values(),
      ...this.pages.values(),
    ];
  }
  /** Flush, key release and reclaim of each page. */
  destroy(): void {
    for (const { tdvpr } of this.vcpus) this.at.call("TDH.VP.FLUSH", { rcx: BigInt(tdvpr) }, this.lp);
    this.ok("TDH.MNG.VPFLUSHDONE", { rcx: this.handle });
    this.ok("TDH.PHYMEM.CACHE.WB");
    this.ok("TDH.MNG.KEY.FREEID", { rcx: this.handle });
    for (const page of this.children) this.ok("TDH.PHYMEM.PAGE.RECLAIM", { rcx: BigInt(page) });
    this.ok("TDH.PHYMEM.PAGE.RECLAIM", { rcx: this.handle });
    for (const page of [...this.children, this.tdr]) this.ok("TDH.PHYMEM.PAGE.WBINVD", { rcx: BigInt(page) });
  }
}

/** The page with the reset vector: its stub names `program`. */
export function resetPage(program: string): Uint8Array {
  const page = zeros(PAGE_SIZE);
  const header = encodeProgramHeader(program);
  const stub = PAGE_SIZE - PROGRAM_STUB_SIZE;
  page.set(header, 0);
  page.set(encodeProgramStub(-stub), stub);
  return page;
}
