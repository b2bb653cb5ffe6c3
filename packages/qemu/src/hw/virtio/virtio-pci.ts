/**
 * VIRTIO over PCI, modern interface only: common, notification, ISR and device configuration in BAR 4, MSI-X in BAR 1.
 * VIRTIO specification 1.2, 4.1; QEMU, hw/virtio/virtio-pci.c. In a TD devices reach shared memory only, so
 * VIRTIO_F_ACCESS_PLATFORM is always offered and must be taken.
 */
import type { Timers } from "../../clock.js";
import type { IoRegion } from "../../memory/address-space.js";
import type { DmaMemory } from "../../memory/guest-memory.js";
import type { MsiMessage } from "../intc/ioapic.js";
import { Msix } from "../pci/msix.js";
import { PCI, PciDevice } from "../pci/pci-device.js";
import { Virtqueue, VirtqueueError } from "./virtqueue.js";

export const VIRTIO_F = {
  INDIRECT_DESC: 28,
  EVENT_IDX: 29,
  VERSION_1: 32,
  ACCESS_PLATFORM: 33,
  RING_RESET: 40,
} as const;
export const feature = (bit: number): bigint => 1n << BigInt(bit);
const STATUS = { DRIVER_OK: 4, FEATURES_OK: 8, NEEDS_RESET: 64 } as const;
const VENDOR = 0x1af4;
const DEVICE_ID_BASE = 0x1040;
const CAP_ID_VENDOR = 0x09;
const CFG = { COMMON: 1, NOTIFY: 2, ISR: 3, DEVICE: 4, PCI: 5 } as const;
const BAR_MODERN = 4;
const BAR_MSIX = 1;
const LAYOUT = {
  COMMON: 0x0000,
  ISR: 0x1000,
  DEVICE: 0x2000,
  NOTIFY: 0x3000,
  PART: 0x1000,
  SIZE: 0x4000,
} as const;
const NOTIFY_MULTIPLIER = 4;
const NO_VECTOR = 0xffff;
const ISR = { QUEUE: 1, CONFIG: 2 } as const;
/** Common configuration: offsets of its fields. */
const COMMON = {
  DEVICE_FEATURE_SELECT: 0x00,
  DEVICE_FEATURE: 0x04,
  DRIVER_FEATURE_SELECT: 0x08,
  DRIVER_FEATURE: 0x0c,
  CONFIG_MSIX_VECTOR: 0x10,
  NUM_QUEUES: 0x12,
  DEVICE_STATUS: 0x14,
  CONFIG_GENERATION: 0x15,
  QUEUE_SELECT: 0x16,
  QUEUE_SIZE: 0x18,
  QUEUE_MSIX_VECTOR: 0x1a,
  QUEUE_ENABLE: 0x1c,
  QUEUE_NOTIFY_OFF: 0x1e,
  QUEUE_DESC: 0x20,
  QUEUE_DRIVER: 0x28,
  QUEUE_DEVICE: 0x30,
  QUEUE_RESET: 0x3a,
} as const;

/** A kind of device: what differs from one to another. */
export interface VirtioBackend {
  /** VIRTIO device ID, for example 2 for a block device. */
  readonly deviceType: number;
  readonly name: string;
  /** PCI class and subclass. */
  readonly pciClass: number;
  /** Feature bits of its own. */
  readonly features: bigint;
  readonly queues: number;
  /** MSI-X messages; default: one for each queue and one for the configuration. */
  readonly vectors?: number;
  /** Device configuration as the driver reads it. */
  readonly config: Uint8Array;
  /** Handles what is available on `queue`. @returns true when the driver must be interrupted. @throws VirtqueueError */
  process(queue: Virtqueue, index: number): boolean;
  /** Called once, with what a device needs that acts by itself. */
  attach?(function_: VirtioFunction): void;
  /** The driver writes device configuration. */
  writeConfig?(offset: number, size: number, value: number): void;
  /** The driver reset the device. */
  reset?(): void;
}

