import type { z } from "zod";
import { configError, problemsOf } from "../train/config-problems";

/** Checks options by their schema; throws `ZA_CONFIG_INVALID` with all that is wrong. */
export function resolved<Schema extends z.ZodObject>(schema: Schema, input: unknown): z.output<Schema> {
  const { data, error } = schema.safeParse(input);
  if (error) throw configError(error.issues.flatMap((issue) => problemsOf(issue, schema)));
  return data as z.output<Schema>;
}
