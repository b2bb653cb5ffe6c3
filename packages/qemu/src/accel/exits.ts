/** kvm_run: where each exit's data are, read and written in place. Linux, include/uapi/linux/kvm.h. */
import { KVM_RUN_EXITS, KVM_RUN_HEAD } from "@swtdx/abi";

const { io, mmio, hypercall, memory_fault, tdx, system_event } = KVM_RUN_EXITS;

/** Offsets in bytes from the start of kvm_run. */
export const RUN = {
  immediateExit: KVM_RUN_HEAD.fields.immediate_exit.offset,
  exitReason: KVM_RUN_HEAD.fields.exit_reason.offset,
  ioDirection: io.fields.direction.offset,
  ioSize: io.fields.size.offset,
  ioPort: io.fields.port.offset,
  ioCount: io.fields.count.offset,
  ioDataOffset: io.fields.data_offset.offset,
  mmioAddress: mmio.fields.phys_addr.offset,
  mmioData: mmio.fields.data.offset,
  mmioLength: mmio.fields.len.offset,
  mmioIsWrite: mmio.fields.is_write.offset,
  hypercallNumber: hypercall.fields.nr.offset,
  hypercallArgs: hypercall.fields.args.offset,
  hypercallRet: hypercall.fields.ret.offset,
  faultFlags: memory_fault.fields.flags.offset,
  faultGpa: memory_fault.fields.gpa.offset,
  faultSize: memory_fault.fields.size.offset,
  tdxNumber: tdx.fields.nr.offset,
  tdxRet: tdx.fields.ret.offset,
  tdxData: tdx.fields.data.offset,
  eventType: system_event.fields.type.offset,
  eventData: system_event.fields.data.offset,
  /** KVM_EXIT_IOAPIC_EOI. */
  eoiVector: 32,
} as const;

/** An unsigned value of 1, 2 or 4 bytes, little-endian. */
export const readValue = (view: DataView, at: number, size: number): number =>
  size === 1 ? view.getUint8(at) : size === 2 ? view.getUint16(at, true) : view.getUint32(at, true);

export const writeValue = (view: DataView, at: number, size: number, value: number): void => {
  if (size === 1) view.setUint8(at, value);
  else if (size === 2) view.setUint16(at, value, true);
  else view.setUint32(at, value, true);
};

/** Registers of ReportFatalError in the order in which they hold the message: R14, R15, RBX, RDI, RSI, R8, R9, RDX. */
const FATAL_MESSAGE_REGISTERS = [14, 15, 3, 7, 6, 8, 9, 2] as const;
const FATAL_GPA_VALID = 1n << 63n;

/** What a TD said when it gave up (KVM_SYSTEM_EVENT_TDX_FATAL): `data` by x86 register number. */
export function fatalReason(data: readonly bigint[]): string {
  const mask = data[1];
  const code = data[12];
  const bytes: number[] = [];
  for (const register of FATAL_MESSAGE_REGISTERS)
    if (mask & (1n << BigInt(register)))
      for (let i = 0n; i < 8n; i++) bytes.push(Number((data[register] >> (8n * i)) & 0xffn));
  const end = bytes.indexOf(0);
  const text = new TextDecoder()
    .decode(Uint8Array.from(end < 0 ? bytes : bytes.slice(0, end)))
    // eslint-disable-next-line no-control-regex -- what a guest says goes to terminals
    .replace(/[\u0000-\u001f\u007f]/g, " ")
    .trim();
  const gpa = code & FATAL_GPA_VALID ? `, more at GPA 0x${data[13].toString(16)}` : "";
  return `TD reported a fatal error 0x${(code & 0xffffffffn).toString(16)}${text ? `: ${text}` : ""}${gpa}`;
}
