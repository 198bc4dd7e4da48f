/**
 * Which files are a split, in a folder or in a repository at the Hub: what the dataset card says (`configs` in the YAML of
 * README.md), else what the names say, by the rules of the Python package datasets (`data_files.py`, `utils/metadata.py`).
 */
import { parse } from "yaml";
import { DataError } from "../errors";
import { globMatcher } from "./glob";
import { dataEndings } from "./open-file";

/** The files of each split, in order. */
type Splits = Map<string, string[]>;

/** What is asked of a folder or repository. */
export interface SplitQuestion {
  /** How it is called in messages. */
  source: string;
  /** All its files. */
  paths: readonly string[];
  /** Text of its README.md. */
  card?: string | undefined;
  config?: string | undefined;
  split?: string | undefined;
  /**
   * Without a card a file that is called as the split is meant, rather than all that have the word in their names: so for
   * folders. At the Hub `train` is what it is for Python's datasets, `train_more.jsonl` as well.
   */
  byFileName?: boolean;
}

/** The answer. */
export interface FoundSplit {
  split: string;
  files: string[];
}

/**
 * The files of the split asked for. Without a split there must be only one.
 *
 * @throws DataError `ZA_DATA_SPLIT` that lists what there is, `ZA_DATA_FILE` when there are no files of rows
 */
export function findSplit({ source, paths, card, config, split, byFileName }: SplitQuestion): FoundSplit {
  const files = paths.filter(isDataFile).sort();
  if (files.length === 0) throw noFiles(source, paths);
  const configs = configsOf(card, source);
  const splits = splitsOf(files, configs, config, source);
  const names = [...splits.keys()];
  if (split === undefined) {
    const [only, ...others] = names;
    if (only !== undefined && others.length === 0) return { split: only, files: splits.get(only)! };
    throw wrongSplit(
      source,
      `there are the splits ${names.join(", ")}`,
      `Choose one, for example split: "${names[0]}".`,
    );
  }
  const called = filesNamed(split, files);
  const first = byFileName && configs.length === 0 && called.length > 0;
  const named = first ? called : (splits.get(split) ?? called);
  if (named.length > 0) return { split, files: named };
  throw wrongSplit(source, `there is no split "${split}"`, `There are ${names.join(", ") || "none"}.`);
}

function isDataFile(path: string): boolean {
  const parts = path.split("/");
  const name = parts.at(-1)!;
  return (
    dataEndings.some((ending) => name.endsWith(ending)) &&
    !parts.some((part) => part.startsWith(".") || part.startsWith("__")) &&
    !["config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"].includes(name)
  );
}

/** A configuration of a dataset card. */
interface CardConfig {
  config_name: string;
  default?: boolean;
  data_dir?: string;
  data_files?: unknown;
}

function splitsOf(
  files: readonly string[],
  configs: readonly CardConfig[],
  wanted: string | undefined,
  source: string,
): Splits {
  if (configs.length > 0) return ofConfig(files, chosenConfig(configs, wanted, source), source);
  const converted = convertedBranch(files);
  if (converted) {
    const names = [...converted.keys()];
    const name = wanted ?? (names.length === 1 ? names[0]! : "default");
    const found = converted.get(name);
    if (found) return found;
    throw wrongSplit(source, `there are the configurations ${names.join(", ")}`, "Choose one: config.");
  }
  if (wanted !== undefined && wanted !== "default") {
    throw wrongSplit(source, `there is no configuration "${wanted}"`, "Leave config out: the data set has only one.");
  }
  return byNames(files, "");
}

function configsOf(card: string | undefined, source: string): CardConfig[] {
  const block = /^---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)/s.exec(card ?? "")?.[1];
  if (block === undefined) return [];
  let data: unknown;
  try {
    data = parse(block, { maxAliasCount: 100 });
  } catch (cause) {
    throw new DataError("ZA_DATA_SPLIT", "the YAML of its README.md cannot be read", {
      place: { file: `${source}/README.md` },
      remedy: "Repair it, or give the files themselves as data.",
      cause,
    });
  }
  const configs = (data as { configs?: unknown } | null)?.configs;
  if (!Array.isArray(configs)) return [];
  return configs.filter((config): config is CardConfig => typeof config?.config_name === "string");
}

function chosenConfig(configs: readonly CardConfig[], wanted: string | undefined, source: string): CardConfig {
  const isDefault = ({ config_name: name, default: marked }: CardConfig) =>
    configs.length === 1 || name === "default" || marked === true;
  const found =
    wanted === undefined ? configs.find(isDefault) : configs.find(({ config_name: name }) => name === wanted);
  if (found) return found;
  const names = configs.map(({ config_name: name }) => name).join(", ");
  const problem = wanted === undefined ? "there are several configurations" : `there is no configuration "${wanted}"`;
  throw wrongSplit(source, problem, `Choose one of ${names}: config.`);
}

