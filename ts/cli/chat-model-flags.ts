/**
 * What every command that asks a model shares: which model plays a role, and what may be spent. `addChatModelFlags` and
 * `addPaidFlags` add the flags, `openChatModels` turns them into guarded models.
 */
import { existsSync, statSync } from "node:fs";
import type { Command } from "commander";
import type { ChatModel, EstimateLine, Ledger, ModelTable } from "../client";
import { DryRun, mistralChat, OpenAiChat, openAiAddress, PaidCalls, readPrices } from "../client";
import { factsOf } from "../client/model-facts";
import { Mistral } from "../model/mistral";
import { numberBetween, wholeNumber } from "./arguments";
import { usageProblem } from "./config-options";
import { kebab } from "./flag-names";
import { estimateText, ledgerText } from "./spending-text";
import { styleOf } from "./style";

/** Values of the flags of {@link addPaidFlags}. */
export interface PaidFlags {
  journal?: string;
  maxDollars?: number;
  maxTotalTokens?: number;
  maxCalls?: number;
  rpm?: number;
  tpm?: number;
  concurrency?: number;
  prices?: string;
  batch?: boolean;
  reparse?: boolean;
  timeout?: number;
  dryRun?: boolean;
}

/** How models are opened. */
export interface OpenChatModelsOptions {
  /** The journal when no flag names one: beside what the command writes. */
  journal?: string;
  /** Calls that the work will make, for messages about what is left. */
  planned?: number;
  signal?: AbortSignal;
  /** Say nothing while waiting. */
  quiet?: boolean;
  /** Chat template with which the local models of a role answer: Jinja source, "zephyr" or "model". */
  templates?: Readonly<Record<string, string | undefined>>;
  /**
   * The offline model of a name; undefined for other names. It also answers in the place of all models in a dry run.
   * @default the offline teacher and its flawed writers
   */
  offline?: (name: string) => ChatModel | undefined | Promise<ChatModel | undefined>;
}

/** Models that are ready, and what goes with them. */
export interface OpenChatModels<Role extends string = string> {
  /** By role, in the order of the flags. Empty for a role without a flag. */
  models: Record<Role, ChatModel[]>;
  /** Calls to keep going at once. */
  concurrency: number;
  /** Whether nothing is asked and paid: what the work makes of the stand-in's answers is not to be kept. */
  dryRun: boolean;
  /** What was spent, over all runs with the same journal; in a dry run undefined. */
  ledger(): Promise<Ledger | undefined>;
  /** What would be spent; outside of a dry run undefined. */
  estimate(): EstimateLine[] | undefined;
  /** Ledger or estimate as a person reads it; empty when nothing was asked. */
  summary(): Promise<string>;
  /** Waits for what is paid for, and closes the journal. */
  close(): Promise<void>;
}

const collect = (text: string, before: string[] = []) => [...before, text];

/** Adds `--<role>`, `--<role>-url` and `--<role>-key-env`, each repeatable; a pool takes several names at once. */
export function addChatModelFlags(command: Command, role: string, what = `The ${role}`, pool = false): Command {
  return command
    .option(
      `--${role} <model${pool ? "..." : ""}>`,
      `${what}: offline, a model folder or GGUF file, or what a server calls its model.`,
      collect,
    )
    .option(
      `--${role}-url <url>`,
      "Its server, an OpenAI-compatible API. (default: OPENAI_BASE_URL, or OpenAI's)",
      collect,
    )
    .option(
      `--${role}-key-env <name>`,
      "Environment variable with its key. (default: OPENAI_API_KEY, for OpenAI)",
      collect,
    );
}

/** Adds what limits and remembers calls: `--journal`, the caps, rates, `--batch`, `--dry-run`. */
export function addPaidFlags(command: Command): Command {
  return command
    .optionsGroup("Calls and costs:")
    .option("--journal <file>", "Where every call is written down; the same one goes on and pays nothing twice.")
    .option("--max-dollars <x>", "Most dollars, over all runs with this journal.", numberBetween(0, 1e9))
    .option("--max-total-tokens <n>", "Most tokens, likewise.", wholeNumber(0))
    .option("--max-calls <n>", "Most calls, likewise.", wholeNumber(0))
    .option("--rpm <n>", "Calls a minute, for each model.", wholeNumber(1))
    .option("--tpm <n>", "Tokens a minute, for each model.", wholeNumber(1))
    .option("--concurrency <n>", "Calls at once, for each model. (default: 8)", wholeNumber(1))
    .option(
      "--timeout <seconds>",
      "Longest wait for an answer; above 300 it is streamed. (default: 300)",
      wholeNumber(1),
    )
    .option(
      "--prices <file>",
      'Prices of one\'s own: {"model": {"input": 0.5, "output": 1.5}}, dollars per million tokens.',
    )
    .option("--batch", "Hand calls over in batches: half the price, within a day.")
    .option("--reparse", "Read rejected answers of earlier runs again before the model is asked.")
    .option("--dry-run", "Ask and pay nothing: the offline teacher answers, and the cost is estimated.");
}

