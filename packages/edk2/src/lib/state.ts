/**
 * What the firmware remembers between its programs: a structure in the work area, in guest memory, so that the
 * programs themselves hold no state and any number of TDs can run them.
 */
import { addr, guest, type Guest, readStruct, struct, u32, viewOf } from "@swtdx/abi";
import { FIRMWARE_STATE_BASE } from "../image/layout.js";

export const FIRMWARE_STATE = struct("FIRMWARE_STATE", 96, {
  /** Bit number of the shared bit in a GPA. */
  SharedBit: u32(0),
  NumberOfVcpus: u32(4),
  /** Event log: GPA, bytes, bytes in use. */
  LogBase: addr(8),
  LogSize: addr(16),
  LogUsed: addr(24),
  SystemTable: addr(32),
  /** Descriptors in the memory map, and the key that changes with it. */
  MapEntries: u32(40),
  MapKey: u32(44),
  /** Shared memory for DMA: GPA without shared bit, 0 when there is none. */
  DmaBase: addr(48),
  DmaSize: addr(56),
  /** Slot numbers of protocols: file system handle's interface addresses. */
  FileSystem: addr(64),
  LoadFile2: addr(72),
  CcProtocol: addr(80),
});
type State = typeof FIRMWARE_STATE;
type StateField = keyof State["fields"];
type StateValues = ReturnType<State["decode"]>;

export const readState = (): Guest<StateValues> => readStruct(FIRMWARE_STATE_BASE, FIRMWARE_STATE);

/** Changes the given fields. */
export function* updateState(value: Partial<Record<StateField, number>>): Guest<void> {
  const bytes = yield* guest.loadBytes(BigInt(FIRMWARE_STATE_BASE), FIRMWARE_STATE.size);
  FIRMWARE_STATE.write(viewOf(bytes), value);
  yield* guest.storeBytes(BigInt(FIRMWARE_STATE_BASE), bytes);
}