function ofConfig(files: readonly string[], config: CardConfig, source: string): Splits {
  const base = config.data_dir ? `${config.data_dir.replace(/^\.?\/+|\/+$/g, "")}/` : "";
  if (config.data_files === undefined) return byNames(files, base);
  const splits: Splits = new Map();
  for (const [split, patterns] of patternsOf(config.data_files)) {
    const matching = patterns.flatMap((pattern) => {
      const matches = globMatcher(base + pattern.replace(/^\.\//, ""));
      return files.filter(matches);
    });
    splits.set(split, [...new Set(matching)]);
  }
  if ([...splits.values()].every((found) => found.length === 0)) {
    throw wrongSplit(
      source,
      `no file of rows fits the configuration "${config.config_name}" of its README.md`,
      "Give the files themselves as data.",
    );
  }
  return splits;
}

/** A card may give a pattern, some, or some for each split. */
function patternsOf(dataFiles: unknown): [split: string, patterns: string[]][] {
  const list = (value: unknown) => (Array.isArray(value) ? value : [value]).filter((each) => typeof each === "string");
  if (Array.isArray(dataFiles) && dataFiles.some((each) => typeof each === "object" && each !== null)) {
    return dataFiles.map((each) => [String(each?.split ?? "train"), list(each?.path)]);
  }
  if (typeof dataFiles === "object" && dataFiles !== null && !Array.isArray(dataFiles)) {
    return Object.entries(dataFiles).map(([split, value]) => [split, list(value)]);
  }
  return [["train", list(dataFiles)]];
}

/** `<config>/<split>/0000.parquet`, as the Hub writes the branch refs/convert/parquet. */
function convertedBranch(files: readonly string[]): Map<string, Splits> | undefined {
  const configs = new Map<string, Splits>();
  for (const file of files) {
    const [, config, split] = /^([^/]+)\/(?:partial-)?([^/]+)\/\d{4}\.parquet$/.exec(file) ?? [];
    if (config === undefined || split === undefined) return undefined;
    const splits = configs.get(config) ?? new Map<string, string[]>();
    splits.set(split, [...(splits.get(split) ?? []), file]);
    configs.set(config, splits);
  }
  return configs;
}

const keywords = {
  train: ["train", "training"],
  validation: ["validation", "valid", "dev", "val"],
  test: ["test", "testing", "eval", "evaluation"],
};
const separators = "-._ 0-9";

/** Without a card: shards in `data/`, else words in the names of folders, else in those of files, else all is train. */
function byNames(files: readonly string[], base: string): Splits {
  const inBase = files.filter((file) => file.startsWith(base));
  const shards: Splits = new Map();
  for (const file of inBase) {
    const split = /^data\/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*$/.exec(file.slice(base.length))?.[1];
    if (split !== undefined) shards.set(split, [...(shards.get(split) ?? []), file]);
  }
  if (shards.size > 0) return shards;
  const inFolders = (word: string) => [
    `**/${word}/**`,
    `**/${word}[${separators}]*/**`,
    `**/*[${separators}]${word}/**`,
    `**/*[${separators}]${word}[${separators}]*/**`,
  ];
  const inFiles = (word: string) => [`**/${word}[${separators}]*`, `**/*[${separators}]${word}[${separators}]*`];
  for (const patterns of [inFolders, inFiles]) {
    const splits: Splits = new Map();
    for (const [split, words] of Object.entries(keywords)) {
      const matchers = words.flatMap(patterns).map(globMatcher);
      const found = inBase.filter((file) => matchers.some((matches) => matches(file.slice(base.length))));
      if (found.length > 0) splits.set(split, found);
    }
    if (splits.size > 0) return splits;
  }
  return inBase.length > 0 ? new Map([["train", inBase]]) : new Map();
}

/** Files that are called as the split: `train_sft.jsonl`, or its shards. */
function filesNamed(split: string, files: readonly string[]): string[] {
  const isShard = /^-\d{5}-of-\d{5}[^/]*$/;
  const called = files.filter((file) => {
    const name = file.replace(/^data\//, "");
    const ending = dataEndings.find((each) => name.endsWith(each))!;
    if (!name.startsWith(split)) return false;
    const between = name.slice(split.length, name.length - ending.length);
    return between === "" || isShard.test(between);
  });
  // The same rows in two forms must not be read twice.
  const ending = dataEndings.find((each) => called.some((file) => file.endsWith(each)));
  return called.filter((file) => ending !== undefined && file.endsWith(ending));
}

/** Refuses a sharded split of which files are missing: `-00001-of-00003` says how many there should be. */
export function checkShards(source: string, { split, files }: FoundSplit): void {
  for (const file of files) {
    const [, before, count] = /^(.*)-\d{5}-of-(\d{5})/.exec(file) ?? [];
    if (before === undefined) continue;
    const there = files.filter((each) => each.startsWith(`${before}-`) && each.includes(`-of-${count}`)).length;
    if (there === Number(count)) continue;
    throw wrongSplit(
      source,
      `only ${there} of ${Number(count)} files of "${split}" are there`,
      "Download the others too.",
    );
  }
}

function wrongSplit(source: string, problem: string, remedy: string): DataError {
  return new DataError("ZA_DATA_SPLIT", problem, { place: { file: source }, remedy });
}

function noFiles(source: string, paths: readonly string[]): DataError {
  const some = paths.slice(0, 5).join(", ");
  const script = paths.some((path) => path.endsWith(".py")) && source.startsWith("hf://");
  return new DataError("ZA_DATA_FILE", `there are no files of rows; found ${some || "nothing"}`, {
    place: { file: source },
    remedy: script
      ? 'The data set is made by a script. The Hub\'s own conversion may have it: revision: "refs/convert/parquet".'
      : `Files of rows end in ${dataEndings.join(", ")}.`,
  });
}
