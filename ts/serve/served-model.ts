/** Models under the names by which requests choose them. */
import type { Mistral } from "../model/mistral";
import { ApiError, tooLong } from "./api-error";

/** A model with a name. */
export interface ServedModel {
  name: string;
  model: Mistral;
  /** Tokens that prompt and answer may have together. */
  context: number;
}

/** Behind a model's name: without its adapter. */
export const baseSuffix = ":base";

/** All that a server answers with. */
export class ServedModels {
  readonly #models = new Map<string, ServedModel>();
  /** Seconds since 1970. */
  readonly created = Math.floor(Date.now() / 1000);
  /** A single model answers whatever name it is asked by: many programs have one written into them. */
  readonly #only: ServedModel | undefined;

  /**
   * @param models by name; one with an adapter is there a second time without it
   * @param context the most tokens of prompt and answer; the models' own limits are never exceeded
   */
  constructor(models: Readonly<Record<string, Mistral>>, context?: number) {
    const add = (name: string, model: Mistral) => {
      const own = model.config.max_position_embeddings;
      this.#models.set(name, { name, model, context: Math.min(context ?? own, own) });
    };
    for (const [name, model] of Object.entries(models)) {
      add(name, model);
      if (model.adapter) add(`${name}${baseSuffix}`, model.withoutAdapter());
    }
    this.#only = this.#models.size === 1 ? [...this.#models.values()][0] : undefined;
  }

  get names(): string[] {
    return [...this.#models.keys()];
  }

  /** @throws ApiError 404 that lists the names */
  find(name: string): ServedModel {
    const found = this.#models.get(name) ?? this.#only;
    if (found) return found;
    throw this.#unknown(name);
  }

  #unknown(name: string): ApiError {
    return new ApiError(
      404,
      `The model ${JSON.stringify(name)} is not served here; there is ${this.names.join(", ")}.`,
      {
        code: "model_not_found",
        param: "model",
      },
    );
  }

  /**
   * A model as `/v1/models` shows it.
   *
   * @throws ApiError 404
   */
  card(name: string): object {
    const found = this.#models.get(name);
    if (!found) throw this.#unknown(name);
    return { id: name, object: "model", created: this.created, owned_by: "zephyr-align", max_model_len: found.context };
  }
}

/**
 * The tokens that an answer may have.
 *
 * @param wanted at most; undefined: all that there is room for
 * @param param what the prompt came from
 * @throws ApiError 400 `context_length_exceeded` when the prompt leaves no room for one
 */
export function answerLength(
  served: ServedModel,
  prompt: Uint32Array,
  wanted: number | undefined,
  param: string,
): number {
  const room = served.context - prompt.length;
  if (room < Math.min(wanted ?? 1, 1)) throw tooLong(served.context, prompt.length, param);
  // The core ends an answer at the model's own limit, so that requests of all lengths can be answered together.
  const own = served.context === served.model.config.max_position_embeddings;
  return own ? (wanted ?? served.context) : Math.min(wanted ?? room, room);
}
