/**
 * P-SEAMLDR: the persistent loader in the SEAM range. It tells about itself and installs the TDX module: all logical
 * processors call SEAMLDR.INSTALL, the last one's parameters count and it does the work.
 *
 * Source: Intel TDX Loader Interface specification; intel/seam-loader
 * p-seam-loader/src/pseamldr_dispatcher/api_calls/*.c. Later loaders' additions (UPDATE_VERSION,
 * NUM_REMAINING_UPDATES) as Linux's arch/x86/virt/vmx/tdx/seamldr.c uses them.
 */
import {
  type Hpa,
  type KeyId,
  PAGE_SIZE,
  PSEAMLDR_STATUS,
  type SEAMEXTEND,
  SEAMLDR_INFO,
  SEAMLDR_INFO_ALIGN,
  SEAMLDR_LEAF,
  SEAMLDR_PARAMS,
  SEAMLDR_SCENARIO,
  viewOf,
} from "@swtdx/abi";
import { Gpr, type SeamContext, type SeamExtend, type SeamFirmware, type SeamLoad } from "@swtdx/cpu";
import { sha384 } from "@swtdx/crypto";
import { ACM_SYSINFO_OFFSET } from "./module-image.js";
import {
  MODULE_TYPE_DEBUG,
  SEAM_SIGSTRUCT,
  type SeamSigstruct,
  SIGNER_MODULUS,
  SIGSTRUCT_HEADER,
  verifySignature,
} from "./sigstruct.js";
import { SYSINFO_MCHECK_SIZE, SYSINFO_TABLE, SYSINFO_TABLE_SIZE } from "./sysinfo-table.js";

const KEY0 = 0 as KeyId;
const MIB2 = 2 ** 21;
const STEPPING = 0xf;
/** TEE_TCB_INFO.VALID: the fields of version 1.0, and those of 1.5. */
const SEAMEXTEND_VALID = 0x3_01ffn;
const LOADER = {
  VERSION: 0,
  BUILD_DATE: 20261101,
  BUILD_NUM: 1000,
  MAJOR: 1,
  MINOR: 5,
  UPDATE: 24,
  UPDATES: 32,
  /** The logical processor that BIOS launches the NP-SEAMLDR on; it must be the last at SEAMLDR.SHUTDOWN. */
  ACM_LP: 0,
} as const;
/** SYSINFO_TABLE.SEAM_STATUS. */
const SEAM_LOADED = 1n;
const {
  PSEAMLDR_SUCCESS,
  PSEAMLDR_EBADPARAM,
  PSEAMLDR_EBADCALL,
  PSEAMLDR_EBADSIG,
  PSEAMLDR_EBADHASH,
  PSEAMLDR_ENOMEM,
  PSEAMLDR_EUNSUPCPU,
} = PSEAMLDR_STATUS;
/** RDX of a failed SEAMLDR.INSTALL: the module that was there goes on, or it is gone. */
const RECOVERABLE = 0n;
const UNRECOVERABLE = 1n;

/** SEAMLDR_PARAMS after its checks. Addresses are HPAs of shared memory with KeyID bits. */
interface Params {
  readonly scenario: number;
  readonly sigstruct: number;
  readonly pages: readonly number[];
}

export class PSeamldr implements SeamFirmware {
  /** Logical processors that have called SEAMLDR.INSTALL in this session. */
  readonly #updating = new Set<number>();
  /** Those that have called SEAMLDR.SHUTDOWN. */
  readonly #shutdown = new Set<number>();
  /** SEAMEXTEND as it was when the session began. */
  #snapshot: SeamExtend | null = null;
  #updatesLeft: number = LOADER.UPDATES;

  constructor(readonly load: SeamLoad) {}

  seamcall(lp: SeamContext): void {
    lp.regs.setGpr(Gpr.RAX, this.#dispatch(lp));
  }

  #dispatch(lp: SeamContext): bigint {
    switch (lp.regs.gpr(Gpr.RAX)) {
      case SEAMLDR_LEAF["SEAMLDR.INFO"]:
        return this.#info(lp);
      case SEAMLDR_LEAF["SEAMLDR.INSTALL"]:
        return this.#install(lp);
      case SEAMLDR_LEAF["SEAMLDR.SHUTDOWN"]:
        return this.#shutDown(lp);
      case SEAMLDR_LEAF["SEAMLDR.SEAMINFO"]:
        return this.#seamInfo(lp);
      default:
        return PSEAMLDR_EBADPARAM;
    }
  }

