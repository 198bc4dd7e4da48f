/** `zephyr-align chat` on a terminal: a pseudo-terminal of a child process, the built program in it. */
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type Message, Mistral } from "../ts/index";
import { buildProgram, present, pythonWith, smollm2 } from "./shared";

const base = fileURLToPath(new URL("../recipes/demo/base", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "zephyr-chat-"));
const python = pythonWith("pty");
const ctrlC = "\x03";
const ctrlD = "\x04";
let program: string;

beforeAll(() => {
  program = buildProgram();
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs its arguments on a terminal of their own: what comes in is typed there, what they print comes out. */
const terminal = `
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
`;

/** A talk on a terminal. */
class Talk {
  readonly #child: ChildProcessWithoutNullStreams;
  /** What was printed, without control sequences; and what of it has been looked at. */
  printed = "";
  #seen = 0;
  /** Times at which something was printed. */
  times: number[] = [];
  readonly ended: Promise<number | null>;

  constructor(args: string[]) {
    const env = { ...process.env, NO_COLOR: "1", TERM: "xterm" };
    this.#child = spawn(python!, ["-c", terminal, process.execPath, program, "chat", ...args], { env });
    this.#child.stdout.on("data", (data: Buffer) => {
      // biome-ignore lint/suspicious/noControlCharactersInRegex: terminals are spoken to by control characters
      this.printed += data.toString().replace(/\x1b\[[0-9;?]*[A-Za-z]/g, "");
      this.times.push(performance.now());
    });
    this.ended = new Promise((resolve) => this.#child.on("exit", resolve));
  }

  type(text: string): void {
    this.#child.stdin.write(text);
  }

  /** What is printed up to `pattern`, behind what was waited for before. */
  async until(pattern: RegExp, seconds = 60): Promise<string> {
    const end = performance.now() + 1000 * seconds;
    for (;;) {
      const found = pattern.exec(this.printed.slice(this.#seen));
      if (found) {
        const text = this.printed.slice(this.#seen, this.#seen + found.index);
        this.#seen += found.index + found[0].length;
        return text;
      }
      if (performance.now() > end || this.#child.exitCode !== null) {
        throw new Error(`no ${pattern} in: ${JSON.stringify(this.printed.slice(this.#seen))}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** Types a line and gives what comes until the next prompt, without the line itself. */
  async ask(line: string): Promise<string> {
    this.type(`${line}\r`);
    await this.until(/\r\n/);
    return (await this.until(/› /)).trim();
  }

  end(): void {
    this.#child.kill("SIGKILL");
  }
}

let talk: Talk | undefined;
afterEach(() => talk?.end());

describe.runIf(python !== undefined)("a talk on a terminal", () => {
  it.runIf(present(smollm2))(
    "streams, remembers, obeys commands; Ctrl-C stops the answer alone, Ctrl-D leaves",
    async () => {
      talk = new Talk(["--model", smollm2, "--temperature", "0", "--max-tokens", "400"]);
      expect(await talk.until(/› /)).toContain("134,515,008 parameters");
      expect(await talk.ask("/help")).toMatch(/\/system TEXT[\s\S]*\/save FILE/);
      expect(await talk.ask("/nonsense")).toContain("there is no command /nonsense");
      expect(await talk.ask("/save nothing.jsonl")).toContain("nothing to save");

      talk.times = [];
      expect(await talk.ask("What is the capital of France?")).toContain("Paris");
      expect(talk.times.length).toBeGreaterThan(4);
      const second = await talk.ask("And of Italy?");
      const saved = join(folder, "talk.jsonl");
      expect(await talk.ask(`/save ${saved}`)).toContain(saved);
      const { messages } = JSON.parse(readFileSync(saved, "utf8")) as { messages: Message[] };
      expect(messages.map(({ role }) => role)).toEqual(["user", "assistant", "user", "assistant"]);
      // The second answer is the one to the whole conversation.
      using model = await Mistral.fromPretrained(smollm2, { quantization: "gguf" });
      const { text } = await model.generate(messages.slice(0, 3), { maxTokens: 400 });
      expect(messages[3]!.content).toBe(text);
      expect(second.replaceAll("\r\n", "\n")).toBe(text.trim());

      talk.type("Write a very long story about the sea.\r");
      await talk.until(/sea\.\r+\n/);
      await talk.until(/\w+ \w+ \w+ \w+/);
      const pressed = performance.now();
      talk.type(ctrlC);
      await talk.until(/\(stopped\)/, 5);
      await talk.until(/› /, 5);
      expect(performance.now() - pressed).toBeLessThan(3000);
      // The program is there, and knows what it had said so far.
      await talk.ask(`/save ${saved}`);
      const stopped = JSON.parse(readFileSync(saved, "utf8").trim().split("\n")[1]!) as { messages: Message[] };
      expect(stopped.messages).toHaveLength(6);
      expect(stopped.messages[5]!.content).toMatch(/\w+ \w+ \w+ \w+/);
      expect(await talk.ask("What is the capital of France?")).not.toBe("");
      expect(await talk.ask("/system You answer in French.")).toContain("system message: You answer in French.");
      expect(await talk.ask("What is the capital of France?")).toContain("Paris");

      talk.type(ctrlD);
      expect(await talk.ended).toBe(0);
    },
  );

  it("Ctrl-C at the prompt warns once, gives up what was typed, and leaves the second time", async () => {
    talk = new Talk(["--model", base, "--temperature", "0", "--max-tokens", "8"]);
    await talk.until(/› /);
    talk.type(`half a que${ctrlC}`);
    await talk.until(/Ctrl-C once more/);
    await talk.until(/› /);
    expect(await talk.ask("say nine.")).not.toBe("");
    talk.type(ctrlC);
    await talk.until(/Ctrl-C once more/);
    talk.type(ctrlC);
    expect(await talk.ended).toBe(0);
  });
});

describe("a talk through a pipe", () => {
  const say = (input: string, ...args: string[]) =>
    spawnSync(
      process.execPath,
      [program, "chat", "--model", base, "--temperature", "0", "--max-tokens", "8", ...args],
      {
        encoding: "utf8",
        input,
        env: { ...process.env, NO_COLOR: "1" },
      },
    );

  it("answers line by line until the end of input or /quit", () => {
    const { status, stdout, stderr } = say("say nine.\n\n/reset\nsay nine.\nsay two.");
    expect(status, stderr).toBe(0);
    const [first, reset, again, other] = stdout.split("\n");
    expect(reset).toContain("empty");
    // Nothing of the first question is left.
    expect(again).toBe(first);
    expect(other).not.toBe("");
    expect(say("say nine.\n/quit\nsay two.\n").stdout).toBe(`${first}\n`);
    expect(say("").stdout).toBe("");
  });

  it("says what cut an answer; a text that is too long is refused with both numbers", () => {
    const cut = say("", "--once", "say nine.");
    expect([cut.status, cut.stdout.split("\n").length]).toEqual([0, 2]);
    expect(cut.stderr).toBe("(cut: --max-tokens is 8)\n");
    // As long as the model's 512 tokens leave room for a few.
    const full = say("", "--once", "say nine. ".repeat(166), "--max-tokens", "400");
    expect([full.status, full.stderr]).toEqual([0, "(cut: the model reads 512 tokens; /reset makes room)\n"]);
    const long = say("", "--once", "say nine. ".repeat(400));
    expect([long.status, long.stdout]).toEqual([77, ""]);
    expect(long.stderr).toMatch(/ZA_CONTEXT_LENGTH\n {2}1[\d,]+ tokens do not fit.* 512\./);
  });

  it("leaves out a line that does not fit, says so, and goes on with the next; the exit code tells", () => {
    const long = "say nine. ".repeat(400);
    const { status, stdout, stderr } = say(`say nine.\n${long}\n/reset\nsay nine.\n`);
    const [first, reset, again, end] = stdout.split("\n");
    expect([again, end]).toEqual([first, ""]);
    expect(reset).toContain("empty");
    expect(stderr).toMatch(/ZA_CONTEXT_LENGTH[\s\S]*this line was left out: "say nine\. say/);
    expect(status).toBe(77);
  });

  it("a signal ends it with the code of a stopped run", async () => {
    const child = spawn(process.execPath, [program, "chat", "--model", base, "--temperature", "0"], {
      stdio: ["pipe", "pipe", "pipe"],
    });
    const ended = new Promise((resolve) => child.on("exit", resolve));
    child.stdin.write("say nine.\n");
    await new Promise((resolve) => child.stdout.once("data", resolve));
    child.kill("SIGINT");
    expect(await ended).toBe(75);
  });
});
