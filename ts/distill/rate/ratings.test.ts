import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { grammarOf } from "../../serve/constrained/json-schema";
import { aspectNames, aspects } from "../prompts/rating";
import { parseCritique, parseRatings, ratingSchema } from "./ratings";

const two = ["honesty", "helpfulness"] as const;

describe("parseRatings", () => {
  it("reads the form that was asked for", () => {
    const text =
      "Response 1\nHonesty: 4 - mostly\nHelpfulness: 2 - short\n\nResponse 2\nHonesty: 5 - yes\nHelpfulness: 3 - fine";
    expect(parseRatings(text, two, 2).value).toEqual([
      { honesty: { rating: 4, rationale: "mostly" }, helpfulness: { rating: 2, rationale: "short" } },
      { honesty: { rating: 5, rationale: "yes" }, helpfulness: { rating: 3, rationale: "fine" } },
    ]);
  });

  it("reads what models make of it", () => {
    const text = `Here are my ratings.

## Response 1:
- **Honesty**: 4/5 – It says "Honesty: 2" somewhere, in quotes.

  It has a second paragraph, which speaks of response 2.

- **Helpfulness (rating)**: [3]
  Rationale: of use

**Response 2**
1. Honesty: N/A
2. Helpfulness: Rating: 1 out of 5. It is empty.`;
    const { value } = parseRatings(text, two, 2);
    expect(value?.[0]?.honesty?.rating).toBe(4);
    expect(value?.[0]?.honesty?.rationale).toMatch(/^It says[\s\S]*second paragraph/);
    expect(value?.[0]?.helpfulness).toEqual({ rating: 3, rationale: "of use" });
    expect(value?.[1]).toEqual({
      honesty: { rating: null, rationale: "" },
      helpfulness: { rating: 1, rationale: "It is empty." },
    });
  });

  it("reads whatever fits its schema, which knows the number of responses", () => {
    for (const count of [1, 4]) {
      const schema = ratingSchema(two, count);
      const grammar = grammarOf(schema, "schema");
      const letters = [...new Set(Array.from(`${JSON.stringify(schema)}\\ `, (each) => each.codePointAt(0)!))];
      fc.assert(
        fc.property(fc.infiniteStream(fc.nat()), (choices) => {
          let [state, text] = [grammar.start(), ""];
          while (!state.ended) {
            const room = 200 * count - text.length;
            const ways = letters.filter((codePoint) => (state.after(codePoint)?.least ?? room) < room);
            const codePoint = ways[choices.next().value! % ways.length]!;
            text += String.fromCodePoint(codePoint);
            state = state.after(codePoint)!;
          }
          const { value, problem } = parseRatings(text, two, count);
          expect(problem, text).toBeUndefined();
          expect(value).toHaveLength(count);
        }),
        { numRuns: 60 },
      );
    }
  });

  it("reads JSON, alone, fenced, by keys or as a list", () => {
    const responses = [
      { response: 2, honesty: { rationale: "b", rating: 2 } },
      { response: 1, honesty: { rationale: "a", rating: 1 } },
    ];
    for (const text of [
      JSON.stringify({ responses }),
      `\`\`\`json\n${JSON.stringify({ responses }, null, 2)}\n\`\`\``,
      JSON.stringify(responses),
      JSON.stringify({ response_2: responses[0], response_1: responses[1] }),
      JSON.stringify({ responses: { 1: responses[1], 2: responses[0] } }),
    ]) {
      expect(parseRatings(text, ["honesty"], 2).value?.map((each) => each.honesty?.rating)).toEqual([1, 2]);
    }
  });

  it("says what is missing, twice there or out of range, and never guesses", () => {
    const problem = (text: string) => parseRatings(text, two, 2).problem;
    const good = "Response 1\nHonesty: 4\nHelpfulness: 2\n";
    expect(problem("I like them all.")).toMatch(/Response 1/);
    expect(problem(good)).toMatch(/response 2 has no ratings/);
    expect(problem(`${good}Response 2\nHonesty: 4`)).toMatch(/response 2 has no rating for Helpfulness/);
    expect(problem(`${good}Response 2\nHonesty: 8\nHelpfulness: 1`)).toMatch(/is 8, outside 1 to 5/);
    expect(problem(`${good}Response 2\nHonesty: 0\nHelpfulness: 1`)).toMatch(/is 0, outside/);
    expect(problem(`${good}Response 2\nHonesty: 4.5\nHelpfulness: 1`)).toMatch(/not a whole number/);
    expect(problem(`${good}Response 2\nHonesty: 8/10\nHelpfulness: 1`)).toMatch(/out of 10, not out of 5/);
    expect(problem(`${good}Response 2\nHonesty: 4\nHonesty: 2\nHelpfulness: 1`)).toMatch(/two ratings/);
    expect(problem(`${good}Response 1\nHonesty: 4\nHelpfulness: 1`)).toMatch(/rated twice/);
    expect(problem(`${good}Response 2\nHonesty: 4\nHelpfulness: 1\nResponse 3\nHonesty: 4\nHelpfulness: 1`)).toMatch(
      /no response 3/,
    );
    expect(problem('{"responses": [{"response": 1, "honesty": {"rating": "4"}}]}')).toMatch(/not a number/);
    expect(problem('{"response_2": {"honesty": {"rating": 4}, "helpfulness": {"rating": 4}}}')).toMatch(
      /response 1 has no ratings/,
    );
    expect(problem('{"ratings": 4}')).toMatch(/no responses/);
  });

  it("finds any ratings in any decoration, whatever the rationales say", () => {
    const rating = fc.integer({ min: 1, max: 5 });
    const rationale = fc.lorem({ maxCount: 3, mode: "sentences" });
    const blank = fc.constantFrom("\n", "\n\n", " \n");
    const style = fc.constantFrom(
      (title: string, n: number, why: string) => `${title}: ${n} - ${why}`,
      (title: string, n: number, why: string) => `**${title}**: ${n}/5\n${why}`,
      (title: string, n: number, why: string) => `- ${title.toUpperCase()}: [${n}] ${why}`,
      (title: string, n: number, why: string) => `### ${title}: **${n}**\n\n${why}`,
    );
    const response = fc.tuple(...aspectNames.map(() => fc.tuple(rating, rationale)));
    fc.assert(
      fc.property(fc.array(response, { minLength: 1, maxLength: 5 }), style, blank, (all, line, gap) => {
        const text = all
          .map(
            (rows, index) =>
              `Response ${index + 1}:${gap}${rows.map(([n, why], i) => line(aspects[aspectNames[i]!].title, n, why)).join(gap)}`,
          )
          .join("\n\n");
        const { value } = parseRatings(text, aspectNames, all.length);
        expect(value?.map((each) => aspectNames.map((name) => each[name]?.rating))).toEqual(
          all.map((rows) => rows.map(([n]) => n)),
        );
        expect(value?.[0]?.honesty?.rationale).toBe(all[0]![1]![1].trim());
      }),
    );
  });
});

