import { TDX_STATUS, withOperand } from "@swtdx/abi";
import { describe, expect, test } from "vitest";
import { OpState, TDCS } from "../src/structures/tdcs.js";
import { LifecycleState, TDR } from "../src/structures/tdr.js";
import { LastTdExit, TDVPS, VcpuState } from "../src/structures/tdvps.js";
import { GLOBAL_HKID, stop, TestTd, VpEnterRun } from "./support/fake-seam.js";

const INTERRUPT_EXIT = 1n;
/** A TD, its vCPU's handle and the way in, changed by `spoil`. */
function refused(spoil: (td: TestTd, run: VpEnterRun) => void, bits = 0n): bigint {
  const td = new TestTd().longMode();
  const run = new VpEnterRun(td, BigInt(td.tdvps.tdvprPa) | bits);
  spoil(td, run);
  const status = run.run(stop());
  expect(td.lp.steps).toHaveLength(1);
  return status;
}
const rcx = withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");

describe("TDH.VP.ENTER", () => {
  test("runs the guest and leaves the locks as they were", () => {
    const td = new TestTd().longMode();
    const run = new VpEnterRun(td, BigInt(td.tdvps.tdvprPa));
    expect(run.run(stop())).toBe(INTERRUPT_EXIT);
    expect(td.tdcs.get(TDCS.OP_STATE_LOCK)).toBe(0);
    expect(td.lp.readU16(run.pamtTdvpr, GLOBAL_HKID)).toBe(0);
    expect(td.lp.readU16(run.pamtTdr, GLOBAL_HKID)).toBe(0);
    expect(td.tdvps.get(TDVPS.VCPU_STATE)).toBe(VcpuState.VCPU_READY);
    expect(run.host.lastTdvpr[td.lp.index]).toBe(td.tdvps.tdvprPa);
  });

  test("associates the vCPU with the logical processor, once", () => {
    const td = new TestTd().longMode();
    const run = new VpEnterRun(td, BigInt(td.tdvps.tdvprPa));
    td.tdvps.set(TDVPS.ASSOC_LPID, 0xffffffff);
    run.run(stop());
    run.run(stop());
    expect(td.tdvps.get(TDVPS.ASSOC_LPID)).toBe(td.lp.index);
    expect(td.tdcs.get(TDCS.NUM_ASSOC_VCPUS)).toBe(1);
  });

  test("flushes translations and branch predictions when another vCPU ran here", () => {
    const td = new TestTd().longMode();
    const run = new VpEnterRun(td, BigInt(td.tdvps.tdvprPa));
    run.run(stop());
    const flushes = td.lp.invepts;
    run.run(stop());
    expect(flushes).toBeGreaterThan(0);
    expect(td.lp.invepts).toBe(flushes);
  });

  const busyTdvpr = withOperand(TDX_STATUS.TDX_OPERAND_BUSY, "RCX");
  const busyTdr = withOperand(TDX_STATUS.TDX_OPERAND_BUSY, "TDR");
  test.each<[string, bigint, (td: TestTd, run: VpEnterRun) => void, bigint?]>([
    [
      "LIMIT_CPUID_MAXVAL",
      TDX_STATUS.TDX_LIMIT_CPUID_MAXVAL_SET,
      (td) => td.lp.msrs.set(0x1a0, (1n << 22n) | (1n << 18n)),
    ],
    ["reserved low bits of RCX", rcx, () => undefined, 1n],
    ["reserved high bits of RCX", rcx, () => undefined, 1n << 54n],
    [
      "a host recoverability hint without a trap-like exit",
      rcx,
      (td) => td.tdvps.set(TDVPS.LAST_TD_EXIT, LastTdExit.TDVMCALL),
      1n << 52n,
    ],
    ["RESUME_L1 without an L2", rcx, () => undefined, 1n << 53n],
    ["a TDVPR page that is locked", busyTdvpr, (td, run) => td.lp.writeU16(run.pamtTdvpr, GLOBAL_HKID, 1)],
    ["a TDR that is locked", busyTdr, (td, run) => td.lp.writeU16(run.pamtTdr, GLOBAL_HKID, 1)],
    [
      "a page of another type",
      withOperand(TDX_STATUS.TDX_PAGE_METADATA_INCORRECT, "RCX"),
      (td, run) => td.lp.writeU8(run.pamtTdvpr + 2, GLOBAL_HKID, 5),
    ],
    [
      "a page outside of the TDMRs",
      withOperand(TDX_STATUS.TDX_OPERAND_ADDR_RANGE_ERROR, "RCX"),
      () => undefined,
      1n << 40n,
    ],
    ["a TD with a fatal error", TDX_STATUS.TDX_TD_FATAL, (td) => td.tdr.set(TDR.FATAL, 1)],
    [
      "a TD in teardown",
      TDX_STATUS.TDX_TD_KEYS_NOT_CONFIGURED,
      (td) => td.tdr.set(TDR.LIFECYCLE_STATE, LifecycleState.TD_TEARDOWN),
    ],
    ["a TDCS that lacks pages", TDX_STATUS.TDX_TDCS_NOT_ALLOCATED, (td) => td.tdr.set(TDR.NUM_TDCX, 5)],
    [
      "an OP_STATE locked exclusively",
      withOperand(TDX_STATUS.TDX_OPERAND_BUSY, "OP_STATE"),
      (td) => td.tdcs.set(TDCS.OP_STATE_LOCK, 1),
    ],
    [
      "a TD whose measurement is not final",
      TDX_STATUS.TDX_OP_STATE_INCORRECT,
      (td) => td.tdcs.set(TDCS.OP_STATE, OpState.INITIALIZED),
    ],
    [
      "a TDVPS that lacks pages",
      TDX_STATUS.TDX_TDCX_NUM_INCORRECT,
      (td) => td.tdvps.set(TDVPS.NUM_TDVPS_PAGES, 5),
    ],
    [
      "a vCPU that runs already",
      TDX_STATUS.TDX_VCPU_STATE_INCORRECT,
      (td) => td.tdvps.set(TDVPS.VCPU_STATE, VcpuState.VCPU_ACTIVE),
    ],
    [
      "a vCPU associated with another logical processor",
      TDX_STATUS.TDX_VCPU_ASSOCIATED,
      (td) => td.tdvps.set(TDVPS.ASSOC_LPID, 7),
    ],
    [
      "a changed IA32_TSC_ADJUST",
      withOperand(TDX_STATUS.TDX_INCONSISTENT_MSR, 0x3b),
      (td) => td.lp.msrs.set(0x3b, 5n),
    ],
    ["a TSC that went back", TDX_STATUS.TDX_TSC_ROLLBACK, (td) => td.tdvps.set(TDVPS.LAST_EXIT_TSC, 5000n)],
    [
      "a TD epoch that is being advanced",
      withOperand(TDX_STATUS.TDX_OPERAND_BUSY, "TD_EPOCH"),
      (td) => td.tdcs.set(TDCS.EPOCH_LOCK, 1),
    ],
  ])("refuses %s", (_name, status, spoil, bits) => {
    expect(refused(spoil, bits)).toBe(status);
  });
});
