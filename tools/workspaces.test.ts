/** package.json and tsconfig.build.json of every workspace say what the table of layers says. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { layers } from "./layers.mjs";

interface Manifest {
  name: string;
  version: string;
  exports: unknown;
  dependencies?: Record<string, string>;
}

interface BuildConfig {
  references: { path: string }[];
}

const root = fileURLToPath(new URL("..", import.meta.url));
const json = <T>(path: string): T => JSON.parse(readFileSync(join(root, path), "utf8")) as T;
const folderOf = (name: string) => layers.find((layer) => layer.name === name)!.folder;

it("lists every workspace", () => {
  const roots = ["packages", "packages/hardware", "apps"];
  const folders = roots.flatMap((folder) =>
    readdirSync(join(root, folder))
      .map((name) => `${folder}/${name}`)
      .filter((path) => existsSync(join(root, path, "package.json"))),
  );
  expect(folders.sort()).toEqual(layers.map(({ folder }) => folder).sort());
});

it.each(layers)("@swtdx/$name depends only on packages of its row", ({ name, folder, calls }) => {
  const manifest = json<Manifest>(`${folder}/package.json`);
  expect(manifest.name).toBe(`@swtdx/${name}`);
  const dependencies = Object.entries(manifest.dependencies ?? {}).filter(([other]) =>
    other.startsWith("@swtdx/"),
  );
  const packageNames = dependencies.map(([other]) => other.slice("@swtdx/".length)).sort();
  expect(calls).toEqual(expect.arrayContaining(packageNames));
  for (const [other, version] of dependencies)
    expect(version, other).toBe(
      json<Manifest>(`${folderOf(other.slice("@swtdx/".length))}/package.json`).version,
    );

  const { references } = json<BuildConfig>(`${folder}/tsconfig.build.json`);
  const projects = references.map(({ path }) =>
    relative(root, join(root, folder, path))
      .split(sep)
      .join("/"),
  );
  expect(projects.sort()).toEqual(
    packageNames.map((other) => `${folderOf(other)}/tsconfig.build.json`).sort(),
  );
});

it("type-checks every package", () => {
  const { references } = json<BuildConfig>("tsconfig.json");
  expect(references.map(({ path }) => path).sort()).toEqual(
    layers.map(({ folder }) => `${folder}/tsconfig.build.json`).sort(),
  );
});
