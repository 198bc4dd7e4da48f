import { ApiError } from "./api-error";

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
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts)));
  } catch (error) {
    throw new ApiError(400, `The body is not JSON: ${(error as Error).message}`, { code: "invalid_json" });
  }
}
