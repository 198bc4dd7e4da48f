/** What a failed call means: for good or for now, billed or not, and in whose words. */
import { type CallFailure, ClientError } from "../errors";
import { retryAfterOf } from "./retry";

/** A refusal in a server's words. */
export interface ServerError {
  status?: number | undefined;
  /** `error.code`, and `error.type`: providers use one or the other. */
  code?: unknown;
  type?: unknown;
  message: string;
  headers?: { get(name: string): string | null } | undefined;
  requestId?: string | null | undefined;
}

/** The account is empty: the same 429 as for a rate, but no waiting helps. */
const empty =
  /^(insufficient_(quota|balance|funds|credits?)|exceeded_current_quota\w*|billing_\w+|payment_required|account_deactivated|access_terminated|credit_\w+)$/i;

const tooLong = /context_length_exceeded|exceed_context_size|maximum context length|context (window|size|length)/i;

/** The typed error of a server's refusal, or of an error that it wrote into a stream (without a status). */
export function failureOfServer(found: ServerError): ClientError {
  const { status, message } = found;
  const codes = [found.code, found.type].filter((code): code is string => typeof code === "string");
  const facts: CallFailure = {
    retry: false,
    billed: "no",
    ...(status === undefined ? {} : { status }),
    ...(codes[0] === undefined ? {} : { providerCode: codes[0] }),
    ...(found.requestId ? { requestId: found.requestId } : {}),
  };
  const says = `${status === undefined ? "" : `${status} `}${message}`.trim();
  const refuse = (code: ConstructorParameters<typeof ClientError>[0], problem: string, remedy: string) =>
    new ClientError(code, problem, { remedy, call: facts });
  if (status === 402 || codes.some((code) => empty.test(code))) {
    return refuse(
      "ZA_CLIENT_QUOTA",
      `the account has nothing left: ${says}`,
      "Add credit at the provider, then go on.",
    );
  }
  if (status === 401 || status === 403) {
    const remedy = "Name the environment variable that holds the key, and check that the key may use this model.";
    return refuse("ZA_CLIENT_KEY", `the server does not accept the key: ${says}`, remedy);
  }
  // Nobody knows whether a provider counts what broke down on its way; refusals are not counted.
  const broke = status === undefined || status >= 500;
  const asked = found.headers?.get("x-should-retry");
  if (asked === "true" || (asked !== "false" && (broke || [408, 409, 425, 429].includes(status)))) {
    const retryAfter = found.headers && retryAfterOf(found.headers, Date.now());
    Object.assign(facts, {
      retry: true,
      billed: broke ? "possibly" : "no",
      ...(retryAfter === undefined ? {} : { retryAfter }),
    });
    return refuse("ZA_CLIENT_BUSY", `the server says: ${says}`, "Try again later, or ask for less at once.");
  }
  if (broke) facts.billed = "possibly";
  if (tooLong.test([...codes, message].join(" "))) {
    const remedy = "Shorten the text, lower the answer's length, or take a model with a longer context.";
    return refuse("ZA_CLIENT_CONTEXT", `the request is too long: ${says}`, remedy);
  }
  const remedy =
    status === 404
      ? "Check the address (it mostly ends in /v1) and the model's name."
      : "Change what the server objects to.";
  return refuse("ZA_CLIENT_REFUSED", `the server refuses the call: ${says}`, remedy);
}

/** Codes of connections that were never made: nothing was sent. */
const neverMade =
  /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|EADDRNOTAVAIL|UND_ERR_CONNECT_TIMEOUT|.*CERT.*|ERR_TLS.*|.*SELF_SIGNED.*|ERR_SSL.*|EPROTO)$/;
const certificate = /CERT|TLS|SELF_SIGNED|SSL|EPROTO/;

/** The typed error of a connection that could not be made, or broke. */
export function failureOfConnection(thrown: unknown, address: string): ClientError {
  const chain = causes(thrown);
  const code = chain.map((each) => (each as NodeJS.ErrnoException).code).find((each) => typeof each === "string");
  const text = chain.at(-1)?.message ?? String(thrown);
  // fetch keeps some ports for itself, and says so without a code.
  const made = !(code && neverMade.test(code)) && text !== "bad port";
  const problem = made
    ? `the connection to ${address} was lost: ${text}`
    : `${address} cannot be reached: ${text || code}`;
  return new ClientError("ZA_CLIENT_UNREACHABLE", problem, {
    remedy:
      code === "UND_ERR_HEADERS_TIMEOUT"
        ? "Node waits 300 seconds for the first byte: let the server stream (stream: true; on the command line a --timeout above 300)."
        : "Check the address, and that the server runs.",
    call: { retry: !(code && certificate.test(code)), billed: made ? "possibly" : "no" },
  });
}

/** The typed error of a call that took too long. */
export function failureOfTime(address: string, seconds: number, what: string): ClientError {
  return new ClientError("ZA_CLIENT_UNREACHABLE", `${address} gave ${what} within ${seconds} s`, {
    remedy: "Allow more time, or ask for a shorter answer.",
    call: { retry: true, billed: "possibly" },
  });
}

function causes(thrown: unknown): Error[] {
  const chain: Error[] = [];
  for (let error = thrown; error instanceof Error && chain.length < 8; error = error.cause) {
    chain.push(error);
    // Several addresses of one host were tried.
    if (error instanceof AggregateError && error.errors[0] instanceof Error) chain.push(error.errors[0]);
  }
  return chain;
}
