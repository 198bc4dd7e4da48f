import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { globMatcher } from "./glob";
import { checkShards, findSplit } from "./splits";

describe("patterns", () => {
  it.each([
    ["data/train_sft-*", "data/train_sft-00000-of-00003-a3ecf92756993583.parquet", true],
    ["data/train_sft-*", "data/sub/train_sft-0", false],
    ["*.jsonl", "a.jsonl", true],
    ["*.jsonl", "d/a.jsonl", false],
    ["**.jsonl", "d/a.jsonl", true],
    ["**/a.json", "a.json", true],
    ["**/a.json", "x/y/a.json", true],
    ["**/a.json", "x/ya.json", false],
    ["d/**", "d/e/f", true],
    ["**/train[-._ 0-9]*", "train_sft.jsonl", true],
    ["**/train[-._ 0-9]*", "x/training.jsonl", false],
    ["a?c", "abc", true],
    ["a?c", "a/c", false],
    ["[!a]b", "cb", true],
    ["[!a]b", "ab", false],
    ["(a+)", "(a+)", true],
    ["🙂*", "🙂x", true],
  ])("%s on %s: %s", (pattern, path, fits) => {
    expect(globMatcher(pattern)(path)).toBe(fits);
  });

  it("takes no longer for a bad pattern", () => {
    const matches = globMatcher(`${"*a".repeat(40)}b`);
    const started = performance.now();
    expect(matches("a".repeat(1000))).toBe(false);
    expect(performance.now() - started).toBeLessThan(1000);
  });

  it("a path fits itself with some of it replaced by stars", () => {
    const part = fc.stringMatching(/^[a-z0-9_.-]{1,6}$/);
    fc.assert(
      fc.property(
        fc.array(part, { minLength: 1, maxLength: 5 }),
        fc.array(fc.boolean(), { minLength: 5, maxLength: 5 }),
        (parts, stars) => {
          const path = parts.join("/");
          expect(globMatcher(parts.map((each, at) => (stars[at] ? "*" : each)).join("/"))(path)).toBe(true);
          expect(globMatcher(`**/${parts.at(-1)}`)(path)).toBe(true);
          expect(globMatcher("**")(path)).toBe(true);
          if (parts.length > 1) expect(globMatcher("*")(path)).toBe(false);
        },
      ),
    );
  });
});

