import { brokenCharacter } from "../data/well-formed";
import { ApiError, badField } from "./api-error";

/**
 * How much of a body that is too large is read and thrown away: a client that is still writing when the connection is closed
 * sees a broken pipe, not the refusal.
 */
const discarded = 64 * 2 ** 20;

/**
 * Reads a request's body as JSON.
 *
 * @param most bytes
 * @throws ApiError 413, 415, 400
 */
export async function jsonBody(request: Request, most: number): Promise<unknown> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^application\/json\b/i.test(type)) {
    throw new ApiError(
      415,
      `The body must be JSON: send the header Content-Type: application/json, not ${type || "none"}.`,
    );
  }
  const tooLarge = (found: string) =>
    new ApiError(413, `The body has ${found} bytes; this server reads ${most}.`, {
      code: "request_too_large",
      // What is then still on its way is not read.
      headers: { connection: "close" },
    });
  const length = Number(request.headers.get("content-length") ?? 0);
  if (length > most + discarded) throw tooLarge(String(length));
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of (request.body ?? []) as AsyncIterable<Uint8Array>) {
    bytes += part.length;
    if (bytes <= most) parts.push(part);
    else if (bytes > most + discarded) break;
  }
  if (bytes > most) throw tooLarge(length > most ? String(length) : `more than ${most}`);
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts));
    const body: unknown = JSON.parse(text);
    // Only an escape can spell half a character.
    if (/\\u[dD][89a-fA-F]/.test(text)) refuseBrokenTexts(body);
    return body;
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError(400, `The body is not JSON: ${(error as Error).message}`, { code: "invalid_json" });
  }
}

/** No field may hold half a character: no tokenizer can spell it. The walk is no recursion, as bodies may be deep. */
function refuseBrokenTexts(body: unknown): void {
  const coming: [value: unknown, path: string][] = [[body, ""]];
  for (let next = coming.pop(); next; next = coming.pop()) {
    const [value, path] = next;
    const problem = typeof value === "string" ? brokenCharacter(value) : undefined;
    if (problem !== undefined) {
      throw badField(path, `${path}: ${problem}. Cut texts between whole characters.`, "invalid_text");
    }
    if (typeof value !== "object" || value === null) continue;
    for (const [key, inner] of Object.entries(value)) {
      coming.push([inner, Array.isArray(value) ? `${path}[${key}]` : path === "" ? key : `${path}.${key}`]);
    }
  }
}
