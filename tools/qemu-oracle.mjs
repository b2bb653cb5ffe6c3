/**
 * Records what real QEMU's machine looks like to software: fw_cfg with its ACPI and SMBIOS tables, PCI configuration
 * space, answers of device registers. The recordings are what this project's machine is compared with
 * (packages/qemu/test/oracle.test.ts). QEMU runs no guest for it: registers are read and written by its qtest protocol.
 *
 *   node tools/qemu-oracle.mjs [--qemu COMMAND] [NAME…]     records these (default: all) of CONFIGURATIONS anew
 */
import { spawn } from "node:child_process";
import { Buffer } from "node:buffer";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";

const DATA = join(dirname(fileURLToPath(import.meta.url)), "../packages/qemu/test/data");

/** What a TD has, whatever the accelerator: no 8259, no SMM; and what this project's machine does without. */
const MACHINE = "hpet=off,pic=off,smm=off,vmport=off,sata=off,smbus=off,graphics=off";
const VIRTIO = "disable-legacy=on,iommu_platform=on";
const BASE = ["-nodefaults", "-serial", "null", "-chardev", "null,id=log"];
const DEBUGCON = ["-device", "isa-debugcon,iobase=0x402,chardev=log"];

/**
 * @typedef {object} Configuration
 * @property {string} machine
 * @property {number} memoryMib
 * @property {number} smp
 * @property {string[]} devices virtio devices, in slots from 1 on
 * @property {boolean} [kernel]
 * @property {number} [bars] where firmware puts the first 64-bit BAR; without it none is placed
 */
/** @type {Record<string, Configuration>} */
const CONFIGURATIONS = {
  small: { machine: "pc-q35-10.0", memoryMib: 512, smp: 1, devices: ["rng"] },
  placed: {
    machine: "pc-q35-10.0",
    memoryMib: 2048,
    smp: 2,
    devices: ["blk", "net", "serial", "rng"],
    bars: 2 ** 38,
  },
  large: { machine: "pc-q35-10.0", memoryMib: 20480, smp: 20, devices: ["blk", "rng"], kernel: true },
  newest: { machine: "pc-q35-11.1", memoryMib: 3072, smp: 4, devices: ["blk", "rng"], bars: 2 ** 38 },
};

