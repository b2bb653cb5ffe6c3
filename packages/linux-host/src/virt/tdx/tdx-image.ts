/**
 * The file that a TDX module is distributed and updated with ("TDX-BLOB"): a header page, the SEAM_SIGSTRUCT's pages,
 * the module's pages. Source: Linux arch/x86/virt/vmx/tdx/seamldr.c (struct tdx_image_header, version 2).
 */
import { bytes, PAGE_SIZE, SEAMLDR_MAX_MODULE_PAGES, struct, u16, u32, viewOf } from "@swtdx/abi";
import type { TdxModuleImage } from "./seamldr.js";

const VERSION = 0x200;
const SIGNATURE = "TDX-BLOB";
/** SEAMLDR_PARAMS has place for one. */
const MAX_SIGSTRUCT_PAGES = 1;

export const TDX_IMAGE_HEADER = struct("tdx_image_header", PAGE_SIZE, {
  version: u16(0),
  /** Makes the sum of all 16-bit words 0; for tools, the kernel does not look. */
  checksum: u16(2),
  signature: bytes(4, 8),
  sigstruct_nr_pages: u32(12),
  module_nr_pages: u32(16),
  reserved: bytes(20, PAGE_SIZE - 20),
});

/** @returns the module and its signature; null for a file that the kernel refuses (-EINVAL) */
export function decodeTdxImage(file: Uint8Array): TdxModuleImage | null {
  if (file.length < PAGE_SIZE) return null;
  const header = TDX_IMAGE_HEADER.decode(file);
  const { version, signature, sigstruct_nr_pages, module_nr_pages, reserved } = header;
  if (PAGE_SIZE * (1 + sigstruct_nr_pages + module_nr_pages) !== file.length) return null;
  if (version !== VERSION || new TextDecoder().decode(signature) !== SIGNATURE) return null;
  if (sigstruct_nr_pages > MAX_SIGSTRUCT_PAGES || module_nr_pages > SEAMLDR_MAX_MODULE_PAGES) return null;
  if (reserved.some((byte) => byte !== 0)) return null;
  const at = PAGE_SIZE * (1 + sigstruct_nr_pages);
  return { sigstruct: file.slice(PAGE_SIZE, at), image: file.slice(at) };
}

/** @throws RangeError for a signature or module that is too large */
export function encodeTdxImage({ image, sigstruct }: TdxModuleImage): Uint8Array {
  const modulePages = Math.ceil(image.length / PAGE_SIZE);
  if (sigstruct.length > PAGE_SIZE) throw new RangeError(`SEAM_SIGSTRUCT of ${sigstruct.length} bytes`);
  if (modulePages > SEAMLDR_MAX_MODULE_PAGES) throw new RangeError(`TDX module of ${image.length} bytes`);
  const file = new Uint8Array(PAGE_SIZE * (2 + modulePages));
  file.set(
    TDX_IMAGE_HEADER.encode({
      version: VERSION,
      signature: new TextEncoder().encode(SIGNATURE),
      sigstruct_nr_pages: 1,
      module_nr_pages: modulePages,
    }),
  );
  file.set(sigstruct, PAGE_SIZE);
  file.set(image, 2 * PAGE_SIZE);
  const view = viewOf(file);
  let sum = 0;
  for (let at = 0; at < file.length; at += 2) sum = (sum + view.getUint16(at, true)) & 0xffff;
  view.setUint16(2, -sum & 0xffff, true);
  return file;
}
