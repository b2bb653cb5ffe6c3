/**
 * P-SEAMLDR: the persistent loader in the SEAM range. It tells about itself and installs the TDX module: all logical
 * processors call SEAMLDR.INSTALL, the last one does it.
 *
 * Source: Intel TDX Loader Interface specification 1.5 (SEAMLDR.INFO, SEAMLDR.INSTALL, SEAMLDR.SHUTDOWN); numbers as
 * Linux's arch/x86/virt/vmx/tdx uses them.
 */
import {
  type Hpa,
  type KeyId,
  PSEAMLDR_STATUS,
  type SEAMEXTEND,
  SEAMLDR_INFO,
  SEAMLDR_LEAF,
  SEAMLDR_PARAMS,
  SEAMLDR_SCENARIO,
  viewOf,
} from "@swtdx/abi";
import { Gpr, type SeamContext, type SeamExtend, type SeamFirmware, type SeamLoad } from "@swtdx/cpu";
import { sha384 } from "@swtdx/crypto";
import { ACM_SYSINFO_OFFSET, MODULE_VENDOR_INTEL, SEAM_SIGSTRUCT } from "./module-image.js";
import { SYSINFO_TABLE_SIZE } from "./sysinfo-table.js";

const PAGE = 4096;
const KEY0 = 0 as KeyId;
const MODULE_TYPE_DEBUG = 0x8000_0000;
/** TEE_TCB_INFO.VALID: all of the fields up to ATTRIBUTES, as P-SEAMLDR reports it. */
const SEAMEXTEND_VALID = 0x3ffn;
const LOADER = {
  VERSION: 0,
  BUILD_DATE: 20261101,
  BUILD_NUM: 1000,
  MAJOR: 1,
  MINOR: 5,
  UPDATE: 24,
  UPDATES: 32,
} as const;
const {
  PSEAMLDR_SUCCESS,
  PSEAMLDR_EBADPARAM,
  PSEAMLDR_EBADCALL,
  PSEAMLDR_EBADSIG,
  PSEAMLDR_EBADHASH,
  PSEAMLDR_ENOMEM,
} = PSEAMLDR_STATUS;

