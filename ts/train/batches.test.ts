import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type PlanOptions, planBatches } from "./batches";
import { pack } from "./packing";

const options = fc.record({
  rows: fc.integer({ min: 1, max: 200 }),
  batchSize: fc.integer({ min: 1, max: 20 }),
  gradientAccumulation: fc.integer({ min: 1, max: 9 }),
  epochs: fc.integer({ min: 1, max: 3 }),
  maxSteps: fc.constant(null),
  seed: fc.nat(),
  shuffle: fc.boolean(),
});

const all = (plan: ReturnType<typeof planBatches>) =>
  Array.from({ length: plan.totalSteps }, (_, i) => plan.step(i + 1));

describe("planBatches", () => {
  it("visits every row exactly once an epoch, in batches of the asked size", () => {
    fc.assert(
      fc.property(options, (given) => {
        const steps = all(planBatches(given));
        for (let epoch = 0; epoch < given.epochs; epoch++) {
          const mine = steps.filter((step) => step.epoch === epoch);
          const batches = mine.flatMap((step) => step.microBatches);
          expect(batches.flatMap((batch) => [...batch]).sort((a, b) => a - b)).toEqual(
            Array.from({ length: given.rows }, (_, i) => i),
          );
          for (const batch of batches.slice(0, -1)) expect(batch).toHaveLength(given.batchSize);
          for (const step of mine.slice(0, -1)) expect(step.microBatches).toHaveLength(given.gradientAccumulation);
          expect(mine.at(-1)!.microBatches.length).toBeGreaterThan(0);
          expect(mine.at(-1)!.epochsDone).toBe(epoch + 1);
        }
        expect(steps.at(-1)!.step).toBe(steps.length);
      }),
    );
  });

  it("keeps packs whole: every row once an epoch, batches of so many packs, as many steps as planned", () => {
    const lengths = fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 80 });
    fc.assert(
      fc.property(lengths, fc.integer({ min: 60, max: 200 }), options, (rows, room, given) => {
        const { packs } = pack(rows, room);
        const plan = planBatches({ ...given, rows: rows.length, packs });
        const steps = all(plan);
        const perEpoch = Math.ceil(Math.ceil(packs.length / given.batchSize) / given.gradientAccumulation);
        expect(steps).toHaveLength(given.epochs * perEpoch);
        const packOf = new Map(packs.flatMap((documents, index) => Array.from(documents, (row) => [row, index])));
        for (let epoch = 0; epoch < given.epochs; epoch++) {
          const batches = steps.filter((step) => step.epoch === epoch).flatMap((step) => step.microBatches);
          expect(batches.flatMap((batch) => [...batch]).sort((a, b) => a - b)).toEqual(rows.map((_, row) => row));
          for (const batch of batches) {
            const whole = new Set(Array.from(batch, (row) => packOf.get(row)!));
            expect(whole.size).toBeLessThanOrEqual(given.batchSize);
            expect(batch).toHaveLength([...whole].reduce((sum, index) => sum + packs[index]!.length, 0));
          }
        }
      }),
    );
  });

  it("resumes anywhere: a step does not depend on the steps before", () => {
    fc.assert(
      fc.property(options, fc.nat(), (given, pick) => {
        const plan = planBatches(given);
        const step = 1 + (pick % plan.totalSteps);
        expect(planBatches(given).step(step)).toEqual(all(plan)[step - 1]);
      }),
    );
  });

  it("the same rows in a step for any split of batch and accumulation", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100 }), fc.nat(), (rows, seed) => {
        const rowsOf = (batchSize: number, gradientAccumulation: number) => {
          const given: PlanOptions = {
            rows,
            batchSize,
            gradientAccumulation,
            epochs: 2,
            maxSteps: null,
            seed,
            shuffle: true,
          };
          return all(planBatches(given)).map((step) => step.microBatches.flatMap((batch) => [...batch]));
        };
        const reference = rowsOf(8, 1);
        expect(rowsOf(1, 8)).toEqual(reference);
        expect(rowsOf(2, 4)).toEqual(reference);
        expect(rowsOf(4, 2)).toEqual(reference);
      }),
    );
  });

  const base: PlanOptions = {
    rows: 5,
    batchSize: 1,
    gradientAccumulation: 4,
    epochs: 1,
    maxSteps: null,
    seed: 1,
    shuffle: false,
  };

  it("keeps the last, smaller window (case 14): two steps, epochs 0.8 and 1", () => {
    const steps = all(planBatches(base));
    expect(steps.map((step) => step.microBatches.length)).toEqual([4, 1]);
    expect(steps.map((step) => step.epochsDone)).toEqual([0.8, 1]);
    expect(steps.flatMap((step) => step.microBatches.flatMap((batch) => [...batch]))).toEqual([0, 1, 2, 3, 4]);
  });

  it("counts steps for fractions of an epoch and for maxSteps over several epochs", () => {
    expect(planBatches({ ...base, rows: 40, epochs: 0.25 }).totalSteps).toBe(3);
    expect(planBatches({ ...base, rows: 40, epochs: 1.1 }).totalSteps).toBe(11);
    const plan = planBatches({ ...base, epochs: null, maxSteps: 5 });
    expect(plan.totalSteps).toBe(5);
    expect(plan.step(5).epoch).toBe(2);
    expect(() => plan.step(6)).toThrow(RangeError);
    expect(() => planBatches({ ...base, rows: 0 })).toThrow(RangeError);
  });
});
