/** The live page of a run, as an HTTP client and as a browser see it. */
import { get } from "node:http";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { describe, expect, it, vi } from "vitest";
import { DpoTrainer, Mistral, type TrainerEvent, type Watch, type WatchEvent } from "../ts/index";
import { browsable, launch } from "./chromium";
import { gate } from "./runs";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const evil = `<img src=x onerror="document.title='broken in'">`;
const pairs = ["seven", "nine", "ten", "two"].map((word) => ({
  prompt: [{ role: "user", content: `say ${word}. ${evil}` }],
  chosen: [{ role: "assistant", content: `${word}.` }],
  rejected: [{ role: "assistant", content: "the hat is red." }],
}));

/** A watched run that goes on until it is let go: it has so many steps that it never ends by itself. */
async function watched(options: { watch?: Watch; signal?: AbortSignal; maxSteps?: number }) {
  const policy = await Mistral.fromPretrained(base);
  const trainer = new DpoTrainer({
    policy,
    dataset: pairs,
    batchSize: 2,
    logSteps: 1,
    samples: 1,
    watch: { port: 0 },
    maxSteps: 1_000_000,
    ...options,
  });
  const seen: TrainerEvent[] = [];
  const address = gate();
  const reading = (async () => {
    for await (const event of trainer) {
      seen.push(event);
      if (event.type === "watch") address.open();
    }
  })().catch(() => {});
  const fitted = trainer.fit();
  await Promise.race([address.opened, fitted]);
  const url = seen.find((event): event is WatchEvent => event.type === "watch")!.url;
  return { url, seen, fitted, reading };
}

type Sections = Record<string, string>;

/** Reads server-sent events; `until` says when it has seen enough. */
function listen(url: string, until: (sections: Sections, messages: number) => boolean) {
  return new Promise<{ all: Sections; first: Sections; ended: boolean }>((resolve, reject) => {
    const all: Sections = {};
    let first: Sections | undefined;
    let messages = 0;
    let text = "";
    const done = (ended: boolean) => {
      request.destroy();
      resolve({ all, first: first!, ended });
    };
    const request = get(`${url}/events`, (response) => {
      expect(response.headers["content-type"]).toMatch(/^text\/event-stream/);
      response.setEncoding("utf8");
      response.on("data", (part: string) => {
        text += part;
        for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
          const [, name, data] = /^event: (\w+)\ndata: (.*)$/s.exec(text.slice(0, end)) ?? [];
          text = text.slice(end + 2);
          if (name === "end") return done(true);
          if (name !== "sections") continue;
          const sections: Sections = JSON.parse(data!);
          first ??= sections;
          Object.assign(all, sections);
          if (until(all, ++messages)) return done(false);
        }
      });
    });
    request.on("error", reject);
  });
}

const stepIn = ({ state }: Sections) => Number(/aria-valuenow="(\d+)"/.exec(state!)![1]);

