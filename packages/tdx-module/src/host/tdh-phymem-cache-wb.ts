/** TDH.PHYMEM.CACHE.WB: writes this package's caches back, for the HKIDs that were flushed. Source: intel/tdx-module tdh_phymem_cache_wb.c. */
import { TDX_STATUS, withOperand } from "@swtdx/abi";
import type { SeamcallHandler } from "../call.js";
import { KotState } from "../kot.js";

const START = 0n;
const RESUME = 1n;
/** Blocks that the caches are written back in (IA32_WBINVDP reports how many there are). */
const CACHED_SUB_BLOCKS = 16;

/** RCX: 0 start, 1 resume. */
export const tdhPhymemCacheWb: SeamcallHandler = (call) => {
  const { lp, module } = call;
  if (call.rcx > RESUME) return withOperand(TDX_STATUS.TDX_OPERAND_INVALID, "RCX");
  const progress = module.kot.wbt(lp.packageIndex);
  if (call.rcx === START) {
    progress.intrPoint = 0;
    const flushed = module.kot.inState(KotState.HKID_FLUSHED);
    if (flushed.length === 0) return TDX_STATUS.TDX_NO_HKID_READY_TO_WBCACHE;
    progress.flushed.clear();
    for (const hkid of flushed) progress.flushed.add(hkid);
  } else if (progress.intrPoint === 0) {
    return TDX_STATUS.TDX_WBCACHE_RESUME_ERROR;
  }

  for (let block = progress.intrPoint; block < CACHED_SUB_BLOCKS;) {
    if (block === 0) lp.wbinvd();
    block++;
    if (block < CACHED_SUB_BLOCKS && lp.interruptPending) {
      progress.intrPoint = block;
      return TDX_STATUS.TDX_INTERRUPTED_RESUMABLE;
    }
  }
  progress.intrPoint = 0;
  const package_ = 1n << BigInt(lp.packageIndex);
  for (const hkid of progress.flushed) module.kot.entry(hkid).wbinvdBitmap &= ~package_;
  return TDX_STATUS.TDX_SUCCESS;
};
