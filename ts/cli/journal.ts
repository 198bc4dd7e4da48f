import type { Command } from "commander";
import type { NativeRejected, NativeSummary } from "../../bindings/node/index";
import { CallJournal } from "../client/call-journal";
import { readCompletion } from "../client/completion";
import { ledgerOf } from "../client/ledger";
import { whole } from "../report/format";
import { writeJsonFile } from "./json-file";
import { ledgerText } from "./spending-text";
import { styleOf } from "./style";
import { table } from "./train";

interface JournalFlags {
  invalid?: boolean;
  json?: string;
}

/** `zephyr-align journal`: what a journal of calls holds. */
export function addJournal(program: Command): void {
  program
    .command("journal <file>")
    .helpGroup("Make data:")
    .description("What a journal of calls holds: answers, failures, spending by purpose and model.")
    .option("--invalid", "List the answers that could not be read, with the reason.")
    .option("--json <file>", "Write all of it.")
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align journal chats/calls.sqlite
  $ zephyr-align journal chats/calls.sqlite --invalid | less

It can be looked at while a run writes into it.`,
    )
    .action(show);
}

async function show(file: string, flags: JournalFlags): Promise<void> {
  const journal = await CallJournal.read(file);
  try {
    const summary = await journal.summary();
    const invalid: ReturnType<typeof rejectedJson>[] = [];
    if (!flags.invalid) process.stdout.write(summaryText(summary, file, journal.writer));
    if (flags.invalid || flags.json !== undefined) {
      for await (const each of journal.invalid()) {
        const row = rejectedJson(each);
        if (flags.json !== undefined) invalid.push(row);
        if (flags.invalid) process.stdout.write(rejectedText(row));
      }
    }
    await writeJsonFile(flags.json, {
      journal: file,
      writer: journal.writer ?? null,
      ...ledgerOf(summary),
      ...rest(summary),
      invalid,
    });
  } finally {
    await journal.close();
  }
}

function rest({ runs, requests, answered, openBatches, batched }: NativeSummary) {
  const time = (at: number | undefined) => (at === undefined ? null : new Date(at).toISOString());
  return {
    requests,
    answered,
    openBatches,
    batched,
    runs: runs.map((run) => ({ ...run, started: time(run.started), ended: time(run.ended) })),
  };
}

function summaryText(summary: NativeSummary, file: string, writer: string | undefined): string {
  const { bold, dim, green, yellow } = styleOf(process.stdout);
  const { requests, answered, openBatches, batched, runs } = summary;
  const { total } = ledgerOf(summary);
  // A run that is at work has calls under way; those of a killed one may have been billed.
  const killed = runs.filter((run, i) => run.ended === undefined && !(writer !== undefined && i === runs.length - 1));
  const lost = killed.reduce((sum, { unanswered }) => sum + unanswered, 0);
  const rows: [string, string][] = [
    ["requests", `${whole(requests)}, ${whole(answered)} answered`],
    [
      "calls",
      `${whole(total.done)} done, ${whole(total.invalid)} invalid, ${whole(total.failed)} failed, ${whole(total.open)} open`,
    ],
    ...(openBatches > 0
      ? [["batches", `${whole(openBatches)} under way, ${whole(batched)} calls`] as [string, string]]
      : []),
    ["runs", `${whole(runs.length)}${killed.length > 0 ? `, ${whole(killed.length)} of them killed` : ""}`],
  ];
  const notes = [
    ...(writer === undefined ? [] : [green(`  ${writer} is writing.\n`)]),
    ...(lost > 0 ? [yellow(`  ${whole(lost)} calls of killed runs have no answer: they may have been billed.\n`)] : []),
  ];
  return `${bold(file)}\n${table(rows, dim)}${notes.join("")}\n${ledgerText(ledgerOf(summary))}`;
}

function rejectedJson({ call, key, model, purpose, reason, request, response }: NativeRejected) {
  let text: string | null = null;
  try {
    text = readCompletion(response).text;
  } catch {
    // It was no completion at all.
  }
  return { call, key, model, purpose, reason, request: JSON.parse(request), text, response };
}

function rejectedText({
  call,
  model,
  purpose,
  reason,
  request,
  text,
  response,
}: ReturnType<typeof rejectedJson>): string {
  const { bold, dim, yellow } = styleOf(process.stdout);
  const asked = String(request.messages?.at(-1)?.content ?? "");
  const head = `${bold(`call ${call}`)} ${dim(`${purpose}, ${model}`)}: ${yellow(reason)}`;
  return `${head}\n${indented(asked, dim("› "))}\n${indented(text ?? response, "  ")}\n\n`;
}

function indented(text: string, mark: string): string {
  return text
    .split("\n")
    .map((line) => `  ${mark}${line}`)
    .join("\n");
}
