import { appendFile } from "node:fs/promises";
import { createInterface, type Interface } from "node:readline";
import type { Command } from "commander";
import type { Message } from "../data";
import { AbortedError, fromNative, IoError } from "../errors";
import { Mistral } from "../model/mistral";
import { whole } from "../report/format";
import { numberBetween, wholeNumber } from "./arguments";
import { templateOf } from "./config-options";
import { interruptible } from "./interrupt";
import { addDeviceOption, addLoadingOptions, type LoadingFlags, loadingToUse } from "./loading";
import { reportError } from "./report-error";
import { styleOf } from "./style";
import { table } from "./train";

interface ChatFlags extends LoadingFlags {
  model: string;
  template?: string;
  system?: string;
  maxTokens: number;
  temperature: number;
  topK: number;
  topP: number;
  repetitionPenalty: number;
  seed: number;
  once?: string;
}

/** `zephyr-align chat`: talk with a model. */
export function addChat(program: Command): void {
  const command = program
    .command("chat")
    .helpGroup("Use and judge:")
    .description("Talk with a model. Lines from a pipe are answered one by one, as one conversation.")
    .requiredOption("--model <path>", "Model: a folder in Hugging Face's layout, or a GGUF file.");
  addDeviceOption(addLoadingOptions(command))
    .option("--system <text>", "System message.")
    .option("--max-tokens <n>", "Longest answer in tokens.", wholeNumber(1), 512)
    .option("--temperature <n>", "0 is greedy: always the likeliest token.", numberBetween(0, 100), 0.7)
    .option("--top-p <n>", "Smallest set of tokens with this probability; 1 is off.", numberBetween(0, 1), 1)
    .option("--top-k <n>", "Likeliest tokens to choose from; 0 is off.", wholeNumber(0), 0)
    .option("--repetition-penalty <n>", "Above 1, words that were said are less likely.", numberBetween(0.01, 100), 1)
    .option("--seed <n>", "The same seed gives the same answers.", wholeNumber(0), 0)
    .option("--template <name|file>", "Chat template: model, zephyr, or a Jinja file.", "model")
    .option("--once <text>", "Print the answer to this text and end.")
    .addHelpText(
      "after",
      `
Examples:
  $ zephyr-align chat --model runs/dpo/model
  $ zephyr-align chat --model model.gguf --once "Name three trees." --temperature 0
  $ zephyr-align chat --model model.gguf < questions.txt

Lines of a pipe are one conversation; a line /reset starts another. One that cannot be answered (it does not fit) is told on
standard error and left out; the next ones are answered, and the exit code is then that of the failure (77: it is too long).`,
    )
    .action(chat);
}

const help: readonly (readonly [string, string])[] = [
  ["/system TEXT", "set the system message (without TEXT: none) and start again"],
  ["/reset", "forget the conversation, keep the system message"],
  ["/save FILE", "add the conversation to FILE as a row of JSONL, ready for sft"],
  ["/help", "this list"],
  ["/quit", "leave; Ctrl-D as well"],
];

/** A conversation that grows by questions and answers. */
class Conversation {
  messages: Message[] = [];
  #answers = 0;

  constructor(
    readonly model: Mistral,
    readonly flags: ChatFlags,
    public system: string | undefined,
  ) {
    this.reset();
  }

  reset(): void {
    this.messages = this.system ? [{ role: "system", content: this.system }] : [];
  }

