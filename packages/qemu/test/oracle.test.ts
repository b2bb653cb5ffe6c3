/** The machine against recordings of real QEMU's (tools/qemu-oracle.mjs), as software sees both. */
import { readdirSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { decodeFwCfgDirectory, FW_CFG, FW_CFG_DMA_CTL, viewOf } from "@swtdx/abi";
import { describe, expect, it } from "vitest";
import { addLinuxBoot } from "../src/firmware/linux-loader.js";
import { fillFwCfg } from "../src/hw/i386/fw-cfg-files.js";
import { MemoryDrive, VirtioBlk } from "../src/hw/virtio/virtio-blk.js";
import { ConsolePort, VirtioConsole } from "../src/hw/virtio/virtio-console.js";
import { VirtioNet } from "../src/hw/virtio/virtio-net.js";
import type { VirtioBackend } from "../src/hw/virtio/virtio-pci.js";
import { VirtioRng } from "../src/hw/virtio/virtio-rng.js";
import { UserNetwork } from "../src/net/user-network.js";
import { buildBoard, type TestBoard } from "./support/board.js";

const DATA = new URL("data/", import.meta.url);
const SIZE = { b: 1, w: 2, l: 4 } as const;

interface Recording {
  readonly machine: string;
  readonly memoryMib: number;
  readonly smp: number;
  readonly devices: readonly string[];
  readonly kernel?: boolean;
  readonly writes: readonly [keyof typeof SIZE, number, number][];
  readonly files: readonly { name: string; select: number; size: number; data: string | null }[];
  readonly items: Record<string, string>;
  readonly pci: Record<string, string>;
}
const recordings = readdirSync(DATA)
  .filter((file) => file.startsWith("qemu-"))
  .map((file) => [file, JSON.parse(readFileSync(new URL(file, DATA), "utf8")) as Recording] as const);

/** The recordings' processor: qemu64. */
const cpuid1 = (smp: number) => ({ eax: 0x60fb1, edx: smp > 1 ? 0x178bfbfd : 0x078bfbfd });

function build(recording: Recording): TestBoard {
  const { memoryMib, smp, machine, kernel = false } = recording;
  const backends: Record<string, () => VirtioBackend> = {
    rng: () => new VirtioRng((bytes) => new Uint8Array(bytes)),
    net: () => new VirtioNet(new UserNetwork(), Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56)),
    serial: () => new VirtioConsole([new ConsolePort()]),
    blk: () => new VirtioBlk(new MemoryDrive(new Uint8Array(2 ** 20)), "disk"),
  };
  const virtio = recording.devices.map((kind) => backends[kind]());
  const built = buildBoard(memoryMib * 2 ** 20, smp, virtio);
  fillFwCfg(built.board, { vcpus: smp, map: built.map, machine, cpuid1: cpuid1(smp), kernel });
  if (kernel) {
    const file = recording.files.find(({ name }) => name === "etc/boot/kernel")!;
    addLinuxBoot(
      built.board.fwCfg,
      { kernel: gunzipSync(Buffer.from(file.data!, "base64")) },
      built.map.below4g.length,
    );
  }
  for (const [size, port, value] of recording.writes) built.board.ports.write(port, SIZE[size], value);
  return built;
}

/** Reads an item of fw_cfg by DMA, as firmware does. */
function readItem({ board, ram }: TestBoard, selector: number, length: number): Buffer {
  const [access, data] = [0x100000, 0x200000];
  const descriptor = viewOf(ram.subarray(access, access + 16));
  descriptor.setUint32(0, selector * 0x10000 + FW_CFG_DMA_CTL.SELECT + FW_CFG_DMA_CTL.READ);
  descriptor.setUint32(4, length);
  descriptor.setUint32(12, data);
  board.ports.write(0x514, 4, 0);
  const address = new DataView(new ArrayBuffer(4));
  address.setUint32(0, access);
  board.ports.write(0x518, 4, address.getUint32(0, true));
  expect(descriptor.getUint32(0)).toBe(0);
  return Buffer.from(ram.slice(data, data + length));
}

describe.each(recordings)("real QEMU, %s", (_file, recording) => {
  it("offers the same fw_cfg files in the same order", () => {
    const built = build(recording);
    const directory = decodeFwCfgDirectory(readItem(built, FW_CFG.FILE_DIR, 4 + 64 * 64));
    const ours = directory.map(({ name, select, size }) => ({ name, select, size }));
    const theirs = recording.files.filter(({ data }) => data !== null);
    expect(ours).toEqual(theirs.map(({ name, select, size }) => ({ name, select, size })));
    for (const { name, select, size, data } of theirs) {
      const want = gunzipSync(Buffer.from(data!, "base64"));
      const have = readItem(built, select, size);
      // The first difference says more than 128 KiB do.
      const at = have.findIndex((byte, i) => byte !== want[i]);
      const around = (bytes: Buffer) => bytes.subarray(Math.max(0, at - 16), at + 16).toString("hex");
      expect([name, at, at < 0 ? "" : around(have)]).toEqual([name, -1, at < 0 ? "" : around(want)]);
    }
  });
  it("offers the same fw_cfg items", () => {
    const built = build(recording);
    const ours = Object.keys(recording.items).map((selector) => [
      selector,
      readItem(built, Number(selector), 16).toString("hex"),
    ]);
    expect(ours).toEqual(Object.entries(recording.items));
  });
  it("has the same PCI configuration space", () => {
    const { board } = build(recording);
    const { ports } = board;
    const ours: Record<string, string> = {};
    for (const [devfn] of board.pci.functions()) {
      const space = Buffer.alloc(256);
      for (let register = 0; register < 256; register += 4) {
        ports.write(0xcf8, 4, 0x80000000 + devfn * 256 + register);
        space.writeUInt32LE(ports.read(0xcfc, 4), register);
      }
      ours[devfn] = space.toString("hex");
    }
    expect(ours).toEqual(recording.pci);
  });
});
