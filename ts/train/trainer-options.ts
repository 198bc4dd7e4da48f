/** What a trainer is given, taken apart and checked: plain JavaScript gives whatever it likes. */
import type { DatasetInput } from "../data";
import { isDataset } from "../data/dataset-type";
import type { Mistral } from "../model/mistral";
import { flag, type Rule, whole } from "../model/option-rules";
import { type ConfigSchema, resolveConfig } from "./config";
import { asObject, configError, givenProblems } from "./config-problems";
import type { TrainerInput } from "./trainer";

const isObject = (value: unknown): value is object => typeof value === "object" && value !== null;

const model: Rule = {
  fits: (value) => isObject(value) && "native" in value,
  take: "a model: await Mistral.fromPretrained(path)",
};

const rows: Rule = {
  fits: (value) => typeof value === "string" || Array.isArray(value) || isDataset(value),
  take: "a path, a list of rows, or a data set: dataset(source, options)",
};

const besideOptions: Readonly<Record<keyof TrainerInput | "dataset", Rule>> = {
  dataset: rows,
  evalDataset: rows,
  signal: { fits: (value) => isObject(value) && "aborted" in value, take: "the signal of an AbortController" },
  overwrite: flag,
  samples: whole(0, Number.MAX_SAFE_INTEGER, "a whole number of at least 0"),
  loggers: {
    fits: (value) => Array.isArray(value) && value.every((each) => isObject(each) && "log" in each),
    take: "a list of loggers",
  },
  watch: { fits: (value) => typeof value === "boolean" || isObject(value), take: "true, false, or { port }" },
};

/** The options by which trainers take models. */
type ModelName = "model" | "policy" | "ref";

/**
 * A trainer's configuration out of its options: complete, and checked together with the models and rows that it is given.
 *
 * @param needed what may not be left out; its first is the model that is trained
 * @param models all options of the trainer that are models
 * @throws ConfigError `ZA_CONFIG_INVALID` with all problems at once
 */
export function configOf<Input extends object, Output>(
  config: ConfigSchema<Input, Output>,
  options: Input & TrainerInput,
  needed: readonly [ModelName, ...(ModelName | "dataset")[]],
  models: readonly ModelName[] = [needed[0]],
): Output {
  const rules: Record<string, Rule> = { ...Object.fromEntries(models.map((name) => [name, model])), ...besideOptions };
  const [given, rest]: Record<string, unknown>[] = [{}, {}];
  for (const [key, value] of Object.entries(asObject(options)))
    (Object.hasOwn(rules, key) ? given : rest)![key] = value;
  const { [needed[0]]: trained, samples, evalDataset } = given as Partial<Record<string, unknown>>;
  return resolveConfig(config, rest as Input, {
    evaluates: evalDataset !== undefined,
    samples: samples as number | undefined,
    device: (trained as Mistral | undefined)?.device?.kind,
    problems: givenProblems(given!, rules, needed),
  });
}

/** The rows that `fit` trains on. @throws ConfigError `ZA_CONFIG_INVALID` when there are none, or what is given is none */
export function rowsToTrain(dataset: DatasetInput | undefined): DatasetInput {
  const [problem] = givenProblems({ dataset }, { dataset: rows }, ["dataset"]);
  if (problem === undefined) return dataset!;
  const remedy = `${problem.remedy.slice(0, -1)}, as this option or as fit(rows).`;
  throw configError([{ ...problem, remedy }]);
}