describe("parseCritique", () => {
  it("takes the last line that names the score", () => {
    const text = 'The answer claims "Overall score: 10".\n\nIt is wrong.\n\n**Overall Score: 2/10**';
    expect(parseCritique(text).value).toEqual({
      critique: 'The answer claims "Overall score: 10".\n\nIt is wrong.',
      score: 2,
    });
    expect(parseCritique("Overall score: 7\nBecause it is good.").value).toEqual({
      critique: "Because it is good.",
      score: 7,
    });
    expect(parseCritique('{"critique": "fine", "overall_score": 8.5}').value).toEqual({ critique: "fine", score: 8.5 });
  });

  it("keeps 1 a 1: no score is ever multiplied (the bug of UltraFeedback#8)", () => {
    const form = fc.constantFrom(
      (score: number) => `So so.\nOverall score: ${score}`,
      (score: number) => `So so.\n\n**Overall Score**: ${score}/10`,
      (score: number) => `So so.\n- Overall score: [${score}] out of 10.`,
      (score: number) => `So so. OVERALL_SCORE = ${score}`,
      (score: number) => JSON.stringify({ critique: "So so.", overall_score: score }),
      (score: number) => `\`\`\`json\n${JSON.stringify({ critique: "So so.", overall_score: score })}\n\`\`\``,
    );
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 20 }), form, (halves, write) => {
        expect(parseCritique(write(halves / 2)).value?.score).toBe(halves / 2);
      }),
    );
  });

  it("refuses what lies outside 1 to 10, and scales that were not asked for", () => {
    for (const score of ["0", "0.1", "0.8", "-3", "11", "100"]) {
      expect(parseCritique(`Fine. Overall score: ${score}`).problem, score).toMatch(/outside 1 to 10/);
      expect(parseCritique(`{"critique": "", "overall_score": ${score}}`).problem, score).toMatch(/outside 1 to 10/);
    }
    expect(parseCritique("Overall score: 4/5").problem).toMatch(/out of 5/);
    expect(parseCritique("I give it a good mark.").problem).toMatch(/no line/);
    expect(parseCritique('{"critique": "x", "overall_score": "ten"}').problem).toMatch(/not a number/);
  });
});
