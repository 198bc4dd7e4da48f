/** Who may ask: this machine, or whoever has the key; never a foreign page that a browser has open. */
import { createHash, timingSafeEqual } from "node:crypto";
import { ownHosts } from "../report/loopback-server";
import { ApiError } from "./api-error";

/** What access depends on. */
export interface AccessRules {
  /** Whether the server listens on this machine's own interface only. */
  loopback: boolean;
  key: string | undefined;
  /** Origins of pages that may ask, as browsers write them: `https://example.com`. */
  origins: readonly string[];
}

/** Whether an interface is this machine's own. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127(\.\d{1,3}){3}$/.test(host);
}

/**
 * Refuses requests that foreign pages make: through a name that points here, or from another origin.
 *
 * @throws ApiError 403
 */
export function checkOrigin(headers: Headers, { loopback, origins }: AccessRules): void {
  const host = headers.get("host") ?? "";
  const refuse = (message: string) => new ApiError(403, message, { type: "permission_error" });
  if (loopback && !ownHosts.test(host) && !/^127(\.\d{1,3}){3}(:\d+)?$/.test(host)) {
    throw refuse(`This server is for this machine only, not for ${host || "a request without a host"}.`);
  }
  const origin = headers.get("origin");
  if (origin !== null) {
    if (origin === `http://${host}` || origin === `https://${host}` || origins.includes(origin)) return;
    throw refuse(`Pages of ${origin} may not ask this server (it allows none, unless it is started with --cors).`);
  }
  // A browser that sends no origin still says where the request comes from; a link may lead here.
  const site = headers.get("sec-fetch-site") ?? "none";
  if (!["none", "same-origin"].includes(site) && headers.get("sec-fetch-mode") !== "navigate") {
    throw refuse("Pages of other sites may not ask this server.");
  }
}

/**
 * Asks for the key. Compared are digests, in constant time.
 *
 * @throws ApiError 401
 */
export function checkKey(headers: Headers, { key }: AccessRules): void {
  if (key === undefined) return;
  const given = /^Bearer +(.*)$/i.exec(headers.get("authorization") ?? "")?.[1];
  if (given !== undefined && timingSafeEqual(digest(given), digest(key))) return;
  const message =
    given === undefined ? "A key is needed: Authorization: Bearer KEY." : "The key is not the one of this server.";
  throw new ApiError(401, message, {
    type: "authentication_error",
    code: "invalid_api_key",
    headers: { "www-authenticate": "Bearer" },
  });
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