  /** A buffer of the caller's: in DRAM without KeyID, aligned, not in the SEAM range; -1 if not. */
  #buffer(operand: bigint, alignment: number): number {
    if (operand >> 46n !== 0n) return -1;
    const pa = Number(operand);
    const { base, size: range } = this.load.seamRange;
    return pa % alignment === 0 && !(pa < base + range && base < pa + alignment) ? pa : -1;
  }

  /** P_SYSINFO_TABLE: MCHECK's findings, and what the loader itself knows of the platform. */
  #pSysInfo(lp: SeamContext): Uint8Array {
    const table = new Uint8Array(SYSINFO_TABLE_SIZE);
    lp.read((this.load.entry + ACM_SYSINFO_OFFSET) as Hpa, KEY0, table);
    SYSINFO_TABLE.write(viewOf(table), {
      TOT_NUM_LPS: this.load.lps,
      TOT_NUM_SOCKETS: 1,
      SOCKET_CPUID_TABLE: [lp.cpuid(1, 0).eax >>> 0],
    });
    return table;
  }

  // ---- SEAMLDR.INFO. RCX: HPA of a 256-byte buffer.

  #info(lp: SeamContext): bigint {
    const target = this.#buffer(lp.regs.gpr(Gpr.RCX), SEAMLDR_INFO_ALIGN);
    if (target < 0) return PSEAMLDR_EBADPARAM;
    const info = SEAMLDR_INFO.encode({
      VERSION: LOADER.VERSION,
      VENDOR_ID: SIGSTRUCT_HEADER.MODULE_VENDOR,
      BUILD_DATE: LOADER.BUILD_DATE,
      BUILD_NUM: LOADER.BUILD_NUM,
      MINOR_VERSION: LOADER.MINOR,
      MAJOR_VERSION: LOADER.MAJOR,
      UPDATE_VERSION: LOADER.UPDATE,
      ACM_X2APICID: LOADER.ACM_LP,
      NUM_REMAINING_UPDATES: this.#updatesLeft,
      SEAMEXTEND: encodeExtend(lp.readSeamExtend()),
    });
    lp.write(target as Hpa, KEY0, info);
    return PSEAMLDR_SUCCESS;
  }

  // ---- SEAMLDR.SEAMINFO. RCX: HPA of a 2 KiB buffer for the platform's information.

  #seamInfo(lp: SeamContext): bigint {
    const target = this.#buffer(lp.regs.gpr(Gpr.RCX), SYSINFO_MCHECK_SIZE);
    if (target < 0) return PSEAMLDR_EBADPARAM;
    lp.write(target as Hpa, KEY0, this.#pSysInfo(lp).subarray(0, SYSINFO_MCHECK_SIZE));
    return PSEAMLDR_SUCCESS;
  }

  // ---- SEAMLDR.INSTALL. RCX: HPA of SEAMLDR_PARAMS. RDX out: whether a failure left the old module.

  #install(lp: SeamContext): bigint {
    lp.regs.setGpr(Gpr.RDX, RECOVERABLE);
    if (this.#shutdown.size > 0 || this.#updating.has(lp.index)) return PSEAMLDR_EBADCALL;
    // From the first call on no SEAMCALL enters the old module.
    if (this.#updating.size === 0) {
      this.#snapshot = lp.readSeamExtend();
      lp.writeSeamExtend({ ...this.#snapshot, seamReady: false });
    }
    this.#updating.add(lp.index);
    if (this.#updating.size < this.load.lps) return PSEAMLDR_SUCCESS;

    this.#updating.clear();
    const before = this.#snapshot ?? lp.readSeamExtend();
    const { status, extend } = this.#replaceModule(lp, before);
    lp.writeSeamExtend(extend);
    if (status !== PSEAMLDR_SUCCESS) lp.regs.setGpr(Gpr.RDX, extend === before ? RECOVERABLE : UNRECOVERABLE);
    return status;
  }

  /** The last logical processor's part. @returns the status, and what SEAMEXTEND holds from now on */
  #replaceModule(lp: SeamContext, before: SeamExtend): { status: bigint; extend: SeamExtend } {
    const params = this.#readParams(lp, before);
    if (typeof params === "bigint") return { status: params, extend: before };
    const manifest = new Uint8Array(SEAM_SIGSTRUCT.size);
    lp.read(params.sigstruct as Hpa, KEY0, manifest);
    const sigstruct = SEAM_SIGSTRUCT.decode(manifest);
    let status = this.#verifyManifest(lp, params, manifest, sigstruct, before);
    if (status !== PSEAMLDR_SUCCESS) return { status, extend: before };
    const code = this.#codeRegion(sigstruct);
    if (code === null) return { status: PSEAMLDR_ENOMEM, extend: before };

    // The old module is being overwritten: from here there is no way back.
    lp.setModuleEntry(null);
    status = this.#copyModule(lp, params, sigstruct, code);
    if (status !== PSEAMLDR_SUCCESS) return { status, extend: { ...before, ...NO_MODULE } };
    this.#writeSysInfo(lp, code, params.pages.length);
    lp.setModuleEntry(code as Hpa);
    if (params.scenario === SEAMLDR_SCENARIO.UPDATE) this.#updatesLeft--;
    return { status, extend: installedExtend(before, sigstruct) };
  }

  #readParams(lp: SeamContext, before: SeamExtend): Params | bigint {
    const source = this.#buffer(lp.regs.gpr(Gpr.RCX), PAGE_SIZE);
    if (source < 0) return PSEAMLDR_EBADPARAM;
    const bytes = new Uint8Array(SEAMLDR_PARAMS.size);
    lp.read(source as Hpa, KEY0, bytes);
    const view = viewOf(bytes);
    const { VERSION, SCENARIO, SIGSTRUCT_PA, RESERVED, NUM_MODULE_PAGES, MOD_PAGES_PA_LIST } =
      SEAMLDR_PARAMS.fields;
    const scenario = SCENARIO.read(view, 0);
    const count = view.getBigUint64(NUM_MODULE_PAGES.offset, true);
    if (VERSION.read(view, 0) !== 0 || RESERVED.read(view, 0).some((byte) => byte !== 0))
      return PSEAMLDR_EBADPARAM;
    if (scenario > SEAMLDR_SCENARIO.UPDATE) return PSEAMLDR_EBADPARAM;
    if (count > BigInt(MOD_PAGES_PA_LIST.size / 8)) return PSEAMLDR_EBADPARAM;
    const address = (offset: number) => this.#buffer(view.getBigUint64(offset, true), PAGE_SIZE);
    const pages = Array.from({ length: Number(count) }, (_, i) => address(MOD_PAGES_PA_LIST.offset + 8 * i));
    const sigstruct = address(SIGSTRUCT_PA.offset);
    if (pages.includes(-1) || sigstruct < 0) return PSEAMLDR_EBADPARAM;
    if (scenario === SEAMLDR_SCENARIO.UPDATE && (!before.seamReady || this.#updatesLeft === 0))
      return PSEAMLDR_EBADPARAM;
    return { scenario, sigstruct, pages };
  }

  #verifyManifest(
    lp: SeamContext,
    params: Params,
    manifest: Uint8Array,
    sigstruct: SeamSigstruct,
    before: SeamExtend,
  ): bigint {
    const fields = Object.entries(SIGSTRUCT_HEADER) as [keyof typeof SIGSTRUCT_HEADER, number][];
    if (fields.some(([name, value]) => sigstruct[name] !== value)) return PSEAMLDR_EBADSIG;
    const notZero = (bytes: Uint8Array) => bytes.some((byte) => byte !== 0);
    if (notZero(sigstruct.RESERVED_0) || notZero(sigstruct.RESERVED_1)) return PSEAMLDR_EBADSIG;
    if ((sigstruct.MODULE_TYPE & ~MODULE_TYPE_DEBUG) !== 0 || sigstruct.ATTRIBUTES !== 0n)
      return PSEAMLDR_EBADSIG;
    if (sigstruct.CPUID_TABLE_SIZE > SEAM_SIGSTRUCT.fields.CPUID_TABLE.size / 4) return PSEAMLDR_EBADSIG;
    if (sigstruct.MODULUS.some((byte, i) => byte !== SIGNER_MODULUS[i])) return PSEAMLDR_EBADSIG;
    if ((sigstruct.MODULE_TYPE & MODULE_TYPE_DEBUG) !== 0 && !before.systemUnderDebug)
      return PSEAMLDR_EBADSIG;
    // An update does not go back.
    const running = before.teeTcbSvn[0] | (before.teeTcbSvn[1] << 8);
    if (params.scenario === SEAMLDR_SCENARIO.UPDATE && sigstruct.SEAMSVN < running) return PSEAMLDR_EBADSIG;
    const listed = sigstruct.CPUID_TABLE.slice(0, sigstruct.CPUID_TABLE_SIZE);
    const processor = lp.cpuid(1, 0).eax & ~STEPPING;
    if (listed.length > 0 && !listed.some((one) => (one & ~STEPPING) === processor))
      return PSEAMLDR_EUNSUPCPU;
    return verifySignature(manifest, sigstruct) ? PSEAMLDR_SUCCESS : PSEAMLDR_EBADSIG;
  }

  /**
   * Where the module's code goes: the last 2 MiB before the loader; SYSINFO_TABLE, VMCSs, data and stacks of all logical
   * processors must fit before it. Null: they do not.
   */
  #codeRegion(sigstruct: SeamSigstruct): number | null {
    const { seamRange, entry, lps } = this.load;
    const code = entry - (entry % PAGE_SIZE) - MIB2;
    const perLp = 1 + (sigstruct.NUM_STACK_PAGES + 2) + (sigstruct.NUM_TLS_PAGES + 1);
    const pages = 1 + perLp * lps + sigstruct.NUM_GLOBAL_DATA_PAGES + 1;
    return code < seamRange.base + pages * PAGE_SIZE ? null : code;
  }

  /** Copies the module into the SEAM range and measures it there. */
  #copyModule(lp: SeamContext, { pages }: Params, sigstruct: SeamSigstruct, code: number): bigint {
    const image = new Uint8Array(pages.length * PAGE_SIZE);
    pages.forEach((pa, i) => lp.read(pa as Hpa, KEY0, image.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE)));
    lp.write(code as Hpa, KEY0, image);
    const hash = sha384(image);
    return hash.every((byte, i) => byte === sigstruct.SEAMHASH[i]) ? PSEAMLDR_SUCCESS : PSEAMLDR_EBADHASH;
  }

  #writeSysInfo(lp: SeamContext, code: number, pages: number): void {
    const table = new Uint8Array(SYSINFO_TABLE_SIZE);
    table.set(this.#pSysInfo(lp).subarray(0, SYSINFO_MCHECK_SIZE));
    SYSINFO_TABLE.write(viewOf(table), {
      SEAM_STATUS: SEAM_LOADED,
      CODE_RGN_BASE: BigInt(code),
      CODE_RGN_SIZE: BigInt(pages * PAGE_SIZE),
    });
    lp.write(this.load.seamRange.base, KEY0, table);
  }

  // ---- SEAMLDR.SHUTDOWN: with the last logical processor's call SEAM is gone until the next ENTERACCS.

  #shutDown(lp: SeamContext): bigint {
    this.#shutdown.add(lp.index);
    if (this.#shutdown.size === 1) lp.writeSeamExtend({ ...lp.readSeamExtend(), seamReady: false });
    if (this.#shutdown.size < this.load.lps) return PSEAMLDR_SUCCESS;
    if (lp.index !== LOADER.ACM_LP) return PSEAMLDR_EBADCALL;
    lp.setModuleEntry(null);
    lp.writeSeamExtend({ ...lp.readSeamExtend(), ...NO_MODULE, pSeamldrReady: false });
    return PSEAMLDR_SUCCESS;
  }
}

