import { z } from "zod";
import type { ChatModel } from "../../client";
import { resolved } from "../options";
import { defaultSectors, type Sector, type SectorSettings, sectorNames } from "./sectors";

const count = z.int().positive();
const sector = z
  .strictObject({
    /** Share of the openings, relative to the other sectors'; 0 leaves the sector out. */
    weight: z.number().min(0),
    /** Fewest and most rounds. */
    rounds: z
      .tuple([count, count])
      .refine(([least, most]) => least <= most, "the fewest rounds are more than the most"),
    /** Words of an answer, as the assistant is told. */
    answerWords: count,
  })
  .partial();

/** Plain options of the generator; every key may be left out but `conversations`. */
export const generateFields = {
  /** Conversations to make. */
  conversations: count,
  /** @default 42 */
  seed: z.int().nonnegative().default(42),
  sectors: z.strictObject({ world: sector, writing: sector, material: sector }).partial().default({}),
  /** Topics of each sector that are asked for. @default 30 */
  topics: count.max(1000).default(30),
  /** Subtopics of each topic that are asked for. @default 30 */
  subtopics: count.max(1000).default(30),
  /** First messages of one call. @default 10 */
  openings: count.max(100).default(10),
  /** Requests about each given text in one call. @default 4 */
  requests: count.max(100).default(4),
  /** Longest given text in words; a longer one is cut at the end of a sentence. @default 600 */
  passageWords: count.default(600),
  /** Longest answer in tokens. @default 1024 */
  maxTokens: count.default(1024),
  /** Of the answers. @default 0.7 */
  temperature: z.number().min(0).max(2).default(0.7),
  /** Of topics, openings and the simulated user. @default 1 */
  userTemperature: z.number().min(0).max(2).default(1),
  /** Similarity from which an opening is a near duplicate; 1 drops exact duplicates only. @default 0.7 */
  nearDuplicates: z.number().min(0.3).max(1).default(0.7),
  /** Mend sentences that begin with a small letter. @default true */
  truecase: z.boolean().default(true),
  /** Words that the longest answer of a conversation has at least. @default 5 */
  minAnswerWords: z.int().nonnegative().default(5),
  /** Share of conversations for the test splits. @default 0.1 */
  testShare: z.number().min(0).max(1).default(0.1),
  /** Conversations under way at once. @default 4 */
  concurrency: count.max(100_000).default(4),
};

const schema = z.strictObject(generateFields);

/** Options as a user writes them. */
export type GenerateSettingsInput = z.input<typeof schema>;

/** Options with nothing left out. */
export type GenerateSettings = Omit<z.output<typeof schema>, "sectors"> & {
  sectors: Readonly<Record<Sector, SectorSettings>>;
};

/** What the generator is given. */
export interface GenerateOptions extends GenerateSettingsInput {
  /** Plays the assistant and plans. */
  teacher: ChatModel;
  /** Plays the user. @default the teacher */
  user?: ChatModel;
  /** Texts for the material sector; without them the teacher writes them. */
  passages?: AsyncIterable<string> | Iterable<string>;
  /** Says what an opening overlaps with that must be kept out, for example `overlapFilter`. */
  keepOut?: (opening: string) => string | undefined;
  signal?: AbortSignal;
}

/** Checks the plain options and fills in the defaults. Throws `ZA_CONFIG_INVALID` with all problems. */
export function generateSettings(input: GenerateSettingsInput): GenerateSettings {
  const { sectors, ...rest } = resolved(schema, input);
  const filled = sectorNames.map((name): [Sector, SectorSettings] => {
    const given = Object.entries(sectors[name] ?? {}).filter(([, value]) => value !== undefined);
    return [name, { ...defaultSectors[name], ...Object.fromEntries(given) }];
  });
  return { ...rest, sectors: Object.fromEntries(filled) as Record<Sector, SectorSettings> };
}
