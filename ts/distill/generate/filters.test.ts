import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { data, present, readJsonl } from "../../../test/shared";
import { turnProblem, withoutLabel } from "./filters";
import { parseList, parseTexts } from "./list-answer";
import { truecased } from "./truecase";

describe("turnProblem", () => {
  const assistant = (text: string, told = "") => turnProblem("assistant", text, told);
  const user = (text: string, told = "") => turnProblem("user", text, told);

  it("drops assistants that speak of themselves as machines without feelings", () => {
    for (const text of [
      "As an AI language model, I cannot say.",
      "I don't have personal opinions, but many like it.",
      "I do not have emotions.",
      "I'm just a chatbot.",
    ]) {
      expect(assistant(text), text).toBe("ai-disclaimer");
    }
    for (const text of [
      "I have no doubt that it works.",
      "People who do not have feelings for cats may like dogs.",
      "An AI is a program that learns.",
      "I don't have the exact number.",
    ]) {
      expect(assistant(text), text).toBeUndefined();
    }
  });

  it("drops turns in the other role", () => {
    for (const text of [
      "How can I help you today?",
      "Sure! Here is the text:",
      "Assistant: the hat is red.",
      "I hope this helps! Let me know if you need more.",
      "As an AI, I cannot go out.",
    ]) {
      expect(user(text), text).toBe("role-exchange");
    }
    expect(user("Sure, but how do I know that it is true?")).toBeUndefined();
    expect(user("Can you help me?")).toBeUndefined();
    expect(assistant("It is red.\nUser: and the cat?")).toBe("role-exchange");
  });

  it("drops empty turns, leaks and loops", () => {
    expect(assistant(" \n… ")).toBe("empty");
    expect(user("[END]")).toBe("leak");
    expect(
      user(
        "write the person's next message to the assistant please",
        "Write the person's next message to the assistant, please.",
      ),
    ).toBe("leak");
    expect(assistant("well well well well well")).toBe("loop");
  });

  it.runIf(present(join(data, "mt_bench", "model_answer")))("leaves nearly all real answers alone", () => {
    type Answer = { choices: { turns: string[] }[] };
    for (const model of ["gpt-4", "zephyr-7b-beta"]) {
      const turns = readJsonl<Answer>(data, "mt_bench", "model_answer", `${model}.jsonl`).flatMap(
        (row) => row.choices[0]!.turns,
      );
      const dropped = turns.map((turn) => assistant(turn)).filter((problem) => problem !== undefined);
      expect(dropped.length / turns.length, `${model}: ${dropped}`).toBeLessThan(0.1);
    }
  });
});

describe("what models write around an answer", () => {
  it("takes labels off", () => {
    expect(withoutLabel("User: what is it?")).toBe("what is it?");
    expect(withoutLabel("**Human:** what is it?")).toBe("what is it?");
    expect(withoutLabel("The user: who is it?")).toBe("The user: who is it?");
  });

  it("reads lists", () => {
    expect(parseList('Here they are:\n\n1. one\n2) **two**\n   more of two\n\n3. "three"\n\nEnjoy!')).toEqual({
      value: ["one", "**two**\nmore of two", "three"],
    });
    expect(parseList('```json\n["a", "b"]\n```')).toEqual({ value: ["a", "b"] });
    expect(parseList("- x\n- y")).toEqual({ value: ["x", "y"] });
    expect(parseList("first\nsecond")).toEqual({ value: ["first", "second"] });
    expect(parseList("I would rather not.").problem).toMatch(/no numbered list/);
    expect(parseList('1. "yes" and "no"')).toEqual({ value: ['"yes" and "no"'] });
    expect(parseTexts("one\ntwo\n---\n\nthree\n -----\n").value).toEqual(["one\ntwo", "three"]);
  });
});

describe("truecased", () => {
  it("mends sentences that begin small in a text that begins others with capitals", () => {
    expect(truecased("Hello. how are you? i'm fine.")).toBe("Hello. How are you? I'm fine.");
    expect(truecased('He said "no." then he left.')).toBe('He said "no." Then he left.');
  });

  it("leaves texts in one style, abbreviations, numbers and code", () => {
    for (const text of [
      "hello. how are you? i'm fine.",
      "Use tools, e.g. hammers, etc. and so on. Fine.",
      "It weighs 5. something and J. doe signed.",
      "See `a. b` here.\n```\nx. y = i + 1\n```\nDone. Good.",
      "Well... maybe. Yes.",
    ]) {
      expect(truecased(text)).toBe(text);
    }
  });
});
