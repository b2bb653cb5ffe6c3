/**
 * `swtdx images`: firmware, kernels with their modules, shim, GRUB and busybox from Debian's archive, unpacked; an
 * initial RAM disk for each kernel; links by short names; and a manifest of it all.
 */
import { createHash } from "node:crypto";
import {
  accessSync,
  constants,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join, relative, resolve } from "node:path";
import { UsageError } from "../errors.js";
import { Apt, checkTools, unpack } from "../images/apt.js";
import { PACKAGES, type Role, SUITES, type Suite, type Wanted } from "../images/catalog.js";
import { buildInitrd } from "../images/initrd.js";
import { toJson } from "../io/files.js";
import { Progress } from "../io/progress.js";
import { colors, out, table } from "../io/terminal.js";

export interface ImagesOptions {
  suite?: string[];
  mirror: string;
  json?: boolean;
  quiet?: boolean;
}

interface ManifestFile {
  readonly role: Role | "initrd";
  /** In the images' directory. */
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
}

interface ManifestPackage {
  readonly suite: Suite;
  readonly package: string;
  readonly version: string;
  /** Of the .deb. */
  readonly sha256: string;
  readonly files: readonly ManifestFile[];
}

interface Manifest {
  readonly packages: readonly ManifestPackage[];
  /** What was made of the packages' files. */
  readonly built: readonly { readonly suite: Suite; readonly files: readonly ManifestFile[] }[];
}

/** Fetches and unpacks the images into `directory`. @throws UsageError */
export function images(directory: string, options: ImagesOptions): void {
  const suites = (options.suite ?? [...SUITES]).map((name) => {
    const suite = SUITES.find((known) => known === name);
    if (!suite) throw new UsageError(`--suite: "${name}" is not one of ${SUITES.join(", ")}`);
    return suite;
  });
  if (!/^(https?|file):\/\/[^\s\]]+$/.test(options.mirror))
    throw new UsageError(`--mirror: "${options.mirror}" is no http, https or file URL`);
  checkTools();
  const dir = resolve(directory);
  try {
    mkdirSync(dir, { recursive: true });
    accessSync(dir, constants.W_OK);
  } catch (error) {
    throw new UsageError(`${directory}: cannot be written (${(error as Error).message})`);
  }

  const progress = new Progress(options.quiet ?? false);
  const path = join(dir, "manifest.json");
  const before = kept(path, suites);
  const packages: ManifestPackage[] = [];
  const built: Manifest["built"][number][] = [];
  for (const suite of suites) {
    const apt = new Apt(dir, suite, options.mirror);
    progress.stage(`${suite}: lists of packages`);
    apt.run("apt-get", ["update"]);
    const fetched = PACKAGES[suite].map((wanted) => {
      const name = apt.resolve(wanted);
      progress.stage(`${suite}: ${name}`);
      return fetchPackage(apt, dir, name, wanted);
    });
    packages.push(...fetched);
    const files = fetched.flatMap((one) => one.files);
    progress.stage(`${suite}: initial RAM disk`);
    const initrd = makeInitrd(dir, suite, files);
    if (initrd) built.push({ suite, files: [initrd] });
    link(dir, suite, files);
  }
  progress.end();
  const manifest: Manifest = {
    packages: [...before.packages, ...packages],
    built: [...before.built, ...built],
  };
  writeFileSync(path, `${toJson(manifest, 2)}\n`);
  if (options.json) return out(toJson(manifest, 2));
  show(manifest);
  out(colors("stdout").dim(`manifest: ${relative(process.cwd(), path) || path}`));
}

function show({ packages, built }: Manifest): void {
  const c = colors("stdout");
  const rows = (files: readonly ManifestFile[], from: string, version: string): string[][] =>
    files.map((file) => [file.path, from, version, file.sha256]);
  out(
    table([
      ["file", "package", "version", "SHA-256"].map((head) => c.bold(head)),
      ...packages.flatMap((one) => rows(one.files, `${one.package} (${one.suite})`, one.version)),
      ...built.flatMap((one) => rows(one.files, `made here (${one.suite})`, "")),
    ]),
  );
}

/** What the manifest of an earlier run says of other suites. */
function kept(path: string, suites: readonly Suite[]): Manifest {
  const other = <T extends { suite: Suite }>(list: readonly T[]): T[] =>
    list.filter(({ suite }) => !suites.includes(suite));
  try {
    const { packages, built } = JSON.parse(readFileSync(path, "utf8")) as Manifest;
    return { packages: other(packages), built: other(built) };
  } catch {
    return { packages: [], built: [] };
  }
}

function fetchPackage(apt: Apt, dir: string, name: string, wanted: Wanted): ManifestPackage {
  const { version, deb } = apt.download(name);
  const target = join(dir, apt.suite, name);
  unpack(deb, target);
  const files = list(target).flatMap((path) => {
    const inside = relative(target, path);
    const role = wanted.files.find(([, pattern]) => pattern.test(inside))?.[0];
    return role ? [entry(dir, role, path)] : [];
  });
  for (const [role] of wanted.files)
    if (!files.some((file) => file.role === role))
      throw new UsageError(`images: ${name} ${version} of ${apt.suite} has no ${role}`);
  return { suite: apt.suite, package: name, version, sha256: sha256(deb), files };
}

/** The initial RAM disk for the suite's kernel; null when the suite has none. */
function makeInitrd(dir: string, suite: Suite, files: readonly ManifestFile[]): ManifestFile | null {
  const paths = (role: Role): string[] =>
    files.filter((file) => file.role === role).map((file) => join(dir, file.path));
  const [busybox] = paths("busybox");
  if (!busybox) return null;
  const path = join(dir, suite, "initrd.gz");
  writeFileSync(path, buildInitrd(busybox, paths("module")));
  return entry(dir, "initrd", path);
}

/** Links with names that stay when versions change: SUITE/vmlinuz, SUITE/OVMF.fd and the other firmware images. */
function link(dir: string, suite: Suite, files: readonly ManifestFile[]): void {
  for (const { role, path } of files) {
    if (role !== "firmware" && role !== "kernel") continue;
    const name = join(dir, suite, role === "kernel" ? "vmlinuz" : basename(path));
    rmSync(name, { force: true });
    symlinkSync(relative(suite, path), name);
  }
}

const entry = (dir: string, role: ManifestFile["role"], path: string): ManifestFile => ({
  role,
  path: relative(dir, path),
  size: statSync(path).size,
  sha256: sha256(path),
});

const sha256 = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");

/** Plain files below a directory, sorted. */
function list(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) => {
      const path = join(directory, entry.name);
      return entry.isDirectory() ? list(path) : entry.isFile() ? [path] : [];
    });
}
