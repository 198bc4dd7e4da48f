/**
 * The data of server-sent events (WHATWG HTML, 9.2), each as soon as its blank line is there. A line ends with LF, CR or
 * CRLF, and bytes may be cut anywhere, inside a character or between CR and LF.
 */
export async function* eventData(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let line = "";
  let data: string[] = [];
  // A CR has ended the line already; a LF right after it belongs to it.
  let afterReturn = false;

  const linesIn = function* (text: string): Generator<string> {
    let from = 0;
    for (let at = 0; at < text.length; at++) {
      const unit = text.charCodeAt(at);
      if (unit === 0x0a && afterReturn && at === from) {
        from = at + 1;
      } else if (unit === 0x0a || unit === 0x0d) {
        yield line + text.slice(from, at);
        line = "";
        from = at + 1;
      }
      afterReturn = unit === 0x0d;
    }
    line += text.slice(from);
  };

  const take = (ended: string): string | undefined => {
    if (ended !== "") {
      if (ended === "data") data.push("");
      else if (ended.startsWith("data:")) data.push(ended.slice(ended.charAt(5) === " " ? 6 : 5));
      return undefined;
    }
    if (data.length === 0) return undefined;
    const event = data.join("\n");
    data = [];
    return event;
  };

  for await (const bytes of body) {
    for (const ended of linesIn(decoder.decode(bytes, { stream: true }))) {
      const event = take(ended);
      if (event !== undefined) yield event;
    }
  }
  // A server may leave out the last blank line.
  for (const ended of [...linesIn(decoder.decode()), line, ""]) {
    const event = take(ended);
    if (event !== undefined) yield event;
  }
}
