/** TDH.SYS.TDMR.INIT: the PAMT of the next 4 MiB of a TDMR. Source: intel/tdx-module tdh_sys_tdmr_init.c, pamt_manager.c (pamt_init). */
import { type Hpa, type KeyId, PAGE_SIZE, TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamContext } from "@swtdx/cpu";
import type { SeamcallHandler } from "../call.js";
import {
  GIB,
  Level,
  MIB2,
  PAMT,
  PAMT_ENTRY_SIZE,
  PageType,
  type TdmrEntry,
  pamtEntryPa,
} from "../structures/pamt.js";
import { hpaOperand } from "./support.js";

/** 4 KiB pages a call initializes. */
const COUNT = 1024;
const chunk = new Uint8Array(COUNT * PAMT_ENTRY_SIZE);

const isReserved = (tdmr: TdmrEntry, offset: number): boolean =>
  tdmr.reserved.some((area) => offset >= area.offset && offset < area.offset + area.size);

function initEntries(lp: SeamContext, tdmr: TdmrEntry, key: KeyId): void {
  const start = tdmr.lastInitialized;
  chunk.fill(0);
  for (let i = 0; i < COUNT; i++)
    chunk[i * PAMT_ENTRY_SIZE + PAMT.PT] = isReserved(tdmr, start - tdmr.base + i * 4096)
      ? PageType.PT_RSVD
      : PageType.PT_NDA;
  lp.write(pamtEntryPa(tdmr, start, Level.PT_4KB), key, chunk);
  // 2M entries come two at a time; their page is written whole when it begins.
  for (let at = start; at < start + COUNT * 4096; at += MIB2)
    initNode(lp, pamtEntryPa(tdmr, at, Level.PT_2MB), key);
  if (start % GIB === 0) initNode(lp, pamtEntryPa(tdmr, start, Level.PT_1GB), key);
}

function initNode(lp: SeamContext, entry: Hpa, key: KeyId): void {
  if (entry % PAGE_SIZE === 0) lp.zero(entry, key, PAGE_SIZE);
  lp.writeU8((entry + PAMT.PT) as Hpa, key, PageType.PT_NDA);
}

/** RCX: base of the TDMR. RDX out: where initialization has come to, in whole GiB. */
export const tdhSysTdmrInit: SeamcallHandler = (call) => {
  const { module, lp } = call;
  call.clear("RDX");
  const base = hpaOperand(call, call.rcx, GIB);
  const tdmr = module.tdmrs.find((one) => one.base === base);
  if (base < 0 || !tdmr) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  if (tdmr.lastInitialized >= tdmr.base + tdmr.size) return TDX_STATUS.TDX_TDMR_ALREADY_INITIALIZED;
  initEntries(lp, tdmr, call.globalHkid);
  tdmr.lastInitialized += COUNT * 4096;
  call.set("RDX", BigInt(tdmr.lastInitialized - (tdmr.lastInitialized % GIB)));
  return TDX_STATUS.TDX_SUCCESS;
};
