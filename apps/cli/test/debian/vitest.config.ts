/**
 * Debian's firmware and kernels booted by the built command: `.ci/20-debian-boot` runs this. Not part of `npm test`:
 * a boot takes a minute. Files run side by side, as many as there are processors; what one file boots is shared by
 * its tests.
 */
import { fileURLToPath } from "node:url";
import { defaultServerConditions } from "vite";
import { defineConfig } from "vitest/config";

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  ssr: { resolve: { conditions: ["@swtdx/source", ...defaultServerConditions] } },
  test: {
    name: "debian",
    include: ["*.boot.ts"],
    // Bounds what hangs.
    testTimeout: 20 * 60_000,
    hookTimeout: 20 * 60_000,
  },
});
