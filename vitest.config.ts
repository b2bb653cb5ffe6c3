/** The one test configuration: a project per package and app, and one each for examples and tools. */
import { fileURLToPath } from "node:url";
import { defaultServerConditions } from "vite";
import { defineConfig } from "vitest/config";
import { layers } from "./tools/layers.mjs";

const root = (folder: string) => fileURLToPath(new URL(folder, import.meta.url));

const project = (name: string, folder: string, include: string[]) => ({
  extends: true as const,
  root: root(folder),
  test: { name, include },
});

export default defineConfig({
  // Packages are tested from their sources: see "exports" in each package.json.
  ssr: { resolve: { conditions: ["@swtdx/source", ...defaultServerConditions] } },
  test: {
    // Bounds what hangs, not what is slow: a loaded machine must not fail a test.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    projects: [
      ...layers.map(({ name, folder }) => project(name, folder, ["test/**/*.test.ts"])),
      project("examples", "./examples", ["test/**/*.test.ts"]),
      project("tools", "./tools", ["**/*.test.ts"]),
    ],
    coverage: { provider: "v8", include: ["packages/**/src/**/*.ts", "apps/**/src/**/*.ts"] },
  },
});
