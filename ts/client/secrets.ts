/** Where a secret stood. */
const hidden = "[key]";

/**
 * Shorter ones stay in answers: `ollama`, `EMPTY` and `lm-studio` stand for "no key", and are words that an answer may
 * hold. In error texts they are hidden too.
 */
const leastInAnswers = 10;
const leastInErrors = 4;

/** Takes secrets out of texts that come from a server, which may echo what it was sent. */
export class Secrets {
  readonly #forms: readonly string[];

  constructor(secrets: readonly (string | undefined)[]) {
    const given = secrets.filter((secret) => secret !== undefined && secret !== "") as string[];
    const forms = given.flatMap((secret) => [
      secret,
      JSON.stringify(secret).slice(1, -1),
      encodeURIComponent(secret),
      Buffer.from(secret).toString("base64"),
    ]);
    // The longest first: one may contain another.
    this.#forms = [...new Set(forms)].sort((a, b) => b.length - a.length);
  }

  /** An answer without the secrets. */
  inAnswer(text: string): string {
    return this.#without(text, leastInAnswers);
  }

  /** An error's text without the secrets, short ones included. */
  inError(text: string): string {
    return this.#without(text, leastInErrors);
  }

  #without(text: string, least: number): string {
    let clean = text;
    for (const form of this.#forms) if (form.length >= least) clean = clean.replaceAll(form, hidden);
    return clean;
  }
}

const secretName = /key|token|secret|code|sig|auth|pass|credential/i;

/** Secrets that an address carries: user and password, and parameters with a telling name. */
export function secretsInAddress(address: URL): string[] {
  const parameters = [...address.searchParams].filter(([name]) => secretName.test(name)).map(([, value]) => value);
  return [address.username, address.password, ...parameters].filter(Boolean).map(decoded);
}

/** An address as it may be shown and written down: no user, no password, parameters by name only. */
export function publicAddress(address: URL): string {
  const path = address.pathname.replace(/\/+$/, "");
  const names = [...new Set(address.searchParams.keys())].sort();
  return `${address.origin}${path}${names.length > 0 ? `?${names.join("&")}` : ""}`;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
