/** The rated answers of a row in UltraFeedback's layout, as far as they are there: a page shows what it finds. */

/** An answer with what was said about it. */
export interface RatedAnswer {
  model: string | null;
  text: string;
  /** Mean of the aspects' ratings, 1 to 5. */
  mean: number | null;
  /** Score of the critique, 1 to 10. */
  overall: number | null;
  /** Aspects in the order of the row. */
  aspects: { name: string; rating: string; rationale: string }[];
  critique: string | null;
}

/** The answers of a row; none when it has no list `completions`. */
export function ratedAnswers(raw: unknown): RatedAnswer[] {
  const { completions } = object(raw);
  return Array.isArray(completions) ? completions.map(ratedAnswer) : [];
}

function ratedAnswer(raw: unknown): RatedAnswer {
  const answer = object(raw);
  const aspects = Object.entries(object(answer.annotations)).map(([name, value]) => {
    const { Rating: rating, Rationale: rationale } = object(value);
    return { name, rating: text(rating) ?? "–", rationale: text(rationale) ?? "" };
  });
  const ratings = aspects.map(({ rating }) => Number(rating)).filter((each) => each >= 1 && each <= 5);
  const mean = ratings.length > 0 ? ratings.reduce((sum, each) => sum + each, 0) / ratings.length : null;
  return {
    model: text(answer.model),
    text: text(answer.response) ?? "",
    mean: mean ?? number(answer["fine-grained_score"]),
    overall: number(answer.overall_score),
    aspects,
    critique: text(answer.critique),
  };
}

function object(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

function text(value: unknown): string | null {
  return typeof value === "string" ? value : typeof value === "number" ? String(value) : null;
}

function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}
