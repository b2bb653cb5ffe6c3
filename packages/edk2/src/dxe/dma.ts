/**
 * Shared memory for devices: one range that is mapped shared while boot services run and given back afterwards.
 * OvmfPkg's IoMmuDxe converts buffers one by one; one range for all serves the only device here, fw_cfg.
 */
import { EFI_MEMORY_TYPE, type Guest } from "@swtdx/abi";
import { fwCfgHasDma } from "../lib/fw-cfg.js";
import { readState, updateState } from "../lib/state.js";
import { mapGpa } from "../lib/tdx.js";
import { mapLargePage } from "../sec/page-tables.js";
import { FIRMWARE_DMA, reserveUnaccepted, retype } from "./memory-map.js";

/** One large page is mapped; this much of it is converted. */
const LARGE_PAGE = 0x20_0000;
const DMA_SIZE = 0x1_0000;
const DMA_LOW = 0x100_0000;

/** Without room or DMA the firmware keeps to the data port. */
export function* initDma(): Guest<void> {
  if (!(yield* fwCfgHasDma())) return;
  const base = yield* reserveUnaccepted(LARGE_PAGE, DMA_LOW, FIRMWARE_DMA);
  if (base < 0) return;
  const { SharedBit } = yield* readState();
  const shared = BigInt(base) | (1n << BigInt(SharedBit));
  if (!(yield* mapGpa(shared, DMA_SIZE))) {
    yield* retype(base, LARGE_PAGE, EFI_MEMORY_TYPE.Unaccepted);
    return;
  }
  yield* mapLargePage(base, SharedBit, true);
  yield* updateState({ DmaBase: base, DmaSize: DMA_SIZE });
}

/** Private again, unaccepted as the memory map says. */
export function* releaseDma(): Guest<void> {
  const { DmaBase, SharedBit } = yield* readState();
  if (DmaBase === 0) return;
  yield* mapLargePage(DmaBase, SharedBit, false);
  yield* mapGpa(BigInt(DmaBase), DMA_SIZE);
  yield* updateState({ DmaBase: 0, DmaSize: 0 });
}
