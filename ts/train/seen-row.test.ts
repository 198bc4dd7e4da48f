import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { toPair, toSft, toUnpaired } from "../data";
import { DataError } from "../errors";
import { folderTokenizer } from "../model/tokenizer";
import { classedPieces, keptPart, type SeenOptions, type SeenRow, seenRow } from "./seen-row";

const tokenizer = await folderTokenizer(fileURLToPath(new URL("../../recipes/demo/base", import.meta.url)));
const place = { file: "rows.jsonl", row: 1 };
const turn = (role: string, content: string) => ({ role, content });

function seen(row: SeenRow | DataError): SeenRow {
  if (row instanceof DataError) throw row;
  return row;
}

const options = (maxLength = 1e6): SeenOptions => ({
  maxLength,
  maxPromptLength: null,
  truncation: "keep-answer",
  lossOn: "assistant",
  answerEnd: "eos",
  specialsInContent: "text",
  onBadRow: "skip",
});

/** Text by class, in order, stretches joined. */
function shown(row: SeenRow, index = 0): [string, string][] {
  const stretches: [string, string][] = [];
  for (const piece of classedPieces(row.sequences[index]!, tokenizer)) {
    const last = stretches.at(-1);
    if (last?.[0] === piece.class) last[1] += piece.text;
    else stretches.push([piece.class, piece.text]);
  }
  return stretches;
}

const twice = toSft(
  {
    messages: [
      turn("user", "say nine."),
      turn("assistant", "nine."),
      turn("user", "say nine."),
      turn("assistant", "nine."),
    ],
  },
  place,
);

it("turns that are cut from the end are cut, not others that read alike", () => {
  const whole = seen(seenRow(twice, place, tokenizer, options()));
  expect(
    shown(whole)
      .filter(([name]) => name === "learnt")
      .map(([, text]) => text),
  ).toEqual(["nine.", "nine."]);
  expect(shown(whole).filter(([name]) => name === "end")).toHaveLength(2);
  const length = whole.sequences[0]!.ids.length;
  const cut = seen(seenRow(twice, place, tokenizer, options(length - 2)));
  const classes = shown(cut).map(([name]) => name);
  expect(classes.at(-1)).toBe("cut");
  expect(classes.filter((name) => name === "cut")).toHaveLength(1);
  expect(classes.filter((name) => name === "learnt")).toHaveLength(1);
  const kept = keptPart(cut.sequences[0]!);
  expect(kept.ids.length).toBe(length - cut.cut);
  // The owners of what is left are those of the same tokens of the whole.
  expect([...kept.owners!]).toEqual([...whole.sequences[0]!.owners!.subarray(0, kept.ids.length)]);
});

it("a question that is shortened loses its oldest tokens", () => {
  const row = toSft({ messages: [turn("user", "ten hat red cat sun two"), turn("assistant", "nine.")] }, place);
  const { length } = seen(seenRow(row, place, tokenizer, options())).sequences[0]!.ids;
  const cut = seen(seenRow(row, place, tokenizer, options(length - 3)));
  expect(cut.cut).toBeGreaterThanOrEqual(3);
  const classes = shown(cut).map(([name]) => name);
  expect(classes.slice(0, 3)).toEqual(["template", "cut", "content"]);
  const refused = seenRow(row, place, tokenizer, options(3));
  expect(refused).toMatchObject({ code: "ZA_DATA_TOO_LONG", place });
});

it("a pair shows both sides, an answer its prompt and itself", () => {
  const pair = toPair(
    {
      prompt: [turn("user", "say ten.")],
      chosen: [turn("assistant", "ten.")],
      rejected: [turn("assistant", "a hat.")],
    },
    place,
  );
  const row = seen(seenRow(pair, place, tokenizer, options()));
  expect(row.sequences.map(({ side }) => side)).toEqual(["chosen", "rejected"]);
  expect(row.sequences.every(({ owners }) => owners !== undefined)).toBe(true);
  expect(shown(row, 1).filter(([name]) => name === "learnt")).toEqual([["learnt", "a hat."]]);
  const answer = toUnpaired({ prompt: "say ten.", completion: "ten.", label: true }, place);
  expect(shown(seen(seenRow(answer, place, tokenizer, options())))).toEqual([
    ["content", "say ten."],
    ["learnt", "ten."],
    ["end", tokenizer.decode([tokenizer.eosTokenId!])],
  ]);
});
