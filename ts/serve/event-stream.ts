/** Answers that are sent as they come: server-sent events, as OpenAI's API frames them. */
import { apiErrorOf } from "./api-error";

/**
 * A response of events, each `data: JSON` and a blank line, the last one `data: [DONE]`. What goes wrong after it has
 * begun is an event with an error, without a `[DONE]` behind it.
 *
 * @param produce sends the events
 */
export function eventStream(produce: (send: (event: unknown) => void) => Promise<void>): Response {
  const encoder = new TextEncoder();
  let open = true;
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      const write = (data: string) => {
        if (open) controller.enqueue(encoder.encode(`data: ${data}\n\n`));
      };
      const end = () => {
        if (open) controller.close();
        open = false;
      };
      void produce((event) => write(JSON.stringify(event)))
        .then(() => write("[DONE]"))
        .catch((error: unknown) => write(JSON.stringify(apiErrorOf(error).body())))
        .finally(end);
    },
    cancel() {
      open = false;
    },
  });
  return new Response(body, {
    headers: {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-cache",
      // Proxies are not to collect pieces.
      "x-accel-buffering": "no",
    },
  });
}
