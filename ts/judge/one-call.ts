import { ZephyrError } from "../errors";

/** Failures of a call that say nothing of the next one. Any other (a cap, a key, a breaker, an abort) ends the run. */
const ofOne: ReadonlySet<string> = new Set([
  "ZA_CLIENT_REFUSED",
  "ZA_CLIENT_CONTEXT",
  "ZA_CLIENT_ANSWER",
  "ZA_CLIENT_GAVE_UP",
]);

/** What failed, when it is one call alone: it is listed, and asked again by the next run. Throws anything else on. */
export function failureOfOne(error: unknown): { failure: string } {
  if (error instanceof ZephyrError && ofOne.has(error.code)) return { failure: error.message };
  throw error;
}
