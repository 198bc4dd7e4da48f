import { ApiError } from "./api-error";

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
      // What is still on its way is not read.
      headers: { connection: "close" },
    });
  const length = Number(request.headers.get("content-length") ?? 0);
  if (length > most) throw tooLarge(String(length));
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of (request.body ?? []) as AsyncIterable<Uint8Array>) {
    bytes += part.length;
    if (bytes > most) throw tooLarge(`more than ${most}`);
    parts.push(part);
  }
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(parts)));
  } catch (error) {
    throw new ApiError(400, `The body is not JSON: ${(error as Error).message}`, { code: "invalid_json" });
  }
}
