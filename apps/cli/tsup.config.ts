import type { Options } from "tsup";
import { tsupConfig } from "../../tools/tsup.base.js";

/**
 * An application for Node: it may use Node's own modules, and it has the project's packages in it, built from their
 * sources: it starts faster, and it needs nothing else built. Each command is a chunk, loaded when it runs.
 */
export default {
  ...(tsupConfig(["src/index.ts", "src/main.ts"]) as Options),
  platform: "node",
  noExternal: [/^@swtdx\//],
  esbuildOptions(options) {
    options.conditions = ["@swtdx/source"];
  },
} satisfies Options;
