/** The packages in a browser: `.ci/30-browser` runs this. Vite builds the page from the sources with it, too. */
import { fileURLToPath } from "node:url";
import { defaultClientConditions, defaultServerConditions } from "vite";
import { defineConfig } from "vitest/config";

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  resolve: { conditions: ["@swtdx/source", ...defaultClientConditions] },
  ssr: { resolve: { conditions: ["@swtdx/source", ...defaultServerConditions] } },
  build: { target: "es2023" },
  worker: { format: "es" },
  test: {
    name: "browser",
    include: ["*.boot.ts"],
    // Bounds what hangs.
    testTimeout: 15 * 60_000,
    hookTimeout: 5 * 60_000,
  },
});
