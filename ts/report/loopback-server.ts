import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { fromNative } from "../errors";

/** Answers a GET request of one path. What it throws becomes a text: status 400, or 500 for a fault of ours. */
export type Route = (query: URLSearchParams, response: ServerResponse) => void | Promise<void>;

/** Names that a page on this machine is asked for by; another one is a foreign page that points its name at us. */
export const ownHosts = /^(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/i;

/** Nothing is kept, guessed, framed, or read by a page from elsewhere. */
const headers = {
  "cache-control": "no-store",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "content-security-policy": "frame-ancestors 'none'",
};

/**
 * HTTP on the loopback interface only, for pages about what lies on this machine: GET alone, and only for requests that
 * were sent to this machine's own name, by this machine's own pages.
 */
export class LoopbackServer {
  readonly port: number;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port;
  }

  /**
   * Begins to listen on 127.0.0.1.
   *
   * @param port 0 takes a free one
   * @param routes by path, for example `/`
   * @throws the error of `listen`, for example EADDRINUSE
   */
  static async open(port: number, routes: Readonly<Record<string, Route>>): Promise<LoopbackServer> {
    const server = createServer((request, response) => void answer(request, response, routes));
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, "127.0.0.1", resolve);
    });
    server.removeAllListeners("error").on("error", () => {});
    return new LoopbackServer(server);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** Stops to listen and waits for the connections, two seconds at most. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    // A reader that does not read keeps its connection; it must not keep the program.
    const patience = setTimeout(() => this.#server.closeAllConnections(), 2000);
    this.#server.closeIdleConnections();
    await closed;
    clearTimeout(patience);
  }
}

/**
 * Opens what listens on a port of the user's choice, or on a free one when that is taken.
 *
 * @param taken called when it is
 */
export async function openNear<T>(port: number, open: (port: number) => Promise<T>, taken: () => void): Promise<T> {
  try {
    return await open(port);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    taken();
    return open(0);
  }
}

/** Sends a whole answer. */
export function send(response: ServerResponse, type: "text/html" | "application/json", text: string): void {
  response.writeHead(200, { ...headers, "content-type": `${type}; charset=utf-8` }).end(text);
}

/** Begins a stream of server-sent events. */
export function sendEvents(response: ServerResponse): void {
  // Without "keep-alive" the connection ends with the stream, so that closing does not wait for it.
  response.writeHead(200, { ...headers, "content-type": "text/event-stream; charset=utf-8", connection: "close" });
}

/** Sends a refusal as plain text. */
export function refuse(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { ...headers, "content-type": "text/plain; charset=utf-8" }).end(`${text}\n`);
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  routes: Readonly<Record<string, Route>>,
): Promise<void> {
  const { host = "", "sec-fetch-site": site = "none", "sec-fetch-mode": mode = "navigate" } = request.headers;
  if (!ownHosts.test(host)) return refuse(response, 403, "this page is for this machine only");
  // A page from elsewhere may link to this one, but not make it work.
  if (!["none", "same-origin"].includes(String(site)) && mode !== "navigate") {
    return refuse(response, 403, "this page is asked by its own scripts only");
  }
  if (request.method !== "GET") return refuse(response, 405, "only GET");
  const [path = "", query] = (request.url ?? "").split("?", 2);
  const route = Object.hasOwn(routes, path) ? routes[path] : undefined;
  if (!route) return refuse(response, 404, `there is ${Object.keys(routes).join(", ")}`);
  try {
    await route(new URLSearchParams(query), response);
  } catch (error) {
    const typed = fromNative(error);
    if (response.headersSent) response.destroy();
    else refuse(response, typed.code === "ZA_INTERNAL" ? 500 : 400, typed.toString());
  }
}
