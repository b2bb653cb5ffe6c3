/** A VMCS as KVM uses it: made current on its logical processor before each access. Source: Linux arch/x86/kvm/vmx/vmx_ops.h. */
import { type HpaAndKeyId, PAGE_SIZE, type Pfn } from "@swtdx/abi";
import { VMCS, type VmcsFieldName, VMCS_REVISION } from "@swtdx/cpu";
import type { LogicalProcessor } from "@swtdx/linux-host";

/** A VMX instruction failed that cannot: a bug of KVM's. */
export class VmxBug extends Error {
  override readonly name = "VmxBug";
}

/** Which VMCS KVM has loaded, by logical processor. */
const current = new WeakMap<LogicalProcessor, VmcsAccess>();

export class VmcsAccess {
  /** VMLAUNCH has happened: VMRESUME from now on. */
  launched = false;
  readonly #pa: HpaAndKeyId;

  constructor(
    readonly lp: LogicalProcessor,
    page: Pfn,
  ) {
    this.#pa = (page * PAGE_SIZE) as HpaAndKeyId;
    lp.memZero(this.#pa, PAGE_SIZE);
    lp.memWriteU64(this.#pa, BigInt(VMCS_REVISION));
    this.#check("VMCLEAR", lp.vmclear(this.#pa).kind);
  }

  #check(what: string, kind: string): void {
    if (kind !== "ok") throw new VmxBug(`${what}: ${kind}`);
  }

  /** VMPTRLD, unless it is current. */
  load(): void {
    if (current.get(this.lp) === this) return;
    this.#check("VMPTRLD", this.lp.vmptrld(this.#pa).kind);
    current.set(this.lp, this);
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
    this.#check(`VMWRITE 0x${field.toString(16)}`, this.lp.vmwrite(field, value).kind);
  }
  /** Sets or clears bits of a 32-bit control. */
  change(field: VmcsFieldName, bits: number, on: boolean): void {
    const old = this.get(field);
    const mask = BigInt(bits >>> 0);
    const value = on ? old | mask : old & ~mask;
    if (value !== old) this.write(VMCS[field], value);
  }

  /** VMCLEAR: the page may be freed. */
  clear(): void {
    this.lp.vmclear(this.#pa);
    if (current.get(this.lp) === this) current.delete(this.lp);
  }
}
