import { type Command, Option } from "commander";
import { type Binarisation, binarise, pairDropReasons } from "../distill/binarise/binarise";
import { type BinarisePreset, type BinariseSettingsInput, binarisePresets } from "../distill/binarise/options";
import { writePairs } from "../distill/binarise/write";
import { throwIfAborted } from "../errors";
import { packageVersion } from "../native/load";
import { figure, percent, whole } from "../report/format";
import { numberBetween, wholeNumber } from "./arguments";
import { countProgress } from "./count-progress";
import { overlapFilter } from "./distil";
import { interruptible } from "./interrupt";
import { peakMemory, writeJsonFile } from "./json-file";
import { openRows, rowsInputHelp } from "./rows-input";
import { styleOf } from "./style";
import { table } from "./train";

/** Flags of how pairs are made. */
export interface PairFlags {
  preset?: BinarisePreset;
  score?: "overall" | "mean";
  rejected?: "lowest" | "random";
  ties?: "drop" | "keep";
  minMargin?: number;
  testShare?: number;
  excludeSource?: string[];
  tens?: "repair" | "keep";
  keepOut?: string[];
  keepOutNgram?: number;
  seed?: number;
}

/** Adds the flags of how pairs are made; `rate` has them too. */
export function addPairFlags(command: Command): Command {
  return command
    .optionsGroup("Pairs:")
    .addOption(
      new Option("--preset <name>", "Published way to start from; flags win. (default: paper)").choices(
        Object.keys(binarisePresets),
      ),
    )
    .addOption(
      new Option("--score <what>", "Compare answers by this score. (default: mean)").choices(["overall", "mean"]),
    )
    .addOption(
      new Option("--rejected <which>", "Which other answer is rejected. (default: random)").choices([
        "lowest",
        "random",
      ]),
    )
    .addOption(new Option("--ties <drop|keep>", "Pairs of equal scores. (default: drop)").choices(["drop", "keep"]))
    .option("--min-margin <x>", "Least difference of the scores. (default: 0)", numberBetween(0, 9))
    .option("--test-share <x>", "Share for the test splits. (default: 0.03)", numberBetween(0, 1))
    .option("--exclude-source <name...>", "Drop rows of these sources.")
    .option("--keep-out <file...>", "Drop prompts that overlap with these texts: rows, CSV or .txt; file#column.")
    .option(
      "--keep-out-ngram <n>",
      "Words in a row that are an overlap; 0: whole prompts only. (default: 10)",
      wholeNumber(0),
    )
    .addOption(
      new Option(
        "--tens <repair|keep>",
        "Overall scores of 10 that were 1, in raw UltraFeedback. (default: repair)",
      ).choices(["repair", "keep"]),
    );
}

/** Makes pairs of a file of rated answers, and says what came of it. */
export async function makePairs(
  data: string,
  out: string,
  flags: PairFlags,
  run: {
    signal: AbortSignal;
    quiet?: boolean | undefined;
    split?: string | undefined;
    limit?: number | undefined;
    onBadRow?: "error" | "skip" | undefined;
  },
): Promise<Binarisation> {
  const { keepOut, keepOutNgram, excludeSource, preset, score, rejected, ties, minMargin, testShare, tens, seed } =
    flags;
  const settings: BinariseSettingsInput = {
    preset,
    score,
    rejected,
    ties,
    minMargin,
    testShare,
    tens,
    seed,
    excludeSources: excludeSource,
  };
  const pairs = binarise(openRows(data, run), {
    ...settings,
    onBadRow: run.onBadRow,
    overlap: keepOut && (await overlapFilter(keepOut, keepOutNgram)),
  });
  const progress = run.quiet ? () => {} : countProgress("pairs", undefined);
  await writePairs(pairs, out, () => {
    throwIfAborted(run.signal);
    progress(pairs.report.pairs);
  });
  return pairs;
}

