import type { ChatModel, ChatRequest } from "./chat-model";
import { completionBody } from "./completion";

/** An answer as it is written down: the provider's own words, in the form of a chat completion of OpenAI's API. */
export interface RawAnswer {
  body: string;
  /** HTTP status. */
  status?: number;
  /** The provider's id of the request. */
  requestId?: string;
}

/** A model whose answers can be had as they came. */
export interface RawChatModel extends ChatModel {
  /** One try. @param clientId our id of the call, which the provider may log */
  send(request: ChatRequest, clientId?: string): Promise<RawAnswer>;
}

/** The raw answer of any model; what is no server gets the same form. */
export async function rawAnswer(model: ChatModel, request: ChatRequest, clientId: string): Promise<RawAnswer> {
  if (isRaw(model)) return model.send(request, clientId);
  return { body: completionBody(await model.complete(request)) };
}

function isRaw(model: ChatModel): model is RawChatModel {
  return typeof (model as Partial<RawChatModel>).send === "function";
}
