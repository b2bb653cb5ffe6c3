/** SEAM root mode of a logical processor: the SeamContext that firmware gets. Steps and rules: interface/seam.ts. */
import type { Hpa, HpaAndKeyId, KeyId } from "@swtdx/abi";
import { REG, type RegisterFile } from "@swtdx/x86";
import type { Outcome, ValueOutcome, VmExit, VmFail, VmxOutcome } from "../interface/outcome.js";
import {
  PconfigStatus,
  SeamFirmwareError,
  SeamOps,
  SeamShutdown,
  type Cpuid,
  type KeyProgram,
  type SeamArena,
  type SeamContext,
  type SeamExtend,
  type SeamRange,
  type SeamReport,
  type SeamReportRequest,
} from "../interface/seam.js";
import type { LogicalProcessorUnit } from "../logical-processor.js";
import type { PhysicalMemory } from "../memory/physical.js";
import { GP0, OK } from "../outcomes.js";
import { Guest } from "../guest/guest.js";
import { copySeamExtend } from "./report.js";
import { xrstors, xsaves } from "./xsave.js";

export class SeamRootContext implements SeamContext {
  readonly #bytes = new Uint8Array(8);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #byte = this.#bytes.subarray(0, 1);
  readonly #word = this.#bytes.subarray(0, 2);
  readonly #dword = this.#bytes.subarray(0, 4);
  readonly #page = new Uint8Array(4096);
  /** The call in progress is one of the P-SEAMLDR. */
  pSeamldr = false;
  /** The firmware asked for VMfailInvalid. */
  failed = false;

  readonly #phys: PhysicalMemory;

  constructor(private readonly lp: LogicalProcessorUnit) {
    this.#phys = lp.phys;
  }

  get index(): number {
    return this.lp.index;
  }
  get packageIndex(): number {
    return this.lp.processor.packageIndex;
  }
  get regs(): RegisterFile {
    return this.lp.regs;
  }
  rdtsc(): bigint {
    return this.lp.tsc;
  }
  rdtscNumber(): number {
    return this.lp.tscNumber;
  }

