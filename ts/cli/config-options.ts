/**
 * The options of `sft` and `dpo`, made of the trainers' own fields: a new field of a trainer is a new flag, with its
 * documentation and default, and nothing is written twice.
 */
import { existsSync, readFileSync, statSync } from "node:fs";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { z } from "zod";
import { recipes } from "../../recipes/zephyr";
import { ConfigError, type ConfigProblem } from "../errors";
import { type ConfigSchema, resolveConfig } from "../train/config";
import { loraFields, packingFields, sharedFields } from "../train/config-fields";
import type { Surroundings } from "../train/config-surroundings";
import { type Method, methods } from "../train/methods";
import { kebab, withFlagNames } from "./flag-names";
import { documentationOf } from "./option-docs";

export type { Method } from "../train/methods";

/** A configuration under construction: keys of the trainer's config. */
type Layer = Record<string, unknown>;

/** Files that a `--config` may name, besides the trainer's own keys. */
const inputKeys = ["model", "ref", "tokenizer", "data", "split", "evalData", "evalSplit"] as const;

/** Inputs of a run that are not options of the trainer. */
export type Inputs = Partial<Record<(typeof inputKeys)[number], string>>;

/** The recipes of `--recipe`. */
export const recipeNames = ["zephyr", "zephyr-paper", "zephyr-handbook"] as const;

function recipeOf(name: (typeof recipeNames)[number], method: Method): Layer {
  const chosen = {
    zephyr: recipes.zephyr,
    "zephyr-paper": recipes.zephyrPaper,
    "zephyr-handbook": recipes.zephyr.handbook,
  };
  if (method === "sft" || method === "dpo") return { ...chosen[name][method] };
  throw usageProblem("--recipe", `the recipes have no ${methods[method].title} stage`, "Leave it out.");
}

/** What a flag's text is turned into. */
interface FieldKind {
  type: "number" | "boolean" | "text" | "list" | "group";
  nullable: boolean;
  /** A list's elements. */
  element?: "number" | "text";
  choices?: readonly string[];
}

function kindOf(schema: z.ZodType): FieldKind {
  // biome-ignore lint/suspicious/noExplicitAny: zod's definitions are a union of all its kinds
  const { def } = schema as any;
  switch (def.type) {
    case "optional":
      return kindOf(def.innerType);
    case "nullable":
      return { ...kindOf(def.innerType), nullable: true };
    case "number":
      return { type: "number", nullable: false };
    case "boolean":
      return { type: "boolean", nullable: false };
    case "enum":
      return { type: "text", nullable: false, choices: Object.values(def.entries) };
    case "object":
      return { type: "group", nullable: false };
    case "array": {
      const { type, choices } = kindOf(def.element);
      return {
        type: "list",
        nullable: false,
        element: type === "number" ? "number" : "text",
        ...(choices ? { choices } : {}),
      };
    }
    case "literal":
      return { type: "text", nullable: false, choices: def.values };
    // One or several: on the command line a list of one. A switch with a variant: a flag with an optional value.
    case "union": {
      const kinds: FieldKind[] = def.options.map(kindOf);
      const choices = kinds.flatMap((kind) => kind.choices ?? []);
      return kinds.find(({ type }) => type === "list") ?? { type: "boolean", nullable: false, choices };
    }
    default:
      return { type: "text", nullable: false };
  }
}

function number(text: string): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (Number.isNaN(value)) throw new InvalidArgumentError("It is not a number.");
  return value;
}

function choice(text: string, choices: readonly string[] | undefined): string {
  if (choices && !choices.includes(text)) throw new InvalidArgumentError(`Choose from ${choices.join(", ")}.`);
  return text;
}

function parserOf(kind: FieldKind): (text: string) => unknown {
  const single = (type: "number" | "text", text: string) =>
    type === "number" ? number(text) : choice(text, kind.choices);
  return (text) => {
    if (kind.nullable && text === "none") return null;
    if (kind.type === "list") return text.split(",").map((part) => single(kind.element ?? "text", part.trim()));
    return single(kind.type === "number" ? "number" : "text", text);
  };
}

function placeholder(key: string, kind: FieldKind): string {
  if (kind.type === "list") return kind.element === "number" ? "<n,…>" : "<name,…>";
  if (kind.choices) return `<${kind.choices.length > 3 ? "name" : kind.choices.join("|")}>`;
  if (key === "template") return "<name|file>";
  if (key === "device") return "<name>";
  return kind.type === "number" ? "<n>" : "<text>";
}

