/**
 * The TDX tables against numbers that others publish: Linux's headers (arch/x86/include/asm/shared/tdx.h,
 * arch/x86/virt/vmx/tdx), the layouts of the TDX Module 1.5 ABI specification, Intel's tdx-module and seam-loader.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  CMR_INFO_ARRAY,
  decodeGpaAndLevel,
  decodeLeaf,
  decodeMetadataFieldId,
  decodeStatus,
  encodeLeaf,
  encodeMetadataFieldId,
  formatStatus,
  gpaAndLevel,
  L2_VMCS_CLASS,
  metadataFieldId,
  metadataFieldKey,
  type MetadataTable,
  OPERAND_ID,
  pseamldrStatusName,
  REPORTMACSTRUCT,
  SEAMCALL_LEAF,
  seamcallName,
  SEAMEXTEND,
  SEAMLDR_INFO,
  SEAMLDR_PARAMS,
  seamldrName,
  SEPT_ENTRY_FREE,
  SEPT_STATE,
  SEPT_STATE_ENCODING,
  SEPT_STATE_MASK,
  septEncodingOf,
  septStateBits,
  septStateName,
  STATUS_CLASS,
  statusIs,
  statusName,
  SYS_METADATA,
  TD_METADATA,
  TD_PARAMS,
  TDCALL_LEAF,
  tdcallName,
  TDINFO_STRUCT,
  TDMR_INFO,
  TDREPORT_STRUCT,
  TDSYSINFO_STRUCT,
  TDVMCALL,
  tdvmcallName,
  TDX_STATUS,
  TEE_TCB_INFO,
  VE_INFO,
  vmcsFieldId,
  VP_METADATA,
  withOperand,
  withOperandFatal,
} from "../src/index.js";

describe("leaves", () => {
  it("have Linux's numbers", () => {
    expect(SEAMCALL_LEAF).toMatchObject({
      "TDH.VP.ENTER": 0,
      "TDH.MNG.ADDCX": 1,
      "TDH.MEM.PAGE.ADD": 2,
      "TDH.MEM.SEPT.ADD": 3,
      "TDH.MEM.PAGE.AUG": 6,
      "TDH.MNG.CREATE": 9,
      "TDH.MR.EXTEND": 16,
      "TDH.MNG.INIT": 21,
      "TDH.VP.INIT": 22,
      "TDH.PHYMEM.PAGE.RECLAIM": 28,
      "TDH.SYS.INIT": 33,
      "TDH.SYS.RD": 34,
      "TDH.PHYMEM.CACHE.WB": 40,
      "TDH.SYS.CONFIG": 45,
    });
    expect(TDCALL_LEAF).toMatchObject({
      "TDG.VP.VMCALL": 0,
      "TDG.VP.INFO": 1,
      "TDG.MR.RTMR.EXTEND": 2,
      "TDG.VP.VEINFO.GET": 3,
      "TDG.MR.REPORT": 4,
      "TDG.MEM.PAGE.ACCEPT": 6,
      "TDG.VM.RD": 7,
      "TDG.VM.WR": 8,
    });
    expect(TDVMCALL).toMatchObject({ MapGPA: 0x10001, GetQuote: 0x10002, ReportFatalError: 0x10003 });
  });
  it("have names, and no two the same number", () => {
    expect(seamcallName(9)).toBe("TDH.MNG.CREATE");
    expect(seamcallName(46)).toBeNull();
    expect(tdcallName(6)).toBe("TDG.MEM.PAGE.ACCEPT");
    expect(tdcallName(13)).toBeNull();
    expect(tdvmcallName(0x10001n)).toBe("MapGPA");
    expect(tdvmcallName(1n << 40n)).toBeNull();
    expect(seamldrName(0x8000_0000_0000_0001n)).toBe("SEAMLDR.INSTALL");
    expect(pseamldrStatusName(0x8000_0000_0002_0001n)).toBe("PSEAMLDR_EBADHASH");
    for (const table of [SEAMCALL_LEAF, TDCALL_LEAF, TDVMCALL, TDX_STATUS, OPERAND_ID, SEPT_STATE])
      expect(new Set(Object.values(table)).size).toBe(Object.keys(table).length);
  });
  it("come with a version in RAX", () => {
    expect(encodeLeaf(SEAMCALL_LEAF["TDH.VP.INIT"], 1)).toBe(0x10016n);
    expect(decodeLeaf(0x10016n)).toEqual({ leaf: 22, version: 1, reserved: 0n, pSeamldr: false });
    expect(decodeLeaf(0x8000_0000_0100_0001n)).toEqual({ leaf: 1, version: 0, reserved: 1n, pSeamldr: true });
  });
});

describe("completion statuses", () => {
  it("have Linux's values", () => {
    expect(TDX_STATUS.TDX_OPERAND_BUSY).toBe(0x8000_0200_0000_0000n);
    expect(TDX_STATUS.TDX_PREVIOUS_TLB_EPOCH_BUSY).toBe(0x8000_0201_0000_0000n);
    expect(TDX_STATUS.TDX_RND_NO_ENTROPY).toBe(0x8000_0203_0000_0000n);
    expect(TDX_STATUS.TDX_PAGE_METADATA_INCORRECT).toBe(0xc000_0300_0000_0000n);
    expect(TDX_STATUS.TDX_VCPU_NOT_ASSOCIATED).toBe(0x8000_0702_0000_0000n);
    expect(TDX_STATUS.TDX_KEY_CONFIGURED).toBe(0x0000_0815_0000_0000n);
    expect(TDX_STATUS.TDX_FLUSHVP_NOT_DONE).toBe(0x8000_0824_0000_0000n);
    expect(TDX_STATUS.TDX_EPT_WALK_FAILED).toBe(0xc000_0b00_0000_0000n);
    expect(TDX_STATUS.TDX_EPT_ENTRY_STATE_INCORRECT).toBe(0xc000_0b0d_0000_0000n);
    expect(TDX_STATUS.TDX_METADATA_FIELD_NOT_READABLE).toBe(0xc000_0c02_0000_0000n);
  });
  it("agree with their own bits", () => {
    const classes = new Set<number>(Object.values(STATUS_CLASS));
    for (const [name, code] of Object.entries(TDX_STATUS)) {
      const decoded = decodeStatus(code);
      expect(statusName(code)).toBe(name);
      expect(classes).toContain(decoded.class);
      expect(decoded.detailsL2).toBe(0);
      expect(code & 0x0fff_0000_0000_0000n).toBe(0n);
    }
  });
  it("carry operands", () => {
    const status = withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");
    expect(status).toBe(0xc000_0100_0000_0002n);
    expect(decodeStatus(status)).toMatchObject({ error: true, fatal: false, operand: "RDX" });
    expect(formatStatus(status)).toBe("TDX_OPERAND_INVALID | RDX");
    expect(statusIs(status, TDX_STATUS.TDX_OPERAND_INVALID)).toBe(true);
    expect(formatStatus(0x0000_0b0a_0000_0001n)).toBe("TDX_PAGE_ALREADY_ACCEPTED | 0x1");
    const fatal = withOperandFatal(TDX_STATUS.TDX_OPERAND_BUSY, "TDR");
    expect(decodeStatus(fatal)).toMatchObject({ fatal: true, operand: "TDR", name: "TDX_OPERAND_BUSY" });
    expect(formatStatus(1n << 50n)).toBe("0x0004000000000000");
  });
});

describe("structures", () => {
  it.each([
    [TD_PARAMS, 1024, { XFAM: 8, MAX_VCPUS: 16, EPTP_CONTROLS: 24, CONFIG_FLAGS: 32, TSC_FREQUENCY: 40 }],
    [TD_PARAMS, 1024, { MRCONFIGID: 80, MROWNER: 128, MROWNERCONFIG: 176, CPUID_CONFIG: 256 }],
    [
      TDMR_INFO,
      512,
      { TDMR_BASE: 0, PAMT_1G_BASE: 16, PAMT_2M_BASE: 32, PAMT_4K_BASE: 48, RESERVED_AREAS: 64 },
    ],
    [CMR_INFO_ARRAY, 512, { CMRS: 0 }],
    [
      REPORTMACSTRUCT,
      256,
      { CPUSVN: 16, TEE_TCB_INFO_HASH: 32, TEE_INFO_HASH: 80, REPORTDATA: 128, MAC: 224 },
    ],
    [TEE_TCB_INFO, 239, { TEE_TCB_SVN: 8, MRSEAM: 24, MRSIGNERSEAM: 72, ATTRIBUTES: 120 }],
    [
      TDINFO_STRUCT,
      512,
      { XFAM: 8, MRTD: 16, MRCONFIGID: 64, MROWNERCONFIG: 160, RTMR: 208, SERVTD_HASH: 400 },
    ],
    [TDREPORT_STRUCT, 1024, { REPORTMACSTRUCT: 0, TEE_TCB_INFO: 256, TDINFO_STRUCT: 512 }],
    [
      TDSYSINFO_STRUCT,
      1024,
      { MAX_TDMRS: 32, TDCS_BASE_SIZE: 48, ATTRIBUTES_FIXED0: 64, NUM_CPUID_CONFIG: 128 },
    ],
    [VE_INFO, 128, { VALID: 4, EXIT_QUALIFICATION: 8, GLA: 16, GPA: 24, EPTP_INDEX: 32 }],
    [SEAMLDR_INFO, 256, { BUILD_NUM: 16, ACM_X2APICID: 24, SEAMEXTEND: 32 }],
    [SEAMLDR_PARAMS, 4096, { SCENARIO: 4, SIGSTRUCT_PA: 8, NUM_MODULE_PAGES: 120, MOD_PAGES_PA_LIST: 128 }],
    [SEAMEXTEND, 136, { TEE_TCB_SVN: 8, MRSEAM: 24, ATTRIBUTES: 120, SEAM_READY: 128 }],
  ])("%o has its size and offsets", (definition, size, offsets) => {
    expect(definition.size).toBe(size);
    const fields: Readonly<Record<string, { offset: number }>> = definition.fields;
    for (const [name, offset] of Object.entries(offsets))
      expect([name, fields[name].offset]).toEqual([name, offset]);
  });

  it("have fields that do not overlap, and decode what they encode", () => {
    for (const definition of [
      TD_PARAMS,
      TDMR_INFO,
      TDREPORT_STRUCT,
      TDSYSINFO_STRUCT,
      VE_INFO,
      SEAMLDR_PARAMS,
    ]) {
      let end = 0;
      const fields: readonly { offset: number; size: number }[] = Object.values(definition.fields);
      for (const { offset, size } of fields.toSorted((a, b) => a.offset - b.offset)) {
        expect(offset).toBeGreaterThanOrEqual(end);
        end = offset + size;
      }
    }
    const bytes = Uint8Array.from({ length: TDREPORT_STRUCT.size }, (_, i) => (i * 7) & 0xff);
    expect(TDREPORT_STRUCT.encode(TDREPORT_STRUCT.decode(bytes))).toEqual(bytes);
    expect(() => TD_PARAMS.decode(new Uint8Array(1023))).toThrow(RangeError);
    expect(() => TD_PARAMS.encode({ MRCONFIGID: new Uint8Array(49) })).toThrow(RangeError);
  });
});

describe("metadata fields", () => {
  it("have the identifiers that Linux reads and writes", () => {
    expect(SYS_METADATA.MINOR_VERSION.id).toBe(0x0800_0001_0000_0003n);
    expect(SYS_METADATA.TDX_FEATURES0.id).toBe(0x0a00_0003_0000_0008n);
    expect(SYS_METADATA.MAX_TDMRS.id).toBe(0x9100_0001_0000_0008n);
    expect(SYS_METADATA.PAMT_4K_ENTRY_SIZE.id).toBe(0x9100_0001_0000_0010n);
    expect(SYS_METADATA.NUM_CMRS.id).toBe(0x9000_0001_0000_0000n);
    expect(metadataFieldId(SYS_METADATA.CMR_BASE, 3)).toBe(0x9000_0003_0000_0083n);
    expect(metadataFieldId(SYS_METADATA.CPUID_CONFIG_VALUES, 2)).toBe(0x9900_0003_0000_0504n);
    expect(SYS_METADATA.TDCS_BASE_SIZE.id).toBe(0x9800_0001_0000_0100n);
    expect(SYS_METADATA.XFAM_FIXED1.id).toBe(0x1900_0003_0000_0003n);
    expect(TD_METADATA.CONFIG_FLAGS.id).toBe(0x1110_0003_0000_0016n);
    expect(TD_METADATA.TD_CTLS.id).toBe(0x1110_0003_0000_0017n);
    // Linux leaves out what the module does not look at.
    expect(metadataFieldKey(TD_METADATA.NOTIFY_ENABLES.id)).toBe(metadataFieldKey(0x9100_0000_0000_0010n));
    expect(metadataFieldKey(TD_METADATA.TOPOLOGY_ENUM_CONFIGURED.id)).toBe(
      metadataFieldKey(0x9100_0000_0000_0019n),
    );
  });

  it.each([
    ["SYS", SYS_METADATA, 0],
    ["TD", TD_METADATA, 1],
    ["VP", VP_METADATA, 2],
  ] as const)("%s: context, sizes and masks fit, no two overlap", (_, table: MetadataTable, context) => {
    const seen = new Set<number>();
    for (const [name, field] of Object.entries(table)) {
      expect([name, decodeMetadataFieldId(field.id).contextCode]).toEqual([name, context]);
      const all = (1n << BigInt(field.elementSize * 8)) - 1n;
      for (const mask of [
        field.hostRead,
        field.hostWrite,
        field.debugRead,
        field.debugWrite,
        field.guestRead,
      ])
        expect(mask & ~all).toBe(0n);
      for (let i = 0; i < field.fields * field.elements; i++) {
        const key = metadataFieldKey(field.id) + i;
        expect([name, seen.has(key)]).toEqual([name, false]);
        seen.add(key);
      }
    }
  });

  it("of the TD VMCS follow its encodings", () => {
    expect(vmcsFieldId(0x203c)).toBe(0x0024_0003_0000_203cn);
    expect(vmcsFieldId(0x0002)).toBe(0x0024_0001_0000_0002n);
    expect(vmcsFieldId(0x4002)).toBe(0x0024_0002_0000_4002n);
    expect(vmcsFieldId(0x681e)).toBe(0x0024_0003_0000_681en);
    expect(decodeMetadataFieldId(vmcsFieldId(0x681e, L2_VMCS_CLASS[1])).classCode).toBe(44);
  });

  it("have identifiers that come apart and go together", () => {
    const bits = (count: number) => fc.nat(2 ** count - 1);
    fc.assert(
      fc.property(
        fc.record({
          fieldCode: bits(24),
          elementSizeCode: bits(2),
          lastElementInField: bits(4),
          lastFieldInSequence: bits(9),
          incSize: fc.boolean(),
          writeMaskValid: fc.boolean(),
          contextCode: bits(3),
          classCode: bits(6),
          nonArch: fc.boolean(),
        }),
        (id) => {
          expect(decodeMetadataFieldId(encodeMetadataFieldId(id))).toEqual(id);
        },
      ),
    );
  });
});

describe("secure EPT", () => {
  it("keeps states in the entry's bits", () => {
    // R, W, X and IPAT | leaf: what a mapped 4 KiB page has in bits 11:0 without memory type.
    expect(septStateBits(SEPT_STATE_ENCODING.MAPPED)).toBe(0xc0n);
    expect(septStateBits(SEPT_STATE_ENCODING.PENDING)).toBe(0xc0n | (1n << 56n));
    expect(septStateBits(SEPT_STATE_ENCODING.BLOCKED)).toBe(0xc0n | (1n << 55n));
    expect(septStateBits(SEPT_STATE_ENCODING.NL_MAPPED)).toBe(0n);
    expect(SEPT_ENTRY_FREE).toBe((1n << 63n) | (7n << 53n));
    for (const encoding of Object.values(SEPT_STATE_ENCODING)) {
      expect(septEncodingOf(septStateBits(encoding))).toBe(encoding);
      expect(septStateBits(encoding) & ~SEPT_STATE_MASK).toBe(0n);
    }
    expect(septStateName(4)).toBe("MAPPED");
    expect(septStateName(132)).toBe("NL_MAPPED");
    expect(septStateName(7)).toBeNull();
  });
  it("is addressed by GPA and level", () => {
    expect(gpaAndLevel(0xf_ffff_ffe0_0000, 1)).toBe(0xf_ffff_ffe0_0001n);
    expect(decodeGpaAndLevel(0x0010_1234_5678_9009n)).toEqual({
      gpa: 0x1234_5678_9000,
      level: 1,
      reserved: 0x0010_0000_0000_0008n,
    });
  });
});
