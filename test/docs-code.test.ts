/** Code in README.md and docs/ is what a compiler takes: every fence is a module of its own, checked against the package. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));

/** What fences speak of without making it. */
const spokenOf = `
declare const model: import("zephyr-align").Mistral;
declare const judge: import("zephyr-align").ChatModel;
declare const dataset: import("zephyr-align").Dataset<unknown>;
declare const prompts: import("zephyr-align").Prompt[];
declare const output: { append(text: string): void };
`;

/** Fences of a page by the place of their first line. */
function fences(page: string): [place: string, code: string][] {
  const text = readFileSync(join(root, page), "utf8");
  return [...text.matchAll(/^```(?:ts|js)\n([\s\S]*?)^```$/gm)].map(({ index, 1: code }) => {
    const line = text.slice(0, index).split("\n").length + 1;
    return [`${page}:${line}`, code!];
  });
}

const pages = ["README.md", ...readdirSync(join(root, "docs")).map((name) => `docs/${name}`)];
const code = pages.filter((page) => page.endsWith(".md")).flatMap(fences);

/** What the compiler says of each text, by its place. */
function complaints(texts: readonly (readonly [place: string, code: string])[]): Map<string, string[]> {
  const { config } = ts.readConfigFile(join(root, "tsconfig.json"), ts.sys.readFile);
  const options: ts.CompilerOptions = {
    ...ts.convertCompilerOptionsFromJson(config.compilerOptions, root).options,
    paths: {
      "zephyr-align": [join(root, "ts/index.ts")],
      "zephyr-align/browser": [join(root, "ts/browser.ts")],
      "zephyr-align/bench": [join(root, "ts/bench.ts")],
    },
  };
  // Beside the package, so that what it depends on is found.
  const pathOf = (place: string) => join(root, "test", `${place.replace(/\W/g, "-")}.ts`);
  const virtual = new Map(texts.map(([place, code]) => [pathOf(place), `${code}\nexport {};\n`]));
  virtual.set(join(root, "test", "spoken-of.d.ts"), spokenOf);
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile } = host;
  host.fileExists = (path) => virtual.has(path) || fileExists(path);
  host.readFile = (path) => virtual.get(path) ?? readFile(path);
  host.getSourceFile = (path, version, ...rest) => {
    const text = virtual.get(path);
    return text === undefined ? getSourceFile(path, version, ...rest) : ts.createSourceFile(path, text, version);
  };
  const program = ts.createProgram([...virtual.keys()], options, host);
  return new Map(
    texts.map(([place]) => {
      const source = program.getSourceFile(pathOf(place))!;
      const found = [...program.getSyntacticDiagnostics(source), ...program.getSemanticDiagnostics(source)];
      return [place, found.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n"))];
    }),
  );
}

describe("code in the documents", () => {
  const wrong: [string, string][] = [
    ["a name that there is not", 'import { Mistrall } from "zephyr-align";'],
    [
      "an option that there is not",
      'import { SftTrainer } from "zephyr-align"; new SftTrainer({ model, dataset, epoch: 1 });',
    ],
    ["a name that nobody imports", 'await Mistral.fromPretrained("folder");'],
  ];
  const found = complaints([...code, ...wrong]);

  it.each(code)("%s compiles", (place) => expect(found.get(place)).toEqual([]));

  it.each(wrong)("%s would not", (place) => expect(found.get(place)).toHaveLength(1));

  it("is found", () => expect(code.length).toBeGreaterThan(10));
});
