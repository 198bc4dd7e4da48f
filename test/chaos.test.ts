/** A short run of `npm run test:chaos`: a failing server, a process killed at random instants, nothing lost. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { buildProgram } from "./shared";

it("kills lose nothing that was paid, and re-bill no more than was under way", () => {
  buildProgram();
  const folder = mkdtempSync(join(tmpdir(), "zephyr-chaos-test-"));
  try {
    const json = join(folder, "chaos.json");
    const script = fileURLToPath(new URL("../scripts/chaos.mjs", import.meta.url));
    const args = [script, "--calls", "150", "--kills", "4", "--seed", "7", "--json", json];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8" });
    expect(status, stdout + stderr).toBe(0);
    const found = JSON.parse(readFileSync(json, "utf8"));
    expect(found).toMatchObject({
      calls: 150,
      kills: 4,
      answered: 150,
      paid_responses_lost: 0,
      finished_calls_sent_again: 0,
    });
    expect(found.rebilled_most_by_one_kill).toBeLessThanOrEqual(8);
    expect(found.spend_over_cap).toBeLessThanOrEqual(1e-9);
    // The server did fail: a chaos without faults proves nothing.
    expect(Object.keys(found.faults).length).toBeGreaterThan(4);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
