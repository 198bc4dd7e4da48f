/** UltraChat's three sectors, and how long conversations of each should be. */

/** Names of the sectors. */
export const sectorNames = ["world", "writing", "material"] as const;

/** Questions about the world, writing and creation, assistance on given material. */
export type Sector = (typeof sectorNames)[number];

/** Targets of a sector. */
export interface SectorSettings {
  /** Share of the openings, relative to the other sectors'; 0 leaves the sector out. */
  weight: number;
  /** Fewest and most rounds (a user turn and its answer). The target of a conversation is drawn between them. */
  rounds: readonly [least: number, most: number];
  /** Words of an answer, as the assistant is told. */
  answerWords: number;
}

/**
 * Rounds are UltraChat's (its README: 3–7, 2–4, 2–4). Half of its dialogues are questions about the world.
 */
export const defaultSectors: Readonly<Record<Sector, SectorSettings>> = {
  world: { weight: 2, rounds: [3, 7], answerWords: 250 },
  writing: { weight: 1, rounds: [2, 4], answerWords: 500 },
  material: { weight: 1, rounds: [2, 4], answerWords: 250 },
};

/** Lengths of user turns, as the simulated user is told. */
export const userLengths: Readonly<Record<Sector, { first: string; next: readonly string[] }>> = {
  world: {
    first: "one or two sentences",
    next: ["a few words", "one sentence", "one or two sentences", "two or three sentences"],
  },
  writing: {
    first: "one to four sentences",
    next: ["one sentence", "one or two sentences", "two or three sentences"],
  },
  material: {
    first: "one or two sentences",
    next: ["a few words", "one sentence", "one or two sentences"],
  },
};

/** Length of a text that the teacher writes for the material sector. */
export const passageLength = "100 to 200 words";
