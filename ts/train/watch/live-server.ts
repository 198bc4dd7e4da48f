import type { ServerResponse } from "node:http";
import { LoopbackServer, refuse, send, sendEvents } from "../../report/loopback-server";

/** Browsers that may look on at once. */
const mostReaders = 64;

/** How often readers get what has changed, in milliseconds. */
const interval = 1000;

/** HTML of the page's sections by name. */
type Sections = Readonly<Record<string, string>>;

/**
 * A page and its sections over HTTP, on the loopback interface only. `/` is the page; `/events` a stream of server-sent
 * events: `sections` (an object of HTML by name: those that this reader has not got yet), and `end` at the end.
 *
 * What a reader was sent is remembered by reader, so a slow one skips states instead of making them wait in memory, and
 * one that connects again gets everything.
 */
export class LiveServer {
  readonly #server: LoopbackServer;
  readonly #readers: Readers;

  private constructor(server: LoopbackServer, readers: Readers) {
    this.#server = server;
    this.#readers = readers;
  }

  /**
   * Begins to listen on 127.0.0.1.
   *
   * @param port 0 takes a free one
   * @param render the sections as they are now; called once a second while somebody looks on
   * @throws the error of `listen`, for example EADDRINUSE
   */
  static async open(port: number, page: string, render: () => Sections): Promise<LiveServer> {
    const readers = new Readers(render);
    const server = await LoopbackServer.open(port, {
      "/": (_, response) => send(response, "text/html", page),
      "/events": (_, response) => readers.join(response),
    });
    readers.begin();
    return new LiveServer(server, readers);
  }

  get port(): number {
    return this.#server.port;
  }

  get url(): string {
    return this.#server.url;
  }

  /** Sends the last state, says that it was the last, and stops to listen. */
  async close(): Promise<void> {
    this.#readers.end();
    await this.#server.close();
  }
}

/** Those who look on, and what each has got. */
class Readers {
  readonly #render: () => Sections;
  readonly #sent = new Map<ServerResponse, Map<string, string>>();
  #timer: NodeJS.Timeout | undefined;

  constructor(render: () => Sections) {
    this.#render = render;
  }

  begin(): void {
    this.#timer = setInterval(() => this.#push(), interval);
    this.#timer.unref();
  }

  end(): void {
    clearInterval(this.#timer);
    this.#push(true);
    for (const response of this.#sent.keys()) response.end("event: end\ndata: {}\n\n");
  }

  join(response: ServerResponse): void {
    if (this.#sent.size >= mostReaders) {
      refuse(response, 503, "too many readers");
      return;
    }
    sendEvents(response);
    response.write("retry: 2000\n\n");
    this.#sent.set(response, new Map());
    response.on("close", () => this.#sent.delete(response));
    response.on("error", () => this.#sent.delete(response));
    this.#send(response, this.#render(), true);
  }

  #push(last = false): void {
    if (this.#sent.size === 0) return;
    const sections = this.#render();
    for (const response of this.#sent.keys()) this.#send(response, sections, last);
  }

  #send(response: ServerResponse, sections: Sections, always: boolean): void {
    if (response.writableNeedDrain && !always) return;
    const sent = this.#sent.get(response)!;
    const news = Object.entries(sections).filter(([name, html]) => sent.get(name) !== html);
    if (news.length === 0) return;
    for (const [name, html] of news) sent.set(name, html);
    response.write(`event: sections\ndata: ${JSON.stringify(Object.fromEntries(news))}\n\n`);
  }
}
