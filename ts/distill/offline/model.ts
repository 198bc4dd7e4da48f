import { createHash } from "node:crypto";
import { Random } from "../../../recipes/demo/world";
import type { ChatCapabilities, ChatLogprob, ChatModel, ChatRequest, ChatResponse } from "../../client";
import { ConfigError, throwIfAborted } from "../../errors";
import { readJudgePrompt } from "./judge-prompt";
import { type Judged, passJudgement } from "./judging";
import { playRole } from "./roles";
import { instanceOf } from "./schema-instance";
import { writeAnswer, writerChoices } from "./writers";

/** Whether a name is one of {@link offlineModel}'s. */
export function isOfflineName(name: string): boolean {
  return name === "offline" || name.startsWith("offline:");
}

/**
 * The offline teacher: a {@link ChatModel} of rules, without network, weights or cost, for trying out and for tests.
 *
 * It plays every role of the pipeline (topics, first messages, both sides of a conversation, rater, critic) and judges by
 * foreign prompts (see `judge-prompt.ts`). On the tasks of the demo's world its answers are right and its judgements come
 * from the world's judge; on other text it quotes what it was given, and its scores are heuristics that say so. The same
 * request gets the same answer; `seed`, `sampleIndex` and a temperature above 0 make draws differ.
 *
 * @param name `offline`, or `offline:<flaw>` for a member of a pool that answers with a flaw: `careless`, `wordy`,
 * `sloppy`, `poor`, or one of the world's writers. Flaws are in answers only, never in ratings.
 */
export function offlineModel(name = "offline"): ChatModel {
  const writer = name === "offline" ? "good" : name.slice("offline:".length);
  if (!isOfflineName(name) || !writerChoices.includes(writer)) {
    throw new ConfigError("ZA_CONFIG_INVALID", `there is no offline model "${name}"`, {
      remedy: `Known are offline, ${writerChoices.map((choice) => `offline:${choice}`).join(", ")}.`,
    });
  }
  return new OfflineModel(name, writer);
}

/** Alternatives that can be asked for, as OpenAI allows. */
const mostLogprobs = 20;

class OfflineModel implements ChatModel {
  readonly capabilities: ChatCapabilities = { topLogprobs: mostLogprobs, schema: true, system: true };

  constructor(
    readonly name: string,
    private readonly writer: string,
  ) {}

  async complete(request: ChatRequest): Promise<ChatResponse> {
    const { messages, sampling, signal, onToken } = request;
    throwIfAborted(signal);
    const { text, odds } = this.#answer(request);
    const end = Math.min(
      ...(sampling.stop ?? []).map((stop) => text.indexOf(stop)).filter((at) => at >= 0),
      text.length,
    );
    const pieces = piecesOf(text.slice(0, end));
    const kept = pieces.slice(0, sampling.maxTokens);
    for (const piece of kept) onToken?.(piece);
    const logprobs =
      sampling.topLogprobs === undefined ? {} : { logprobs: logprobsOf(kept, odds, sampling.topLogprobs) };
    return {
      text: kept.join(""),
      finishReason: kept.length < pieces.length ? "length" : "stop",
      model: this.name,
      usage: {
        promptTokens: messages.reduce((sum, { content }) => sum + piecesOf(content).length, 0),
        completionTokens: kept.length,
      },
      ...logprobs,
      cost: 0,
      journalled: false,
    };
  }

  #answer({ messages, sampling, sampleIndex = 0 }: ChatRequest): Judged {
    // Greedy draws do not differ, as on a server.
    const draw = sampling.temperature === 0 ? [] : [sampling.seed ?? 0, sampleIndex];
    const key = createHash("sha256")
      .update(JSON.stringify([this.name, messages, draw]))
      .digest();
    const random = new Random(key.readInt32LE(0), "offline");
    const played = playRole(messages, sampling, random);
    if (played !== undefined) return { text: played };
    if (sampling.schema) return { text: JSON.stringify(instanceOf(sampling.schema.schema)) };
    const judged = readJudgePrompt(messages);
    if (judged) return passJudgement(judged);
    return { text: writeAnswer(messages, this.writer, random) };
  }
}

/** Its tokens are words with the space before them. */
function piecesOf(text: string): string[] {
  return text.match(/\s*\S+|\s+$/g) ?? [];
}

/** Rules leave no choice: every token is certain, but for a verdict between two names. */
function logprobsOf(pieces: readonly string[], odds: Judged["odds"], most: number): ChatLogprob[] {
  return pieces.map((token, index) => {
    if (!odds || index > 0) return { token, logprob: 0, top: most > 0 ? [{ token, logprob: 0 }] : [] };
    const all = odds.map(({ token, probability }) => ({ token, logprob: Math.log(probability) }));
    all.sort((a, b) => b.logprob - a.logprob);
    return { token, logprob: all.find((each) => each.token === token)!.logprob, top: all.slice(0, most) };
  });
}