/**
 * Opens the models of the roles, guarded by one journal and one purse.
 *
 * @throws ConfigError for flags that do not fit together, ClientError `ZA_CLIENT_PRICE`, `ZA_JOURNAL_…`, ModelError
 */
export async function openChatModels<Role extends string>(
  flags: PaidFlags & Readonly<Record<string, unknown>>,
  roles: readonly Role[],
  { offline = offlineOf, ...rest }: OpenChatModelsOptions = {},
): Promise<OpenChatModels<Role>> {
  const options = { ...rest, offline };
  const prices = flags.prices === undefined ? {} : await readPrices(flags.prices);
  const opener = new Opener(flags, prices, options);
  const raw = {} as Record<Role, ChatModel[]>;
  for (const role of roles) raw[role] = await opener.ofRole(role);
  const journal = flags.journal ?? (opener.worthRemembering ? options.journal : undefined);
  return flags.dryRun
    ? dryRun(raw, roles, flags, prices, journal, options)
    : guarded(raw, roles, flags, prices, journal, options);
}

/** Loaded when it is asked for: it brings its world along. */
async function offlineOf(name: string): Promise<ChatModel | undefined> {
  const { isOfflineName, offlineModel } = await import("../distill/offline");
  return isOfflineName(name) ? offlineModel(name) : undefined;
}

/** The model of a role that is played by one. @throws ConfigError when there is none, or more */
export function onlyModel(models: readonly ChatModel[], role: string): ChatModel {
  const [model, ...more] = models;
  if (model && more.length === 0) return model;
  const problem = model ? `${models.length} models are given, one is needed` : "no model is given";
  throw usageProblem(
    `--${role}`,
    problem,
    "Give offline, a model folder or GGUF file, or what a server calls its model.",
  );
}

/** What `--json` says of the calls. */
export async function spending(asked: OpenChatModels): Promise<{ ledger?: Ledger; estimate?: EstimateLine[] }> {
  const [ledger, estimate] = [await asked.ledger(), asked.estimate()];
  return { ...(ledger ? { ledger } : {}), ...(estimate ? { estimate } : {}) };
}

async function guarded<Role extends string>(
  raw: Record<Role, ChatModel[]>,
  roles: readonly Role[],
  flags: PaidFlags,
  prices: ModelTable,
  journal: string | undefined,
  { planned, signal, quiet }: OpenChatModelsOptions,
): Promise<OpenChatModels<Role>> {
  const { maxDollars, maxTotalTokens, maxCalls, rpm, tpm, concurrency, batch, reparse } = flags;
  if (batch && journal === undefined) throw usageProblem("--batch", "batches need a journal", "Give --journal.");
  const { dim } = styleOf(process.stderr);
  const calls = await PaidCalls.open({
    journal,
    prices,
    signal,
    ...defined({ maxDollars, maxTotalTokens, maxCalls, rpm, tpm, concurrency, batch, reparse, planned }),
    ...(quiet ? {} : { onNotice: (text: string) => void process.stderr.write(`${dim(text)}\n`) }),
  });
  try {
    const guard = (model: ChatModel) => calls.guard(model);
    const models = Object.fromEntries(roles.map((role) => [role, raw[role].map(guard)]));
    return {
      models: models as Record<Role, ChatModel[]>,
      concurrency: calls.concurrency,
      dryRun: false,
      ledger: () => calls.ledger(),
      estimate: () => undefined,
      summary: async () => ledgerText(await calls.ledger(), journal),
      close: () => calls.close(),
    };
  } catch (error) {
    await calls.close();
    throw error;
  }
}

async function dryRun<Role extends string>(
  raw: Record<Role, ChatModel[]>,
  roles: readonly Role[],
  flags: PaidFlags,
  prices: ModelTable,
  journal: string | undefined,
  { offline }: OpenChatModelsOptions,
): Promise<OpenChatModels<Role>> {
  const standIn = await offline?.("offline");
  if (!standIn) throw usageProblem("--dry-run", "this command has no stand-in for its models", "Leave it out.");
  const run = await DryRun.open({ standIn, journal, prices, ...defined({ batch: flags.batch }) });
  const models = Object.fromEntries(roles.map((role) => [role, raw[role].map((model) => run.guard(model))]));
  return {
    models: models as Record<Role, ChatModel[]>,
    concurrency: flags.concurrency ?? 8,
    dryRun: true,
    ledger: async () => undefined,
    estimate: () => run.estimate(),
    summary: async () => estimateText(run.estimate()),
    close: () => run.close(),
  };
}

/** Makes models of flags. A local model that plays several roles is loaded once. */
class Opener {
  /** Whether a model is there whose answers cost money or time. */
  worthRemembering = false;
  readonly #flags: Readonly<Record<string, unknown>> & PaidFlags;
  readonly #prices: ModelTable;
  readonly #options: OpenChatModelsOptions;
  readonly #local = new Map<string, Promise<ChatModel>>();

