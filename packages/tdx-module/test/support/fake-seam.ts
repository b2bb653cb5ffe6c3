/**
 * A logical processor in SEAM root mode for tests of the module's guest side alone: memory per KeyID, one VMCS, and
 * VM exits that the test scripts. What the processor really does is tested with @swtdx/cpu.
 */
import type { Hpa, KeyId } from "@swtdx/abi";
import { Trace } from "@swtdx/abi";
import { Gpr, REG, RegisterFile, REGISTER_FILE_SIZE, type SeamContext, type VmExit, VMCS } from "@swtdx/cpu";
import { HeldLocks } from "../../src/locks.js";
import {
  initTdVmcs,
  prepareTdVmcs,
  tdVmcsAddress,
  initTdvpsFields,
  type TdVmcsPlatform,
} from "../../src/entry/td-vmcs-init.js";
import { initVcpuRegisters } from "../../src/entry/vp-init-state.js";
import { enterTd, decodeVcpuAndFlags } from "../../src/entry/td-entry.js";
import { tdhVpEnter, type VpEnterHost } from "../../src/entry/tdh-vp-enter.js";
import { VpContext, type GuestSidePlatform } from "../../src/entry/vp-context.js";
import type { GuestMetadata } from "../../src/guest/metadata-access.js";
import { SeamCall } from "../../src/call.js";
import {
  GIB,
  Level,
  PageType,
  pamtEntryPa,
  pamtOwner,
  setPamtEntry,
  type TdmrEntry,
} from "../../src/structures/pamt.js";
import { SeptEntry, SeptState, septIndex, type SeptState as State } from "../../src/structures/sept.js";
import { OpState, TDCS, TdcsStructure } from "../../src/structures/tdcs.js";
import { LifecycleState, TDR, TdrStructure } from "../../src/structures/tdr.js";
import { TDVPS, TdvpsStructure, VcpuState } from "../../src/structures/tdvps.js";
import { buildMsrBitmaps } from "../../src/tables/msr.js";
import { tdFeatures } from "../../src/tables/td-features.js";
import type { CpuidQuad } from "../../src/tables/cpuid.js";

export const GLOBAL_HKID = 32;
export const TD_HKID = 33;
export const KEY_SHIFT = 46;
const VALID_INTR = 1n << 31n;
const IA32_XSS = 0xda0;

/** What the guest does up to its next VM exit. */
export type GuestStep = (lp: FakeLp) => {
  reason: number;
  qualification?: bigint;
  fields?: [number, bigint][];
};

export class FakeLp {
  readonly index = 0;
  readonly packageIndex = 0;
  readonly regs = new RegisterFile(new ArrayBuffer(REGISTER_FILE_SIZE + 64), 0);
  readonly vmcs = new Map<number, bigint>();
  readonly msrs = new Map<number, bigint>([
    [0x48, 0n],
    [0x600, 0n],
    [0x1a0, 1n << 18n],
    [0x3b, 0n],
    [0x49, 0n],
  ]);
  readonly #pages = new Map<number, Uint8Array>();
  readonly steps: GuestStep[] = [];
  /** Events that were injected at VM entries. */
  readonly injected: bigint[] = [];
  invepts = 0;
  interruptPending = false;
  tsc = 1000n;

