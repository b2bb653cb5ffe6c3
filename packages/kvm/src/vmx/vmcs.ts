/** A VMCS as KVM uses it: made current on its logical processor before each access. Source: Linux arch/x86/kvm/vmx/vmx_ops.h. */
import { type HpaAndKeyId, PAGE_SIZE, type Pfn } from "@swtdx/abi";
import { VMCS, type VmcsFieldName, VMCS_REVISION } from "@swtdx/cpu";
import type { LogicalProcessor } from "@swtdx/linux-host";

/** A VMX instruction failed that cannot: a bug of KVM's. */
export class VmxBug extends Error {
  override readonly name = "VmxBug";
}

/** Which VMCS KVM has loaded on a logical processor. */
interface Loaded {
  vmcs: VmcsAccess | null;
}
const loaded = new WeakMap<LogicalProcessor, Loaded>();
function loadedOn(lp: LogicalProcessor): Loaded {
  let found = loaded.get(lp);
  if (!found) loaded.set(lp, (found = { vmcs: null }));
  return found;
}

export class VmcsAccess {
  /** VMLAUNCH has happened: VMRESUME from now on. */
  launched = false;
  readonly #pa: HpaAndKeyId;
  readonly #loaded: Loaded;

  constructor(
    readonly lp: LogicalProcessor,
    page: Pfn,
  ) {
    this.#pa = (page * PAGE_SIZE) as HpaAndKeyId;
    this.#loaded = loadedOn(lp);
    lp.memZero(this.#pa, PAGE_SIZE);
    lp.memWriteU64(this.#pa, BigInt(VMCS_REVISION));
    this.#check("VMCLEAR", lp.vmclear(this.#pa).kind);
  }

  #check(what: string, kind: string): void {
    if (kind !== "ok") throw new VmxBug(`${what}: ${kind}`);
  }

  /** VMPTRLD, unless it is current. */
  load(): void {
    if (this.#loaded.vmcs === this) return;
    this.#check("VMPTRLD", this.lp.vmptrld(this.#pa).kind);
    this.#loaded.vmcs = this;
  }

  /** The halves of a field, by encoding: what every exit looks at. */
  low(field: number): number {
    this.load();
    const value = this.lp.vmreadLow(field);
    if (value < 0) throw new VmxBug(`VMREAD 0x${field.toString(16)}`);
    return value;
  }
  high(field: number): number {
    this.load();
    const value = this.lp.vmreadHigh(field);
    if (value < 0) throw new VmxBug(`VMREAD 0x${field.toString(16)}`);
    return value;
  }
  setHalves(field: number, low: number, high = 0): void {
    this.load();
    if (!this.lp.vmwriteHalves(field, low, high)) throw new VmxBug(`VMWRITE 0x${field.toString(16)}`);
  }

  get(field: VmcsFieldName): bigint {
    return this.read(VMCS[field]);
  }
  set(field: VmcsFieldName, value: bigint | number): void {
    this.write(VMCS[field], BigInt(value));
  }
  /** By encoding. */
  read(field: number): bigint {
    this.load();
    const outcome = this.lp.vmread(field);
    if (outcome.kind === "ok" && "value" in outcome) return outcome.value;
    throw new VmxBug(`VMREAD 0x${field.toString(16)}: ${outcome.kind}`);
  }
  write(field: number, value: bigint): void {
    this.load();
    const { kind } = this.lp.vmwrite(field, value);
    if (kind !== "ok") throw new VmxBug(`VMWRITE 0x${field.toString(16)}: ${kind}`);
  }
  /** Sets or clears bits of a 32-bit control. */
  change(field: VmcsFieldName, bits: number, on: boolean): void {
    const old = this.low(VMCS[field]);
    const value = (on ? old | bits : old & ~bits) >>> 0;
    if (value !== old) this.setHalves(VMCS[field], value);
  }

  /** VMCLEAR: the page may be freed. */
  clear(): void {
    this.lp.vmclear(this.#pa);
    if (this.#loaded.vmcs === this) this.#loaded.vmcs = null;
  }
}
