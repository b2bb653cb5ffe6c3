/**
 * ICH9's ACPI registers: PM timer, PM1 event and control blocks, GPE0. ACPI specification 6.5, chapter 4.8; Intel I/O
 * Controller Hub 9 data sheet, 13.8.3; QEMU, hw/acpi/ich9.c and core.c. Where they are is up to the LPC bridge.
 */
import {
  ACPI_PM1_CNT,
  ACPI_PM1_EN,
  ACPI_PM1_STS,
  ACPI_PM_TIMER_HZ,
  ACPI_SLP_TYP,
  ICH9_PMIO,
} from "@swtdx/abi";
import type { Now } from "../../clock.js";
import type { IoRegion } from "../../memory/address-space.js";

/** The timer's counter has this many bits (FADT flag TMR_VAL_EXT clear). */
const TIMER_MASK = 0xffffff;
const GPE0_BYTES = 8;
const PM1_STS_BITS = Object.values(ACPI_PM1_STS).reduce((all: number, bit) => all | bit, 0);
const PM1_EN_BITS = Object.values(ACPI_PM1_EN).reduce((all: number, bit) => all | bit, 0);

export interface Ich9PmActions {
  readonly now: Now;
  /** Level of the system control interrupt. */
  sci(level: boolean): void;
  /** Software wrote SLP_EN with the SLP_TYP of this state. */
  sleep(state: keyof typeof ACPI_SLP_TYP): void;
}

export class Ich9Pm implements IoRegion {
  readonly name = "ICH9 PM";
  readonly maxAccess = 4;
  #status = 0;
  #enable = 0;
  #control = 0;
  readonly #gpe = new Uint8Array(2 * GPE0_BYTES);
  #smiEnable = 0;
  #lastOverflow = 0;

  constructor(private readonly actions: Ich9PmActions) {
    // Without SMM nothing stands between software and ACPI: SCI_EN is set from the start.
    this.#control = ACPI_PM1_CNT.SCI_EN;
  }

  read(offset: number, size: number): number {
    if (offset === ICH9_PMIO.PM_TMR) return this.#timer() & mask(size);
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.#readByte(offset + i) << (8 * i);
    return value >>> 0;
  }

  write(offset: number, size: number, value: number): void {
    let control = this.#control;
    for (let i = 0; i < size; i++) {
      const at = offset + i;
      const byte = (value >>> (8 * i)) & 0xff;
      const shift = (at & 1) * 8;
      if (at < ICH9_PMIO.PM1_EN) this.#status &= ~(byte << shift);
      else if (at < ICH9_PMIO.PM1_CNT) this.#enable = (merge(this.#enable, byte, shift) & PM1_EN_BITS) | 0;
      else if (at < ICH9_PMIO.PM1_CNT + 2) control = merge(control, byte, shift);
      else if (at >= ICH9_PMIO.GPE0_STS && at < ICH9_PMIO.GPE0_EN)
        this.#gpe[at - ICH9_PMIO.GPE0_STS] &= ~byte;
      else if (at >= ICH9_PMIO.GPE0_EN && at < ICH9_PMIO.GPE0_EN + GPE0_BYTES)
        this.#gpe[at - ICH9_PMIO.GPE0_STS] = byte;
      else if (at >= ICH9_PMIO.SMI_EN && at < ICH9_PMIO.SMI_STS)
        this.#smiEnable = merge(this.#smiEnable, byte, (at - ICH9_PMIO.SMI_EN) * 8);
    }
    if (control !== this.#control) this.#writeControl(control);
    this.#update();
  }

  /** The power button was pressed. */
  pressPowerButton(): void {
    this.#status |= ACPI_PM1_STS.PWRBTN;
    this.#update();
  }

  #timer(): number {
    return Math.floor((this.actions.now() * ACPI_PM_TIMER_HZ) / 1e9) & TIMER_MASK;
  }

  /** TMR_STS is set whenever the counter's top bit changes. */
  #pollOverflow(): void {
    const half = Math.floor((this.actions.now() * ACPI_PM_TIMER_HZ) / 1e9 / 2 ** 23);
    if (half !== this.#lastOverflow) {
      this.#lastOverflow = half;
      this.#status |= ACPI_PM1_STS.TMR;
    }
  }

  #readByte(at: number): number {
    const shift = (at & 1) * 8;
    if (at < ICH9_PMIO.PM1_EN) {
      this.#pollOverflow();
      return ((this.#status & PM1_STS_BITS) >> shift) & 0xff;
    }
    if (at < ICH9_PMIO.PM1_CNT) return (this.#enable >> shift) & 0xff;
    if (at < ICH9_PMIO.PM1_CNT + 2) return (this.#control >> shift) & 0xff;
    if (at < ICH9_PMIO.PM_TMR) return 0;
    if (at < ICH9_PMIO.PM_TMR + 4) return (this.#timer() >>> ((at - ICH9_PMIO.PM_TMR) * 8)) & 0xff;
    if (at >= ICH9_PMIO.GPE0_STS && at < ICH9_PMIO.GPE0_STS + 2 * GPE0_BYTES)
      return this.#gpe[at - ICH9_PMIO.GPE0_STS];
    if (at >= ICH9_PMIO.SMI_EN && at < ICH9_PMIO.SMI_STS)
      return (this.#smiEnable >>> ((at - ICH9_PMIO.SMI_EN) * 8)) & 0xff;
    return 0;
  }

  #writeControl(value: number): void {
    this.#control = value & ~ACPI_PM1_CNT.SLP_EN;
    if (!(value & ACPI_PM1_CNT.SLP_EN)) return;
    const type = (value >> ACPI_PM1_CNT.SLP_TYP_SHIFT) & 7;
    const state = Object.entries(ACPI_SLP_TYP).find(([, slpTyp]) => slpTyp === type)?.[0];
    if (state) this.actions.sleep(state as keyof typeof ACPI_SLP_TYP);
  }

  #update(): void {
    const events = this.#status & this.#enable & PM1_EN_BITS;
    const general = this.#gpe.some((bits, i) => i < GPE0_BYTES && (bits & this.#gpe[i + GPE0_BYTES]) !== 0);
    this.actions.sci((this.#control & ACPI_PM1_CNT.SCI_EN) !== 0 && (events !== 0 || general));
  }
}

const mask = (size: number): number => (size === 4 ? 0xffffffff : (1 << (8 * size)) - 1);
const merge = (old: number, byte: number, shift: number): number =>
  (old & ~(0xff << shift)) | (byte << shift);
