#!/usr/bin/env node
import { buildProgram } from "./program";
import { exitCodes, reportError } from "./report-error";

/** Commands whose result is what they print, unless they write it to a file as well. */
const printing = ["chat", "doctor", "journal", "mask"];

const program = buildProgram();
let printsOnly = false;
program.hook("preAction", (_, command) => {
  printsOnly = printing.includes(command.name()) && command.opts().json === undefined;
});

// A reader that leaves (| head) ends quietly what only prints. What trains, serves or writes files goes on to its own end.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  const left = error.code === "EPIPE";
  if (printsOnly) process.exit(left ? exitCodes.done : exitCodes.other);
  if (!left) process.exitCode ||= exitCodes.other;
});

// Progress that nobody reads any more must not end what is being trained or served.
process.stderr.on("error", () => {});

// Nothing is left to do: a signal that came while Node takes itself down, models and all, would make of success a failure.
process.on("beforeExit", () => process.exit());

try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = reportError(error, program.opts().debug === true);
  // A step that hangs would keep the process.
  if (process.exitCode === exitCodes.transient) process.exit();
}
