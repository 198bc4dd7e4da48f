import { join } from "node:path";
import { type Command, Option } from "commander";
import type { RateSettingsInput } from "../distill/rate/options";
import { feedbackPrompts, type TurnChoice, turnChoices } from "../distill/rate/prompts";
import { rateResponses } from "../distill/rate/rate";
import type { RateReport } from "../distill/rate/report";
import { writeFeedback } from "../distill/rate/write";
import { journalName } from "../distill/rows-folder";
import { packageVersion } from "../native/load";
import { figure, whole } from "../report/format";
import { numberBetween, wholeNumber } from "./arguments";
import { addPairFlags, makePairs, type PairFlags, pairsText } from "./binarise";
import {
  addChatModelFlags,
  addPaidFlags,
  type OpenChatModels,
  onlyModel,
  openChatModels,
  type PaidFlags,
  spending,
} from "./chat-model-flags";
import { usageProblem } from "./config-options";
import { countProgress } from "./count-progress";
import { interruptible } from "./interrupt";
import { peakMemory, writeJsonFile } from "./json-file";
import { openRows, rowsInputHelp } from "./rows-input";
import { styleOf } from "./style";
import { table } from "./train";

interface RateFlags extends PairFlags, PaidFlags, Omit<RateSettingsInput, "seed" | "concurrency"> {
  prompts: string;
  pool?: string[];
  rater?: string[];
  out: string;
  split?: string;
  limit?: number;
  turns?: TurnChoice;
  source?: string;
  rawOnly?: boolean;
  overwrite?: boolean;
  quiet?: boolean;
  json?: string;
}

