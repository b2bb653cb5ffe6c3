/**
 * A Multiboot kernel of an ordinary VM, loaded without firmware: its segments, the information block it finds at EBX,
 * and the state of the first vCPU at its entry.
 * Multiboot Specification version 0.6.96; QEMU, hw/i386/multiboot.c; ELF (TIS) version 1.2.
 */
import { type KvmRegs, type KvmSegment, type KvmSregs, viewOf } from "@swtdx/abi";
import { hex, MachineError } from "../errors.js";
import { e820Table, type MemoryMap } from "../memory/memory-map.js";

/** Where the header is looked for, in bytes. */
const SEARCH = 8192;
const HEADER_MAGIC = 0x1badb002;
/** The header says where to load to: needed for kernels that are not ELF. */
const AOUT_KLUDGE = 1 << 16;
const BOOTLOADER_MAGIC = 0x2badb002n;
const ELF_MAGIC = 0x464c457f;
const ELF = { CLASS: 4, CLASS_32: 1, ENTRY: 24, PHOFF: 28, PHENTSIZE: 42, PHNUM: 44 } as const;
const PT_LOAD = 1;
/** The information block and what it points to lie in conventional memory. */
const INFO = 0x9000;
const INFO_SIZE = 88;
const INFO_FLAGS = { MEMORY: 1, CMDLINE: 4, MODULES: 8, MMAP: 64, LOADER: 512 } as const;
const CONVENTIONAL_KIB = 640;
const PAGE = 4096;

/** Bytes for guest-physical memory. */
export interface MultibootBlob {
  readonly address: number;
  readonly data: Uint8Array;
}
export interface MultibootImage {
  readonly blobs: readonly MultibootBlob[];
  readonly entry: number;
  /** GPA of the information block. */
  readonly info: number;
}

/** Whether an image has a Multiboot header. */
export function isMultiboot(kernel: Uint8Array): boolean {
  const view = viewOf(kernel);
  for (let at = 0; at + 12 <= Math.min(kernel.length, SEARCH); at += 4) {
    if (view.getUint32(at, true) !== HEADER_MAGIC) continue;
    const flags = view.getUint32(at + 4, true);
    return ((HEADER_MAGIC + flags + view.getUint32(at + 8, true)) | 0) === 0 && (flags & AOUT_KLUDGE) === 0;
  }
  return false;
}

/** @throws MachineError for a kernel that is no 32-bit ELF file, or that does not fit */
export function loadMultiboot(
  kernel: Uint8Array,
  { initrd, append = "" }: { readonly initrd?: Uint8Array | undefined; readonly append?: string | undefined },
  map: MemoryMap,
): MultibootImage {
  const blobs = loadElf(kernel);
  let end = 0;
  for (const { address, data } of blobs) end = Math.max(end, address + data.length);
  const modules: { start: number; end: number }[] = [];
  if (initrd) {
    const start = Math.ceil(end / PAGE) * PAGE;
    blobs.push({ address: start, data: initrd });
    modules.push({ start, end: start + initrd.length });
    end = start + initrd.length;
  }
  if (end > map.below4g.length)
    throw new MachineError(`kernel: it ends at ${hex(end)}; RAM does at ${hex(map.below4g.length)}`);
  blobs.push({ address: INFO, data: infoBlock(append, modules, map) });
  return { blobs, entry: viewOf(kernel).getUint32(ELF.ENTRY, true), info: INFO };
}

