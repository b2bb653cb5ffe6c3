import { Errno, FW_CFG, KvmExit, KvmTdxCmdId, Trace } from "@swtdx/abi";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FirmwareError, MachineError, OptionError } from "../src/errors.js";
import { Machine, type MachineOptions } from "../src/machine.js";
import { MemoryDrive } from "../src/hw/virtio/virtio-blk.js";
import { measureStatic } from "../src/measure.js";
import { encodeQuoteRequest } from "../src/target/quote-generation.js";
import { mrtdOfSections } from "../../../tools/mrtd-oracle.mjs";
import { FakeKvm, type Step, step } from "./support/fake-kvm.js";
import { goodSections, tdvfImage } from "./support/tdvf-image.js";

const MIB = 2 ** 20;
const bios = tdvfImage();
const build = (kvm: FakeKvm, more: Partial<MachineOptions> = {}) =>
  new Machine({ syscalls: kvm, bios, biosName: "a.fd", memoryBytes: 64 * MIB, ...more });

async function run(steps: Step[], more: Partial<MachineOptions> = {}) {
  const kvm = new FakeKvm();
  const text: string[] = [];
  const machine = build(kvm, { serial: (bytes) => text.push(new TextDecoder().decode(bytes)), ...more });
  kvm.script(0, ...steps);
  const outcome = await machine.run({ timeoutSeconds: 20 });
  return { kvm, machine, outcome, text: text.join("") };
}
/** The q35's PMBASE and ACPI_CTRL, then SLP_EN. */
const poweroff = (): Step[] => [
  step.out(0xcf8, 4, 0x8000f840),
  step.out(0xcfc, 4, 0x601),
  step.out(0xcf8, 4, 0x8000f844),
  step.out(0xcfc, 1, 0x80),
  step.out(0x604, 2, 0x2000),
];