/** The documentation of a field: its comment in config-fields.ts. */
function documented(key: string, kind: FieldKind, method: Method): string {
  const doc = documentationOf(method, key);
  if (!doc) return "";
  const names = kind.choices && kind.choices.length > 3 ? ` One of ${kind.choices.join(", ")}.` : "";
  // "2e-5 (SFT), 1e-6 (DPO)"
  const own = doc.default?.split(", ").find((part) => part.endsWith(`(${method.toUpperCase()})`));
  const initial = own?.split(" ")[0] ?? (doc.default === "null" ? "none" : doc.default);
  return withFlagNames(`${doc.text}${names}${initial === undefined ? "" : ` (default: ${initial})`}`, [
    ...Object.keys(methods[method].fields),
    "out",
  ]);
}

/** Adds a flag for every field of the trainer. */
export function addConfigOptions(command: Command, method: Method): void {
  for (const [key, schema] of Object.entries(methods[method].fields)) {
    if (key === "outputDir") continue;
    const kind = kindOf(schema);
    const group = key in sharedFields || key in packingFields ? "Training options:" : "Loss options:";
    if (kind.type === "group") addGroup(command, key, documented(key, kind, method), method);
    else addFlag(command, key, kind, documented(key, kind, method), group);
  }
}

function addFlag(command: Command, key: string, kind: FieldKind, text: string, group: string): void {
  const flag = kebab(key);
  if (kind.type === "boolean") {
    // Both are there, so that a flag can undo a --config; the one that changes the default is shown.
    const on = /\(default: true\)$/.test(text);
    const variants = kind.choices ? ` [${kind.choices.join("|")}]` : "";
    const option = new Option(`--${flag}${variants}`, text).hideHelp(on).helpGroup(group);
    if (kind.choices) option.argParser((value) => choice(value, kind.choices));
    command.addOption(option);
    command.addOption(new Option(`--no-${flag}`, `Off: ${text}`).hideHelp(!on).helpGroup(group));
    return;
  }
  const option = new Option(`--${flag} ${placeholder(key, kind)}`, text).argParser(parserOf(kind));
  command.addOption(option.helpGroup(group));
}

/** Options that are objects: `--lora` takes the defaults, `--lora-rank` and its like set one key and imply it. */
const groups = { lora: loraFields } as const;

function addGroup(command: Command, key: string, text: string, method: Method): void {
  const title = "Adapter options:";
  addFlag(command, key, { type: "boolean", nullable: false }, text, title);
  for (const [name, schema] of Object.entries(groups[key as keyof typeof groups])) {
    const kind = kindOf(schema);
    addFlag(command, flagOfGroup(key, name), kind, documented(`${key}.${name}`, kind, method), title);
  }
}

/** `loraRank` */
function flagOfGroup(key: string, name: string): string {
  return `${key}${name.charAt(0).toUpperCase()}${name.slice(1)}`;
}

/** What the flags say of an option that is an object: undefined nothing, null that it is off. */
function groupOf(key: keyof typeof groups, given: Record<string, unknown>): Layer | null | undefined {
  const chosen = Object.keys(groups[key]).flatMap((name) => {
    const value = given[flagOfGroup(key, name)];
    return value === undefined ? [] : [[name, patternOf(name, value)]];
  });
  if (chosen.length > 0 || given[key] === true) return Object.fromEntries(chosen);
  return given[key] === false ? null : undefined;
}

/** A list of one that is no name is `all-linear` or a pattern: both are text in the configuration. */
function patternOf(name: string, value: unknown): unknown {
  if (name !== "targetModules" || !Array.isArray(value) || value.length !== 1) return value;
  const [only] = value;
  return only === "all-linear" || /[\\*+?()[\]|^$]/.test(only) ? only : value;
}

/** Keys of which a higher layer's choice replaces a lower layer's: at most one of each pair may be given. */
const alternatives = [
  ["epochs", "maxSteps"],
  ["warmupSteps", "warmupRatio"],
] as const;