  constructor(
    flags: PaidFlags & Readonly<Record<string, unknown>>,
    prices: ModelTable,
    options: OpenChatModelsOptions,
  ) {
    this.#flags = flags;
    this.#prices = prices;
    this.#options = options;
  }

  async ofRole(role: string): Promise<ChatModel[]> {
    const names = this.#values(role);
    const kinds = await Promise.all(
      names.map(async (name) => ({ name, offline: await this.#options.offline?.(name) })),
    );
    const servers = kinds.filter(({ name, offline }) => !offline && !isLocal(name));
    const urls = this.#forEach(`${role}Url`, servers.length);
    const keyNames = this.#forEach(`${role}KeyEnv`, servers.length);
    let server = 0;
    const models: ChatModel[] = [];
    for (const { name, offline } of kinds) {
      if (offline) models.push({ ...free, ...bound(offline) });
      else if (isLocal(name)) models.push(await this.#loaded(name, this.#options.templates?.[role]));
      else {
        models.push(this.#remote(role, name, urls?.[server], keyNames?.[server]));
        server++;
      }
    }
    return models;
  }

  #values(key: string): string[] {
    const value = this.#flags[camel(key)];
    return value === undefined ? [] : ([value].flat() as string[]);
  }

  /** One value for all, or one for each. */
  #forEach(key: string, count: number): string[] | undefined {
    const values = this.#values(key);
    if (values.length === 0) return undefined;
    if (values.length === 1) return Array.from({ length: count }, () => values[0]!);
    if (values.length === count) return values;
    const problem = `there are ${values.length} of it for ${count} models of servers`;
    throw usageProblem(
      `--${kebab(key)}`,
      problem,
      "Give it once for all of them, or once for each, in the same order.",
    );
  }

  #loaded(path: string, template = "model"): Promise<ChatModel> {
    this.worthRemembering = true;
    const key = JSON.stringify([path, template]);
    const loading =
      this.#local.get(key) ??
      Mistral.fromPretrained(path, { quantization: "auto" }).then((model) =>
        mistralChat(model.withTemplate(template), { name: path }),
      );
    this.#local.set(key, loading);
    return loading;
  }

  #remote(role: string, given: string, url: string | undefined, keyName: string | undefined): ChatModel {
    this.worthRemembering = true;
    const name = given.startsWith(serverPrefix) ? given.slice(serverPrefix.length) : given;
    const baseUrl = url ?? process.env.OPENAI_BASE_URL ?? openAiAddress;
    // A key is sent only where it belongs: OpenAI's to OpenAI, or to where the environment points.
    const own = url === undefined || url.startsWith("https://api.openai.com/");
    const key = keyName === undefined ? (own ? process.env.OPENAI_API_KEY : undefined) : process.env[keyName];
    // Nobody is asked in a dry run.
    const needed = !this.#flags.dryRun;
    if (needed && keyName !== undefined && !key) {
      const remedy = `Set it: ${keyName}=… zephyr-align …`;
      throw usageProblem(`--${role}-key-env`, `the environment variable ${keyName} is not set`, remedy);
    }
    if (needed && !key && baseUrl === openAiAddress) {
      const remedy = `Set OPENAI_API_KEY, or give --${role}-key-env, or the server of the model with --${role}-url.`;
      throw usageProblem(`--${role}`, `${name} is no file here, and there is no key to ask OpenAI for it`, remedy);
    }
    const { timeout } = this.#flags;
    const facts = factsOf(name, this.#prices);
    return new OpenAiChat({
      model: name,
      baseUrl,
      key,
      ...(facts ? { facts } : {}),
      ...(timeout === undefined ? {} : { timeoutSeconds: timeout, stream: timeout > 300 }),
    });
  }
}

/** Says that a name means a server's model, even if there is a file of that name. */
const serverPrefix = "server:";

const free = { facts: { input: 0, output: 0 } } as const;

/** The parts of a model as an object that can be extended: its methods may stand in its class. */
function bound(model: ChatModel): ChatModel {
  const { name, endpoint, facts, capabilities } = model;
  return {
    name,
    endpoint: endpoint ?? "offline",
    ...(facts ? { facts } : {}),
    capabilities,
    complete: (request) => model.complete(request),
  };
}

/** Whether a name is a folder or a file here, and no server's model. */
export function isLocal(name: string): boolean {
  if (name.startsWith(serverPrefix)) return false;
  // A path that is not there is a mistake, not a server's name; loading says so.
  return (
    name.startsWith("hf:") ||
    name.endsWith(".gguf") ||
    /^\.{0,2}\//.test(name) ||
    (existsSync(name) && statSync(name).isDirectory())
  );
}

/** `teacherUrl` of `teacher-url` or `teacherUrl`, as commander names it. */
function camel(key: string): string {
  return key.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}

/** Only what is given: exact optional types, and defaults that an undefined would hide. */
function defined<T extends object>(values: T): { [Key in keyof T]?: Exclude<T[Key], undefined> } {
  const given = Object.entries(values).filter(([, value]) => value !== undefined);
  return Object.fromEntries(given) as { [Key in keyof T]?: Exclude<T[Key], undefined> };
}
