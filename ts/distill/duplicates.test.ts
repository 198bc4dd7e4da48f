import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Duplicates, similarity } from "./duplicates";

const word = fc.constantFrom(
  ..."red blue green hat cat dog sun moon runs sees has the a of in on under over big small".split(" "),
);
const text = fc.array(word, { minLength: 1, maxLength: 30 }).map((words) => words.join(" "));

describe("Duplicates", () => {
  it("finds the same words whatever their case, marks and spaces", () => {
    const seen = new Duplicates();
    expect(seen.add("What is a hat?")).toBeUndefined();
    expect(seen.add("what  IS a hat")).toEqual({ kind: "exact", index: 0 });
    expect(seen.add("What is a cat?")).toBeUndefined();
    expect(seen.size).toBe(2);
  });

  it("keeps scopes apart", () => {
    const seen = new Duplicates();
    expect(seen.add("Sum up the text.", "one")).toBeUndefined();
    expect(seen.add("Sum up the text.", "two")).toBeUndefined();
    expect(seen.add("Sum up the text.", "one")).toEqual({ kind: "exact", index: 0 });
  });

  it("calls nothing a duplicate that is less similar than the threshold, and names the earlier text", () => {
    fc.assert(
      fc.property(
        fc.array(text, { maxLength: 40 }),
        fc.double({ min: 0.3, max: 1, noNaN: true }),
        (texts, threshold) => {
          const seen = new Duplicates(threshold);
          const kept: string[] = [];
          for (const each of texts) {
            const found = seen.add(each);
            if (!found) kept.push(each);
            else if (found.kind === "exact") expect(kept[found.index]).toBe(each);
            else expect(similarity(each, kept[found.index]!)).toBeGreaterThanOrEqual(threshold);
          }
          expect(seen.size).toBe(kept.length);
          expect(new Set(kept).size).toBe(kept.length);
        },
      ),
    );
  });

  it("with threshold 1 finds exact duplicates only", () => {
    const seen = new Duplicates(1);
    const long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen";
    expect(seen.add(long)).toBeUndefined();
    expect(seen.add(`${long} fifteen`)).toBeUndefined();
  });

  it("finds nearly all pairs of similarity 0.8, among thousands of other texts", () => {
    const seen = new Duplicates(0.7);
    const words = (n: number) => Array.from({ length: 40 }, (_, i) => `w${(n * 7919 + i * i * 31 + i) % 5000}`);
    let pairs = 0;
    let found = 0;
    for (let n = 0; n < 2000; n++) {
      const original = words(n);
      expect(seen.add(original.join(" "))).toBeUndefined();
      // One word exchanged spoils three of 38 runs.
      const changed = original.with(n % 40, "other");
      if (similarity(original.join(" "), changed.join(" ")) < 0.8) continue;
      pairs++;
      if (seen.add(changed.join(" "))?.kind === "near") found++;
    }
    expect(pairs).toBeGreaterThan(1500);
    expect(found / pairs).toBeGreaterThan(0.98);
  });
});
