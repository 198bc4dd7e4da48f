import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { fromNative } from "../../errors";
import { RowFile } from "../row-file";
import type { Binarisation, BinarisedPair, BinariseReport, PreferenceRow } from "./binarise";

/** The files of a binarisation: ultrafeedback_binarized's splits. */
export const pairFiles = ["train_prefs", "test_prefs", "train_sft", "test_sft", "train_gen", "test_gen"] as const;

/**
 * Writes pairs in ultrafeedback_binarized's layout, as JSONL: every split has all columns; `messages` is the conversation
 * with the chosen answer, in the `_gen` splits without an answer. `test_sft` and `test_gen` hold half of `test_prefs`.
 * Files of an earlier run are replaced when all rows are written.
 */
export async function writePairs(
  pairs: Binarisation,
  folder: string,
  onPair?: (pair: BinarisedPair) => void,
): Promise<BinariseReport> {
  const hidden = (name: string) => join(folder, `.${name}.jsonl.writing`);
  try {
    await mkdir(folder, { recursive: true });
    const files = {} as Record<(typeof pairFiles)[number], RowFile>;
    for (const name of pairFiles) {
      await rm(hidden(name), { force: true });
      files[name] = await RowFile.open(hidden(name));
    }
    try {
      for await (const pair of pairs) {
        const { row, split, small } = pair;
        await files[`${split}_prefs`].append(row);
        if (split === "train" || small) {
          await files[`${split}_sft`].append(row);
          await files[`${split}_gen`].append(promptOnly(row));
        }
        onPair?.(pair);
      }
    } finally {
      for (const file of Object.values(files)) await file.close();
    }
    for (const name of pairFiles) await rename(hidden(name), join(folder, `${name}.jsonl`));
    return pairs.report;
  } catch (error) {
    for (const name of pairFiles) await rm(hidden(name), { force: true }).catch(() => {});
    throw fromNative(error, { file: folder });
  }
}

function promptOnly(row: PreferenceRow): PreferenceRow {
  return { ...row, messages: row.messages.slice(0, -1) };
}
