import { createHash } from "node:crypto";
import { canonicalJson } from "./canonical-json";
import type { ChatModel, ChatRequest } from "./chat-model";

/** Raised when what stands in a request changes: older answers are then asked for again. */
const schemaVersion = 1;

/** What a request is known by in the journal. */
export interface CallKey {
  /** SHA-256 of `request`, in hexadecimal. */
  key: string;
  /** Canonical JSON of everything that decides the answer: where, which model, messages, sampling, which draw. */
  request: string;
}

/** The key of a request to a model: equal requests share it, and nothing else does. */
export function callKey(model: ChatModel, { messages, sampling, sampleIndex = 0 }: ChatRequest): CallKey {
  const request = canonicalJson({
    version: schemaVersion,
    endpoint: model.endpoint ?? "",
    model: model.name,
    messages: messages.map(({ role, content }) => ({ role, content })),
    sampling,
    sampleIndex,
  });
  return { key: createHash("sha256").update(request).digest("hex"), request };
}
