/** What a saved state belongs to: a run goes on only as the run that it was. */
import { createHash } from "node:crypto";
import { ConfigError } from "../errors";
import { native, packageVersion } from "../native/load";
import type { Run } from "./run";

/** Options that do not change what is computed; they may differ when a run is resumed. */
const free = [
  "resume",
  "resumeForce",
  "outputDir",
  "measurePeak",
  "device",
  "threads",
  "saveSteps",
  "keepCheckpoints",
  "stepTimeoutSeconds",
  "logTo",
  "sampleSteps",
  "referenceCache",
  "refBatchSize",
];

/** Everything that decides what a run computes. */
export interface Identity {
  version: string;
  method: string;
  config: Record<string, unknown>;
  /** Hashes of the encoded rows, and of the template that they were encoded with. */
  data: Record<string, unknown>;
  /** Decides the last bits of sums, not what is computed. */
  machine: { threads: number; simd: string; device: string };
}

/** The identity of a run as it is set up now. */
export function identityOf(run: Run): Identity {
  const config = Object.fromEntries(Object.entries(run.config).filter(([name]) => !free.includes(name)));
  const { threads, simd } = native().nativeInfo();
  const { device } = run.model;
  const { rows, kept, tokens, supervisedTokens } = run.report;
  const template = createHash("sha256").update(run.model.tokenizer.chatTemplate).digest("hex");
  return {
    version: packageVersion(),
    method: run.method,
    config,
    data: { rows, kept, tokens, supervisedTokens, ...run.digests, template },
    // Which card of one kind it is makes no difference, nor the name of a processor besides what it can.
    machine: { threads: run.config.threads ?? threads, simd, device: device.kind === "cpu" ? "cpu" : device.name },
  };
}

/** Paths of what differs, each with both values. */
export function differences(before: unknown, after: unknown, path = ""): string[] {
  if (typeof before !== "object" || typeof after !== "object" || before === null || after === null) {
    return Object.is(before, after) ? [] : [`${path} (was ${shown(before)}, is ${shown(after)})`];
  }
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys].flatMap((key) =>
    differences(
      (before as Record<string, unknown>)[key],
      (after as Record<string, unknown>)[key],
      path ? `${path}.${key}` : key,
    ),
  );
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? "not set";
  // A hash says "another one" with its first digits as well as with all.
  return /^"[0-9a-f]{64}"$/.test(text) ? text.slice(1, 9) : text;
}

/** The refusal of a resume that would go on as another run. */
export function otherRun(list: readonly string[], path: string): ConfigError {
  return new ConfigError("ZA_RESUME_DIFFERS", `the saved run differs in ${list.join(", ")}`, {
    place: { file: path },
    remedy:
      "Resume with the same configuration, data and version, start a new run in another outputDir, or set resumeForce to go on all the same.",
  });
}
