/**
 * JSON schemas as grammars. Every text of the grammar is JSON that the schema accepts; what a schema may say and this
 * cannot hold to is refused by name. Some texts that the schema would accept are not in the grammar: properties come in
 * the order of the schema and no others are added, there is at most one space behind `,` and `:`, numbers have at most 15
 * digits before and behind the point and two of an exponent (none between bounds).
 */
import { badField } from "../api-error";
import {
  character,
  choice,
  Grammar,
  later,
  leastBytes,
  oneOf,
  optional,
  type Rule,
  repeat,
  sequence,
  series,
  text,
} from "./grammar";
import { anyInteger, anyNumber, integersBetween, largest, numbersBetween } from "./number-range";

type Schema = Readonly<Record<string, unknown>>;

/** What says nothing about the value. */
const annotations = new Set([
  ...["title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"],
  ...["$schema", "$id", "$defs", "definitions"],
]);

/** What each type's values may be narrowed by. */
const keywords: Readonly<Record<string, readonly string[]>> = {
  object: ["properties", "required", "additionalProperties"],
  array: ["items", "minItems", "maxItems"],
  string: ["minLength", "maxLength"],
  number: ["minimum", "maximum"],
  integer: ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"],
  boolean: [],
  null: [],
};

/** Repetitions that a schema may ask for; each is a state. */
const mostRepeats = 100_000;

/** Properties of one object; all that may come next are looked at. */
const mostProperties = 1000;

const space = optional(text(" "));
const boolean = choice(text("true"), text("false"));
const hex = oneOf("0123456789abcdefABCDEF");
/** A code unit that is a character by itself: halves of pairs are left out. */
const unit = choice(
  sequence(oneOf("0123456789abcefABCEF"), hex, hex, hex),
  sequence(oneOf("dD"), oneOf("01234567"), hex, hex),
);
const inString = choice(
  character((codePoint) => codePoint >= 0x20 && codePoint !== 0x22 && codePoint !== 0x5c),
  sequence(text("\\"), choice(oneOf('"\\/bfnrt'), sequence(text("u"), unit))),
);
const string = (least = 0, most = Number.POSITIVE_INFINITY) =>
  sequence(text('"'), repeat(inString, least, most), text('"'));

function list(item: Rule, least: number, most: number): Rule {
  if (most === 0) return text("[]");
  const more = repeat(sequence(text(","), space, item), Math.max(least - 1, 0), most - 1);
  const some = sequence(text("["), item, more, text("]"));
  return least === 0 ? choice(text("[]"), some) : some;
}

const anyMember = sequence(
  string(),
  text(":"),
  space,
  later(() => anyValue),
);
const object = choice(
  text("{}"),
  sequence(text("{"), anyMember, repeat(sequence(text(","), space, anyMember), 0), text("}")),
);
const anyValue: Rule = choice(
  object,
  later(() => list(anyValue, 0, Number.POSITIVE_INFINITY)),
  string(),
  anyNumber,
  boolean,
  text("null"),
);

/** Any JSON object. */
export function anyObject(): Grammar {
  return new Grammar(object);
}

/**
 * The grammar of a schema.
 *
 * @param path where the schema stands in the request
 * @throws ApiError 400 that names the place and the keyword that cannot be honoured
 */
export function grammarOf(schema: unknown, path: string): Grammar {
  const rule = new Compiler(schema, path).rule(schema, path);
  if (leastBytes(rule) < Number.POSITIVE_INFINITY) return new Grammar(rule);
  throw badField(path, `${path}: every value would contain another one, without an end.`);
}

class Compiler {
  readonly #root: unknown;
  readonly #rootPath: string;
  /** By reference, so that a schema may contain itself. */
  readonly #rules = new Map<string, Rule | undefined>();
  /** References that are being followed, and no character has come since. */
  #open = new Set<string>();

  constructor(root: unknown, path: string) {
    this.#root = root;
    this.#rootPath = path;
  }

