/** Loading a TDX module through the P-SEAMLDR. Source: Linux arch/x86/virt/vmx/tdx/seamldr.c; Intel TDX Loader Interface specification. */
import {
  type HpaAndKeyId,
  PAGE_SIZE,
  type Pfn,
  SEAMLDR_INFO,
  SEAMLDR_LEAF,
  SEAMLDR_PARAMS,
  SEAMLDR_SCENARIO,
  type SeamldrInfo,
} from "@swtdx/abi";
import { Gpr, type LogicalProcessor, type Processor } from "@swtdx/cpu";
import type { PageAllocator } from "../../mm/page-allocator.js";
import { rawSeamcall } from "./seamcall.js";

/** A module to load: its bytes (whole pages) and its SEAM_SIGSTRUCT. */
export interface TdxModuleImage {
  readonly image: Uint8Array;
  readonly sigstruct: Uint8Array;
}

const write = (lp: LogicalProcessor, page: Pfn, data: Uint8Array): void =>
  void lp.memWrite((page * PAGE_SIZE) as HpaAndKeyId, data);

/** SEAMLDR.INSTALL on all logical processors. @returns the first status that is not success, or 0 */
export function installModule(
  processor: Processor,
  pages: PageAllocator,
  module: TdxModuleImage,
  scenario: keyof typeof SEAMLDR_SCENARIO = "LOAD",
): bigint {
  const lp = processor.lps[0];
  const count = Math.ceil(module.image.length / PAGE_SIZE);
  const list: Pfn[] = [];
  const take = (): Pfn => {
    const page = pages.allocPage("seamldr");
    if (page === null) throw new RangeError("no memory for the TDX module image");
    list.push(page);
    lp.memZero((page * PAGE_SIZE) as HpaAndKeyId, PAGE_SIZE);
    return page;
  };
  const params = take();
  const sigstruct = take();
  const modulePages = Array.from({ length: count }, (_, i) => {
    const page = take();
    write(lp, page, module.image.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE));
    return page;
  });
  write(lp, sigstruct, module.sigstruct);
  write(
    lp,
    params,
    SEAMLDR_PARAMS.encode({
      SCENARIO: SEAMLDR_SCENARIO[scenario],
      SIGSTRUCT_PA: sigstruct * PAGE_SIZE,
      NUM_MODULE_PAGES: count,
      MOD_PAGES_PA_LIST: modulePages.map((page) => page * PAGE_SIZE),
    }),
  );
  let status = 0n;
  for (const one of processor.lps) {
    one.regs.setGpr(Gpr.RCX, BigInt(params * PAGE_SIZE));
    status = rawSeamcall(one, SEAMLDR_LEAF["SEAMLDR.INSTALL"]);
    if (status !== 0n) break;
  }
  for (const page of list) pages.freePage(page);
  return status;
}

/** SEAMLDR.INFO, or the status. */
export function seamldrInfo(lp: LogicalProcessor, pages: PageAllocator): SeamldrInfo | bigint {
  const page = pages.allocPage("seamldr");
  if (page === null) throw new RangeError("no memory for SEAMLDR_INFO");
  const pa = (page * PAGE_SIZE) as HpaAndKeyId;
  lp.regs.setGpr(Gpr.RCX, BigInt(pa));
  const status = rawSeamcall(lp, SEAMLDR_LEAF["SEAMLDR.INFO"]);
  const bytes = new Uint8Array(SEAMLDR_INFO.size);
  lp.memRead(pa, bytes);
  pages.freePage(page);
  return status === 0n ? SEAMLDR_INFO.decode(bytes) : status;
}
