import { connect } from "node:net";
import { expect, it } from "vitest";
import { LiveServer } from "./live-server";

it("a slow reader skips states, which do not wait in memory, and gets the last one", async () => {
  let rendered = 0;
  // Far more than the buffers of a connection hold.
  const server = await LiveServer.open(0, "page", () => ({ big: `${++rendered} ${"x".repeat(16 << 20)}` }));
  const socket = connect(server.port, "127.0.0.1");
  const seen: number[] = [];
  socket.setEncoding("latin1");
  socket.on("data", (part: string) => {
    for (const [, number] of part.matchAll(/data: \{"big":"(\d+) /g)) seen.push(Number(number));
  });
  socket.pause();
  socket.write("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
  while (rendered < 4) await new Promise((resolve) => setTimeout(resolve, 50));
  const whileAsleep = rendered;
  socket.resume();
  await expect.poll(() => seen.at(-1), { timeout: 10_000 }).toBeGreaterThanOrEqual(whileAsleep);
  expect(seen[0]).toBe(1);
  expect(seen[1]).toBeGreaterThanOrEqual(whileAsleep);
  const ended = new Promise((resolve) => socket.on("close", resolve));
  await server.close();
  await ended;
});
