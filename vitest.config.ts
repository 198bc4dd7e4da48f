import { defineConfig } from "vitest/config";

// Two cores: native tests own both threads, so files run one after another.
export default defineConfig({
  test: {
    include: ["ts/**/*.test.ts", "recipes/**/*.test.ts", "test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 1,
    testTimeout: 120_000,
    hookTimeout: 300_000,
  },
});
