import type { Options } from "tsup";
import { tsupConfig } from "../../tools/tsup.base.js";

/** An application for Node: it may use Node's own modules. Each command is a chunk, loaded when it runs. */
export default {
  ...(tsupConfig(["src/index.ts", "src/main.ts"]) as Options),
  platform: "node",
} satisfies Options;