  #check(status: number): void {
    if (status !== 0) {
      this.lp.machineCheck(this.lp.phys.faultHpa, false);
      this.shutdown(`machine check at 0x${this.lp.phys.faultHpa.toString(16)}`);
    }
  }
  keyhole(pa: Hpa, keyId: KeyId): number {
    return this.#phys.frameForWrite(Math.floor(pa / 4096), keyId, true);
  }
  get keyholes(): number {
    return this.#phys.mappings;
  }
  get arena(): SeamArena {
    return this.#phys;
  }
  read(pa: Hpa, keyId: KeyId, target: Uint8Array): void {
    this.#check(this.lp.phys.read(pa, keyId, target, true));
  }
  write(pa: Hpa, keyId: KeyId, source: Uint8Array): void {
    this.#check(this.lp.phys.write(pa, keyId, source, true));
  }
  #offset(pa: number, keyId: number): number {
    const frame = Math.floor(pa / 4096);
    const base = this.#phys.frameForRead(frame, keyId, true);
    return base < 0 ? -1 : base + (pa - frame * 4096);
  }
  #writeOffset(pa: number, keyId: number): number {
    const frame = Math.floor(pa / 4096);
    const base = this.#phys.frameForWrite(frame, keyId, true);
    return base < 0 ? -1 : base + (pa - frame * 4096);
  }
  readU8(pa: Hpa, keyId: KeyId): number {
    const at = this.#offset(pa, keyId);
    if (at >= 0) return this.#phys.u8[at];
    this.read(pa, keyId, this.#byte);
    return this.#bytes[0];
  }
  readU16(pa: Hpa, keyId: KeyId): number {
    const at = this.#offset(pa, keyId);
    if (at >= 0 && at % 2 === 0) return this.#phys.u8[at] | (this.#phys.u8[at + 1] << 8);
    this.read(pa, keyId, this.#word);
    return this.#view.getUint16(0, true);
  }
  readU32(pa: Hpa, keyId: KeyId): number {
    const at = this.#offset(pa, keyId);
    if (at >= 0 && at % 4 === 0) return this.#phys.u32[at / 4];
    this.read(pa, keyId, this.#dword);
    return this.#view.getUint32(0, true);
  }
  readU64(pa: Hpa, keyId: KeyId): bigint {
    const at = this.#offset(pa, keyId);
    if (at >= 0 && at % 8 === 0) return this.#phys.u64[at / 8];
    this.read(pa, keyId, this.#bytes);
    return this.#view.getBigUint64(0, true);
  }
  low = 0;
  high = 0;
  readHalves(pa: Hpa, keyId: KeyId): void {
    this.#check(this.#phys.readQ(pa, keyId, true));
    this.low = this.#phys.lo;
    this.high = this.#phys.hi;
  }
  writeHalves(pa: Hpa, keyId: KeyId, low: number, high: number): void {
    this.#check(this.#phys.writeQ(pa, keyId, low, high, true));
  }
  writeU8(pa: Hpa, keyId: KeyId, value: number): void {
    const at = this.#writeOffset(pa, keyId);
    if (at >= 0) {
      this.#phys.u8[at] = value;
      return;
    }
    this.#bytes[0] = value;
    this.write(pa, keyId, this.#byte);
  }
  writeU16(pa: Hpa, keyId: KeyId, value: number): void {
    const at = this.#writeOffset(pa, keyId);
    if (at >= 0 && at % 2 === 0) {
      this.#phys.u8[at] = value;
      this.#phys.u8[at + 1] = value >>> 8;
      return;
    }
    this.#view.setUint16(0, value, true);
    this.write(pa, keyId, this.#word);
  }
  writeU32(pa: Hpa, keyId: KeyId, value: number): void {
    const at = this.#writeOffset(pa, keyId);
    if (at >= 0 && at % 4 === 0) {
      this.#phys.u32[at / 4] = value;
      return;
    }
    this.#view.setUint32(0, value, true);
    this.write(pa, keyId, this.#dword);
  }
  writeU64(pa: Hpa, keyId: KeyId, value: bigint): void {
    const at = this.#writeOffset(pa, keyId);
    if (at >= 0 && at % 8 === 0) {
      this.#phys.u64[at / 8] = value;
      return;
    }
    this.#view.setBigUint64(0, value, true);
    this.write(pa, keyId, this.#bytes);
  }
  zero(pa: Hpa, keyId: KeyId, length: number): void {
    this.lp.phys.zero(pa, keyId, length, true);
  }
  copy(target: Hpa, targetKeyId: KeyId, source: Hpa, sourceKeyId: KeyId, length: number): void {
    for (let done = 0; done < length;) {
      const count = Math.min(4096 - ((source + done) % 4096), 4096 - ((target + done) % 4096), length - done);
      const part = this.#page.subarray(0, count);
      this.read((source + done) as Hpa, sourceKeyId, part);
      this.write((target + done) as Hpa, targetKeyId, part);
      done += count;
    }
  }

  #vmx(outcome: VmxOutcome): VmFail | null {
    if (outcome.kind === "ok") return null;
    if (outcome.kind === "fault") {
      if (outcome.vector === 18) this.shutdown("machine check in a VMX instruction");
      throw new SeamFirmwareError(`VMX instruction faulted with vector ${outcome.vector}`);
    }
    return outcome;
  }
  vmclear(vmcs: HpaAndKeyId): VmFail | null {
    return this.#vmx(this.lp.vmx.vmclear(vmcs, true));
  }
  vmptrld(vmcs: HpaAndKeyId): VmFail | null {
    return this.#vmx(this.lp.vmx.vmptrld(vmcs, true));
  }
  vmptrst(): HpaAndKeyId | null {
    const current = this.lp.vmx.current;
    return current && current.pa >= 0 ? (current.pa as HpaAndKeyId) : null;
  }
  vmread(field: number): bigint {
    const { current } = this.lp.vmx;
    const value = current === null ? null : current.read(field);
    if (value !== null) return value;
    const outcome = this.lp.vmx.vmread(field);
    if (outcome.kind !== "ok") throw new SeamFirmwareError(`VMREAD of field 0x${field.toString(16)}`);
    return outcome.value;
  }
  vmwrite(field: number, value: bigint): void {
    const outcome = this.lp.vmx.vmwrite(field, value);
    if (outcome.kind !== "ok") throw new SeamFirmwareError(`VMWRITE of field 0x${field.toString(16)}`);
  }
  vmreadLow(field: number): number {
    const value = this.lp.vmx.current?.readLow(field) ?? -1;
    if (value < 0) throw new SeamFirmwareError(`VMREAD of field 0x${field.toString(16)}`);
    return value;
  }
  vmreadHigh(field: number): number {
    const value = this.lp.vmx.current?.readHigh(field) ?? -1;
    if (value < 0) throw new SeamFirmwareError(`VMREAD of field 0x${field.toString(16)}`);
    return value;
  }
  vmwriteHalves(field: number, low: number, high: number): void {
    if (this.lp.vmx.current?.writeHalves(field, low, high) !== true)
      throw new SeamFirmwareError(`VMWRITE of field 0x${field.toString(16)}`);
  }
  #enter(launch: boolean): VmExit | VmFail {
    const outcome = this.lp.vmx.enter(launch, true);
    if (outcome.kind === "fault")
      throw new SeamFirmwareError(`VM entry faulted with vector ${outcome.vector}`);
    return outcome;
  }
  vmlaunch(): VmExit | VmFail {
    return this.#enter(true);
  }
  vmresume(): VmExit | VmFail {
    return this.#enter(false);
  }
  /** The check that the last failed VM entry stumbled on: a help for firmware authors. */
  get entryFailure(): string {
    return this.lp.vmx.entryFailure;
  }
  invept(type: 1 | 2, eptp = 0n): VmFail | null {
    return this.#vmx(this.lp.vmx.invept(type, eptp));
  }
  invvpid(type: 0 | 1 | 2 | 3, vpid = 0, gla = 0n): VmFail | null {
    return this.#vmx(this.lp.vmx.invvpid(type, vpid, gla));
  }

  cpuid(leaf: number, subleaf: number): Cpuid {
    return this.lp.cpuid(leaf, subleaf);
  }
  rdmsr(index: number): ValueOutcome<bigint> {
    return this.lp.rdmsr(index);
  }
  wrmsr(index: number, value: bigint): Outcome {
    return this.lp.wrmsr(index, value);
  }
  rdmsrLow(index: number): number {
    return this.lp.msrs.readHalf(index, false);
  }
  rdmsrHigh(index: number): number {
    return this.lp.msrs.readHalf(index, true);
  }
  xgetbv(): bigint {
    return this.lp.regs.get(REG.XCR0);
  }
  xsetbv(value: bigint): Outcome {
    if (!Guest.validXcr0(value)) return GP0;
    this.lp.regs.set(REG.XCR0, value);
    return OK;
  }
  xsaves(pa: Hpa, keyId: KeyId, mask: number): void {
    xsaves(this, pa, keyId, mask);
  }
  xrstors(pa: Hpa, keyId: KeyId, mask: number): void {
    xrstors(this, pa, keyId, mask);
  }
  rdrand(): bigint | null {
    return this.lp.random.u64();
  }
  rdseed(): bigint | null {
    return this.lp.random.u64();
  }

  pconfig(key: KeyProgram): number {
    if (!this.lp.phys.isPrivate(key.keyId)) return PconfigStatus.INVALID_KEYID;
    return this.lp.unit.programKey(key);
  }
  wbinvd(): void {
    // Caches are not modelled apart from DRAM: everything is written back already.
  }
  wbnoinvd(): void {
    // As WBINVD.
  }

  get seamRange(): SeamRange {
    return this.lp.processor.seamRange;
  }
  seamopsCapabilities(): bigint {
    let bits = 0n;
    for (const leaf of Object.values(SeamOps)) bits |= 1n << BigInt(leaf);
    return bits;
  }
  seamreport(request: SeamReportRequest): SeamReport {
    return this.lp.unit.reports.seamreport(request);
  }
  seamdbGetref(): { index: bigint; nonce: Uint8Array; size: bigint } {
    return this.lp.unit.reports.seamdbGetref();
  }
  seamdbReport(
    request: SeamReportRequest,
    index: bigint,
    nonce: Uint8Array,
  ): SeamReport | { status: number } {
    return this.lp.unit.reports.seamdbReport(request, index, nonce);
  }
  seamdbClear(): number {
    this.#loaderOnly("SEAMDB_CLEAR");
    return this.lp.unit.reports.seamdbClear();
  }
  seamdbInsert(): number {
    this.#loaderOnly("SEAMDB_INSERT");
    return this.lp.unit.reports.seamdbInsert();
  }
  seamverifyreport(reportMacStruct: Uint8Array): number {
    return this.lp.unit.reports.verify(reportMacStruct);
  }
  readSeamExtend(): SeamExtend {
    return copySeamExtend(this.lp.unit.reports.extend);
  }
  writeSeamExtend(value: SeamExtend): void {
    this.#loaderOnly("IA32_SEAMEXTEND");
    this.lp.unit.reports.extend = copySeamExtend(value);
  }
  setModuleEntry(entry: Hpa | null): void {
    this.#loaderOnly("the SEAM transfer VMCS");
    this.lp.unit.setModuleEntry(entry);
  }
  #loaderOnly(what: string): void {
    if (!this.pSeamldr) this.shutdown(`${what} is the P-SEAMLDR's`);
  }

  vmFailInvalid(): void {
    this.failed = true;
  }
  get interruptPending(): boolean {
    return this.lp.interruptPending;
  }
  shutdown(reason: string): never {
    throw new SeamShutdown(`logical processor ${this.lp.index}: ${reason}`);
  }
}
