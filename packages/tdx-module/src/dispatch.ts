/** The table of SEAMCALL functions. Source: intel/tdx-module src/vmm_dispatcher/tdx_vmm_dispatcher.c. */
import { SEAMCALL_LEAF, type SeamcallName } from "@swtdx/abi";
import type { Gpr } from "@swtdx/cpu";
import type { SeamcallHandler, SeamcallRow } from "./call.js";
import { tdhVpEnter } from "./entry/tdh-vp-enter.js";
import { tdhMemPageAdd } from "./host/tdh-mem-page-add.js";
import { tdhMemPageAug } from "./host/tdh-mem-page-aug.js";
import { tdhMemPageDemote } from "./host/tdh-mem-page-demote.js";
import { tdhMemPagePromote } from "./host/tdh-mem-page-promote.js";
import { tdhMemPageRelocate } from "./host/tdh-mem-page-relocate.js";
import { tdhMemPageRemove } from "./host/tdh-mem-page-remove.js";
import { tdhMemRangeBlock } from "./host/tdh-mem-range-block.js";
import { tdhMemRangeUnblock } from "./host/tdh-mem-range-unblock.js";
import { tdhMemRd, tdhMemWr } from "./host/tdh-mem-rd.js";
import { tdhMemSeptAdd } from "./host/tdh-mem-sept-add.js";
import { tdhMemSeptRd } from "./host/tdh-mem-sept-rd.js";
import { tdhMemSeptRemove } from "./host/tdh-mem-sept-remove.js";
import { tdhMemTrack } from "./host/tdh-mem-track.js";
import { tdhMngAddcx } from "./host/tdh-mng-addcx.js";
import { tdhMngCreate } from "./host/tdh-mng-create.js";
import { tdhMngInit } from "./host/tdh-mng-init.js";
import { tdhMngKeyConfig } from "./host/tdh-mng-key-config.js";
import { tdhMngKeyFreeid } from "./host/tdh-mng-key-freeid.js";
import { tdhMngKeyReclaimid } from "./host/tdh-mng-key-reclaimid.js";
import { tdhMngRd, tdhMngWr } from "./host/tdh-mng-rd.js";
import { tdhMngVpflushdone } from "./host/tdh-mng-vpflushdone.js";
import { tdhMrExtend } from "./host/tdh-mr-extend.js";
import { tdhMrFinalize } from "./host/tdh-mr-finalize.js";
import { tdhPhymemCacheWb } from "./host/tdh-phymem-cache-wb.js";
import { tdhPhymemPageRdmd } from "./host/tdh-phymem-page-rdmd.js";
import { tdhPhymemPageReclaim } from "./host/tdh-phymem-page-reclaim.js";
import { tdhPhymemPageWbinvd } from "./host/tdh-phymem-page-wbinvd.js";
import { tdhSysConfig } from "./host/tdh-sys-config.js";
import { tdhSysInfo } from "./host/tdh-sys-info.js";
import { tdhSysInit } from "./host/tdh-sys-init.js";
import { tdhSysKeyConfig } from "./host/tdh-sys-key-config.js";
import { tdhSysLpInit } from "./host/tdh-sys-lp-init.js";
import { tdhSysLpShutdown } from "./host/tdh-sys-lp-shutdown.js";
import { tdhSysRd } from "./host/tdh-sys-rd.js";
import { tdhSysRdall } from "./host/tdh-sys-rdall.js";
import { tdhSysShutdown } from "./host/tdh-sys-shutdown.js";
import { tdhSysTdmrInit } from "./host/tdh-sys-tdmr-init.js";
import { tdhVpAddcx } from "./host/tdh-vp-addcx.js";
import { tdhVpCreate } from "./host/tdh-vp-create.js";
import { tdhVpFlush } from "./host/tdh-vp-flush.js";
import { tdhVpInit } from "./host/tdh-vp-init.js";
import { tdhVpRd, tdhVpWr } from "./host/tdh-vp-rd.js";

type Registers = readonly (keyof typeof Gpr)[];

const rows: SeamcallRow[] = [];
const row = (
  name: SeamcallName,
  handler: SeamcallHandler,
  inputs: Registers,
  outputs: Registers = [],
  more: { version?: number; beforeReady?: boolean } = {},
): void => {
  const { version = 0, beforeReady = false } = more;
  rows[SEAMCALL_LEAF[name]] = { name, handler, inputs, outputs, version, beforeReady };
};
const SYS = { beforeReady: true };

