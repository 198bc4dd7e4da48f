import fc from "fast-check";
import { expect, it } from "vitest";
import { chosenOf } from "./choice";

/** The same choice with every token asked first. */
function plain(
  logprobs: Float32Array,
  fits: readonly boolean[],
  options: { temperature: number; topK: number; topP: number; minP: number },
  draw: number,
): number {
  const { temperature, topK, topP, minP } = options;
  const kept = fits.flatMap((fit, place) => (fit ? [place] : [])).slice(0, topK || fits.length);
  const weights = kept.map((place) => Math.exp((logprobs[place]! - logprobs[kept[0]!]!) / temperature));
  const goal = topP * weights.reduce((sum, weight) => sum + weight, 0);
  let [mass, count] = [0, 0];
  while (count < weights.length && mass < goal && weights[count]! >= minP) mass += weights[count++]!;
  let left = draw * mass;
  const at = weights.slice(0, count).findIndex((weight) => {
    left -= weight;
    return left < 0;
  });
  return kept[Math.max(at, 0)]!;
}

const tokens = fc.array(fc.tuple(fc.double({ min: -9, max: 0, noNaN: true }), fc.boolean()), {
  minLength: 1,
  maxLength: 60,
});
const unit = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });

it("is the choice that is made when every token is asked first", async () => {
  const options = fc.record({
    temperature: fc.double({ min: 0.1, max: 3, noNaN: true }),
    topK: fc.integer({ min: 0, max: 30 }),
    topP: fc.oneof(fc.constant(1), fc.double({ min: 0.01, max: 0.99, noNaN: true })),
    minP: fc.oneof(fc.constant(0), fc.double({ min: 0.001, max: 1, noNaN: true })),
  });
  await fc.assert(
    fc.asyncProperty(tokens, options, unit, fc.func(fc.boolean()), async (given, chosen, draw, hint) => {
      const sorted = given.toSorted(([a], [b]) => b - a);
      const logprobs = Float32Array.from(sorted, ([logprob]) => logprob);
      const fits = sorted.map(([, fit]) => fit);
      if (chosen.topK === 0 && chosen.topP === 1 && chosen.minP === 0) chosen.topK = 7;
      const mayFit = (place: number) => fits[place]! || hint(place);
      const found = (place: number) => (fits[place] ? { place } : undefined);
      const got = await chosenOf({ logprobs, mayFit, found }, chosen, () => draw);
      if (!fits.includes(true)) {
        expect(got).toBeUndefined();
        return;
      }
      // A draw that falls between two tokens to the last bit may be either's.
      const near = [0, -1e-9, 1e-9].map((by) => plain(logprobs, fits, chosen, Math.min(Math.max(draw + by, 0), 1)));
      expect(near).toContain(got?.place);
    }),
    { numRuns: 2000 },
  );
});

it("asks few tokens, and draws each that fits with its share of what fits", async () => {
  const size = 2000;
  const raw = Float64Array.from({ length: size }, (_, place) => 1 / (place + 1));
  const total = raw.reduce((sum, weight) => sum + weight, 0);
  const logprobs = Float32Array.from(raw, (weight) => Math.log(weight / total));
  const fits = (place: number) => place % 3 === 1;
  const fitting = raw.reduce((sum, weight, place) => sum + (fits(place) ? weight : 0), 0);
  const counts = new Map<number, number>();
  const rounds = 6000;
  let asked = 0;
  // Halton's sequences fill the unit interval evenly, each attempt's in a base of its own.
  const halton = (index: number, base: number) => {
    let [value, part] = [0, 1];
    for (let left = index; left > 0; left = Math.floor(left / base)) {
      part /= base;
      value += (left % base) * part;
    }
    return value;
  };
  const bases = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47];
  for (let round = 1; round <= rounds; round++) {
    const found = (place: number) => {
      asked++;
      return fits(place) ? { place } : undefined;
    };
    const random = (attempt: number) => halton(round, bases[attempt % bases.length]!);
    const { place } = (await chosenOf({ logprobs, mayFit: () => true, found }, { temperature: 1 }, random))!;
    counts.set(place, (counts.get(place) ?? 0) + 1);
  }
  expect(asked / rounds).toBeLessThan(8);
  for (const place of [1, 4, 7, 10, 40]) {
    expect((counts.get(place) ?? 0) / rounds).toBeCloseTo(raw[place]! / fitting, 2);
  }
  expect([...counts.keys()].every(fits)).toBe(true);
});