function loadElf(kernel: Uint8Array): MultibootBlob[] {
  const view = viewOf(kernel);
  if (kernel.length < 52 || view.getUint32(0, true) !== ELF_MAGIC || kernel[ELF.CLASS] !== ELF.CLASS_32)
    throw new MachineError("kernel: a Multiboot kernel has to be a 32-bit ELF file");
  const blobs: MultibootBlob[] = [];
  for (let i = 0; i < view.getUint16(ELF.PHNUM, true); i++) {
    const at = view.getUint32(ELF.PHOFF, true) + i * view.getUint16(ELF.PHENTSIZE, true);
    if (at + 32 > kernel.length)
      throw new MachineError(`kernel: ELF program header ${i} is behind the end of the file (truncated?)`);
    if (view.getUint32(at, true) !== PT_LOAD) continue;
    const offset = view.getUint32(at + 4, true);
    const fileSize = view.getUint32(at + 16, true);
    if (offset + fileSize > kernel.length)
      throw new MachineError(`kernel: ELF segment ${i} is behind the end of the file (truncated?)`);
    const data = new Uint8Array(view.getUint32(at + 20, true));
    data.set(kernel.subarray(offset, offset + fileSize));
    blobs.push({ address: view.getUint32(at + 12, true), data });
  }
  return blobs;
}

function infoBlock(
  append: string,
  modules: readonly { readonly start: number; readonly end: number }[],
  map: MemoryMap,
): Uint8Array {
  const out = new Uint8Array(PAGE);
  const view = viewOf(out);
  let at = INFO_SIZE;
  const put = (bytes: Uint8Array): number => {
    const here = at;
    if (here + bytes.length > out.length) throw new MachineError("append: the command line is too long");
    out.set(bytes, here);
    at += Math.ceil(bytes.length / 8) * 8;
    return INFO + here;
  };
  const words = (...values: number[]) => new Uint8Array(Uint32Array.from(values).buffer);
  const text = (value: string) => new TextEncoder().encode(`${value}\0`);
  const ranges = e820Table(map).map(({ address, length, type }) =>
    words(20, address, address / 2 ** 32, length, length / 2 ** 32, type),
  );
  const table = new Uint8Array(24 * ranges.length);
  ranges.forEach((range, i) => table.set(range, 24 * i));
  const { MEMORY, CMDLINE, MODULES, MMAP, LOADER } = INFO_FLAGS;
  view.setUint32(0, MEMORY | CMDLINE | MODULES | MMAP | LOADER, true);
  view.setUint32(4, CONVENTIONAL_KIB, true);
  view.setUint32(8, map.below4g.length / 1024 - 1024, true);
  view.setUint32(16, put(text(`kernel ${append}`.trim())), true);
  view.setUint32(20, modules.length, true);
  const commandLines = modules.map(() => put(text("module")));
  view.setUint32(
    24,
    put(words(...modules.flatMap(({ start, end }, i) => [start, end, commandLines[i], 0]))),
    true,
  );
  view.setUint32(44, table.length, true);
  view.setUint32(48, put(table), true);
  view.setUint32(64, put(text("qemu")), true);
  return out;
}

const flat = (selector: number, type: number): KvmSegment => ({
  base: 0n,
  limit: 0xffffffff,
  selector,
  type,
  present: 1,
  dpl: 0,
  db: 1,
  s: 1,
  l: 0,
  g: 1,
  avl: 0,
  unusable: 0,
});
const CR0_PE = 1n;
/** CD and NW. */
const CR0_CACHES_OFF = 0x6000_0000n;
const CODE = 11;
const DATA = 3;

/** The registers at a Multiboot kernel's entry, from those after RESET: protected mode with flat segments. */
export function multibootState(
  image: MultibootImage,
  reset: { readonly regs: KvmRegs; readonly sregs: KvmSregs },
): { regs: KvmRegs; sregs: KvmSregs } {
  const data = flat(0x10, DATA);
  return {
    regs: {
      ...reset.regs,
      rax: BOOTLOADER_MAGIC,
      rbx: BigInt(image.info),
      rip: BigInt(image.entry),
      rflags: 2n,
    },
    sregs: {
      ...reset.sregs,
      cs: flat(0x08, CODE),
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
      // Firmware has switched the caches on.
      cr0: (reset.sregs.cr0 & ~CR0_CACHES_OFF) | CR0_PE,
    },
  };
}
