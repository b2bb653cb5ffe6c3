/**
 * Debian's OVMF images where `swtdx images` puts them, and what is known of them: MRTD by an independent calculator
 * (2026-09). SWTDX_IMAGES names the folder; `.ci/10-debian-mrtd` runs these tests with it.
 */
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";

const KNOWN = [
  {
    path: "sid/ovmf-inteltdx/usr/share/ovmf/OVMF.inteltdx.ms.fd",
    sha256: "a265075b4147a096109e501e76196df1ec8a18659c26f7401492c597ec88f312",
    descriptor: 0x3ff600,
    mrtd: "a7a1f751abc454f9cbab198ca8d2edb2821935df525c74182b5e776cb0929e8c59aefecce725b0d08a5e9d3d3183bd08",
  },
  {
    path: "trixie/ovmf/usr/share/ovmf/OVMF.fd",
    sha256: "14954040cc754ade0c625ac3470ea46d4c14318b5b1396de4ef77090203d76db",
    descriptor: 0x3ff640,
    mrtd: "bdc6fb145880f06f30c8b346b8dce2a99d9351b56892df22f80fcf6574caa9f9c31df8e8576d53b4d0cd1c3f28910e11",
  },
  {
    path: "bookworm/ovmf/usr/share/ovmf/OVMF.fd",
    sha256: "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773",
    descriptor: 0x1ff7c0,
    mrtd: "4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057fb887fed0744d5631a212967fb231c47",
  },
] as const;

const folder = process.env["SWTDX_IMAGES"] ?? "images";

/** The known images that are there; a newer one than is known is not. */
export const debianImages = KNOWN.flatMap(({ path, sha256, ...known }) => {
  const file = `${folder}/${path}`;
  if (!existsSync(file)) return [];
  const image = readFileSync(file);
  return createHash("sha256").update(image).digest("hex") === sha256 ? [{ path, image, ...known }] : [];
});
