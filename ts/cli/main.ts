#!/usr/bin/env node
import { buildProgram } from "./program";
import { exitCodes, reportError } from "./report-error";

// A reader that leaves (| head) ends the program quietly; but what is written to a file is written.
const writesFile = process.argv.some((each) => /^--json(=|$)/.test(each));
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE" && writesFile) return;
  process.exit(error.code === "EPIPE" ? 0 : 1);
});

// Progress that nobody reads any more must not end what is being trained or served.
process.stderr.on("error", () => {});

// Nothing is left to do: a signal that came while Node takes itself down, models and all, would make of success a failure.
process.on("beforeExit", () => process.exit());

const program = buildProgram();
try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = reportError(error, program.opts().debug === true);
  // A step that hangs would keep the process.
  if (process.exitCode === exitCodes.transient) process.exit();
}
