import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { ApiError } from "../api-error";
import { anyObject, grammarOf } from "./json-schema";

/** Characters of JSON and of ASCII. */
const anyText = String.fromCharCode(...Array.from({ length: 95 }, (_, i) => 32 + i));

const accepts = (schema: unknown, text: string) => grammarOf(schema, "schema").accepts(text);

/** A schema with values that fit it, in the order of its properties. */
interface Sample {
  schema: object;
  value: unknown;
}

const { sample } = fc.letrec<{ sample: Sample }>((tie) => ({
  sample: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    fc.string({ unit: "binary" }).map((value): Sample => ({ schema: { type: "string" }, value })),
    fc.integer().map((value): Sample => ({ schema: { type: "integer" }, value })),
    fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e9, max: 1e9 }).map((value): Sample => {
      const short = Number(value.toFixed(6));
      return { schema: { type: "number" }, value: Object.is(short, -0) ? 0 : short };
    }),
    fc.boolean().map((value): Sample => ({ schema: { type: "boolean" }, value })),
    fc.constant<Sample>({ schema: { type: "null" }, value: null }),
    fc.jsonValue().map((value): Sample => ({ schema: { enum: [value, "other"] }, value })),
    fc.array(tie("sample"), { maxLength: 3 }).map((items): Sample => {
      const schemas = items.map(({ schema }) => schema);
      const item = schemas.length === 0 ? true : { anyOf: schemas };
      return { schema: { type: "array", items: item }, value: items.map(({ value }) => value) };
    }),
    fc
      .dictionary(fc.string({ maxLength: 5 }), fc.tuple(tie("sample"), fc.boolean(), fc.boolean()))
      .map((members): Sample => {
        // Integer-like names come first in every object, whatever their order in the schema was.
        const entries = Object.entries(members).filter(([name]) => name !== "__proto__");
        const properties = Object.fromEntries(entries.map(([name, [{ schema }]]) => [name, schema]));
        const required = entries.filter(([, [, needed]]) => needed).map(([name]) => name);
        const present = entries.filter(([, [, needed, there]]) => needed || there);
        const value = Object.fromEntries(present.map(([name, [member]]) => [name, member.value]));
        return { schema: { type: "object", properties, required, additionalProperties: false }, value };
      }),
  ),
}));

