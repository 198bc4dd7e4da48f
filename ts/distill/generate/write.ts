import { RowsFolder } from "../rows-folder";
import type { GeneratedConversation, Generation } from "./generate";

/** The files of a generation: ultrachat_200k's splits, and where each conversation comes from. */
export const conversationFiles = ["train_sft", "test_sft", "train_gen", "test_gen", "origins"] as const;

/** How conversations are written. */
export interface WriteConversationsOptions {
  /** Replace the rows of an earlier run. */
  overwrite?: boolean | undefined;
  /** What else decides the rows: names of the models, files of texts. Part of `config.json`. */
  inputs?: Record<string, unknown>;
  onConversation?: (conversation: GeneratedConversation) => void;
}

/** Options that do not change the rows. */
const free = ["concurrency"];

/**
 * Writes conversations into a folder in ultrachat_200k's layout, as JSONL: `train_sft`, `test_sft` with whole
 * conversations, `train_gen`, `test_gen` with the same without their last answer. A folder of the same options is gone on
 * with: rows that are there are made again (out of the journal, without cost), compared and left.
 *
 * The report is written at the end, also of a run that was stopped.
 */
export async function writeConversations(
  generation: Generation,
  folder: string,
  options: WriteConversationsOptions = {},
): Promise<void> {
  const settings = Object.entries(generation.settings).filter(([name]) => !free.includes(name));
  const rows = await RowsFolder.open(folder, {
    files: conversationFiles,
    config: { ...options.inputs, ...Object.fromEntries(settings) },
    growing: ["conversations"],
    overwrite: options.overwrite ?? false,
  });
  try {
    for await (const conversation of generation) {
      const { row, split, sector, topic, subtopic, persona } = conversation;
      const { prompt, prompt_id, messages } = row;
      await rows.file(`${split}_sft`).follow(row);
      await rows.file(`${split}_gen`).follow({ prompt, prompt_id, messages: messages.slice(0, -1) });
      await rows.file("origins").follow({ prompt_id, split, sector, topic, subtopic, persona });
      options.onConversation?.(conversation);
    }
  } finally {
    await rows.writeReport(generation.report).finally(() => rows.close());
  }
}
