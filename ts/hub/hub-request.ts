/** Requests to the Hub: with the token, and its refusals as typed errors that say what to do. */
import { HubError } from "../errors";
import { type Repository, shownPath } from "./repository";
import { type HeadersFor, RequestFailure, request } from "./request";
import type { HubSettings } from "./settings";

/** What a request is about. */
export interface HubSubject {
  repository: Repository;
  revision: string;
  /** The file, when it is about one. */
  path?: string;
  settings: HubSettings;
  /** More headers, for the Hub and for the host that it redirects to. */
  headers?: Record<string, string>;
}

/**
 * A GET to the Hub; answers 200 and 206 are given back (and 416, which says that a range lies behind the end).
 *
 * @throws HubError
 */
export async function hubRequest(url: string, subject: HubSubject): Promise<Response> {
  const { settings } = subject;
  let response: Response;
  try {
    response = await request(url, { headers: headersFor(subject), signal: settings.signal });
  } catch (error) {
    if (error instanceof RequestFailure) throw unreachable(subject, error);
    throw error;
  }
  if (response.ok || response.status === 416) return response;
  const refusal = refusalOf(response, subject);
  await response.body?.cancel().catch(() => {});
  throw refusal;
}

/** Headers for the Hub; the token for no other host. */
export function headersFor({ settings, headers }: HubSubject): HeadersFor {
  const { origin } = new URL(settings.endpoint);
  return (target) => {
    const token = target.origin === origin ? settings.token() : undefined;
    return { "user-agent": "zephyr-align", ...headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  };
}

/** The error of a connection that failed in all attempts. */
export function unreachable({ repository, revision, path }: HubSubject, failure: RequestFailure): HubError {
  const remedy =
    failure.status === 429
      ? "Wait, or give a token (HF_TOKEN): the Hub allows more requests with one."
      : "Check the connection and HF_ENDPOINT. What is in the cache can be used with HF_HUB_OFFLINE=1.";
  return new HubError("ZA_HUB_NETWORK", `${failure.message} (${failure.address})`, {
    place: { file: shownPath(repository, revision, path) },
    remedy,
    cause: failure,
  });
}

function refusalOf(response: Response, { repository, revision, path, settings }: HubSubject): HubError {
  const { status, headers } = response;
  const code = headers.get("x-error-code");
  // The Hub says the same for what is not there and for what the asker may not see.
  const place = { file: shownPath(repository, revision, path) };
  const noun = repository.kind === "datasets" ? "data set" : "model";
  const page = `${settings.endpoint}/${repository.kind === "datasets" ? "datasets/" : ""}${repository.id}`;
  const hasToken = settings.token() !== undefined;
  const error = (name: `ZA_HUB_${string}`, problem: string, remedy: string) =>
    new HubError(name, problem, { place, remedy });
  if (code === "RevisionNotFound") {
    return error(
      "ZA_HUB_REVISION",
      `the ${noun} has no revision ${revision}`,
      `See ${page}/refs for its branches and tags.`,
    );
  }
  if (code === "EntryNotFound")
    return error("ZA_HUB_FILE", `the ${noun} has no such file`, `See ${page}/tree/${revision}.`);
  if (code === "GatedRepo") {
    const accept = `Accept its terms at ${page}`;
    return error(
      "ZA_HUB_ACCESS",
      `the ${noun} is gated`,
      hasToken ? `${accept} with the account of the token.` : `${accept} and give a token of that account (HF_TOKEN).`,
    );
  }
  if (status === 401 && hasToken && code !== "RepoNotFound") {
    return error("ZA_HUB_ACCESS", "the token is refused", "Make a new one in the settings of your account (HF_TOKEN).");
  }
  if (status === 401 || status === 404 || code === "RepoNotFound") {
    const access = hasToken ? "the token may not see it" : "it is private: then give a token (HF_TOKEN)";
    return error("ZA_HUB_NOT_FOUND", `there is no such ${noun}`, `Check the name at ${page}, or ${access}.`);
  }
  if (status === 403) {
    const problem = hasToken ? "the token has no right to read it" : "it may not be read without a token";
    return error("ZA_HUB_ACCESS", problem, "Give a token with the right to read this repository (HF_TOKEN).");
  }
  return error("ZA_HUB_RESPONSE", `the Hub answered ${status}`, "Check the address of the Hub (HF_ENDPOINT).");
}

/** The error for what was looked for on this machine first. */
export function notHereEither(error: unknown, path: string): unknown {
  if (!(error instanceof HubError) || !["ZA_HUB_NOT_FOUND", "ZA_HUB_NETWORK"].includes(error.code)) return error;
  return new HubError(error.code, `${error.problem}; there is no file or folder ${path} on this machine either`, {
    cause: error,
    ...(error.place ? { place: error.place } : {}),
    ...(error.remedy ? { remedy: error.remedy } : {}),
  });
}
