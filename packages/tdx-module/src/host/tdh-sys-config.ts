/**
 * TDH.SYS.CONFIG: the TDMRs with their PAMTs, and the module's own HKID. Checks and their order are the module's.
 * Source: intel/tdx-module tdh_sys_config.c.
 */
import { type Hpa, type KeyId, TDMR_INFO, TDX_STATUS, type TdmrInfo, viewOf, withOperand } from "@swtdx/abi";
import type { SeamCall, SeamcallHandler } from "../call.js";
import { KotState } from "../kot.js";
import { SysState } from "../sys-state.js";
import { GIB, MIB2, PAMT_ENTRY_SIZE, type TdmrEntry } from "../structures/pamt.js";
import { MAX_TDMRS } from "../version.js";
import { sharedHpaOperand } from "./support.js";

const ALIGNMENT = 512;
const PAGE = 4096;

/** Status with indexes in its low bytes. */
const info = (code: bigint, first: number, second = 0, third = 0): bigint =>
  code | BigInt(first | (second << 8) | (third << 16));

interface Range {
  base: number;
  size: number;
}
const overlap = (a: Range, b: Range): boolean => a.base < b.base + b.size && b.base < a.base + a.size;

/** PAMT areas by level: 0 4K, 1 2M, 2 1G. */
const pamts = (tdmr: TdmrInfo): Range[] => [
  { base: tdmr.PAMT_4K_BASE, size: tdmr.PAMT_4K_SIZE },
  { base: tdmr.PAMT_2M_BASE, size: tdmr.PAMT_2M_SIZE },
  { base: tdmr.PAMT_1G_BASE, size: tdmr.PAMT_1G_SIZE },
];
const PAGE_SIZES = [PAGE, MIB2, GIB] as const;
/** The order in which the module checks the levels' sizes and places. */
const LEVELS = [2, 1, 0] as const;

/** Parts of a TDMR that are not reserved. */
function availableAreas(tdmr: TdmrInfo): Range[] {
  const out: Range[] = [];
  let start = tdmr.TDMR_BASE;
  for (const { OFFSET, SIZE } of tdmr.RESERVED_AREAS) {
    if (SIZE === 0) break;
    const base = tdmr.TDMR_BASE + OFFSET;
    if (base > start) out.push({ base: start, size: base - start });
    start = base + SIZE;
  }
  const end = tdmr.TDMR_BASE + tdmr.TDMR_SIZE;
  if (end > start) out.push({ base: start, size: end - start });
  return out;
}

function checkReservedAreas(tdmr: TdmrInfo, i: number): bigint {
  const areas = tdmr.RESERVED_AREAS;
  for (let j = 0; j < areas.length; j++) {
    const { OFFSET, SIZE } = areas[j];
    if (SIZE === 0) {
      if ((areas[j + 1]?.SIZE ?? 0) !== 0) return info(TDX_STATUS.TDX_NON_ORDERED_RESERVED_IN_TDMR, i, j);
      continue;
    }
    const previous = areas[j - 1];
    if (previous && OFFSET < previous.OFFSET + previous.SIZE)
      return info(TDX_STATUS.TDX_NON_ORDERED_RESERVED_IN_TDMR, i, j);
    if (OFFSET % PAGE !== 0 || SIZE % PAGE !== 0 || OFFSET + SIZE > tdmr.TDMR_SIZE)
      return info(TDX_STATUS.TDX_INVALID_RESERVED_IN_TDMR, i, j);
  }
  return TDX_STATUS.TDX_SUCCESS;
}

function checkPamts(call: SeamCall, tdmrs: readonly TdmrInfo[], i: number): bigint {
  const tdmr = tdmrs[i];
  const own = pamts(tdmr);
  const limit = 2 ** call.module.keyIdShift;
  for (const level of LEVELS) {
    const { base, size } = own[level];
    const needed = (tdmr.TDMR_SIZE / PAGE_SIZES[level]) * PAMT_ENTRY_SIZE;
    if (base % PAGE !== 0 || size % PAGE !== 0 || base + size > limit || size < needed)
      return info(TDX_STATUS.TDX_INVALID_PAMT, i, level);
  }
  for (let j = 0; j < i; j++)
    for (const level of [0, 1, 2])
      if (pamts(tdmrs[j]).some((other) => overlap(own[level], other)))
        return info(TDX_STATUS.TDX_PAMT_OVERLAP, i, level, j);
  for (const [a, b] of [
    [0, 1],
    [0, 2],
    [1, 2],
  ] as const)
    if (overlap(own[a], own[b])) return info(TDX_STATUS.TDX_PAMT_OVERLAP, i, a, i);
  for (let j = 0; j <= i; j++) {
    const others = availableAreas(tdmrs[j]);
    for (const level of [0, 1, 2])
      if (others.some((area) => overlap(own[level], area)))
        return info(TDX_STATUS.TDX_PAMT_OVERLAP, i, level, j);
    if (j === i) continue;
    const mine = availableAreas(tdmr);
    for (const level of [0, 1, 2])
      if (mine.some((area) => overlap(pamts(tdmrs[j])[level], area)))
        return info(TDX_STATUS.TDX_PAMT_OVERLAP, j, level, i);
  }
  for (const level of LEVELS)
    if (!call.module.sysInfo.contains(own[level])) return info(TDX_STATUS.TDX_PAMT_OUTSIDE_CMRS, i, level);
  return TDX_STATUS.TDX_SUCCESS;
}

