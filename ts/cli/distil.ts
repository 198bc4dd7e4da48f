import { join } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { OverlapFilter, overlapTexts } from "../distill/binarise/overlap";
import { dropReasons } from "../distill/generate/filters";
import { type Generation, generateConversations } from "../distill/generate/generate";
import type { GenerateSettingsInput } from "../distill/generate/options";
import { passagesOf } from "../distill/generate/passages";
import { type Sector, sectorNames } from "../distill/generate/sectors";
import { writeConversations } from "../distill/generate/write";
import { journalName } from "../distill/rows-folder";
import { packageVersion } from "../native/load";
import { figure, percent, whole } from "../report/format";
import { numberBetween, wholeNumber } from "./arguments";
import {
  addChatModelFlags,
  addPaidFlags,
  type OpenChatModels,
  onlyModel,
  openChatModels,
  type PaidFlags,
  spending,
} from "./chat-model-flags";
import { countProgress } from "./count-progress";
import { interruptible } from "./interrupt";
import { peakMemory, writeJsonFile } from "./json-file";
import { styleOf } from "./style";
import { table } from "./train";

interface DistilFlags extends PaidFlags, Omit<GenerateSettingsInput, "conversations" | "sectors" | "concurrency"> {
  out: string;
  teacher?: string[];
  user?: string[];
  limit: number;
  sectors?: Partial<Record<Sector, number>>;
  rounds?: [number, number];
  passages?: string;
  keepOut?: string[];
  overwrite?: boolean;
  quiet?: boolean;
  json?: string;
}

