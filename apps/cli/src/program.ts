/** The command line as commander has it. A command's code is loaded when the command runs. */
import { Command, InvalidArgumentError, Option } from "commander";
import { UsageError } from "./errors.js";
import { addBootOptions, type BootFlags } from "./options.js";

/** The state directory, which may stand before or after the command's name. */
interface Global {
  state?: string;
}

/** @param done gets the exit code of a command that ends with another than 0. */
export function buildProgram(done: (code: number) => void): Command {
  const program = new Command("swtdx")
    .description("Intel TDX in software: boot and measure Trust Domains, make and verify their quotes")
    .version("0.0.0")
    .option("--state <dir>", "where the installation's private root is kept (default: $XDG_DATA_HOME/swtdx)")
    .showSuggestionAfterError(true)
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ writeErr: () => undefined });

  const state = (): Global => program.opts<Global>();

  addBootOptions(
    program.command("boot").description("build a machine, launch a TD, run it to its end"),
    "run",
  ).action(async (flags: BootFlags) => {
    const { boot } = await import("./commands/boot.js");
    done(await boot(flags, state()));
  });

  addBootOptions(
    program.command("measure").description("MRTD, RTMR[0..3] and the event log of a TD"),
    "measure",
  )
    .option("--static", "MRTD alone, from the firmware image, without running it")
    .action(async (flags: BootFlags & { static?: boolean }) => {
      const { measure } = await import("./commands/measure.js");
      done(await measure(flags, state()));
    });

  const quote = program.command("quote").description("quotes: decode, verify");
  quote
    .command("show <file>")
    .description("a quote, decoded field by field (v4, v5), with its certificate chain")
    .option("--json", "print JSON")
    .action(async (file: string, options: { json?: boolean }) => {
      const { quoteShow } = await import("./commands/quote.js");
      await quoteShow(file, options);
    });
  quote
    .command("verify <file>")
    .description("verify a quote, with every check and with dcap-qvl")
    .option("--root <pem>", "the trusted root certificate (default: this installation's)")
    .option("--collateral <file|url>", "collateral, JSON (default: this installation's, current)")
    .option("--json", "print JSON")
    .action(async (file: string, options: { root?: string; collateral?: string; json?: boolean }) => {
      const { quoteVerify } = await import("./commands/quote.js");
      done(await quoteVerify(file, { ...options, ...state() }));
    });

  const eventlog = program.command("eventlog").description("CCEL event logs: show, replay");
  eventlog
    .command("show <file>")
    .description("the events of a log")
    .option("--json", "print JSON")
    .action(async (file: string, options: { json?: boolean }) => {
      const { eventLogShow } = await import("./commands/eventlog.js");
      await eventLogShow(file, options);
    });
  eventlog
    .command("replay <file>")
    .description("the RTMRs that follow from a log")
    .option("--json", "print JSON")
    .action(async (file: string, options: { json?: boolean }) => {
      const { eventLogReplay } = await import("./commands/eventlog.js");
      await eventLogReplay(file, options);
    });

  program
    .command("images [dir]")
    .description("fetch firmware, kernels, shim, GRUB from Debian's archive; make an initial RAM disk")
    .option("--suite <name...>", "only these suites: bookworm, trixie, sid")
    .option("--mirror <url>", "Debian's archive", "http://deb.debian.org/debian")
    .option("--json", "print the manifest as JSON")
    .option("--quiet", "no progress")
    .action(
      async (dir: string | undefined, options: { suite?: string[]; mirror: string; json?: boolean }) => {
        const { images } = await import("./commands/images.js");
        images(dir ?? "images", options);
      },
    );

  program
    .command("host")
    .description("power on a host, load the TDX module, print its sysfs tree")
    .addOption(new Option("--seed <hex>", "seed of the platform's randomness").argParser(hexArgument))
    .option("--json", "print JSON")
    .option("--quiet", "no progress")
    .action(async (options: { seed?: string; json?: boolean; quiet?: boolean }) => {
      const { showHost } = await import("./commands/host.js");
      showHost(options);
    });

  const trace = program.command("trace").description("recorded traces");
  trace
    .command("show <file>")
    .description("a recorded trace, filtered and coloured")
    .option("--type <types>", "only these events, such as SEAMCALL,MEASURE")
    .option("--lp <number>", "only this logical processor or vCPU")
    .option("--grep <text>", "only events whose line contains this text")
    .action(async (file: string, options: { type?: string; lp?: string; grep?: string }) => {
      const { traceShow } = await import("./commands/trace.js");
      await traceShow(file, options);
    });

  program
    .command("doctor")
    .description("what this machine offers: Node, wasm features, apt, gdb, chromium")
    .option("--json", "print JSON")
    .action(async (options: { json?: boolean }) => {
      const { doctor } = await import("./commands/doctor.js");
      done(doctor(options));
    });

  for (const command of everyCommand(program)) strict(command);
  return program;
}

const everyCommand = (command: Command): Command[] => [command, ...command.commands.flatMap(everyCommand)];

/** Errors are thrown, not printed, and help for a command without its subcommand goes to stderr as an error. */
function strict(command: Command): void {
  command
    .exitOverride((error) => {
      throw error;
    })
    .configureOutput({ writeErr: () => undefined });
  if (command.commands.length > 0)
    command.allowExcessArguments(true).action(() => {
      const names = command.commands.map((one) => one.name()).join(", ");
      const where = command.parent ? `${command.name()}: ` : "";
      const [given] = command.args;
      throw new UsageError(
        given === undefined
          ? `${where}expected a command: ${names}`
          : `${where}unknown command "${given}"; there are ${names}`,
      );
    });
}

export function hexArgument(text: string): string {
  if (!/^([0-9a-f]{2})+$/i.test(text)) throw new InvalidArgumentError("expected bytes in hexadecimal");
  return text.toLowerCase();
}
