/** The `swtdx` command's entry: parses the command line and runs it. */

process.stderr.write("swtdx: this build has no commands\n");
process.exitCode = 2;
