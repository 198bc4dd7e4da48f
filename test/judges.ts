/** Models and judges that answer by a rule: for tests of what asks them. */
import type { ChatCapabilities, ChatModel, ChatRequest, ChatResponse } from "../ts/index";

/** A model that answers by a function, and remembers what it was asked. */
export interface RuleModel extends ChatModel {
  readonly requests: ChatRequest[];
}

export function ruleModel(
  name: string,
  rule: (request: ChatRequest, call: number) => string | Partial<ChatResponse>,
  capabilities: Partial<ChatCapabilities> = {},
): RuleModel {
  const requests: ChatRequest[] = [];
  return {
    name,
    requests,
    capabilities: { topLogprobs: 0, schema: false, system: true, ...capabilities },
    complete: async (request) => {
      requests.push(request);
      const said = rule(request, requests.length);
      return {
        text: "",
        finishReason: "stop",
        model: `${name}-0613`,
        usage: { promptTokens: 10, completionTokens: 2 },
        cost: 0.001,
        journalled: false,
        ...(typeof said === "string" ? { text: said } : said),
      };
    },
  };
}

/** The last user message of a request. */
export function asked(request: ChatRequest): string {
  return request.messages.findLast(({ role }) => role === "user")!.content as string;
}