describe("splits", () => {
  const find = (paths: string[], rest: { card?: string; config?: string; split?: string } = {}) =>
    findSplit({ source: "there", paths, ...rest });
  const codeOf = (work: () => unknown) => {
    try {
      return work();
    } catch (error) {
      const { code, message, remedy } = error as { code: string; message: string; remedy: string };
      return `${code} ${message} ${remedy}`;
    }
  };
  const ultrachat = [
    ".gitattributes",
    "README.md",
    ...["test_gen", "test_sft"].map((split) => `data/${split}-00000-of-00001-f7dfac4afe5b93f4.parquet`),
    ...["train_gen", "train_sft"].flatMap((split) =>
      [0, 1, 2].map((n) => `data/${split}-0000${n}-of-00003-a3ecf92756993583.parquet`),
    ),
  ];
  // As in the card of ultrachat_200k.
  const card = [
    "---",
    "language:",
    "- en",
    "license: mit",
    "configs:",
    "- config_name: default",
    "  data_files:",
    ...["train_sft", "test_sft", "train_gen", "test_gen"].flatMap((split) => [
      `  - split: ${split}`,
      `    path: data/${split}-*`,
    ]),
    "dataset_info:",
    "  splits: []",
    "---",
    "# Card",
  ].join("\n");

  it("by the card, and the same by the names alone", () => {
    for (const rest of [{ card }, {}]) {
      const { files } = find(ultrachat, { ...rest, split: "train_sft" });
      expect(files).toEqual([0, 1, 2].map((n) => `data/train_sft-0000${n}-of-00003-a3ecf92756993583.parquet`));
      expect(find(ultrachat, { ...rest, split: "test_gen" }).files.length).toBe(1);
      expect(codeOf(() => find(ultrachat, { ...rest, split: "train" }))).toMatch(
        /ZA_DATA_SPLIT.*no split "train".*train_sft/s,
      );
      expect(codeOf(() => find(ultrachat, rest))).toMatch(/ZA_DATA_SPLIT.*there are the splits/s);
    }
  });

  it("configurations", () => {
    const paths = ["en/a.jsonl", "en/b.jsonl", "fr/a.jsonl", "fr/test/x.jsonl"];
    const two =
      "---\r\nconfigs:\r\n- config_name: en\r\n  data_files: en/*.jsonl\r\n- config_name: fr\r\n  data_dir: fr\r\n---\r\n";
    expect(find(paths, { card: two, config: "en" })).toEqual({ split: "train", files: ["en/a.jsonl", "en/b.jsonl"] });
    expect(find(paths, { card: two, config: "fr" })).toEqual({ split: "test", files: ["fr/test/x.jsonl"] });
    expect(codeOf(() => find(paths, { card: two }))).toMatch(/ZA_DATA_SPLIT.*several configurations.*en, fr/s);
    expect(codeOf(() => find(paths, { card: two, config: "de" }))).toMatch(/no configuration "de"/);
    const marked = two.replace("config_name: fr", "config_name: fr\r\n  default: true");
    expect(find(paths, { card: marked }).split).toBe("test");
    expect(codeOf(() => find(paths, { card: "---\nconfigs: [\n---\n" }))).toMatch(/ZA_DATA_SPLIT.*YAML/);
    const nothing = "---\nconfigs:\n- config_name: a\n  data_files: nowhere/*\n---\n";
    expect(codeOf(() => find(paths, { card: nothing }))).toMatch(/no file of rows fits/);
    expect(codeOf(() => find(paths, { config: "en" }))).toMatch(/no configuration "en"/);
  });

  it("by words in names, as datasets does", () => {
    expect(find(["train.jsonl", "test.jsonl"], { split: "test" }).files).toEqual(["test.jsonl"]);
    expect(find(["my-train-data.json.gz", "validation_1.json.gz"], { split: "validation" }).files).toEqual([
      "validation_1.json.gz",
    ]);
    expect(find(["train/0.parquet", "dev/0.parquet"], { split: "validation" }).files).toEqual(["dev/0.parquet"]);
    expect(find(["b.jsonl", "a.jsonl", "notes.txt", ".hidden.jsonl", "__x__/c.jsonl"])).toEqual({
      split: "train",
      files: ["a.jsonl", "b.jsonl"],
    });
    // Not words of datasets: the file is called so.
    expect(find(["train_sft.jsonl", "test_sft.jsonl"], { split: "train_sft" }).files).toEqual(["train_sft.jsonl"]);
    expect(
      find(["prefs-00000-of-00002.parquet", "prefs-00001-of-00002.parquet", "other.jsonl"], { split: "prefs" }).files
        .length,
    ).toBe(2);
    expect(find(["prefs.parquet", "prefs.jsonl"], { split: "prefs" }).files).toEqual(["prefs.parquet"]);
  });

  it("the branch of the Hub's conversion", () => {
    const paths = [
      "default/train_sft/0000.parquet",
      "default/train_sft/0001.parquet",
      "default/partial-test_sft/0000.parquet",
    ];
    expect(find(paths, { split: "train_sft" }).files.length).toBe(2);
    expect(find(paths, { split: "test_sft" }).files).toEqual(["default/partial-test_sft/0000.parquet"]);
  });

  it("no files of rows, missing shards", () => {
    expect(codeOf(() => find(["README.md", "script.py"]))).toMatch(/ZA_DATA_FILE.*found README.md, script.py/s);
    const found = find(ultrachat, { split: "train_gen" });
    expect(() => checkShards("there", found)).not.toThrow();
    expect(codeOf(() => checkShards("there", { ...found, files: found.files.slice(1) }))).toMatch(/only 2 of 3 files/);
  });
});