  #page(pa: number, key: number): Uint8Array {
    const at = Math.floor(pa / 4096) * 64 + key;
    let page = this.#pages.get(at);
    if (!page) this.#pages.set(at, (page = new Uint8Array(4096)));
    return page;
  }
  view(pa: number, key: number): DataView {
    const page = this.#page(pa, key);
    return new DataView(page.buffer, pa % 4096);
  }
  /** Nothing can be mapped: every access is one by itself. */
  keyhole = (): number => -1;
  readonly keyholes = 0;
  readonly arena = { u8: new Uint8Array(), u32: new Uint32Array(), u64: new BigUint64Array() };
  read(pa: number, key: number, target: Uint8Array): void {
    target.set(this.#page(pa, key).subarray(pa % 4096, (pa % 4096) + target.length));
  }
  write(pa: number, key: number, source: Uint8Array): void {
    this.#page(pa, key).set(source, pa % 4096);
  }
  readU8 = (pa: number, key: number): number => this.view(pa, key).getUint8(0);
  readU16 = (pa: number, key: number): number => this.view(pa, key).getUint16(0, true);
  readU32 = (pa: number, key: number): number => this.view(pa, key).getUint32(0, true);
  readU64 = (pa: number, key: number): bigint => this.view(pa, key).getBigUint64(0, true);
  low = 0;
  high = 0;
  readHalves(pa: number, key: number): void {
    this.low = this.readU32(pa, key);
    this.high = this.readU32(pa + 4, key);
  }
  writeHalves(pa: number, key: number, low: number, high: number): void {
    this.writeU32(pa, key, low);
    this.writeU32(pa + 4, key, high);
  }
  writeU8 = (pa: number, key: number, v: number): void => this.view(pa, key).setUint8(0, v);
  writeU16 = (pa: number, key: number, v: number): void => this.view(pa, key).setUint16(0, v, true);
  writeU32 = (pa: number, key: number, v: number): void => this.view(pa, key).setUint32(0, v, true);
  writeU64 = (pa: number, key: number, v: bigint): void => this.view(pa, key).setBigUint64(0, v, true);
  zero(pa: number, key: number, length: number): void {
    for (let at = 0; at < length; at += 4096) this.#page(pa + at, key).fill(0, (pa + at) % 4096, 4096);
  }
  vmclear = (): null => null;
  vmptrld = (): null => null;
  vmread = (field: number): bigint => this.vmcs.get(field) ?? 0n;
  vmwrite(field: number, value: bigint): void {
    const width = (field >> 13) & 3;
    const mask = width === 0 ? 0xffffn : width === 2 ? 0xffff_ffffn : 0xffff_ffff_ffff_ffffn;
    this.vmcs.set(field, value & mask);
  }
  vmreadLow = (field: number): number => Number(this.vmread(field) & 0xffff_ffffn);
  vmreadHigh = (field: number): number => Number(this.vmread(field) >> 32n);
  vmwriteHalves(field: number, low: number, high: number): void {
    this.vmwrite(field, (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0));
  }
  vmlaunch(): VmExit {
    this.tsc += 100n;
    const event = this.vmread(VMCS.VM_ENTRY_INTR_INFO_FIELD);
    if ((event & VALID_INTR) !== 0n) this.injected.push(event);
    this.vmwrite(VMCS.VM_ENTRY_INTR_INFO_FIELD, 0n);
    const step = this.steps.shift();
    if (!step) throw new Error("the guest's script is over");
    this.vmwrite(VMCS.IDT_VECTORING_INFO_FIELD, 0n);
    this.vmwrite(VMCS.VM_EXIT_INTR_INFO, 0n);
    this.vmwrite(VMCS.VM_EXIT_INSTRUCTION_LEN, 0n);
    const { reason, qualification = 0n, fields = [] } = step(this);
    this.vmwrite(VMCS.VM_EXIT_REASON, BigInt(reason >>> 0));
    this.vmwrite(VMCS.EXIT_QUALIFICATION, qualification);
    for (const [field, value] of fields) this.vmwrite(field, value);
    return { kind: "exit", reason };
  }
  vmresume = (): VmExit => this.vmlaunch();
  invept(): null {
    this.invepts++;
    return null;
  }
  rdtsc = (): bigint => this.tsc;
  rdtscNumber = (): number => Number(this.tsc);
  cpuid = (leaf: number): { eax: number; ebx: number; ecx: number; edx: number } => ({
    eax: leaf,
    ebx: 0x440,
    ecx: 0,
    edx: 0,
  });
  rdmsr(index: number): { kind: "ok"; value: bigint } | { kind: "fault"; vector: number; errorCode: number } {
    const value = index === IA32_XSS ? this.regs.get(REG.XSS) : this.msrs.get(index);
    return value === undefined ? { kind: "fault", vector: 13, errorCode: 0 } : { kind: "ok", value };
  }
  wrmsr(index: number, value: bigint): { kind: "ok" } | { kind: "fault"; vector: number; errorCode: number } {
    if (index === IA32_XSS) this.regs.set(REG.XSS, value);
    else if (!this.msrs.has(index)) return { kind: "fault", vector: 13, errorCode: 0 };
    else this.msrs.set(index, value);
    return { kind: "ok" };
  }
  #half(index: number, shift: bigint): number {
    const outcome = this.rdmsr(index);
    return outcome.kind === "ok" ? Number((outcome.value >> shift) & 0xffff_ffffn) : -1;
  }
  rdmsrLow = (index: number): number => this.#half(index, 0n);
  rdmsrHigh = (index: number): number => this.#half(index, 32n);
  xgetbv = (): bigint => this.regs.get(REG.XCR0);
  xsetbv(value: bigint): { kind: "ok" } {
    this.regs.set(REG.XCR0, value);
    return { kind: "ok" };
  }
  xsaves(pa: number, key: number, mask: number): void {
    this.write(pa + 160, key, this.#xmm());
    this.writeU64(pa + 512, key, 3n);
    this.writeU64(pa + 520, key, BigInt(mask) | (1n << 63n));
  }
  xrstors(pa: number, key: number): void {
    const xmm = new Uint8Array(256);
    if (this.readU64(pa + 512, key) & 2n) this.read(pa + 160, key, xmm);
    for (let i = 0; i < 16; i++) this.regs.u8.set(xmm.subarray(i * 16, i * 16 + 16), REG.ZMM + i * 64);
  }
  #xmm(): Uint8Array {
    const out = new Uint8Array(256);
    for (let i = 0; i < 16; i++)
      out.set(this.regs.u8.subarray(REG.ZMM + i * 64, REG.ZMM + i * 64 + 16), i * 16);
    return out;
  }
  seamdbReport(request: { reportData: Uint8Array; teeInfoHash: Uint8Array }): {
    reportMacStruct: Uint8Array;
    teeTcbInfo: Uint8Array;
  } {
    const mac = new Uint8Array(256);
    mac[0] = 0x81;
    mac.set(request.teeInfoHash, 80);
    mac.set(request.reportData, 128);
    return { reportMacStruct: mac, teeTcbInfo: new Uint8Array(239).fill(7) };
  }
  seamverifyreport = (mac: Uint8Array): number => (mac[0] === 0x81 ? 0 : 5);
  shutdown(reason: string): never {
    throw new Error(`SEAM shutdown: ${reason}`);
  }
}