/** Real QEMU, its vCPUs stopped. Numbers are ports, addresses, register values. */
class Qemu {
  /** @param {string} command @param {string[]} args */
  constructor(command, args) {
    this.process = spawn(command, [...args, "-accel", "tcg", "-S", "-display", "none", "-qtest", "stdio"], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    /** @type {((line: string) => void)[]} */
    this.waiting = [];
    this.errors = "";
    this.process.stderr.on("data", (data) => (this.errors += data));
    createInterface({ input: this.process.stdout }).on("line", (line) => {
      if (!line.startsWith("IRQ ")) this.waiting.shift()?.(line);
    });
    this.process.on("exit", () => {
      for (const answer of this.waiting.splice(0)) answer("FAIL");
    });
  }
  /** @param {string} command @returns {Promise<string>} */
  async run(command) {
    const line = await new Promise((/** @type {(line: string) => void} */ resolve) => {
      this.waiting.push(resolve);
      this.process.stdin.write(`${command}\n`);
    });
    if (!line.startsWith("OK")) throw new Error(`${command}: ${line}\n${this.errors}`);
    return line.slice(3);
  }
  /** @param {"b" | "w" | "l"} size @param {number} port */
  async read(size, port) {
    return Number(await this.run(`in${size} ${port}`));
  }
  /** @param {"b" | "w" | "l"} size @param {number} port @param {number} value */
  async write(size, port, value) {
    await this.run(`out${size} ${port} ${value}`);
  }
  /** A fw_cfg item, by DMA. @param {number} selector @param {number} length */
  async item(selector, length) {
    const [access, data] = [0x100000, 0x200000];
    const descriptor = Buffer.alloc(16);
    descriptor.writeUInt32BE(selector * 0x10000 + 0x0a, 0);
    descriptor.writeUInt32BE(length, 4);
    descriptor.writeUInt32BE(data, 12);
    await this.run(`write ${access} 16 0x${descriptor.toString("hex")}`);
    await this.write("l", 0x514, 0);
    descriptor.writeUInt32BE(access, 0);
    await this.write("l", 0x518, descriptor.readUInt32LE(0));
    if (length === 0) return Buffer.alloc(0);
    return Buffer.from(await this.run(`b64read ${data} ${length}`), "base64");
  }
  async close() {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill();
    await ended;
  }
}

/** @param {number} devfn @param {number} register */
const pciAddress = (devfn, register) => 0x80000000 + devfn * 256 + (register & ~3);

/** What firmware does to the chipset before it asks for tables: port writes. @param {Configuration} configuration */
function firmwareWrites({ devices, bars }) {
  /** @type {["b" | "w" | "l", number, number][]} */
  const writes = [];
  const config = (
    /** @type {number} */ devfn,
    /** @type {number} */ register,
    /** @type {number} */ value,
  ) => {
    writes.push(["l", 0xcf8, pciAddress(devfn, register)], ["l", 0xcfc, value]);
  };
  config(0x00, 0x64, 0);
  config(0x00, 0x60, 0xe0000001);
  config(0xf8, 0x40, 0x600);
  config(0xf8, 0x44, 0x80);
  if (bars !== undefined)
    devices.forEach((_, i) => {
      const devfn = 8 * (1 + i);
      config(devfn, 0x20, 0x4000 * i);
      config(devfn, 0x24, bars / 2 ** 32);
      config(devfn, 0x04, 0x0406);
    });
  return writes;
}

/** @param {Configuration} configuration */
function argumentsFor({ machine, memoryMib, smp, devices, kernel }) {
  const device = (/** @type {string} */ kind) =>
    ({
      rng: ["-device", `virtio-rng-pci,${VIRTIO}`],
      net: ["-device", `virtio-net-pci,mac=52:54:00:12:34:56,romfile=,${VIRTIO}`],
      serial: ["-device", `virtio-serial-pci,max_ports=1,${VIRTIO}`],
      blk: [
        "-blockdev",
        "driver=null-co,node-name=disk,size=1048576,read-zeroes=on",
        "-device",
        `virtio-blk-pci,drive=disk,num-queues=1,${VIRTIO}`,
      ],
    })[kind] ?? [];
  return [
    ...["-machine", `${machine},${MACHINE}`, "-cpu", "qemu64,vendor=GenuineIntel"],
    ...["-m", `${memoryMib}M`, "-smp", `${smp}`],
    ...BASE,
    ...DEBUGCON,
    ...devices.flatMap(device),
    ...(kernel ? ["-kernel", "KERNEL"] : []),
  ];
}

/** A file that QEMU takes for a kernel. */
function kernelImage() {
  const image = Buffer.alloc(8192);
  image.write("MZ", 0);
  image[0x1f1] = 1;
  image.write("HdrS", 0x202);
  image.writeUInt16LE(0x20f, 0x206);
  return image;
}

/** Registers whose contents say nothing or are this project's own choice. */
const FIRMWARE_PROGRAMS = "genroms/";

/** @param {string} command @param {Configuration} configuration */
async function record(command, configuration) {
  const args = argumentsFor(configuration);
  const kernel = join("/tmp", `oracle-kernel-${process.pid}`);
  writeFileSync(kernel, kernelImage());
  const qemu = new Qemu(
    command,
    args.map((arg) => (arg === "KERNEL" ? kernel : arg)),
  );
  const writes = firmwareWrites(configuration);
  for (const [size, port, value] of writes) await qemu.write(size, port, value);
  const directory = await qemu.item(0x19, 4 + 64 * 64);
  const files = [];
  for (let i = 0; i < directory.readUInt32BE(0); i++) {
    const entry = directory.subarray(4 + 64 * i);
    const [size, select] = [entry.readUInt32BE(0), entry.readUInt16BE(4)];
    const name = entry.toString("latin1", 8, 64).replace(/\0.*$/s, "");
    const own = !name.startsWith(FIRMWARE_PROGRAMS);
    const data = own ? await qemu.item(select, size) : Buffer.alloc(0);
    files.push({ name, select, size, data: own ? gzipSync(data).toString("base64") : null });
  }
  /** @type {Record<number, string>} */
  const items = {};
  for (const selector of [0, 1, 2, 3, 4, 5, 6, 0xc, 0xd, 0xe, 0xf, 0x8000, 0x8001, 0x8002, 0x8003, 0x8004])
    items[selector] = (await qemu.item(selector, 16)).toString("hex");
  /** @type {Record<number, string>} */
  const pci = {};
  for (let devfn = 0; devfn < 256; devfn++) {
    const space = Buffer.alloc(256);
    for (let register = 0; register < 256; register += 4) {
      await qemu.write("l", 0xcf8, pciAddress(devfn, register));
      space.writeUInt32LE(await qemu.read("l", 0xcfc), register);
    }
    if (space.readUInt32LE(0) !== 0xffffffff) pci[devfn] = space.toString("hex");
  }
  await qemu.close();
  return { ...configuration, args, writes, files, items, pci };
}

const { values, positionals } = parseArgs({
  options: { qemu: { type: "string", default: "qemu-system-x86_64" } },
  allowPositionals: true,
});
mkdirSync(DATA, { recursive: true });
for (const [name, configuration] of Object.entries(CONFIGURATIONS)) {
  if (positionals.length > 0 && !positionals.includes(name)) continue;
  const recording = await record(values.qemu, configuration);
  writeFileSync(join(DATA, `qemu-${name}.json`), `${JSON.stringify(recording, null, 1)}\n`);
  process.stdout.write(
    `${name}: ${recording.files.length} files, ${Object.keys(recording.pci).length} PCI functions\n`,
  );
}
