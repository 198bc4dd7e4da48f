/** Which GGUF file of a repository is meant. */
import { HubError } from "../errors";

/** A model in one file, or in the parts that gguf-split makes of it. */
export interface GgufModel {
  /** Path without part and ending. */
  stem: string;
  /** In the order of their numbers. */
  files: string[];
  /** Parts by their names. */
  parts: number;
}

/** Files that go with models: projectors of images, matrices of importance. */
const companion = /(^|\/)(mmproj|imatrix)|imatrix\.gguf$/i;

/** The GGUF models among a repository's files, by path. */
export function ggufModels(files: readonly { path: string }[]): GgufModel[] {
  const models = new Map<string, GgufModel>();
  for (const { path } of [...files].sort((a, b) => (a.path < b.path ? -1 : 1))) {
    const name = /^(.+?)(?:-\d{5}-of-(\d{5}))?\.gguf$/i.exec(path);
    if (!name || companion.test(path)) continue;
    const [, stem = "", parts] = name;
    const model = models.get(`${stem} ${parts}`) ?? { stem, files: [], parts: Number(parts ?? 1) };
    model.files.push(path);
    models.set(`${stem} ${parts}`, model);
  }
  return [...models.values()];
}

/**
 * The model of a quantisation (`Q4_K_M`: the end of its name, or its folder) or of a path; without either the only one.
 *
 * @throws HubError `ZA_HUB_FILE`
 */
export function chosenGguf(
  models: readonly GgufModel[],
  { id, variant }: { id: string; variant?: string },
  place: string,
): GgufModel {
  const found = variant === undefined ? [...models] : models.filter((model) => isVariant(model, variant));
  const [one, ...more] = found;
  const error = (problem: string, remedy: string) =>
    new HubError("ZA_HUB_FILE", problem, { place: { file: place }, remedy });
  if (one === undefined) {
    const there = models.length > 0 ? `There are ${listed(models)}.` : "It has no GGUF file at all.";
    throw error(`the model has no GGUF file ${variant}`, there);
  }
  if (more.length > 0) {
    const naming = variant === undefined ? quantisationOf(one) : `${one.files[0]}`;
    const problem = variant === undefined ? "the model has several GGUF files" : `several GGUF files are ${variant}`;
    throw error(problem, `Name one, for example hf:${id}:${naming}. There are ${listed(found)}.`);
  }
  const last = `-of-${String(one.parts).padStart(5, "0")}.gguf`;
  for (let part = 1; one.parts > 1 && part <= one.parts; part++) {
    const path = `${one.stem}-${String(part).padStart(5, "0")}${last}`;
    if (!one.files.includes(path)) throw error(`the model's part ${path} is missing`, "Take another quantisation.");
  }
  return one;
}

function isVariant({ stem, files }: GgufModel, variant: string): boolean {
  if (variant.toLowerCase().endsWith(".gguf")) return files.includes(variant);
  const [name = "", folder = ""] = stem.toLowerCase().split("/").reverse();
  const wanted = variant.toLowerCase();
  return name === wanted || folder === wanted || [".", "-", "_"].some((mark) => name.endsWith(mark + wanted));
}

/** The last part of a name that llama.cpp would call a type, else the whole path. */
function quantisationOf({ stem, files }: GgufModel): string {
  const found = /(?:^|[-._/])((?:i?q\d|tq\d|bf16|f16|f32|mxfp4)[a-z0-9_]*)$/i.exec(stem)?.[1];
  return found ?? `${files[0]}`;
}

function listed(models: readonly GgufModel[]): string {
  const names = models.map(quantisationOf);
  const shown = new Set(names).size === names.length ? names : models.map(({ files }) => `${files[0]}`);
  return shown.length > 12 ? `${shown.slice(0, 12).join(", ")} …` : shown.join(", ");
}
