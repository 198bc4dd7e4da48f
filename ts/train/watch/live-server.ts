import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** Browsers that may look on at once. */
const mostReaders = 64;

/** How often readers get what has changed, in milliseconds. */
const interval = 1000;

/** Names that a page on this machine is asked for by; another one is a foreign page that points its name at us. */
const ownHosts = /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/i;

/**
 * A page and its sections over HTTP, on the loopback interface only. `/` is the page; `/events` a stream of server-sent
 * events: `sections` (an object of HTML by name: those that this reader has not got yet), and `end` at the end.
 *
 * What a reader was sent is remembered by reader, so a slow one skips states instead of making them wait in memory, and
 * one that connects again gets everything.
 */
export class LiveServer {
  readonly port: number;
  readonly #server: Server;
  readonly #render: () => Readonly<Record<string, string>>;
  readonly #readers = new Map<ServerResponse, Map<string, string>>();
  readonly #timer: NodeJS.Timeout;

  private constructor(server: Server, render: () => Readonly<Record<string, string>>) {
    this.#server = server;
    this.#render = render;
    this.port = (server.address() as AddressInfo).port;
    this.#timer = setInterval(() => this.#push(), interval);
    this.#timer.unref();
  }

  /**
   * Begins to listen on 127.0.0.1.
   *
   * @param port 0 takes a free one
   * @param render the sections as they are now; called once a second while somebody looks on
   * @throws the error of `listen`, for example EADDRINUSE
   */
  static async open(port: number, page: string, render: () => Readonly<Record<string, string>>): Promise<LiveServer> {
    let live: LiveServer | undefined;
    const server = createServer((request, response) => answer(request, response, page, live));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, "127.0.0.1", resolve);
    });
    server.removeAllListeners("error").on("error", () => {});
    live = new LiveServer(server, render);
    return live;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Somebody looks on. */
  get watched(): boolean {
    return this.#readers.size > 0;
  }

  /** Sends the last state, says that it was the last, and stops to listen. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#push(true);
    for (const response of this.#readers.keys()) response.end("event: end\ndata: {}\n\n");
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    // A reader that does not read keeps its connection; it must not keep the program.
    const patience = setTimeout(() => this.#server.closeAllConnections(), 2000);
    await closed;
    clearTimeout(patience);
  }

  /** Takes a reader of `/events`. */
  join(response: ServerResponse): void {
    if (this.#readers.size >= mostReaders) {
      response.writeHead(503, { "content-type": "text/plain" }).end("too many readers\n");
      return;
    }
    // Without "keep-alive" the connection ends with the stream, so that closing does not wait for it.
    response.writeHead(200, { ...headers, "content-type": "text/event-stream; charset=utf-8", connection: "close" });
    response.write("retry: 2000\n\n");
    this.#readers.set(response, new Map());
    response.on("close", () => this.#readers.delete(response));
    response.on("error", () => this.#readers.delete(response));
    this.#send(response, this.#render(), true);
  }

  #push(last = false): void {
    if (!this.watched) return;
    const sections = this.#render();
    for (const response of this.#readers.keys()) this.#send(response, sections, last);
  }

  #send(response: ServerResponse, sections: Readonly<Record<string, string>>, always: boolean): void {
    if (response.writableNeedDrain && !always) return;
    const sent = this.#readers.get(response)!;
    const news = Object.entries(sections).filter(([name, html]) => sent.get(name) !== html);
    if (news.length === 0) return;
    for (const [name, html] of news) sent.set(name, html);
    response.write(`event: sections\ndata: ${JSON.stringify(Object.fromEntries(news))}\n\n`);
  }
}

const headers = { "cache-control": "no-store", "x-content-type-options": "nosniff", "referrer-policy": "no-referrer" };

function answer(request: IncomingMessage, response: ServerResponse, page: string, live: LiveServer | undefined): void {
  const refuse = (status: number, text: string) =>
    response.writeHead(status, { ...headers, "content-type": "text/plain" }).end(`${text}\n`);
  if (!ownHosts.test(request.headers.host ?? "")) return void refuse(403, "this page is for this machine only");
  if (request.method !== "GET") return void refuse(405, "only GET");
  const path = request.url?.split("?", 1)[0];
  if (path === "/events" && live) live.join(response);
  else if (path === "/") response.writeHead(200, { ...headers, "content-type": "text/html; charset=utf-8" }).end(page);
  else refuse(404, "there is / and /events");
}
