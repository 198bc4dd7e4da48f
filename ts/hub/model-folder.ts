import { existsSync } from "node:fs";
import { notHereEither } from "./hub-request";
import { isRepositoryId } from "./repository";
import type { HubOptions } from "./settings";
import { snapshotDownload } from "./snapshot";

/** What a model is loaded from. Weights in other forms (pickles, `consolidated.safetensors`) are left where they are. */
const wanted =
  /^((adapter_)?model[^/]*\.safetensors(\.index\.json)?|(adapter_|generation_)?config\.json|tokenizer(_config)?\.json|special_tokens_map\.json|chat_template\.jinja)$/;

/** The folder of a model: a path as it is; for the id of a repository of the Hub, its files in the Hub's cache. */
export async function modelFolder(
  path: string,
  options: { revision?: string; hub?: HubOptions } = {},
): Promise<string> {
  if (!isRepositoryId(path) || existsSync(path)) return path;
  const { revision, hub } = options;
  const files = (file: string) => wanted.test(file);
  const found = await snapshotDownload(path, { ...hub, ...(revision === undefined ? {} : { revision }), files }).catch(
    (error) => {
      throw notHereEither(error, path);
    },
  );
  return found.folder;
}
