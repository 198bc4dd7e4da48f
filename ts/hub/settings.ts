/** Where the Hub is, who asks, and where files are kept: options first, then the environment variables of huggingface_hub. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { ConfigError } from "../errors";

/** How the Hub is reached. Everything has the default of huggingface_hub. */
export interface HubOptions {
  /** Address of the Hub or of a mirror. @default `$HF_ENDPOINT`, else https://huggingface.co */
  endpoint?: string;
  /**
   * Access token, for gated and private repositories; `false` sends none. It is sent to the endpoint only and is never
   * printed. @default `$HF_TOKEN`, else the file `$HF_TOKEN_PATH` or `$HF_HOME/token`
   */
  token?: string | false;
  /** Folder of the Hub's cache, shared with Python. @default `$HF_HUB_CACHE`, else `$HF_HOME/hub` */
  cacheDir?: string;
  /** Use what is in the cache and ask nobody. @default `$HF_HUB_OFFLINE` */
  offline?: boolean;
  /** Called while files are downloaded. */
  onProgress?: (progress: HubProgress) => void;
  /** Stops the work; what was downloaded of a file stays and is used by the next attempt. */
  signal?: AbortSignal;
}

/** What has been downloaded. */
export interface HubProgress {
  /** For example `HuggingFaceH4/ultrachat_200k`. */
  repository: string;
  /** The file under way, its bytes so far and in all. */
  file: string;
  loaded: number;
  total: number;
  /** Bytes of all files wanted: those there now, those already in the cache among them, and all. */
  loadedInAll: number;
  totalInAll: number;
}

/** Options and environment, resolved. */
export interface HubSettings {
  endpoint: string;
  /** Read when it is needed; undefined: none. */
  token: () => string | undefined;
  cacheDir: string;
  offline: boolean;
  symlinks: boolean;
  onProgress: ((progress: HubProgress) => void) | undefined;
  signal: AbortSignal | undefined;
}

/** Options and environment together. */
export function hubSettings(options: HubOptions = {}): HubSettings {
  const { env } = process;
  const home = env.HF_HOME || join(env.XDG_CACHE_HOME || join(homedir(), ".cache"), "huggingface");
  return {
    endpoint: checkedEndpoint(options.endpoint ?? (env.HF_ENDPOINT || "https://huggingface.co")),
    token: () => tokenOf(options.token, home),
    cacheDir: expanded(options.cacheDir ?? (env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, "hub"))),
    offline: options.offline ?? isTrue(env.HF_HUB_OFFLINE || env.TRANSFORMERS_OFFLINE || env.HF_DATASETS_OFFLINE),
    symlinks: !isTrue(env.HF_HUB_DISABLE_SYMLINKS),
    onProgress: options.onProgress,
    signal: options.signal,
  };
}

function checkedEndpoint(endpoint: string): string {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  if (url && ["http:", "https:"].includes(url.protocol) && url.username === "" && url.search === "") {
    return endpoint.replace(/\/+$/, "");
  }
  throw new ConfigError("ZA_CONFIG_INVALID", "the address of the Hub is no http(s) address", {
    place: { field: "endpoint (HF_ENDPOINT)" },
    remedy: "Give an address like https://huggingface.co, without user name, password or query.",
  });
}

function tokenOf(option: string | false | undefined, home: string): string | undefined {
  if (option === false) return undefined;
  const { HF_TOKEN, HUGGING_FACE_HUB_TOKEN, HF_TOKEN_PATH } = process.env;
  const given =
    option || HF_TOKEN || HUGGING_FACE_HUB_TOKEN || fileText(expanded(HF_TOKEN_PATH || join(home, "token")));
  const token = given?.trim();
  if (token === undefined || token === "") return undefined;
  // A header with other characters would be refused with a message that quotes it.
  if (/^[\x21-\x7e]+$/.test(token)) return token;
  throw new ConfigError("ZA_CONFIG_INVALID", "the token holds characters that no token has", {
    place: { field: "token (HF_TOKEN)" },
    remedy: "Copy it again from the settings of your account.",
  });
}

function fileText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

function expanded(path: string): string {
  return path.startsWith("~/") ? join(homedir(), path.slice(2)) : path;
}

function isTrue(value: string | undefined): boolean {
  return ["1", "ON", "YES", "TRUE"].includes((value ?? "").toUpperCase());
}