  rule(schema: unknown, path: string): Rule {
    if (schema === true) return anyValue;
    if (schema === false) throw badField(path, `${path} is false: no value fits it.`);
    if (typeof schema !== "object" || schema === null || Array.isArray(schema)) {
      throw badField(path, `${path} must be a schema.`);
    }
    const given = Object.fromEntries(Object.entries(schema).filter(([key]) => !annotations.has(key)));
    if ("$ref" in given) return this.#alone(given, "$ref", path, () => this.#reference(given.$ref, `${path}.$ref`));
    if ("anyOf" in given) {
      return this.#alone(given, "anyOf", path, () =>
        choice(...nonEmpty(given.anyOf, `${path}.anyOf`).map((each, i) => this.rule(each, `${path}.anyOf[${i}]`))),
      );
    }
    if ("enum" in given) {
      return this.#literals(given, "enum", nonEmpty(given.enum, `${path}.enum`), path);
    }
    if ("const" in given) return this.#literals(given, "const", [given.const], path);
    return this.#typed(given, path);
  }

  /** A keyword beside which there may be no other that narrows the value. */
  #alone(schema: Schema, keyword: string, path: string, rule: () => Rule): Rule {
    const other = Object.keys(schema).find((key) => key !== keyword);
    if (other !== undefined) throw unsupported(`${path}.${other}`, `${other} beside ${keyword}`);
    return rule();
  }

  /** Values that are listed; a type beside them must be theirs. */
  #literals(schema: Schema, keyword: string, values: readonly unknown[], path: string): Rule {
    const { type, ...rest } = schema;
    const types = type === undefined ? undefined : typesOf(type, path);
    const fitting = values.filter((value) => !types || types.some((name) => hasType(value, name)));
    if (fitting.length === 0) throw badField(`${path}.${keyword}`, `${path}.${keyword} has no value of its type.`);
    return this.#alone(rest, keyword, path, () => choice(...fitting.map((value) => text(JSON.stringify(value)))));
  }

  #reference(reference: unknown, path: string): Rule {
    if (typeof reference !== "string" || !/^#(\/|$)/.test(reference)) {
      throw unsupported(path, "a $ref to another document");
    }
    if (this.#open.has(reference)) throw badField(path, `${path} leads to nothing but itself.`);
    if (!this.#rules.has(reference)) {
      this.#rules.set(reference, undefined);
      this.#open.add(reference);
      const place = `${this.#rootPath}${reference.slice(1).replaceAll("/", ".")}`;
      this.#rules.set(reference, this.rule(this.#at(reference, path), place));
      this.#open.delete(reference);
    }
    return later(() => this.#rules.get(reference) as Rule);
  }

  /** The rule of a value inside another one. */
  #inside(schema: unknown, path: string): Rule {
    const open = this.#open;
    this.#open = new Set();
    const rule = this.rule(schema, path);
    this.#open = open;
    return rule;
  }

  #at(reference: string, path: string): unknown {
    let at: unknown = this.#root;
    for (const part of reference.split("/").slice(1)) {
      const key = decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~");
      if (typeof at !== "object" || at === null || !Object.hasOwn(at, key)) {
        throw badField(path, `${path} is ${reference}, which is not in the schema.`);
      }
      at = (at as Schema)[key];
    }
    return at;
  }

  #typed(schema: Schema, path: string): Rule {
    const { type, ...rest } = schema;
    if (type === undefined) {
      const [keyword] = Object.keys(rest);
      if (keyword === undefined) return anyValue;
      throw known(keyword)
        ? badField(path, `${path} has ${keyword}, but no type.`)
        : unsupported(`${path}.${keyword}`, keyword);
    }
    const types = typesOf(type, path);
    const foreign = Object.keys(rest).find((key) => !types.some((name) => keywords[name]?.includes(key)));
    if (foreign !== undefined) throw unsupported(`${path}.${foreign}`, foreign);
    return choice(...types.map((name) => this.#ofType(name, rest, path)));
  }

  #ofType(type: string, schema: Schema, path: string): Rule {
    switch (type) {
      case "object":
        return this.#object(schema, path);
      case "array": {
        const [least, most] = bounds(schema, "minItems", "maxItems", path);
        return list("items" in schema ? this.#inside(schema.items, `${path}.items`) : anyValue, least, most);
      }
      case "string":
        return string(...bounds(schema, "minLength", "maxLength", path));
      case "number":
      case "integer":
        return numeric(type, schema, path);
      case "boolean":
        return boolean;
      default:
        return text("null");
    }
  }

  #object(schema: Schema, path: string): Rule {
    const { properties = {}, required = [], additionalProperties } = schema;
    if (typeof properties !== "object" || properties === null || Array.isArray(properties)) {
      throw badField(`${path}.properties`, `${path}.properties must be an object.`);
    }
    if (!Array.isArray(required)) throw badField(`${path}.required`, `${path}.required must be a list.`);
    const names = Object.keys(properties);
    if (names.length > mostProperties) {
      throw badField(`${path}.properties`, `${path}.properties has ${names.length}; at most ${mostProperties} can be.`);
    }
    const missing = required.find((name) => !names.includes(name));
    if (missing !== undefined) {
      throw badField(
        `${path}.required`,
        `${path}.required has ${JSON.stringify(missing)}, which is none of its properties.`,
      );
    }
    const free = additionalProperties === undefined || additionalProperties === true;
    if (!free && additionalProperties !== false) {
      throw unsupported(`${path}.additionalProperties`, "a schema of additionalProperties");
    }
    // Nothing is said about its members: any may come.
    if (names.length === 0 && free) return object;
    const members = names.map((name) => ({
      needed: required.includes(name),
      rule: sequence(
        text(`${JSON.stringify(name)}:`),
        space,
        this.#inside((properties as Schema)[name], `${path}.properties.${name}`),
      ),
    }));
    return sequence(text("{"), series(members, sequence(text(","), space)), text("}"));
  }
}

