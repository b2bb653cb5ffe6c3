/** Files of this package that are not TypeScript. Sources in `src/` and chunks in `dist/` lie at the same depth. */
import { readFileSync } from "node:fs";

/** /init of the initial RAM disks that `swtdx images` makes. */
export const initScript = (): Uint8Array => readFileSync(new URL("../initrd/init", import.meta.url));
