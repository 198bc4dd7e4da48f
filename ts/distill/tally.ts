import type { ChatModel } from "../client";

/** Calls that were made. */
export interface Calls {
  made: number;
  /** Of these, answered out of the journal. */
  journalled: number;
}

/** The same model, its calls counted. */
export function tallied(model: ChatModel, calls: Calls): ChatModel {
  return {
    name: model.name,
    capabilities: model.capabilities,
    complete: async (request) => {
      const response = await model.complete(request);
      calls.made++;
      if (response.journalled) calls.journalled++;
      return response;
    },
  };
}
