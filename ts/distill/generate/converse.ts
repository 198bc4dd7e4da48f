/** One conversation: two roles, each asked in turn. */
import type { ChatModel, ChatResponse } from "../../client";
import type { Message } from "../../data/messages";
import { wordsOf } from "../../data/word-runs";
import { throwIfAborted } from "../../errors";
import { drawInteger, drawOne, seedOf } from "../draw";
import { promptId } from "../prompt-id";
import { assistantPrompt, endingPrompt, endMark, userPrompt } from "../prompts/conversation";
import { moves, type Persona, personas } from "../prompts/personas";
import { type DropReason, turnProblem, withoutLabel } from "./filters";
import { bare } from "./list-answer";
import type { Opening } from "./openings";
import type { GenerateSettings } from "./options";
import { userLengths } from "./sectors";

/** A conversation that was made, or why none was. */
export type Conversed = { opening: Opening; persona: Persona } & (
  | { messages: Message[]; shortened: boolean; dropped?: undefined }
  | { dropped: DropReason; messages?: undefined }
);

/** Who speaks. */
export interface Roles {
  assistant: ChatModel;
  user: ChatModel;
  settings: GenerateSettings;
  signal?: AbortSignal | undefined;
}

/** Tokens of a user turn at most. */
const userTokens = 300;

/**
 * Speaks a conversation to its end: the drawn number of rounds, or earlier when the user has got everything. It is given
 * up at the first turn that a filter drops, so that nothing is paid for what will not be used.
 */
export async function converse(opening: Opening, { assistant, user, settings, signal }: Roles): Promise<Conversed> {
  const { seed, minAnswerWords } = settings;
  const { rounds: range, answerWords } = settings.sectors[opening.sector];
  const [fewest, most] = range;
  const id = promptId(opening.text);
  const persona = drawOne(personas, seed, "persona", id);
  const rounds = drawInteger(fewest, most, seed, "rounds", id);
  const system = assistantPrompt.fill({ words: answerWords });
  const messages: Message[] = [{ role: "user", content: opening.text }];
  const given = { opening, persona };
  const ask = (model: ChatModel, prompt: readonly Message[], maxTokens: number, temperature: number, turn: number) => {
    throwIfAborted(signal);
    const sampling = { maxTokens, temperature, seed: seedOf(seed, "turn", id, turn) };
    return model.complete({ messages: prompt, sampling, purpose: "distil converse", ...(signal && { signal }) });
  };

  let shortened = false;
  for (let round = 1; ; round++) {
    const prompt: Message[] = [{ role: "system", content: system }, ...messages];
    const answer = await ask(assistant, prompt, settings.maxTokens, settings.temperature, messages.length);
    if (answer.finishReason !== "stop") {
      if (answer.finishReason === "filtered") return { ...given, dropped: "filtered" };
      if (round <= fewest) return { ...given, dropped: "cut" };
      // What stands before the cut answer is whole.
      messages.pop();
      shortened = true;
      break;
    }
    const text = answer.text.trim();
    const problem = turnProblem("assistant", text, system) ?? said(messages, text);
    if (problem) return { ...given, dropped: problem };
    messages.push({ role: "assistant", content: text });
    if (round === rounds) break;

    const instruction = userPrompt.fill({
      persona: persona.description,
      move: drawOne(moves[opening.sector], seed, "move", id, round),
      length: drawOne(userLengths[opening.sector].next, seed, "length", id, round),
      ending: round >= fewest ? endingPrompt : "",
    });
    const asked: Message[] = [...messages, { role: "user", content: instruction }];
    const next = await ask(user, asked, userTokens, settings.userTemperature, messages.length);
    if (next.finishReason === "filtered") return { ...given, dropped: "filtered" };
    const turn = userTurn(next);
    if (turn === endMark) {
      if (round < fewest) return { ...given, dropped: "short" };
      break;
    }
    const fault = turnProblem("user", turn, instruction) ?? said(messages, turn);
    if (fault) return { ...given, dropped: fault };
    messages.push({ role: "user", content: turn });
  }
  const longest = Math.max(
    ...messages.map(({ role, content }) => (role === "assistant" ? wordsOf(content).length : 0)),
  );
  if (longest < minAnswerWords) return { ...given, dropped: "short" };
  return { ...given, messages, shortened };
}

function userTurn({ text }: ChatResponse): string {
  const turn = withoutLabel(bare(withoutLabel(text)));
  return turn.replace(/^["'`([]*\[?END\]?[.)\]"'`]*$/, endMark);
}

/** A turn of several words that was said before, by whom ever. */
function said(messages: readonly Message[], turn: string): "loop" | undefined {
  const words = wordsOf(turn);
  const key = words.join(" ");
  return words.length >= 4 && messages.some(({ content }) => wordsOf(content).join(" ") === key) ? "loop" : undefined;
}
