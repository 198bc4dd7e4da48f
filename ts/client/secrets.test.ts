/** A key is planted, the server echoes it wherever it can: it is found in nothing that is written or thrown. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterAll, beforeAll, expect, it, vi } from "vitest";
import { type Server, startServer } from "../../test/server/start.mjs";
import { CallJournal } from "./call-journal";
import { OpenAiChat } from "./openai-chat";
import { PaidCalls } from "./paid-calls";

const key = "sk-planted/0123456789+abcdef";
const parameter = "url-planted-9876543210";
const password = "pass planted 55555";

let server: Server;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "zephyr-secrets-"));
  server = await startServer({ answer: join(import.meta.dirname, "..", "..", "test", "server", "echo-answer.mjs") });
});
afterAll(async () => {
  await server.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** Every form that a secret is sent or printed in. */
const forms = [key, parameter, password].flatMap((secret) => [
  secret,
  encodeURIComponent(secret),
  JSON.stringify(secret).slice(1, -1),
  Buffer.from(secret).toString("base64"),
]);

function planted(text: string): string[] {
  return forms.filter((form) => text.includes(form));
}

it.each([
  ["as a key", (url: string) => ({ baseUrl: url, key })],
  ["in the address", (url: string) => ({ baseUrl: `${url}?api-key=${parameter}&api-version=2026-01-01` })],
  [
    "as user and password",
    (url: string) => ({ baseUrl: url.replace("http://", `http://user:${encodeURIComponent(password)}@`) }),
  ],
])("a key given %s is nowhere", async (name, optionsOf) => {
  const journal = join(folder, `${name}.sqlite`);
  const written: string[] = [];
  for (const method of ["log", "error", "warn", "debug", "info"] as const) {
    vi.spyOn(console, method).mockImplementation((...given) => void written.push(inspect(given)));
  }
  process.env.OPENAI_LOG = "debug";
  try {
    const calls = await PaidCalls.open({ journal, maxAttempts: 3, onNotice: (text) => written.push(text) });
    const request = (content: string) => ({
      messages: [{ role: "user" as const, content }],
      sampling: { maxTokens: 4000 },
    });
    for (const stream of [false, true]) {
      const model = calls.guard(
        new OpenAiChat({ model: "teacher", facts: { input: 1, output: 1 }, stream, ...optionsOf(server.url) }),
      );
      // The teacher answers with all that it was sent.
      await server.set({ milliseconds: 0 });
      const response = await model.complete(request(`echo ${stream}`));
      written.push(JSON.stringify(response));
      for (const fault of ["401", "400", "429", "500", "404", "prose"]) {
        await server.script([{ fault, echo: true, message: "You sent", times: 3, retryAfterMs: 1 }]);
        const error = await model.complete(request(`${fault} ${stream}`)).catch((thrown: Error) => thrown);
        await server.script([]);
        expect(error).toBeInstanceOf(Error);
        // All of it: causes, fields, stack.
        written.push(inspect(error, { depth: 20, showHidden: true, getters: true }), String((error as Error).stack));
      }
    }
    written.push(JSON.stringify(await calls.ledger()));
    await calls.close();
    const reader = await CallJournal.read(journal);
    written.push(JSON.stringify(await reader.summary()));
    await reader.close();
  } finally {
    delete process.env.OPENAI_LOG;
    vi.restoreAllMocks();
  }
  // The server did echo: where a key stood, there is a mark.
  expect(written.join("")).toContain("[key]");
  expect(planted(written.join("\n"))).toEqual([]);
  for (const file of readdirSync(folder)) expect(planted(readFileSync(join(folder, file), "latin1")), file).toEqual([]);
});
