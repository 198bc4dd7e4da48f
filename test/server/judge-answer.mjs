/**
 * Models and judges by name: `ours` answers, `rater` rates by the length of what it reads, `first` likes the first of two,
 * `weigher` weighs two outputs by log-probabilities, and likes the one that begins with an o.
 */
export default function answer({ model, messages }) {
  const question = messages.at(-1).content;
  if (model === "rater") return `It is long enough. Rating: [[${1 + (question.length % 10)}]]`;
  if (model === "first") return "[[A]]";
  if (model === "weigher") {
    const ours = question.includes("m: o") ? "m" : "M";
    const top = ["m", "M"].map((token) => ({ token, logprob: token === ours ? -0.3 : -1.2 }));
    return { text: ours, logprobs: [{ token: ours, logprob: -0.3, top }] };
  }
  return `o${question}`.repeat(1 + (question.length % 3)).slice(0, 200);
}
