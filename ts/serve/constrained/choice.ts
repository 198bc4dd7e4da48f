/**
 * Choosing one of the tokens that fit, as the core chooses: temperature, top-k, top-p, min-p. Whether a token fits is asked
 * only where the choice depends on it, and the choice is as if it had been asked of all.
 */
import type { GenerateOptions } from "../../model/generation";
import { breaks } from "../../report/view/breaks";

/** The tokens that may come next, the most probable first. */
export interface Tokens<Found> {
  logprobs: Float32Array;
  /** Whether the token at a place may fit: quick, and never wrongly false. */
  mayFit: (place: number) => boolean;
  /** What the token at a place leads to, if it fits. */
  found: (place: number) => Found | undefined;
}

/** Draws that may hit a token that does not fit, before all are asked. */
const mostMisses = 64;

/**
 * @param random the draw of a number, uniform in [0, 1)
 * @returns undefined when none fits
 */
export async function chosenOf<Found>(
  tokens: Tokens<Found>,
  options: Pick<GenerateOptions, "temperature" | "topK" | "topP" | "minP">,
  random: (attempt: number) => number,
): Promise<Found | undefined> {
  const { temperature = 0, topK = 0, topP = 1, minP = 0 } = options;
  const { logprobs, mayFit } = tokens;
  const asked = { ...tokens, pause: breaks() };
  let first = 0;
  let best: Found | undefined;
  for (; first < logprobs.length; first++) {
    best = mayFit(first) ? await ask(asked, first) : undefined;
    if (best) break;
  }
  if (!best || temperature === 0 || !Number.isFinite(1 / temperature)) return best;
  const top = logprobs[first] as number;
  const weightOf = (place: number) => Math.exp(((logprobs[place] as number) - top) / temperature);
  if (topK === 0 && topP === 1 && minP === 0) return drawn(asked, best, first, weightOf, random);
  return drawnFromFirst(asked, best, first, weightOf, { topK: topK || logprobs.length, topP, minP }, random(0));
}

type Asked<Found> = Tokens<Found> & { pause: () => Promise<void> | undefined };

function ask<Found>(tokens: Asked<Found>, place: number): Found | undefined | Promise<Found | undefined> {
  const others = tokens.pause();
  return others ? others.then(() => tokens.found(place)) : tokens.found(place);
}

/**
 * Draws from all, and again among the others where the drawn one does not fit: so each that fits comes with its share of
 * what fits, though only the drawn ones were asked.
 */
async function drawn<Found>(
  tokens: Asked<Found>,
  best: Found,
  first: number,
  weightOf: (place: number) => number,
  random: (attempt: number) => number,
): Promise<Found> {
  const weights = new Float64Array(tokens.logprobs.length);
  for (let place = first; place < weights.length; place++) if (tokens.mayFit(place)) weights[place] = weightOf(place);
  const drawPlace = (attempt: number) => {
    let total = 0;
    for (let place = first; place < weights.length; place++) total += weights[place] as number;
    let left = random(attempt) * total;
    for (let place = first; place < weights.length; place++) {
      left -= weights[place] as number;
      if (left < 0) return place;
    }
    return first;
  };
  for (let attempt = 0; attempt < mostMisses; attempt++) {
    const place = drawPlace(attempt);
    if (place === first) return best;
    const found = await ask(tokens, place);
    if (found) return found;
    weights[place] = 0;
  }
  // Little of what is probable fits.
  for (let place = first + 1; place < weights.length; place++) {
    if (weights[place] !== 0 && !(await ask(tokens, place))) weights[place] = 0;
  }
  const place = drawPlace(mostMisses);
  return place === first ? best : ((await ask(tokens, place)) as Found);
}

/**
 * Draws among the most probable that fit. How far these go depends on what all others weigh that fit; they are asked, the
 * heaviest first, until the drawn one is the same whatever is still to come.
 */
async function drawnFromFirst<Found>(
  tokens: Asked<Found>,
  best: Found,
  first: number,
  weightOf: (place: number) => number,
  { topK, topP, minP }: { topK: number; topP: number; minP: number },
  draw: number,
): Promise<Found> {
  const { logprobs, mayFit } = tokens;
  const kept = [best];
  /** Of those that fit up to each: their weights together. */
  const sums = [1];
  let unasked = 0;
  for (let place = first + 1; place < logprobs.length; place++) if (mayFit(place)) unasked += weightOf(place);
  /** What those weigh that weigh enough for min-p. */
  let heavy = Number.POSITIVE_INFINITY;
  let weight = 1;
  for (let place = first + 1; place < logprobs.length && kept.length < topK; place++) {
    if (!mayFit(place)) continue;
    const sum = sums.at(-1) as number;
    // What still comes may weigh nothing, or at most this.
    const most = Math.min(Math.max(unasked, 0), (topK - kept.length) * weight);
    const least = above(sums, draw * Math.min(massOf(sums, topP * sum), heavy));
    if (least === above(sums, draw * Math.min(massOf(sums, topP * (sum + most)) + (most && weight), heavy))) {
      return kept[least] as Found;
    }
    weight = weightOf(place);
    unasked -= weight;
    const found = await ask(tokens, place);
    if (!found) continue;
    if (weight < minP && heavy > sum) heavy = sum;
    kept.push(found);
    sums.push(sum + weight);
  }
  return kept[above(sums, draw * Math.min(massOf(sums, topP * (sums.at(-1) as number)), heavy))] as Found;
}

/** What those weigh together of which top-p takes no more than are needed for a goal; the goal, where these are not enough. */
function massOf(sums: readonly number[], goal: number): number {
  return sums[placeOf(sums, (sum) => sum >= goal)] ?? goal;
}

/** The first at which the weights together are above what was drawn. */
function above(sums: readonly number[], drawn: number): number {
  return placeOf(sums, (sum) => sum > drawn);
}

/** The first of growing sums that passes a test; their number if none does. */
function placeOf(sums: readonly number[], test: (sum: number) => boolean): number {
  let [low, high] = [0, sums.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (test(sums[middle] as number)) high = middle;
    else low = middle + 1;
  }
  return low;
}
