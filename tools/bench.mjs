/** `npm run bench [NAME…]`: runs bench/NAME.bench.ts (all, if none is named), one after another, from the sources. */
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("../bench", import.meta.url));
const suffix = ".bench.ts";
const all = readdirSync(folder)
  .filter((name) => name.endsWith(suffix))
  .map((name) => name.slice(0, -suffix.length))
  .sort();
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !all.includes(name));
if (unknown.length > 0) {
  process.stderr.write(
    `bench: no such bench: ${unknown.join(", ")}; there are: ${all.join(", ") || "none"}\n`,
  );
  process.exit(2);
}
for (const name of wanted.length > 0 ? wanted : all) {
  process.stdout.write(`\n== ${name}\n`);
  const { status } = spawnSync(
    process.execPath,
    ["--conditions=@swtdx/source", "--import", "tsx", join(folder, name + suffix)],
    { stdio: "inherit" },
  );
  if (status !== 0) process.exitCode = 1;
}
