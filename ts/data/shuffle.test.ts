import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { shuffled, unshuffled } from "./shuffle";

const list = (permutation: (i: number) => number, n: number) => Array.from({ length: n }, (_, i) => permutation(i));

describe("shuffled", () => {
  it("is a permutation of every length", () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.nat(100), fc.nat(3000), (seed, epoch, n) => {
        const rows = new Set(list(shuffled(seed, epoch, n), n));
        expect(rows.size).toBe(n);
        for (const row of rows) expect(row >= 0 && row < n).toBe(true);
      }),
    );
  });

  it("depends on seed, epoch and length, and on nothing else", () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.nat(100), fc.integer({ min: 50, max: 500 }), (seed, epoch, n) => {
        const order = list(shuffled(seed, epoch, n), n);
        expect(list(shuffled(seed, epoch, n), n)).toEqual(order);
        expect(list(shuffled(seed, epoch + 1, n), n)).not.toEqual(order);
        expect(list(shuffled(seed + 1, epoch, n), n)).not.toEqual(order);
        expect(order).not.toEqual(list(unshuffled(n), n));
      }),
    );
  });

  it("gives any position alone: resuming needs no table", () => {
    const n = 1_000_003;
    const order = shuffled(42, 3, n);
    const again = shuffled(42, 3, n);
    for (const position of [n - 1, 0, 500_000]) expect(again(position)).toBe(order(position));
    expect(shuffled(1, 0, 2 ** 40)(12345)).toBeLessThan(2 ** 40);
  });

  it("reaches all orders of three rows about equally often, and puts no row at the front more often", () => {
    const orders = new Map<string, number>();
    for (let seed = 0; seed < 6000; seed++) {
      const key = list(shuffled(seed, 0, 3), 3).join();
      orders.set(key, (orders.get(key) ?? 0) + 1);
    }
    expect(orders.size).toBe(6);
    // 1000 ± 5 standard deviations of a fair draw.
    for (const count of orders.values()) expect(Math.abs(count - 1000)).toBeLessThan(145);
    const front = new Array(100).fill(0);
    for (let seed = 0; seed < 20_000; seed++) front[shuffled(seed, 1, 100)(0)]++;
    const chiSquare = front.reduce((sum, count) => sum + (count - 200) ** 2 / 200, 0);
    // 99 degrees of freedom: mean 99, standard deviation 14.
    expect(chiSquare).toBeLessThan(99 + 5 * 14.1);
  });

  it("refuses positions and lengths outside", () => {
    expect(() => shuffled(0, 0, 5)(5)).toThrow(RangeError);
    expect(() => shuffled(0, 0, 5)(-1)).toThrow(RangeError);
    expect(() => shuffled(0, 0, -1)).toThrow(RangeError);
    expect(() => unshuffled(2)(2)).toThrow(RangeError);
  });
});
