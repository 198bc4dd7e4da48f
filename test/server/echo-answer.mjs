/** An answer that repeats all that the server was sent: headers, address, question. */
export default function answer({ messages }, { url, headers }) {
  return `I was sent ${url} with ${JSON.stringify(headers)} and ${messages.at(-1).content}`;
}
