/**
 * What leaving a guest costs, through every layer from the guest's instruction to the device and back: a port read of
 * a TD (TDG.VP.VMCALL<Instruction.IO>) and of an ordinary VM, a page of a TD (added before it runs; asked for by a
 * fault and accepted), and a SEAMCALL that does nothing. CPU time, and relative to the SHA-384 of a page in the same
 * process, so that machines can be compared.
 */
import { SEAMCALL_LEAF, TDVF_DESCRIPTOR, TDVF_SECTION, TDVF_SECTION_TYPE, Trace, viewOf } from "@swtdx/abi";
import { Gpr, Processor, ProgramEngine, X86Engine } from "@swtdx/cpu";
import { SeededRandom, sha384 } from "@swtdx/crypto";
import { buildFirmware } from "@swtdx/edk2";
import { KvmProcess } from "@swtdx/kvm";
import { LinuxHost } from "@swtdx/linux-host";
import { Arena, MemoryController } from "@swtdx/mktme";
import { Machine, parseTdvf } from "@swtdx/qemu";
import { buildModuleImage, buildSeamldrAcm, registerTdxFirmware } from "@swtdx/tdx-module";

const MIB = 2 ** 20;
const MEMORY = 64 * MIB;
const ROUNDS = 5;
const READS = 40_000;
const PAGES = 2048;
const ADDED = 7000;
/** GPA of the firmware's last section, behind which there is only RAM. */
const TEMP_RAM = 0x81_0000;
/** GPA of the pages that the guest accepts. */
const ACCEPTED = 0x200_0000;
const CALLS = 100_000;
/** Serial port's line status: a device that answers at once. Keyboard controller: its reset ends the run. */
const LSR = 0x3fd;
const RESET_PORT = 0x64;
const RESET = 0xfe;

// ---- Firmware: edk2's image, so that QEMU finds its sections, with machine code at the reset vector

const TOP = 2 ** 32;
const PML4 = TOP - 0x20000;
const PDPT = PML4 + 0x1000;
const GDT = PML4 + 0x2000;
const CODE = PML4 + 0x2100;
/** In real mode the code segment is the last 64 KiB. */
const REAL_CODE = TOP - 0x8000;

const dword = (value: number): number[] => [value, value >> 8, value >> 16, value >> 24].map((b) => b & 0xff);
const loop = (body: readonly number[]): number[] => [...body, 0x75, (-body.length - 2) & 0xff];

/** Puts bytes at addresses below 4 GiB. */
function patch(image: Uint8Array, parts: readonly (readonly [number, ArrayLike<number>])[]): Uint8Array {
  for (const [at, bytes] of parts) image.set(bytes, image.length - (TOP - at));
  return image;
}

/** Enters 64-bit mode with memory below 4 GiB mapped one to one, executes `body` and resets the machine. */
function tdImage(body: readonly number[]): Uint8Array {
  const tables = new Uint8Array(0x2000);
  const view = viewOf(tables);
  view.setBigUint64(0, BigInt(PDPT) | 0x23n, true);
  for (let gib = 0; gib < 4; gib++) view.setBigUint64(0x1000 + 8 * gib, BigInt(gib * 2 ** 30) | 0xe3n, true);
  const enter = [
    ...[0x0f, 0x01, 0x15, ...dword(GDT + 16)], // lgdt
    ...[0xb8, ...dword(PML4), 0x0f, 0x22, 0xd8], // mov cr3, PML4
    ...[0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0], // or cr4, PAE
    ...[0x0f, 0x20, 0xc0, 0x0d, ...dword(0x80000000), 0x0f, 0x22, 0xc0], // or cr0, PG
  ];
  enter.push(0xea, ...dword(CODE + enter.length + 7), 8, 0); // jmp 8:next
  return patch(buildFirmware({}), [
    [PML4, tables],
    [GDT, [0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0, 15, 0, ...dword(GDT)]],
    [CODE, [...enter, ...body, ...vmcallIo(true, RESET_PORT, RESET), 0xeb, 0xfe]],
    [TOP - 16, [0xe9, ...dword(CODE - (TOP - 11))]],
  ]);
}
/** TDG.VP.VMCALL<Instruction.IO> of a byte. */
const vmcallIo = (write: boolean, port: number, value: number): number[] => [
  ...[0x31, 0xc0, 0xb9, ...dword(0xfc00)], // eax 0, ecx: R10 to R15
  ...[0x45, 0x31, 0xd2, 0x41, 0xbb, ...dword(30)], // r10 0, r11 30
  ...[0x41, 0xbc, ...dword(1), 0x41, 0xbd, ...dword(write ? 1 : 0)], // r12 size, r13 direction
  ...[0x41, 0xbe, ...dword(port), 0x41, 0xbf, ...dword(value)], // r14 port, r15 data
  ...[0x66, 0x0f, 0x01, 0xcc], // tdcall
];
const tdReads = (count: number): number[] => [
  ...[0xbb, ...dword(count)],
  ...loop([...vmcallIo(false, LSR, 0), 0xff, 0xcb]), // dec ebx
];
/** TDG.MEM.PAGE.ACCEPT of `count` pages that nobody has added. */
const tdAccepts = (count: number): number[] => [
  ...[0xbb, ...dword(ACCEPTED), 0xbe, ...dword(count)],
  // eax 6, rcx = rbx, tdcall, rbx += 1000h, dec esi
  ...loop([
    0xb8,
    ...dword(6),
    0x48,
    0x89,
    0xd9,
    0x66,
    0x0f,
    0x01,
    0xcc,
    0x48,
    0x81,
    0xc3,
    0,
    0x10,
    0,
    0,
    0xff,
    0xce,
  ]),
];
/** An ordinary VM reads the port from real mode. */
function plainImage(count: number): Uint8Array {
  return patch(buildFirmware({}), [
    // mov ecx, count; mov dx, LSR; in al, dx; dec ecx; jnz; mov al, RESET; out RESET_PORT, al; jmp $
    [REAL_CODE, [0x66, 0xb9, ...dword(count), 0xba, LSR & 0xff, LSR >> 8, ...loop([0xec, 0x66, 0x49])]],
    [REAL_CODE + 14, [0xb0, RESET, 0xe6, RESET_PORT, 0xeb, 0xfe]],
    [TOP - 16, [0xe9, (REAL_CODE - (TOP - 13)) & 0xff, ((REAL_CODE - (TOP - 13)) >> 8) & 0xff]],
  ]);
}
/** The image with `pages` more pages of memory that TDH.MEM.PAGE.ADD adds, without measuring them. */
function withMemory(image: Uint8Array, pages: number): Uint8Array {
  const { descriptorOffset, sections } = parseTdvf(image, "edk2");
  const index = sections.findIndex(({ memoryAddress }) => memoryAddress === TEMP_RAM);
  const at = descriptorOffset + TDVF_DESCRIPTOR.size + index * TDVF_SECTION.size;
  TDVF_SECTION.write(
    viewOf(image),
    {
      MemoryAddress: BigInt(TEMP_RAM),
      MemoryDataSize: BigInt(sections[index].memoryDataSize + pages * 4096),
      Type: TDVF_SECTION_TYPE.TEMP_MEM,
    },
    at,
  );
  return image;
}