describe("grammars of JSON schemas", () => {
  it("hold every value of a schema as JSON.stringify writes it, and no part of it", () => {
    fc.assert(
      fc.property(sample, ({ schema, value }) => {
        const text = JSON.stringify(value);
        expect(accepts(schema, text)).toBe(true);
        // Digits alone are whole at every place.
        if (typeof value !== "number") expect(accepts(schema, text.slice(0, -1))).toBe(false);
        expect(accepts(schema, `${text},`)).toBe(false);
      }),
      { numRuns: 300 },
    );
  });

  it("whatever they let through by random steps is JSON that zod accepts for the same schema", () => {
    const shape = z.strictObject({
      name: z.string().max(6),
      kind: z.enum(["a", "b\n"]),
      count: z.int(),
      ratio: z.number().optional(),
      tags: z.array(z.union([z.boolean(), z.null()])).max(3),
      inner: z.strictObject({ deep: z.literal(7) }).optional(),
    });
    const { $schema: _, ...schema } = z.toJSONSchema(shape);
    const grammar = grammarOf(schema, "schema");
    const alphabet = Array.from({ length: 95 }, (_, i) => 32 + i).concat(0xe9, 0x1f999);
    fc.assert(
      fc.property(fc.infiniteStream(fc.nat()), (choices) => {
        let [state, text] = [grammar.start(), ""];
        while (!state.ended && text.length < 400) {
          const ways = alphabet.filter((codePoint) => state.after(codePoint));
          const { value } = choices.next();
          const codePoint = ways[value! % ways.length]!;
          text += String.fromCodePoint(codePoint);
          state = state.after(codePoint)!;
        }
        if (state.ended) expect(shape.safeParse(JSON.parse(text)).error, text).toBeUndefined();
      }),
      { numRuns: 500 },
    );
  });

  it("know from every state how short a text can end, which can be followed to the byte", () => {
    fc.assert(
      fc.property(sample, fc.array(fc.nat(), { maxLength: 40 }), ({ schema, value }, choices) => {
        const own = JSON.stringify(schema);
        const alphabet = [...new Set(Array.from(own + anyText, (each) => each.codePointAt(0) as number))];
        let state = grammarOf(schema, "schema").start();
        expect(state.least).toBeLessThanOrEqual(Buffer.byteLength(JSON.stringify(value)));
        for (const chosen of choices) {
          const ways = alphabet.filter((codePoint) => state.after(codePoint));
          if (ways.length === 0) break;
          state = state.after(ways[chosen % ways.length]!)!;
        }
        for (let left = state.least; left > 0; left = state.least) {
          const next = alphabet.find((codePoint) => {
            const bytes = Buffer.byteLength(String.fromCodePoint(codePoint));
            return state.after(codePoint)?.least === left - bytes;
          });
          expect(next, `${own}, ${left} left`).toBeDefined();
          state = state.after(next!)!;
        }
        expect(state.complete).toBe(true);
      }),
      { numRuns: 200 },
    );
    const least = (schema: unknown) => grammarOf(schema, "schema").start().least;
    expect(least({ type: "array", items: { enum: ["é", "no"] }, minItems: 3 })).toBe('["é","é","é"]'.length + 3);
    expect(least({ type: "object", properties: { a: true, b: { type: "null" } }, required: ["b"] })).toBe(10);
    expect(anyObject().start().least).toBe(2);
  });

  it("leave out what is not JSON or not of the schema", () => {
    const object = { type: "object", properties: { a: { type: "integer" }, b: { type: "string" } }, required: ["a"] };
    for (const good of ['{"a":1}', '{"a": 1, "b": "x"}', '{"a":-0}', '{"a":120,"b":"\\u00e9\\n"}']) {
      expect(accepts(object, good), good).toBe(true);
    }
    for (const bad of [
      '{"b":"x"}',
      "{}",
      '{"a":01}',
      '{"a":1.5}',
      '{"a":1,}',
      '{"b":"x","a":1}',
      '{"a":1,"c":2}',
      '{"a":1} ',
      '{"a":  1}',
      '{"a":1,"b":"\n"}',
      '{"a":1,"b":"\\ud800"}',
      '{"a":1,"b":"\\x"}',
    ]) {
      expect(accepts(object, bad), bad).toBe(false);
    }
    expect(accepts({ type: "array", items: { type: "null" }, minItems: 2, maxItems: 3 }, "[null]")).toBe(false);
    expect(accepts({ type: "array", items: { type: "null" }, minItems: 2, maxItems: 3 }, "[null,null, null]")).toBe(
      true,
    );
    expect(accepts({ type: "string", minLength: 2, maxLength: 3 }, '"🦙🦙🦙"')).toBe(true);
    expect(accepts({ type: "string", minLength: 2, maxLength: 3 }, '"a"')).toBe(false);
    expect(accepts({ type: ["string", "null"] }, "null")).toBe(true);
    expect(accepts({ type: "string", enum: ["x", 1] }, "1")).toBe(false);
    expect(accepts({ const: { a: [1] } }, '{"a":[1]}')).toBe(true);
    expect(anyObject().accepts('{"a":[1,{"b":null}],"c":{"d":-1.5e3}}')).toBe(true);
    expect(anyObject().accepts("[1]")).toBe(false);
  });

  it("keep numbers between their bounds", () => {
    const bound = fc.integer({ min: -2000, max: 2000 });
    fc.assert(
      fc.property(bound, bound, fc.integer({ min: -2500, max: 2500 }), fc.nat(999), (a, b, value, thousandths) => {
        const [minimum, maximum] = a < b ? [a, b] : [b, a];
        const inside = value >= minimum && value <= maximum;
        expect(accepts({ type: "integer", minimum, maximum }, String(value))).toBe(inside);
        expect(accepts({ type: "integer", minimum }, String(value))).toBe(value >= minimum);
        expect(accepts({ type: "integer", exclusiveMaximum: maximum }, String(value))).toBe(value < maximum);
        expect(accepts({ type: "number", minimum, maximum }, String(value))).toBe(inside);
        const broken = Number(`${value}.${String(thousandths + 1).padStart(4, "0")}`);
        expect(accepts({ type: "number", minimum, maximum }, String(broken))).toBe(
          broken > minimum && broken < maximum,
        );
      }),
      { numRuns: 500 },
    );
    expect(accepts({ type: "number", minimum: 0, maximum: 1 }, "-0.5")).toBe(false);
    expect(accepts({ type: "number", minimum: -1, maximum: 0 }, "-0.5")).toBe(true);
    expect(accepts({ type: "integer", minimum: -9007199254740991, maximum: 9007199254740991 }, "123456789012345")).toBe(
      true,
    );
  });

  it("keep decimals between decimal bounds: all that zod takes with few digits, and nothing else", () => {
    const decimal = fc
      .tuple(fc.integer({ min: -50_000, max: 50_000 }), fc.integer({ min: 0, max: 7 }))
      .map(([digits, places]) => Number(`${digits}e-${places}`));
    const bound = fc.oneof(decimal, fc.double({ min: -30, max: 30, noNaN: true }));
    fc.assert(
      fc.property(bound, bound, fc.array(decimal), fc.infiniteStream(fc.nat()), (a, b, values, choices) => {
        const [minimum, maximum] = a < b ? [a, b] : [b, a];
        fc.pre(maximum - minimum > 1e-12 || Number(maximum.toFixed(15)) === maximum);
        const shape = z.number().min(minimum).max(maximum);
        const grammar = grammarOf({ type: "number", minimum, maximum }, "schema");
        for (const value of values) {
          const written = value.toFixed(11).replace(/\.?0+$/, "");
          if (written !== "-0") expect(grammar.accepts(written), written).toBe(shape.safeParse(value).success);
        }
        // A number of the grammar, digit by digit.
        let [state, text] = [grammar.start(), ""];
        while (!state.ended && text.length < 40) {
          const ways = Array.from("-.0123456789").filter((each) => state.after(each.codePointAt(0)!));
          const each = ways[choices.next().value! % ways.length]!;
          if (state.complete && choices.next().value! % 5 === 0) break;
          text += each;
          state = state.after(each.codePointAt(0)!)!;
        }
        if (state.complete) expect(shape.safeParse(JSON.parse(text)).success, text).toBe(true);
        expect(state.least).toBeLessThan(40);
      }),
      { numRuns: 1000 },
    );
    const between = (minimum: number, maximum: number) => (text: string) =>
      accepts({ type: "number", minimum, maximum }, text);
    expect(["0.1", "0.10", "0.5", "0.9", "0.900"].every(between(0.1, 0.9))).toBe(true);
    expect(["0", "0.09", "0.91", "1", "-0.5", "0.", "00.5"].some(between(0.1, 0.9))).toBe(false);
    expect(["0.001", "0.0015", "0.002"].every(between(0.001, 0.002))).toBe(true);
    expect(["0.5", "0.75", "1", "9.99", "10", "10.0"].every(between(0.5, 10))).toBe(true);
    expect(["-0.5", "-0.25", "0", "0.1"].every(between(-0.5, 0.1))).toBe(true);
  });

  it("follow references, those of a schema to itself too", () => {
    const tree = {
      $ref: "#/$defs/node",
      $defs: {
        node: {
          type: "object",
          properties: { v: { type: "integer" }, next: { anyOf: [{ $ref: "#/$defs/node" }, { type: "null" }] } },
          required: ["v", "next"],
        },
      },
    };
    expect(accepts(tree, '{"v":1,"next":{"v":2,"next":null}}')).toBe(true);
    expect(accepts(tree, '{"v":1,"next":{"v":2}}')).toBe(false);
  });

  it.each([
    [{ type: "string", pattern: "a+" }, "schema.pattern"],
    [{ type: "integer", multipleOf: 2 }, "schema.multipleOf"],
    [{ type: "string", minimum: 1 }, "schema.minimum"],
    [{ type: "number", exclusiveMinimum: 0 }, "schema.exclusiveMinimum"],
    [{ type: "integer", minimum: 3, maximum: 2 }, "schema"],
    [{ type: "number", minimum: 1e-20, maximum: 2e-20 }, "schema"],
    [{ type: "number", minimum: 0.4, maximum: 0.2 }, "schema"],
    [{ oneOf: [{ type: "null" }] }, "schema.oneOf"],
    [{ allOf: [] }, "schema.allOf"],
    [{ type: "object", properties: { a: { type: "string", format: "date" } } }, "schema.properties.a.format"],
    [{ type: "object", additionalProperties: { type: "string" } }, "schema.additionalProperties"],
    [{ type: "object", patternProperties: {} }, "schema.patternProperties"],
    [{ type: "object", required: ["x"] }, "schema.required"],
    [{ $ref: "https://example.com/x" }, "schema.$ref"],
    [{ $ref: "#/$defs/none" }, "schema.$ref"],
    [{ $ref: "#" }, "schema.$ref"],
    [{ $ref: "#/$defs/a", $defs: { a: { $ref: "#/$defs/b" }, b: { $ref: "#/$defs/a" } } }, "schema.$defs.b.$ref"],
    [{ type: "float" }, "schema.type"],
    [{ properties: {} }, "schema"],
    [{ enum: [] }, "schema.enum"],
    [false, "schema"],
    ["text", "schema"],
    [{ type: "array", items: true, minItems: 3, maxItems: 2 }, "schema.minItems"],
    [{ type: "array", items: true, maxItems: -1 }, "schema.maxItems"],
    [{ type: "array", items: true, uniqueItems: true }, "schema.uniqueItems"],
    [{ type: "array", prefixItems: [true] }, "schema.prefixItems"],
    [{ type: "object", properties: { next: { $ref: "#" } }, required: ["next"] }, "schema"],
    [{ type: "array", items: { $ref: "#" }, minItems: 1 }, "schema"],
    [
      { type: "object", properties: Object.fromEntries(Array.from({ length: 1001 }, (_, i) => [`p${i}`, true])) },
      "schema.properties",
    ],
  ])("refuse %j by name", (schema, param) => {
    let refusal: unknown;
    try {
      grammarOf(schema, "schema");
    } catch (error) {
      refusal = error;
    }
    expect(refusal).toBeInstanceOf(ApiError);
    expect((refusal as ApiError).details.param).toBe(param);
  });
});
