import type { z } from "zod";
import * as blocks from "../train/config-fields";
import { type Method, methods } from "../train/methods";
import docs from "./option-docs.json";

/** What is known of a field for its readers. */
export interface OptionDoc {
  text: string;
  /** The `@default` of its comment. */
  default: string;
}

/** Comments by the object of config-fields.ts that they stand in. */
const written = docs as unknown as Record<string, Record<string, OptionDoc>>;

/**
 * The comment of a method's field in config-fields.ts. Methods may have a key in common and document it each on its own
 * (`packing`), so the comment is that of the object whose field the method really has. undefined when option-docs.json
 * is older than the field; its test says so.
 */
export function documentationOf(method: Method, key: string): OptionDoc | undefined {
  const [group, name] = key.split(".");
  // An option that is an object: `lora.rank`.
  if (name !== undefined) return written[`${group}Fields`]?.[name];
  const field = (methods[method].fields as Record<string, z.ZodType>)[key];
  for (const [block, fields] of Object.entries(blocks as Record<string, unknown>)) {
    const doc = written[block]?.[key];
    if (doc && (fields as Record<string, unknown>)[key] === field) return doc;
  }
  return undefined;
}
