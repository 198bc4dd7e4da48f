import { CommanderError } from "commander";
import {
  AbortedError,
  ConfigError,
  DataError,
  DeviceError,
  fromNative,
  HubError,
  JudgeError,
  ModelError,
  placeText,
  TemplateError,
  TokenizerError,
  type ZephyrError,
} from "../errors";
import { flagOf, inFlags } from "./flag-names";
import { styleOf } from "./style";

/**
 * Exit codes, for whoever starts the program again: 75 and 76 may be tried again (a run with --resume), 77 never helps,
 * 78 needs money (sysexits' EX_TEMPFAIL is 75; the others are those of job schedulers' retry rules, docs/runs.md).
 */
export const exitCodes = { done: 0, other: 1, stopped: 75, transient: 76, refused: 77, budget: 78 } as const;

/** Errors of the options, the data and the model's files: the same start fails the same way. */
const refusals = [ConfigError, DataError, DeviceError, HubError, JudgeError, ModelError, TokenizerError, TemplateError];
const refusalCodes = [
  "ZA_FOLDER_NOT_EMPTY",
  "ZA_CHECKPOINT_BROKEN",
  "ZA_CLIENT_KEY",
  "ZA_CLIENT_REFUSED",
  "ZA_CLIENT_CONTEXT",
  "ZA_CLIENT_PRICE",
  "ZA_CLIENT_CAPABILITY",
  "ZA_JOURNAL_FOREIGN",
  "ZA_JOURNAL_DAMAGED",
  "ZA_JOURNAL_VERSION",
];

/** A cap is reached, or the account is empty: with a higher cap or more credit the same command goes on. */
const budgetCodes = ["ZA_CLIENT_CAP", "ZA_CLIENT_QUOTA"];

/**
 * Servers come back, a process that holds a folder or a journal ends (often the same run, not yet gone when it is started
 * again), and runs go on where they stopped: training, judging, runs with a journal.
 */
const transientCodes = [
  "ZA_TRAIN_STALLED",
  "ZA_FOLDER_LOCKED",
  "ZA_JOURNAL_LOCKED",
  "ZA_JUDGE_INCOMPLETE",
  "ZA_PULL",
  "ZA_HUB_NETWORK",
  "ZA_HUB_DIGEST",
  "ZA_CLIENT_UNREACHABLE",
  "ZA_CLIENT_BUSY",
  "ZA_CLIENT_GAVE_UP",
];

function exitCodeOf(error: ZephyrError): number {
  if (error instanceof AbortedError) return exitCodes.stopped;
  if (transientCodes.includes(error.code)) return exitCodes.transient;
  if (budgetCodes.includes(error.code)) return exitCodes.budget;
  if (refusalCodes.includes(error.code) || refusals.some((kind) => error instanceof kind)) return exitCodes.refused;
  return exitCodes.other;
}

/**
 * Prints an error as a person reads it (place, problem, remedy, code) and tells the exit code.
 *
 * @param debug print the stack as well
 */
export function reportError(thrown: unknown, debug: boolean): number {
  // commander has printed its own message; help and version are no errors.
  if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? exitCodes.done : exitCodes.refused;
  const error = fromNative(thrown);
  const { red, bold, dim } = styleOf(process.stderr);
  const lines: string[] = [];
  if (error instanceof AbortedError) lines.push("stopped");
  else if (error instanceof ConfigError && error.problems.length > 0) {
    lines.push(`${red(bold("error"))} ${dim(error.code)} the options cannot be used:`);
    for (const { field, problem, remedy } of error.problems) {
      lines.push(`  ${bold(flagOf(field) ?? field)}: ${inFlags(problem)}. ${inFlags(remedy)}`);
    }
  } else {
    const place = placeText(error.place);
    lines.push(`${red(bold("error"))} ${dim(error.code)}${place ? ` ${bold(place)}` : ""}`);
    lines.push(`  ${inFlags(error.problem)}`);
    if (error.remedy) lines.push(`  ${dim("→")} ${inFlags(error.remedy)}`);
  }
  if (debug) lines.push(dim(stacks(error)));
  process.stderr.write(`${lines.join("\n")}\n`);
  return exitCodeOf(error);
}

function stacks(error: Error): string {
  const cause = error.cause instanceof Error ? `\ncaused by ${stacks(error.cause)}` : "";
  return `${error.stack ?? error.message}${cause}`;
}