interface BinariseFlags extends PairFlags {
  data: string;
  out: string;
  split?: string;
  limit?: number;
  onBadRow?: "error" | "skip";
  quiet?: boolean;
  json?: string;
}

/** `zephyr-align binarise`: preference pairs of rated answers. */
export function addBinarise(program: Command): void {
  const command = program
    .command("binarise")
    .alias("binarize")
    .helpGroup("Make data:")
    .description("Make preference pairs of rated answers, in ultrafeedback_binarized's layout.")
    .requiredOption(
      "--data <source>",
      `Rows of raw UltraFeedback {instruction, completions}, for example raw.jsonl of rate: ${rowsInputHelp}.`,
    )
    .option("--split <name>", "The split of --data, where it has several.")
    .requiredOption("--out <folder>", "Folder of the pairs; files of an earlier run are replaced.")
    .option("--limit <n>", "Read the first rows only.", wholeNumber(1))
    .option("--seed <n>", "Seed of all choices. (default: 42)", wholeNumber(0))
    .addOption(
      new Option("--on-bad-row <error|skip>", "Rows that cannot be read. (default: error)").choices(["error", "skip"]),
    )
    .option("--json <file>", "Write the report.")
    .option("--quiet", "No progress, no table.");
  addPairFlags(command)
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align binarise --data rated/raw.jsonl --preset argilla-clean --out pairs
  $ zephyr-align binarise --data rated/raw.jsonl --score overall --rejected lowest --min-margin 2 --out pairs
  $ zephyr-align binarise --data ultrafeedback.jsonl --preset h4-current --keep-out TruthfulQA.csv --out pairs`,
    )
    .action((flags: BinariseFlags) => interruptible((signal) => binariseFile(flags, signal)));
}

async function binariseFile(flags: BinariseFlags, signal: AbortSignal): Promise<void> {
  const started = performance.now();
  const { data, out, split, limit, onBadRow, quiet, json } = flags;
  const pairs = await makePairs(data, out, flags, { signal, quiet, split, limit, onBadRow });
  const { settings, report } = pairs;
  await writeJsonFile(json, {
    data,
    out,
    settings,
    report,
    seconds: (performance.now() - started) / 1000,
    peak_rss_mib: peakMemory(),
    versions: { "zephyr-align": packageVersion(), node: process.versions.node },
  });
  if (!quiet) process.stdout.write(pairsText(pairs, out));
}

/** What came of a binarisation, for people. */
export function pairsText({ report, settings }: Binarisation, out: string): string {
  const { bold, dim, cyan } = styleOf(process.stdout);
  const { pairs, rows, splits, scores, longerChosen, tens } = report;
  const facts: [string, string][] = [
    [
      "scores",
      `chosen ${figure(scores.chosen)}, rejected ${figure(scores.rejected)} (means, ${settings.score === "mean" ? "1–5" : "1–10"})`,
    ],
    ["chosen is longer", percent(longerChosen)],
    ["splits", `train ${whole(splits.train)}, test ${whole(splits.test)}`],
  ];
  if (tens.repaired + tens.dropped + tens.kept > 0) {
    facts.push([
      "doubtful tens",
      `${whole(tens.repaired)} made 1, ${whole(tens.dropped)} left out, ${whole(tens.kept)} kept`,
    ]);
  }
  const dropped = Object.entries(report.dropped).map(([reason, { count }]): [string, string] => [
    reason,
    `${whole(count)}  ${dim(pairDropReasons[reason as keyof typeof pairDropReasons])}`,
  ]);
  return [
    `\n${bold(`${whole(pairs)} pairs`)} of ${whole(rows)} rated prompts in ${cyan(out)}\n`,
    pairs > 0 ? table(facts, dim) : "",
    dropped.length > 0 ? `dropped:\n${table(dropped, dim)}` : "",
    pairs > 0 ? dim(`  next: zephyr-align dpo --model DIR --data ${out}/train_prefs.jsonl\n`) : "",
  ].join("");
}