function checkTdmr(call: SeamCall, tdmrs: readonly TdmrInfo[], i: number): bigint {
  const tdmr = tdmrs[i];
  const previous = tdmrs[i - 1];
  if (previous && tdmr.TDMR_BASE < previous.TDMR_BASE + previous.TDMR_SIZE)
    return info(TDX_STATUS.TDX_NON_ORDERED_TDMR, i);
  const limit = 2 ** call.module.keyIdShift;
  if (
    tdmr.TDMR_BASE % GIB !== 0 ||
    tdmr.TDMR_SIZE % GIB !== 0 ||
    tdmr.TDMR_SIZE === 0 ||
    tdmr.TDMR_BASE + tdmr.TDMR_SIZE > limit
  )
    return info(TDX_STATUS.TDX_INVALID_TDMR, i);
  const reserved = checkReservedAreas(tdmr, i);
  if (reserved !== TDX_STATUS.TDX_SUCCESS) return reserved;
  const pamt = checkPamts(call, tdmrs, i);
  if (pamt !== TDX_STATUS.TDX_SUCCESS) return pamt;
  if (!availableAreas(tdmr).every((area) => call.module.sysInfo.contains(area)))
    return info(TDX_STATUS.TDX_TDMR_OUTSIDE_CMRS, i);
  return TDX_STATUS.TDX_SUCCESS;
}

const toEntry = (tdmr: TdmrInfo): TdmrEntry => ({
  base: tdmr.TDMR_BASE,
  size: tdmr.TDMR_SIZE,
  lastInitialized: tdmr.TDMR_BASE,
  pamt1gBase: tdmr.PAMT_1G_BASE,
  pamt2mBase: tdmr.PAMT_2M_BASE,
  pamt4kBase: tdmr.PAMT_4K_BASE,
  reserved: tdmr.RESERVED_AREAS.filter(({ SIZE }) => SIZE !== 0).map(({ OFFSET, SIZE }) => ({
    offset: OFFSET,
    size: SIZE,
  })),
  lock: false,
});

/** A TDMR_INFO from shared memory; null when it holds what is no address. */
function readTdmrInfo(call: SeamCall, pa: number): TdmrInfo | null {
  const unit = 2 ** call.module.keyIdShift;
  const bytes = new Uint8Array(TDMR_INFO.size);
  call.lp.read((pa % unit) as Hpa, Math.floor(pa / unit) as KeyId, bytes);
  try {
    return TDMR_INFO.read(viewOf(bytes));
  } catch {
    // A field that exceeds 53 bits: no physical address is that large.
    return null;
  }
}

/** RCX: HPA of an array of HPAs of TDMR_INFOs, shared. RDX: how many. R8[15:0]: the module's HKID. */
export const tdhSysConfig: SeamcallHandler = (call) => {
  const { module, lp } = call;
  if (module.state !== SysState.SYSINIT_DONE || module.initializedLps < module.load.lps)
    return TDX_STATUS.TDX_SYS_CONFIG_NOT_PENDING;
  const array = sharedHpaOperand(call, call.rcx, ALIGNMENT);
  if (array < 0) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  const count = call.rdx;
  if (count > BigInt(MAX_TDMRS) || count < 1n) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RDX");
  const hkid = Number(call.r8 & 0xffffn);
  if (call.r8 >> 16n !== 0n || !module.kot.isPrivate(hkid))
    return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "R8");

  const tdmrs: TdmrInfo[] = [];
  const unit = 2 ** module.keyIdShift;
  for (let i = 0; i < Number(count); i++) {
    const at = array + 8 * i;
    const pointer = lp.readU64((at % unit) as Hpa, Math.floor(at / unit) as KeyId);
    const pa = sharedHpaOperand(call, pointer, ALIGNMENT);
    if (pa < 0) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
    const tdmr = readTdmrInfo(call, pa);
    if (tdmr === null) return info(TDX_STATUS.TDX_INVALID_TDMR, i);
    tdmrs.push(tdmr);
    const status = checkTdmr(call, tdmrs, i);
    if (status !== TDX_STATUS.TDX_SUCCESS) return status;
  }
  module.kot.entry(hkid).state = KotState.HKID_RESERVED;
  module.globalHkid = hkid as KeyId;
  module.tdmrs.push(...tdmrs.map(toEntry));
  module.packageBitmap = 0n;
  module.state = SysState.SYSCONFIG_DONE;
  return TDX_STATUS.TDX_SUCCESS;
};