row("TDH.SYS.INIT", tdhSysInit, ["RCX"], ["RCX", "RDX", "R8", "R9", "R10"], SYS);
row("TDH.SYS.LP.INIT", tdhSysLpInit, [], ["RCX", "RDX", "R8"], SYS);
row("TDH.SYS.RD", tdhSysRd, ["RDX"], ["RDX", "R8"], SYS);
row("TDH.SYS.RDALL", tdhSysRdall, ["RDX", "R8"], ["R8"], SYS);
row("TDH.SYS.INFO", tdhSysInfo, ["RCX", "RDX", "R8", "R9"], ["RDX", "R9"], SYS);
row("TDH.SYS.CONFIG", tdhSysConfig, ["RCX", "RDX", "R8"], [], SYS);
row("TDH.SYS.KEY.CONFIG", tdhSysKeyConfig, [], [], SYS);
row("TDH.SYS.LP.SHUTDOWN", tdhSysLpShutdown, [], [], SYS);
row("TDH.SYS.SHUTDOWN", tdhSysShutdown, ["RCX"]);
row("TDH.SYS.TDMR.INIT", tdhSysTdmrInit, ["RCX"], ["RDX"]);
row("TDH.MNG.CREATE", tdhMngCreate, ["RCX", "RDX"]);
row("TDH.MNG.KEY.CONFIG", tdhMngKeyConfig, ["RCX"]);
row("TDH.MNG.ADDCX", tdhMngAddcx, ["RCX", "RDX"]);
row("TDH.MNG.INIT", tdhMngInit, ["RCX", "RDX"], ["RCX"]);
row("TDH.MNG.RD", tdhMngRd, ["RCX", "RDX"], ["RDX", "R8"], { version: 1 });
row("TDH.MNG.WR", tdhMngWr, ["RCX", "RDX", "R8", "R9"], ["R8"]);
row("TDH.MNG.VPFLUSHDONE", tdhMngVpflushdone, ["RCX"]);
row("TDH.MNG.KEY.FREEID", tdhMngKeyFreeid, ["RCX"]);
row("TDH.MNG.KEY.RECLAIMID", tdhMngKeyReclaimid, ["RCX"]);
row("TDH.VP.CREATE", tdhVpCreate, ["RCX", "RDX"]);
row("TDH.VP.ADDCX", tdhVpAddcx, ["RCX", "RDX"]);
row("TDH.VP.INIT", tdhVpInit, ["RCX", "RDX", "R8"], [], { version: 1 });
row(
  "TDH.VP.ENTER",
  (call) => tdhVpEnter(call, call.module.vpEnterHost),
  ["RCX"],
  ["RCX", "RDX", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15"],
);
row("TDH.VP.FLUSH", tdhVpFlush, ["RCX"]);
row("TDH.VP.RD", tdhVpRd, ["RCX", "RDX"], ["RDX", "R8"], { version: 1 });
row("TDH.VP.WR", tdhVpWr, ["RCX", "RDX", "R8", "R9"], ["R8"]);
row("TDH.MEM.SEPT.ADD", tdhMemSeptAdd, ["RCX", "RDX", "R8"], ["RCX", "RDX"], { version: 1 });
row("TDH.MEM.SEPT.REMOVE", tdhMemSeptRemove, ["RCX", "RDX"], ["RCX", "RDX"], { version: 1 });
row("TDH.MEM.SEPT.RD", tdhMemSeptRd, ["RCX", "RDX"], ["RCX", "RDX"]);
row("TDH.MEM.PAGE.ADD", tdhMemPageAdd, ["RCX", "RDX", "R8", "R9"], ["RCX", "RDX"]);
row("TDH.MEM.PAGE.AUG", tdhMemPageAug, ["RCX", "RDX", "R8"], ["RCX", "RDX"]);
row("TDH.MEM.PAGE.REMOVE", tdhMemPageRemove, ["RCX", "RDX"], ["RCX", "RDX"]);
row("TDH.MEM.PAGE.RELOCATE", tdhMemPageRelocate, ["RCX", "RDX", "R8"], ["RCX", "RDX"]);
row("TDH.MEM.PAGE.PROMOTE", tdhMemPagePromote, ["RCX", "RDX"], ["RCX", "RDX"], { version: 1 });
row("TDH.MEM.PAGE.DEMOTE", tdhMemPageDemote, ["RCX", "RDX", "R8"], ["RCX", "RDX"]);
row("TDH.MEM.RANGE.BLOCK", tdhMemRangeBlock, ["RCX", "RDX"], ["RCX", "RDX"]);
row("TDH.MEM.RANGE.UNBLOCK", tdhMemRangeUnblock, ["RCX", "RDX"], ["RCX", "RDX"]);
row("TDH.MEM.TRACK", tdhMemTrack, ["RCX"]);
row("TDH.MEM.RD", tdhMemRd, ["RCX", "RDX"], ["RCX", "RDX", "R8"]);
row("TDH.MEM.WR", tdhMemWr, ["RCX", "RDX", "R8"], ["RCX", "RDX", "R8"]);
row("TDH.MR.EXTEND", tdhMrExtend, ["RCX", "RDX"], ["RCX", "RDX"]);
row("TDH.MR.FINALIZE", tdhMrFinalize, ["RCX"]);
row("TDH.PHYMEM.PAGE.RDMD", tdhPhymemPageRdmd, ["RCX"], ["RCX", "RDX", "R8", "R9"]);
row("TDH.PHYMEM.PAGE.RECLAIM", tdhPhymemPageReclaim, ["RCX"], ["RCX", "RDX", "R8"]);
row("TDH.PHYMEM.PAGE.WBINVD", tdhPhymemPageWbinvd, ["RCX"]);
row("TDH.PHYMEM.CACHE.WB", tdhPhymemCacheWb, ["RCX"]);

/** The function with this leaf number, or undefined. */
export const seamcallRow = (leaf: number): SeamcallRow | undefined => rows[leaf];
