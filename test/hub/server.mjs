/**
 * A server that speaks the Hub's API as far as reading goes, in a process of its own: revisions, trees in pages, contents,
 * large files by a redirect to a second host with a signed address, ranges, refusals, and faults on command.
 *
 * usage: node server.mjs FOLDER
 *
 * FOLDER/<models|datasets>/<org>/<name>/<revision>/<files…>; a file above 1000 bytes is a large one. Prints one line of JSON
 * with the addresses of the Hub and of its host of large files. Repositories whose names begin with `gated` or `private` need
 * the token `hf_secret_of_the_test`.
 *
 * POST /_faults: rules [{match, times, status, headers, cutAfter, corrupt, ignoreRange, body}], tried in order on
 * "<host> <path and query>"; GET /_log: the requests so far; POST /_log: forgets them.
 */
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";

const [root] = process.argv.slice(2);
const goodToken = "Bearer hf_secret_of_the_test";
const pageSize = 3;
let faults = [];
let log = [];

const sha1 = (content) => createHash("sha1").update(content).digest("hex");
const sha256 = (content) => createHash("sha256").update(content).digest("hex");
const gitId = (content) => sha1(Buffer.concat([Buffer.from(`blob ${content.length}\0`), content]));

function filesOf(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(folder.length + 1))
    .sort();
}

function entriesOf(folder) {
  return filesOf(folder).map((path) => {
    const content = readFileSync(join(folder, path));
    const oid = gitId(content);
    const lfs = content.length > 1000 ? { oid: sha256(content), size: content.length, pointerSize: 130 } : undefined;
    return { type: "file", path, size: content.length, oid, ...(lfs ? { lfs } : {}) };
  });
}

/** Revisions of a repository by name and by commit. */
function revisionsOf(folder) {
  const found = new Map();
  for (const revision of readdirSync(folder)) {
    const path = join(folder, revision);
    if (!statSync(path).isDirectory()) continue;
    const commit = sha1(JSON.stringify(entriesOf(path)));
    found.set(decodeURIComponent(revision), { commit, path });
    found.set(commit, { commit, path });
  }
  return found;
}

function refuse(response, status, code, message) {
  response.writeHead(status, { "x-error-code": code, "x-error-message": message, "content-type": "application/json" });
  response.end(JSON.stringify({ error: message }));
}

/** A content with ranges, or as much of it as a fault lets through. */
function sendContent(request, response, content, etag, fault) {
  const whole = fault?.corrupt ? Buffer.from(content.map((byte, at) => (at % 97 === 0 ? byte ^ 1 : byte))) : content;
  const range = fault?.ignoreRange ? undefined : /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  const conditional = request.headers["if-range"];
  let body = whole;
  const headers = { etag, "accept-ranges": "bytes", ...fault?.headers };
  let status = 200;
  if (range && (conditional === undefined || conditional === etag)) {
    const start = Number(range[1]);
    const end = range[2] === "" ? whole.length : Math.min(Number(range[2]) + 1, whole.length);
    if (start >= whole.length) {
      response.writeHead(416, { "content-range": `bytes */${whole.length}` });
      response.end();
      return 416;
    }
    body = whole.subarray(start, end);
    headers["content-range"] = `bytes ${start}-${end - 1}/${whole.length}`;
    status = 206;
  }
  response.writeHead(status, { ...headers, "content-length": body.length });
  if (request.method === "HEAD") response.end();
  else if (fault?.cutAfter === undefined) response.end(body);
  else response.write(body.subarray(0, fault.cutAfter), () => setTimeout(() => response.socket?.destroy(), 20));
  return status;
}

/** The rule that a request falls under, used up by one. */
function faultFor(text) {
  const fault = faults.find(({ match, times }) => times > 0 && new RegExp(match).test(text));
  if (fault) fault.times--;
  return fault;
}

