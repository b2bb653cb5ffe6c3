#!/usr/bin/env node
/** Starts the built command. It is committed (dist is not), so that npm can link it before the first build. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const main = new URL("../dist/main.js", import.meta.url);
if (existsSync(main)) {
  await import(main.href);
} else {
  process.stderr.write(
    `swtdx: ${fileURLToPath(main)} is missing: swtdx has not been built. Run "npm run build" in the repository's root.\n`,
  );
  process.exitCode = 1;
}