export class PSeamldr implements SeamFirmware {
  /** Logical processors that have called SEAMLDR.INSTALL. */
  readonly #called = new Set<number>();
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
        return this.#shutdown(lp);
      default:
        return PSEAMLDR_EBADCALL;
    }
  }

  /** A buffer of the caller's: below the KeyID bits, aligned, not in the SEAM range; -1 if not. */
  #buffer(operand: bigint, size: number): number {
    if (operand >> 46n !== 0n) return -1;
    const pa = Number(operand);
    const { base, size: range } = this.load.seamRange;
    return pa % size === 0 && !(pa < base + range && base < pa + size) ? pa : -1;
  }

  /** SEAMLDR.INFO. RCX: HPA of a 256-byte buffer. */
  #info(lp: SeamContext): bigint {
    const target = this.#buffer(lp.regs.gpr(Gpr.RCX), SEAMLDR_INFO.size);
    if (target < 0) return PSEAMLDR_EBADPARAM;
    const extend = lp.readSeamExtend();
    const info = SEAMLDR_INFO.encode({
      VERSION: LOADER.VERSION,
      VENDOR_ID: MODULE_VENDOR_INTEL,
      BUILD_DATE: LOADER.BUILD_DATE,
      BUILD_NUM: LOADER.BUILD_NUM,
      MINOR_VERSION: LOADER.MINOR,
      MAJOR_VERSION: LOADER.MAJOR,
      UPDATE_VERSION: LOADER.UPDATE,
      NUM_REMAINING_UPDATES: this.#updatesLeft,
      SEAMEXTEND: encodeExtend(extend),
    });
    lp.write(target as Hpa, KEY0, info);
    return PSEAMLDR_SUCCESS;
  }

  /** SEAMLDR.INSTALL. RCX: HPA of SEAMLDR_PARAMS. */
  #install(lp: SeamContext): bigint {
    const source = this.#buffer(lp.regs.gpr(Gpr.RCX), SEAMLDR_PARAMS.size);
    if (source < 0) return PSEAMLDR_EBADPARAM;
    const bytes = new Uint8Array(SEAMLDR_PARAMS.size);
    lp.read(source as Hpa, KEY0, bytes);
    const pages = viewOf(bytes).getBigUint64(SEAMLDR_PARAMS.fields.NUM_MODULE_PAGES.offset, true);
    const list = SEAMLDR_PARAMS.fields.MOD_PAGES_PA_LIST;
    const scenario = viewOf(bytes).getUint32(SEAMLDR_PARAMS.fields.SCENARIO.offset, true);
    if (pages === 0n || pages > BigInt(list.size / 8) || scenario > SEAMLDR_SCENARIO.UPDATE)
      return PSEAMLDR_EBADPARAM;
    const addresses: number[] = [];
    const address = (offset: number) => this.#buffer(viewOf(bytes).getBigUint64(offset, true), PAGE);
    const sigstructPa = address(SEAMLDR_PARAMS.fields.SIGSTRUCT_PA.offset);
    for (let i = 0; i < Number(pages); i++) addresses.push(address(list.offset + 8 * i));
    if (sigstructPa < 0 || addresses.includes(-1)) return PSEAMLDR_EBADPARAM;
    if (scenario === SEAMLDR_SCENARIO.UPDATE && this.#updatesLeft === 0) return PSEAMLDR_EBADCALL;
    if (this.#called.has(lp.index)) return PSEAMLDR_EBADCALL;

    this.#called.add(lp.index);
    if (this.#called.size < this.load.lps) return PSEAMLDR_SUCCESS;
    this.#called.clear();
    return this.#load(lp, sigstructPa, addresses);
  }

  /** Copies the module into the SEAM range, checks it there and makes it the one that SEAMCALL enters. */
  #load(lp: SeamContext, sigstructPa: number, addresses: readonly number[]): bigint {
    const { base, size } = this.load.seamRange;
    const sigstructBytes = new Uint8Array(SEAM_SIGSTRUCT.size);
    lp.read(sigstructPa as Hpa, KEY0, sigstructBytes);
    const sigstruct = SEAM_SIGSTRUCT.decode(sigstructBytes);
    if (sigstruct.HEADER_TYPE !== 6 || sigstruct.MODULE_VENDOR !== MODULE_VENDOR_INTEL)
      return PSEAMLDR_EBADSIG;
    // The loader itself lies at the end of the range, the SYSINFO_TABLE at its start.
    const start = base + SYSINFO_TABLE_SIZE;
    if (start + addresses.length * PAGE > this.load.entry || addresses.length * PAGE > size)
      return PSEAMLDR_ENOMEM;
    const image = new Uint8Array(addresses.length * PAGE);
    addresses.forEach((pa, i) => lp.read(pa as Hpa, KEY0, image.subarray(i * PAGE, (i + 1) * PAGE)));
    const hash = sha384(image);
    if (!hash.every((byte, i) => byte === sigstruct.SEAMHASH[i])) return PSEAMLDR_EBADHASH;

    lp.setModuleEntry(null);
    const table = new Uint8Array(SYSINFO_TABLE_SIZE);
    lp.read((this.load.entry + ACM_SYSINFO_OFFSET) as Hpa, KEY0, table);
    lp.write(base, KEY0, table);
    lp.write(start as Hpa, KEY0, image);
    lp.writeSeamExtend(seamExtend(lp.readSeamExtend(), sigstruct, hash));
    lp.setModuleEntry(start as Hpa);
    this.#updatesLeft--;
    return PSEAMLDR_SUCCESS;
  }

  /** SEAMLDR.SHUTDOWN: the module is gone. */
  #shutdown(lp: SeamContext): bigint {
    lp.setModuleEntry(null);
    lp.writeSeamExtend({ ...lp.readSeamExtend(), valid: 0n, seamReady: false });
    return PSEAMLDR_SUCCESS;
  }
}

function seamExtend(
  old: SeamExtend,
  sigstruct: ReturnType<(typeof SEAM_SIGSTRUCT)["decode"]>,
  hash: Uint8Array,
): SeamExtend {
  const svn = new Uint8Array(16);
  svn[0] = sigstruct.SEAMSVN & 0xff;
  svn[1] = sigstruct.SEAMSVN >> 8;
  return {
    ...old,
    valid: SEAMEXTEND_VALID,
    teeTcbSvn: svn,
    teeTcbSvn2: svn,
    mrSeam: hash,
    mrSignerSeam: new Uint8Array(48),
    attributes: sigstruct.ATTRIBUTES,
    systemUnderDebug: (sigstruct.MODULE_TYPE & MODULE_TYPE_DEBUG) !== 0,
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
