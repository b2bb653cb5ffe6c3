/**
 * `measureStatic` of a 4 MiB firmware image, laid out as OVMF's IntelTdx build, against plain SHA-384: over the bytes
 * that are measured, and over all that MRTD hashes (a record of 128 bytes per page and per 256 bytes besides).
 * `BIOS=FILE` takes another image.
 */
import { readFileSync } from "node:fs";
import { TDVF_DESCRIPTOR, TDVF_SECTION, Trace, viewOf } from "@swtdx/abi";
import { Processor, ProgramEngine } from "@swtdx/cpu";
import { SeededRandom, sha384 } from "@swtdx/crypto";
import { buildFirmware } from "@swtdx/edk2";
import { KvmProcess } from "@swtdx/kvm";
import { LinuxHost } from "@swtdx/linux-host";
import { Arena, MemoryController } from "@swtdx/mktme";
import { measureStatic, parseTdvf } from "@swtdx/qemu";
import { buildModuleImage, buildSeamldrAcm, registerTdxFirmware } from "@swtdx/tdx-module";

const MIB = 2 ** 20;
const RUNS = 5;

/** edk2's image at the end of 4 MiB, with a boot volume as large as OVMF's. */
function largeImage(): Uint8Array {
  const small = buildFirmware({});
  const image = new SeededRandom(new Uint8Array(32)).bytes(4 * MIB);
  image.set(small, image.length - small.length);
  const cfv = 0x84000;
  const view = viewOf(image);
  const tdvf = parseTdvf(small, "edk2");
  tdvf.sections.forEach(({ type }, i) => {
    if (type !== "BFV" && type !== "CFV") return;
    const [start, end] = type === "CFV" ? [0, cfv] : [cfv, image.length];
    const at =
      image.length - small.length + tdvf.descriptorOffset + TDVF_DESCRIPTOR.size + i * TDVF_SECTION.size;
    TDVF_SECTION.write(
      view,
      {
        DataOffset: start,
        RawDataSize: end - start,
        MemoryAddress: BigInt(2 ** 32 - image.length + start),
        MemoryDataSize: BigInt(end - start),
      },
      at,
    );
  });
  return image;
}

function powerOn(): { kvm: KvmProcess; trace: Trace } {
  const trace = new Trace();
  const random = new SeededRandom(new Uint8Array(32));
  const memoryBytes = 1024 * MIB;
  const arena = new Arena({ residentBytes: 128 * MIB });
  const memory = new MemoryController(arena, { dramBytes: LinuxHost.dramBytes(memoryBytes), random, trace });
  const engines = [new ProgramEngine({ programs: new Map() })];
  const processor = new Processor({ arena, memory, random, trace, engines });
  registerTdxFirmware(processor, trace);
  const firmware = { buildSeamldr: buildSeamldrAcm, module: buildModuleImage() };
  return { kvm: new KvmProcess(LinuxHost.boot({ processor, memoryBytes, trace, firmware })), trace };
}

/** The least of several runs in ms. */
function time(work: () => void): number {
  let least = Infinity;
  for (let i = 0; i < RUNS; i++) {
    const start = performance.now();
    work();
    least = Math.min(least, performance.now() - start);
  }
  return least;
}

const file = process.env["BIOS"];
const bios = file ? new Uint8Array(readFileSync(file)) : largeImage();
const start = performance.now();
const { kvm, trace } = powerOn();
const powered = performance.now() - start;
const { pages, mrtd } = measureStatic({ syscalls: kvm, trace, bios, memoryBytes: 64 * MIB });
const first = performance.now() - start;
const measured = time(() => measureStatic({ syscalls: kvm, trace, bios, memoryBytes: 64 * MIB }));

const contents = new Uint8Array(pages.measured * 4096);
const stream = new Uint8Array(pages.added * 128 + pages.measured * 16 * (128 + 256));
const plain = time(() => sha384(contents));
const all = time(() => sha384(stream));
const ms = (value: number) => `${value.toFixed(1)} ms`;
console.log(
  `${file ?? "a 4 MiB image"}: ${pages.added} pages added, ${pages.measured} measured, MRTD ${mrtd.slice(0, 16)}…`,
);
console.log(
  `power-on ${ms(powered)}; power-on and first measurement ${ms(first)}; a measurement ${ms(measured)}`,
);
console.log(
  `SHA-384 of ${(contents.length / MIB).toFixed(1)} MiB ${ms(plain)}: ratio ${(measured / plain).toFixed(1)}`,
);
console.log(
  `SHA-384 of ${(stream.length / MIB).toFixed(1)} MiB ${ms(all)}: ratio ${(measured / all).toFixed(1)}`,
);