/** The function as its device sees it. */
export interface VirtioFunction {
  readonly timers: Timers;
  /** Has the device handle queue `index`, as if the driver had notified it. */
  kick(index: number): void;
  /** Tells the driver that the device's configuration changed. */
  configChanged(): void;
}

export interface VirtioPciOptions {
  readonly timers: Timers;
  readonly memory: DmaMemory;
  sendMsi(message: MsiMessage): void;
  /** Level of the function's INTA#. */
  intx(level: boolean): void;
}

export class VirtioPci extends PciDevice {
  readonly #queues: Virtqueue[];
  readonly #msix: Msix;
  readonly #features: bigint;
  #driverFeatures = 0n;
  #deviceFeatureSelect = 0;
  #driverFeatureSelect = 0;
  #status = 0;
  #select = 0;
  #configVector = NO_VECTOR;
  #isr = 0;
  #generation = 0;

  constructor(
    private readonly backend: VirtioBackend,
    private readonly options: VirtioPciOptions,
  ) {
    super({
      name: backend.name,
      vendorId: VENDOR,
      deviceId: DEVICE_ID_BASE + backend.deviceType,
      revision: 1,
      classDevice: backend.pciClass,
    });
    this.#features = backend.features | Object.values(VIRTIO_F).reduce((all, bit) => all | feature(bit), 0n);
    this.#queues = Array.from({ length: backend.queues }, () => new Virtqueue(options.memory));
    this.config[PCI.INTERRUPT_PIN] = 1;
    this.#capability(0x40, CFG.COMMON, LAYOUT.COMMON, LAYOUT.PART, 16);
    this.#capability(0x50, CFG.ISR, LAYOUT.ISR, LAYOUT.PART, 16);
    this.#capability(0x60, CFG.DEVICE, LAYOUT.DEVICE, LAYOUT.PART, 16);
    this.#capability(0x70, CFG.NOTIFY, LAYOUT.NOTIFY, LAYOUT.PART, 20);
    this.view.setUint32(0x70 + 16, NOTIFY_MULTIPLIER, true);
    this.#capability(0x84, CFG.PCI, 0, 0, 20);
    this.#msix = new Msix(this, 0x98, BAR_MSIX, backend.vectors ?? backend.queues + 1, (message) =>
      options.sendMsi(message),
    );
    this.setWritable(0x84 + 4, 1, 0xff);
    this.setWritable(0x84 + 8, 4, 0xffffffff);
    this.setWritable(0x84 + 12, 4, 0xffffffff);
    backend.attach?.({
      timers: options.timers,
      kick: (index) => this.#notified(index),
      configChanged: () => {
        this.#generation = (this.#generation + 1) & 0xff;
        if (this.#status & STATUS.DRIVER_OK) this.#interrupt(this.#configVector, ISR.CONFIG);
      },
    });
    this.setBar(BAR_MODERN, { kind: "mem64", prefetchable: true, size: LAYOUT.SIZE, region: this.#region });
  }

  #capability(at: number, type: number, offset: number, length: number, size: number): void {
    this.addCapability(CAP_ID_VENDOR, at, size);
    this.config[at + 2] = size;
    this.config[at + 3] = type;
    this.config[at + 4] = type === CFG.PCI ? 0 : BAR_MODERN;
    this.view.setUint32(at + 8, offset, true);
    this.view.setUint32(at + 12, length, true);
  }

  override configWritten(): void {
    this.#msix.configWritten();
  }

  /** The window of capability VIRTIO_PCI_CAP_PCI_CFG: reaches the BAR by configuration accesses. */
  override readConfig(offset: number, size: number): number {
    const window = this.#pciCfgWindow(offset, size);
    return window === null ? super.readConfig(offset, size) : this.#region.read(window, size);
  }
  override writeConfig(offset: number, size: number, value: number): void {
    const window = this.#pciCfgWindow(offset, size);
    if (window === null) super.writeConfig(offset, size, value);
    else this.#region.write(window, size, value);
  }
  #pciCfgWindow(offset: number, size: number): number | null {
    if (offset !== 0x84 + 16 || this.config[0x84 + 4] !== BAR_MODERN) return null;
    const at = this.view.getUint32(0x84 + 8, true);
    return this.view.getUint32(0x84 + 12, true) === size && at + size <= LAYOUT.SIZE ? at : null;
  }

