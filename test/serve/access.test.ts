/** Who may ask: own programs and pages, whoever has the key, and nobody else. */
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { networkInterfaces } from "node:os";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildProgram } from "../shared";
import { base, chat, type Serving, say, startDemo, startServing } from "./serving";

let server: Serving;

beforeAll(async () => {
  buildProgram();
  server = await startDemo();
});

afterAll(async () => {
  await server?.stop();
});

describe("who may ask", () => {
  /** The status of a request with any headers, which fetch would not send. */
  const status = (of: Serving, headers: Record<string, string>, path = "/v1/models") =>
    new Promise<number | undefined>((resolve, reject) => {
      const request = httpRequest(`${of.url}${path}`, { headers }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      request.on("error", reject).end();
    });

  it("this machine's own programs and pages; no foreign page, and no page by a foreign name", async () => {
    const { host } = new URL(server.url);
    for (const own of ["localhost", "127.0.0.1:1", "[::1]:80"]) expect(await status(server, { host: own })).toBe(200);
    for (const foreign of ["example.com", "localhost.example.com"])
      expect(await status(server, { host: foreign })).toBe(403);
    expect(await status(server, { origin: `http://${host}` })).toBe(200);
    expect(await status(server, { origin: "https://example.com" })).toBe(403);
    expect(await status(server, { origin: "null" })).toBe(403);
    expect(await status(server, { "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors" })).toBe(403);
    expect(await status(server, { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate" }, "/")).toBe(200);
    const response = await fetch(`${server.url}/v1/models`);
    expect([...response.headers.keys()].filter((name) => name.startsWith("access-control"))).toEqual([]);
  });

  it("whoever has the key, and pages that were named", async () => {
    const flags = ["--model", `demo=${base}`, "--api-key-env", "ZEPHYR_SERVE_KEY", "--cors", "https://example.com"];
    const locked = await startServing(flags, { ZEPHYR_SERVE_KEY: "sesame-4711" });
    expect((await locked.openai.models.list()).data).toHaveLength(1);
    // One model answers by any name.
    const { model } = await locked.openai.chat.completions.create({
      model: "gpt-4o",
      messages: say("a"),
      max_tokens: 1,
    });
    expect(model).toBe("demo");
    const stranger = new OpenAI({ baseURL: `${locked.url}/v1`, apiKey: "sesame-4712", maxRetries: 0 });
    await expect(stranger.models.list()).rejects.toMatchObject({ status: 401, code: "invalid_api_key" });
    for (const path of ["/v1/models", "/metrics", chat]) expect(await status(locked, {}, path), path).toBe(401);
    for (const path of ["/", "/health"]) expect(await status(locked, {}, path), path).toBe(200);
    expect(await status(locked, { authorization: "Bearer sesame-4711", origin: "https://example.com" })).toBe(200);
    expect(await status(locked, { authorization: "Bearer sesame-4711", origin: "https://example.org" })).toBe(403);
    const asked = {
      origin: "https://example.com",
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization",
    };
    const preflight = await fetch(`${locked.url}${chat}`, { method: "OPTIONS", headers: asked });
    expect([preflight.status, preflight.headers.get("access-control-allow-origin")]).toEqual([
      204,
      "https://example.com",
    ]);
    expect(await locked.stop()).toBe(0);
    expect(locked.said()).not.toContain("sesame");
  });

  it("listens on loopback alone, unless a host is named", async () => {
    const beyond = Object.values(networkInterfaces())
      .flatMap((each) => each ?? [])
      .find((each) => each.family === "IPv4" && !each.internal);
    const { port } = new URL(server.url);
    const reached = (host: string, port: string) =>
      new Promise<string>((resolve) => {
        const socket = connect({ host, port: Number(port) });
        socket.once("error", ({ message }) => resolve(message));
        socket.once("connect", () => {
          socket.destroy();
          resolve("reached");
        });
      });
    expect(server.url).toMatch(/^http:\/\/127\.0\.0\.1:/);
    expect(await reached("127.0.0.1", port)).toBe("reached");
    if (!beyond) return console.warn("SKIPPED: this machine has no address beyond loopback");
    expect(await reached(beyond.address, port)).toMatch(/ECONNREFUSED/);
    const open = await startServing(["--model", base, "--host", "0.0.0.0", "--without-key"]);
    expect(await reached(beyond.address, new URL(open.url).port)).toBe("reached");
    expect(await open.stop()).toBe(0);
  });

  it("nobody beyond this machine without a key, unless it is said", async () => {
    const refused = (...flags: string[]) => startServing(["--model", base, ...flags]).then(() => "started", String);
    const open = await refused("--host", "0.0.0.0");
    expect(open).toMatch(/ended with 77[\s\S]*ZA_SERVE_OPEN[\s\S]*--without-key/);
    const taken = await refused("--port", new URL(server.url).port);
    expect(taken).toMatch(/ended with 77[\s\S]*ZA_SERVE_ADDRESS[\s\S]*is taken/);
    // Before anything is loaded.
    expect(open + taken).not.toContain("loading");
    expect(await refused("--api-key-env", "ZEPHYR_NO_SUCH_KEY")).toMatch(/ended with 77[\s\S]*ZEPHYR_NO_SUCH_KEY/);
    expect(await refused("--model", `${base}/`)).toMatch(/ended with 77[\s\S]*two models have the name base/);
    expect(await refused("--model", `${base}-none`)).toMatch(/ended with 77[\s\S]*ZA_MODEL_NOT_FOUND/);
    const meant = await startServing(["--model", base, "--host", "0.0.0.0", "--without-key"]);
    expect(await status(meant, { host: "example.com" })).toBe(200);
    expect(await meant.stop()).toBe(0);
  });
});