/** `zephyr-align distil`: conversations as UltraChat has them. */
export function addDistil(program: Command): void {
  const command = program
    .command("distil")
    .alias("distill")
    .helpGroup("Make data:")
    .description("Let a teacher make conversations (UltraChat's way), in ultrachat_200k's layout.")
    .requiredOption("--out <folder>", "Folder of the rows; one of the same options is gone on with.")
    .option("--limit <n>", "Conversations to make.", wholeNumber(1), 100)
    .option("--seed <n>", "Seed of all choices. (default: 42)", wholeNumber(0))
    .option("--overwrite", "Replace the rows in --out.")
    .option("--json <file>", "Write the report.")
    .option("--quiet", "No progress, no table.")
    .optionsGroup("Models:");
  addChatModelFlags(command, "teacher", "Plays the assistant and plans");
  addChatModelFlags(command, "user", "Plays the user (default: the teacher)");
  command
    .optionsGroup("Content:")
    .option("--sectors <list>", "Weights, for example world=2,writing=1,material=0. (default: 2, 1, 1)", weights)
    .option("--rounds <n|n-m>", "Rounds of all conversations. (default: world 3-7, others 2-4)", range)
    .option("--topics <n>", "Topics of each sector. (default: 30)", wholeNumber(1))
    .option("--subtopics <n>", "Subtopics of each topic. (default: 30)", wholeNumber(1))
    .option("--passages <file>", "Given texts for the material sector: rows, or a .txt file. (default: the teacher's)")
    .option("--max-tokens <n>", "Longest answer. (default: 1024)", wholeNumber(1))
    .option("--temperature <x>", "Of the answers. (default: 0.7)", numberBetween(0, 2))
    .option("--user-temperature <x>", "Of plan and user. (default: 1)", numberBetween(0, 2))
    .optionsGroup("Filters:")
    .option(
      "--near-duplicates <x>",
      "Similarity that is too near; 1: exact ones only. (default: 0.7)",
      numberBetween(0.3, 1),
    )
    .option("--keep-out <file...>", "Drop openings that overlap with these texts: rows, CSV or .txt; file#column.")
    .option("--min-answer-words <n>", "Words of a conversation's longest answer. (default: 5)", wholeNumber(0))
    .option("--no-truecase", "Leave sentences that begin with a small letter.")
    .option("--test-share <x>", "Share for the test splits. (default: 0.1)", numberBetween(0, 1));
  addPaidFlags(command)
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align distil --teacher offline --limit 200 --rounds 2 --no-truecase --min-answer-words 1 --out chats
  $ zephyr-align distil --teacher gpt-4o-mini --limit 10000 --passages corpus.jsonl --out chats

Writes train_sft, test_sft, train_gen, test_gen and origins (.jsonl), and report.json. The filters: docs/distil.md.`,
    )
    .action((flags: DistilFlags) => interruptible((signal) => distil(flags, signal)));
}

async function distil(flags: DistilFlags, signal: AbortSignal): Promise<void> {
  const { out, keepOut, quiet = false } = flags;
  const filter = keepOut && (await overlapFilter(keepOut));
  const asked = await openChatModels({ ...flags }, ["teacher", "user"], {
    journal: join(out, journalName),
    signal,
    quiet,
  });
  try {
    await generate(flags, asked, filter, signal);
    if (!quiet) process.stdout.write(await asked.summary());
  } finally {
    await asked.close();
  }
}

async function generate(
  flags: DistilFlags,
  asked: OpenChatModels<"teacher" | "user">,
  filter: OverlapFilter | undefined,
  signal: AbortSignal,
): Promise<void> {
  const started = performance.now();
  const { out, limit, sectors, rounds, passages, keepOut, overwrite, quiet, json } = flags;
  const { seed, topics, subtopics, maxTokens, temperature, userTemperature } = flags;
  const { nearDuplicates, minAnswerWords, truecase, testShare } = flags;
  const teacher = onlyModel(asked.models.teacher, "teacher");
  const user = flags.user ? onlyModel(asked.models.user, "user") : teacher;
  const generation = generateConversations({
    ...{ seed, topics, subtopics, maxTokens, temperature, userTemperature },
    ...{ nearDuplicates, minAnswerWords, truecase, testShare },
    concurrency: asked.concurrency,
    conversations: limit,
    sectors: sectorSettings(sectors, rounds),
    teacher,
    user,
    ...(passages === undefined ? {} : { passages: passagesOf(passages) }),
    ...(filter ? { keepOut: (text: string) => filter.find(text)?.name } : {}),
    signal,
  });
  const { report } = generation;
  const progress = quiet ? () => {} : countProgress("distil", limit);
  const onConversation = () =>
    progress(report.conversations, `${whole(report.calls.made)} calls, ${whole(droppedOf(generation))} dropped`);
  const names = { teacher: teacher.name, user: user.name };
  if (asked.dryRun) for await (const _ of generation) onConversation();
  else {
    const inputs = { ...names, passages: passages ?? null, keepOut: keepOut ?? [] };
    await writeConversations(generation, out, { overwrite, inputs, onConversation });
  }
  await writeJsonFile(json, {
    out,
    ...names,
    settings: generation.settings,
    report,
    ...(await spending(asked)),
    seconds: (performance.now() - started) / 1000,
    peak_rss_mib: peakMemory(),
    versions: { "zephyr-align": packageVersion(), node: process.versions.node },
  });
  if (!quiet && !asked.dryRun) process.stdout.write(distilText(generation, out));
}

/** The filter of the texts in files. */
export async function overlapFilter(files: readonly string[], n?: number): Promise<OverlapFilter> {
  const filter = new OverlapFilter(n);
  for (const file of files) {
    const { name, texts } = await overlapTexts(file);
    for (const text of texts) filter.add(name, text);
  }
  return filter;
}

function sectorSettings(chosen: Partial<Record<Sector, number>> | undefined, rounds: [number, number] | undefined) {
  const entries = sectorNames.map((name) => {
    const weight = chosen && { weight: chosen[name] ?? 0 };
    return [name, { ...weight, ...(rounds && { rounds }) }] as const;
  });
  return Object.fromEntries(entries);
}

function droppedOf({ report }: Generation): number {
  return Object.values(report.dropped).reduce((sum, { count }) => sum + count, 0);
}

function distilText(generation: Generation, out: string): string {
  const { bold, dim, cyan, yellow } = styleOf(process.stdout);
  const { report, settings } = generation;
  const { sectors, rounds, words, splits, changed } = report;
  const rows: [string, string][] = [
    ["sectors", sectorNames.map((name) => `${name} ${whole(sectors[name])}`).join(", ")],
    ["rounds", `${rounds.least}–${rounds.most}, mean ${figure(rounds.mean)}`],
    ["words", `user ${figure(words.user)}, answer ${figure(words.assistant)} (means)`],
    ["splits", `train ${whole(splits.train)}, test ${whole(splits.test)}`],
    ["calls", `${whole(report.calls.made)}, ${whole(report.calls.journalled)} of them from the journal`],
  ];
  const dropped = Object.entries(report.dropped).map(([reason, { count }]): [string, string] => [
    reason,
    `${whole(count)}  ${dim(dropReasons[reason as keyof typeof dropReasons])}`,
  ]);
  const notes = [
    ...(changed.truecased > 0 ? [`${whole(changed.truecased)} conversations were mended in case.`] : []),
    ...(changed.shortened > 0 ? [`${whole(changed.shortened)} end before an answer that was cut.`] : []),
    ...(changed.passagesCut > 0
      ? [`${whole(changed.passagesCut)} given texts were cut to ${settings.passageWords} words.`]
      : []),
    ...report.failures.slice(0, 5).map(({ what, problem }) => yellow(`not read: ${what}: ${problem}`)),
    ...(report.exhausted
      ? [yellow("The teacher has no more openings: more topics or subtopics would give more.")]
      : []),
  ];
  const share = percent(droppedOf(generation) / Math.max(1, report.openings));
  return [
    `\n${bold(`${whole(report.conversations)} conversations`)} in ${cyan(out)}\n`,
    table(rows, dim),
    dropped.length > 0
      ? `dropped ${whole(droppedOf(generation))} of ${whole(report.openings)} openings (${share}):\n${table(dropped, dim)}`
      : "",
    ...notes.map((note) => `  ${note}\n`),
    report.conversations > 0 ? dim(`  next: zephyr-align sft --model DIR --data ${out}/train_sft.jsonl\n`) : "",
  ].join("");
}

function weights(text: string): Partial<Record<Sector, number>> {
  const entries = text.split(",").map((part) => {
    const [name = "", weight = ""] = part.split("=").map((each) => each.trim());
    if (!(sectorNames as readonly string[]).includes(name) || weight === "" || !(Number(weight) >= 0)) {
      throw new InvalidArgumentError(`Give weights like ${sectorNames.map((each) => `${each}=1`).join(",")}.`);
    }
    return [name, Number(weight)] as const;
  });
  return Object.fromEntries(entries);
}

function range(text: string): [number, number] {
  const [, least, most = least] = /^(\d+)(?:-(\d+))?$/.exec(text) ?? [];
  if (least === undefined || Number(least) < 1 || Number(most) < Number(least)) {
    throw new InvalidArgumentError("Give a number of at least 1, or two like 2-4.");
  }
  return [Number(least), Number(most)];
}
