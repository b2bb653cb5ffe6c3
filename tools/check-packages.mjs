/**
 * `npm run check:packages`: are the packages fit to be published? publint and attw look at what npm would pack
 * (after a build), dependency-cruiser at cycles and dead imports, knip at dependencies nobody uses or declares.
 */
import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { layers } from "./layers.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const folders = layers.map(({ folder }) => folder);
const steps = [
  ["nx", "run-many", "-t", "build"],
  ...folders.map((folder) => ["publint", "--strict", folder]),
  ...folders.map((folder) => ["attw", "--pack", "--profile", "esm-only", "--quiet", folder]),
  ["depcruise", "packages", "apps"],
  ["knip", "--no-config-hints"],
];

const failed = [];
for (const [tool, ...args] of steps) {
  const what = [tool, ...args].join(" ");
  const { status, stdout, stderr } = spawnSync("npx", ["--no", tool, "--", ...args], {
    cwd: root,
    encoding: "utf8",
  });
  process.stdout.write(`${status === 0 ? "ok    " : "FAILED"} ${what}\n`);
  if (status !== 0) {
    process.stdout.write(`${stdout}${stderr}\n`);
    failed.push(what);
  }
}
process.stdout.write(`${steps.length - failed.length} passed, ${failed.length} failed\n`);
process.exitCode = failed.length === 0 ? 0 : 1;
