/** @swtdx/cli: the swtdx command. `run` is the command as a function: arguments in, exit code out. */
export { run } from "./run.js";
