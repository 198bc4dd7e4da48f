import { feedbackRow } from "../feedback-row";
import { RowsFolder } from "../rows-folder";
import type { RateOptions } from "./options";
import { rateSettings } from "./options";
import { feedbackId } from "./prompts";
import { type RatedPrompt, rateResponses } from "./rate";
import { countRow, type RateReport } from "./report";

/** The files of a rating: rows of raw UltraFeedback, and what failed in the last run. */
export const feedbackFiles = ["raw", "failures"] as const;

/** How rated answers are written. */
export interface WriteFeedbackOptions {
  /** Replace the rows of an earlier run. */
  overwrite?: boolean | undefined;
  /** What else decides the rows: names of the models, files of prompts. Part of `config.json`. */
  inputs?: Record<string, unknown>;
  /** Called with every prompt and the report as it then is. */
  onPrompt?: (rated: RatedPrompt, report: RateReport) => void;
}

/** Options that do not change what is asked. */
const free = ["concurrency", "reasks"];

/**
 * Answers and rates into a folder: `raw.jsonl`, `failures.jsonl`, `report.json`. A folder of the same options is gone on
 * with: prompts that have a row are passed over, those that failed are asked again and stand at the end.
 */
export async function writeFeedback(
  options: RateOptions,
  folder: string,
  { overwrite, inputs, onPrompt }: WriteFeedbackOptions = {},
): Promise<RateReport> {
  const { prompts, pool, rater, done: _, signal, ...rest } = options;
  const settings = Object.entries(rateSettings(rest)).filter(([name]) => !free.includes(name));
  const rows = await RowsFolder.open(folder, {
    files: feedbackFiles,
    fresh: ["failures"],
    config: { ...inputs, ...Object.fromEntries(settings) },
    overwrite: overwrite ?? false,
  });
  try {
    const raw = rows.file("raw");
    const done = new Set<string>();
    const rating = rateResponses({ ...rest, prompts, pool, rater, done, ...(signal && { signal }) });
    for await (const row of raw.earlier().rows()) {
      if (row.error) throw row.error;
      const earlier = feedbackRow(row.value, row.place);
      done.add(feedbackId({ instruction: earlier.instruction, history: earlier.history ?? [] }));
      countRow(rating.report, earlier);
    }
    try {
      for await (const rated of rating) {
        if (rated.row) await raw.append(rated.row);
        for (const failure of rated.failures) await rows.file("failures").append(failure);
        onPrompt?.(rated, rating.report);
      }
      return rating.report;
    } finally {
      await rows.writeReport(rating.report);
    }
  } finally {
    await rows.close();
  }
}
