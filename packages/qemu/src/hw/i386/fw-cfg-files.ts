/**
 * What the machine tells its firmware by fw_cfg: the items and files that QEMU 10 has for the same machine. QEMU,
 * hw/i386/fw_cfg.c, hw/nvram/fw_cfg.c (fw_cfg_common_realize), hw/isa/lpc_ich9.c, hw/acpi/ich9.c. Not here:
 * genroms/kvmvapic.bin and genroms/linuxboot_dma.bin, which are programs of QEMU's for a BIOS (UEFI ignores them).
 */
import { FW_CFG, FW_CFG_X86 } from "@swtdx/abi";
import { addAcpiTables } from "../../acpi/build.js";
import { e820Table, encodeE820, type MemoryMap } from "../../memory/memory-map.js";
import { buildSmbios, type SmbiosOptions } from "../smbios/smbios.js";
import type { Q35Board } from "./q35.js";

/** etc/system-states: S3 and S4 (with its SLP_TYP) are there. */
const SYSTEM_STATES = [0x80, 0, 0, 0x81, 0x82, 0x80] as const;
/** SMI features that would be there with SMM: broadcast, CPU hotplug and hot-unplug. */
const SMI_FEATURES = 0x07;
/** Boot order with -kernel: the option ROM that loads it for a BIOS. */
const LINUXBOOT = "/rom@genroms/linuxboot_dma.bin";
const HPET_NONE = 0xff;

export interface FwCfgContents {
  readonly vcpus: number;
  readonly map: MemoryMap;
  /** Machine type, for example pc-q35-10.1. */
  readonly machine: string;
  readonly cpuid1: SmbiosOptions["cpuid1"];
  /** A kernel is given to the firmware. */
  readonly kernel: boolean;
}

export function fillFwCfg(board: Q35Board, contents: FwCfgContents): void {
  const { fwCfg } = board;
  const { vcpus, map } = contents;
  fwCfg.addBytes(FW_CFG.UUID, new Uint8Array(16));
  fwCfg.addU64(FW_CFG.RAM_SIZE, map.below4g.length + map.above4g.length);
  fwCfg.addU16(FW_CFG.NOGRAPHIC, 1);
  fwCfg.addU16(FW_CFG.NB_CPUS, vcpus);
  fwCfg.addU16(FW_CFG.BOOT_MENU, 0);
  fwCfg.addU16(FW_CFG.MAX_CPUS, vcpus);
  fwCfg.addU32(FW_CFG_X86.IRQ0_OVERRIDE, 1);
  fwCfg.addBytes(FW_CFG_X86.HPET, Uint8Array.of(HPET_NONE));

  const none = new Uint8Array();
  fwCfg.addFile("bios-geometry", none);
  fwCfg.addFile("bootorder", contents.kernel ? new TextEncoder().encode(`${LINUXBOOT}\0`) : none);
  fwCfg.addFile("etc/boot-fail-wait", Uint8Array.of(0xff, 0xff, 0xff, 0xff));
  const e820 = e820Table(map);
  fwCfg.addFile("etc/e820", encodeE820(e820));
  addSmiFeatures(board);
  fwCfg.addFile("etc/system-states", Uint8Array.from(SYSTEM_STATES));
  fwCfg.addFile("etc/tpm/log", none);
  addAcpiTables(board, { vcpus, map, machine: contents.machine });
  const smbios = buildSmbios({ machine: contents.machine, vcpus, cpuid1: contents.cpuid1, e820 });
  fwCfg.addFile("etc/smbios/smbios-anchor", smbios.anchor);
  fwCfg.addFile("etc/smbios/smbios-tables", smbios.tables);
}

/** Negotiation of SMI features: firmware writes what it wants and reads whether it has it; without SMM nothing follows. */
function addSmiFeatures({ fwCfg }: Q35Board): void {
  const supported = new Uint8Array(8);
  supported[0] = SMI_FEATURES;
  const requested = new Uint8Array(8);
  const ok = () => Uint8Array.of(requested.every((byte, i) => (byte & ~supported[i]) === 0) ? 1 : 0);
  fwCfg.addFile("etc/smi/supported-features", supported);
  fwCfg.addFile("etc/smi/requested-features", requested, { writable: true });
  fwCfg.addFile("etc/smi/features-ok", Uint8Array.of(0), { onSelect: ok });
}
