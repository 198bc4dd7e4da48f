/**
 * Random choices as pure functions of a seed and a name. Nothing is drawn in turn, so that no choice depends on how many
 * were made before it, on concurrency or on where a run was interrupted.
 */
import { createHash } from "node:crypto";

/** What names a draw, for example `("persona", promptId)`. */
export type DrawPath = readonly (string | number)[];

/** A uniform number in [0, 1). */
export function draw(seed: number, ...path: DrawPath): number {
  const bits = createHash("sha256")
    .update(JSON.stringify([seed, ...path]))
    .digest()
    .readUIntBE(0, 6);
  return bits / 2 ** 48;
}

/** A whole number from low to high, both included. */
export function drawInteger(low: number, high: number, seed: number, ...path: DrawPath): number {
  return low + Math.floor(draw(seed, ...path) * (high - low + 1));
}

/** One element of a list that is not empty. */
export function drawOne<T>(list: readonly T[], seed: number, ...path: DrawPath): T {
  return list[drawInteger(0, list.length - 1, seed, ...path)]!;
}

/** One key, in proportion to its weight. */
export function drawWeighted<Key extends string>(
  weights: Readonly<Partial<Record<Key, number>>>,
  seed: number,
  ...path: DrawPath
): Key {
  const entries = Object.entries(weights).filter(([, weight]) => (weight as number) > 0) as [Key, number][];
  let left = draw(seed, ...path) * entries.reduce((sum, [, weight]) => sum + weight, 0);
  for (const [key, weight] of entries) {
    left -= weight;
    if (left < 0) return key;
  }
  return entries.at(-1)![0];
}

/** The list in random order. */
export function drawOrder<T>(list: readonly T[], seed: number, ...path: DrawPath): T[] {
  return list
    .map((item, index) => ({ item, index, at: draw(seed, ...path, index) }))
    .sort((a, b) => a.at - b.at || a.index - b.index)
    .map(({ item }) => item);
}

/** A seed for a server: 31 bits. */
export function seedOf(seed: number, ...path: DrawPath): number {
  return Math.floor(draw(seed, ...path) * 2 ** 31);
}
