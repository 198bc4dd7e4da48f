/** Data sets of the Hub through the public API, against a server of ours that speaks the Hub's API, in its own process. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import {
  appendFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { dataset, type HubProgress, Mistral, sftDataset, snapshotDownload } from "../ts/index";
import {
  all,
  cacheDir,
  chats,
  faults,
  fixtures,
  hub,
  jsonl,
  large,
  log,
  open,
  program,
  refusal,
  say,
  scratch,
  served,
  serveHub,
  token,
} from "./hub/served";

serveHub();

describe("by id", () => {
  it("a split is listed in pages, downloaded once and read with its places", async () => {
    const data = open("org/chats", { split: "train_sft" });
    expect(await log()).toEqual([]);
    expect(await all(data)).toEqual([...chats, ...chats, ...chats]);
    expect(await data.length()).toBe(21);
    expect(await data.at(15)).toEqual(chats[1]);
    const row = await data.row(8);
    expect(row.index).toBe(8);
    expect(row.place).toMatchObject({ row: 2 });
    expect(row.place.file).toMatch(/^hf:\/\/datasets\/org\/chats@[0-9a-f]{12}\/data\/train_sft-00001-of-00003/);
    expect(data.source).toBe("hf://datasets/org/chats@main (train_sft)");
    await data.close();
    const requests = await log();
    expect(requests.filter(({ url }) => url.includes("/tree/")).length).toBeGreaterThan(1);
    expect(requests.filter(({ url }) => url.includes("test_sft"))).toEqual([]);
    expect(await sftDataset(open("org/chats", { split: "train_sft" })).length()).toBe(21);
    // Only the revision is asked for again.
    expect((await log()).length).toBe(requests.length + 1);
  });

  it("the cache is laid out as huggingface_hub lays it", async () => {
    await open("org/chats", { split: "test_sft" }).length();
    const folder = join(cacheDir, "datasets--org--chats");
    const commit = readFileSync(join(folder, "refs", "main"), "utf8");
    expect(commit).toMatch(/^[0-9a-f]{40}$/);
    const file = "data/test_sft-00000-of-00001-0123456789abcdef.parquet";
    const content = readFileSync(join(fixtures, "chats-gzip-v2.parquet"));
    const digest = createHash("sha256").update(content).digest("hex");
    expect(readlinkSync(join(folder, "snapshots", commit, file))).toBe(`../../../blobs/${digest}`);
    expect(readFileSync(join(folder, "blobs", digest)).equals(content)).toBe(true);
    const readme = readFileSync(join(served, "datasets/org/chats/main/README.md"));
    const git = createHash("sha1").update(`blob ${readme.length}\0`).update(readme).digest("hex");
    expect(readlinkSync(join(folder, "snapshots", commit, "README.md"))).toBe(`../../blobs/${git}`);
    expect(JSON.parse(readFileSync(join(folder, "trees", `${commit}.json`), "utf8")).files[file]).toMatchObject({
      lfs_sha256: digest,
    });
    expect(readdirSync(join(folder, "blobs")).filter((name) => name.includes("incomplete"))).toEqual([]);
  });

  it("revisions, patterns, the converted branch, compressed text", async () => {
    expect(await open("org/chats", { revision: "v0" }).length()).toBe(3);
    expect(await open("hf://datasets/org/chats@v0").length()).toBe(3);
    expect(await open("hf://datasets/org/chats@refs/convert/parquet", { split: "train_sft" }).length()).toBe(7);
    expect(await open("hf://datasets/org/chats/data/train_sft-0000[01]*.parquet").length()).toBe(14);
    const test = open("org/lines", { split: "test" });
    expect(await all(test)).toEqual(Array.from({ length: 400 }, (_, at) => say(4000 + at)));
    const error = await refusal(open("org/lines").length());
    expect(error.code).toBe("ZA_DATA_SPLIT");
    expect(error.text).toMatch(/train, test/);
    expect((await refusal(open("org/script").length())).text).toMatch(/refs\/convert\/parquet/);
  });

  it("a path that is there wins over the Hub, and needs no network", async () => {
    const before = process.cwd();
    process.chdir(scratch);
    try {
      mkdirSync("org2/local", { recursive: true });
      writeFileSync("org2/local/train.jsonl", jsonl(0, 2));
      expect(await open("org2/local").length()).toBe(2);
      expect(await log()).toEqual([]);
    } finally {
      process.chdir(before);
    }
  });

  it("works where links cannot be made", async () => {
    process.env.HF_HUB_DISABLE_SYMLINKS = "1";
    try {
      expect(await open("org/chats", { split: "test_sft" }).length()).toBe(7);
      const folder = join(cacheDir, "datasets--org--chats");
      const commit = readFileSync(join(folder, "refs", "main"), "utf8");
      const file = join(folder, "snapshots", commit, "data/test_sft-00000-of-00001-0123456789abcdef.parquet");
      expect(lstatSync(file).isFile()).toBe(true);
      const requests = (await log()).length;
      expect(await open("org/chats", { split: "test_sft" }).length()).toBe(7);
      expect((await log()).length).toBe(requests + 1);
    } finally {
      delete process.env.HF_HUB_DISABLE_SYMLINKS;
    }
  });

  it("offline: what is there is used, what is not is named; nobody is asked", async () => {
    const offline = { hub: { offline: true } };
    expect((await refusal(open("org/chats", { split: "train_sft", ...offline }).length())).code).toBe("ZA_HUB_OFFLINE");
    expect(await open("org/chats", { split: "train_sft" }).length()).toBe(21);
    const requests = (await log()).length;
    expect(await open("org/chats", { split: "train_sft", ...offline }).length()).toBe(21);
    const missing = await refusal(open("org/chats", { split: "test_sft", ...offline }).length());
    expect(missing.code).toBe("ZA_HUB_OFFLINE");
    expect(missing.text).toMatch(/test_sft-00000/);
    process.env.HF_HUB_OFFLINE = "1";
    try {
      expect(await open("org/chats", { split: "train_sft" }).length()).toBe(21);
    } finally {
      delete process.env.HF_HUB_OFFLINE;
    }
    // As if Python had downloaded it without its list of files, and not all of it.
    const folder = join(cacheDir, "datasets--org--chats");
    rmSync(join(folder, "trees"), { recursive: true });
    expect(await open("org/chats", { split: "train_sft", ...offline }).length()).toBe(21);
    const commit = readFileSync(join(folder, "refs", "main"), "utf8");
    rmSync(join(folder, "snapshots", commit, "data/train_sft-00001-of-00003-0123456789abcdef.parquet"));
    expect((await refusal(open("org/chats", { split: "train_sft", ...offline }).length())).text).toMatch(
      /only 2 of 3 files/,
    );
    expect((await log()).length).toBe(requests);
  });

  it("a model's files by the same way", async () => {
    const { folder, files } = await snapshotDownload("org/model", {
      endpoint: hub,
      cacheDir,
      files: (path) => path.endsWith("s"),
    });
    expect(files).toEqual(["model.safetensors"]);
    expect(readFileSync(join(folder, "model.safetensors")).length).toBe(5000);
    expect(existsSync(join(folder, "config.json"))).toBe(false);
    expect(folder).toContain("models--org--model");
  });
});

describe("models by id", () => {
  it("are downloaded, loaded and named by their id; what is not needed stays there", async () => {
    const reach = { endpoint: hub, cacheDir, token: false } as const;
    const model = await Mistral.fromPretrained("org/base", { hub: reach });
    expect(model.source).toBe("org/base");
    const asked = (await log()).map(({ url }) => url).filter((url) => url.includes("/resolve/"));
    expect(asked.some((url) => url.endsWith("/model.safetensors"))).toBe(true);
    expect(asked.filter((url) => /pytorch|consolidated/.test(url))).toEqual([]);
    const adapter = join(scratch, "adapter");
    await (await model.withLora({ rank: 2 })).saveAdapter(adapter);
    expect(JSON.parse(readFileSync(join(adapter, "adapter_config.json"), "utf8")).base_model_name_or_path).toBe(
      "org/base",
    );
    const again = await Mistral.fromPretrained(adapter, { hub: { ...reach, offline: true } });
    expect(again.adapter).toBeDefined();
    const missing = await refusal(Mistral.fromPretrained("org/none", { hub: reach }));
    expect(missing.code).toBe("ZA_HUB_NOT_FOUND");
    expect(missing.text).toMatch(/no file or folder org\/none on this machine either/);
  });
});

describe("range reads", () => {
  it("reads what is asked for and writes no data", async () => {
    const data = open("org/chats", { split: "train_sft", stream: true });
    expect(await data.at(20)).toEqual(chats[6]);
    const requests = (await log()).filter(({ host }) => host === "large");
    expect(requests.length).toBeGreaterThan(0);
    expect(requests.every(({ range, status }) => range !== null && status === 206)).toBe(true);
    expect(await all(data)).toEqual([...chats, ...chats, ...chats]);
    const blobs = readdirSync(join(cacheDir, "datasets--org--chats", "blobs"));
    expect(blobs.length).toBe(1);
    expect(await all(open("org/lines", { split: "test", stream: true }))).toHaveLength(400);
  });

  it("http addresses, cut connections, servers without ranges, files that change", async () => {
    const signed = (path: string) => `${large}/datasets/org/${path}?signature=signed-by-the-hub`;
    const file = "chats/main/data/train_sft-00000-of-00003-0123456789abcdef.parquet";
    expect(await all(dataset(signed(file)))).toEqual(chats);
    expect(await all(dataset(signed("lines/main/test.jsonl.gz")))).toHaveLength(400);
    const lines = dataset(signed("lines/main/train.jsonl"));
    await faults([{ match: "^large", times: 3, cutAfter: 100_000 }]);
    expect(await all(lines)).toHaveLength(4000);
    expect(await lines.at(3999)).toEqual(say(3999));
    await faults([{ match: "^large", times: 99, ignoreRange: true }]);
    const refused = await refusal(dataset(signed(file)).length());
    expect(refused.code).toBe("ZA_DATA_FILE");
    expect(refused.text).toMatch(/does not answer ranges/);
    expect(refused.text).not.toMatch(/signed-by-the-hub/);
    await faults([]);
    const changing = dataset(signed(file));
    expect(await changing.length()).toBe(7);
    await faults([{ match: "^large", times: 99, headers: { etag: '"another"' } }]);
    expect((await refusal(changing.at(3))).code).toBe("ZA_DATA_CHANGED");
    await faults([]);
    expect((await refusal(dataset(`${large}/datasets/org/${file}`).length())).text).toMatch(/answered 403/);
  });
});

describe("faults of the network", () => {
  it("429 and 5xx are tried again, as late as the server asks", async () => {
    await faults([
      { match: "/revision/", times: 2, status: 503 },
      { match: "/tree/", times: 1, status: 429, headers: { "retry-after": "1" } },
      { match: "^large", times: 1, status: 500 },
    ]);
    const started = performance.now();
    expect(await open("org/chats", { split: "test_sft" }).length()).toBe(7);
    expect(performance.now() - started).toBeGreaterThan(990);
  });

  it("what stays wrong is a typed error with what to do", async () => {
    await faults([{ match: "/revision/", times: 99, status: 502 }]);
    const down = await refusal(open("org/chats", { split: "test_sft" }).length());
    expect(down.code).toBe("ZA_HUB_NETWORK");
    expect(down.text).toMatch(/answered 502.*HF_HUB_OFFLINE/s);
    await faults([{ match: "/revision/", times: 1, status: 429, headers: { "retry-after": "4000" } }]);
    expect((await refusal(open("org/chats", { split: "test_sft" }).length())).text).toMatch(/asks to wait 4000 s/);
    await faults([{ match: "/revision/", times: 1, status: 200, body: "<html>" }]);
    expect((await refusal(open("org/chats", { split: "test_sft" }).length())).code).toBe("ZA_HUB_RESPONSE");
    const nobody = await refusal(open("org/chats", { hub: { endpoint: "http://127.0.0.1:9" } }).length());
    expect(nobody.code).toBe("ZA_HUB_NETWORK");
    expect(nobody.text).toMatch(/ECONNREFUSED|bad port/);
    expect((await refusal(open("org/nothing").length())).code).toBe("ZA_HUB_NOT_FOUND");
    expect((await refusal(open("org/chats", { revision: "v9" }).length())).code).toBe("ZA_HUB_REVISION");
    expect((await refusal(open("hf://datasets/org/chats/none-*.jsonl").length())).code).toBe("ZA_DATA_FILE");
  });

  it("a page of the list on another host is refused: the token would go there", async () => {
    await faults([
      { match: "/tree/", times: 1, status: 200, headers: { link: `<${large}/api/next>; rel="next"` }, body: "[]" },
    ]);
    expect((await refusal(open("org/chats", { split: "test_sft", hub: { token } }).length())).code).toBe(
      "ZA_HUB_RESPONSE",
    );
    expect((await log()).filter(({ host }) => host === "large")).toEqual([]);
  });

  it.each(["../outside", "a/../../b", "/etc/passwd", "C:\\x", "nul.txt", "a\\b", "a//b", "x\u0000"])(
    "a repository that names a file %j is refused",
    async (path) => {
      const entry = { type: "file", path, size: 1, oid: "0".repeat(40) };
      await faults([{ match: "/tree/", times: 1, status: 200, body: JSON.stringify([entry]) }]);
      const { code } = await refusal(open("org/chats", { split: "test_sft" }).length());
      expect(code).toBe("ZA_HUB_PATH");
    },
  );
});

describe("downloads", () => {
  const train = "datasets/org/lines/main/train.jsonl";
  const size = () => readFileSync(join(served, train)).length;
  const blobs = () => join(cacheDir, "datasets--org--lines", "blobs");

  it("a connection that is cut is taken up where it broke, with progress", async () => {
    await faults([{ match: "^large.*train", times: 4, cutAfter: 200_000 }]);
    const progress: HubProgress[] = [];
    const data = open("org/lines", { split: "train", hub: { onProgress: (each) => progress.push(each) } });
    expect(await data.length()).toBe(4000);
    const ranges = (await log()).filter(({ host }) => host === "large").map(({ range }) => range);
    expect(ranges.length).toBe(5);
    expect(ranges[0]).toBe(null);
    for (const range of ranges.slice(1)) expect(range).toMatch(/^bytes=[1-9]\d+-$/);
    expect(progress.at(-1)).toMatchObject({
      file: "train.jsonl",
      loaded: size(),
      total: size(),
      loadedInAll: size(),
      totalInAll: size(),
    });
    const loaded = progress.map((each) => each.loaded);
    expect(loaded).toEqual([...loaded].sort((a, b) => a - b));
  });

  it("a download that was stopped is resumed by the next one; a false beginning is found", async () => {
    const controller = new AbortController();
    const stopped = open("org/lines", {
      split: "train",
      hub: { signal: controller.signal, onProgress: ({ loaded }) => loaded > 300_000 && controller.abort() },
    });
    expect((await refusal(stopped.length())).code).toBe("ZA_ABORTED");
    const [incomplete] = readdirSync(blobs()).filter((name) => name.endsWith(".zephyr-incomplete"));
    const path = join(blobs(), incomplete!);
    expect(readFileSync(path).length).toBeGreaterThan(300_000);
    await fetch(`${hub}/_log`, { method: "POST" });
    truncateSync(path, 250_000);
    expect(await open("org/lines", { split: "train" }).length()).toBe(4000);
    expect((await log()).filter(({ host }) => host === "large").map(({ range }) => range)).toEqual(["bytes=250000-"]);

    // Another beginning of the same length: the whole is downloaded anew.
    const saved = readFileSync(join(blobs(), incomplete!.replace(".zephyr-incomplete", "")));
    rmSync(cacheDir, { recursive: true });
    mkdirSync(blobs(), { recursive: true });
    writeFileSync(
      path,
      saved.subarray(0, 1000).map((byte) => byte ^ 1),
    );
    expect(await open("org/lines", { split: "train" }).length()).toBe(4000);
    // Longer than the file: thrown away.
    rmSync(join(cacheDir, "datasets--org--lines", "snapshots"), { recursive: true });
    rmSync(join(blobs(), incomplete!.replace(".zephyr-incomplete", "")));
    writeFileSync(path, Buffer.concat([saved, saved]));
    expect(await open("org/lines", { split: "train" }).length()).toBe(4000);
  });

  it("what is not what was listed never gets a name", async () => {
    await faults([{ match: "^large.*train", times: 9, corrupt: true }]);
    const { code, text } = await refusal(open("org/lines", { split: "train" }).length());
    expect(code).toBe("ZA_HUB_DIGEST");
    expect(text).toMatch(/its sha256 is [0-9a-f]{64}, listed is [0-9a-f]{64}/);
    expect(readdirSync(blobs())).toEqual([]);
    await faults([{ match: "resolve/.*README", times: 9, status: 200, body: "short" }]);
    expect((await refusal(open("org/chats", { split: "test_sft" }).length())).code).toMatch(/ZA_HUB_(NETWORK|DIGEST)/);
    await faults([{ match: "resolve/.*README", times: 9, status: 200, body: "long ".repeat(999) }]);
    expect((await refusal(open("org/chats", { split: "test_sft" }).length())).code).toBe("ZA_HUB_DIGEST");
  });

  it("a server that ignores the range sends all, and the file is right", async () => {
    await faults([
      { match: "^large.*train", times: 1, cutAfter: 200_000 },
      { match: "^large.*train", times: 1, ignoreRange: true },
    ]);
    expect(await open("org/lines", { split: "train" }).length()).toBe(4000);
  });

  it("two processes download a file once", async () => {
    const script = `
      import { dataset } from ${JSON.stringify(join(dirname(program), "index.js"))};
      const [endpoint, cacheDir] = process.argv.slice(2);
      const data = dataset("org/lines", { split: "train", hub: { endpoint, cacheDir, token: false } });
      console.log(await data.length());`;
    writeFileSync(join(scratch, "one.mjs"), script);
    await faults([{ match: "^large.*train", times: 20, cutAfter: 300_000 }]);
    const run = () =>
      spawn(process.execPath, [join(scratch, "one.mjs"), hub, cacheDir], { stdio: ["ignore", "pipe", "inherit"] });
    const both = [run(), run()];
    const said = both.map((child) => once(child.stdout, "data"));
    for (const text of await Promise.all(said)) expect(String(text)).toBe("4000\n");
    const starts = (await log()).filter(({ host, range }) => host === "large" && range === null);
    expect(starts.length).toBe(1);
  });
});

describe("tokens", () => {
  it("are for the Hub alone, and are never said", async () => {
    const gated = await refusal(open("org/gated-set").length());
    expect(gated.code).toBe("ZA_HUB_ACCESS");
    expect(gated.text).toMatch(/gated.*Accept its terms.*HF_TOKEN/s);
    expect((await refusal(open("org/private-set").length())).code).toBe("ZA_HUB_NOT_FOUND");
    const wrong = await refusal(open("org/gated-set", { hub: { token: "hf_wrong_secret" } }).length());
    expect(wrong.code).toBe("ZA_HUB_ACCESS");
    expect(wrong.text).toMatch(/the token is refused/);
    expect(wrong.text).not.toMatch(/hf_wrong_secret/);
    for (const id of ["org/gated-set", "org/private-set", "org/lines"]) {
      expect(await open(id, { split: "train", hub: { token } }).length()).toBeGreaterThan(2);
    }
    process.env.HF_TOKEN = token;
    const home = join(scratch, "home");
    mkdirSync(home, { recursive: true });
    try {
      expect(await dataset("org/private-set", { hub: { endpoint: hub, cacheDir: join(cacheDir, "2") } }).length()).toBe(
        3,
      );
      delete process.env.HF_TOKEN;
      process.env.HF_HOME = home;
      appendFileSync(join(home, "token"), `${token}\n`);
      expect(await dataset("org/private-set", { hub: { endpoint: hub } }).length()).toBe(3);
      expect(readdirSync(join(home, "hub")).sort()).toEqual([".locks", "datasets--org--private-set"]);
      process.env.HF_ENDPOINT = hub;
      expect(await dataset("org/private-set").length()).toBe(3);
    } finally {
      delete process.env.HF_TOKEN;
      delete process.env.HF_HOME;
      delete process.env.HF_ENDPOINT;
    }
    const requests = await log();
    expect(requests.some(({ token: sent }) => sent === `Bearer ${token}`)).toBe(true);
    expect(requests.filter(({ host, token: sent }) => host === "large" && sent !== null)).toEqual([]);
    for (const folder of [cacheDir, home]) {
      for (const file of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
        const path = join(folder, file);
        if (file === "token" || !lstatSync(path).isFile()) continue;
        expect(readFileSync(path, "latin1").includes(token), file).toBe(false);
      }
    }
    // A token with a line break would be quoted by the HTTP client.
    const broken = await refusal(open("org/lines", { split: "train", hub: { token: "hf_a\nb" } }).length());
    expect(broken.code).toBe("ZA_CONFIG_INVALID");
    expect(broken.text).not.toMatch(/hf_a/);
  });
});