const NO_MODULE = {
  valid: 0n,
  teeTcbSvn: new Uint8Array(16),
  teeTcbSvn2: new Uint8Array(16),
  mrSeam: new Uint8Array(48),
  mrSignerSeam: new Uint8Array(48),
  attributes: 0n,
  seamReady: false,
} as const;

/** What the installed module's manifest makes of SEAMEXTEND. MRSIGNERSEAM is zero for modules of the platform's vendor. */
function installedExtend(before: SeamExtend, sigstruct: SeamSigstruct): SeamExtend {
  const svn = before.teeTcbSvn.slice();
  svn[0] = sigstruct.SEAMSVN & 0xff;
  svn[1] = sigstruct.SEAMSVN >> 8;
  return {
    ...before,
    ...NO_MODULE,
    valid: SEAMEXTEND_VALID,
    teeTcbSvn: svn,
    teeTcbSvn2: svn.slice(),
    mrSeam: sigstruct.SEAMHASH,
    seamReady: true,
  };
}

const encodeExtend = (extend: SeamExtend): ReturnType<(typeof SEAMEXTEND)["decode"]> => ({
  VALID: extend.valid,
  TEE_TCB_SVN: extend.teeTcbSvn,
  MRSEAM: extend.mrSeam,
  MRSIGNERSEAM: extend.mrSignerSeam,
  ATTRIBUTES: extend.attributes,
  SEAM_READY: extend.seamReady ? 1 : 0,
  SYSTEM_UNDER_DEBUG: extend.systemUnderDebug ? 1 : 0,
  P_SEAMLDR_READY: extend.pSeamldrReady ? 1 : 0,
});