const crFixed = { cr0Fixed0: 0x80000021n, cr0Fixed1: 0xffffffffn, cr4Fixed0: 0x2000n, cr4Fixed1: 0x3f767ffn };

export interface TestTdOptions {
  readonly attributes?: bigint;
  readonly xfam?: bigint;
  readonly configFlags?: bigint;
  readonly tdCtls?: bigint;
  readonly metadata?: Partial<GuestMetadata>;
  /** SEAM root mode of a real processor; by default FakeLp. */
  readonly seam?: {
    readonly ctx: SeamContext;
    readonly platform: Partial<GuestSidePlatform & TdVmcsPlatform>;
  };
}

/** A TD with one vCPU, as after TDH.VP.INIT and TDH.MR.FINALIZE. */
export class TestTd {
  readonly lp = new FakeLp();
  readonly ctx: SeamContext;
  readonly trace = new Trace();
  readonly tdr: TdrStructure;
  readonly tdcs: TdcsStructure;
  readonly tdvps: TdvpsStructure;
  readonly platform: GuestSidePlatform & TdVmcsPlatform;
  lastTdvpr = -1;
  #nextPage = 0x400000;
  readonly #sept = new SeptEntry();

  constructor(options: TestTdOptions = {}) {
    const ctx = (this.ctx = options.seam?.ctx ?? (this.lp as unknown as SeamContext));
    const key = (n: number): KeyId => n as KeyId;
    const base = 0x100000;
    ctx.zero(base as Hpa, key(GLOBAL_HKID), 0x1000);
    ctx.zero((base + 0x1000) as Hpa, key(TD_HKID), 0x6000);
    this.tdr = new TdrStructure(ctx, base as Hpa, key(GLOBAL_HKID));
    this.tdr.set(TDR.HKID, TD_HKID);
    for (let i = 0; i < 6; i++) this.tdr.setAt(TDR.TDCX_PA, i, BigInt(base + 0x1000 * (i + 1)));
    this.tdcs = new TdcsStructure(this.tdr);
    const tdvpr = 0x200000;
    ctx.zero(tdvpr as Hpa, key(TD_HKID), 0x6000);
    for (let i = 0; i < 6; i++)
      ctx.writeU64(
        (tdvpr + TDVPS.TDVPS_PAGE_PA.offset + i * 8) as Hpa,
        key(TD_HKID),
        BigInt(tdvpr + i * 0x1000),
      );
    this.tdvps = new TdvpsStructure(ctx, tdvpr as Hpa, key(TD_HKID));
    this.platform = {
      trace: this.trace,
      metadata: options.metadata as GuestMetadata,
      crFixed,
      xcr0Supported: 0xe7n,
      xssSupported: 0x1900n,
      tsxCtrl: false,
      perfCapabilities: 0n,
      seamverifyreportAvailable: true,
      keyIdShift: KEY_SHIFT,
      isSharedHpa: (pa) => pa < 32 * 2 ** KEY_SHIFT,
      tdVmcsValues: {
        pinbased: 0x3fn,
        procbased: 0x952661fan,
        procbased2: 0x133cb3fan,
        procbased3: 0n,
        exit: 0x1f3fefffn,
        entry: 0x3ed1ffn,
      },
      ddpdSupported: false,
      vmcsRevisionId: 0x12,
      ...options.seam?.platform,
    };
    const { tdcs, tdvps } = this;
    const attributes = options.attributes ?? 1n << 28n;
    const xfam = options.xfam ?? 7n;
    tdcs.set(TDCS.ATTRIBUTES, attributes);
    tdcs.set(TDCS.XFAM, xfam);
    tdcs.set(TDCS.MAX_VCPUS, 4);
    tdcs.set(TDCS.NUM_VCPUS, 1);
    tdcs.set(TDCS.CONFIG_FLAGS, options.configFlags ?? 4n);
    tdcs.set(TDCS.TD_CTLS, options.tdCtls ?? 1n);
    tdcs.set(TDCS.TD_EPOCH, 1n);
    const rootKey = BigInt(TD_HKID) << BigInt(KEY_SHIFT);
    tdcs.set(TDCS.EPTP, BigInt(tdcs.page(3)) | rootKey | (3n << 3n) | 6n);
    this.#fillTable(tdcs.page(3));
    tdcs.setBytes(
      TDCS.MSR_BITMAPS,
      buildMsrBitmaps(tdFeatures(attributes, xfam, { waitpkg: false, xfd: false, tsx: false }, false)),
    );
    tdvps.set(TDVPS.XFAM, xfam);
    initVcpuRegisters(tdcs, tdvps, 0x809000n, 0x806f8);
    initTdvpsFields(tdvps, this.platform);
    tdvps.set(TDVPS.VCPU_STATE, VcpuState.VCPU_READY);
    prepareTdVmcs(ctx, tdvps, this.platform);
    ctx.vmptrld(tdVmcsAddress(tdvps, KEY_SHIFT));
    initTdVmcs(ctx, tdcs, tdvps, this.platform);
  }

