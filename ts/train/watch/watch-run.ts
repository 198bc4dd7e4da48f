import type { RunReportSample } from "../../report";
import { openNear } from "../../report/loopback-server";
import type { StepEvent, TrainerEvent } from "../events";
import { factsOf, type Run } from "../run";
import {
  chartsSection,
  factsSection,
  type LiveView,
  livePage,
  notesSection,
  type Phase,
  type Sections,
  samplesSection,
  stateSection,
} from "./live-page";
import { LiveServer } from "./live-server";

/** How a run is watched: on port 4600 of this machine (another one when it is taken), or on a port of your choice. */
export type Watch = boolean | { port?: number };

/** The port that is tried first. */
export const watchPort = 4600;

/** Share of the time that drawing curves may take: long runs are drawn less often. */
const drawingShare = 0.05;

/**
 * Serves a page of the run on this machine while it goes on, and says its address with an event. The page closes by
 * itself when the events of the run end. A page that cannot be served is a warning, not the end of the run.
 */
export async function watchRun(run: Run, watch: Watch | undefined): Promise<void> {
  if (!watch) return;
  const live = new LiveRun(run);
  try {
    const server = await openServer(run, (watch === true ? undefined : watch.port) ?? watchPort, () => live.sections());
    void follow(run.events[Symbol.asyncIterator](), live, server);
    run.events.push({ type: "watch", url: server.url });
  } catch (error) {
    run.warn(`there is no live page: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function openServer(run: Run, port: number, render: () => Sections): Promise<LiveServer> {
  const page = livePage();
  return openNear(
    port,
    (free) => LiveServer.open(free, page, render),
    () => run.warn(`port ${port} is taken: the live page is on another one`),
  );
}

async function follow(events: AsyncIterable<TrainerEvent>, live: LiveRun, server: LiveServer): Promise<void> {
  try {
    for await (const event of events) live.take(event);
    live.ended(undefined);
  } catch (error) {
    live.ended(error instanceof Error ? error.message : String(error));
  }
  await server.close();
}

const rssMib = () => process.memoryUsage.rss() / 2 ** 20;

/** What the page knows of a run: the run itself, and what its events say. */
class LiveRun {
  readonly #run: Run;
  readonly #openedAt = performance.now();
  /** Lines of the run's history, those taken so far, and lines of speed and memory. */
  readonly #lines: Record<string, number>[] = [];
  #taken = 0;
  #last: { event: StepEvent; at: number } | undefined;
  #before: readonly { prompt: string; answer: string }[] = [];
  #samples: RunReportSample[] = [];
  #sampledAt = 0;
  #savedAt: number | undefined;
  #phase: Phase | undefined;
  #problem: string | undefined;
  #endedAt: number | undefined;
  #charts = { html: "", lines: -1, at: 0, cost: 0 };

  constructor(run: Run) {
    this.#run = run;
  }

  take(event: TrainerEvent): void {
    switch (event.type) {
      case "step": {
        this.#last = { event, at: performance.now() };
        this.#lines.push({ step: event.step, rss_mib: rssMib(), tokens_per_second: event.tokensPerSecond });
        break;
      }
      case "samples": {
        if (event.step === 0 || this.#before.length === 0) this.#before = event.samples;
        const asked = event.step > 0;
        this.#samples = event.samples.map(({ prompt, answer }, index) => {
          const before = this.#before[index]?.answer ?? "";
          return asked ? { prompt, before, after: answer } : { prompt, before: answer, after: "(not yet)" };
        });
        this.#sampledAt = event.step;
        break;
      }
      case "checkpoint":
        this.#savedAt = event.step;
        break;
      case "end":
        this.#phase = "finished";
        break;
    }
  }

  /** The events are over. */
  ended(problem: string | undefined): void {
    this.#endedAt = performance.now();
    if (this.#phase !== "finished") this.#phase = "stopped";
    this.#problem = problem;
  }

  sections(): Sections {
    const view = this.#view();
    return {
      state: stateSection(view),
      notes: notesSection(view),
      charts: this.#drawn(view),
      samples: samplesSection(view),
      facts: factsSection(view),
    };
  }

  /** The curves; drawn again when there are new lines and the last drawing is long enough ago. */
  #drawn(view: LiveView): string {
    const now = performance.now();
    const due = now - this.#charts.at >= this.#charts.cost / drawingShare || this.#endedAt !== undefined;
    if (this.#charts.lines !== view.history.length && due) {
      const html = chartsSection(view);
      this.#charts = { html, lines: view.history.length, at: now, cost: performance.now() - now };
    }
    return this.#charts.html;
  }

  #view(): LiveView {
    const run = this.#run;
    for (; this.#taken < run.history.length; this.#taken++) this.#lines.push(run.history[this.#taken]!);
    const now = this.#endedAt ?? performance.now();
    const { event, at } = this.#last ?? {};
    const since = at === undefined ? 0 : (now - at) / 1000;
    const begun = event !== undefined || run.doneSteps > 0;
    return {
      method: run.method,
      model: run.model.source,
      phase: this.#phase ?? (begun ? (run.doneSteps < run.plan.totalSteps ? "training" : "saving") : "preparing"),
      problem: this.#problem,
      step: run.doneSteps,
      totalSteps: run.plan.totalSteps,
      epoch: event?.epoch ?? run.history.at(-1)?.epoch ?? 0,
      seconds: (now - (begun ? run.startedAt : this.#openedAt)) / 1000,
      secondsLeft: event && Math.max(0, event.secondsLeft - since),
      tokensPerSecond: event?.tokensPerSecond,
      rss: rssMib(),
      history: this.#lines,
      samples: this.#samples,
      sampledAt: this.#sampledAt,
      warnings: run.warnings,
      savedAt: this.#savedAt,
      outputDir: run.folder?.path,
      config: { ...run.config },
      data: { ...run.report, ...factsOf(run) },
    };
  }
}
