/**
 * The chipset's first settings on a q35 machine: where the ACPI registers and PCI configuration space in memory are.
 * Follows OvmfPkg/Library/PlatformInitLib (edk2), PlatformMiscInitialization and PlatformMemMapInitialization.
 */
import { guest, type Guest } from "@swtdx/abi";

const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;
const CONFIG_ENABLE = 0x80000000;

/** Device and function numbers as configuration addresses have them. */
const HOST_BRIDGE = 0x00 << 8;
const LPC_BRIDGE = 0xf8 << 8;
const Q35_MCH_DEVICE_ID = 0x29c0;
const MCH_PCIEXBAR_LOW = 0x60;
const MCH_PCIEXBAR_HIGH = 0x64;
const PCIEXBAR_ENABLE = 1;
const ICH9_PMBASE = 0x40;
const ICH9_ACPI_CNTL = 0x44;
const ACPI_CNTL_EN = 0x80;

/** What OvmfPkg's platforms set: PcdPciExpressBaseAddress and ICH9_PMBASE_VALUE. */
export const PCIE_BASE_ADDRESS = 0xe0000000;
export const PM_BASE = 0x600;

function* readConfig(fn: number, register: number): Guest<number> {
  yield* guest.out(CONFIG_ADDRESS, 4, (CONFIG_ENABLE | fn | register) >>> 0);
  return yield* guest.in(CONFIG_DATA, 4);
}
function* writeConfig(fn: number, register: number, value: number): Guest<void> {
  yield* guest.out(CONFIG_ADDRESS, 4, (CONFIG_ENABLE | fn | register) >>> 0);
  yield* guest.out(CONFIG_DATA, 4, value >>> 0);
}

/** Programs a q35 chipset; another host bridge, or none, is left alone. */
export function* initChipset(): Guest<void> {
  if ((yield* readConfig(HOST_BRIDGE, 0)) >>> 16 !== Q35_MCH_DEVICE_ID) return;
  yield* writeConfig(LPC_BRIDGE, ICH9_PMBASE, PM_BASE);
  const control = yield* readConfig(LPC_BRIDGE, ICH9_ACPI_CNTL);
  yield* writeConfig(LPC_BRIDGE, ICH9_ACPI_CNTL, control | ACPI_CNTL_EN);
  // The window is switched off while its halves are written.
  yield* writeConfig(HOST_BRIDGE, MCH_PCIEXBAR_LOW, 0);
  yield* writeConfig(HOST_BRIDGE, MCH_PCIEXBAR_HIGH, 0);
  yield* writeConfig(HOST_BRIDGE, MCH_PCIEXBAR_LOW, PCIE_BASE_ADDRESS | PCIEXBAR_ENABLE);
}
