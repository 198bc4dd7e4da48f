import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { template } from "./template";

describe("template", () => {
  it("fills slots once: braces in what is put in stay", () => {
    expect(template("a {{one}} b {{two}}").fill({ one: "{{two}}", two: 2 })).toBe("a {{two}} b 2");
  });

  it("reads what was filled in", () => {
    const mail = template("Dear {{name}} (yes, {{name}}),\n{{body}}\n-- [end]");
    fc.assert(
      fc.property(fc.stringMatching(/^[a-z ]+$/), fc.string(), (name, body) => {
        expect(mail.read(mail.fill({ name, body }))).toEqual({ name, body });
      }),
    );
    expect(mail.read("Dear A (yes, B),\nx\n-- [end]")).toBeUndefined();
    expect(mail.read("something else")).toBeUndefined();
  });

  it("finds all its texts in a longer one", () => {
    const item = template("<{{n}} k>{{text}}</{{n}} k>");
    const whole = `before ${item.fill({ n: 1, text: "a</2 k>" })} between ${item.fill({ n: 2, text: "" })} after`;
    expect(item.readAll(whole)).toEqual([
      { n: "1", text: "a</2 k>" },
      { n: "2", text: "" },
    ]);
  });
});
