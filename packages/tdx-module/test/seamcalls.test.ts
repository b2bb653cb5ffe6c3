/** SEAMCALLs in the wrong order and with wrong operands, and at random: on a booted host. */
import { SEAMCALL_LEAF, type SeamcallName, TDX_STATUS, TD_PARAMS, withOperand } from "@swtdx/abi";
import { leaf, rawSeamcall, type TdxModuleArgs } from "@swtdx/linux-host";
import { Gpr } from "@swtdx/cpu";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { NULL_PA, Td, tdParams, TdHost } from "./support/td-host.js";

const S = TDX_STATUS;
const GIB = 2 ** 30;
const PRIVATE_KEY = 40n << 46n;
const SHARED_GPA = 1n << 47n;

describe("wrong operands", () => {
  const at = new TdHost({ lps: 2 });
  const td = new Td(at).create().init();
  td.addVcpu();
  td.addPage(0x1000);
  const free = at.page();
  const big = at.page(9);
  const tdvpr = BigInt(td.vcpus[0].tdvpr);
  const bare = new Td(at);
  bare.ok("TDH.MNG.CREATE", { rcx: bare.handle, rdx: BigInt(bare.hkid) });
  const reserved = 0x2000;
  type Row = [name: SeamcallName, args: Partial<TdxModuleArgs>, status: bigint, out?: Partial<TdxModuleArgs>];
  const R = (
    rcx: bigint | number,
    rdx: bigint | number = 0n,
    r8: bigint | number = 0n,
    r9: bigint | number = 0n,
  ) => ({
    rcx: BigInt(rcx),
    rdx: BigInt(rdx),
    r8: BigInt(r8),
    r9: BigInt(r9),
  });
  const rows: Row[] = [
    ["TDH.MNG.CREATE", R(free, 1), withOperand(S.TDX_OPERAND_INVALID, "RDX")],
    ["TDH.MNG.CREATE", R(free, 0x10028), withOperand(S.TDX_OPERAND_INVALID, "RDX")],
    ["TDH.MNG.CREATE", R(free + 8, 40), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
    ["TDH.MNG.CREATE", R(BigInt(free) | PRIVATE_KEY, 40), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
    ["TDH.MNG.CREATE", R(8 * GIB, 40), withOperand(S.TDX_OPERAND_ADDR_RANGE_ERROR, "RCX")],
    ["TDH.MNG.CREATE", R(reserved, 40), withOperand(S.TDX_PAGE_METADATA_INCORRECT, "RCX")],
    ["TDH.MNG.CREATE", R(td.tdr, 40), withOperand(S.TDX_PAGE_METADATA_INCORRECT, "RCX")],
    ["TDH.MNG.CREATE", R(free, td.hkid), S.TDX_HKID_NOT_FREE],
    ["TDH.MNG.CREATE", R(free, at.host.tdx!.globalKeyId), S.TDX_HKID_NOT_FREE],
    ["TDH.MNG.KEY.CONFIG", R(free), withOperand(S.TDX_PAGE_METADATA_INCORRECT, "RCX")],
    ["TDH.MNG.KEY.CONFIG", R(td.tdr), S.TDX_LIFECYCLE_STATE_INCORRECT],
    ["TDH.MNG.ADDCX", R(free, bare.tdr), S.TDX_TD_KEYS_NOT_CONFIGURED],
    ["TDH.MNG.ADDCX", R(td.tdr, td.tdr), withOperand(S.TDX_OPERAND_BUSY, "RCX")],
    ["TDH.MNG.ADDCX", R(free, td.tdr), S.TDX_OP_STATE_INCORRECT],
    ["TDH.MNG.INIT", R(td.tdr, free), S.TDX_OP_STATE_INCORRECT, { rcx: 0n }],
    ["TDH.MNG.INIT", R(bare.tdr, free), S.TDX_TD_KEYS_NOT_CONFIGURED, { rcx: 0n }],
    ["TDH.MNG.RD", R(td.tdr, NULL_PA), S.TDX_METADATA_FIELD_ID_INCORRECT],
    ["TDH.MNG.RD", R(td.tdr, 0x1110000300000000n), S.TDX_SUCCESS, { r8: 1n << 28n }],
    ["TDH.MNG.WR", R(td.tdr, 0x1110000300000000n, 1, NULL_PA), S.TDX_METADATA_FIELD_NOT_WRITABLE],
    ["TDH.MNG.VPFLUSHDONE", R(td.tdr), S.TDX_FLUSHVP_NOT_DONE],
    ["TDH.MNG.KEY.FREEID", R(td.tdr), S.TDX_LIFECYCLE_STATE_INCORRECT],
    ["TDH.VP.CREATE", R(free, free), withOperand(S.TDX_PAGE_METADATA_INCORRECT, "RDX")],
    ["TDH.VP.CREATE", R(td.tdr, td.tdr), withOperand(S.TDX_OPERAND_BUSY, "RCX")],
    ["TDH.VP.CREATE", R(tdvpr, td.tdr), withOperand(S.TDX_PAGE_METADATA_INCORRECT, "RCX")],
    ["TDH.VP.ADDCX", R(free, tdvpr), S.TDX_VCPU_STATE_INCORRECT],
    ["TDH.VP.ADDCX", R(free, free), withOperand(S.TDX_PAGE_METADATA_INCORRECT, "RDX")],
    ["TDH.VP.INIT", R(tdvpr), S.TDX_VCPU_STATE_INCORRECT],
    ["TDH.VP.ENTER", R(tdvpr), S.TDX_OP_STATE_INCORRECT],
    ["TDH.VP.ENTER", R(tdvpr | 4n), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
    ["TDH.VP.FLUSH", R(free), withOperand(S.TDX_PAGE_METADATA_INCORRECT, "RCX")],
    ["TDH.MEM.SEPT.ADD", R(0, td.handle | 2n, free), withOperand(S.TDX_OPERAND_INVALID, "RDX")],
    ["TDH.MEM.SEPT.ADD", R(0, td.tdr, free), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
    ["TDH.MEM.SEPT.ADD", R(4, td.tdr, free), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
    ["TDH.MEM.SEPT.ADD", R(SHARED_GPA | 3n, td.tdr, free), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
    ["TDH.MEM.SEPT.ADD", R(0x1003, td.tdr, free), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
    [
      "TDH.MEM.SEPT.ADD",
      R(3, td.tdr, free),
      withOperand(S.TDX_EPT_ENTRY_STATE_INCORRECT, "RCX"),
      { rcx: 7n, rdx: 0x8403n },
    ],
    [
      "TDH.MEM.SEPT.ADD",
      R((1n << 40n) + 1n, td.tdr, free),
      withOperand(S.TDX_EPT_WALK_FAILED, "RCX"),
      { rcx: 1n << 63n, rdx: 3n },
    ],
    [
      "TDH.MEM.PAGE.ADD",
      R(0x1000, td.tdr, free, free),
      withOperand(S.TDX_EPT_ENTRY_STATE_INCORRECT, "RCX"),
      { rdx: 0x400n },
    ],
    [
      "TDH.MEM.PAGE.ADD",
      R(0x2000, td.tdr, free, BigInt(free) | PRIVATE_KEY),
      withOperand(S.TDX_OPERAND_INVALID, "R9"),
    ],
    ["TDH.MEM.PAGE.ADD", R(0x2000, td.tdr, td.tdr, free), withOperand(S.TDX_OPERAND_BUSY, "R8")],
    ["TDH.MEM.PAGE.ADD", R(0x2000, td.tdr, free + 1, free), withOperand(S.TDX_OPERAND_INVALID, "R8")],
    ["TDH.MEM.PAGE.ADD", R(0x20_0001, td.tdr, free, free), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
    ["TDH.MEM.PAGE.AUG", R(0x2000, bare.tdr, free), S.TDX_TD_KEYS_NOT_CONFIGURED, { rcx: 0n, rdx: 0n }],
    ["TDH.MEM.PAGE.REMOVE", R(0x1003, td.tdr), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
    ["TDH.MEM.RANGE.UNBLOCK", R(0x1000, td.tdr), withOperand(S.TDX_EPT_ENTRY_STATE_INCORRECT, "RCX")],
    [
      "TDH.MEM.SEPT.REMOVE",
      R(1, td.tdr),
      withOperand(S.TDX_EPT_PAGE_NOT_FREE, "RCX"),
      { rcx: 7n, rdx: 0x8401n },
    ],
    ["TDH.MEM.SEPT.RD", R(0x1000, td.handle | 1n), withOperand(S.TDX_OPERAND_INVALID, "RDX")],
    ["TDH.MEM.RD", R(0x1000, td.tdr), S.TDX_TD_NON_DEBUG, { r8: 0n }],
    ["TDH.MEM.WR", R(0x1000, td.tdr), S.TDX_TD_NON_DEBUG],
    ["TDH.MR.EXTEND", R(0x1010, td.tdr), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
    ["TDH.MR.EXTEND", R(0x3000, td.tdr), withOperand(S.TDX_EPT_ENTRY_NOT_PRESENT, "RCX"), { rcx: 1n << 63n }],
    ["TDH.PHYMEM.PAGE.RDMD", R(free + 1), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
    ["TDH.PHYMEM.PAGE.RDMD", R(big + 0x5000), S.TDX_SUCCESS, { rcx: 0n, rdx: 0n, r8: 0n }],
    ["TDH.PHYMEM.PAGE.RDMD", R(reserved), S.TDX_SUCCESS, { rcx: 1n }],
    ["TDH.PHYMEM.PAGE.RECLAIM", R(free), withOperand(S.TDX_PAGE_METADATA_INCORRECT, "RCX"), { rcx: 0n }],
    [
      "TDH.PHYMEM.PAGE.RECLAIM",
      R(tdvpr),
      S.TDX_LIFECYCLE_STATE_INCORRECT,
      { rcx: 6n, rdx: td.handle, r8: 0n },
    ],
    ["TDH.PHYMEM.PAGE.WBINVD", R(td.tdr), withOperand(S.TDX_PAGE_METADATA_INCORRECT, "RCX")],
    ["TDH.PHYMEM.PAGE.WBINVD", R(BigInt(free) | PRIVATE_KEY), S.TDX_SUCCESS],
    ["TDH.PHYMEM.CACHE.WB", R(2), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
    ["TDH.PHYMEM.CACHE.WB", R(1), S.TDX_WBCACHE_RESUME_ERROR],
    ["TDH.PHYMEM.CACHE.WB", R(0), S.TDX_NO_HKID_READY_TO_WBCACHE],
    ["TDH.SYS.INIT", R(0), S.TDX_SYS_INIT_NOT_PENDING],
    ["TDH.SYS.LP.INIT", R(0), S.TDX_SYS_LP_INIT_NOT_PENDING],
    ["TDH.SYS.CONFIG", R(0), S.TDX_SYS_CONFIG_NOT_PENDING],
    ["TDH.SYS.KEY.CONFIG", R(0), S.TDX_SYS_KEY_CONFIG_NOT_PENDING],
    ["TDH.SYS.TDMR.INIT", R(0), S.TDX_TDMR_ALREADY_INITIALIZED],
    ["TDH.SYS.TDMR.INIT", R(GIB), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
    ["TDH.SYS.SHUTDOWN", R(9), withOperand(S.TDX_OPERAND_INVALID, "RCX")],
  ];
  test.each(rows.map((row, i) => [i, ...row] as const))("%i %s", (_, name, args, status, out = {}) => {
    const outputs = at.call(name, args);
    expect(`0x${outputs.status.toString(16)}`).toBe(`0x${status.toString(16)}`);
    expect(outputs).toMatchObject(out);
  });

  test("a leaf or version that is not there", () => {
    for (const rax of [leaf("TDH.MNG.CREATE", 1), leaf("TDH.MNG.RD", 2), 0x7fn, 1n << 24n, 1n << 60n])
      expect(rawSeamcall(at.lp, rax)).toBe(withOperand(S.TDX_OPERAND_INVALID, "RAX"));
  });

  test("a vCPU belongs to one logical processor at a time", () => {
    const rcx = tdvpr;
    const other = at.host.lps[1];
    expect(at.call("TDH.VP.RD", { rcx, rdx: 0xa020000200000002n }, other).status).toBe(S.TDX_VCPU_ASSOCIATED);
    at.ok("TDH.VP.FLUSH", { rcx });
    expect(at.call("TDH.VP.RD", { rcx, rdx: 0xa020000200000002n }, other).status).toBe(0n);
    at.ok("TDH.VP.FLUSH", { rcx }, other);
    expect(at.call("TDH.VP.RD", { rcx, rdx: 0xa020000200000002n }).status).toBe(0n);
  });
});

describe("TD_PARAMS", () => {
  const at = new TdHost({ lps: 1 });
  const td = new Td(at).create();
  const page = at.page();
  const status = (changes: Parameters<typeof tdParams>[0]) => {
    at.write(page, TD_PARAMS.encode(tdParams(changes)));
    return at.call("TDH.MNG.INIT", { rcx: td.handle, rdx: BigInt(page) }).status;
  };
  test.each([
    ["ATTRIBUTES", { ATTRIBUTES: 2n }],
    ["XFAM", { XFAM: 1n }],
    ["XFAM", { XFAM: 0x20003n }],
    ["MAX_VCPUS", { MAX_VCPUS: 0 }],
    ["NUM_L2_VMS", { NUM_L2_VMS: 4 }],
    ["EXEC_CONTROLS", { CONFIG_FLAGS: 1n << 40n }],
    ["EPTP_CONTROLS", { EPTP_CONTROLS: 0n }],
    ["EPTP_CONTROLS", { CONFIG_FLAGS: 1n }],
    ["TSC_FREQUENCY", { TSC_FREQUENCY: 1 }],
    ["RDX", { RESERVED_1: new Uint8Array(38).fill(1) }],
  ] as const)("%s", (operand, changes) => {
    expect(status(changes)).toBe(withOperand(S.TDX_OPERAND_INVALID, operand));
  });
  test("and right ones after all", () => expect(status({})).toBe(0n));
});

describe("random SEAMCALLs", () => {
  test("return a status, leave no page behind and no lock held", () => {
    const names = (Object.keys(SEAMCALL_LEAF) as SeamcallName[]).filter((name) => !name.includes("SHUTDOWN"));
    const at = new TdHost({ lps: 2 });
    at.programs.set("@swtdx/test:Nothing", function* () {});
    const pool: number[] = [at.page(9), at.page(9)];
    for (let i = 0; i < 40; i++) pool.push(at.page());
    const known = [...pool.map(BigInt), 0n, 1n, 3n, 0x1000n, 0x20_0001n, 0x4000_0002n, NULL_PA, 33n, 34n];
    const value = fc.oneof(
      { weight: 12, arbitrary: fc.constantFrom(...known) },
      { weight: 2, arbitrary: fc.bigInt({ min: 0n, max: (1n << 52n) - 1n }) },
      { weight: 1, arbitrary: fc.bigInt({ min: 0n, max: NULL_PA }) },
    );
    const call = fc.record({
      name: fc.constantFrom(...names),
      lp: fc.nat(1),
      version: fc.constantFrom(0, 0, 0, 1),
      values: fc.array(value, { minLength: 6, maxLength: 6 }),
    });
    const fresh = [new Td(at).create().init()];
    fresh[0].addVcpu();
    fresh[0].addPage(0x1000);
    fresh[0].finalize();
    known.push(fresh[0].handle, BigInt(fresh[0].vcpus[0].tdvpr));
    fc.assert(
      fc.property(fc.array(call, { minLength: 1, maxLength: 30 }), (calls) => {
        for (const { name, lp, version, values } of calls) {
          const { regs } = at.host.lps[lp];
          [Gpr.RCX, Gpr.RDX, Gpr.R8, Gpr.R9, Gpr.R10, Gpr.R11].forEach((r, i) => regs.setGpr(r, values[i]));
          const outcome = rawSeamcall(at.host.lps[lp], leaf(name, version));
          expect(typeof outcome).toBe("bigint");
          // Neither VMfailInvalid nor a fault: the processor still has its module.
          expect(outcome >> 32n).not.toBe(0x8000_ff00n);
        }
        // All locks are free: each page can be looked at, and the TD can be asked.
        for (const page of pool)
          expect(at.call("TDH.PHYMEM.PAGE.RDMD", { rcx: BigInt(page) }).status).toBe(0n);
        const busy = S.TDX_OPERAND_BUSY >> 32n;
        const asked = at.call("TDH.MNG.VPFLUSHDONE", { rcx: BigInt(pool[2]) }).status >> 32n;
        expect(asked).not.toBe(busy);
      }),
      { numRuns: 150, seed: 4711 },
    );
  });
});
