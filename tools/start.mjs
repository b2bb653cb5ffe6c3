/**
 * `npm start`: builds what changed since the last start, then runs `swtdx` with the arguments given.
 * Whether anything changed is seen from modification times, so that a second start costs nothing.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { layers } from "./layers.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const stamp = join(root, ".nx/swtdx-built");

function newest(path) {
  const status = statSync(path, { throwIfNoEntry: false });
  if (!status) return 0;
  if (!status.isDirectory()) return status.mtimeMs;
  return Math.max(status.mtimeMs, ...readdirSync(path).map((name) => newest(join(path, name))));
}

function upToDate() {
  const built = newest(stamp);
  const inputs = layers.flatMap(({ folder }) =>
    ["src", "package.json", "tsup.config.ts"].map((name) => `${folder}/${name}`),
  );
  return (
    existsSync(join(root, "apps/cli/dist/main.js")) &&
    [...inputs, "package-lock.json", "tsconfig.base.json", "tools/tsup.base.ts"].every(
      (path) => newest(join(root, path)) < built,
    )
  );
}

if (!upToDate()) {
  process.stderr.write("swtdx: building\n");
  const started = new Date();
  // The command has all packages in it: nothing else needs to be built, nor anybody's declarations.
  const tsup = createRequire(import.meta.url).resolve("tsup/dist/cli-default.js");
  const build = spawnSync(process.execPath, [tsup, "--no-dts"], {
    cwd: join(root, "apps/cli"),
    encoding: "utf8",
  });
  if (build.status !== 0) {
    process.stderr.write(`${build.stdout}${build.stderr}\nswtdx: the build failed\n`);
    process.exit(1);
  }
  mkdirSync(dirname(stamp), { recursive: true });
  writeFileSync(stamp, `${started.toISOString()}\n`);
  utimesSync(stamp, started, started);
}

await import(new URL("../apps/cli/bin/swtdx.js", import.meta.url).href);
