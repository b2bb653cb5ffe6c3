import { KVM_CPUID_FLAG_SIGNIFCANT_INDEX, type KvmTdxCapabilities } from "@swtdx/abi";
import { describe, expect, it } from "vitest";
import { OptionError } from "../src/errors.js";
import { featureNames, findEntry, findFeature } from "../src/target/cpu-features.js";
import { buildCpuModel, parseCpuOption } from "../src/target/cpu-model.js";
import { checkTdAttributes, parseTdAttributes, tdIdentity } from "../src/target/tdx-guest.js";
import { hostCpuid, tdxCpuidConfig } from "./support/host-cpuid.js";

const tdx: KvmTdxCapabilities = {
  supported_attrs: 1n << 28n,
  supported_xfam: 0x6dbe7n,
  kernel_tdvmcallinfo_1_r11: 0n,
  user_tdvmcallinfo_1_r11: 0n,
  kernel_tdvmcallinfo_1_r12: 0n,
  user_tdvmcallinfo_1_r12: 0n,
  cpuid: { nent: tdxCpuidConfig.length, entries: tdxCpuidConfig },
};
const model = (cpu = "host", vcpus = 1, caps: KvmTdxCapabilities | null = tdx) =>
  buildCpuModel({ option: parseCpuOption(cpu), supported: hostCpuid, tdx: caps, vcpus });
const leaf = (cpu: ReturnType<typeof model>, fn: number, index = 0, id = 0) =>
  findEntry(cpu.vcpuCpuid(id), fn, index)!;
const has = (cpu: ReturnType<typeof model>, name: string) => {
  const { word, bit } = findFeature(name)!;
  return ((leaf(cpu, word.leaf, word.subleaf)[word.register] >>> bit) & 1) === 1;
};

describe("--cpu", () => {
  it("parses host with features", () => {
    expect(parseCpuOption("host")).toEqual({ model: "host", plus: [], minus: [] });
    expect(parseCpuOption("host,-avx,+sha_ni,erms=off,smep=on")).toEqual({
      model: "host",
      plus: ["sha_ni", "smep"],
      minus: ["avx", "erms"],
    });
  });
  it.each(["", "qemu64", "host,avx", "host,+nonsense", "host,avx=maybe", "host,"])("refuses %j", (text) => {
    expect(() => parseCpuOption(text)).toThrow(OptionError);
  });
  it("knows features by QEMU's names and its other spellings", () => {
    expect(findFeature("avx512f")).toMatchObject({ bit: 16, word: { leaf: 7, register: "ebx" } });
    expect(findFeature("tsc-deadline")).toMatchObject({ bit: 24, word: { leaf: 1, register: "ecx" } });
    expect(findFeature("tsc_deadline")?.bit).toBe(24);
    expect(findFeature("sse3")?.bit).toBe(0);
    expect(findFeature("fsrm")?.bit).toBe(4);
    expect(findFeature("ssbd")?.bit).toBe(31);
    expect(findFeature("lm")?.bit).toBe(29);
    expect(findFeature("bus-lock-detect")?.bit).toBe(24);
    expect(findFeature("wbnoinvd")?.bit).toBe(9);
    expect(findFeature("hypervisor")?.bit).toBe(31);
    expect(featureNames().length).toBeGreaterThan(150);
  });
});

