/** Names of repositories, their files and revisions, and the addresses made of them. */
import { HubError } from "../errors";

/** A repository at the Hub. */
export interface Repository {
  kind: "models" | "datasets";
  /** For example `HuggingFaceH4/ultrachat_200k`. */
  id: string;
}

const name = /^[A-Za-z0-9_]([\w.-]*[A-Za-z0-9_])?$/;
const commit = /^[0-9a-f]{40}$/;

/** Whether a text is the id of a repository with its owner, `org/name`. */
export function isRepositoryId(text: string): boolean {
  const parts = text.split("/");
  return (
    parts.length === 2 && parts.every((part) => name.test(part) && !/--|\.\.|\.git$/.test(part) && part.length <= 96)
  );
}

/** The repository of an id. */
export function repository(kind: Repository["kind"], id: string): Repository {
  if (typeof id === "string" && isRepositoryId(id)) return { kind, id };
  throw new HubError("ZA_HUB_NOT_FOUND", `${JSON.stringify(id)} is no id of a repository`, {
    remedy: "Give owner and name, for example HuggingFaceH4/ultrachat_200k.",
  });
}

export function isCommit(revision: string): boolean {
  return commit.test(revision);
}

/** Folder of a repository in the cache, as huggingface_hub names it. */
export function folderName({ kind, id }: Repository): string {
  return `${kind}--${id.replace("/", "--")}`;
}

/** How a file of a repository is shown. */
export function shownPath({ kind, id }: Repository, revision: string, path = ""): string {
  const at = isCommit(revision) ? revision.slice(0, 12) : revision;
  return `hf://${kind === "datasets" ? "datasets/" : ""}${id}@${at}${path && `/${path}`}`;
}

export function apiUrl(endpoint: string, { kind, id }: Repository, path: string): string {
  return `${endpoint}/api/${kind}/${id}/${path}`;
}

/** Address of a file's content. */
export function fileUrl(endpoint: string, { kind, id }: Repository, revision: string, path: string): string {
  const encoded = path.split("/").map(encodeURIComponent).join("/");
  return `${endpoint}/${kind === "datasets" ? "datasets/" : ""}${id}/resolve/${encodeURIComponent(revision)}/${encoded}`;
}

/**
 * A path of a file in a repository that is safe to make into a local one, on every system: relative, without `..`, without
 * what Windows reads as a drive, a stream, a share or a device.
 *
 * @throws HubError `ZA_HUB_PATH`
 */
export function checkedPath(path: string, place: { file: string }): string {
  const parts = path.split("/");
  const bad =
    path === "" ||
    path.length > 1024 ||
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    /[\\:*?"<>|\x00-\x1f\x7f]/.test(path) ||
    parts.some((part) => part === "" || part === "." || part === ".." || /[. ]$/.test(part)) ||
    parts.some((part) => /^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i.test(part));
  if (!bad) return path;
  throw new HubError(
    "ZA_HUB_PATH",
    `the repository names a file ${JSON.stringify(path)}, which is not written to disk`,
    {
      place,
      remedy: "Names that lead out of the folder or mean something else on another system are refused.",
    },
  );
}

/** The same for a revision, which becomes a file's name too. */
export function checkedRevision(revision: string): string {
  if (/^[\w./-]+$/.test(revision) && !revision.split("/").some((part) => part === "" || /^\.+$/.test(part)))
    return revision;
  throw new HubError("ZA_HUB_REVISION", `${JSON.stringify(revision)} is no revision`, {
    remedy: "Give a branch, a tag or a commit.",
  });
}
