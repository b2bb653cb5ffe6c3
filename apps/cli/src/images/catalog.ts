/** What `swtdx images` takes from each suite of Debian's archive. */

export const SUITES = ["bookworm", "trixie", "sid"] as const;
export type Suite = (typeof SUITES)[number];

export type Role = "firmware" | "kernel" | "module" | "busybox" | "shim" | "grub";

/** A package, and the files of it that are of use: role, and where in the package. */
export interface Wanted {
  readonly name: string;
  /** A metapackage: what is fetched is the package it depends on whose name matches, and so on from there. */
  readonly dependencies?: readonly RegExp[];
  readonly files: readonly (readonly [role: Role, path: RegExp])[];
}

/**
 * The kernel's modules that an initial RAM disk of ours has, in the order of loading. Not every kernel has each: TSM
 * reports are `tsm` up to Linux 6.15 and `tsm_report` since, FAT's code pages are built in or not.
 */
export const MODULES = [
  "configfs",
  "tsm",
  "tsm_report",
  "tdx-guest",
  "virtio_blk",
  "nls_cp437",
  "nls_ascii",
  "nls_iso8859-1",
  "nls_utf8",
  "fat",
  "vfat",
] as const;

const FIRMWARE = ["firmware", /\/OVMF[^/]*\.fd$/] as const;
const VMLINUZ = ["kernel", /(^|\/)vmlinuz[^/]*$/] as const;
const MODULE = ["module", new RegExp(`/(${MODULES.join("|")})\\.ko(\\.xz|\\.zst|\\.gz)?$`)] as const;

const LINUX = "linux-image-cloud-amd64";
const LINUX_IMAGE = /^linux-image-\d.*-cloud-amd64$/;
const BUSYBOX: Wanted = { name: "busybox-static", files: [["busybox", /bin\/busybox$/]] };
const SEABIOS: Wanted = { name: "seabios", files: [["firmware", /\/bios-256k\.bin$/]] };

export const PACKAGES: Readonly<Record<Suite, readonly Wanted[]>> = {
  bookworm: [{ name: "ovmf", files: [FIRMWARE] }],
  trixie: [
    { name: "ovmf", files: [FIRMWARE] },
    SEABIOS,
    { name: LINUX, dependencies: [LINUX_IMAGE], files: [VMLINUZ, MODULE] },
    BUSYBOX,
    { name: "shim-signed", files: [["shim", /\/shimx64\.efi\.signed$/]] },
    { name: "grub-efi-amd64-signed", files: [["grub", /\/grubx64\.efi\.signed$/]] },
  ],
  sid: [
    { name: "ovmf-inteltdx", files: [FIRMWARE] },
    // From Linux 7 on, image and modules are in packages of their own.
    {
      name: LINUX,
      dependencies: [LINUX_IMAGE, /^linux-binary-\d.*-cloud-amd64$/],
      files: [VMLINUZ],
    },
    {
      name: LINUX,
      dependencies: [LINUX_IMAGE, /^linux-modules-\d.*-cloud-amd64$/],
      files: [MODULE],
    },
    BUSYBOX,
  ],
};