  /** The guest is in 64-bit mode at CPL 0. */
  longMode(rip = 0x1000n): this {
    this.ctx.vmwrite(VMCS.GUEST_IA32_EFER, 0xd01n);
    this.ctx.vmwrite(VMCS.GUEST_CS_AR_BYTES, 0xa09bn);
    this.ctx.vmwrite(VMCS.GUEST_RIP, rip);
    return this;
  }

  setCpuid(index: number, [eax, ebx, ecx, edx]: CpuidQuad): void {
    const view = new DataView(new ArrayBuffer(16));
    [eax, ebx, ecx, edx].forEach((word, i) => view.setUint32(i * 4, word, true));
    this.ctx.write(
      (this.tdcs.pa(TDCS.CPUID_VALUES.offset) + index * 16) as Hpa,
      TD_HKID as KeyId,
      new Uint8Array(view.buffer),
    );
  }

  #fillTable(pa: number): void {
    const entry = new SeptEntry();
    entry.keyId = TD_HKID as KeyId;
    for (let i = 0; i < 512; i++) {
      entry.pa = (pa + i * 8) as Hpa;
      entry.setFree();
      entry.write(this.ctx);
    }
  }

  /** Puts a leaf of `level` at a GPA of the Secure EPT, with the tables above it. @returns its HPA */
  map(gpa: number, state: State, level = 0): number {
    const entry = this.#sept;
    entry.keyId = TD_HKID as KeyId;
    let table: number = this.tdcs.page(3);
    for (let at = 3; at > level; at--) {
      entry.pa = (table + septIndex(gpa, at) * 8) as Hpa;
      entry.level = at;
      entry.read(this.ctx);
      if (entry.state === SeptState.FREE) {
        const page = this.#nextPage;
        this.#nextPage += 0x1000;
        this.ctx.zero(page as Hpa, TD_HKID as KeyId, 0x1000);
        this.#fillTable(page);
        entry.setTable(page);
        entry.write(this.ctx);
      }
      table = entry.hpa;
    }
    entry.pa = (table + septIndex(gpa, level) * 8) as Hpa;
    entry.level = level;
    const size = 2 ** (12 + 9 * level);
    const hpa = Math.ceil(this.#nextPage / size) * size;
    this.#nextPage = hpa + size;
    entry.setLeaf(state, hpa, state === SeptState.MAPPED ? 7 : 0);
    entry.write(this.ctx);
    if (level === 0) this.ctx.zero(hpa as Hpa, TD_HKID as KeyId, 0x1000);
    return hpa;
  }
  septState(gpa: number, level = 0): State {
    let table: number = this.tdcs.page(3);
    const entry = this.#sept;
    entry.keyId = TD_HKID as KeyId;
    for (let at = 3; ; at--) {
      entry.pa = (table + septIndex(gpa, at) * 8) as Hpa;
      entry.read(this.ctx);
      if (at === level) return entry.state;
      table = entry.hpa;
    }
  }

  /** Runs TDH.VP.ENTER's second part. @returns RAX as the VMM sees it */
  enter(...steps: GuestStep[]): bigint {
    const { lp, ctx } = this;
    lp.steps.push(...steps);
    const { regs } = ctx;
    const vp = new VpContext(ctx, this.platform, this.tdr, this.tdcs, this.tdvps, new HeldLocks());
    vp.hkid = TD_HKID as KeyId;
    const flags = decodeVcpuAndFlags(this.tdvps.tdvprPa, 0)!;
    const status = enterTd(vp, {
      flags,
      newAssociation: false,
      tscAdjust: 0n,
      lastTdvpr: this.lastTdvpr,
      pageLocks: 0,
    });
    this.lastTdvpr = flags.tdvpr;
    return status ?? regs.gpr(Gpr.RAX);
  }
}

