import { createHash } from "node:crypto";

/** `prompt_id` of the H4 data sets: SHA-256 of the prompt in UTF-8, hexadecimal. */
export function promptId(prompt: string): string {
  return createHash("sha256").update(prompt).digest("hex");
}
