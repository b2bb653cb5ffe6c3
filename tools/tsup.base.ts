/** What every package's tsup.config.ts has in common: ESM, declarations, source maps, no bundling of dependencies. */
import { defineConfig } from "tsup";

export function tsupConfig(entry: string[]): ReturnType<typeof defineConfig> {
  return defineConfig({
    entry,
    format: "esm",
    target: "es2023",
    platform: "neutral",
    sourcemap: true,
    clean: true,
    removeNodeProtocol: false,
    // TypeScript 6 deprecates what rollup-plugin-dts sets; composite projects cannot be rolled up.
    dts: { compilerOptions: { composite: false, ignoreDeprecations: "6.0" } },
  });
}