/** `zephyr-align rate`: answers of a pool, rated, and the pairs they give. */
export function addRate(program: Command): void {
  const command = program
    .command("rate")
    .helpGroup("Make data:")
    .description("Answer prompts with several models and rate the answers (UltraFeedback's way); then make pairs.")
    .requiredOption(
      "--prompts <source>",
      `Rows with prompts: conversations, {prompt}, or {instruction}; train_gen.jsonl of distil. ${rowsInputHelp}.`,
    )
    .option("--split <name>", "The split of --prompts, where there are several.")
    .requiredOption("--out <folder>", "Folder of the rows; one of the same options is gone on with.")
    .option("--limit <n>", "Take the first rows only.", wholeNumber(1))
    .option("--seed <n>", "Seed of all choices. (default: 42)", wholeNumber(0))
    .option("--raw-only", "Make no pairs.")
    .option("--overwrite", "Replace the rows in --out.")
    .option("--json <file>", "Write the reports.")
    .option("--quiet", "No progress, no table.")
    .optionsGroup("Models:");
  addChatModelFlags(command, "pool", "Models that answer (offline:careless, … are flawed)", true);
  addChatModelFlags(command, "rater", "Rates");
  command
    .optionsGroup("Answers:")
    .addOption(
      new Option("--turns <which>", "Which user turns of a conversation are prompts. (default: last)").choices(
        turnChoices,
      ),
    )
    .option(
      "--answers <n>",
      "Answers to each prompt; a smaller pool answers several times. (default: 4)",
      wholeNumber(2),
    )
    .option("--no-principles", "Ask without a drawn principle as system message.")
    .option("--source <name>", "Source of rows without the column; decides the mix of principles.")
    .option("--max-tokens <n>", "Longest answer. (default: 1024)", wholeNumber(1))
    .option("--temperature <x>", "Of the answers. (default: 1)", numberBetween(0, 2))
    .optionsGroup("Ratings:")
    .addOption(
      new Option(
        "--ratings <together|each>",
        "All aspects in one call, or each in its own. (default: together)",
      ).choices(["together", "each"]),
    )
    .option("--no-critique", "No critiques: there is no overall score then.")
    .option("--reasks <n>", "Times to ask again for what cannot be read. (default: 1)", wholeNumber(0));
  addPaidFlags(command);
  addPairFlags(command)
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align rate --prompts chats/train_gen.jsonl --pool offline offline:careless offline:poor --rater offline --out rated
  $ zephyr-align rate --prompts prompts.jsonl --pool gpt-4o-mini mistral --rater gpt-4o --preset argilla-clean --out rated

Writes raw.jsonl (raw UltraFeedback's layout), failures.jsonl and report.json, then the pairs: train_prefs, test_prefs, …
The same command goes on after a stop and asks again for what failed.`,
    )
    .action((flags: RateFlags) => interruptible((signal) => rate(flags, signal)));
}

async function rate(flags: RateFlags, signal: AbortSignal): Promise<void> {
  const { out, quiet = false } = flags;
  const asked = await openChatModels({ ...flags }, ["pool", "rater"], {
    journal: join(out, journalName),
    signal,
    quiet,
  });
  try {
    await rateAndPair(flags, asked, signal);
    if (!quiet) process.stdout.write(await asked.summary());
  } finally {
    await asked.close();
  }
}

async function rateAndPair(
  flags: RateFlags,
  asked: OpenChatModels<"pool" | "rater">,
  signal: AbortSignal,
): Promise<void> {
  const started = performance.now();
  const { prompts, out, split, limit, turns = "last", source, quiet } = flags;
  const rater = onlyModel(asked.models.rater, "rater");
  const { pool } = asked.models;
  if (pool.length === 0) throw usageProblem("--pool", "no model is given", "Give the models that answer.");
  const rows = openRows(prompts, { split, limit, signal, quiet });
  const { answers, principles, maxTokens, temperature, ratings, critique, reasks, seed } = flags;
  const settings: RateSettingsInput = {
    ...{ answers, principles, maxTokens, temperature, ratings, critique, reasks, seed },
    concurrency: asked.concurrency,
  };
  // With all turns there are more prompts than rows.
  const total = quiet || turns === "all" ? undefined : await rows.length();
  const progress = quiet ? () => {} : countProgress("rate", total);
  const work = {
    ...settings,
    prompts: feedbackPrompts(rows, { turns, ...(source === undefined ? {} : { source }) }),
    pool,
    rater,
    signal,
  };
  const names = { pool: pool.map(({ name }) => name), rater: rater.name };
  const { report, pairs } = asked.dryRun ? await ratedInVain() : await ratedAndPaired();
  await writeJsonFile(flags.json, {
    prompts,
    ...names,
    out,
    settings,
    rating: report,
    ...(pairs ? { binarising: pairs.settings, pairs: pairs.report } : {}),
    ...(await spending(asked)),
    seconds: (performance.now() - started) / 1000,
    peak_rss_mib: peakMemory(),
    versions: { "zephyr-align": packageVersion(), node: process.versions.node },
  });
  if (pairs && !quiet) process.stdout.write(pairsText(pairs, out));

  async function ratedInVain() {
    const rating = rateResponses(work);
    for await (const _ of rating);
    return { report: rating.report, pairs: undefined };
  }

  async function ratedAndPaired() {
    const report = await writeFeedback(work, out, {
      overwrite: flags.overwrite,
      inputs: { prompts, ...names, turns, source: source ?? null },
      onPrompt: (_, { rated, failed, before, duplicates, calls }) =>
        progress(rated + failed + before + duplicates, `${whole(calls.made)} calls, ${whole(failed)} failed`),
    });
    if (!quiet) process.stdout.write(rateText(report, out));
    const pairs = flags.rawOnly ? undefined : await makePairs(join(out, "raw.jsonl"), out, flags, { signal, quiet });
    return { report, pairs };
  }
}

function rateText(report: RateReport, out: string): string {
  const { bold, dim, cyan, yellow } = styleOf(process.stdout);
  const scores = ({ answers, fineGrained, overall, overallScores }: RateReport["models"][string]) =>
    `mean rating ${figure(fineGrained)} of 5${overallScores > 0 ? `, overall ${figure(overall)} of 10` : ""}  ${dim(`n = ${whole(answers)}`)}`;
  const models = Object.entries(report.models)
    .sort(([, a], [, b]) => b.fineGrained - a.fineGrained)
    .map(([name, each]): [string, string] => [name, scores(each)]);
  const places = report.byPlace.map(({ mean }) => figure(mean)).join(", ");
  const failures = Object.entries(report.failures).filter(([, count]) => count > 0);
  const notes = [
    ...(report.before > 0 ? [`${whole(report.before)} were rated before.`] : []),
    ...(report.duplicates > 0 ? [`${whole(report.duplicates)} prompts occur twice and were rated once.`] : []),
    ...(places ? [dim(`Mean rating by the place shown, first to last: ${places}.`)] : []),
    ...(failures.length > 0
      ? [
          yellow(
            `failed: ${failures.map(([stage, count]) => `${stage} ${whole(count)}`).join(", ")}; ${whole(report.failed)} prompts have no row (failures.jsonl). The same command asks again.`,
          ),
        ]
      : []),
  ];
  return [
    `\n${bold(`${whole(report.rated + report.before)} prompts rated`)} in ${cyan(out)}\n`,
    models.length > 0 ? table(models, dim) : "",
    ...notes.map((note) => `  ${note}\n`),
  ].join("");
}