describe("building a TD", () => {
  it("makes QEMU's requests in the order that KVM demands", () => {
    const kvm = new FakeKvm();
    build(kvm, { smp: 2 });
    const order = kvm.calls.map(({ name, arg }) =>
      name === "KVM_MEMORY_ENCRYPT_OP" ? `TDX ${(arg as { id: number }).id}` : name,
    );
    const compact = order.filter((name, i) => name !== order[i - 1]);
    expect(compact).toEqual([
      "KVM_GET_API_VERSION",
      "KVM_CHECK_EXTENSION",
      "KVM_CREATE_VM",
      "KVM_ENABLE_CAP",
      "TDX 0",
      "KVM_GET_SUPPORTED_CPUID",
      "KVM_CREATE_GUEST_MEMFD",
      "KVM_SET_USER_MEMORY_REGION2",
      "KVM_SET_MEMORY_ATTRIBUTES",
      "KVM_CREATE_GUEST_MEMFD",
      "KVM_SET_USER_MEMORY_REGION2",
      "KVM_SET_MEMORY_ATTRIBUTES",
      "TDX 1",
      "KVM_CREATE_VCPU",
      "KVM_SET_CPUID2",
      "KVM_CREATE_VCPU",
      "KVM_SET_CPUID2",
      "TDX 2",
      "TDX 3",
      "TDX 4",
    ]);
    expect(kvm.calls.find(({ name }) => name === "KVM_CREATE_VM")?.arg).toBe(5);
    expect(
      kvm.slots.map(({ guest_phys_addr, memory_size, flags }) => [guest_phys_addr, memory_size, flags]),
    ).toEqual([
      [0, 64 * MIB, 4],
      [0xfffe0000, 0x20000, 4],
    ]);
  });
  it("adds the sections in their order, with the HOB list and the image's contents", () => {
    const kvm = new FakeKvm();
    const machine = build(kvm);
    expect(kvm.sections.map(({ gpa, pages, flags }) => [gpa, pages, flags])).toEqual(
      goodSections().map(({ gpa, memorySize, attributes }) => [
        gpa,
        Number(memorySize) / 4096,
        attributes ?? 0,
      ]),
    );
    expect(kvm.sections[0].contents).toEqual(bios.slice(0x10000));
    expect(kvm.sections[1].contents).toEqual(bios.slice(0, 0x10000));
    expect(kvm.sections[4].contents.subarray(0, 4)).toEqual(Uint8Array.of(1, 0, 56, 0));
    expect(machine.td!.pages).toEqual({ added: 16 + 16 + 16 + 2 + 2 + 6, measured: 16 });
    expect(kvm.tdx.filter(({ id }) => id === KvmTdxCmdId.KVM_TDX_INIT_VCPU).map(({ data }) => data)).toEqual([
      0x809000n,
    ]);
  });
  it("gives the TD its parameters", () => {
    const kvm = new FakeKvm();
    const mrowner = new Uint8Array(48).fill(7);
    build(kvm, { mrowner, cpu: "host,-avx,-amx-tile,-pku" });
    const init = kvm.tdx.find(({ id }) => id === KvmTdxCmdId.KVM_TDX_INIT_VM)!;
    expect(init.data).toMatchObject({
      attributes: 0x10000000n,
      xfam: 3n,
      mrowner,
      mrconfigid: new Uint8Array(48),
    });
  });
  it("closes everything when something is refused, and at the end", () => {
    const bad: [Partial<MachineOptions>, unknown, RegExp][] = [
      [{ bios: bios.slice(0, -1) }, FirmwareError, /^a.fd: file size/],
      [{ smp: 0 }, OptionError, /^smp: 0/],
      [{ smp: 256 }, OptionError, /^smp: 256/],
      [{ memoryBytes: 1 }, OptionError, /^memory: 1 bytes/],
      [{ cpu: "host,+vmx" }, OptionError, /^cpu: vmx cannot be had/],
      [{ tdAttributes: 1n }, MachineError, /^td-attributes: debug: not supported/],
      [{ mrowner: new Uint8Array(3) }, OptionError, /^mrowner: 3 bytes/],
      [{ tscKhz: 1_234_567 }, OptionError, /^tsc-frequency: 1234567 kHz/],
      [{ initrd: new Uint8Array(3) }, OptionError, /^initrd: needs a kernel/],
      [{ kernel: new Uint8Array(4096) }, MachineError, /^kernel: 4096 bytes that are no kernel/],
      [
        { kernel: Uint8Array.of(0x4d, 0x5a), initrd: new Uint8Array(64 * MIB) },
        MachineError,
        /^initrd: 67108864 bytes; at most/,
      ],
    ];
    for (const [options, type, message] of bad) {
      const kvm = new FakeKvm();
      expect(() => build(kvm, options)).toThrow(type);
      expect(() => build(kvm, options)).toThrow(message);
      expect(kvm.open).toBe(0);
    }
    const kvm = new FakeKvm();
    const machine = build(kvm);
    machine.close();
    machine.close();
    expect(kvm.open).toBe(0);
  });
  it("takes MRTD from the trace", () => {
    const kvm = new FakeKvm();
    const trace = new Trace();
    kvm.onFinalize = () => {
      const digest = mrtdOfSections(
        kvm.sections.map(({ gpa, pages, flags, contents }) => ({
          gpa,
          memorySize: pages * 4096,
          data: contents,
          extend: flags === 1,
        })),
      );
      trace.emit({ type: "MEASURE", register: "MRTD", digest, what: "TDH.MR.FINALIZE" });
    };
    const { mrtd } = measureStatic({ syscalls: kvm, bios, memoryBytes: 64 * MIB, trace });
    expect(mrtd).toBe(
      mrtdOfSections(
        goodSections().map((section) => ({
          gpa: Number(section.gpa),
          memorySize: Number(section.memorySize),
          data: bios.subarray(section.dataOffset ?? 0, (section.dataOffset ?? 0) + (section.rawSize ?? 0)),
          extend: section.attributes === 1,
        })),
      ),
    );
    expect(kvm.open).toBe(0);
    expect(() =>
      measureStatic({ syscalls: new FakeKvm(), bios, memoryBytes: 64 * MIB, trace: new Trace() }),
    ).toThrow(/no measurement of MRTD/);
  });
});

describe("an ordinary VM", () => {
  it("has its firmware as ROM at the top and below 1 MiB, and no TDX", () => {
    const kvm = new FakeKvm();
    const machine = build(kvm, { plain: true, bios: bios.slice(0, 0x10000) });
    expect(machine.td).toBe(null);
    expect(kvm.tdx).toEqual([]);
    expect(kvm.calls.find(({ name }) => name === "KVM_CREATE_VM")?.arg).toBe(0);
    expect(
      kvm.slots.map(({ guest_phys_addr, memory_size, flags }) => [guest_phys_addr, memory_size, flags]),
    ).toEqual([
      [0, 64 * MIB, 0],
      [0xffff0000, 0x10000, 2],
    ]);
    const ram = [...kvm.mappings.values()].find(({ length }) => length === 64 * MIB)!;
    expect(ram.bytes.slice(0xf0000, 0x100000)).toEqual(bios.slice(0, 0x10000));
    expect(() => build(new FakeKvm(), { plain: true, bios: bios.slice(1) })).toThrow(FirmwareError);
  });
  it("runs", async () => {
    expect((await run(poweroff(), { plain: true })).outcome.exit).toBe("poweroff");
  });
});