/** The PAMT of the tests' one TDMR, the first GiB of memory. */
const TDMR: TdmrEntry = {
  base: 0,
  size: GIB,
  lastInitialized: GIB,
  pamt1gBase: 0x2000_0000,
  pamt2mBase: 0x2100_0000,
  pamt4kBase: 0x2200_0000,
  reserved: [],
  lock: false,
};

/** TDH.VP.ENTER itself on a TestTd whose pages the PAMT knows. */
export class VpEnterRun {
  readonly host: { -readonly [K in keyof VpEnterHost]: VpEnterHost[K] };
  readonly pamtTdvpr: Hpa;
  readonly pamtTdr: Hpa;

  constructor(
    readonly td: TestTd,
    readonly rcx: bigint,
  ) {
    const { ctx } = td;
    td.tdcs.set(TDCS.OP_STATE, OpState.RUNNABLE);
    td.tdr.set(TDR.LIFECYCLE_STATE, LifecycleState.TD_KEYS_CONFIGURED);
    td.tdr.set(TDR.NUM_TDCX, 6);
    td.tdvps.set(TDVPS.NUM_TDVPS_PAGES, 6);
    td.tdvps.set(TDVPS.ASSOC_LPID, ctx.index);
    for (const level of [Level.PT_4KB, Level.PT_2MB, Level.PT_1GB])
      for (const page of [td.tdvps.tdvprPa, td.tdr.base]) {
        const entry = pamtEntryPa(TDMR, page, level);
        ctx.zero((entry - (entry % 4096)) as Hpa, GLOBAL_HKID as KeyId, 4096);
      }
    this.pamtTdvpr = pamtEntryPa(TDMR, td.tdvps.tdvprPa, Level.PT_4KB);
    this.pamtTdr = pamtEntryPa(TDMR, td.tdr.base, Level.PT_4KB);
    setPamtEntry(ctx, this.pamtTdvpr, GLOBAL_HKID as KeyId, PageType.PT_TDVPR, td.tdr.base);
    setPamtEntry(ctx, this.pamtTdr, GLOBAL_HKID as KeyId, PageType.PT_TDR, 0);
    this.host = { guestSide: td.platform, tscAdjust: 0n, lastTdvpr: [] };
  }

