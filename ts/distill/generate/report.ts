import type { DropReason } from "./filters";
import { type Sector, sectorNames } from "./sectors";

/** What was dropped for one reason; the first few openings are shown. */
export interface Dropped {
  count: number;
  examples: string[];
}

/** Something that a model was asked for and that could not be read. */
export interface PlanFailure {
  what: string;
  problem: string;
}

/** What a generation made, dropped and why. Grows while it goes on. */
export interface GenerationReport {
  conversations: number;
  sectors: Record<Sector, number>;
  /** Conversations by the user's persona. */
  personas: Record<string, number>;
  rounds: { least: number; most: number; mean: number };
  /** Mean words of a user turn and of an answer. */
  words: { user: number; assistant: number };
  splits: { train: number; test: number };
  /** Openings that were drawn; those dropped as duplicates among them. */
  openings: number;
  dropped: Partial<Record<DropReason, Dropped>>;
  /** Conversations changed: `truecased` in case, `shortened` before a cut answer, `passagesCut` given texts. */
  changed: { truecased: number; shortened: number; passagesCut: number };
  failures: PlanFailure[];
  /** Whether the plan had no more openings before all conversations were made. */
  exhausted: boolean;
  /** Calls, and how many of them came out of the journal. */
  calls: { made: number; journalled: number };
}

export function emptyReport(): GenerationReport {
  return {
    conversations: 0,
    sectors: Object.fromEntries(sectorNames.map((name) => [name, 0])) as Record<Sector, number>,
    personas: {},
    rounds: { least: 0, most: 0, mean: 0 },
    words: { user: 0, assistant: 0 },
    splits: { train: 0, test: 0 },
    openings: 0,
    dropped: {},
    changed: { truecased: 0, shortened: 0, passagesCut: 0 },
    failures: [],
    exhausted: false,
    calls: { made: 0, journalled: 0 },
  };
}

/** Examples of each reason that are kept. */
const examplesKept = 5;

export function countDropped(report: GenerationReport, reason: DropReason, opening: string): void {
  const entry = report.dropped[reason] ?? { count: 0, examples: [] };
  report.dropped[reason] = entry;
  entry.count++;
  if (entry.examples.length < examplesKept)
    entry.examples.push(opening.length > 160 ? `${opening.slice(0, 157)}…` : opening);
}

/** A mean that takes in another value. */
export function meanWith(mean: number, count: number, value: number): number {
  return mean + (value - mean) / count;
}
