/**
 * The layers and their edges: the one table from which the lint rules and the test projects are made, and to
 * which package.json and tsconfig references are compared. ARCHITECTURE.md gives the reasons.
 *
 * @typedef {object} Layer
 * @property {string} name short name; the package is `@swtdx/NAME`, the test project `NAME`
 * @property {string} folder from the repository's root
 * @property {readonly string[]} calls short names of the packages it may import
 */

/** @type {readonly Layer[]} */
export const packages = [
  { name: "abi", folder: "packages/abi", calls: [] },
  { name: "crypto", folder: "packages/crypto", calls: [] },
  { name: "x86", folder: "packages/hardware/x86", calls: ["abi"] },
  { name: "mktme", folder: "packages/hardware/mktme", calls: ["abi", "crypto"] },
  { name: "cpu", folder: "packages/hardware/cpu", calls: ["abi", "crypto", "x86", "mktme"] },
  { name: "tdx-module", folder: "packages/tdx-module", calls: ["abi", "crypto", "cpu"] },
  { name: "linux-host", folder: "packages/linux-host", calls: ["abi", "crypto", "cpu"] },
  { name: "kvm", folder: "packages/kvm", calls: ["abi", "crypto", "linux-host", "cpu"] },
  { name: "qemu", folder: "packages/qemu", calls: ["abi", "crypto", "kvm"] },
  { name: "edk2", folder: "packages/edk2", calls: ["abi", "crypto"] },
  { name: "grub", folder: "packages/grub", calls: ["abi", "crypto"] },
  { name: "guest", folder: "packages/guest", calls: ["abi", "crypto"] },
  { name: "attestation", folder: "packages/attestation", calls: ["abi", "crypto"] },
];

/** Applications assemble the layers, so they may import every package. @type {readonly Layer[]} */
export const apps = [{ name: "cli", folder: "apps/cli", calls: packages.map((layer) => layer.name) }];

export const layers = [...packages, ...apps];