describe("the CPU model", () => {
  it("shows a TD what TDX always shows, and hides what it never has", () => {
    const cpu = model();
    for (const name of [
      "sse4.2",
      "aes",
      "hypervisor",
      "x2apic",
      "sha-ni",
      "movdir64b",
      "invtsc",
      "arat",
      "lm",
    ])
      expect([name, has(cpu, name)]).toEqual([name, true]);
    for (const name of ["vmx", "sgx", "mpx", "kvmclock", "kvm-steal-time", "tsc-adjust"])
      expect([name, has(cpu, name)]).toEqual([name, false]);
    expect(has(cpu, "avx512f")).toBe(true);
    expect(has(cpu, "amx-tile")).toBe(true);
    expect(cpu.xfam).toBe(0x602e7n);
    expect(cpu.attributes).toBe(0n);
  });
  it("takes state out of XFAM with its feature, and features with their state", () => {
    const cpu = model("host,-avx,-amx-tile,-pku");
    expect(cpu.xfam).toBe(3n);
    for (const name of [
      "avx",
      "avx2",
      "fma",
      "f16c",
      "avx512f",
      "avx512bw",
      "vaes",
      "amx-int8",
      "xfd",
      "pku",
    ])
      expect([name, has(cpu, name)]).toEqual([name, false]);
    expect(leaf(cpu, 0xd)).toMatchObject({ eax: 3, ebx: 576, ecx: 576, edx: 0 });
    expect(findEntry(cpu.vcpuCpuid(0), 0xd, 2)).toBeUndefined();
    expect(model("host,-avx512f").xfam).toBe(0x60207n);
  });
  it("computes XSAVE's sizes from the components", () => {
    const cpu = model("host,-amx-tile,-avx512f");
    expect(cpu.xfam).toBe(0x207n);
    expect(leaf(cpu, 0xd, 0)).toMatchObject({ eax: 0x207, ebx: 0xa88 });
    expect(leaf(cpu, 0xd, 1).ebx).toBe(576 + 256 + 8);
    expect(leaf(cpu, 0xd, 2).flags).toBe(KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
  });
  it("cannot switch off what TDX fixes, nor give what it lacks", () => {
    const cpu = model("host,-aes,+vmx,+pks");
    expect(has(cpu, "aes")).toBe(true);
    expect(cpu.unavailable).toEqual(["vmx", "pks"]);
  });
  it("gives INIT_VM only what is configurable", () => {
    const config = model().initVmCpuid();
    expect(config.map((entry) => [entry.function, entry.index])).toEqual(
      tdxCpuidConfig.map((entry) => [entry.function, entry.index]),
    );
    config.forEach((entry, i) => {
      for (const register of ["eax", "ebx", "ecx", "edx"] as const)
        expect((entry[register] & ~tdxCpuidConfig[i][register]) >>> 0).toBe(0);
    });
    expect(findEntry(config, 0x80000008, 0)?.eax).toBe(0x00300000);
  });
  it("numbers vCPUs and describes their topology", () => {
    const cpu = model("host", 6);
    expect(leaf(cpu, 1, 0, 5).ebx).toBe(0x05080800);
    expect(has(cpu, "ht")).toBe(true);
    expect(leaf(cpu, 0x1f, 1, 5)).toMatchObject({ eax: 3, ebx: 6, ecx: 0x201, edx: 5 });
    expect(leaf(cpu, 0xb, 0, 5)).toMatchObject({ eax: 0, ebx: 1, ecx: 0x100, edx: 5 });
    expect(leaf(model(), 1).ebx).toBe(0x00000800);
  });
  it("says it is KVM", () => {
    expect(leaf(model(), 0x40000000)).toMatchObject({
      eax: 0x40000001,
      ebx: 0x4b4d564b,
      ecx: 0x564b4d56,
      edx: 0x4d,
    });
  });
  it("leaves an ordinary VM what the host has", () => {
    const cpu = model("host,-kvmclock", 1, null);
    expect(has(cpu, "kvm-steal-time")).toBe(true);
    expect(has(cpu, "kvmclock")).toBe(false);
    expect(has(cpu, "serialize")).toBe(true);
  });
});

describe("the tdx-guest object", () => {
  it("parses attributes", () => {
    expect(parseTdAttributes("debug,sept-ve-disable")).toBe(0x10000001n);
    expect(parseTdAttributes("0x10000000")).toBe(0x10000000n);
    expect(() => parseTdAttributes("debgu")).toThrow(/td-attributes: no "debgu"/);
  });
  it("refuses what KVM does not support", () => {
    expect(() => checkTdAttributes(0x10000001n, 0x10000000n)).toThrow(
      "td-attributes: debug: not supported by KVM",
    );
    expect(() => checkTdAttributes(0x10000000n, 0x10000000n)).not.toThrow();
  });
  it("wants identities of 48 bytes", () => {
    expect(tdIdentity("mrowner", undefined)).toEqual(new Uint8Array(48));
    expect(() => tdIdentity("mrowner", new Uint8Array(47))).toThrow("mrowner: 47 bytes");
  });
});
