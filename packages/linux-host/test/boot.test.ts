/** What a host does from power-on to TDX enabled. */
import { describe, expect, it } from "vitest";
import { seamldrInfo } from "../src/index.js";
import { GIB, powerOn } from "./support/host.js";

describe("LinuxHost.boot", () => {
  it("loads and initializes the module as Linux does", () => {
    const { host, events } = powerOn({ lps: 2 });
    const text = host.log.lines.map((line) => line.text);
    expect(text).toEqual([
      "virt/tdx: BIOS enabled: private KeyID range [32, 64)",
      "virt/tdx: Disable ACPI S3. Turn off TDX in the BIOS to use ACPI S3.",
      expect.stringMatching(/^virt\/tdx: Module version: 1\.5\.\d\d$/),
      "virt/tdx: 4108 KB allocated for PAMT",
      "virt/tdx: module initialized",
    ]);
    const leaves = events.flatMap((event) => (event.type === "SEAMCALL" ? [event.leaf] : []));
    const order = [...new Set(leaves)];
    expect(order).toEqual([
      "TDH.SYS.INIT",
      "TDH.SYS.LP.INIT",
      "TDH.SYS.RD",
      "TDH.SYS.CONFIG",
      "TDH.SYS.KEY.CONFIG",
      "TDH.SYS.TDMR.INIT",
    ]);
    expect(leaves.filter((leaf) => leaf === "TDH.SYS.LP.INIT")).toHaveLength(2);
    expect(host.tdx!.sysInfo!.maxVcpusPerTd).toBeGreaterThan(0);
    expect(host.sysfs.read("/sys/module/kvm_intel/parameters/tdx")).toBe("Y\n");
    expect(host.sysfs.read("/sys/devices/faux/tdx_host/version")).toMatch(/^1\.5\.\d\d\n$/);
    expect(host.sysfs.list()).toEqual([
      "/sys/devices/faux/tdx_host/num_remaining_updates",
      "/sys/devices/faux/tdx_host/seamldr_version",
      "/sys/devices/faux/tdx_host/version",
      "/sys/fs/cgroup/misc.capacity",
      "/sys/fs/cgroup/misc.current",
      "/sys/module/kvm_intel/parameters/tdx",
    ]);
    expect(host.sysfs.read("/sys/nothing")).toBeNull();
    // All that bring-up needed for a while is free again.
    expect([...host.pages.usage().keys()]).toEqual(["PAMT", "vmxon"]);
    const info = seamldrInfo(host.lps[0], host.pages);
    expect(typeof info).not.toBe("bigint");
  });

  it("works with memory above 4 GiB", () => {
    const { host } = powerOn({ memoryBytes: 4 * GIB });
    expect(host.tdx!.tdmrs.map(({ base, size }) => [base / GIB, size / GIB])).toEqual([
      [0, 3],
      [4, 1],
    ]);
  });

  it("without TDX firmware the host runs, without TDX", () => {
    const { host } = powerOn({ firmware: false });
    expect(host.tdx).toBeNull();
    expect(host.sysfs.read("/sys/module/kvm_intel/parameters/tdx")).toBe("N\n");
  });

  it("refuses impossible memory", () => {
    expect(() => powerOn({ memoryBytes: 12345 })).toThrow(RangeError);
  });
});
