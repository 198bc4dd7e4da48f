/** Fields that both kinds of completions share. */
import { randomInt } from "node:crypto";
import { seedOf, seeds } from "../model/generate-options";
import { badField } from "./api-error";
import type { RequestFields } from "./request-fields";

/** How the answers of a request are sampled; OpenAI's defaults. */
export interface RequestSampling {
  temperature: number;
  topP: number;
  topK: number;
  minP: number;
  repetitionPenalty: number;
  stop: readonly string[];
  /** Of the first answer; the next ones have the seeds after it. */
  seed: number;
  /** Answers to a prompt. */
  choices: number;
  /** Keys and values of the last such request are gone on with. */
  reuse: boolean;
}

/** How an answer is sent. */
export interface Delivery {
  stream: boolean;
  /** A last chunk with the usage. */
  usage: boolean;
}

/** Answers to a prompt at most, as at OpenAI. */
const mostChoices = 128;

/** Stop texts at most. OpenAI takes 4. */
const mostStops = 16;

const empty = (value: unknown) => typeof value === "object" && value !== null && Object.keys(value).length === 0;
const is =
  (...values: readonly unknown[]) =>
  (value: unknown) =>
    values.includes(value);

/** Reads them, and refuses what this server cannot do. */
export function samplingOf(fields: RequestFields): RequestSampling {
  fields.unsupported("frequency_penalty", is(0), "Take repetition_penalty.");
  fields.unsupported("presence_penalty", is(0), "Take repetition_penalty.");
  fields.unsupported("logit_bias", empty);
  fields.unsupported("service_tier", is("auto", "default"));
  fields.unsupported("store", is(false), "This server keeps nothing.");
  // They name the caller, or ask for a cache that another server has.
  fields.ignore("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention");
  const seed = fields.whole("seed", Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER);
  return {
    temperature: fields.number("temperature", 0, 2) ?? 1,
    // Zero is the most probable token alone.
    topP: Math.max(fields.number("top_p", 0, 1) ?? 1, 1e-9),
    // vLLM writes -1 for "off".
    topK: Math.max(fields.whole("top_k", -1, 1e9) ?? 0, 0),
    minP: fields.number("min_p", 0, 1) ?? 0,
    repetitionPenalty: fields.number("repetition_penalty", 0.01, 100) ?? 1,
    stop: stopsOf(fields),
    seed: seed === undefined ? randomInt(seeds) : seedOf(seed % seeds),
    choices: fields.whole("n", 1, mostChoices) ?? 1,
    reuse: fields.boolean("cache_prompt") ?? false,
  };
}

function stopsOf(fields: RequestFields): readonly string[] {
  const stop = fields.take("stop") ?? [];
  const stops: readonly unknown[] = Array.isArray(stop) ? stop : [stop];
  if (stops.length > mostStops) throw badField("stop", `stop has ${stops.length} texts; ${mostStops} are possible.`);
  for (const each of stops) {
    if (typeof each !== "string" || each === "")
      throw badField("stop", "stop must be a text, or a list of texts, none empty.");
  }
  return stops as readonly string[];
}

/** Reads how the answer is to be sent. */
export function deliveryOf(fields: RequestFields): Delivery {
  const stream = fields.boolean("stream") ?? false;
  const options = fields.object("stream_options");
  if (options && !stream) throw badField("stream_options", "stream_options is only possible with stream: true.");
  const usage = options?.boolean("include_usage") ?? false;
  options?.unsupported("include_obfuscation", is(false));
  options?.close();
  return { stream, usage };
}
