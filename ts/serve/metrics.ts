/** Figures of a running server in Prometheus' text format (version 0.0.4). */

type Labels = Readonly<Record<string, string>>;

/** A figure that only grows, or with `set` one that moves; one series for each set of labels. */
class Figure {
  readonly #values = new Map<string, number>();

  constructor(
    readonly name: string,
    readonly help: string,
    readonly type: "counter" | "gauge",
  ) {}

  add(amount: number, labels: Labels = {}): void {
    const key = labelText(labels);
    this.#values.set(key, (this.#values.get(key) ?? 0) + amount);
  }

  set(value: number, labels: Labels = {}): void {
    this.#values.set(labelText(labels), value);
  }

  lines(): string[] {
    return [...this.#values].map(([labels, value]) => `${this.name}${labels} ${value}`);
  }
}

/** How often a duration was at most so many seconds. */
class Histogram {
  readonly type = "histogram";
  readonly #series = new Map<string, { labels: Labels; counts: number[]; sum: number; count: number }>();

  constructor(
    readonly name: string,
    readonly help: string,
    readonly bounds: readonly number[],
  ) {}

  observe(value: number, labels: Labels = {}): void {
    const key = labelText(labels);
    const series = this.#series.get(key) ?? { labels, counts: this.bounds.map(() => 0), sum: 0, count: 0 };
    this.#series.set(key, series);
    for (const [i, bound] of this.bounds.entries()) if (value <= bound) series.counts[i]!++;
    series.sum += value;
    series.count++;
  }

  lines(): string[] {
    return [...this.#series.values()].flatMap(({ labels, counts, sum, count }) => [
      ...this.bounds.map(
        (bound, i) => `${this.name}_bucket${labelText({ ...labels, le: String(bound) })} ${counts[i]}`,
      ),
      `${this.name}_bucket${labelText({ ...labels, le: "+Inf" })} ${count}`,
      `${this.name}_sum${labelText(labels)} ${sum}`,
      `${this.name}_count${labelText(labels)} ${count}`,
    ]);
  }
}

function labelText(labels: Labels): string {
  const escaped = (value: string) => value.replace(/[\\"\n]/g, (each) => (each === "\n" ? "\\n" : `\\${each}`));
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`);
  return parts.length === 0 ? "" : `{${parts.join(",")}}`;
}

/** Upper bounds in seconds: from a token of a small model to minutes of an answer. */
const seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];

/** What a server counts. */
export class Metrics {
  readonly requests = new Figure(
    "zephyr_requests_total",
    "Requests by path and status; 499: the client left.",
    "counter",
  );
  readonly answers = new Figure(
    "zephyr_answers_total",
    "Generated answers by model and how they ended: stop, length, aborted, error.",
    "counter",
  );
  readonly promptTokens = new Figure("zephyr_prompt_tokens_total", "Tokens of prompts that were answered.", "counter");
  readonly completionTokens = new Figure("zephyr_completion_tokens_total", "Tokens of answers.", "counter");
  readonly running = new Figure("zephyr_answers_running", "Answers in work.", "gauge");
  readonly waiting = new Figure("zephyr_answers_waiting", "Answers that wait for their turn.", "gauge");
  readonly house = new Figure("zephyr_requests_underway", "Requests that were taken in and are not yet done.", "gauge");
  readonly limit = new Figure("zephyr_requests_limit", "Requests that are taken in at most.", "gauge");
  readonly requestSeconds = new Histogram(
    "zephyr_request_seconds",
    "From the request to the end of its answer.",
    seconds,
  );
  readonly waitSeconds = new Histogram(
    "zephyr_wait_seconds",
    "From when an answer was asked for until its turn.",
    seconds,
  );
  readonly firstSeconds = new Histogram(
    "zephyr_first_text_seconds",
    "From the request to its first text, where it is streamed.",
    seconds,
  );
  readonly #memory = new Figure("process_resident_memory_bytes", "Memory of the process.", "gauge");
  readonly #start = new Figure("process_start_time_seconds", "When the process began, in seconds since 1970.", "gauge");

  constructor() {
    for (const gauge of [this.running, this.waiting, this.house]) gauge.set(0);
    this.#start.set(Math.round(Date.now() / 1000 - process.uptime()));
  }

  /** All of them as text. */
  render(): string {
    this.#memory.set(process.memoryUsage.rss());
    const all = [
      ...[this.requests, this.answers, this.promptTokens, this.completionTokens],
      ...[this.running, this.waiting, this.house, this.limit],
      ...[this.requestSeconds, this.waitSeconds, this.firstSeconds, this.#memory, this.#start],
    ];
    const texts = all.flatMap((each) => [
      `# HELP ${each.name} ${each.help}`,
      `# TYPE ${each.name} ${each.type}`,
      ...each.lines(),
    ]);
    return `${texts.join("\n")}\n`;
  }
}