// ---- Platform

function powerOn(): { host: LinuxHost; kvm: KvmProcess; trace: Trace } {
  const trace = new Trace();
  const random = new SeededRandom(new Uint8Array(32));
  const memoryBytes = 1024 * MIB;
  const arena = new Arena({ residentBytes: 256 * MIB });
  const memory = new MemoryController(arena, { dramBytes: LinuxHost.dramBytes(memoryBytes), random, trace });
  const engines = [new ProgramEngine({ programs: new Map() }), new X86Engine()];
  const processor = new Processor({ arena, memory, random, trace, engines });
  registerTdxFirmware(processor, trace);
  const firmware = { buildSeamldr: buildSeamldrAcm, module: buildModuleImage() };
  const host = LinuxHost.boot({ processor, memoryBytes, trace, firmware });
  return { host, kvm: new KvmProcess(host), trace };
}
const { host, kvm, trace } = powerOn();

/** CPU time of this process in ms. */
const now = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};
/** The least of several rounds, in µs. */
async function least(work: () => Promise<number> | number): Promise<number> {
  let best = Infinity;
  for (let i = 0; i < ROUNDS; i++) best = Math.min(best, await work());
  return best * 1000;
}
function elapsed(work: () => void): number {
  const start = now();
  work();
  return now() - start;
}
const build = (bios: Uint8Array, plain: boolean): Machine =>
  new Machine({ syscalls: kvm, trace, bios, memoryBytes: MEMORY, plain });
/** ms that the guest of an image runs until it resets. */
async function run(bios: Uint8Array, plain: boolean): Promise<number> {
  const machine = build(bios, plain);
  const start = now();
  const outcome = await machine.run();
  const time = now() - start;
  if (outcome.exit !== "reset") throw new Error(`the guest ended with ${outcome.exit}: ${outcome.reason}`);
  machine.close();
  return time;
}
/** ms that a TD is built in. */
function launch(pages: number): number {
  let machine: Machine | undefined;
  const time = elapsed(() => (machine = build(withMemory(tdImage([]), pages), false)));
  machine?.close();
  return time;
}
function seamcalls(rax: bigint): number {
  const [lp] = host.lps;
  return elapsed(() => {
    for (let i = 0; i < CALLS; i++) {
      lp.regs.setGpr(Gpr.RAX, rax);
      lp.seamcall();
    }
  });
}

const page = new Uint8Array(4096);
const hash =
  (await least(() =>
    elapsed(() => {
      for (let i = 0; i < 2000; i++) sha384(page);
    }),
  )) / 2000;
console.log(`SHA-384 of a page: ${hash.toFixed(2)} µs`);
const row = (name: string, us: number) =>
  console.log(`${name.padEnd(52)}${us.toFixed(2).padStart(8)} µs   ratio ${(us / hash).toFixed(2)}`);

row("port read of a TD", (await least(() => run(tdImage(tdReads(READS)), false))) / READS);
row("port read of an ordinary VM", (await least(() => run(plainImage(READS), true))) / READS);
const few = await least(() => launch(0));
row("TDH.MEM.PAGE.ADD, with KVM's part", ((await least(() => launch(ADDED))) - few) / ADDED);
row(
  "EPT violation, TDH.MEM.PAGE.AUG, TDG.MEM.PAGE.ACCEPT",
  (await least(() => run(tdImage(tdAccepts(PAGES)), false))) / PAGES,
);
row("SEAMCALL of a leaf that is none", (await least(() => seamcalls(0xffn))) / CALLS);
row("SEAMCALL TDH.SYS.RD", (await least(() => seamcalls(BigInt(SEAMCALL_LEAF["TDH.SYS.RD"])))) / CALLS);