function over(lower: Layer, higher: Layer): Layer {
  const kept = { ...lower };
  for (const [one, other] of alternatives) {
    if (higher[one] !== undefined) delete kept[other];
    if (higher[other] !== undefined) delete kept[one];
  }
  // A warm-up of the recipe does not bind someone who asks for a schedule without one.
  if (higher.lrScheduler === "constant") {
    delete kept.warmupSteps;
    delete kept.warmupRatio;
  }
  // Nor does its longest prompt, where sequences are cut without looking at prompts.
  if (higher.truncation === "keep-start") delete kept.maxPromptLength;
  for (const key of Object.keys(groups)) {
    if (isLayer(lower[key]) && isLayer(higher[key])) higher = { ...higher, [key]: { ...lower[key], ...higher[key] } };
  }
  return { ...kept, ...higher };
}

function isLayer(value: unknown): value is Layer {
  return typeof value === "object" && value !== null;
}

/** The configuration that recipe, `--config` and flags make, in this order. */
export function collectConfig(method: Method, given: Record<string, unknown>): { config: Layer; inputs: Inputs } {
  const recipe = given.recipe ? recipeOf(given.recipe as (typeof recipeNames)[number], method) : {};
  const { config: fromFile, inputs } = given.config
    ? configFile(String(given.config), method)
    : { config: {}, inputs: {} };
  const flags = Object.fromEntries(
    Object.keys(methods[method].fields).flatMap((key) => {
      const value = key in groups ? groupOf(key as keyof typeof groups, given) : given[key];
      return value === undefined ? [] : [[key, value]];
    }),
  );
  for (const key of inputKeys) if (given[key] !== undefined) inputs[key] = String(given[key]);
  const config = over(over(recipe, fromFile), flags);
  if (typeof config.template === "string") config.template = templateOf(config.template);
  return { config, inputs };
}

/** Refuses what the trainer would refuse, before a model of gigabytes is read. */
export function checkConfig(method: Method, config: Layer, beside: Surroundings): void {
  resolveConfig(schemaOf(method), config, beside);
}

/** The rules of a method; its types are those of a configuration under construction. */
function schemaOf(method: Method): ConfigSchema<Layer, Layer> {
  return methods[method].config as unknown as ConfigSchema<Layer, Layer>;
}

/** A chat template by name, or the Jinja source in a file of that name. */
export function templateOf(name: string): string {
  if (name === "model" || name === "zephyr" || name.includes("{")) return name;
  if (existsSync(name) && statSync(name).isFile()) return readFileSync(name, "utf8");
  throw usageProblem("template", `there is no file ${name}`, "Give model, zephyr, or a file with a Jinja template.");
}

/** A refusal in the form that all problems of a configuration have. */
export function usageProblem(field: string, problem: string, remedy: string): ConfigError {
  const problems: ConfigProblem[] = [{ field, problem, remedy }];
  return new ConfigError("ZA_CONFIG_INVALID", problem, { problems, remedy });
}

/**
 * Reads `--config`: keys of the trainer, and the files of the run. A run folder's config.json is one too; what it holds
 * of defaults is left out, because a resolved configuration has keys that may not be given together.
 */
function configFile(path: string, method: Method): { config: Layer; inputs: Inputs } {
  const place = { file: path };
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    const problem = error instanceof SyntaxError ? `it is not JSON: ${error.message}` : "the file cannot be read";
    throw new ConfigError("ZA_CONFIG_INVALID", problem, {
      place,
      remedy: "Give a JSON file of options.",
      cause: error,
    });
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    const remedy = 'Write an object, for example {"learningRate": 1e-6}.';
    throw new ConfigError("ZA_CONFIG_INVALID", "the configuration is not an object", { place, remedy });
  }
  const { method: ofRun, outputDir, ...rest } = parsed as Layer;
  if (ofRun !== undefined && ofRun !== method) {
    const remedy = `Use it with zephyr-align ${String(ofRun)}.`;
    throw new ConfigError("ZA_CONFIG_INVALID", `it is the configuration of a ${String(ofRun)} run`, { place, remedy });
  }
  const inputs: Inputs = {};
  for (const key of inputKeys) {
    if (typeof rest[key] === "string") inputs[key] = rest[key];
    delete rest[key];
  }
  return { config: ofRun === undefined ? rest : withoutDefaults(rest, method), inputs };
}

function withoutDefaults(config: Layer, method: Method): Layer {
  const defaults: Layer = resolveConfig(schemaOf(method), {});
  const fields: Record<string, z.ZodType> = methods[method].fields;
  const chosen = Object.entries(config).filter(([key, value]) => {
    if (value === null && fields[key] && !kindOf(fields[key]).nullable) return false;
    return JSON.stringify(value) !== JSON.stringify(defaults[key]);
  });
  return Object.fromEntries(chosen);
}