  readonly #region: IoRegion = {
    name: "virtio-pci-modern",
    maxAccess: 4,
    read: (offset, size) => {
      if (offset < LAYOUT.ISR) return this.#readCommon(offset);
      if (offset < LAYOUT.DEVICE) {
        const isr = this.#isr;
        this.#isr = 0;
        this.options.intx(false);
        return isr;
      }
      if (offset >= LAYOUT.NOTIFY) return 0;
      let value = 0;
      for (let i = 0; i < size; i++)
        value |= (this.backend.config[offset - LAYOUT.DEVICE + i] ?? 0) << (8 * i);
      return value >>> 0;
    },
    write: (offset, size, value) => {
      if (offset < LAYOUT.ISR) this.#writeCommon(offset, value);
      else if (offset >= LAYOUT.DEVICE && offset < LAYOUT.NOTIFY)
        this.backend.writeConfig?.(offset - LAYOUT.DEVICE, size, value);
      else if (offset >= LAYOUT.NOTIFY)
        this.#notified(Math.floor((offset - LAYOUT.NOTIFY) / NOTIFY_MULTIPLIER));
    },
  };

  #readCommon(offset: number): number {
    const queue = this.#queues[this.#select];
    const half = (address: number, at: number) =>
      (at & 4 ? Math.floor(address / 2 ** 32) : address % 2 ** 32) >>> 0;
    switch (offset) {
      case COMMON.DEVICE_FEATURE_SELECT:
        return this.#deviceFeatureSelect;
      case COMMON.DEVICE_FEATURE:
        return featureWord(this.#features, this.#deviceFeatureSelect);
      case COMMON.DRIVER_FEATURE_SELECT:
        return this.#driverFeatureSelect;
      case COMMON.DRIVER_FEATURE:
        return featureWord(this.#driverFeatures, this.#driverFeatureSelect);
      case COMMON.CONFIG_MSIX_VECTOR:
        return this.#configVector;
      case COMMON.NUM_QUEUES:
        return this.#queues.length;
      case COMMON.DEVICE_STATUS:
        return this.#status;
      case COMMON.CONFIG_GENERATION:
        return this.#generation;
      case COMMON.QUEUE_SELECT:
        return this.#select;
      case COMMON.QUEUE_SIZE:
        return queue?.size ?? 0;
      case COMMON.QUEUE_MSIX_VECTOR:
        return queue?.vector ?? NO_VECTOR;
      case COMMON.QUEUE_ENABLE:
        return queue?.enabled ? 1 : 0;
      case COMMON.QUEUE_NOTIFY_OFF:
        return this.#select;
      case COMMON.QUEUE_DESC:
      case COMMON.QUEUE_DESC + 4:
        return queue ? half(queue.descriptors, offset) : 0;
      case COMMON.QUEUE_DRIVER:
      case COMMON.QUEUE_DRIVER + 4:
        return queue ? half(queue.driver, offset) : 0;
      case COMMON.QUEUE_DEVICE:
      case COMMON.QUEUE_DEVICE + 4:
        return queue ? half(queue.device, offset) : 0;
      default:
        return 0;
    }
  }

  #writeCommon(offset: number, value: number): void {
    const queue = this.#queues[this.#select];
    const part = (old: number, at: number) =>
      at & 4 ? value * 2 ** 32 + (old % 2 ** 32) : Math.floor(old / 2 ** 32) * 2 ** 32 + value;
    const vector = value < this.#msix.vectors ? value : NO_VECTOR;
    switch (offset) {
      case COMMON.DEVICE_FEATURE_SELECT:
        this.#deviceFeatureSelect = value;
        return;
      case COMMON.DRIVER_FEATURE_SELECT:
        this.#driverFeatureSelect = value;
        return;
      case COMMON.DRIVER_FEATURE:
        if (this.#driverFeatureSelect > 1 || this.#status & STATUS.FEATURES_OK) return;
        this.#driverFeatures =
          this.#driverFeatureSelect === 0
            ? (this.#driverFeatures & ~0xffffffffn) | BigInt(value)
            : (this.#driverFeatures & 0xffffffffn) | (BigInt(value) << 32n);
        return;
      case COMMON.CONFIG_MSIX_VECTOR:
        this.#configVector = vector;
        return;
      case COMMON.DEVICE_STATUS:
        return this.#writeStatus(value & 0xff);
      case COMMON.QUEUE_SELECT:
        this.#select = value & 0xffff;
        return;
      default:
    }
    if (!queue) return;
    switch (offset) {
      case COMMON.QUEUE_SIZE:
        // A power of two up to the maximum; anything else is ignored.
        if (value > 0 && value <= queue.maxSize && (value & (value - 1)) === 0) queue.size = value;
        return;
      case COMMON.QUEUE_MSIX_VECTOR:
        queue.vector = vector;
        return;
      case COMMON.QUEUE_ENABLE:
        if (value === 1) queue.enabled = true;
        return;
      case COMMON.QUEUE_RESET:
        if (value === 1) queue.reset();
        return;
      case COMMON.QUEUE_DESC:
      case COMMON.QUEUE_DESC + 4:
        queue.descriptors = part(queue.descriptors, offset);
        return;
      case COMMON.QUEUE_DRIVER:
      case COMMON.QUEUE_DRIVER + 4:
        queue.driver = part(queue.driver, offset);
        return;
      case COMMON.QUEUE_DEVICE:
      case COMMON.QUEUE_DEVICE + 4:
        queue.device = part(queue.device, offset);
        return;
      default:
    }
  }

  #writeStatus(value: number): void {
    if (value === 0) {
      this.#reset();
      return;
    }
    const wanted = feature(VIRTIO_F.VERSION_1) | feature(VIRTIO_F.ACCESS_PLATFORM);
    const acceptable =
      (this.#driverFeatures & ~this.#features) === 0n && (this.#driverFeatures & wanted) === wanted;
    if (value & STATUS.FEATURES_OK && !acceptable) value &= ~STATUS.FEATURES_OK;
    if (value & STATUS.FEATURES_OK)
      for (const queue of this.#queues)
        queue.eventIndex = (this.#driverFeatures & feature(VIRTIO_F.EVENT_IDX)) !== 0n;
    this.#status = value | (this.#status & STATUS.NEEDS_RESET);
  }

  #reset(): void {
    this.#status = 0;
    this.#driverFeatures = 0n;
    this.#deviceFeatureSelect = this.#driverFeatureSelect = this.#select = 0;
    this.#configVector = NO_VECTOR;
    this.#isr = 0;
    this.options.intx(false);
    for (const queue of this.#queues) queue.reset();
    this.#msix.reset();
    this.backend.reset?.();
  }

  #notified(index: number): void {
    const queue = this.#queues[index];
    if (!queue || !(this.#status & STATUS.DRIVER_OK) || this.#status & STATUS.NEEDS_RESET) return;
    queue.begin();
    try {
      if (this.backend.process(queue, index)) this.#interrupt(queue.vector, ISR.QUEUE);
    } catch (error) {
      if (!(error instanceof VirtqueueError)) throw error;
      this.#status |= STATUS.NEEDS_RESET;
      this.#interrupt(this.#configVector, ISR.CONFIG);
    }
  }

  #interrupt(vector: number, isr: number): void {
    if (this.#msix.enabled) {
      if (vector !== NO_VECTOR) this.#msix.notify(vector);
      return;
    }
    this.#isr |= isr;
    this.options.intx(true);
  }
}

const featureWord = (features: bigint, select: number): number =>
  select > 1 ? 0 : Number((features >> BigInt(32 * select)) & 0xffffffffn);
