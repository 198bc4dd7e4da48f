/** A site for the tests: folders and files under paths, with what a careful server sends. */
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";

const types: Record<string, string> = {
  ".css": "text/css",
  ".html": "text/html",
  ".js": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
};

/** Scripts of this origin, WebAssembly, and workers: all that the package needs. */
const policy =
  "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src data:; worker-src 'self'";

/** What lets a page's workers share memory. */
const isolation = { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" };

export interface Site {
  url: string;
  /** `GET /path` and so on, in order. */
  requests: string[];
  /** A mark of all files' state; a new one makes caches ask again. */
  etag: string;
  /** A path whose file stands still half-way. */
  stalled: string;
  close(): Promise<void>;
}

/** Serves `mounts`: a folder or a file for each path; the longest path that fits is taken. */
export async function serveSite(mounts: Record<string, string>, { isolated = false } = {}): Promise<Site> {
  const requests: string[] = [];
  const paths = Object.keys(mounts).sort((a, b) => b.length - a.length);
  const site = { url: "", requests, etag: '"1"', stalled: "" };
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url!, "http://localhost").pathname);
    requests.push(`${request.method} ${path}`);
    const mount = paths.find((each) => path === each || path.startsWith(each.endsWith("/") ? each : `${each}/`));
    let file = mount === undefined ? "" : join(mounts[mount]!, normalize(path.slice(mount.length)));
    if (existsSync(file) && statSync(file).isDirectory()) file = join(file, "index.html");
    if (!existsSync(file)) {
      response.writeHead(404).end("no such file");
      return;
    }
    response.writeHead(200, {
      "content-type": types[extname(file)] ?? "application/octet-stream",
      "content-length": statSync(file).size,
      "content-security-policy": policy,
      "cache-control": "no-store",
      ...(isolated ? isolation : {}),
      etag: site.etag,
    });
    if (request.method === "HEAD") response.end();
    else if (path === site.stalled)
      createReadStream(file, { end: Math.floor(statSync(file).size / 2) }).pipe(response, { end: false });
    else createReadStream(file).pipe(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  site.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  return Object.assign(site, {
    close: () =>
      new Promise<void>((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  });
}
