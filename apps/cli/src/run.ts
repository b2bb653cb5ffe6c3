/** One run of the command: arguments in, exit code out. What is wrong is said in one line on stderr. */
import { CommanderError } from "commander";
import { EXIT, isInputError, oneLine } from "./errors.js";
import { buildProgram } from "./program.js";

const say = (text: string): void => void process.stderr.write(`swtdx: ${oneLine(text)}\n`);

function fail(error: unknown): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return EXIT.POWEROFF;
    say(error.message.replace(/^error: /, ""));
    return EXIT.BAD_INPUT;
  }
  if (isInputError(error)) {
    say(error.message);
    return EXIT.BAD_INPUT;
  }
  say(`a bug of ours: ${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}`);
  if (process.env["SWTDX_DEBUG"]) process.stderr.write(`${(error as Error).stack ?? ""}\n`);
  else say("SWTDX_DEBUG=1 shows where it happened");
  return EXIT.OUR_BUG;
}

/** Runs the command line without the program's name. Never throws. */
export async function run(args: readonly string[]): Promise<number> {
  try {
    let code: number = EXIT.POWEROFF;
    await buildProgram((result) => (code = result)).parseAsync(args, { from: "user" });
    return code;
  } catch (error) {
    return fail(error);
  }
}