  /** @returns RAX */
  run(...steps: GuestStep[]): bigint {
    const { lp, ctx } = this.td;
    lp.steps.push(...steps);
    ctx.regs.setGpr(Gpr.RCX, this.rcx);
    const call = new SeamCall(ctx, {
      tdmrs: [TDMR],
      globalHkid: GLOBAL_HKID as KeyId,
      keyIdShift: KEY_SHIFT,
      pamtOwner: (_lp: SeamContext, entry: Hpa) => pamtOwner(ctx, entry, GLOBAL_HKID as KeyId),
    } as unknown as SeamCall["module"]);
    call.leaf = 0;
    const status = tdhVpEnter(call, this.host);
    call.release();
    return status;
  }
}

const LENGTH = (length: number): [number, bigint][] => [[VMCS.VM_EXIT_INSTRUCTION_LEN, BigInt(length)]];
/** The guest executes TDCALL with these registers. */
export const tdcall =
  (registers: Partial<Record<keyof typeof Gpr, bigint>>): GuestStep =>
  (lp) => {
    for (const [name, value] of Object.entries(registers))
      lp.regs.setGpr(Gpr[name as keyof typeof Gpr], value);
    return { reason: 77, fields: LENGTH(4) };
  };
/** The guest executes an instruction that exits with this reason. */
export const instruction =
  (
    reason: number,
    length: number,
    registers: Partial<Record<keyof typeof Gpr, bigint>> = {},
    qualification = 0n,
  ): GuestStep =>
  (lp) => {
    for (const [name, value] of Object.entries(registers))
      lp.regs.setGpr(Gpr[name as keyof typeof Gpr], value);
    return { reason, qualification, fields: LENGTH(length) };
  };
/** An external interrupt ends the run; before that `look` inspects the guest. */
export const stop =
  (look: (lp: FakeLp) => void = () => undefined): GuestStep =>
  (lp) => {
    look(lp);
    return { reason: 1, fields: [[VMCS.VM_EXIT_INTR_INFO, 0x800000f3n]] };
  };
