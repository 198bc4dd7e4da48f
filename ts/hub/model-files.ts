/** A model's files: on this machine, or at the Hub. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { HubError } from "../errors";
import { chosenGguf, ggufModels } from "./gguf-files";
import { notHereEither } from "./hub-request";
import { listFiles } from "./listing";
import { isRepositoryId, repository, shownPath } from "./repository";
import { type HubOptions, hubSettings } from "./settings";
import { download } from "./snapshot";

/** What a model is loaded from. Weights in other forms (pickles, `consolidated.safetensors`) are left where they are. */
const wanted =
  /^((adapter_)?model[^/]*\.safetensors(\.index\.json)?|(adapter_|generation_)?config\.json|tokenizer(_config)?\.json|special_tokens_map\.json|chat_template\.jinja)$/;

const prefix = "hf:";

/** A model at the Hub; `variant` is a quantisation, or the path of a GGUF file. */
interface HubModel {
  id: string;
  variant?: string;
}

/** What a source means at the Hub: `org/name`, `hf:org/name`, `hf:org/name:Q4_K_M`; undefined for a path. */
export function hubModelOf(source: string): HubModel | undefined {
  if (!source.startsWith(prefix)) return isRepositoryId(source) && !existsSync(source) ? { id: source } : undefined;
  const [, id = "", variant] = /^([^:]*)(?::(.+))?$/.exec(source.slice(prefix.length)) ?? [];
  if (isRepositoryId(id)) return { id, ...(variant === undefined ? {} : { variant }) };
  throw new HubError("ZA_HUB_NOT_FOUND", `${JSON.stringify(source)} names no model at the Hub`, {
    remedy: "Give hf:org/name, or hf:org/name:Q4_K_M for a GGUF file of that quantisation.",
  });
}

/**
 * Where a model lies: a path as it is; of a repository of the Hub its files in the Hub's cache, which is a folder, or a GGUF
 * file where there is nothing else or one is named.
 *
 * @throws HubError `ZA_HUB_FILE` for a quantisation that is not there (the message lists what is), and what downloading gives
 */
export async function modelPath(
  source: string,
  options: { revision?: string; hub?: HubOptions } = {},
): Promise<string> {
  const model = hubModelOf(source);
  if (model === undefined) return source;
  const settings = hubSettings(options.hub);
  const found = repository("models", model.id);
  const listing = await listFiles(found, options.revision ?? "main", settings).catch((error) => {
    throw source.startsWith(prefix) ? error : notHereEither(error, source);
  });
  const ggufs = ggufModels(listing.files);
  const hasFolder = listing.files.some(({ path }) => wanted.test(path) && path.endsWith(".safetensors"));
  if (model.variant === undefined && (hasFolder || ggufs.length === 0)) {
    const { folder } = await download(found, listing, (path) => wanted.test(path), settings);
    return folder;
  }
  const { files } = chosenGguf(ggufs, model, shownPath(found, listing.commit));
  const { folder } = await download(found, listing, (path) => files.includes(path), settings);
  return join(folder, ...(files[0] as string).split("/"));
}
