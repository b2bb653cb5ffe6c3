/** The `swtdx` command's entry. */
import { EXIT } from "./errors.js";
import { run } from "./run.js";

// A reader that has seen enough (`swtdx … | head`) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(EXIT.POWEROFF);
  throw error;
});

process.exitCode = await run(process.argv.slice(2));