describe("running", () => {
  it("prints, answers fw_cfg and powers off", async () => {
    const got: number[] = [];
    const { outcome, text, machine } = await run([
      ...[..."hi\n"].map((c) => step.out(0x3f8, 1, c.charCodeAt(0))),
      step.out(0x510, 2, FW_CFG.SIGNATURE),
      ...[0, 0, 0, 0].map(() => step.in(0x511, 1, (value) => got.push(value))),
      step.in(0x9999, 4, (value) => got.push(value)),
      ...poweroff(),
    ]);
    expect(text).toBe("hi\n");
    expect(got).toEqual([0x51, 0x45, 0x4d, 0x55, 0xffffffff]);
    expect(outcome).toEqual({ exit: "poweroff", reason: "ACPI S5" });
    expect(machine.exits).toEqual({ KVM_EXIT_IO: 14 });
  });
  it.each([
    [[step.out(0xcf9, 1, 6)], "reset", "port 0xcf9"],
    [[step.out(0x64, 1, 0xfe)], "reset", "i8042"],
    [[step.plain(KvmExit.KVM_EXIT_SHUTDOWN)], "fatal", "vCPU 0: triple fault"],
    [[step.plain(KvmExit.KVM_EXIT_HLT)], "fatal", "vCPU 0: unexpected exit KVM_EXIT_HLT"],
    [[step.error(Errno.EIO)], "fatal", "vCPU 0: KVM_RUN: EIO"],
    [[step.systemEvent(1)], "poweroff", "system event shutdown"],
    [[step.systemEvent(2)], "reset", "system event reset"],
    [
      [step.memoryFault(0xa0000000, 4096, true)],
      "fatal",
      "vCPU 0: private access to GPA 0xa0000000, where the machine has no memory",
    ],
  ] as [Step[], string, string][])("ends as it should (%#)", async (steps, exit, reason) => {
    expect((await run(steps)).outcome).toEqual({ exit, reason });
  });
  it("says what a dying TD said", async () => {
    const data = Array<bigint>(16).fill(0n);
    data[1] = 0xffccn;
    data[11] = 0x10003n;
    const words = [..."No TDX ATTRIBUTES.SEPT_VE_DISABLE\n"].map((c) => BigInt(c.charCodeAt(0)));
    [14, 15, 3, 7, 6].forEach((register, i) => {
      data[register] = words
        .slice(8 * i, 8 * i + 8)
        .reduce((all, byte, j) => all | (byte << BigInt(8 * j)), 0n);
    });
    expect((await run([step.systemEvent(7, data)])).outcome).toEqual({
      exit: "fatal",
      reason: "vCPU 0: TD reported a fatal error 0x0: No TDX ATTRIBUTES.SEPT_VE_DISABLE",
    });
  });
  it("converts memory and discards the other side", async () => {
    const rets: bigint[] = [];
    const got = (ret: bigint) => rets.push(ret);
    const { kvm } = await run([
      step.mapGpa(0x1000000, 16, false, got),
      step.mapGpa(0x1000000, 16, true, got),
      step.mapGpa(0xfec00000, 1, false, got),
      step.mapGpa(0xfec00000, 1, true, got),
      step.mapGpa(63 * MIB, 512, false, got),
      step.mapGpa(0x1000800, 1, false, got),
      step.memoryFault(0x2000000, 4096, false),
      ...poweroff(),
    ]);
    expect(rets).toEqual([0n, 0n, 0n, 22n, 22n, 22n]);
    expect(kvm.attributes.slice(2)).toEqual([
      { address: 0x1000000, size: 0x10000, attributes: 0n, flags: 0n },
      { address: 0x1000000, size: 0x10000, attributes: 8n, flags: 0n },
      { address: 0x2000000, size: 4096, attributes: 0n, flags: 0n },
    ]);
    expect(kvm.punched).toEqual([
      { offset: 0x1000000, length: 0x10000 },
      { offset: 0x2000000, length: 4096 },
    ]);
    const ram = [...kvm.mappings.values()].find(({ length }) => length === 64 * MIB)!;
    expect(ram.discarded).toEqual([[0x1000000, 0x10000]]);
  });
  it("reaches memory-mapped devices, in parts of four bytes", async () => {
    const got: number[][] = [];
    await run([
      step.mmio(0xfec00000, [1, 0, 0, 0], true),
      step.mmio(0xfec00010, [0, 0, 0, 0], false, (data) => got.push(data)),
      step.mmio(0xd0000000, [0, 0, 0, 0, 0, 0, 0, 0], false, (data) => got.push(data)),
      ...poweroff(),
    ]);
    expect(got).toEqual([[0x20, 0, 0x17, 0], Array(8).fill(0xff)]);
  });
  it("ends by time, and by stop()", async () => {
    const kvm = new FakeKvm();
    const machine = build(kvm);
    expect(await machine.run({ timeoutSeconds: 0.02 })).toEqual({
      exit: "timeout",
      reason: "0.02 s of wall time",
    });
    const other = build(new FakeKvm());
    setTimeout(() => other.stop("enough"), 5);
    expect(await other.run()).toEqual({ exit: "timeout", reason: "enough" });
  });
  it("gives each vCPU its turn", async () => {
    const kvm = new FakeKvm();
    const text: string[] = [];
    const machine = build(kvm, { smp: 2, serial: (bytes) => text.push(new TextDecoder().decode(bytes)) });
    const say = (c: string) => [step.out(0x3f8, 1, c.charCodeAt(0)), step.error(Errno.EINTR)];
    kvm.script(0, ...say("a"), ...say("b"), ...say("c"), ...poweroff());
    kvm.script(1, ...say("1"), ...say("2"), ...say("3"));
    await machine.run();
    expect(text.join("")).toBe("a1b2c3");
  });
  it("wakes for timers when all vCPUs wait", async () => {
    const kvm = new FakeKvm();
    const machine = build(kvm);
    // IOAPIC pin 2, unmasked with vector 0x30; PIT channel 0, mode 2, 100 Hz; then wait, then power off.
    kvm.script(
      0,
      step.mmio(0xfec00000, [0x14, 0, 0, 0], true),
      step.mmio(0xfec00010, [0x30, 0, 0, 0], true),
      step.out(0x43, 1, 0x34),
      step.out(0x40, 1, 11932 & 0xff),
      step.out(0x40, 1, 11932 >> 8),
      step.error(Errno.EAGAIN),
      step.error(Errno.EAGAIN),
      ...poweroff(),
    );
    await machine.run();
    expect(kvm.msis.length).toBeGreaterThanOrEqual(1);
    expect(kvm.msis[0]).toMatchObject({ address_lo: 0xfee00000, data: 0x30 });
  });
});