  /**
   * Streams the answer to standard output. An answer that was stopped is kept as far as it came; one that was cut is told
   * so on standard error.
   */
  async answer(question: string, signal: AbortSignal): Promise<void> {
    const { flags, model, messages } = this;
    const prompt: readonly Message[] = [...messages, { role: "user", content: question }];
    // Each answer has its own seed: the same one would repeat the choices of the answer before.
    const seed = flags.seed + this.#answers++;
    let text = "";
    let open = true;
    const show = (piece: string) => {
      text += piece;
      process.stdout.write(piece);
    };
    try {
      const onToken = (piece: string) => {
        if (open) show(piece);
      };
      const { maxTokens, temperature, topK, topP, repetitionPenalty } = flags;
      const sampling = { maxTokens, temperature, topK, topP, repetitionPenalty, seed };
      const answer = await model.generate(prompt, { ...sampling, signal, onToken, reuse: true });
      open = false;
      // Pieces may still be on their way.
      show(`${answer.text.slice(text.length)}\n`);
      text = answer.text;
      if (answer.finishReason === "length") {
        process.stderr.write(`${styleOf(process.stderr).dim(`(cut: ${this.#cutBy(answer.ids.length)})`)}\n`);
      }
    } finally {
      if (open && text !== "") process.stdout.write("\n");
      open = false;
      if (text !== "") this.messages = [...prompt, { role: "assistant", content: text }];
    }
  }

  /** What an answer of so many tokens was cut by. */
  #cutBy(tokens: number): string {
    const { maxTokens } = this.flags;
    if (tokens >= maxTokens) return `--max-tokens is ${maxTokens}`;
    return `the model reads ${whole(this.model.config.max_position_embeddings)} tokens; /reset makes room`;
  }

  async save(path: string): Promise<void> {
    try {
      await appendFile(path, `${JSON.stringify({ messages: this.messages })}\n`);
    } catch (error) {
      throw fromNative(error, { file: path });
    }
  }
}

async function chat(flags: ChatFlags): Promise<void> {
  const model = await load(flags);
  const conversation = new Conversation(model, flags, flags.system);
  if (flags.once !== undefined) {
    await interruptible((signal) => conversation.answer(flags.once ?? "", signal));
  } else if (process.stdin.isTTY) await converse(conversation);
  else await interruptible((signal) => answerLines(conversation, signal));
}

async function load(flags: ChatFlags): Promise<Mistral> {
  const model = await Mistral.fromPretrained(flags.model, loadingToUse(flags));
  return model.withTemplate(templateOf(flags.template ?? "model"));
}

/** Answers each line of a pipe; the lines are one conversation. One that cannot be answered is told, and left out of it. */
async function answerLines(conversation: Conversation, signal: AbortSignal): Promise<void> {
  const lines = createInterface({ input: process.stdin, crlfDelay: Number.POSITIVE_INFINITY });
  signal.addEventListener("abort", () => lines.close(), { once: true });
  for await (const line of lines) {
    const said = line.trim();
    if (said === "") continue;
    try {
      if (!said.startsWith("/")) await conversation.answer(said, signal);
      else if (await obey(said, conversation)) break;
    } catch (error) {
      if (signal.aborted) break;
      // The lines behind it may fit. The program's exit code is that of the first failure.
      const code = reportError(error, false);
      process.exitCode ??= code;
      process.stderr.write(`  this line was left out: ${JSON.stringify(said.slice(0, 60))}\n`);
    }
  }
  if (signal.aborted) throw new AbortedError("ZA_ABORTED", "the chat was stopped");
}

/** Does what a line that begins with `/` asks for. @returns whether to leave */
async function obey(line: string, conversation: Conversation): Promise<boolean> {
  const { bold, dim, yellow } = styleOf(process.stdout);
  const [command = "", ...words] = line.split(/\s+/);
  const rest = line.slice(command.length).trim();
  const say = (text: string) => process.stdout.write(`${dim(text)}\n`);
  switch (command) {
    case "/quit":
    case "/exit":
      return true;
    case "/help":
      process.stdout.write(table(help, bold));
      return false;
    case "/reset":
      conversation.reset();
      say("the conversation is empty");
      return false;
    case "/system":
      conversation.system = rest === "" ? undefined : rest;
      conversation.reset();
      say(rest === "" ? "no system message" : `system message: ${rest}`);
      return false;
    case "/save":
      if (words.length === 0) say("give a file: /save FILE");
      else if (!conversation.messages.some(({ role }) => role === "assistant")) say("there is nothing to save yet");
      else {
        await conversation.save(rest);
        say(`added to ${rest}`);
      }
      return false;
    default:
      process.stdout.write(`${yellow(`there is no command ${command}`)}; /help lists them\n`);
      return false;
  }
}

/** The dialogue on a terminal. Ctrl-C stops an answer; at the prompt, twice, it leaves. */
async function converse(conversation: Conversation): Promise<void> {
  const { model } = conversation;
  const { bold, dim, cyan } = styleOf(process.stdout);
  process.stdout.write(
    `${bold(model.source)} ${dim(`${whole(model.parameters)} parameters`)}\n${dim("/help lists the commands, Ctrl-C stops an answer, /quit leaves")}\n\n`,
  );
  const input = createInterface({ input: process.stdin, output: process.stdout, historySize: 500 });
  const terminal = new Prompt(input, cyan("› "), dim("(Ctrl-C once more, or /quit, to leave)"));
  try {
    for (;;) {
      const line = await terminal.ask();
      if (line === undefined) break;
      const said = line.trim();
      if (said === "") continue;
      try {
        if (!said.startsWith("/")) {
          await terminal.during((signal) => conversation.answer(said, signal));
          process.stdout.write("\n");
        } else if (await obey(said, conversation)) break;
      } catch (error) {
        const typed = fromNative(error);
        if (typed instanceof AbortedError) process.stdout.write(`${dim("(stopped)")}\n\n`);
        else {
          // The talk goes on: a text that is too long, or a file that cannot be written, is no reason to leave.
          reportError(typed, false);
          if (!(typed instanceof IoError)) process.stderr.write("  /reset starts again\n");
        }
      }
    }
  } finally {
    input.close();
  }
}

/** Questions on a terminal, and what Ctrl-C means at each moment. */
class Prompt {
  #answering: AbortController | undefined;
  #interrupted = false;
  #take: ((line: string | undefined) => void) | undefined;
  #closed = false;
  readonly #input: Interface;

  constructor(input: Interface, prompt: string, warning: string) {
    this.#input = input;
    input.setPrompt(prompt);
    input.on("line", (line) => {
      this.#interrupted = false;
      this.#take?.(line);
    });
    input.on("close", () => {
      this.#closed = true;
      this.#answering?.abort();
      this.#take?.(undefined);
    });
    input.on("SIGINT", () => {
      if (this.#answering) this.#answering.abort();
      else if (this.#interrupted) input.close();
      else {
        this.#interrupted = true;
        process.stdout.write(`\n${warning}\n`);
        // What was typed is given up, as in a shell.
        input.write(null, { ctrl: true, name: "e" });
        input.write(null, { ctrl: true, name: "u" });
        input.prompt();
      }
    });
  }

  /** The next line; undefined when the user leaves. Lines typed during an answer are not taken as questions. */
  async ask(): Promise<string | undefined> {
    if (this.#closed) return undefined;
    this.#input.prompt();
    const line = await new Promise<string | undefined>((resolve) => {
      this.#take = resolve;
    });
    this.#take = undefined;
    if (line === undefined) process.stdout.write("\n");
    return line;
  }

  /** Runs an answer that Ctrl-C stops. */
  async during(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const controller = new AbortController();
    this.#answering = controller;
    try {
      await work(controller.signal);
    } finally {
      this.#answering = undefined;
    }
  }
}
