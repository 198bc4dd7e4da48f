/** Fetching a benchmark's own files from where they are published. The package holds their hashes, not their texts. */
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { aborted, fromNative, JudgeError, throwIfAborted } from "../errors";
import { sha256 } from "./rows";

/** A published file. */
export interface PublishedFile {
  /** Path under the benchmark's folder, the same as where it is published. */
  path: string;
  bytes: number;
  sha256: string;
}

/** Where a benchmark is published. */
export interface Publication {
  title: string;
  /** Address of the folder, of one fixed commit. */
  url: string;
  licence: string;
  files: readonly PublishedFile[];
  /** What cannot be fetched with a known hash, and where it is. */
  note?: string;
}

export const publications = {
  "mt-bench": {
    title: "MT-Bench: 80 questions, 8 judge prompts, 30 reference answers (lm-sys/FastChat)",
    url: "https://raw.githubusercontent.com/lm-sys/FastChat/0e6d3e4beaab66f4d3f93db72541a4abab8af28d/fastchat/llm_judge/",
    licence: "Apache-2.0",
    files: [
      {
        path: "data/mt_bench/question.jsonl",
        bytes: 48_929,
        sha256: "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
      },
      {
        path: "data/judge_prompts.jsonl",
        bytes: 10_449,
        sha256: "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
      },
      {
        path: "data/mt_bench/reference_answer/gpt-4.jsonl",
        bytes: 51_109,
        sha256: "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
      },
    ],
  },
  "alpaca-eval": {
    title: "AlpacaEval: both judge prompts, the published length-control weights (tatsu-lab/alpaca_eval)",
    url: "https://raw.githubusercontent.com/tatsu-lab/alpaca_eval/cd543a149df89434d8a54582c0151c0b945c3d20/src/alpaca_eval/",
    licence: "Apache-2.0",
    files: [
      {
        path: "evaluators_configs/alpaca_eval_gpt4/alpaca_eval.txt",
        bytes: 1204,
        sha256: "cf4bace43fa6ac71944b9ca2506587ad7c509478a219e98a3950abf9d5b42a98",
      },
      {
        path: "evaluators_configs/alpaca_eval_clf_gpt4_turbo/alpaca_eval_clf.txt",
        bytes: 1398,
        sha256: "784227e6dc2832fc08c43d2c8ea3a308e7523780187a1aaad2f85e30bac85f62",
      },
      {
        path: "metrics/weights/weighted_alpaca_eval_gpt4_turbo/length_controlled_v1/baseline_gpt4_1106_preview.csv",
        bytes: 15_758,
        sha256: "3bd6d5a46327020f1b3eea79ac62d537f89a953d44ab0a6da83c954e36a23254",
      },
    ],
    note: "The instructions with the baseline's outputs (non-commercial, CC BY-NC 4.0), instruction_difficulty.csv and df_gamed.csv are in the data set tatsu-lab/alpaca_eval on the Hugging Face hub.",
  },
} as const satisfies Record<string, Publication>;

/** A benchmark that can be fetched. */
export type PulledBenchmark = keyof typeof publications;

/** The folder of a benchmark in the user's cache: `$XDG_CACHE_HOME/zephyr-align/<name>`, else under `~/.cache`. */
export function benchmarkFolder(name: PulledBenchmark): string {
  const { XDG_CACHE_HOME } = process.env;
  return join(XDG_CACHE_HOME ? XDG_CACHE_HOME : join(homedir(), ".cache"), "zephyr-align", name);
}

/** Options of {@link pullBenchmark}. */
export interface PullOptions {
  /** @default {@link benchmarkFolder} */
  folder?: string;
  /** Address that the paths are fetched from, for a mirror. The hashes stay. @default the publication's */
  url?: string;
  signal?: AbortSignal;
  /** Called for each file: fetched now, or there already. */
  onFile?: (file: PublishedFile, fetched: boolean) => void;
}

/**
 * Fetches what is missing of a benchmark, and checks all of it against the known hashes.
 *
 * @returns the folder
 * @throws JudgeError `ZA_PULL` when a file cannot be fetched, `ZA_PULL_HASH` when it is not the published one; nothing of
 * it is kept then.
 */
export async function pullBenchmark(name: PulledBenchmark, options: PullOptions = {}): Promise<string> {
  const { folder = benchmarkFolder(name), signal } = options;
  const publication: Publication = publications[name];
  const base = options.url ?? publication.url;
  for (const file of publication.files) {
    const path = join(folder, file.path);
    const present = await readFile(path).catch(() => undefined);
    const fetched = !present || sha256(present) !== file.sha256;
    if (fetched)
      await store(path, await download(new URL(file.path, base.endsWith("/") ? base : `${base}/`), file, signal));
    options.onFile?.(file, fetched);
  }
  return folder;
}

const attempts = 3;

async function download(url: URL, file: PublishedFile, signal: AbortSignal | undefined): Promise<Uint8Array> {
  for (let attempt = 1; ; attempt++) {
    throwIfAborted(signal);
    try {
      const response = await fetch(url, signal ? { signal } : {});
      if (response.status >= 500 && attempt < attempts) throw new Error(`HTTP ${response.status}`);
      if (!response.ok) throw failed(url, `the server says ${response.status} ${response.statusText}`.trim());
      const bytes = new Uint8Array(await response.arrayBuffer());
      if (sha256(bytes) === file.sha256) return bytes;
      throw new JudgeError(
        "ZA_PULL_HASH",
        `${url} gives ${bytes.length} bytes that are not the published file (${file.bytes} bytes, sha256 ${file.sha256.slice(0, 12)}…)`,
        { remedy: "Check the address; a proxy or a mirror may have changed the file. Nothing was kept." },
      );
    } catch (error) {
      if (signal?.aborted) throw aborted(signal.reason);
      if (error instanceof JudgeError) throw error;
      if (attempt >= attempts) throw failed(url, reasonOf(error), error);
      await new Promise((resolve) => setTimeout(resolve, 200 * 2 ** attempt));
    }
  }
}

/** fetch says only "fetch failed"; what failed is its cause. */
function reasonOf(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return cause instanceof Error ? cause.message : String(cause);
}

function failed(url: URL, reason: string, cause?: unknown): JudgeError {
  return new JudgeError("ZA_PULL", `${url} cannot be fetched: ${reason}`, {
    ...(cause === undefined ? {} : { cause }),
    remedy: "Check the network, give --url of a mirror, or copy the files by hand and give their folder.",
  });
}

async function store(path: string, bytes: Uint8Array): Promise<void> {
  const temporary = `${path}.${process.pid}.tmp`;
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(temporary, bytes, { flush: true });
    await rename(temporary, path);
  } catch (error) {
    throw fromNative(error, { file: path });
  }
}