describe("a hostile guest", () => {
  it("makes no device throw, hang, or answer with more bits than were asked for", () => {
    const kvm = new FakeKvm();
    const machine = build(kvm, {
      drives: [new MemoryDrive(new Uint8Array(4096))],
      random: (bytes) => new Uint8Array(bytes),
    });
    const { ports, mmio } = machine.board;
    const known = [
      0x20, 0x40, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0x3f8, 0x402, 0x510, 0x511, 0x514, 0x518,
      0x600, 0x608, 0xcf8, 0xcf9, 0xcfc,
    ];
    const port = fc.oneof(
      fc.tuple(fc.constantFrom(...known), fc.nat(7)).map(([base, more]) => base + more),
      fc.nat(0xffff),
    );
    const address = fc.oneof(
      fc.nat(0x100).map((offset) => 0xfec00000 + offset),
      fc.nat(0xfffffff).map((offset) => 0xe0000000 + offset),
      fc.nat(0xffffffff),
    );
    const value = fc.oneof(
      fc.nat(0xff),
      fc.nat(0xffffffff),
      fc.constantFrom(0xe0000001, 0x8000f844, 0x80000060),
    );
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(3), port, address, fc.constantFrom(1, 2, 4), value), { maxLength: 60 }),
        fc.nat(1e9),
        (ops, ns) => {
          for (const [kind, portNumber, gpa, size, data] of ops) {
            if (kind === 0) ports.write(portNumber, size, data);
            else if (kind === 1) mmio.write(gpa, size, data);
            else {
              const got = kind === 2 ? ports.read(portNumber, size) : mmio.read(gpa, size);
              expect(got).toBeGreaterThanOrEqual(0);
              expect(got).toBeLessThan(2 ** (8 * size));
            }
          }
          kvm.virtual += ns;
          machine.board.timers.run();
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("GetQuote", () => {
  const report = Uint8Array.from({ length: 1024 }, (_, i) => i & 0xff);
  const quote = new TextEncoder().encode("a quote");
  const response = (over: Partial<{ type: number; error: number }> = {}) => {
    const message = new Uint8Array(24 + quote.length);
    const view = new DataView(message.buffer);
    view.setUint16(0, 1, true);
    view.setUint16(2, 1, true);
    view.setUint32(4, over.type ?? 1, true);
    view.setUint32(8, message.length, true);
    view.setUint32(12, over.error ?? 0, true);
    view.setUint32(20, quote.length, true);
    message.set(quote, 24);
    return message;
  };
  const GPA = 0x1000000;
  async function ask(
    service: MachineOptions["quoteGenerationService"],
    { gpa = GPA, size = 0x4000, version = 1n, inLength = 1024 } = {},
  ) {
    const kvm = new FakeKvm();
    const machine = build(kvm, { quoteGenerationService: service });
    const ram = [...kvm.mappings.values()].find(({ length }) => length === 64 * MIB)!;
    const view = new DataView(ram.bytes.buffer);
    view.setBigUint64(GPA, version, true);
    view.setBigUint64(GPA + 8, 0x1234n, true);
    view.setUint32(GPA + 16, inLength, true);
    ram.bytes.set(report, GPA + 24);
    let ret = -1n;
    kvm.script(
      0,
      step.tdx(0x10004, [0x50n], () => {}),
      step.tdx(0x10002, [BigInt(gpa), BigInt(size)], (value) => (ret = value)),
      step.error(Errno.EINTR),
      step.error(Errno.EINTR),
      ...poweroff(),
    );
    await machine.run();
    return {
      ret,
      status: view.getBigUint64(GPA + 8, true),
      length: view.getUint32(GPA + 20, true),
      data: ram.bytes.slice(GPA + 24, GPA + 24 + quote.length),
      msis: kvm.msis,
    };
  }
  const done = { ret: 0n, status: 0n, length: quote.length, data: quote };

  it("passes the report to the service and the quote to the guest, then notifies it", async () => {
    let asked = new Uint8Array();
    const result = await ask((message) => ((asked = message.slice()), response()));
    expect(result).toMatchObject(done);
    expect(asked).toEqual(encodeQuoteRequest(report));
    expect(Buffer.from(asked.subarray(0, 24)).toString("hex")).toBe(
      "01000100" + "00000000" + "18040000" + "00000000" + "00040000" + "00000000",
    );
    expect(result.msis).toMatchObject([{ address_lo: 0xfee00000, data: 0x50 }]);
  });
  it("waits for a service that takes its time", async () => {
    const slow = () => new Promise<Uint8Array>((resolve) => setTimeout(() => resolve(response()), 20));
    expect(await ask(slow)).toMatchObject(done);
  });
  it("tells the guest when there is no service, or one that fails", async () => {
    expect(await ask(undefined)).toMatchObject({ ret: 0n, status: 0x8000000000000001n });
    expect(await ask(() => Promise.reject(new Error("no")))).toMatchObject({
      ret: 0n,
      status: 0x8000000000000001n,
    });
    expect(await ask(() => response({ error: 1 }))).toMatchObject({ ret: 0n, status: 0x8000000000000000n });
    expect(await ask(() => response({ type: 3 }))).toMatchObject({ ret: 0n, status: 0x8000000000000000n });
    expect(await ask(() => new Uint8Array(3))).toMatchObject({ ret: 0n, status: 0x8000000000000000n });
  });
  it("checks the buffer", async () => {
    const service = () => response();
    const invalid = { ret: 0x8000000000000000n, status: 0x1234n };
    expect(await ask(service, { size: 0 })).toMatchObject(invalid);
    expect(await ask(service, { gpa: GPA + 8 })).toMatchObject({ ret: 0x8000000000000002n, status: 0x1234n });
    expect(await ask(service, { size: 100 })).toMatchObject({ ret: 0x8000000000000002n });
    expect(await ask(service, { version: 2n })).toMatchObject(invalid);
    expect(await ask(service, { size: 0x21000 })).toMatchObject(invalid);
    expect(await ask(service, { inLength: 0x4000 })).toMatchObject(invalid);
    expect(await ask(service, { gpa: 0xf0000000 })).toMatchObject(invalid);
  });
  it("tells what it can do", async () => {
    const kvm = new FakeKvm();
    const machine = build(kvm);
    const got: unknown[] = [];
    const note = (ret: bigint, data: bigint[]) => got.push([ret, data[1]]);
    kvm.script(
      0,
      step.tdx(0x10000, [1n], note),
      step.tdx(0x10000, [0n], note),
      step.tdx(0x10005, [0n], note),
      step.tdx(0x10004, [31n], note),
      ...poweroff(),
    );
    await machine.run();
    expect(got).toEqual([
      [0n, 2n],
      [0x8000000000000003n, 2n],
      [0x8000000000000003n, 2n],
      [0x8000000000000000n, 2n],
    ]);
  });
});
