/**
 * The calling convention of EFI on x86-64 for guest programs: RCX, RDX, R8, R9, then the stack above 32 bytes of
 * shadow space; RAX returns. Source: UEFI 2.10, ch. 2.3.4.
 */
import { guest, type GprName, type Guest } from "../guest-program.js";
import { viewOf, type Fields, type Struct, type Values } from "../struct.js";

/** Bytes between the callee's RSP at its entry (the return address) and its fifth argument. */
const STACK_ARGUMENTS = 0x28n;

/** Calls the function at `target`; returns its RAX. RSP must point to a stack with room below it. */
export function* efiCall(target: number | bigint, ...args: readonly (number | bigint)[]): Guest<bigint> {
  const { rsp } = yield* guest.getRegs();
  const values = args.map(BigInt);
  const onStack = Math.max(0, values.length - 4);
  // 16-byte aligned before the call pushes the return address.
  const top = (rsp - 0x20n - BigInt(onStack * 8)) & ~0xfn;
  for (let i = 0; i < onStack; i++) yield* guest.store(top + 0x20n + BigInt(8 * i), 8, values[4 + i]);
  const [rcx = 0n, rdx = 0n, r8 = 0n, r9 = 0n] = values;
  const regs = yield* guest.call(BigInt(target), { rcx, rdx, r8, r9, rsp: top });
  return regs.rax;
}

/** The first `count` arguments, as the called program finds them in the registers of its entry. */
export function* efiArguments(regs: Readonly<Record<GprName, bigint>>, count: number): Guest<bigint[]> {
  const out = [regs.rcx, regs.rdx, regs.r8, regs.r9].slice(0, count);
  for (let i = 4; i < count; i++)
    out.push(yield* guest.load(regs.rsp + STACK_ARGUMENTS + BigInt(8 * (i - 4)), 8));
  return out;
}

/** Reads a structure from guest memory. */
export function* readStruct<F extends Fields>(gla: number | bigint, type: Struct<F>): Guest<Values<F>> {
  return type.read(viewOf(yield* guest.loadBytes(BigInt(gla), type.size)));
}

/** Writes a whole structure to guest memory; what is not given is zero. */
export function* writeStruct<F extends Fields>(
  gla: number | bigint,
  type: Struct<F>,
  value: Partial<Values<F>>,
): Guest<void> {
  yield* guest.storeBytes(BigInt(gla), type.encode(value));
}

/** A NUL-terminated UCS-2 string, as EFI has them. */
export function encodeUcs2(text: string): Uint8Array {
  const out = new Uint8Array(2 * text.length + 2);
  for (let i = 0; i < text.length; i++) viewOf(out).setUint16(2 * i, text.charCodeAt(i), true);
  return out;
}

/** The text of UCS-2 bytes up to a NUL or their end. */
export function decodeUcs2(source: Uint8Array): string {
  let text = "";
  for (let i = 0; i + 1 < source.length; i += 2) {
    const code = source[i] | (source[i + 1] << 8);
    if (code === 0) break;
    text += String.fromCharCode(code);
  }
  return text;
}

/** Reads a NUL-terminated UCS-2 string of at most `max` characters from guest memory. */
export function* readUcs2(gla: bigint, max = 256): Guest<string> {
  let text = "";
  for (let i = 0; i < max; i++) {
    const code = Number(yield* guest.load(gla + BigInt(2 * i), 2));
    if (code === 0) break;
    text += String.fromCharCode(code);
  }
  return text;
}
