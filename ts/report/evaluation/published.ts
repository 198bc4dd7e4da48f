/**
 * Figures that others have published, to stand beside ours. They were measured by other people with other judges' versions:
 * a page marks them as published and never computes with them.
 */
import type { JudgeProtocol } from "../../judge/result";

/** A published figure. */
export interface PublishedFigure {
  value: number;
  /** Where one is published. */
  standardError: number | null;
  source: PublishedSource;
}

/** A model with its published figures. */
export interface PublishedRow {
  model: string;
  /** Parameters; null where they are not published. */
  size: string | null;
  /** How it was aligned, in the paper's words. */
  align: string | null;
  figures: Partial<Record<PublishedName, PublishedFigure>>;
}

/** Columns of the results table. */
export type PublishedName = "mt-bench" | "alpaca-eval-1.0" | "alpaca-eval-2.0" | "alpaca-eval-2.0-lc";

/** Where figures come from. */
export const publishedSources = {
  zephyr: "Zephyr (arXiv 2310.16944), table 1, as on the model card of zephyr-7b-beta",
  "alpaca-eval-1.0": "tatsu-lab/alpaca_eval, leaderboard of AlpacaEval 1.0 (commit cd543a1)",
  "alpaca-eval-2.0": "tatsu-lab/alpaca_eval, leaderboard of AlpacaEval 2.0 (commit cd543a1)",
} as const;

/** A key of {@link publishedSources}. */
export type PublishedSource = keyof typeof publishedSources;

/** MT-Bench and AlpacaEval 1.0, then win rate and length-controlled win rate of AlpacaEval 2.0. */
function row(
  model: string,
  size: string | null,
  align: string | null,
  [mtBench, alpacaEval]: readonly [number | null, number | null],
  leaderboard: {
    one?: readonly [rate: number, error: number];
    two?: readonly [rate: number, error: number, lc: number];
  } = {},
): PublishedRow {
  const { one, two } = leaderboard;
  const figure = (value: number | null | undefined, source: PublishedSource, standardError: number | null = null) =>
    value === null || value === undefined ? undefined : { value, standardError, source };
  const figures = {
    "mt-bench": figure(mtBench, "zephyr"),
    // The paper's two digits are those of the leaderboard, which knows the error as well.
    "alpaca-eval-1.0": one ? figure(one[0], "alpaca-eval-1.0", one[1]) : figure(alpacaEval, "zephyr"),
    "alpaca-eval-2.0": figure(two?.[0], "alpaca-eval-2.0", two?.[1]),
    "alpaca-eval-2.0-lc": figure(two?.[2], "alpaca-eval-2.0"),
  };
  const known = Object.entries(figures).filter(([, each]) => each !== undefined);
  return { model, size, align, figures: Object.fromEntries(known) };
}

/** The rows of the paper's table, smaller models first as there. */
export const publishedRows: readonly PublishedRow[] = [
  row("StableLM-Tuned-α", "7B", "dSFT", [2.75, null]),
  row("MPT-Chat", "7B", "dSFT", [5.42, null]),
  row("Xwin-LM v0.1", "7B", "dPPO", [6.19, 87.83]),
  row("Mistral-Instruct v0.1", "7B", null, [6.84, null]),
  row("Zephyr-7B-α", "7B", "dDPO", [6.88, null], {
    one: [85.7587064676617, 1.2285451680042003],
    two: [8.352663968198758, 0.8664491644524538, 10.289760888704258],
  }),
  row("Zephyr-7B-β", "7B", "dDPO", [7.34, 90.6], {
    one: [90.5977584059776, 1.0287080531312012],
    two: [10.992885755354038, 0.9617876718039866, 13.203198493136666],
  }),
  row("Llama2-Chat", "13B", "RLHF", [null, null], {
    one: [81.09452736318407, 1.3817573087734825],
    two: [7.702309957875775, 0.8286143393809762, 8.436014548885215],
  }),
  row("Vicuna v1.3", "33B", "dSFT", [7.12, 88.99]),
  row("Falcon-Instruct", "40B", "dSFT", [5.17, 45.71], {
    one: [45.71428571428572, 1.7524717060805597],
    two: [3.3429188224720505, 0.5541127159067186, 5.6075325447394455],
  }),
  row("Guanaco", "65B", "SFT", [6.41, 71.8]),
  row("Llama2-Chat", "70B", "RLHF", [6.86, 92.66], {
    one: [92.66169154228857, 0.911762258320568],
    two: [13.88825834374378, 1.079984772728814, 14.689648588392544],
  }),
  row("WizardLM v1.0", "70B", "dSFT", [7.71, null]),
  row("Xwin-LM v0.1", "70B", "dPPO", [null, 95.57]),
  row("GPT-3.5-turbo (0301)", null, "RLHF", [7.94, 89.37], {
    one: [89.36567164179104, 1.0789487022114888],
    two: [9.622453295105588, 0.9129656686751644, 18.09324155198033],
  }),
  row("Claude 2", null, "RLHF", [8.06, 91.36], { two: [17.188240356708075, 1.17482825615589, 28.155196141629148] }),
  row("GPT-4", null, "RLHF", [8.99, 95.28], { one: [95.27950310559004, 0.716281440286153] }),
];

/** The column that a protocol's headline stands in; none where only this run's opponent gives it a meaning. */
export function columnOf(protocol: JudgeProtocol): PublishedName | undefined {
  return protocol === "mt-bench-pair" ? undefined : protocol;
}