function numeric(type: "number" | "integer", schema: Schema, path: string): Rule {
  const limit = (name: string) => {
    const value = schema[name];
    if (value === undefined || (typeof value === "number" && Number.isFinite(value))) return value;
    throw badField(`${path}.${name}`, `${path}.${name} must be a number.`);
  };
  const [least, most] = [limit("minimum"), limit("maximum")];
  const [above, below] = type === "integer" ? [limit("exclusiveMinimum"), limit("exclusiveMaximum")] : [];
  if ([least, most, above, below].every((each) => each === undefined))
    return type === "integer" ? anyInteger : anyNumber;
  const low = Math.max(least ?? -largest, above === undefined ? -largest : Math.floor(above) + 1);
  const high = Math.min(most ?? largest, below === undefined ? largest : Math.ceil(below) - 1);
  const rule =
    type === "integer"
      ? integersBetween(Math.max(Math.ceil(low), -largest), Math.min(Math.floor(high), largest))
      : numbersBetween(Math.max(low, -largest), Math.min(high, largest));
  if (rule) return rule;
  throw badField(path, `${path}: there is no ${type} between its bounds that can be written here.`);
}

function unsupported(path: string, what: string) {
  return badField(path, `${path}: ${what} is not supported by constrained decoding here.`, "unsupported_schema");
}

function known(keyword: string): boolean {
  return Object.values(keywords).some((list) => list.includes(keyword));
}

function nonEmpty(value: unknown, path: string): readonly unknown[] {
  if (Array.isArray(value) && value.length > 0) return value;
  throw badField(path, `${path} must be a list that is not empty.`);
}

function typesOf(type: unknown, path: string): readonly string[] {
  const types = Array.isArray(type) ? nonEmpty(type, `${path}.type`) : [type];
  const wrong = types.find((name) => typeof name !== "string" || !Object.hasOwn(keywords, name));
  if (wrong !== undefined) throw badField(`${path}.type`, `${path}.type ${JSON.stringify(wrong)} is no type.`);
  return types as readonly string[];
}

function hasType(value: unknown, type: string): boolean {
  if (type === "null") return value === null;
  if (type === "array") return Array.isArray(value);
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value);
  if (type === "integer") return Number.isInteger(value);
  return typeof value === type;
}

function bounds(schema: Schema, least: string, most: string, path: string): [number, number] {
  const read = (name: string, usual: number) => {
    const value = schema[name];
    if (value === undefined) return usual;
    if (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= mostRepeats) return value as number;
    throw badField(`${path}.${name}`, `${path}.${name} must be a whole number from 0 to ${mostRepeats}.`);
  };
  const [low, high] = [read(least, 0), read(most, Number.POSITIVE_INFINITY)];
  if (low > high) throw badField(`${path}.${least}`, `${path}.${least} is above ${most}.`);
  return [low, high];
}