function handle(host, request, response, others) {
  const url = new URL(request.url, "http://server");
  if (url.pathname === "/_log") {
    if (request.method === "POST") log = [];
    return response.end(JSON.stringify(log));
  }
  if (url.pathname === "/_faults") {
    let text = "";
    request.on("data", (part) => (text += part));
    return request.on("end", () => {
      faults = JSON.parse(text);
      response.end();
    });
  }
  const entry = {
    host,
    url: request.url,
    range: request.headers.range ?? null,
    token: request.headers.authorization ?? null,
  };
  log.push(entry);
  response.on("close", () => {
    entry.status = response.statusCode;
  });
  const fault = faultFor(`${host} ${request.url}`);
  if (fault?.status) {
    response.writeHead(fault.status, fault.headers ?? {});
    return response.end(fault.body ?? "");
  }
  if (host === "large") {
    if (url.searchParams.get("signature") !== "signed-by-the-hub") return refuse(response, 403, "", "not signed");
    const content = readFileSync(join(root, decodeURIComponent(url.pathname)));
    return sendContent(request, response, content, `"${sha256(content).slice(0, 32)}"`, fault);
  }
  const api = /^\/api\/(models|datasets)\/([^/]+\/[^/]+)\/(revision|tree)\/([^/]+)$/.exec(url.pathname);
  const file = /^\/(datasets\/)?([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname);
  if (!api && !file) return refuse(response, 404, "", "no such page");
  const kind = api ? api[1] : file[1] ? "datasets" : "models";
  const id = api ? api[2] : file[2];
  const revision = decodeURIComponent(api ? api[4] : file[3]);
  const folder = join(root, kind, id);
  const allowed = request.headers.authorization === goodToken;
  if (request.headers.authorization && !allowed)
    return refuse(response, 401, "", "Invalid credentials in Authorization header");
  if (!existsSync(folder) || (id.includes("/private") && !allowed))
    return refuse(response, 401, "RepoNotFound", "Repository not found");
  const found = revisionsOf(folder).get(revision);
  if (!found) return refuse(response, 404, "RevisionNotFound", `Invalid rev id: ${revision}`);
  if (api?.[3] === "revision") {
    return response.end(
      JSON.stringify({ id, sha: found.commit, siblings: filesOf(found.path).map((rfilename) => ({ rfilename })) }),
    );
  }
  if (api) {
    const entries = [{ type: "directory", path: "data", size: 0, oid: "0".repeat(40) }, ...entriesOf(found.path)];
    const start = Number(url.searchParams.get("cursor") ?? 0);
    if (start + pageSize < entries.length) {
      url.searchParams.set("cursor", String(start + pageSize));
      response.setHeader("link", `<${others.hub}${url.pathname}${url.search}>; rel="next"`);
    }
    return response.end(JSON.stringify(entries.slice(start, start + pageSize)));
  }
  if (id.includes("/gated") && !allowed)
    return refuse(response, request.headers.authorization ? 403 : 401, "GatedRepo", "Access is restricted");
  const path = decodeURIComponent(file[4]);
  const local = join(found.path, path);
  if (!existsSync(local)) return refuse(response, 404, "EntryNotFound", "Entry not found");
  const content = readFileSync(local);
  response.setHeader("x-repo-commit", found.commit);
  if (content.length <= 1000) return sendContent(request, response, content, `"${gitId(content)}"`, fault);
  response.writeHead(302, {
    location: `${others.large}${encodeURI(local.slice(root.length))}?signature=signed-by-the-hub`,
    "x-linked-etag": `"${sha256(content)}"`,
    "x-linked-size": content.length,
  });
  response.end();
}

const addresses = {};
for (const host of ["hub", "large"]) {
  const server = createServer((request, response) => handle(host, request, response, addresses));
  // A test that waits for a program would find its connection closed.
  server.keepAliveTimeout = 600_000;
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  addresses[host] = `http://127.0.0.1:${server.address().port}`;
}
console.log(JSON.stringify(addresses));
process.stdin.on("end", () => process.exit()).resume();
