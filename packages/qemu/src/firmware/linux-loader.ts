/**
 * Direct kernel boot: kernel, initrd and command line as fw_cfg items, for firmware to load. QEMU,
 * hw/i386/x86-common.c (x86_load_linux), for a confidential guest: the kernel's header is left as it is. Linux,
 * Documentation/arch/x86/boot.rst.
 */
import { FW_CFG, viewOf } from "@swtdx/abi";
import { hex, MachineError } from "../errors.js";
import type { FwCfg } from "../hw/nvram/fw-cfg.js";

export interface LinuxBoot {
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
  readonly append?: string;
  /** First stage that firmware starts instead of the kernel (`--shim`). */
  readonly shim?: Uint8Array;
}

/** "HdrS" at this offset marks a Linux kernel. */
const HEADER = { MAGIC: 0x202, VERSION: 0x206, SETUP_SECTS: 0x1f1, INITRD_MAX: 0x22c, XLOADFLAGS: 0x236 };
const HDRS = 0x53726448;
const XLF_CAN_BE_LOADED_ABOVE_4G = 1 << 1;
const SETUP_SECTS_DEFAULT = 4;
const INITRD_MAX_OLD = 0x37ffffff;
/** Where the parts of a recent kernel would go, were the firmware to use the old boot protocol. */
const ADDRESS = { REAL: 0x10000, CMDLINE: 0x20000, PROTECTED: 0x100000 } as const;
/** What QEMU keeps free below 4 GiB for ACPI tables. */
const ACPI_DATA_SIZE = 0x28000;

/**
 * Adds the items to fw_cfg. `below4g`: bytes of RAM below 4 GiB.
 * @throws MachineError for a kernel that is none, or an initrd larger than memory.
 */
export function addLinuxBoot(fwCfg: FwCfg, boot: LinuxBoot, below4g: number): void {
  const { kernel } = boot;
  const { setupSize, initrdMax } = readHeader(kernel, below4g - ACPI_DATA_SIZE);
  const append = boot.append ?? "";
  fwCfg.addU32(FW_CFG.CMDLINE_ADDR, ADDRESS.CMDLINE);
  fwCfg.addU32(FW_CFG.CMDLINE_SIZE, new TextEncoder().encode(append).length + 1);
  fwCfg.addString(FW_CFG.CMDLINE_DATA, append);
  if (boot.initrd) {
    const size = boot.initrd.length;
    if (size >= initrdMax)
      throw new MachineError(
        `initrd: ${size} bytes; at most ${initrdMax - 1} fit below 4 GiB of this machine`,
      );
    fwCfg.addU32(FW_CFG.INITRD_ADDR, (initrdMax - size) & ~4095);
    fwCfg.addU32(FW_CFG.INITRD_SIZE, size);
    fwCfg.addBytes(FW_CFG.INITRD_DATA, boot.initrd);
  }
  fwCfg.addU32(FW_CFG.KERNEL_ADDR, ADDRESS.PROTECTED);
  fwCfg.addU32(FW_CFG.KERNEL_SIZE, kernel.length - setupSize);
  fwCfg.addBytes(FW_CFG.KERNEL_DATA, kernel.subarray(setupSize));
  fwCfg.addU32(FW_CFG.SETUP_ADDR, ADDRESS.REAL);
  fwCfg.addU32(FW_CFG.SETUP_SIZE, setupSize);
  fwCfg.addBytes(FW_CFG.SETUP_DATA, kernel.subarray(0, setupSize));
  fwCfg.addFile("etc/boot/kernel", kernel);
  if (boot.shim) fwCfg.addFile("etc/boot/shim", boot.shim);
}

function readHeader(kernel: Uint8Array, limit: number): { setupSize: number; initrdMax: number } {
  const view = viewOf(kernel);
  const isLinux = kernel.length >= HEADER.XLOADFLAGS + 2 && view.getUint32(HEADER.MAGIC, true) === HDRS;
  const initrdMaxBelow = (max: number) => Math.min(max, limit - 1);
  if (!isLinux) {
    // An EFI image of another kind: firmware joins setup and kernel, so one of them may be empty.
    if (kernel.length >= 2 && kernel[0] === 0x4d && kernel[1] === 0x5a)
      return { setupSize: 0, initrdMax: initrdMaxBelow(0xffffffff) };
    throw new MachineError(
      `kernel: ${kernel.length} bytes that are no kernel: neither "HdrS" at ${hex(HEADER.MAGIC)} nor an EFI image`,
    );
  }
  const version = view.getUint16(HEADER.VERSION, true);
  const setupSize = ((kernel[HEADER.SETUP_SECTS] || SETUP_SECTS_DEFAULT) + 1) * 512;
  if (setupSize > kernel.length)
    throw new MachineError(
      `kernel: its setup has ${setupSize} bytes, the file ${kernel.length} (truncated?)`,
    );
  let max = INITRD_MAX_OLD;
  if (version >= 0x20c && view.getUint16(HEADER.XLOADFLAGS, true) & XLF_CAN_BE_LOADED_ABOVE_4G)
    max = 0xffffffff;
  else if (version >= 0x203) max = view.getUint32(HEADER.INITRD_MAX, true);
  return { setupSize, initrdMax: initrdMaxBelow(max) };
}
