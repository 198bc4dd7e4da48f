/** `zephyr-align pull` against a server of its own process. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openMtBench, publications, pullBenchmark } from "../ts/index";
import { buildProgram, data, present } from "./shared";

const work = mkdtempSync(join(tmpdir(), "zephyr-pull-"));
const served = join(work, "served");
const { files } = publications["mt-bench"];

// Fails twice with 503 where the path says so, and counts nothing else.
const server = `
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
const failures = new Map();
createServer((request, response) => {
  const path = decodeURIComponent(request.url).replace(/^\\/(flaky|gone|plain)\\//, "");
  const seen = failures.get(request.url) ?? 0;
  failures.set(request.url, seen + 1);
  if (request.url.startsWith("/flaky/") && seen < 2) return response.writeHead(503).end("later");
  try { response.end(readFileSync(process.argv[1] + "/" + path)); }
  catch { response.writeHead(404).end("no such file"); }
}).listen(0, "127.0.0.1", function () { console.log(this.address().port); });
`;

let child: ChildProcess;
let address: string;

beforeAll(async () => {
  child = spawn(process.execPath, ["--input-type=module", "-e", server, served], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const port = await new Promise<string>((resolve) =>
    child.stdout!.once("data", (line) => resolve(String(line).trim())),
  );
  address = `http://127.0.0.1:${port}`;
});

afterAll(() => {
  child.kill();
  rmSync(work, { recursive: true, force: true });
});

/** Puts the real files under their published paths. */
function publish(): boolean {
  const flat = { "data/mt_bench/reference_answer/gpt-4.jsonl": "reference_answer_gpt-4.jsonl" } as Record<
    string,
    string
  >;
  const sources = files.map(({ path }) => join(data, "mt_bench", flat[path] ?? path.split("/").at(-1)!));
  if (!sources.every(present)) return false;
  for (const [i, { path }] of files.entries()) {
    mkdirSync(dirname(join(served, path)), { recursive: true });
    writeFileSync(join(served, path), readFileSync(sources[i]!));
  }
  return true;
}

describe.runIf(publish())("pull mt-bench", () => {
  it("fetches once, over a server that fails at first, and what it fetched opens", async () => {
    const folder = join(work, "fetched");
    const seen: boolean[] = [];
    await pullBenchmark("mt-bench", { folder, url: `${address}/flaky`, onFile: (_, fetched) => seen.push(fetched) });
    expect(seen).toEqual([true, true, true]);
    for (const { path, sha256, bytes } of files) {
      const content = readFileSync(join(folder, path));
      expect(content.length).toBe(bytes);
      expect(createHash("sha256").update(content).digest("hex")).toBe(sha256);
    }
    const bench = await openMtBench(folder);
    expect([bench.questions.length, bench.prompts.size, bench.references.size]).toEqual([80, 8, 30]);
    // All is there: no server is needed.
    await pullBenchmark("mt-bench", { folder, url: "http://127.0.0.1:1/", onFile: (_, fetched) => seen.push(fetched) });
    expect(seen.slice(3)).toEqual([false, false, false]);
  });

  it("repairs a file that was changed", async () => {
    const folder = join(work, "changed");
    await pullBenchmark("mt-bench", { folder, url: `${address}/plain/` });
    writeFileSync(join(folder, files[0].path), "{}");
    await pullBenchmark("mt-bench", { folder, url: `${address}/plain/` });
    expect(readFileSync(join(folder, files[0].path)).length).toBe(files[0].bytes);
  });

  it("is a command", () => {
    const cli = buildProgram();
    const run = (args: string[], env: Record<string, string> = {}) =>
      spawnSync(process.execPath, [cli, "pull", ...args], { encoding: "utf8", env: { ...process.env, ...env } });
    const cache = join(work, "cache");
    const { status, stdout, stderr } = run(["mt-bench"], {
      XDG_CACHE_HOME: cache,
      ZEPHYR_PULL_URL: `${address}/plain/`,
    });
    expect(status, stderr).toBe(0);
    expect(stdout).toContain("hash checked");
    expect(existsSync(join(cache, "zephyr-align", "mt-bench", files[1].path))).toBe(true);
    const refused = run(["mt-bench", "--out", join(work, "gone"), "--url", `${address}/gone/nowhere`]);
    expect(refused.status).not.toBe(0);
    expect(refused.stderr).toContain("ZA_PULL");
    expect(refused.stderr).toContain("404");
  });
});

it("a file with another hash is refused, and nothing of it is kept", async () => {
  const other = join(work, "other");
  mkdirSync(dirname(join(served, "wrong", files[0].path)), { recursive: true });
  writeFileSync(join(served, "wrong", files[0].path), "not the questions\n");
  const error = await pullBenchmark("mt-bench", { folder: other, url: `${address}/plain/wrong/` }).catch(
    (thrown) => thrown,
  );
  expect(error).toMatchObject({ code: "ZA_PULL_HASH", message: expect.stringContaining("18 bytes") });
  expect(existsSync(join(other, files[0].path))).toBe(false);
});

it("a server that is not there is a typed error", async () => {
  const error = await pullBenchmark("mt-bench", { folder: join(work, "none"), url: "http://127.0.0.1:1/" }).catch(
    (thrown) => thrown,
  );
  expect(error).toMatchObject({ code: "ZA_PULL", remedy: expect.stringContaining("mirror") });
});
