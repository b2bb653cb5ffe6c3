/** Metadata as the guest reaches it (TDG.SYS.RD, TDG.VM.RD/WR, TDG.VP.RD/WR). Source: intel/tdx-module metadata_generic.c. */
import { encodeMetadataListHeader, METADATA_CONTEXT, TDX_STATUS } from "@swtdx/abi";
import type { VpContext } from "../entry/vp-context.js";
import {
  type GuestMetadata,
  MD_FIELD_ID_NA,
  type MetadataContextCode,
  type MetadataOutcome,
} from "../guest/metadata-access.js";
import type { TdxModule } from "../module.js";
import { checkSingleElementId, nextFieldId } from "./fields.js";
import { readSysField } from "./sys.js";
import { readTdField, writeTdField } from "./td.js";
import { readVpField, writeVpField } from "./vp.js";

/** Bytes of a metadata list's header, and of an element with its identifier. */
const HEADER = 8;
const ELEMENT = 16;

export function createGuestMetadata(module: TdxModule): GuestMetadata {
  const read = (context: MetadataContextCode, id: bigint, vp: VpContext): MetadataOutcome => {
    if (context === METADATA_CONTEXT.SYS) return readSysField(module, id, "guestRead");
    if (context === METADATA_CONTEXT.TD) return readTdField(vp.tdcs, id, "guestRead");
    return readVpField(vp.lp, vp.tdvps, id, "guestRead");
  };
  return {
    checkSingleElementId,
    read,
    write: (context, id, value, mask, vp) =>
      context === METADATA_CONTEXT.TD
        ? writeTdField(vp.tdcs, id, value, mask, "guestWrite", module.platform.tscHz)
        : writeVpField(vp.lp, vp.tdvps, id, value, mask, "guestWrite", module),
    next: (context, id) => nextFieldId(context, id, "guestRead"),
    dumpList(context, start, list, vp) {
      const view = new DataView(list.buffer, list.byteOffset, list.length);
      let id = start === MD_FIELD_ID_NA ? nextFieldId(context, start, "guestRead") : start;
      let at = HEADER;
      let sequences = 0;
      for (; id !== MD_FIELD_ID_NA && at + ELEMENT <= list.length; at += ELEMENT, sequences++) {
        const { status, value } = read(context, id, vp);
        if (status !== TDX_STATUS.TDX_SUCCESS) return { status, next: id };
        view.setBigUint64(at, id, true);
        view.setBigUint64(at + 8, value, true);
        id = nextFieldId(context, id, "guestRead");
      }
      view.setBigUint64(0, encodeMetadataListHeader(at, sequences), true);
      return { status: TDX_STATUS.TDX_SUCCESS, next: id };
    },
  };
}