describe("the live page over HTTP", () => {
  it("streams the run, gives a newcomer everything, and says the end", async () => {
    const stop = new AbortController();
    const { url, fitted, reading } = await watched({ signal: stop.signal });
    const refused = expect(fitted).rejects.toMatchObject({ code: "ZA_ABORTED" });
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
    const { all, first } = await listen(url, (sections, messages) => messages > 1 && stepIn(sections) >= 3);
    expect(Object.keys(first).sort()).toEqual(["charts", "facts", "notes", "samples", "state"]);
    for (const title of ["Loss", "Rewards", "Learning rate", "Tokens per second", "Memory"]) {
      expect(all.charts).toContain(`<figcaption>${title}`);
    }
    expect(all.facts).toContain("Equal to an earlier row");
    expect(all.facts).toContain("lossType");
    expect(all.samples).toContain("say seven.");
    expect(all.samples).not.toContain("<img");
    expect(all.state).toContain("training");

    const later = await listen(url, () => true);
    expect(Object.keys(later.first).sort()).toEqual(Object.keys(first).sort());
    expect(stepIn(later.first)).toBeGreaterThanOrEqual(stepIn(all));
    expect(later.first.charts).toContain("Loss: training from");

    const last = listen(url, () => false);
    setTimeout(() => stop.abort(), 200);
    const { all: final, ended } = await last;
    await refused;
    await reading;
    expect(ended).toBe(true);
    expect(final.state).toContain("stopped");
    await expect(fetch(url)).rejects.toThrow();
  });

  it("answers this machine only, with GET only", async () => {
    const stop = new AbortController();
    const { url, fitted } = await watched({ signal: stop.signal });
    const refused = expect(fitted).rejects.toMatchObject({ code: "ZA_ABORTED" });
    const status = (path: string, init: { method?: string; host?: string } = {}) =>
      new Promise((resolve, reject) => {
        const headers = init.host === undefined ? {} : { host: init.host };
        get(`${url}${path}`, { method: init.method ?? "GET", headers }, (response) => {
          response.resume();
          resolve(response.statusCode);
        }).on("error", reject);
      });
    expect(await status("/")).toBe(200);
    expect(await status("/", { host: "localhost:9999" })).toBe(200);
    expect(await status("/", { host: "example.com" })).toBe(403);
    expect(await status("/", { host: "localhost.example.com" })).toBe(403);
    expect(await status("/", { method: "POST" })).toBe(405);
    expect(await status("/model")).toBe(404);
    const page = await fetch(url).then((response) => response.text());
    expect(page).not.toMatch(/(src|href)=|url\(|@import|https?:\/\//);
    stop.abort();
    await refused;
  });

  it("a port that is taken is a warning, and the page is on another", async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    const { port } = other.address() as AddressInfo;
    const { url, seen, fitted, reading } = await watched({ watch: { port }, maxSteps: 2 });
    await fitted;
    await reading;
    other.close();
    expect(Number(new URL(url).port)).not.toBe(port);
    expect(seen).toContainEqual({ type: "warning", message: `port ${port} is taken: the live page is on another one` });
  });

  it("a reader that does not read holds neither the run nor its end", async () => {
    const { url, fitted, reading } = await watched({ maxSteps: 60 });
    const socket = connect(Number(new URL(url).port), "127.0.0.1");
    socket.write("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
    socket.pause();
    socket.on("error", () => {});
    expect((await fitted).steps).toBe(60);
    await reading;
    await new Promise((resolve) => setTimeout(resolve, 2500));
    await expect(fetch(url)).rejects.toThrow();
    socket.destroy();
  });
});

/** A wire that can be cut: connections go to a port until they are broken, and none is taken while it is cut. */
async function wire(target: number) {
  const sockets = new Set<Socket>();
  let whole = true;
  const server = createServer((socket) => {
    if (!whole) return void socket.destroy();
    const out = connect(target, "127.0.0.1");
    for (const each of [socket, out]) {
      sockets.add(each);
      each.on("error", () => {});
      each.on("close", () => sockets.delete(each));
    }
    socket.pipe(out).pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut() {
      whole = false;
      for (const socket of sockets) socket.destroy();
    },
    mend() {
      whole = true;
    },
    close: () => server.close(),
  };
}

describe.runIf(browsable)("the live page in Chromium", () => {
  it("follows the run, says when the connection is lost, catches up, and stays when the run is finished", async () => {
    const browser = await launch();
    // The run waits at its steps 20 and 40, where it samples, until the browser has seen what it should see.
    const waits = [undefined, gate(), gate()];
    const generate = Mistral.prototype.generateBatch;
    const sampling = vi.spyOn(Mistral.prototype, "generateBatch").mockImplementation(async function (
      this: Mistral,
      ...given
    ) {
      await waits.shift()?.opened;
      return generate.apply(this, given);
    });
    const [, at20, at40] = waits;
    try {
      const trainer = new DpoTrainer({
        policy: await Mistral.fromPretrained(base),
        dataset: pairs,
        batchSize: 2,
        logSteps: 1,
        maxSteps: 60,
        samples: 1,
        sampleSteps: 20,
        watch: { port: 0 },
      });
      const address = gate();
      let url = "";
      const reading = (async () => {
        for await (const event of trainer) {
          if (event.type !== "watch") continue;
          url = event.url;
          address.open();
        }
      })();
      const fitted = trainer.fit();
      await address.opened;
      const line = await wire(Number(new URL(url).port));
      const page = await browser.newPage();
      const faults: string[] = [];
      page.on("pageerror", (error) => faults.push(error.message));
      await page.goto(line.url);
      const step = async () => Number(await page.getAttribute('#state [role="progressbar"]', "aria-valuenow"));
      await page.waitForSelector('[aria-valuenow="20"]');
      await page.waitForSelector("#samples pre");
      expect(await page.title()).toMatch(/^(\d+ %|preparing) · dDPO of /);
      expect(await page.locator("#samples img").count()).toBe(0);
      expect(await page.isVisible("#lost")).toBe(false);

      line.cut();
      await page.waitForSelector("#lost:visible");
      expect(await page.textContent("#lost")).toContain("trying again");
      at20!.open();
      await page.waitForTimeout(1500);
      expect(await step()).toBe(20);
      line.mend();
      await page.waitForSelector('[aria-valuenow="40"]');
      expect(await page.isVisible("#lost")).toBe(false);
      const drawn = await page.getAttribute("#charts svg", "aria-label");
      expect(drawn).toMatch(/^Loss: training from /);

      // The charts are replaced every second; the values under the pointer stay to be read.
      await page.hover("#charts svg >> nth=0");
      await page.waitForTimeout(1500);
      expect(await page.textContent("#charts .tip >> nth=0")).toMatch(/^step \d+training \d/);

      at40!.open();
      await fitted;
      await reading;
      await page.waitForSelector(".phase.finished");
      await page.waitForTimeout(500);
      expect(await step()).toBe(60);
      expect(await page.isVisible("#lost")).toBe(false);
      expect(await page.title()).toMatch(/^finished · /);
      expect(await page.locator("#charts svg").count()).toBeGreaterThan(6);
      expect(faults).toEqual([]);
      line.close();
    } finally {
      sampling.mockRestore();
      await browser.close();
    }
  });
});
